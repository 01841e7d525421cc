"""Where a notebook's output goes, and what the outputs that are made of widgets share."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["NotebookDisplay"]

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"

ROOT_CLASS = "nbloader"
"""Of the widget that holds all others of a view."""

WAITING_CLASS = "nbloader-waits"
"""Of a row of buttons whose clicks are acted upon later."""

# The themes of Jupyter space widgets out, give their rows a fixed height, and set the titles of an
# accordion in a grey that is hard to read. Its classes begin with `p-` in ipywidgets 7 and with
# `jupyter-widget-` in 8. The mark in front of a title is an icon of a font, wide and small; here it
# is the one that a browser draws for `<details>`, so that all folds of a view are in line.
STYLE = """<style>
.nbloader .widget-html-content, .nbloader .widget-html { line-height: 1.5; height: auto; }
.nbloader .widget-html, .nbloader .widget-html-content { min-width: 0; }
.nbloader [class*="Collapse-header"] {
  padding: 0; border: 0; background: none; color: inherit;
  font-size: 13px; font-weight: normal; line-height: 1.5;
  display: list-item; list-style: disclosure-closed inside;
}
.nbloader [class*="Collapse-open"] > [class*="Collapse-header"] {
  list-style-type: disclosure-open;
}
.nbloader [class*="Collapse-header"] > i { display: none; }
.nbloader [class*="Collapse-contents"] { padding: 0 0 2px 1.2em; border: 0; background: none; }
.nbloader [class*="Collapse"] { margin: 0; }
.nbloader .widget-dropdown > select { min-width: 0; text-overflow: ellipsis; }
.nbloader .widget-dropdown > label { width: auto; }
.nbloader .nbloader-waits > .jupyter-button {
  background: none; box-shadow: none; outline: 1px dashed; outline-offset: -1px; opacity: 0.7;
}
</style>"""
"""To stand in one of the HTML widgets of a view."""

Bundle = Mapping[str, Any]
"""The same output in several forms, by MIME type; a front end shows the richest that it knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a view in a notebook shows of a job.

    Attributes:
        speed, eta: whether the speed and the time left are shown.
        raised: whether the error of a failed job is shown where the view is seen: by the cell
            whose call has failed. Then the view only points at it.
    """

    speed: bool = True
    eta: bool = True
    raised: bool = False


WHOLE = Form()


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


def bundle_of(root: Any) -> Bundle:
    """Return the form of an output that shows a widget."""
    return {WIDGET_MIME: {"version_major": 2, "version_minor": 0, "model_id": root.model_id}}


class OpenWidgets:
    """The widgets of a view, to be closed together.

    Layouts and styles are widgets too, which closing their owner leaves open.
    """

    def __init__(self) -> None:
        self._open: list[Any] = []

    def __bool__(self) -> bool:
        return bool(self._open)

    def keep(self, widget: Any) -> Any:
        """Note a widget that has been opened, and return it."""
        self._open.append(widget)
        return widget

    def close(self) -> None:
        """Close all of them, the last one first."""
        while self._open:
            self._open.pop().close()
