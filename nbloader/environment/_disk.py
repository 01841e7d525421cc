"""Folders and the file systems that they are on."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from nbloader.records import DiskFacts

__all__ = ["disk_facts", "existing_part", "folder_of_environment"]


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


def folder_of_environment(environ: Mapping[str, str]) -> Path:
    """Give the Hub's cache folder by the Hub library's own rules, without importing it."""
    if cache := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(cache)).expanduser()
    if home := environ.get("HF_HOME"):
        return Path(os.path.expandvars(home)).expanduser() / "hub"
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"
