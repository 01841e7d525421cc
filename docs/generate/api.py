"""Where the site shows the documentation of public names, in the marks of mkdocstrings."""

from __future__ import annotations

from types import FunctionType

import nbloader
from nbloader import CacheReport, DoctorReport, Freed, Job, JointReport, PreflightReport

__all__ = ["calls", "results"]

_RESULTS = (Job, PreflightReport, JointReport, Freed, DoctorReport, CacheReport)
_FIRST = ("load", "aload", "start", "download", "preflight", "unload")


def calls() -> str:
    """Return a mark for each public function, the most used first."""
    names = [name for name in nbloader.__all__ if isinstance(getattr(nbloader, name), FunctionType)]
    ordered = [*_FIRST, *(name for name in names if name not in _FIRST)]
    return "\n\n".join(f"::: nbloader.{name}" for name in ordered)


def results() -> str:
    """Return a mark for each class that a call returns."""
    return "\n\n".join(f"::: {kind.__module__}.{kind.__qualname__}" for kind in _RESULTS)
