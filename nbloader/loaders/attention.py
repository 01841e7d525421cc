"""How a model computes attention: what the libraries are asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from nbloader.errors import ModelLoadError
from nbloader.libraries import (
    attention_library,
    attention_named,
    is_denoiser,
    takes_xformers,
)
from nbloader.loaders.placing import Steps
from nbloader.records import Kind, Notice, Selection
from nbloader.text import quote

_USUAL = "native"
"""What diffusers calls torch's own attention, with which those of its models compute that cannot be
told another."""

_XFORMERS = "xformers"


def with_attention(todo: Steps, selection: Selection, attention: str | None) -> Steps:
    """Add to what is to be done how attention is computed, where that is an argument. Pure.

    Arguments and errors are those of `attention_arguments`.
    """
    if attention is None or attention_library(selection) == "diffusers":
        return todo
    own = attention_arguments(attention)
    if selection.kind is not Kind.CLASSES:
        own = {"model_kwargs": {**todo.arguments["model_kwargs"], **own}}
    return replace(todo, arguments={**todo.arguments, **own})


def attention_arguments(attention: str | None) -> dict[str, Any]:
    """Return what `from_pretrained` of transformers takes for a way to compute attention. Pure.

    Args:
        attention: a name of `libraries.ATTENTIONS`; None for the library's own choice.

    Raises:
        ModelLoadError: transformers has none of that name.
    """
    name = _name_of(attention, "transformers")
    return {"attn_implementation": name} if name else {}


def attention_backend(attention: str | None) -> str:
    """Return what `set_attention_backend` of diffusers takes for a way to compute attention. Pure.

    It is called on the model once it is built (`set_backend`); empty for nothing to call. Arguments
    and errors are those of `attention_arguments`.
    """
    return _name_of(attention, "diffusers")


def _name_of(attention: str | None, library: str) -> str:
    way = attention_named(attention) if attention is not None else None
    if attention is not None and not (way and way.of(library)):
        raise ModelLoadError(
            f"{library} has no attention {quote(attention)}", hint="Leave attention= out."
        )
    return way.of(library) if way else ""


def attend(models: Iterable[Any], selection: Selection, attention: str) -> Iterator[Notice]:
    """Have models that were built compute attention as is asked for, and say where they cannot.

    Args:
        attention: a name of `libraries.ATTENTIONS`.

    Raises:
        ModelLoadError: the library has none of that name.
    """
    for model in models:
        if attention_library(selection) == "diffusers":
            yield from _told(model, attention_backend(attention))
        else:
            yield from _unheard(model, attention)


def _told(model: Any, backend: str) -> Iterator[Notice]:
    """Tell a model of diffusers, or the denoisers of a pipeline.

    The text encoders beside those are models of transformers, and compute as they do by themselves.
    """
    import diffusers

    whole = isinstance(model, diffusers.ModelMixin)
    parts = [model] if whole else [each for each in model.components.values() if _denoises(each)]
    others = [type(part).__name__ for part in parts if not set_backend(part, backend)]
    if backend == _XFORMERS and any(map(takes_xformers, others)):
        model.enable_xformers_memory_efficient_attention()
    elif not parts or (others and backend != _USUAL):
        yield _not_heard(backend, others or [type(model).__name__])


def _denoises(part: Any) -> bool:
    import diffusers

    return isinstance(part, diffusers.ModelMixin) and is_denoiser(type(part).__name__)


def set_backend(model: Any, backend: str) -> bool:
    """Tell a model of diffusers how to compute attention; False if nothing in it can be told.

    The library makes it what every other model computes with as well, from there on; that is left
    as it was.
    """
    if not any(
        hasattr(getattr(module, "processor", None), "_attention_backend")
        for module in model.modules()
    ):
        return False
    with _backend_of_all_kept():
        model.set_attention_backend(backend)
    return True


@contextmanager
def _backend_of_all_kept() -> Iterator[None]:
    from diffusers.models import attention_dispatch

    registry = attention_dispatch._AttentionBackendRegistry  # noqa: SLF001 - it has no public name
    before, _ = registry.get_active_backend()
    try:
        yield
    finally:
        registry.set_active_backend(before)


def _unheard(model: Any, name: str) -> Iterator[Notice]:
    """Say where no part of a model of transformers computes attention as it was asked to."""
    whole = getattr(model, "model", model)  # what a pipeline holds
    modules = whole.modules() if hasattr(whole, "modules") else ()
    configs = (getattr(module, "config", None) for module in modules)
    if name not in {getattr(config, "_attn_implementation", None) for config in configs}:
        yield _not_heard(name, [type(whole).__name__])


def _not_heard(name: str, classes: Iterable[str]) -> Notice:
    return Notice(
        reference="attention-not-taken",
        message=f"{', '.join(map(quote, classes))} cannot be told to compute attention as "
        f"{quote(name)}: it computes as it always does",
        hint="Leave attention= out.",
    )
