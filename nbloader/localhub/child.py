"""How modules of this package are run as processes of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["child_environment", "module_command"]


def module_command(module: str) -> list[str]:
    """Return the command that runs a module; modules in the working folder cannot shadow others."""
    return [sys.executable, "-P", "-m", module]


def child_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which this package is found, which `-P` may prevent otherwise."""
    paths = [str(Path(__file__).parents[2]), inherited.get("PYTHONPATH", "")]
    return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
