"""Where a notebook's output goes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Bundle", "Display", "NotebookDisplay", "new_display_id"]

Bundle = Mapping[str, Any]
"""The same output in several forms, by MIME type; a front end shows the richest that it knows."""


class Display(Protocol):
    """Shows outputs that can be replaced later."""

    def show(self, bundle: Bundle, display_id: str) -> None:
        """Add an output to the running cell."""

    def update(self, bundle: Bundle, display_id: str) -> None:
        """Replace the output that was shown under this id."""


class NotebookDisplay:
    """The outputs of the running cell, by way of IPython.

    The bundles are handed over raw: IPython 7.34 with ipywidgets 7.7 cannot update a widget that
    was displayed as an object.
    """

    def show(self, bundle: Bundle, display_id: str) -> None:
        """Add an output to the running cell."""
        from IPython.display import display

        display(dict(bundle), raw=True, display_id=display_id)  # type: ignore[no-untyped-call]

    def update(self, bundle: Bundle, display_id: str) -> None:
        """Replace the output that was shown under this id."""
        from IPython.display import update_display

        update_display(dict(bundle), raw=True, display_id=display_id)  # type: ignore[no-untyped-call]


def new_display_id() -> str:
    """Make an id of an output. It goes to the front end only; a saved notebook does not hold it."""
    return f"nbloader-{uuid.uuid4().hex}"
