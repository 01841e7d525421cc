"""Where this process runs, what that means for its user, and the models that are attached there."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from nbloader.machine.folders import kind_of
from nbloader.notebook import KAGGLE_RUN_TYPE, Kernel, batch_told_by, running_kernel
from nbloader.records import AttachedModel, Interface, Place, PlaceFacts
from nbloader.wording import IN_COLAB, LOG_IN

_VS_CODE_NAME = "__vsc_ipynb_file__"
"""What the Jupyter extension of VS Code puts into the namespace of a notebook's kernel."""

_VS_CODE_VARIABLE = "VSCODE_PID"
"""Set for what VS Code starts itself; it is taken out of the environment of its terminals."""

KAGGLE_INPUT = Path("/kaggle/input")

MOST_LEVELS = 8
"""Enough for `models/<owner>/<slug>/<framework>/<variation>/<version>` and a folder in it."""

MOST_ENTRIES = 1_000
"""Looked at in each folder. Those on the way to a model hold few."""

MOST_FOLDERS = 2_000
MOST_SECONDS = 1.0

_SHORTEST = 4
"""Letters and digits of a name that are no accident inside another."""


def place_facts(environ: Mapping[str, str] = os.environ) -> PlaceFacts:
    """Say where this process runs, and what its user sits at."""
    return place_from(environ, running_kernel())


def place_from(environ: Mapping[str, str], kernel: Kernel | None) -> PlaceFacts:
    """Return the same from variables and the kernel, None for a process that is no kernel."""
    where, variable = _place(environ)
    interface, told_by = _interface(environ, kernel)
    return PlaceFacts(
        place=where,
        interface=interface,
        source=", ".join(dict.fromkeys(part for part in (variable, told_by) if part)),
    )


def place(environ: Mapping[str, str]) -> Place:
    """Return the hosted service alone."""
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
    Place.COLAB: IN_COLAB,
    Place.KAGGLE: "On Kaggle, choose Add-ons > Secrets, add it with the label HF_TOKEN, and attach "
    "it to this notebook (Internet must be on).",
}


def how_to_add_token(where: Place) -> str:
    """Say how a token of the Hub is handed over in this place."""
    return _ADD_TOKEN.get(where, LOG_IN)


HOW_TO_FREE = 'To free it, run `nbloader.unload(pipe)` with its name, or `nbloader.unload("all")`.'
"""How the memory of a model that is loaded in this process is freed."""


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


def attached_models(
    root: Path = KAGGLE_INPUT, *, clock: Callable[[], float] = time.monotonic
) -> tuple[AttachedModel, ...]:
    """Find the folders below `root` that one of the libraries can load, upper ones first.

    What is in such a folder belongs to it and is not listed again. The search ends after
    `MOST_LEVELS` folders downwards, `MOST_FOLDERS` folders and `MOST_SECONDS`, for data sets can
    hold millions of files.
    """
    until = clock() + MOST_SECONDS
    found = []
    waiting = deque([(str(root), 0)])
    seen = 0
    while waiting and seen < MOST_FOLDERS and clock() <= until:
        folder, level = waiting.popleft()
        seen += 1
        if level and (kind := kind_of(Path(folder))):
            found.append(AttachedModel(folder=folder, kind=kind))
        elif level < MOST_LEVELS:
            waiting += [(path, level + 1) for path in _folders_in(folder)]
    return tuple(found)


def _folders_in(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            few = islice(entries, MOST_ENTRIES)
            return sorted(entry.path for entry in few if entry.is_dir(follow_symlinks=False))
    except OSError:  # not there, or not allowed
        return []


def matching(models: Sequence[AttachedModel], repo_id: str) -> tuple[AttachedModel, ...]:
    """Put those first whose folder looks like the name of the repository."""
    return tuple(sorted(models, key=lambda model: -_likeness(model.folder, repo_id)))


def looks_like(model: AttachedModel, repo_id: str) -> bool:
    """Say whether the folder of a model bears the name of a repository."""
    return _likeness(model.folder, repo_id) > 0


def _likeness(folder: str, repo_id: str) -> int:
    """Compare letters and digits alone: Kaggle's names are in lower case and without dots.

    3: a folder has the name, alone or with its owner's; 2: a folder's name contains it; 1: all of
    its words are in the path, as in `qwen-3/transformers/0.6b/1` for Qwen3-0.6B.
    """
    owner, _, name = repo_id.rpartition("/")
    parts = [_plain(part) for part in Path(folder).parts]
    wanted = _plain(name)
    if not wanted:
        return 0
    if {wanted, _plain(owner) + wanted, "models" + _plain(owner) + wanted} & set(parts):
        return 3
    if len(wanted) < _SHORTEST:
        return 0
    if any(wanted in part for part in parts):
        return 2
    path = "".join(parts)
    return int(all(_plain(word) in path for word in re.split(r"[-_]", name)))


def _plain(text: str) -> str:
    return re.sub(r"[^0-9a-z]", "", text.lower())
