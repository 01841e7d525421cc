"""Objects of classes that are named, each by the `from_pretrained` of its own class."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbloader.loaders.adapters import put_into_model
from nbloader.loaders.arguments import PLACING, Arguments, joined, places_itself
from nbloader.loaders.folders import Places, adapted, code_arguments, rename
from nbloader.loaders.placing import WHOLE, BuildSteps, Steps
from nbloader.loaders.reports import LoadReport
from nbloader.records import Component, Form, Placement, Selection, Target


def build(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
) -> BuildSteps:
    """Build the objects: one, or a tuple of them in the order in which their classes are named.

    The caller's arguments are those of the model, or of the only class. Those of another one stand
    in a mapping under the name of its class.
    """
    yield from ()
    built = [
        _built(selection, folder, placement, todo, target, _given(selection, target, loader_kwargs))
        for target in selection.targets
    ]
    for target, made in zip(selection.targets, built, strict=True):
        if target.form is not Form.PART:
            put_into_model(made, selection, folder)
    return tuple(built) if selection.as_tuple else built[0]


def _given(
    selection: Selection, target: Target, loader_kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the caller's arguments for one of the classes."""
    names = {each.class_name for each in selection.targets}
    own = loader_kwargs.get(target.class_name)
    general = {key: value for key, value in loader_kwargs.items() if key not in names}
    alone = len(selection.targets) == 1 or target.form is not Form.PART
    return {**(general if alone else {}), **(own if isinstance(own, Mapping) else {})}


def _built(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    target: Target,
    given: Mapping[str, Any],
) -> Any:
    cls = getattr(importlib.import_module(target.library), target.class_name)
    if target.form is Form.PART:
        return _part(selection, folder, todo, cls, target, given)
    if target.form is Form.ADAPTED:
        return _adapted(selection, folder, placement, todo, cls, given)
    component = next(part for part in selection.components if part.weights)
    arguments = _with_placing(todo.arguments, given)
    if target.library == "diffusers":
        inner = {"subfolder": component.folder} if component.folder else {}
        model = cls.from_pretrained(str(folder), **inner, **arguments)
        rename(model, folder, selection.repo_id, own=selection.folder is not None)
        return _moved(model, placement, arguments)
    with adapted(selection, folder) as places:
        inner = _inner(component, places)
        more = code_arguments(selection, folder) if selection.custom_code else {}
        model = cls.from_pretrained(str(places.model), **inner, **more, **arguments)
        places.rename(model)
    return _moved(model, placement, arguments)


_OF_THE_ADAPTER = frozenset({"torch_device"})
"""An argument that peft takes among the rest."""


def _adapted(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    cls: Any,
    given: Mapping[str, Any],
) -> Any:
    """Build a model with the adapter on it.

    The auto classes do it all. The others take a model: it is loaded before, as the auto classes
    do, and given the vocabulary of the tokenizer that lies beside the adapter.
    """
    weights = {path for part in selection.components for path in part.weights}
    own = [file.path for file in selection.files if not file.repo_id and file.path not in weights]
    code = code_arguments(selection, folder) if selection.custom_code else {}
    with adapted(selection, folder, beside=own) as places:
        if cls.__name__.startswith("Auto"):
            arguments = {**code, **_with_placing(todo.arguments, given)}
            model = cls.from_pretrained(str(places.model), **arguments)
        else:
            taken = {*inspect.signature(cls.from_pretrained).parameters, *_OF_THE_ADAPTER}
            rest = {key: value for key, value in given.items() if key not in taken}
            arguments = {**code, **_with_placing(todo.arguments, rest)}
            base = _base(selection, places, arguments)
            further = {key: value for key, value in given.items() if key in taken}
            further.setdefault("torch_device", placement.device)
            model = cls.from_pretrained(base, str(places.model), **further)
        places.rename(model)
    return _moved(model, placement, arguments)


def _base(selection: Selection, places: Places, arguments: Mapping[str, Any]) -> Any:
    import transformers

    component = next(part for part in selection.components if part.weights)
    cls = getattr(transformers, component.class_name or "", transformers.AutoModel)
    model = cls.from_pretrained(str(places.base), **arguments)
    if (places.model / "tokenizer_config.json").exists():
        trusted = arguments.get("trust_remote_code", False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(places.model), trust_remote_code=trusted
        )
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer))
    return model


def _inner(component: Component, places: Places) -> dict[str, str]:
    """Return the argument for a folder inside of the repository."""
    alone = places.model == places.base
    return {"subfolder": component.folder} if component.folder and alone else {}


def _part(
    selection: Selection,
    folder: Path,
    todo: Steps,
    cls: Any,
    target: Target,
    given: Mapping[str, Any],
) -> Any:
    component = next(
        part for part in selection.components if part.name == target.class_name and not part.weights
    )
    own = any(not path.partition(":")[1] for path in _all_paths(selection, component))
    arguments: dict[str, Any] = {"local_files_only": True}
    if target.library == "transformers" and selection.custom_code:
        arguments |= {
            "trust_remote_code": todo.arguments.get("trust_remote_code", False),
            **code_arguments(selection, folder),
        }
    if component.folder:
        arguments["subfolder"] = component.folder
    if own:
        made = cls.from_pretrained(str(folder), **joined(arguments, given))
        rename(made, folder, selection.repo_id, own=selection.folder is not None)
        return made
    with adapted(selection, folder) as places:
        made = cls.from_pretrained(str(places.base), **joined(arguments, given))
        places.rename(made)
    return made


def _all_paths(selection: Selection, component: Component) -> Sequence[str]:
    """Return the files of a part; those of the model where it shares all of them with it."""
    return component.paths or [path for part in selection.components for path in part.paths]


def _with_placing(ours: Arguments, given: Mapping[str, Any]) -> dict[str, Any]:
    """Join ours and the caller's; where the caller places or quantizes, our placing is left out."""
    if not places_itself(given):
        return joined(ours, given)
    placing = {*PLACING, "max_memory"}
    return joined({key: value for key, value in ours.items() if key not in placing}, given)


def _moved(model: Any, placement: Placement, arguments: Mapping[str, Any]) -> Any:
    """Move a model to its device, unless it was brought there on the way."""
    if any(name in arguments for name in PLACING):
        return model
    return model.to(placement.device)


# -- what is made anew -----------------------------------------------------------------------------


def without_new_heads(reports: Iterable[LoadReport], built: Any) -> list[LoadReport]:
    """Take out of reports what is meant to be new: the head of a class that the files do not name.

    A classifier on a model without one is made to be trained. What belongs to the model below it is
    not meant so, but for the layer over the first token, which many are published without.
    """
    heads = {
        type(model).__name__: f"{model.base_model_prefix}."
        for model in _models(built)
        if type(model).__name__ not in (getattr(model.config, "architectures", None) or ())
    }
    return [
        replace(report, missing=tuple(key for key in report.missing if _is_below(key, heads[name])))
        if (name := report.model) in heads
        else report
        for report in reports
    ]


def _is_below(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and ".pooler." not in key


def _models(built: Any) -> list[Any]:
    """Return the models of transformers in what was built that have a head on a body."""
    objects = built if isinstance(built, tuple) else (built,)
    parts = [part for each in objects if hasattr(each, "modules") for part in each.modules()]
    return [
        part
        for part in parts
        if (prefix := getattr(type(part), "base_model_prefix", ""))
        and getattr(part, prefix, part) is not part
    ]


def modules_of(built: Any) -> dict[str, Any]:
    """Return the objects that hold tensors, by name."""
    import torch

    objects = built if isinstance(built, tuple) else (built,)
    model = next((each for each in objects if isinstance(each, torch.nn.Module)), None)
    return {} if model is None else {WHOLE: model}
