"""One line in a notebook cell: check the machine, download a model, load it on the GPU.

    import nbloader
    model = nbloader.load("sentence-transformers/all-MiniLM-L6-v2")

The calls, of which `help(nbloader.load)` and so on say more:

    nbloader.load("org/name")         check, download, load, test it
    await nbloader.aload("org/name")  the same, awaitable
    nbloader.start("org/name")        the same in the background: a Job
    nbloader.preflight("org/name")    would it work here? a report
    nbloader.download("org/name")     the files alone: their folder
    nbloader.unload(model)            give back the memory of a model
    nbloader.cache()                  what is on the disk, and what can go
    nbloader.doctor()                 facts for a report of a problem

What can be tuned is in `nbloader.Settings`, what is raised in
`nbloader.errors`. What the calls return, and what `on_event=` is called
with, can be named for annotations: `nbloader.Job`, `nbloader.Event`,
`nbloader.PreflightReport`, ... From a shell it is the command `nbloader`:
see `nbloader --help`.

Importing this package is cheap: names are resolved when they are first
used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbloader._version import __version__

if TYPE_CHECKING:
    from nbloader import errors, records
    from nbloader.api import aload, download, load, preflight, start, unload
    from nbloader.checks import JointReport, PreflightReport
    from nbloader.diagnostics import DoctorReport, doctor
    from nbloader.hub_cache.report import CacheReport, Deletion, cache
    from nbloader.job import Job, JobReport
    from nbloader.loaders import Freed
    from nbloader.records import CheckResult, Event
    from nbloader.settings import Settings
    from nbloader.state import JobState

__all__ = [
    "CacheReport",
    "CheckResult",
    "Deletion",
    "DoctorReport",
    "Event",
    "Freed",
    "Job",
    "JobReport",
    "JobState",
    "JointReport",
    "PreflightReport",
    "Settings",
    "__version__",
    "aload",
    "cache",
    "doctor",
    "download",
    "errors",
    "load",
    "preflight",
    "records",
    "start",
    "unload",
]

_MODULES = ("errors", "records")

# None of these modules has the name of what it holds: importing it would put the module in its
# place.
_HOME = {
    "CacheReport": "nbloader.hub_cache.report",
    "CheckResult": "nbloader.records",
    "Deletion": "nbloader.hub_cache.report",
    "DoctorReport": "nbloader.diagnostics",
    "Event": "nbloader.records",
    "Freed": "nbloader.loaders",
    "Job": "nbloader.job",
    "JobReport": "nbloader.job",
    "JobState": "nbloader.state",
    "JointReport": "nbloader.checks",
    "PreflightReport": "nbloader.checks",
    "Settings": "nbloader.settings",
    "aload": "nbloader.api",
    "cache": "nbloader.hub_cache.report",
    "doctor": "nbloader.diagnostics",
    "download": "nbloader.api",
    "load": "nbloader.api",
    "preflight": "nbloader.api",
    "start": "nbloader.api",
    "unload": "nbloader.api",
}


if not TYPE_CHECKING:  # There it would answer to any name, misspelled ones included.

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"nbloader.{name}")
        if name in _HOME:
            value = getattr(importlib.import_module(_HOME[name]), name)
            globals()[name] = value
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
