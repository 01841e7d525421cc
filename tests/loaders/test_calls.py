"""The first call of a model of transformers: it tells, refuses nothing and changes nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbloader.loaders import quiet
from nbloader.loaders.self_test import transformers as self_test
from nbloader.loaders.self_test.transformers import check_model
from nbloader.records import Method, Notice, Placement
from tests.differential.comparison import differences
from tests.models import seeded

pytestmark = pytest.mark.filterwarnings("ignore")

CPU = Placement(method=Method.CPU, device="cpu", dtype="float32")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "only", "these", "five", "##5", "words"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Makes the pipeline of a task from a tiny model whose tokenizer knows few words."""
    import transformers

    vocab = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    vocab.write_text("\n".join(WORDS))

    def make(cls: str, task: str | None, **changes: Any) -> Any:
        found = getattr(transformers, cls)
        small = {
            "vocab_size": len(WORDS),
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_position_embeddings": 32,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "pad_token_id": 0,
        }
        model = seeded(lambda: found(found.config_class(**{**small, **changes}))).eval()
        if task is None:
            return model
        tokenizer = transformers.BertTokenizerFast(vocab=str(vocab), model_max_length=32)
        return transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu")

    return make


def states() -> tuple[Any, ...]:
    import torch

    return random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()


TEXTS = [
    ("BertForSequenceClassification", "text-classification"),
    ("BertForSequenceClassification", "zero-shot-classification"),
    ("BertForTokenClassification", "token-classification"),
    ("BertForMaskedLM", "fill-mask"),
    ("BertModel", "feature-extraction"),
    ("LlamaForCausalLM", "text-generation"),
    ("BertForQuestionAnswering", None),
    ("T5ForConditionalGeneration", None),
]


@pytest.mark.parametrize(("cls", "task"), TEXTS)
def test_a_first_call_leaves_everything_as_it_was(
    made: Callable[..., Any], cls: str, task: str | None
) -> None:
    changes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1} if cls[:2] == "T5" else {}
    built, other = (made(cls, task, **changes) for _ in range(2))
    model = getattr(built, "model", built) if task else built
    (model if task else built).train()
    (other.model if task else other).train()
    generation = getattr(model, "generation_config", None)
    before = states(), repr(generation), repr(model.config)
    calls: list[int] = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    with quiet():
        assert check_model(built, CPU) == []
    hook.remove()
    assert calls
    assert (states(), repr(generation), repr(model.config)) == before
    assert getattr(model, "generation_config", None) is generation
    assert differences(built, other) == []


def test_an_error_of_a_first_call_is_told_and_not_raised(made: Callable[..., Any]) -> None:
    pipe = made("BertModel", "feature-extraction")

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no\nsuch thing")

    pipe.model.forward = fail
    (notice,) = check_model(pipe, CPU)
    assert (notice.reference, notice.message) == (
        "self-test-failed",
        "a first call of the pipeline feature-extraction ended in ValueError: no such thing",
    )


def test_numbers_that_are_none_are_told(made: Callable[..., Any]) -> None:
    import torch

    pipe = made("BertForSequenceClassification", "text-classification")
    with torch.no_grad():
        pipe.model.classifier.bias.fill_(torch.nan)
    assert [notice.message for notice in check_model(pipe, CPU)] == [
        "the numbers that a first call gave are not finite"
    ]


def test_what_is_large_or_elsewhere_is_not_called(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = made("BertModel", "feature-extraction")
    calls: list[int] = []
    pipe.model.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(self_test, "_MOST_ON_CPU", 100)
    assert check_model(pipe, CPU) == []
    monkeypatch.undo()
    pipe.model.to("meta")
    assert (check_model(pipe, CPU), calls) == ([], [])


@pytest.mark.parametrize("rows", [len(WORDS), 8, 3])
def test_a_word_is_one_that_the_model_has_numbers_for(made: Callable[..., Any], rows: int) -> None:
    pipe = made("BertModel", "feature-extraction", vocab_size=rows)
    word = self_test._word(pipe)
    if rows < 6:
        assert word is None
        assert check_model(pipe, CPU) == []
    else:
        assert word is not None
        assert max(pipe.tokenizer(word)["input_ids"]) < rows
        assert pipe.tokenizer.unk_token_id not in pipe.tokenizer(word)["input_ids"]


def test_a_tiny_model_is_called_in_a_moment(made: Callable[..., Any]) -> None:
    pipe = made("LlamaForCausalLM", "text-generation")
    check_model(pipe, CPU)  # what torch and the library make once in a process
    spent = []
    for _ in range(3):
        begun = time.thread_time()
        check_model(pipe, CPU)
        spent.append(time.thread_time() - begun)
    assert min(spent) < 0.5


def test_a_model_of_pictures_alone_sees_one(tmp_path: Path) -> None:
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
    )
    model = seeded(lambda: transformers.ViTModel(config)).eval()
    seen: list[Any] = []
    model.register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["pixel_values"].shape)), with_kwargs=True
    )
    told: list[Notice] = check_model(model, CPU)
    assert (told, seen) == ([], [(1, 3, 32, 32)])
