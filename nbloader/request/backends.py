"""What a call says of what runs a model of sentence-transformers in the place of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbloader.errors import InvalidArgumentError
from nbloader.records import Backend
from nbloader.request.places import check_inner
from nbloader.request.values import check_flag
from nbloader.text import quote

_TORCH = "torch"
_OTHERS = ("onnx", "openvino")
_ON_CPU = "CPUExecutionProvider"


def read_backend(loader_kwargs: Mapping[str, Any], nested: Mapping[str, Any]) -> Backend | None:
    """Read `backend` of the library, with the file that is meant; None for torch.

    Args:
        nested: the arguments for the model (`model_kwargs`).

    Raises:
        InvalidArgumentError: the library has none of that name, or the file can be none.
    """
    name = loader_kwargs.get("backend")
    if name is None or name == _TORCH:
        return None
    if name not in _OTHERS:
        raise InvalidArgumentError(
            f"loader_kwargs['backend']={quote(name)} is none of sentence-transformers",
            hint=f"Pass one of {', '.join(map(repr, (_TORCH, *_OTHERS)))}.",
        )
    place = "loader_kwargs['model_kwargs']"
    file_name = check_inner(f"{place}['file_name']", nested.get("file_name"))
    export = nested.get("export")
    return Backend(
        name=name,
        file_name=file_name or None,
        export=None if export is None else check_flag(f"{place}['export']", export),
    )


def runs_on_cpu(backend: Backend | None, device: object, nested: Mapping[str, Any]) -> bool:
    """Say whether a backend computes on the CPU, where the caller names no device."""
    if backend is None or device != "auto":
        return False
    return nested.get("provider") in (None, _ON_CPU)
