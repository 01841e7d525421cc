"""Where this process runs, and what that means for its user."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nbloader.records import Interface, Place, PlaceFacts

__all__ = [
    "Kernel",
    "how_to_add_token",
    "how_to_connect",
    "place",
    "place_facts",
    "place_from",
    "running_kernel",
]

_VS_CODE_NAME = "__vsc_ipynb_file__"
"""What the Jupyter extension of VS Code puts into the namespace of a notebook's kernel."""

_VS_CODE_VARIABLE = "VSCODE_PID"
"""Set for what VS Code starts itself; it is taken out of the environment of its terminals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What the Jupyter kernel that this process is knows of its front end.

    Attributes:
        asks: whether the running request allows to ask its user for input. papermill, nbconvert,
            nbclient and nbval do not allow it.
        names: those of the user's namespace.
    """

    asks: bool = True
    names: Collection[str] = ()


def running_kernel() -> Kernel | None:
    """Describe the Jupyter kernel that this process is; None if it is none. Imports nothing."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_ipython() if get_ipython else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return None
    return Kernel(
        # ipykernel keeps what the front end said of itself with the request that is running.
        asks=getattr(kernel, "_allow_stdin", None) is True,
        names=getattr(shell, "user_ns", {}).keys(),
    )


def place_facts(environ: Mapping[str, str] = os.environ) -> PlaceFacts:
    """Tell where this process runs, and what its user sits at."""
    return place_from(environ, running_kernel())


def place_from(environ: Mapping[str, str], kernel: Kernel | None) -> PlaceFacts:
    """Tell the same from variables and the kernel, None for a process that is no kernel."""
    where, variable = _place(environ)
    interface, told_by = _interface(environ, where, kernel)
    return PlaceFacts(
        place=where,
        interface=interface,
        source=", ".join(dict.fromkeys(part for part in (variable, told_by) if part)),
    )


def place(environ: Mapping[str, str]) -> Place:
    """Tell the hosted service alone."""
    return _place(environ)[0]


def _place(environ: Mapping[str, str]) -> tuple[Place, str]:
    # Kaggle comes first: its image is made from Colab's.
    for where, variables in (
        (Place.KAGGLE, ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE")),
        (Place.COLAB, ("COLAB_RELEASE_TAG", "COLAB_GPU")),
    ):
        for variable in variables:
            if variable in environ:
                return where, variable
    for variable in sorted(environ):
        if variable.startswith("BINDER_"):
            return Place.BINDER, variable
    return Place.OTHER, ""


def _interface(
    environ: Mapping[str, str], where: Place, kernel: Kernel | None
) -> tuple[Interface, str]:
    # "Save & Run All"; a session with somebody at it says "Interactive".
    if where is Place.KAGGLE and environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch":
        return Interface.BATCH, "KAGGLE_KERNEL_RUN_TYPE"
    if kernel is None:
        return Interface.TERMINAL, "no kernel"
    if not kernel.asks:
        return Interface.BATCH, "kernel without stdin"
    if _VS_CODE_NAME in kernel.names:
        return Interface.VS_CODE, _VS_CODE_NAME
    if _VS_CODE_VARIABLE in environ:
        return Interface.VS_CODE, _VS_CODE_VARIABLE
    return Interface.JUPYTER, "kernel"


_ADD_TOKEN = {
    Place.COLAB: "In Colab, open Secrets (the key on the left), add it as HF_TOKEN, and "
    "switch on its access for this notebook.",
    Place.KAGGLE: "On Kaggle, choose Add-ons > Secrets, add it with the label HF_TOKEN, and attach "
    "it to this notebook (Internet must be on).",
}


def how_to_add_token(where: Place) -> str:
    """Say how a token of the Hub is handed over in this place."""
    return _ADD_TOKEN.get(where, "Pass it as `token=`, or store it with `hf auth login`.")


def how_to_connect(where: Place) -> str:
    """Say what to do when the Hub does not answer in this place."""
    if where is Place.KAGGLE:
        return (
            "Turn on Internet in the panel on the right of the notebook: Session options > "
            "Internet. The switch is there once the phone number of the account is verified."
        )
    return (
        "Check the connection of this machine, `endpoint=` and HF_ENDPOINT. If the files are in "
        "the cache, pass `local_files_only=True`."
    )
