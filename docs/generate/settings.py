"""The table of the settings: every key with its unit, default, bounds and variable."""

from __future__ import annotations

from typing import Any, get_args

from docs.generate.tables import table
from nbloader import Settings
from nbloader.settings import bounds

__all__ = ["markdown"]


def markdown() -> str:
    """Return a row for each field of `Settings`, in their order."""
    prefix = Settings.model_config["env_prefix"]
    rows = [
        (
            f"`{name}`<br>`{prefix}{name.upper()}`",
            field.description or "",
            _written(field.default),
            _unit(field.json_schema_extra),
            _bounds(field),
        )
        for name, field in Settings.model_fields.items()
    ]
    return table(("Key, and in the environment", "What it is", "Default", "Unit", "Allowed"), rows)


def _unit(extra: object) -> str:
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _written(value: object) -> str:
    """Write a value as YAML has it."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`"


def _bounds(field: Any) -> str:
    if field.annotation is bool:
        return "`true`, `false`"
    return bounds(field) or ", ".join(f"`{name}`" for name in get_args(field.annotation))
