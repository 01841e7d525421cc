"""The stages of a load, a download and a preflight, put together. It alone knows them all."""

from __future__ import annotations

from nbloader.stages.loading import download, load
from nbloader.stages.preflight import check
from nbloader.stages.run import Run, Work, carry_out, view_of
from nbloader.stages.several import check_several, download_several

__all__ = [
    "Run",
    "Work",
    "carry_out",
    "check",
    "check_several",
    "download",
    "download_several",
    "load",
    "view_of",
]
