"""What the tensors of a file of weights are, told by ranges of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import save

from nbloader.errors import MalformedFileError, UnsupportedRepoError
from nbloader.records import Component, ComponentWeights, Kind, RepoFile, Selection
from nbloader.selection.described import (
    Described,
    DescribedTensor,
    describe,
    described_headers,
    format_of,
    read_description,
    with_taken,
)
from nbloader.selection.sizes import Header
from tests.gguf_files import gguf_file

TENSORS = {"a.0.weight": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.float16)}
EXPECTED = {
    "a.0.weight": DescribedTensor("F32", (2, 3), 24),
    "b": DescribedTensor("F16", (4,), 8),
}


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def read(content: bytes, name: str) -> tuple[Described, int]:
    """What is described, and how many bytes of the file were read for it."""
    count = 0

    def range_of(first: int, last: int) -> bytes:
        nonlocal count
        count += last - first
        return content[first:last]

    file = RepoFile(path=name, size=len(content), etag="0" * 64, lfs=True)
    return read_description(describe(file, range_of)), count


@pytest.mark.parametrize(
    ("content", "name", "format_"),
    [
        (save(TENSORS), "x.safetensors", "safetensors"),
        (save(TENSORS), "x.sft", "safetensors"),
        (pickled(TENSORS), "x.ckpt", "pickle"),
        (pickled({"state_dict": TENSORS, "epoch": 3}), "x.pt", "pickle"),
        (pickled({"state_dict": {"state_dict": TENSORS}}), "x.bin", "pickle"),
    ],
)
def test_the_tensors_of_every_format_are_told(content: bytes, name: str, format_: str) -> None:
    found, _ = read(content, name)
    assert (found.format, found.tensors, found.metadata) == (format_, EXPECTED, {})
    assert found.shapes == {"a.0.weight": (2, 3), "b": (4,)}


def test_of_a_large_file_only_the_description_is_read() -> None:
    large = {"w": torch.zeros(1000, 1000)}
    for content, name in ((save(large), "x.safetensors"), (pickled(large), "x.pt")):
        found, count = read(content, name)
        assert found.shapes == {"w": (1000, 1000)}
        assert count < 50_000


def test_of_a_gguf_the_short_entries_are_told_too() -> None:
    content = gguf_file(
        {"general.architecture": "flux", "n": 3},
        {"a.0.weight": ("Q8_0", (2, 64), None), "b": ("F32", (4,), None)},
    )
    found, _ = read(content, "x.gguf")
    assert found.metadata == {"general.architecture": "flux", "n": 3}
    assert found.tensors == {
        "a.0.weight": DescribedTensor("Q8_0", (2, 64), 136),
        "b": DescribedTensor("F32", (4,), 16),
    }
    assert found.header() == Header(
        tensors=2,
        bytes_by_dtype={"Q8_0": 136, "F32": 16},
        length=found.length,
        largest_tensor=136,
        blocks={"a.0": 136},
        quantization="gguf",
    )
    assert found.header(["b"]).quantization is None


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("a/b.safetensors", "safetensors"),
        ("A.GGUF", "gguf"),
        ("x.ckpt", "pickle"),
        ("model.safetensors.index.json", None),
        ("safetensors", None),
        ("x.onnx", None),
    ],
)
def test_the_format_is_told_by_the_name(name: str, format_: str | None) -> None:
    assert format_of(name) == format_


class Odd:
    """Something that no state dict holds."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return print, ("ran",)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": Odd()}, "it names '__builtin__.print'"),
        ([1, 2], "it holds no dictionary of tensors"),
        ({"state_dict": {}}, "it holds no dictionary of tensors"),
    ],
)
def test_a_pickle_that_is_no_state_dict_is_named_and_not_run(
    value: object, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnsupportedRepoError) as caught:
        read(pickled(value), "x.ckpt")
    assert caught.value.message == (
        f"What 'x.ckpt' holds cannot be told without running it: {why}."
    )
    assert capsys.readouterr().out == ""


def test_a_dictionary_that_holds_itself_ends() -> None:
    value: dict[str, object] = {"a": torch.zeros(2)}
    value["state_dict"] = value
    with pytest.raises(UnsupportedRepoError, match="it holds no dictionary of tensors"):
        read(pickled(value), "x.ckpt")


def test_what_is_not_what_its_name_says_is_named() -> None:
    for name in ("x.safetensors", "x.gguf"):
        with pytest.raises(MalformedFileError):
            read(b"<html>" * 100, name)


def test_the_tensors_of_a_checkpoint_are_dealt_out_to_what_is_taken_from_it() -> None:
    tensors = {
        "unet.0.a": torch.zeros(10),
        "unet.1.a": torch.zeros(20),
        "vae.a": torch.zeros(5, dtype=torch.float16),
        "ema.a": torch.zeros(1000),
    }
    content = save(tensors)
    file = RepoFile(path="x.safetensors", size=len(content), etag="0" * 64, lfs=True)
    known = {"x.safetensors": describe(file, lambda first, last: content[first:last])}
    base = "org/base"
    selection = Selection(
        repo_id="org/name",
        revision="main",
        commit_hash="0" * 40,
        kind=Kind.DIFFUSERS,
        class_name="P",
        components=(
            Component(
                name="unet",
                paths=("org/base:unet/config.json", "x.safetensors"),
                weights=("x.safetensors",),
                checkpoint="x.safetensors",
                config=base,
                tensors="unet.",
            ),
            Component(
                name="vae",
                paths=("org/base:vae/config.json",),
                checkpoint="x.safetensors",
                config=base,
                tensors="vae.",
            ),
            Component(name="config", paths=("org/base:model_index.json",)),
        ),
        files=(file,),
        checkpoint="x.safetensors",
    )
    headers = described_headers(selection, known)
    assert {path: header.tensors for path, header in headers.items()} == {"x.safetensors": 4}
    whole = ComponentWeights(
        name="unet", bytes_by_dtype={"F32": 4120}, largest_tensor=4000, largest_block=0
    )
    assert with_taken(selection, known, [whole]) == (
        ComponentWeights(
            name="unet", bytes_by_dtype={"F32": 120}, largest_tensor=80, largest_block=80
        ),
        ComponentWeights(
            name="vae", bytes_by_dtype={"F16": 10}, largest_tensor=10, largest_block=0
        ),
    )


def test_what_transformers_makes_of_a_gguf_is_counted_as_numbers() -> None:
    content = gguf_file(
        {"general.architecture": "llama"},
        {"blk.0.w": ("Q8_0", (2, 64), None), "n": ("F16", (4,), None)},
    )
    file = RepoFile(path="x.gguf", size=len(content), etag="0" * 64, lfs=True)
    known = {"x.gguf": describe(file, lambda first, last: content[first:last])}

    def taken(library: str) -> tuple[ComponentWeights, ...]:
        part = Component(
            name="model",
            library=library,
            paths=("x.gguf",),
            weights=("x.gguf",),
            checkpoint="x.gguf",
        )
        selection = Selection(
            repo_id="org/name",
            revision="main",
            commit_hash="0" * 40,
            kind=Kind.CLASSES,
            class_name="C",
            components=(part,),
            files=(file,),
            checkpoint="x.gguf",
        )
        return with_taken(selection, known, [])

    assert taken("transformers") == (
        ComponentWeights(
            name="model",
            bytes_by_dtype={"F32": 512, "F16": 8},
            largest_tensor=512,
            largest_block=512,
        ),
    )
    assert taken("diffusers") == (
        ComponentWeights(
            name="model",
            bytes_by_dtype={"Q8_0": 136, "F16": 8},
            largest_tensor=136,
            largest_block=136,
            quantization="gguf",
        ),
    )
