"""Where this process runs, and what that means for its user."""

from __future__ import annotations

from collections.abc import Mapping

from nbloader.records import Place

__all__ = ["how_to_add_token", "how_to_connect", "place"]


def place(environ: Mapping[str, str]) -> Place:
    """Tell where this process runs. Kaggle comes first: its image is made from Colab's."""
    if "KAGGLE_KERNEL_RUN_TYPE" in environ or "KAGGLE_URL_BASE" in environ:
        return Place.KAGGLE
    if "COLAB_RELEASE_TAG" in environ or "COLAB_GPU" in environ:
        return Place.COLAB
    if any(name.startswith("BINDER_") for name in environ):
        return Place.BINDER
    return Place.OTHER


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
        return "Turn on Internet in the settings of the notebook (it needs a verified account)."
    return (
        "Check the connection of this machine, `endpoint=` and HF_ENDPOINT. If the files are in "
        "the cache, pass `local_files_only=True`."
    )
