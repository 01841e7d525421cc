"""Memory that comes back, whoever still refers to the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import nbloader
from nbloader import loaders
from nbloader.errors import InvalidArgumentError, LoadError
from nbloader.records import LoadedModel
from tests.models import save_classifier, save_embedder, save_pipeline

LOADS = {"pipeline": save_pipeline, "embedder": save_embedder, "classifier": save_classifier}
CALLS = {
    "pipeline": lambda model: model("a", num_inference_steps=1),
    "embedder": lambda model: model.encode("good"),
    "classifier": lambda model: model("good"),
}


def built(kind: str, folder: Path) -> Any:
    LOADS[kind](folder)
    match kind:
        case "pipeline":
            from diffusers import DiffusionPipeline

            return DiffusionPipeline.from_pretrained(folder)
        case "embedder":
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(str(folder), device="cpu")
    from transformers import pipeline

    return pipeline("text-classification", model=str(folder), device="cpu")


def modules(model: Any) -> list[torch.nn.Module]:
    own = [model] if isinstance(model, torch.nn.Module) else vars(model).values()
    return [each for each in own if isinstance(each, torch.nn.Module)]


def size_of(model: Any) -> int:
    return loaders.bytes_of(modules(model))


@pytest.mark.parametrize("kind", LOADS)
def test_nothing_is_left_in_a_model_and_a_call_says_why(kind: str, tmp_path: Path) -> None:
    model = built(kind, tmp_path)
    held = [tensor for module in modules(model) for tensor in module.state_dict().values()]
    size = size_of(model)
    freed = nbloader.unload(model)
    # What is held outside of it, such as a state dict, keeps its own tensors.
    assert all(tensor.numel() for tensor in held)
    assert freed.bytes == size == freed.bytes_by_device["cpu"]
    assert size_of(model) == 0
    with pytest.raises(LoadError, match="was unloaded"):
        CALLS[kind](model)
    assert nbloader.unload(model).bytes == 0


CHILD = """
import gc, json, sys
import torch
from transformers import BertConfig, BertModel
import nbloader
from tests.rise_of_memory import anonymous

torch.zeros(1)
small = BertConfig(hidden_size=128, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
BertModel(small)
config = BertConfig(hidden_size=256, num_hidden_layers=2, num_attention_heads=2, vocab_size=200_000)
before = anonymous()
Out = {1: BertModel(config)}
size = sum(each.numel() * 4 for each in Out[1].parameters())
loaded = anonymous() - before
freed = nbloader.unload(Out[1])
print(json.dumps([size, loaded, anonymous() - before, freed.bytes]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
def test_the_memory_comes_back_to_the_system() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=300
    )
    size, loaded, left, freed = json.loads(done.stdout)
    # The smallest tensors fit where something else was freed before.
    assert loaded > size * 0.95 > 200_000_000
    assert freed >= size
    assert left <= size / 100


def test_what_another_model_holds_as_well_stays(tmp_path: Path) -> None:
    first = built("pipeline", tmp_path)
    second = type(first)(**first.components)
    for model in (first, second):
        loaders.remember(id(model), LoadedModel(repo_id="a", device="cpu", bytes=1), model)
    assert nbloader.unload(first).bytes == 0
    assert [each.repo_id for each in loaders.loaded()].count("a") == 1
    assert size_of(second)
    CALLS["pipeline"](second)
    assert nbloader.unload([first, second]).bytes > 0
    assert size_of(second) == 0


def test_what_another_model_holds_a_part_of_works_on() -> None:
    part = torch.nn.Linear(4, 4)
    first, second = torch.nn.Sequential(part, torch.nn.Linear(4, 4)), torch.nn.Sequential(part)
    loaders.remember("second", LoadedModel(repo_id="b", device="cpu", bytes=1), second)
    assert nbloader.unload(first).bytes == 4 * (16 + 4)
    assert second(torch.zeros(4)).shape == (4,)
    with pytest.raises(LoadError, match="was unloaded"):
        first(torch.zeros(4))


def test_all_are_those_that_were_loaded_here_and_are_alive() -> None:
    model = torch.nn.Linear(1000, 1000)
    loaders.remember("key", LoadedModel(repo_id="a", device="cpu", bytes=1), model)
    assert nbloader.unload("all").bytes >= 4_004_000
    assert loaders.loaded() == ()
    assert repr(nbloader.unload("all")) == "nothing was there to be freed"


def test_hooks_that_hold_weights_give_them_up(tmp_path: Path) -> None:
    from accelerate import cpu_offload

    model = built("classifier", tmp_path).model
    size = size_of(model)
    weights = model.state_dict()
    cpu_offload(model, execution_device="cpu", state_dict=weights)
    assert {each.device.type for each in model.parameters()} == {"meta"}
    freed = nbloader.unload(model)
    assert freed.bytes >= size * 0.99
    assert not any(tensor.numel() for tensor in weights.values())


def test_the_states_of_quantized_weights_go_with_them(tmp_path: Path) -> None:
    from transformers import AutoModel, BitsAndBytesConfig

    save_classifier(tmp_path)
    model = AutoModel.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(load_in_4bit=True), device_map={"": "cpu"}
    )
    states = [
        state
        for each in model.parameters()
        if (state := getattr(each, "quant_state", None)) is not None
    ]
    assert states
    nbloader.unload(model)
    assert not [state for state in states if state.absmax.numel()]
    assert not [each for each in model.parameters() if each.numel()]


def test_what_is_counted_is_said() -> None:
    freed = loaders.Freed({"cuda:0": 4_200_000_000, "cpu": 1_500_000})
    assert (freed.bytes, repr(freed)) == (
        4_201_500_000,
        "freed 1.5 MB of memory and 4.2 GB of cuda:0",
    )


@pytest.mark.parametrize("given", ["everything", 3, {}, [1], None, torch.zeros(3)])
def test_what_is_not_a_model_is_refused(given: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="unload takes a model"):
        nbloader.unload(given)
