"""Well-known models as the worker would report them: selections and weights without files.

The tensors are those of `models/*.json`, which `make_models` wrote from the true architectures.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from nbloader.records import Component, ComponentWeights, Kind, RepoFile, Selection
from tests.fit.make_models import FOLDER, file_name

__all__ = [
    "BYTES",
    "MODELS",
    "Model",
    "Shapes",
    "component_weights",
    "expand",
    "read",
]

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "F8_E4M3": 1}
"""Of a number of each format that occurs here (safetensors' names)."""

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Format and shape of each tensor by its name: what a header of safetensors holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A repository, and the weights of the components that will be loaded.

    Attributes:
        name: for people.
        headers: of each component.
        published: bytes of the files with weights, as the Hub lists them.
    """

    name: str
    selection: Selection
    weights: tuple[ComponentWeights, ...]
    headers: Mapping[str, Shapes]
    published: int


def read(repo_id: str) -> dict[str, Any]:
    """The description that is kept of a repository."""
    text = (FOLDER / file_name(repo_id)).read_text(encoding="utf-8")
    described: dict[str, Any] = json.loads(text)
    return described


def expand(tensors: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a group."""
    for name, shape in tensors["shapes"].items():
        yield f"{prefix}{name}", tuple(shape)
    for group in tensors.get("groups", ()):
        for number in group["numbers"]:
            # A block may come first in a name, as in `0.weight`.
            parts = [part for part in (group["prefix"], str(number)) if part]
            yield from expand(group["tensors"], f"{prefix}{'.'.join(parts)}.")


def component_weights(name: str, header: Shapes) -> ComponentWeights:
    """What a worker reports of a component with these tensors."""
    by_dtype: Counter[str] = Counter()
    blocks: Counter[str] = Counter()
    largest = 0
    for tensor, (dtype, shape) in header.items():
        size = prod(shape) * BYTES[dtype]
        by_dtype[dtype] += size
        largest = max(largest, size)
        if block := _block(tensor):
            blocks[block] += size
    return ComponentWeights(
        name=name,
        bytes_by_dtype=dict(by_dtype),
        largest_tensor=largest,
        largest_block=max(blocks.values(), default=0),
    )


def _block(tensor: str) -> str:
    """The name up to and including its first number; empty if it has none."""
    parts = tensor.split(".")
    for place, part in enumerate(parts):
        if part.isdecimal():
            return ".".join(parts[: place + 1])
    return ""


def _model(name: str, repo_id: str, variant: str = "") -> Model:
    described = read(repo_id)
    components, headers = [], {}
    for part in described["components"]:
        dtype = described["dtypes"][variant]
        header = {tensor: (dtype, shape) for tensor, shape in expand(part["tensors"])}
        header |= {tensor: (kept, tuple(shape)) for tensor, (kept, shape) in part["extra"].items()}
        headers[part["name"]] = header
        path = _path(part, described["kind"], variant)
        components.append(
            Component(
                name=part["name"],
                library=part["library"],
                class_name=part["class_name"],
                model_type=part["model_type"],
                paths=(path,),
                weights=(path,),
            )
        )
    weights = tuple(component_weights(part, header) for part, header in headers.items())
    files = [
        # Without the headers, of some kB each.
        RepoFile(path=component.weights[0], size=part.total, etag=f"{number:064x}", lfs=True)
        for number, (component, part) in enumerate(zip(components, weights, strict=True))
    ]
    return Model(
        name=name,
        selection=Selection(
            repo_id=repo_id,
            revision="main",
            commit_hash="0" * 40,
            kind=Kind(described["kind"]),
            class_name=described["class_name"],
            components=tuple(components),
            files=tuple(sorted(files, key=lambda file: file.path)),
            variant=variant or None,
        ),
        weights=weights,
        headers=headers,
        published=described["published"][variant],
    )


def _path(part: Mapping[str, Any], kind: str, variant: str) -> str:
    stem = "diffusion_pytorch_model" if part["library"] == "diffusers" else "model"
    name = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    return f"{part['name']}/{name}" if kind == Kind.DIFFUSERS else name


_SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
_SD = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"

MODELS = (
    _model("Qwen-Image-Edit-2509", "Qwen/Qwen-Image-Edit-2509"),
    _model("FLUX.1-dev", "black-forest-labs/FLUX.1-dev"),
    _model("SDXL, fp16", _SDXL, "fp16"),
    _model("SDXL, fp32", _SDXL),
    _model("SD 1.5, fp16", _SD, "fp16"),
    _model("SD 1.5, fp32", _SD),
    _model("Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct"),
    _model("Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-0.6B"),
    _model("multilingual MiniLM", _MULTILINGUAL),
    _model("MiniLM", "sentence-transformers/all-MiniLM-L6-v2"),
)
