"""Facts about the machine: where we run, disk, memory, GPUs, installed packages.

Only gathers; what follows from the facts is decided in `checks` and `fit`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = [
    "DiskFacts",
    "GpuFacts",
    "Place",
    "disk_facts",
    "existing_part",
    "folder_of_environment",
    "gpu_facts",
    "how_to_add_token",
    "how_to_connect",
    "memory_facts",
    "package_versions",
    "pipeline_classes",
    "place",
]


class Place(StrEnum):
    """A hosted notebook service, or none of those we know."""

    COLAB = "Colab"
    KAGGLE = "Kaggle"
    BINDER = "Binder"
    OTHER = "other"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """The file system that a folder is on, or would be on.

    Attributes:
        free, total: bytes, as an ordinary user may use them.
        writable: whether a file could be made there just now.
    """

    folder: str
    free: int
    total: int
    writable: bool


def existing_part(folder: Path) -> Path:
    """Give the nearest folder above that exists, or `folder` itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def disk_facts(folder: Path) -> DiskFacts:
    """Measure the file system of `folder`, which need not exist yet.

    The path itself is measured, because `/` can be another file system (on Kaggle it reports
    terabytes).
    """
    there = existing_part(folder)
    usage = shutil.disk_usage(there)
    return DiskFacts(
        folder=str(folder), free=usage.free, total=usage.total, writable=_writable(there)
    )


def _writable(folder: Path) -> bool:
    try:
        # A real file, because permission bits say nothing on a read-only or networked system.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".nbloader-"):
            return True
    except OSError:
        return False


def package_versions(names: tuple[str, ...]) -> dict[str, str | None]:
    """Give the installed version of each importable package; None where it is missing.

    Nothing is imported.
    """
    found: dict[str, str | None] = {}
    for name in names:
        try:
            present = importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            present = False
        found[name] = _version(name) if present else None
    return found


def _version(name: str) -> str:
    for distribution in (name, name.replace("_", "-"), {"PIL": "pillow"}.get(name, name)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "?"


def pipeline_classes() -> frozenset[str] | None:
    """Give the names of the pipelines that the installed diffusers has; None if that is not known.

    They are read from the text of its `__init__.py`, which lists every public name: importing it
    takes seconds, and a class that is missing should be told before the first weight.
    """
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).read_text("utf-8")
    except OSError:
        return None
    return frozenset(re.findall(r'"(\w+Pipeline)"', text)) or None


def memory_facts() -> tuple[int, int]:
    """Give (available, total) bytes of memory, within the limit of the container if any."""
    import psutil

    memory = psutil.virtual_memory()
    available, total = int(memory.available), int(memory.total)
    for limit, used in _CGROUP_FILES:
        try:
            most = int(Path(limit).read_text("ascii"))
            left = max(0, most - int(Path(used).read_text("ascii")))
        except (OSError, ValueError):  # No such file, or "max".
            continue
        return min(available, left), min(total, most)
    return available, total


_CGROUP = "/sys/fs/cgroup"
_CGROUP_FILES = (
    (f"{_CGROUP}/memory.max", f"{_CGROUP}/memory.current"),
    (f"{_CGROUP}/memory/memory.limit_in_bytes", f"{_CGROUP}/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """One NVIDIA GPU. Sizes are bytes."""

    name: str
    free: int
    total: int
    capability: tuple[int, int]


def gpu_facts() -> tuple[GpuFacts, ...]:
    """Ask the NVIDIA driver for its GPUs, without torch; empty where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        found = []
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            found.append(
                GpuFacts(
                    name=name.decode() if isinstance(name, bytes) else str(name),
                    free=int(memory.free),
                    total=int(memory.total),
                    capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
                )
            )
        return tuple(found)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def folder_of_environment(environ: Mapping[str, str]) -> Path:
    """Give the Hub's cache folder by the Hub library's own rules, without importing it."""
    if cache := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(cache)).expanduser()
    if home := environ.get("HF_HOME"):
        return Path(os.path.expandvars(home)).expanduser() / "hub"
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"
