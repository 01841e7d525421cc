"""The shell and the Jupyter kernel that this process may be. Asking imports nothing."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

KAGGLE_RUN_TYPE = "KAGGLE_KERNEL_RUN_TYPE"
"""Kaggle's variable: `Batch` for "Save & Run All", `Interactive` where somebody sits at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What a Jupyter kernel knows of its front end.

    Attributes:
        asks: whether the running request allows to ask its user for input. papermill, nbconvert,
            nbclient and nbval do not allow it.
        names: those of the user's namespace.
    """

    asks: bool = True
    names: Collection[str] = ()


def shell() -> Any:
    """Return IPython's shell; None where there is none."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython() if get_ipython else None


def running_kernel() -> Kernel | None:
    """Describe the Jupyter kernel that this process is; None if it is none."""
    own_shell = shell()
    kernel = getattr(own_shell, "kernel", None)
    if kernel is None:
        return None
    return Kernel(
        # ipykernel keeps what the front end said of itself with the request that is running.
        asks=getattr(kernel, "_allow_stdin", None) is True,
        names=getattr(own_shell, "user_ns", {}).keys(),
    )


def batch_told_by(environ: Mapping[str, str], kernel: Kernel | None) -> str:
    """Say what tells that nobody sits at this process; empty where nothing does.

    Kaggle runs scripts in a batch as well, without a kernel.
    """
    if environ.get(KAGGLE_RUN_TYPE) == "Batch":
        return KAGGLE_RUN_TYPE
    return "kernel without stdin" if kernel is not None and not kernel.asks else ""
