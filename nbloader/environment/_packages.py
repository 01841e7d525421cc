"""Installed packages, without importing them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

__all__ = ["package_versions", "pipeline_classes"]


def package_versions(names: tuple[str, ...]) -> dict[str, str | None]:
    """Give the installed version of each importable package; None where it is missing.

    Nothing is imported.
    """
    found: dict[str, str | None] = {}
    for name in names:
        try:
            present = importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            present = False
        found[name] = _version(name) if present else None
    return found


def _version(name: str) -> str:
    for distribution in (name, name.replace("_", "-"), {"PIL": "pillow"}.get(name, name)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "?"


def pipeline_classes() -> frozenset[str] | None:
    """Give the names of the pipelines that the installed diffusers has; None if that is not known.

    They are read from the text of its `__init__.py`, which lists every public name: importing it
    takes seconds, and a class that is missing should be told before the first weight.
    """
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).read_text("utf-8")
    except OSError:
        return None
    return frozenset(re.findall(r'"(\w+Pipeline)"', text)) or None
