"""What a call says of classes and of parts that are in other places: `cls`, `components`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbloader.errors import InvalidArgumentError
from nbloader.hub_names import is_repo_id
from nbloader.libraries import look_up
from nbloader.records import Form, Kind, Source, Target
from nbloader.request.places import Place, read_part
from nbloader.text import quote

_PLACES = (str, os.PathLike, Mapping)
_OF_TORCH = "torch.nn.modules."
_SEVERAL = ("controlnet", "adapter")
"""The components that a pipeline of diffusers takes several models for."""
_SAMPLE = '"org/name", "org/name@revision" or "org/name/folder"'


# -- classes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The classes that a call asks for; see `SelectionRequest`."""

    targets: tuple[tuple[Target, ...], ...] = ()
    as_tuple: bool = False


def read_classes(given: Any, *, kind: Kind | None, task: object) -> Classes:
    """Read `cls`: the name of a class, the class, or several of them in a tuple or list.

    Raises:
        InvalidArgumentError: no installed library has it, it cannot be loaded by itself, or it does
            not go together with the other arguments.
    """
    if given is None:
        return Classes()
    several = isinstance(given, (tuple, list))
    wanted = list(given) if isinstance(given, (tuple, list)) else [given]
    if not wanted:
        raise InvalidArgumentError("cls=() names no class", hint="Leave it out.")
    for name, value in (("kind", kind), ("task", task)):
        if value is not None:
            raise InvalidArgumentError(
                f"cls= and {name}={quote(str(value))} say the same in two ways",
                hint=f"Leave out {name}=: the class decides.",
            )
    targets = tuple(look_up(each) for each in wanted)
    if several:
        _check_together(targets)
    return Classes(targets=targets, as_tuple=several)


def _check_together(targets: tuple[tuple[Target, ...], ...]) -> None:
    names = [group[0].class_name for group in targets]
    whole = [group[0] for group in targets if group[0].form in (Form.PIPELINE, Form.ENCODER)]
    if whole:
        raise InvalidArgumentError(
            f"{whole[0].class_name} is a whole model, and comes alone",
            hint=f'Pass it by itself: cls="{whole[0].class_name}".',
        )
    if len(set(names)) < len(names):
        raise InvalidArgumentError(
            f"cls= names a class twice: {', '.join(names)}", hint="Name each of them once."
        )


def check_of_classes(classes: Classes, passed_on: Mapping[str, Any]) -> None:
    """Refuse arguments for a class that is not asked for.

    Raises:
        InvalidArgumentError: `loader_kwargs` has a mapping under the name of another class.
    """
    names = {target.class_name for group in classes.targets for target in group}
    for name, value in passed_on.items():
        if names and name not in names and name[:1].isupper() and isinstance(value, Mapping):
            raise InvalidArgumentError(
                f"loader_kwargs[{name!r}]: cls= names no such class",
                hint=f"It names {', '.join(sorted(names))}: pass the arguments of one of them "
                "under its name.",
            )


# -- places ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The components that a call names.

    Attributes:
        sources: those that are in other places, by the pipeline's names.
        lists: those of `sources` that were given as a list, also of one.
        handed_in: those that are objects, or None for one that is left out.
    """

    sources: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)
    lists: tuple[str, ...] = ()
    handed_in: Mapping[str, Any] = field(default_factory=dict)


def read_components(given: Any, *, repo_id: str, revision: str, endpoint: str | None) -> Parts:
    """Read `components`.

    Args:
        given: by the pipeline's names, each a place (or several in a list), None, or an object.
        repo_id, revision: those of the call.
        endpoint: the address of the Hub that will be asked; None for huggingface.co.

    Raises:
        InvalidArgumentError: a place can be none, or an object no component.
    """
    if given is None:
        return Parts()
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InvalidArgumentError(
            f"components={quote(given)} does not say by names what the parts are",
            hint='Pass components={"vae": "org/name"}.',
        )
    sources, lists, handed_in = {}, [], {}
    for name, value in given.items():
        where = f"components[{name!r}]"
        if not name.isidentifier() or name.startswith("_"):
            raise InvalidArgumentError(
                f"{where}: that is not the name of a component",
                hint='They are named as the pipeline names them, such as {"vae": "org/name"}.',
            )
        places = _places(value)
        if places is None:
            _check_object(where, value)
            handed_in[name] = value
            continue
        if isinstance(value, (list, tuple)):
            if name not in _SEVERAL:
                raise InvalidArgumentError(
                    f"{where} is a list, and a pipeline has one {name}",
                    hint=f"Name one place; lists are for {' and '.join(_SEVERAL)}.",
                )
            lists.append(name)
        read = tuple(_source(read_part(where, place, endpoint=endpoint)) for place in places)
        for source in read:
            if source.repo_id == repo_id and source.revision not in (None, revision):
                raise InvalidArgumentError(
                    f"{where} is of another revision of {quote(repo_id)} than the rest",
                    hint="Load it by itself, and hand in the object.",
                )
        if len(set(read)) < len(read):
            raise InvalidArgumentError(
                f"{where} names a place twice",
                hint="Load it by itself, and hand in the object as often as you like.",
            )
        sources[name] = read
    return Parts(sources=sources, lists=tuple(lists), handed_in=handed_in)


def _places(value: object) -> list[object] | None:
    """The places that a value names; None for an object that is handed in, or left out."""
    if isinstance(value, _PLACES):
        return [value]
    if isinstance(value, (list, tuple)) and value:
        named = [isinstance(each, _PLACES) for each in value]
        return list(value) if all(named) else None
    return None


def _check_object(where: str, value: object) -> None:
    """Refuse what can be handed in as no component. Raises InvalidArgumentError."""
    hint = f"Pass {_SAMPLE}, None to leave it out, or an object that is loaded."
    if isinstance(value, type):
        raise InvalidArgumentError(
            f"{where} is the class {value.__name__}, and no object of it",
            hint=f"Hand in an object: {value.__name__}.from_pretrained(...). Or name a place, such "
            f"as {_SAMPLE}.",
        )
    if isinstance(value, (list, tuple)):
        if any(isinstance(each, _PLACES) for each in value):
            raise InvalidArgumentError(
                f"{where} has places and objects side by side",
                hint="Name the places of all, or hand in the objects of all.",
            )
        if not value:
            raise InvalidArgumentError(f"{where} is an empty list", hint=hint)
        for each in value:
            _check_object(where, each)
    elif type(value).__module__.startswith(_OF_TORCH):
        raise InvalidArgumentError(
            f"{where} is a {type(value).__name__} of torch, which is no component by itself",
            hint=f"{hint} Models of diffusers and transformers have from_pretrained.",
        )
    elif isinstance(value, (bool, int, float, bytes)):
        raise InvalidArgumentError(
            f"{where}={quote(value)} is no component",
            hint=f"{hint} What the class takes beside its components goes into loader_kwargs=.",
        )


def _source(place: Place) -> Source:
    """Return where a part is, for the selection: a folder as it was written.

    Where that could be an id as well, it is the absolute path.
    """
    folder = place.folder
    return Source(
        repo_id=folder.path if folder and is_repo_id(folder.name) else place.repo_id,
        revision=place.revision,
        subfolder=place.subfolder,
        filename=place.filename,
    )
