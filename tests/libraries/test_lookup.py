"""The class that a caller names is found without an import, and is what the libraries have."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import InvalidArgumentError, MissingPackageError
from nbloader.libraries import look_up, package_folder
from nbloader.records import Form, Target

_AUTO = {
    "AutoConfig",
    "AutoFeatureExtractor",
    "AutoImageProcessor",
    "AutoProcessor",
    "AutoTokenizer",
    "AutoVideoProcessor",
}
_ENCODERS = {"CrossEncoder", "MultiVectorEncoder", "SentenceTransformer", "SparseEncoder"}

_BASES = {"ModelMixin", "PreTrainedModel", "ProcessorMixin", "SchedulerMixin"}
"""Others are made from them, which alone load anything."""

_OF_NO_FORM = ("Blocks", "ModularPipeline", "EMAModel", "RagRetriever")
"""How the names of those end that have `from_pretrained` and are not for one repository of weights:
modular pipelines and their blocks, a copy for training, and what loads a data set."""


def _forms_by_ancestry(told: dict[str, str | None]) -> dict[str, str | None]:
    """Put in what the bases do not tell."""
    forms = dict(told)
    for key, form in told.items():
        library, _, name = key.partition(".")
        if library == "transformers" and name in (*_AUTO, "RagTokenizer"):
            forms[key] = "part"
        elif library == "sentence_transformers" and name in _ENCODERS:
            forms[key] = "encoder"
        elif library == "diffusers" and name.startswith("AutoPipelineFor"):
            forms[key] = "pipeline"
        elif key == "diffusers.AutoModel":
            forms[key] = "model"
        elif name in _BASES or (form == "another" and name.endswith(_OF_NO_FORM)):
            forms[key] = None
    return forms


def _found(key: str) -> Target | None:
    try:
        (target,) = look_up(key)
    except InvalidArgumentError:
        return None
    return target


@pytest.fixture(scope="module")
def libraries() -> Any:
    """What the imported libraries say."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.libraries.public_classes"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(run.stdout.splitlines()[-1])


def test_every_public_class_of_the_libraries_has_its_form(libraries: Any) -> None:
    asked = _forms_by_ancestry(libraries["forms"])
    # diffusers puts it there when its pipelines are imported: transformers has no such class.
    del asked["transformers.T5GemmaEncoder"]
    loadable = {key: form for key, form in asked.items() if form is not None}
    assert len(loadable) > 4000
    told = {key: target and target.form.value for key in loadable for target in [_found(key)]}
    assert told == loadable


def test_what_is_public_and_cannot_be_loaded_is_refused(libraries: Any) -> None:
    asked = _forms_by_ancestry(libraries["forms"])
    others = [key for key, form in asked.items() if form is None]
    assert len(others) > 300
    # A refusal reads all modules for the nearest names: one of each twelve is enough.
    assert [key for key in others[::12] if _found(key)] == []


def test_a_class_that_needs_a_missing_package_is_found(libraries: Any) -> None:
    stand_ins = [key for key in libraries["stand_ins"] if key.endswith(("Pipeline", "Tokenizer"))]
    assert {key: form for key in stand_ins if not (form := _found(key))} == {}


def test_a_pipeline_takes_what_diffusers_says(libraries: Any) -> None:
    takes = dict(libraries["takes"])
    del takes["diffusers.DiffusionPipeline"]  # It is what the index of the repository names.
    assert len(takes) > 200
    told = {}
    for key in takes:
        (target,) = look_up(key)
        told[key] = [target.takes and list(target.takes), list(target.optional)]
    assert told == takes


# -- names -----------------------------------------------------------------------------------------


def test_a_name_that_two_libraries_have_gives_both() -> None:
    assert look_up("AutoModel") == (
        Target(library="transformers", class_name="AutoModel", form=Form.MODEL),
        Target(library="diffusers", class_name="AutoModel", form=Form.MODEL),
    )


@pytest.mark.parametrize(
    "name", ["diffusers.AutoModel", "diffusers.models.auto_model.AutoModel", " diffusers.AutoModel"]
)
def test_a_name_with_its_library_in_front_is_of_that(name: str) -> None:
    assert look_up(name) == (Target(library="diffusers", class_name="AutoModel", form=Form.MODEL),)


@pytest.mark.parametrize(
    ("name", "library", "form"),
    [
        ("ASTModel", "transformers", Form.MODEL),  # its folder has another name
        ("AutoPeftModelForCausalLM", "peft", Form.ADAPTED),
        ("AutoTokenizer", "transformers", Form.PART),
        ("BertTokenizerFast", "transformers", Form.PART),  # another name of a class
        ("ControlNetModel", "diffusers", Form.MODEL),
        ("CrossEncoder", "sentence_transformers", Form.ENCODER),
        ("EulerDiscreteScheduler", "diffusers", Form.PART),
        ("GenerationConfig", "transformers", Form.PART),
        ("MotionAdapter", "diffusers", Form.MODEL),
        ("Wav2Vec2ProcessorWithLM", "transformers", Form.PART),
    ],
)
def test_a_name_is_found(name: str, library: str, form: Form) -> None:
    assert look_up(name) == (Target(library=library, class_name=name, form=form),)


def _error(cls: Any, **how: Any) -> tuple[str, str]:
    with pytest.raises(InvalidArgumentError) as caught:
        look_up(cls, **how)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("automodelforcausallm", "AutoModelForCausalLM"),
        ("StableDifusionPipeline", "StableDiffusionPipeline"),
        ("SentenceTransformers", "SentenceTransformer"),
        ("FluxTransformer2dModel", "FluxTransformer2DModel"),
        ("transformers.AutoTokeniser", "AutoTokenizer"),
    ],
)
def test_the_nearest_names_are_the_hint_for_one_that_is_unknown(name: str, near: str) -> None:
    message, hint = _error(name)
    assert "no such class in" in message
    assert hint.startswith(f"Is one of these meant? cls={near!r}")


def test_a_library_that_is_named_wrongly_is_told() -> None:
    assert _error("diffusers.AutoTokenizer") == (
        "cls='AutoTokenizer': diffusers has no such class",
        'It is one of transformers: cls="transformers.AutoTokenizer".',
    )
    message, hint = _error("timm.Model")
    assert message == "cls='timm.Model' is no class of a library that nbloader knows"
    assert "transformers, diffusers, sentence_transformers or peft" in hint


@pytest.mark.parametrize("name", ["pipeline", "transformers.pipeline", "TextGenerationPipeline"])
def test_a_pipeline_of_transformers_is_asked_for_by_its_task(name: str) -> None:
    _, hint = _error(name)
    assert hint == 'Leave it out, and name the task: nbloader.load(..., task="text-generation").'


@pytest.mark.parametrize("name", ["LoraModel", "VaeImageProcessor", "ModularPipeline"])
def test_a_class_that_loads_no_repository_is_told_apart(name: str) -> None:
    message, _ = _error(name)
    assert "with from_pretrained" in message


@pytest.mark.parametrize("name", ["PreTrainedModel", "diffusers.ModelMixin"])
def test_a_class_that_others_are_made_from_is_refused(name: str) -> None:
    message, hint = _error(name)
    assert "other classes are made from it" in message
    assert 'cls="AutoModel"' in hint


@pytest.mark.parametrize("wrong", [None, 3, ("AutoModel",), b"AutoModel"])
def test_what_is_neither_a_class_nor_a_name_is_refused(wrong: object) -> None:
    message, hint = _error(wrong)
    assert message == f"cls= is of the type {type(wrong).__name__}"
    assert 'cls="AutoModelForCausalLM"' in hint


@given(st.text(max_size=120))
def test_without_a_library_any_text_gives_a_named_error(text: str) -> None:
    with pytest.raises((InvalidArgumentError, MissingPackageError), match="Hint: "):
        look_up(text, find=_only())


# -- packages --------------------------------------------------------------------------------------


def _only(*there: str) -> Callable[[str], Path | None]:
    return lambda name: package_folder(name) if name in there else None


@pytest.mark.parametrize(
    ("name", "package", "there"),
    [
        ("FluxPipeline", "diffusers", ("transformers",)),
        ("diffusers.AutoModel", "diffusers", ("transformers",)),
        ("UNet2DConditionModel", "diffusers", ("transformers",)),
        ("CrossEncoder", "sentence-transformers", ()),
        ("AutoPeftModelForCausalLM", "peft", ()),
        ("BertModel", "transformers", ()),
    ],
)
def test_the_missing_library_of_a_name_is_told(
    name: str, package: str, there: tuple[str, ...]
) -> None:
    with pytest.raises(MissingPackageError) as caught:
        look_up(name, find=_only(*there), notebook=False)
    assert "is not installed" in caught.value.message
    assert caught.value.hint.startswith("Run this")
    assert package in caught.value.hint


def test_without_any_library_an_odd_name_is_unknown() -> None:
    message, _ = _error("Zz", find=_only())
    assert message == "cls='Zz': no such class in any installed library"


# -- classes ---------------------------------------------------------------------------------------


def test_a_class_is_found_by_its_library_and_name() -> None:
    from diffusers import AutoencoderKL
    from peft import PeftModel
    from transformers import BertModel, BertTokenizerFast

    assert look_up(AutoencoderKL) == look_up("diffusers.AutoencoderKL")
    assert look_up(BertModel) == look_up("transformers.BertModel")
    assert look_up(PeftModel) == look_up("peft.PeftModel")
    assert look_up(BertTokenizerFast) == look_up(f"transformers.{BertTokenizerFast.__name__}")


def test_a_class_of_the_caller_is_refused_with_its_own_line() -> None:
    from transformers import BertModel

    class Mine(BertModel):  # type: ignore[misc]
        pass

    message, hint = _error(Mine)
    assert message.startswith("cls= is the class 'tests.libraries.test_lookup.test_a_class_of_the")
    assert hint == (
        'Load it with its own from_pretrained: Mine.from_pretrained(nbloader.download("org/name")).'
    )


def test_a_class_without_from_pretrained_is_refused() -> None:
    message, _ = _error(dict)
    assert message == "cls= is the class 'builtins.dict', which has no from_pretrained"


def test_a_class_of_a_repositorys_code_stands_under_the_library_that_it_is_made_from() -> None:
    from transformers import PreTrainedModel

    own = type("Own", (PreTrainedModel,), {"__module__": "transformers_modules.org.name.modeling"})
    assert look_up(own) == (Target(library="transformers", class_name="Own", form=Form.MODEL),)
