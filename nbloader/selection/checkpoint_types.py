"""Which type of original checkpoint diffusers takes a file for; the table is in a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each tensor by its name."""

DENOISER = "model.diffusion_model."
"""What stands before the names of the main model, where others are in the same file."""


@dataclass(frozen=True, slots=True)
class Side:
    """A rule on the length of one side of a tensor.

    Attributes:
        names: of the tensor; the first that is there counts.
        axis: which side, as torch counts.
        length: what it has to be.
    """

    names: tuple[str, ...]
    axis: int
    length: int

    def holds(self, shapes: Shapes) -> bool:
        shape = next((shapes[name] for name in self.names if name in shapes), ())
        return -len(shape) <= self.axis < len(shape) and shape[self.axis] == self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """A type of checkpoint.

    Attributes:
        name: by which diffusers calls it.
        repo_id: the repository that its configuration is taken from.
        class_name: the class of diffusers of the model itself.
        subfolder: where that model's configuration is; empty for the root.
        every: names that all have to be there.
        some: names of which one has to be there; none asks for none.
        absent: names that must not be there.
        sides: rules that all have to hold.
        end: what the name of a tensor has to end with, where one has to.
    """

    name: str
    repo_id: str
    class_name: str
    subfolder: str = ""
    every: tuple[str, ...] = ()
    some: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    sides: tuple[Side, ...] = ()
    end: str = ""

    def fits(self, shapes: Shapes) -> bool:
        return (
            all(name in shapes for name in self.every)
            and (not self.some or any(name in shapes for name in self.some))
            and not any(name in shapes for name in self.absent)
            and all(side.holds(shapes) for side in self.sides)
            and (not self.end or any(name.endswith(self.end) for name in shapes))
        )


def type_of(shapes: Shapes) -> Type | None:
    """Return the type that diffusers would take a checkpoint for; None for one that is none."""
    return next((type_ for type_ in types() if type_.fits(shapes)), None)


@cache
def types() -> tuple[Type, ...]:
    """All types, in the order in which they are tried."""
    text = files(__package__).joinpath("checkpoint_types.toml").read_text("utf-8")
    table = tomllib.loads(text)
    return tuple(_type(entry, table["names"]) for entry in table["type"])


def _type(entry: Mapping[str, Any], names: Mapping[str, str]) -> Type:
    def written(key: str) -> tuple[str, ...]:
        return tuple(name for each in entry.get(key, ()) for name in _written_out(each, names))

    name, repo_id, class_name, *subfolder = entry["loads"]
    return Type(
        name=name,
        repo_id=repo_id,
        class_name=class_name,
        subfolder="".join(subfolder),
        every=written("every"),
        some=written("some"),
        absent=written("absent"),
        sides=tuple(
            Side(_written_out(each, names), axis, length)
            for each, axis, length in entry.get("sides", ())
        ),
        end=entry.get("end", ""),
    )


def _written_out(name: str, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a name of the table stands for, the longer of two first."""
    if name.startswith("$"):
        return (names[name[1:]],)
    return (DENOISER + name[1:], name[1:]) if name.startswith("?") else (name,)
