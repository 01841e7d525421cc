"""Installed packages, without importing them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path

from nbloader.records import PackageFacts

__all__ = [
    "distribution_name",
    "package_facts",
    "package_folder",
]

# Where the name on the package index is not that of the import, the one to install first.
_DISTRIBUTIONS = {
    "Levenshtein": ("levenshtein", "python-Levenshtein"),
    "PIL": ("pillow", "pillow-simd"),
    "auto_gptq": ("auto-gptq",),
    "awq": ("autoawq",),
    "bs4": ("beautifulsoup4",),
    "cv2": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
    "google.protobuf": ("protobuf",),
    "imwatermark": ("invisible-watermark",),
    "modelopt": ("nvidia-modelopt",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "optimum.quanto": ("optimum-quanto",),
    "quark": ("amd-quark",),
    "sklearn": ("scikit-learn",),
    "spqr_quant": ("spqr-quant",),
}


def distribution_name(name: str) -> str:
    """Give the name on the package index of the package that is imported as `name`."""
    return _distribution_names(name)[0]


def package_facts(names: Iterable[str]) -> dict[str, PackageFacts]:
    """Give the installed and the imported version of each package. Nothing is imported.

    A package that is there without metadata has the version `?`.

    Args:
        names: as they are imported, such as `PIL` or `google.protobuf`.
    """
    return {name: _facts(name) for name in dict.fromkeys(names)}


def package_folder(name: str) -> Path | None:
    """Give the folder of the files of a package; None if there is none. Nothing is imported.

    An empty folder of that name, or somebody's module, is none.
    """
    spec = _spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        return None
    return Path(spec.origin).parent


def _distribution_names(name: str) -> tuple[str, ...]:
    # A module inside of a package is not on the index by that name; what is, is someone else's.
    return _DISTRIBUTIONS.get(name) or (name.partition(".")[0].replace("_", "-"),)


def _facts(name: str) -> PackageFacts:
    imported = _imported(name)
    # To look for `google.protobuf` would import `google`; its metadata have to be enough.
    if "." not in name and _spec(name) is None:
        return PackageFacts(name=name, installed=None, imported=imported)
    for distribution in _distribution_names(name):
        try:
            found = importlib.metadata.distribution(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        return PackageFacts(
            name=name, installed=found.version, imported=imported, editable=_is_editable(found)
        )
    return PackageFacts(name=name, installed=None if "." in name else "?", imported=imported)


def _is_editable(found: importlib.metadata.Distribution) -> bool:
    """Tell whether a package is a link to its sources, as `direct_url.json` (PEP 610) says."""
    try:
        match json.loads(found.read_text("direct_url.json") or "null"):
            case {"dir_info": {"editable": True}}:
                return True
    except ValueError:
        pass
    return False


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _imported(name: str) -> str | None:
    module = sys.modules.get(name)
    try:
        version = getattr(module, "__version__", None)
    except Exception:  # A module may answer for its attributes by code of its own.
        return None
    return str(version) if isinstance(version, str) else None
