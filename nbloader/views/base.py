"""What every view can do."""

from __future__ import annotations

import re
from typing import Protocol

from nbloader.state import JobState

__all__ = ["NoView", "View", "plain"]

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


class View(Protocol):
    """Shows a job. Called from one thread only."""

    def update(self, state: JobState) -> None:
        """Show the state; may pass over states that come too soon after one another."""

    def close(self, state: JobState) -> None:
        """Show the last state and leave only what may stay. Called once."""


class NoView:
    """Shows nothing."""

    def update(self, state: JobState) -> None:
        """Show nothing."""

    def close(self, state: JobState) -> None:
        """Show nothing."""


def plain(text: str, limit: int = 300) -> str:
    """Make foreign text fit for one line of a terminal: no control characters, bounded."""
    text = _UNPRINTABLE.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"
