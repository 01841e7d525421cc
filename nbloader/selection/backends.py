"""Files of a model of sentence-transformers that another backend than torch opens.

The rules are those of `backend_should_export` of sentence-transformers 6.2, for a folder: the file
beside the model, or in a folder that is named after the backend. Where there is none, the library
makes one of the PyTorch weights. A file that the caller names has to be there: the library would
make another in its place.
"""

from __future__ import annotations

import difflib
import re

from nbloader.errors import UnsupportedRepoError
from nbloader.hub_names import folder_and_name, join
from nbloader.records import Backend
from nbloader.selection.repo import Repo
from nbloader.selection.weights import Weights
from nbloader.text import quote

NEEDS = {
    "onnx": ("optimum.onnxruntime", "onnxruntime"),
    "openvino": ("optimum.intel", "openvino"),
}
"""The packages of each, as they are imported."""

_FILES = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}
_NAMES = {"onnx": re.compile(r".+\.onnx"), "openvino": re.compile(r"openvino.*\.xml")}

# The weights of a graph that is larger than its format holds, under any name that tools give them.
_BESIDE = re.compile(r"[._]data(?:[._-]?\w+)*")


def backend_weights(repo: Repo, folder: str, backend: Backend) -> Weights | None:
    """The files that a backend opens of the model in a folder; None if they have to be made.

    Raises:
        UnsupportedRepoError: the file that is asked for is not there.
    """
    if backend.export:
        return None
    name = backend.file_name or _FILES[backend.name]
    for place in (join(folder, name), join(join(folder, backend.name), name)):
        if place in repo.paths and _NAMES[backend.name].fullmatch(folder_and_name(place)[1]):
            return Weights((place, *_beside(repo, place)))
    if backend.file_name is None and backend.export is None:
        return None
    there = [path for path in sorted(repo.paths) if _opens(path, folder, backend)]
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.3) or there[:3]
    raise UnsupportedRepoError(
        f"{quote(repo.repo_id)} has no {quote(name)} for backend={quote(backend.name)}.",
        hint=f"It has {', '.join(map(quote, near))}: name one as file_name in model_kwargs."
        if near
        else "Leave out file_name and export in model_kwargs: the library then makes it of the "
        "PyTorch weights.",
    )


def _opens(path: str, folder: str, backend: Backend) -> bool:
    inside = path.startswith(f"{folder}/") if folder else True
    return inside and _NAMES[backend.name].fullmatch(folder_and_name(path)[1]) is not None


def _beside(repo: Repo, path: str) -> list[str]:
    """What a graph keeps its numbers in."""
    folder, name = folder_and_name(path)
    if name.endswith(".xml"):
        return repo.existing(folder, f"{name.removesuffix('.xml')}.bin")
    others = [
        other
        for other in repo.names(folder)
        if other.startswith(name) and _BESIDE.fullmatch(other, len(name))
    ]
    return repo.existing(folder, *others)
