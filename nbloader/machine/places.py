"""Where this process runs, and what that means for its user."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nbloader.notebook import KAGGLE_RUN_TYPE, Kernel, batch_told_by, running_kernel
from nbloader.records import Interface, Place, PlaceFacts

__all__ = [
    "how_to_add_token",
    "how_to_connect",
    "how_to_free",
    "place",
    "place_facts",
    "place_from",
]

_VS_CODE_NAME = "__vsc_ipynb_file__"
"""What the Jupyter extension of VS Code puts into the namespace of a notebook's kernel."""

_VS_CODE_VARIABLE = "VSCODE_PID"
"""Set for what VS Code starts itself; it is taken out of the environment of its terminals."""


def place_facts(environ: Mapping[str, str] = os.environ) -> PlaceFacts:
    """Tell where this process runs, and what its user sits at."""
    return place_from(environ, running_kernel())


def place_from(environ: Mapping[str, str], kernel: Kernel | None) -> PlaceFacts:
    """Tell the same from variables and the kernel, None for a process that is no kernel."""
    where, variable = _place(environ)
    interface, told_by = _interface(environ, kernel)
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
        (Place.KAGGLE, (KAGGLE_RUN_TYPE, "KAGGLE_URL_BASE")),
        (Place.COLAB, ("COLAB_RELEASE_TAG", "COLAB_GPU")),
    ):
        for variable in variables:
            if variable in environ:
                return where, variable
    for variable in sorted(environ):
        if variable.startswith("BINDER_"):
            return Place.BINDER, variable
    return Place.OTHER, ""


def _interface(environ: Mapping[str, str], kernel: Kernel | None) -> tuple[Interface, str]:
    if batch := batch_told_by(environ, kernel):
        return Interface.BATCH, batch
    if kernel is None:
        return Interface.TERMINAL, "no kernel"
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


def how_to_free(*, notebook: bool) -> str:
    """Say how the memory of a model that is loaded in this process is freed."""
    if notebook:
        return (
            "To free it, run `%xdel pipe` with its name, and `%xdel job` if `start` made it: "
            "`del` leaves what IPython keeps."
        )
    return "To free it, delete every name that holds it (`del pipe`, and `del job`)."


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
