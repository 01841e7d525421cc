"""Our arguments of the libraries and the caller's, put together."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, TypeAlias

Arguments: TypeAlias = Mapping[str, Any]

PLACING = ("device_map", "quantization_config")
DTYPES = ("dtype", "torch_dtype")


def places_itself(loader_kwargs: Mapping[str, Any]) -> bool:
    """Say whether the caller's own arguments settle where the tensors go, or what they are."""
    nested = loader_kwargs.get("model_kwargs") or {}
    return any(key in given for given in (loader_kwargs, nested) for key in PLACING)


def with_model_kwargs(ours: Arguments, given: Mapping[str, Any]) -> dict[str, Any]:
    """Join arguments as `joined` does, those for the model inside them too.

    Where the caller places or quantizes the model, our placing is left out.
    """
    nested = dict(ours["model_kwargs"])
    wanted = given.get("model_kwargs") or {}
    arguments = joined(ours, given)
    if places_itself(given):
        placing = {*PLACING, "max_memory"}
        nested = {key: value for key, value in nested.items() if key not in placing}
        if ("device_map" in given or "device_map" in wanted) and "device" not in given:
            arguments.pop("device", None)  # The libraries take one of the two.
    return {**arguments, "model_kwargs": joined(nested, wanted)}


def joined(ours: Arguments, given: Mapping[str, Any]) -> dict[str, Any]:
    """Put the caller's arguments over ours; either name of the dtype replaces the other."""
    own_dtype = given.keys() & set(DTYPES)
    kept = {key: value for key, value in ours.items() if not (own_dtype and key in DTYPES)}
    return {**objects_of(kept), **given}


def objects_of(arguments: Arguments, library: str = "transformers") -> dict[str, Any]:
    """Replace the names of dtypes and devices, and settings of quantization, by the objects.

    Args:
        library: whose `BitsAndBytesConfig` is meant.
    """
    import torch

    def objects(key: str, value: Any) -> Any:
        if key in DTYPES and isinstance(value, str):
            return getattr(torch, value)
        if key in DTYPES and isinstance(value, Mapping):
            return {name: getattr(torch, dtype) for name, dtype in value.items()}
        if key.endswith("load_device"):
            return torch.device(value)
        if key == "quantization_config" and isinstance(value, Mapping):
            return importlib.import_module(library).BitsAndBytesConfig(**value)
        return value

    return {key: objects(key, value) for key, value in arguments.items()}
