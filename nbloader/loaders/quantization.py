"""What a call asks its library to quantize weights with, by an object of that library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nbloader.records import Selection

_LIBRARIES = ("diffusers", "transformers")


def asked_quantizations(
    selection: Selection, loader_kwargs: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """Name the methods that the caller's `quantization_config` asks for, by the library that is
    asked. One that only the library itself can read is left out.
    """
    nested = loader_kwargs.get("model_kwargs") or {}
    found = [
        each
        for given in (loader_kwargs, nested)
        for each in _asked(selection, given.get("quantization_config"))
    ]
    return tuple(dict.fromkeys(found))


def _asked(selection: Selection, config: Any) -> Iterator[tuple[str, str]]:
    backend = getattr(config, "quant_backend", None)
    if isinstance(backend, str):  # of a pipeline: for some of its parts, or for all
        names = getattr(config, "components_to_quantize", None)
        for part in selection.components:
            if part.weights and (names is None or part.name in names):
                yield ("diffusers" if part.library == "diffusers" else "transformers"), backend
        return
    mapping = getattr(config, "quant_mapping", None)
    for each in mapping.values() if isinstance(mapping, Mapping) else (config,):
        told = each.get("quant_method") if isinstance(each, Mapping) else _told(each)
        method = getattr(told, "value", told)  # of an enumeration
        if isinstance(method, str):
            library = type(each).__module__.partition(".")[0]
            yield (library if library in _LIBRARIES else "transformers"), method


def _told(config: Any) -> Any:
    return getattr(config, "quant_method", None)
