"""The table of events: what `on_event` is called with."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any, get_args

from docs.generate.tables import table
from nbloader.records import Event

__all__ = ["markdown"]


def _type(kind: Any) -> str:
    (found,) = (each.default for each in fields(kind) if each.name == "type")
    return str(found)


def markdown() -> str:
    """Return a row for each record of `Event`."""
    return table(
        ("`type`", "Class", "When", "Fields"),
        [
            (
                f"`{_type(kind)}`",
                f"`{kind.__name__}`",
                (inspect.getdoc(kind) or "").partition("\n")[0],
                ", ".join(f"`{each.name}`" for each in fields(kind) if each.name != "type"),
            )
            for kind in get_args(Event)
        ],
    )
