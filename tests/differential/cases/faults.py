"""Files that do not hold what the model needs, for each library: refused, and foreseen.

Tensors may lack, have another shape, or stand under names with a prefix. Surplus ones harm nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nbloader.errors import MissingTensorsError, ModelLoadError
from tests.differential.cases.samples import CASES as _WHOLE
from tests.differential.harness import Case

Tensors = dict[str, Any]
Change = Callable[[Tensors], Tensors]


def _edited(folder: Path, save: Callable[[Path], object], path: str, change: Change) -> None:
    """Save a model and change what is in one of its files."""
    from safetensors.torch import load_file, save_file

    save(folder)
    (found,) = folder.glob(path)
    tensors = change(load_file(found))
    new = found.with_name("new")
    save_file(tensors, new, metadata={"format": "pt"})
    new.replace(found)


def _without(part: str) -> Change:
    return lambda tensors: {key: each for key, each in tensors.items() if part not in key}


def _prefixed(tensors: Tensors) -> Tensors:
    return {f"module.{key}": each for key, each in tensors.items()}


def _misshapen(part: str) -> Change:
    def change(tensors: Tensors) -> Tensors:
        return {
            key: each[: len(each) // 2].clone() if part in key else each
            for key, each in tensors.items()
        }

    return change


def _surplus(tensors: Tensors) -> Tensors:
    first = next(iter(tensors.values()))
    return {**tensors, "of.another.weight": first.clone()}


@dataclass(frozen=True, slots=True)
class _Place:
    """A file of weights of one of the samples, and a tensor in it.

    Attributes:
        strict: whether the library wants no surplus tensors either.
    """

    name: str
    path: str
    part: str
    strict: bool = False


_EMBEDDER = "sentence-transformers-transformer-pooling-dense"

PLACES = (
    _Place("transformers-bert-text-classification", "model.safetensors", "classifier.weight"),
    _Place(
        "sentence-transformers-transformer-pooling-dense", "model.safetensors", "layer.1.output"
    ),
    _Place(_EMBEDDER, "2_Dense/*.safetensors", "bias", strict=True),
    _Place("diffusers-stable-diffusion", "unet/*.safetensors", "conv_out.weight"),
    _Place("diffusers-stable-diffusion", "text_encoder/*.safetensors", "layers.0.mlp.fc1"),
    _Place("diffusers-stable-diffusion", "vae/*.safetensors", "decoder.conv_in"),
)


def _cases(place: _Place) -> list[Case]:
    whole = next(case for case in _WHOLE if case.id == place.name)
    changes: Mapping[str, Change] = {
        "missing": _without(place.part),
        "misshapen": _misshapen(place.part),
        "prefixed": _prefixed,
        "surplus": _surplus,
    }
    folder = place.path.partition("/")[0].lower().replace("_", "") if "/" in place.path else "model"
    cases = []
    for fault, change in changes.items():
        loads = fault == "surplus" and not place.strict
        error = ModelLoadError if fault == "surplus" else MissingTensorsError
        cases.append(
            Case(
                name=f"fault-{folder}-{fault}",
                kind=whole.kind,
                save=partial(_edited, save=whole.save, path=place.path, change=change),
                plain=whole.plain if loads else None,
                call=whole.call if loads else None,
                refused=None if loads else error.reference,
                group=f"{fault} tensors",
                oldest=True,
            )
        )
    return cases


CASES = tuple(case for place in PLACES for case in _cases(place))
