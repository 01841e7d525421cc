"""The stages of a load, a download and a preflight, put together. It alone knows them all."""

from __future__ import annotations

from nbloader.stages.loading import download, load
from nbloader.stages.preflight import check
from nbloader.stages.run import Run, Work, carry_out, view_of

__all__ = ["Run", "Work", "carry_out", "check", "download", "load", "view_of"]
