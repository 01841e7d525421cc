"""From a folder to a model: the parts that the whole loads in test_load.py do not reach."""

from __future__ import annotations

import logging
import re
import sys
import threading
from dataclasses import replace
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbloader
from nbloader import loaders
from nbloader.errors import (
    InvalidArgumentError,
    LoadError,
    MissingPackageError,
    SelfTestError,
    UnsupportedClassError,
)
from nbloader.libraries.pip import NOT_RELEASED
from nbloader.loaders import quiet
from nbloader.loaders.imports import Import, _import, targets
from nbloader.loaders.self_test.state import as_it_was
from nbloader.loaders.sentence_transformers import _TAKEN, _TAKEN_BY
from nbloader.localhub import LocalHub
from nbloader.localhub.demo import MINILM
from nbloader.records import Component, Event, Kind, Method, Notice, Placement
from tests.models import built
from tests.samples import SELECTION

CPU = Placement(method=Method.CPU, device="cpu", dtype="float32")
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "good", "bad"]


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text classifier with its tokenizer, as transformers saves it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("classifier")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=2,
        )
        BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_a_plain_transformers_model_comes_as_its_pipeline(
    hub: LocalHub, hub_root: Path, classifier: Path, tmp_path: Path
) -> None:
    from transformers import pipeline

    place = hub_root / "models" / "tiny" / "classifier"
    place.parent.mkdir(parents=True, exist_ok=True)
    classifier.rename(place) if not place.exists() else None
    pipe = nbloader.load(
        "tiny/classifier", device="cpu", endpoint=hub.endpoint, cache_dir=tmp_path, view="none"
    )
    plain = pipeline("text-classification", model=str(place), device="cpu")
    texts = ["a good b", "bad bad"]
    assert type(pipe) is type(plain)
    assert pipe(texts) == plain(texts)


def module(**tensors: Any) -> Any:
    import torch

    made = torch.nn.Module()
    for name, tensor in tensors.items():
        made.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
    return made


def test_the_self_test_finds_tensors_that_cannot_work() -> None:
    import torch

    good = module(w=torch.ones(3), small=torch.full((4,), 6e4, dtype=torch.float16))
    good.register_buffer("mask", torch.full((2, 2), -torch.inf))
    loaders.check_modules({"vae": good, "scheduler": object()}, CPU)
    cases = {
        "vae: w was not in the weights": torch.ones(3, device="meta"),
        "vae: w holds numbers that are not finite": torch.tensor([1.0, torch.nan]),
    }
    for message, tensor in cases.items():
        with pytest.raises(SelfTestError) as caught:
            loaders.check_modules({"vae": module(w=tensor)}, CPU)
        assert caught.value.message == message
    with pytest.raises(SelfTestError, match=r"vae: w is on cpu, not on cuda"):
        loaders.check_modules({"vae": good}, replace(CPU, method=Method.GPU, device="cuda"))


class Tokenizer:
    """Knows two words and tells them apart."""

    def get_vocab(self) -> list[str]:
        """Return the words by their numbers."""
        return ["[UNK]", "good", "bad"]

    def tokenize(self, word: str) -> list[int]:
        """Return the numbers of a text."""
        return [len(word)]


class Encoder:
    """Stands in for a sentence-transformers model with odd output."""

    tokenizer = Tokenizer()

    def __init__(self, vectors: Any) -> None:
        self.vectors = vectors
        self.given: list[str] = []

    def encode(self, sentences: list[str], **keywords: Any) -> Any:
        self.given = sentences
        if isinstance(self.vectors, Exception):
            raise self.vectors
        return self.vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.array([[1.0, np.nan], [1, 2]]), "two words gave results that are not finite"),
        (np.ones((2, 0)), "two words gave results of the shape (0,) and (0,)"),
        (RuntimeError("no"), "two words could not be handed to it: RuntimeError: no"),
    ],
)
def test_a_model_that_cannot_be_called_is_found(vectors: Any, message: str) -> None:
    with pytest.raises(SelfTestError) as caught:
        loaders.check_embeddings(Encoder(vectors))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        (np.ones((2, 3)), ["two words gave the same embedding"]),
        (np.zeros((2, 3)), ["two words gave embeddings of zeros alone"]),
        (np.eye(2), []),
        (np.full((2, 1), 1e30), ["two words gave the same embedding"]),
    ],
)
def test_odd_embeddings_are_told_and_refuse_nothing(vectors: Any, told: list[str]) -> None:
    encoder = Encoder(vectors)
    assert [notice.message for notice in loaders.check_embeddings(encoder)] == told
    assert encoder.given == ["good", "bad"]


@pytest.mark.parametrize(
    ("class_name", "loader_kwargs", "message"),
    [
        ("CrossEncoder", {"truncate_dim": 3}, "CrossEncoder takes no argument 'truncate_dim'"),
        ("SentenceTransformer", {"modules": []}, "takes no argument 'modules'"),
        ("SparseEncoder", {"max_active_dim": 3}, "Do you mean max_active_dims?"),
        ("SentenceTransformer", {"truncate_dim": 3, "prompts": {}}, None),
        (None, {"anything": 3}, None),
    ],
)
def test_an_argument_that_a_class_does_not_take_is_named(
    class_name: str | None, loader_kwargs: dict[str, Any], message: str | None
) -> None:
    selection = replace(SELECTION, kind=Kind.SENTENCE_TRANSFORMERS, class_name=class_name)
    if message is None:
        loaders.check_arguments(selection, loader_kwargs)
        return
    with pytest.raises(InvalidArgumentError, match=re.escape(message)):
        loaders.check_arguments(selection, loader_kwargs)


def test_the_arguments_are_those_of_the_classes() -> None:
    import inspect

    import sentence_transformers

    ours = {"cache_folder", "model_name_or_path", "modules", "revision", "self", "token"}
    for class_name, own in _TAKEN_BY.items():
        made = getattr(sentence_transformers, class_name).__init__
        names = set(inspect.signature(made).parameters) - ours - {"use_auth_token"}
        assert names - _TAKEN == own


def test_a_call_leaves_a_model_and_the_generators_as_they_were() -> None:
    import random

    import torch

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    model.register_buffer("mask", torch.zeros(1))
    hook = torch.nn.Identity()
    before = [dict(vars(part)) for part in model.modules()]
    states = random.getstate(), torch.get_rng_state()
    with as_it_was(model):
        model.eval()
        model.register_buffer("made", torch.ones(1))
        model.mask = torch.ones(1)
        model.cache = torch.ones(1)
        model[0].register_forward_hook(hook)
        random.random()
        torch.rand(1)
    for part, attributes in zip(model.modules(), before, strict=True):
        assert vars(part).keys() == attributes.keys()
        assert all(vars(part)[name] is value for name, value in attributes.items())
    assert (list(model.state_dict()), len(model[0]._forward_hooks)) == (
        ["mask", "0.weight", "0.bias"],
        0,
    )
    assert not model.mask.any()
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_the_libraries_are_silent_during_a_load_and_as_before_after_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging as transformers_logging

    def switches() -> tuple[object, ...]:
        return (
            diffusers_logging.get_verbosity(),
            diffusers_logging.is_progress_bar_enabled(),
            transformers_logging.get_verbosity(),
            transformers_logging.is_progress_bar_enabled(),
            are_progress_bars_disabled(),
            list(logging.getLogger("transformers").handlers),
            list(logging.getLogger("diffusers").handlers),
        )

    before = switches()

    def fail() -> None:
        with quiet() as reports:
            # The logs stay open for the reports of missing tensors, which go there alone.
            assert switches() == (30, False, 30, False, True, [reports], [reports])
            logging.getLogger("transformers.modeling_utils").warning("noise")
            logging.getLogger("diffusers.pipelines").warning("noise")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert switches() == before
    assert capfd.readouterr() == ("", "")


def test_a_class_that_the_library_lacks_is_named() -> None:
    selection = replace(SELECTION, class_name="PipelineOfTomorrow", components=())
    with pytest.raises(UnsupportedClassError) as caught:
        Import(selection).wait(threading.Event())
    assert caught.value.message == (
        "org/name needs 'PipelineOfTomorrow', which diffusers 0.42.1 does not have"
    )
    line, _, last = caught.value.hint.partition("\n")
    assert re.match(r'Run this and restart the kernel: %pip install "diffusers>0.42.1" ', line)
    assert last == NOT_RELEASED
    with pytest.raises(UnsupportedClassError, match=r"Hint: Run this: pip install"):
        Import(selection, notebook=False).wait(threading.Event())


@pytest.mark.parametrize(
    ("code", "kind", "message", "hint"),
    [
        (
            "import not_there.deep",
            MissingPackageError,
            "not installed: not_there",
            "Run this: pip install not-there ",
        ),
        # As transformers tells it: by an error of its own over the one that began it.
        (
            "def __getattr__(name):\n    try:\n        import not_there\n"
            "    except ImportError as e:\n        raise ModuleNotFoundError('no ' + name) from e",
            MissingPackageError,
            "not installed: not_there",
            "Run this: pip install not-there ",
        ),
        # The package is there, in a version without the module.
        (
            "import huggingface_hub.of_tomorrow",
            LoadError,
            "library_of_tests cannot be imported: ModuleNotFoundError: No module named "
            "'huggingface_hub.of_tomorrow'",
            "Check that `import library_of_tests` works by itself; ",
        ),
        (
            "raise ModuleNotFoundError('of no name')",
            LoadError,
            "library_of_tests cannot be imported: ModuleNotFoundError: of no name",
            "Check that `import library_of_tests` works by itself; ",
        ),
    ],
)
def test_an_import_that_fails_says_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    kind: type[LoadError],
    message: str,
    hint: str,
) -> None:
    (tmp_path / "library_of_tests.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "library_of_tests", raising=False)
    with pytest.raises(LoadError) as caught:
        _import(SELECTION, "library_of_tests", "Anything", notebook=False)
    monkeypatch.delitem(sys.modules, "library_of_tests", raising=False)
    assert (type(caught.value), caught.value.message) == (kind, message)
    assert caught.value.hint.startswith(hint)


def test_a_forced_import_passes_over_classes_that_are_not_there() -> None:
    parts = (
        Component(name="a", library="diffusers", class_name="ModelOfTomorrow", paths=()),
        Component(name="b", library="transformers", class_name="AutoModel", paths=()),
    )
    selection = replace(SELECTION, class_name="PipelineOfTomorrow", components=parts)
    Import(selection, forced=True).wait(threading.Event())
    with pytest.raises(UnsupportedClassError, match="ModelOfTomorrow"):
        Import(replace(selection, class_name=None)).wait(threading.Event())


def test_a_forced_import_needs_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without("diffusers"), *sys.meta_path])
    with pytest.raises(LoadError) as caught:
        Import(SELECTION, forced=True).wait(threading.Event())
    assert type(caught.value) is MissingPackageError
    assert caught.value.message == "not installed: diffusers"


class Without(MetaPathFinder):
    """An import path on which one package is not there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname.partition(".")[0] == self._name:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def test_what_is_imported_for_a_pipeline() -> None:
    parts = (
        Component(name="vae", library="diffusers", class_name="AutoencoderKL", paths=("vae/x",)),
        Component(name="own", library="own_code", class_name="Model", paths=("own/x",)),
        Component(name="config", paths=("model_index.json",)),
    )
    selection = replace(SELECTION, class_name="SomePipeline", components=parts)
    assert targets(selection) == (
        ("diffusers", "DiffusionPipeline"),
        ("diffusers", "SomePipeline"),
        ("diffusers", "AutoencoderKL"),
    )


def test_files_that_the_library_cannot_use_are_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    selection = replace(SELECTION, kind=Kind.SENTENCE_TRANSFORMERS)
    with pytest.raises(LoadError) as caught:
        built(selection, tmp_path, CPU, {})
    assert caught.value.message.startswith("org/name could not be built from its files: ")


def test_a_second_copy_is_told_with_its_cost_until_the_first_is_gone(
    demo_hub: LocalHub, tmp_path: Path
) -> None:
    import gc

    def load() -> tuple[Any, list[Notice]]:
        events: list[Event] = []
        model = nbloader.load(
            MINILM,
            device="cpu",
            endpoint=demo_hub.endpoint,
            cache_dir=tmp_path,
            view="none",
            on_event=events.append,
        )
        return model, [event for event in events if isinstance(event, Notice)]

    first, told = load()
    assert told == []
    second, told = load()
    assert [(notice.reference, notice.message) for notice in told] == [
        (
            "already-loaded",
            f"{MINILM} is loaded in this process already; a second copy takes another 90.9 MB of "
            "memory",
        )
    ]
    del first, second
    gc.collect()
    assert load()[1] == []
