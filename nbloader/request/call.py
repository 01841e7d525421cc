"""A call as its user wrote it: nothing is checked yet."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from nbloader.records import Event

if TYPE_CHECKING:
    import torch

    from nbloader.settings import Settings


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of a call; `nbloader.load` says what each of them means.

    What a call has no argument for has the default of `load`.
    """

    repo_id: str | os.PathLike[str]
    _: KW_ONLY
    revision: str | None = None
    variant: str | None = None
    kind: str = "auto"
    task: str | None = None
    device: str | torch.device = "auto"
    dtype: str | torch.dtype = "auto"
    plan: str = "auto"
    cls: str | type | Sequence[str | type] | None = None
    subfolder: str | None = None
    components: Mapping[str, Any] | None = None
    adapters: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | None = None
    attention: str = "auto"
    cache_dir: str | os.PathLike[str] | None = None
    endpoint: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    local_files_only: bool = False
    trust_remote_code: bool = False
    allow_pickle: bool = False
    verify: bool = False
    force: bool = False
    replace: bool = False
    keep_files: bool = True
    settings: Settings | Mapping[str, Any] | None = None
    view: str = "auto"
    on_event: Callable[[Event], object] | None = None
    loader_kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class DownloadCall(Call):
    """The arguments of `nbloader.download`, which says what each of them means."""

    _: KW_ONLY
    repo_type: str | None = "model"
    allow_patterns: str | Iterable[str] | None = None
    ignore_patterns: str | Iterable[str] | None = None
    filename: str | None = None
    local_dir: str | os.PathLike[str] | None = None


OF_DOWNLOAD = frozenset(
    {each.name for each in fields(DownloadCall)} - {each.name for each in fields(Call)}
)
"""Arguments of `nbloader.download` alone."""


def load_line(call: Call, plan: str) -> str:
    """Write the call of `load` for the arguments of another call, with another plan.

    What cannot be written as plain values is named in a line above; a token never is.
    """
    kept, left = [], []
    for each in fields(call):
        value = getattr(call, each.name)
        if each.name in ("repo_id", "plan") or value == each.default:
            continue
        text = None if each.name == "token" else _written(each.name, value)
        if text is None:
            left.append(f"{each.name}=...")
        else:
            kept.append(f"{each.name}={text}")
    line = f"nbloader.load({', '.join([repr(os.fspath(call.repo_id)), *kept, f'plan={plan!r}'])})"
    return f"# and {', '.join(left)} as before\n{line}" if left else line


def _written(name: str, value: object) -> str | None:
    """Write a value as Python does; None for what is no plain value."""
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    if name in ("device", "dtype"):
        return repr(str(value).removeprefix("torch."))
    try:
        return repr(value) if ast.literal_eval(repr(value)) == value else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
