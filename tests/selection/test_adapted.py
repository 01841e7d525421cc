"""The class of the model that a class of peft puts its adapter on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import UnsupportedRepoError
from nbloader.records import Listing, SelectionRequest
from nbloader.selection.adapted import adapted_class, auto_class, check_adapted
from nbloader.selection.repo import Family, Repo

_MAPPED = {
    "auto_mapping": {
        "base_model_class": "BertModel",
        "parent_library": "transformers.models.bert.modeling_bert",
    }
}
_ELSEWHERE = {"auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}}


def _repo() -> Repo:
    listing = Listing(repo_id="org/adapter", revision="main", commit_hash="a" * 40, files=())
    return Repo(listing, Family(request=SelectionRequest(), known={}, listings={}))


@pytest.mark.parametrize(
    ("class_name", "config", "architecture", "expected"),
    [
        ("AutoPeftModelForCausalLM", {"task_type": "CAUSAL_LM"}, "", "AutoModelForCausalLM"),
        ("AutoPeftModelForSeq2SeqLM", _MAPPED, "", "BertModel"),
        ("PeftModel", {"task_type": "SEQ_CLS"}, "", "AutoModelForSequenceClassification"),
        ("PeftModel", {"task_type": "FEATURE_EXTRACTION"}, "", "AutoModel"),
        ("PeftModel", {"task_type": "CAUSAL_LM"} | _MAPPED, "", "AutoModelForCausalLM"),
        ("PeftModel", _MAPPED, "BertForMaskedLM", "BertModel"),
        ("PeftModel", _ELSEWHERE, "BertForMaskedLM", "BertForMaskedLM"),
        ("PeftModel", {}, "", "AutoModel"),
        ("PeftModelForCausalLM", {}, "", "AutoModelForCausalLM"),
        ("PeftModelForFeatureExtraction", {}, "", "AutoModel"),
        ("PeftMixedModel", {"task_type": None}, "OPTForCausalLM", "OPTForCausalLM"),
    ],
)
def test_the_base_is_of_the_class_that_the_adapter_was_trained_on(
    class_name: str, config: dict[str, Any], architecture: str, expected: str
) -> None:
    assert adapted_class(class_name, config, architecture) == expected


@pytest.mark.parametrize(
    ("class_name", "config", "hint"),
    [
        (
            "AutoPeftModelForSequenceClassification",
            {"task_type": "CAUSAL_LM"},
            'cls="AutoPeftModelForCausalLM"',
        ),
        ("AutoPeftModel", {"task_type": "TOKEN_CLS"}, 'cls="AutoPeftModelForTokenClassification"'),
        ("AutoPeftModelForCausalLM", {"task_type": None}, 'cls="PeftModel"'),
        ("AutoPeftModel", _ELSEWHERE, 'cls="PeftModel"'),
    ],
)
def test_an_auto_class_refuses_what_is_not_for_it(
    class_name: str, config: dict[str, Any], hint: str
) -> None:
    with pytest.raises(UnsupportedRepoError) as raised:
        check_adapted(_repo(), config, class_name)
    assert hint in str(raised.value)


def test_the_tasks_are_those_of_the_library() -> None:
    peft = pytest.importorskip("peft")
    for task, cls in peft.auto.MODEL_TYPE_TO_PEFT_MODEL_MAPPING.items():
        name = f"Auto{cls.__name__}"
        assert auto_class({"task_type": task}) == name
        check_adapted(_repo(), {"task_type": task}, name)
        target = getattr(peft, name)._target_class.__name__
        assert adapted_class(name, {"task_type": task}, "") == target


_json = st.none() | st.text(max_size=9) | st.dictionaries(st.text(max_size=5), st.text(max_size=5))


@given(_json, _json, st.sampled_from(["PeftModel", "AutoPeftModel", "AutoPeftModelForCausalLM"]))
def test_whatever_an_adapter_says_there_is_the_name_of_a_class(
    task: object, mapping: object, class_name: str
) -> None:
    config = {"task_type": task, "auto_mapping": mapping}
    assert adapted_class(class_name, config, "").isidentifier()
