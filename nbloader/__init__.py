"""One line in a notebook cell: check the machine, download a model, load it on the GPU.

    import nbloader
    pipe = nbloader.load("Qwen/Qwen-Image-Edit-2509")

Importing this package is cheap: names are resolved when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbloader._version import __version__

if TYPE_CHECKING:
    from nbloader import errors
    from nbloader.api import aload, download, load, preflight, start, unload
    from nbloader.diagnostics import doctor
    from nbloader.hub_cache.report import cache
    from nbloader.settings import Settings

__all__ = [
    "Settings",
    "__version__",
    "aload",
    "cache",
    "doctor",
    "download",
    "errors",
    "load",
    "preflight",
    "start",
    "unload",
]

# None of these modules has the name of what it holds: importing it would put the module in its
# place.
_HOME = {
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
        if name == "errors":
            return importlib.import_module("nbloader.errors")
        if name in _HOME:
            value = getattr(importlib.import_module(_HOME[name]), name)
            globals()[name] = value
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
