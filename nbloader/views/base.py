"""What every view can do."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, TextIO

from nbloader.quoting import plain
from nbloader.records import CheckStatus
from nbloader.state import JobState, Status

__all__ = ["ICONS", "NoView", "View", "has_controls", "plain", "write"]

ICONS: Mapping[Status | CheckStatus, str] = MappingProxyType(
    {
        Status.RUNNING: "●",
        Status.READY: "✓",
        Status.FAILED: "✗",
        CheckStatus.PASSED: "✓",
        CheckStatus.WARNING: "⚠\ufe0e",  # the selector keeps it from being drawn as an emoji
        CheckStatus.FAILED: "✗",
        CheckStatus.SKIPPED: "–",
    }
)
"""The marks that stand for a status in every view."""


class View(Protocol):
    """Shows a job. Called from one thread at a time."""

    def update(self, state: JobState) -> None:
        """Show the state; may pass over states that come too soon after one another."""

    def close(self, state: JobState) -> None:
        """Show the last state and leave only what may stay. Called once."""


def has_controls(view: View) -> bool:
    """Tell whether a view has buttons that act on the job."""
    return bool(getattr(view, "has_controls", False))


class NoView:
    """Shows nothing."""

    def update(self, state: JobState) -> None:
        """Show nothing."""

    def close(self, state: JobState) -> None:
        """Show nothing."""


def write(stream: TextIO, text: str) -> None:
    """Write text with the characters that the stream can hold, `?` for the others, and flush."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()
