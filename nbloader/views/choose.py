"""Which view a job gets: a table of cases, the facts it is asked with, and the making."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TextIO

from nbloader.views.base import NoView, View

__all__ = ["FrontEnd", "ViewName", "choose", "front_end", "make"]

OLDEST_IPYWIDGETS = (7, 7)


class ViewName(StrEnum):
    """The views that can be asked for."""

    AUTO = "auto"
    WIDGET = "widget"
    HTML = "html"
    TEXT = "text"
    TQDM = "tqdm"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """What is known of the place where the output will be seen.

    Attributes:
        kernel: whether this process is a Jupyter kernel.
        interactive: whether someone sits at the notebook. In a batch run (papermill, nbconvert,
            nbclient, nbval) nobody can be asked for input, and the kernel knows that.
        ipywidgets: its installed version, None if it is not there.
    """

    kernel: bool = False
    interactive: bool = False
    ipywidgets: tuple[int, ...] | None = None


def choose(requested: ViewName, facts: FrontEnd) -> ViewName:
    """Settle which view is shown.

    `auto` is the richest view that works for certain. A view that cannot be shown gives way to the
    next one that can: a model is not worth less because its progress looks plainer.

    Widgets need someone who looks: a saved notebook must not hold them, and what runs notebooks in
    a batch drops the update that would take them out (nbval), so a batch run gets text.
    """
    if requested in {ViewName.NONE, ViewName.TEXT, ViewName.TQDM}:
        return requested
    if not facts.kernel:
        return ViewName.TEXT
    if requested is ViewName.HTML:
        return ViewName.HTML
    if not facts.interactive:
        return ViewName.TEXT
    widgets = facts.ipywidgets is not None and facts.ipywidgets >= OLDEST_IPYWIDGETS
    return ViewName.WIDGET if widgets else ViewName.HTML


def front_end(environ: Mapping[str, str] = os.environ) -> FrontEnd:
    """Find out where the output will be seen. Imports nothing that is not there already."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    kernel = getattr(get_ipython() if get_ipython else None, "kernel", None)
    if kernel is None:
        return FrontEnd()
    # Kaggle's "Save & Run All" is a batch run; its interactive sessions say "Interactive".
    batch = environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch"
    return FrontEnd(
        kernel=True,
        # ipykernel keeps what the front end said of itself with the request that is running.
        interactive=not batch and getattr(kernel, "_allow_stdin", None) is True,
        ipywidgets=_installed("ipywidgets"),
    )


def make(name: ViewName, *, stream: TextIO | None, speed: bool = True, eta: bool = True) -> View:
    """Make a view that `choose` has chosen.

    Args:
        stream: where the views of text write to.
        speed, eta: whether the speed and the time left are shown.
    """
    if stream is None and name in {ViewName.TEXT, ViewName.TQDM}:
        return NoView()  # A program without a console has no stream to write to.
    stream = stream or sys.stderr
    match name:
        case ViewName.NONE:
            return NoView()
        case ViewName.TQDM:
            from nbloader.views.tqdm_view import TqdmView

            return TqdmView(stream, speed=speed, eta=eta)
        case ViewName.WIDGET | ViewName.HTML:
            return _notebook_view(name, speed=speed, eta=eta)
        case _:
            from nbloader.views.text import TextView

            return TextView(stream, interactive=stream.isatty(), speed=speed, eta=eta)


def _notebook_view(name: ViewName, *, speed: bool, eta: bool) -> View:
    from nbloader.views.display import NotebookDisplay
    from nbloader.views.html import HtmlView

    display = NotebookDisplay()
    if name is ViewName.WIDGET:
        from nbloader.views.widget import WidgetView

        try:
            return WidgetView(display, speed=speed, eta=eta)
        except ImportError:  # installed, and broken
            pass
    return HtmlView(display, speed=speed, eta=eta)


def _installed(package: str) -> tuple[int, ...] | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = re.match(r"\d+(\.\d+)*", version(package))
    except PackageNotFoundError:
        return None
    return tuple(int(part) for part in found[0].split(".")) if found else None
