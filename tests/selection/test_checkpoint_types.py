"""The table of checkpoint types says what the installed diffusers says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.loaders.single_file_utils import (
    DIFFUSERS_DEFAULT_PIPELINE_PATHS,
    infer_diffusers_model_type,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nbloader.selection.checkpoint_types import DENOISER, Shapes, Side, Type, type_of, types

UNTOLD = {
    "z-image-turbo-controlnet-2.1",  # told by the values of a tensor alone
    "animatediff_scribble",  # the library finds what tells it in a ControlNet, which comes first
}

LOOKED_AT = {
    "AutoencoderDC": ("encoder.project_in.conv.conv.bias", "decoder.project_in.main.conv.weight"),
    "MotionAdapter": ("up_blocks.2.motion_modules.0.temporal_transformer.norm.weight",),
}


def shapes_of(type_: Type, *, longest: bool = True) -> dict[str, tuple[int, ...]]:
    """The least that is of a type, with the longer or the shorter of two names."""
    pick = 0 if longest else -1
    shapes: dict[str, list[int]] = {}
    if type_.some:
        shapes[type_.some[pick]] = [1] * 5
    for side in type_.sides:
        sides = shapes.setdefault(side.names[pick], [1] * 5)
        sides[side.axis] = side.length
    for name in type_.every:
        shapes.setdefault(name, [1] * 5)
    prefix = DENOISER if longest else ""
    if type_.end:
        shapes[prefix + type_.end] = [1] * 5
    # What the library looks at without having asked whether it is there.
    if type_.name.startswith("wan-") and type_.some:
        shapes.setdefault(f"{prefix}patch_embedding.weight", [1] * 5)
    if type_.class_name == "FluxTransformer2DModel" and not type_.absent:
        shapes[f"{prefix}guidance_in.in_layer.bias"] = [1]
        shapes.setdefault(f"{prefix}img_in.weight", [1, 1])
    for name in LOOKED_AT.get(type_.class_name, ()):
        shapes.setdefault(name, [1] * 5)
    return {name: tuple(sides) for name, sides in shapes.items()}


def inferred(shapes: Shapes) -> str:
    tensors = {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}
    return str(infer_diffusers_model_type(tensors))


@pytest.mark.parametrize("longest", [True, False])
@pytest.mark.parametrize("type_", types(), ids=lambda type_: f"{type_.name}-{type_.class_name}")
def test_a_type_is_the_one_of_the_library(type_: Type, longest: bool) -> None:
    shapes = shapes_of(type_, longest=longest)
    assert type_of(shapes) == type_
    assert inferred(shapes) == type_.name


def test_the_places_of_the_configurations_are_those_of_the_library() -> None:
    for type_ in types():
        place = DIFFUSERS_DEFAULT_PIPELINE_PATHS[type_.name]
        entry = SINGLE_FILE_LOADABLE_CLASSES[type_.class_name]
        folder = entry.get("default_subfolder") or place.get("subfolder", "")
        assert (type_.repo_id, type_.subfolder) == (place["pretrained_model_name_or_path"], folder)
    assert {type_.name for type_ in types()} == set(DIFFUSERS_DEFAULT_PIPELINE_PATHS) - UNTOLD


NAMES = sorted(
    {name for type_ in types() for name in (*type_.every, *type_.some, *type_.absent)}
    | {name for type_ in types() for side in type_.sides for name in side.names}
)
LENGTHS = sorted({side.length for type_ in types() for side in type_.sides} | {1})


@settings(max_examples=500)
@given(st.data())
def test_no_mixture_is_taken_for_another_type_than_by_the_library(data: st.DataObject) -> None:
    type_ = data.draw(st.sampled_from(types()))
    shapes: dict[str, Any] = shapes_of(type_, longest=data.draw(st.booleans()))
    for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=3)):
        length = data.draw(st.sampled_from(LENGTHS))
        shapes.setdefault(name, tuple(data.draw(st.permutations([length, 1]))))
    ours = type_of(shapes)
    try:
        theirs = inferred(shapes)
    except (KeyError, IndexError, ValueError, UnboundLocalError, NotImplementedError, RuntimeError):
        return
    assert ours is None or ours.name == theirs
    assert ours is not None or theirs in UNTOLD | {"v1"}


def test_a_side_of_a_tensor_that_is_not_there_does_not_hold() -> None:
    side = Side(("a", "b"), 1, 3)
    assert side.holds({"b": (1, 3)})
    assert not side.holds({"a": (3,), "b": (1, 3)})
    assert not side.holds({})


def test_what_the_library_takes_for_want_of_better_is_no_type() -> None:
    assert inferred({"something": (1,)}) == "v1"
    assert type_of({"something": (1,)}) is None
