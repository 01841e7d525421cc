"""A notebook that is open in a front end, and that a test can drive as a user does."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import nbformat

from tests.browser.frames import Message, messages
from tests.browser.servers import FrontEnd, Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, WebSocket

__all__ = ["LIVE", "WAIT_MS", "Notebook", "open_notebook"]

LIVE = ".widget-vbox.nbloader"
"""The root of the live view, in both versions of ipywidgets."""

WAIT_MS = 60_000
"""How long anything is waited for, of which nothing is promised."""

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}

_GUARD = "window.__pwned = [];"
"""What scripts of a hostile repository would call."""


class Notebook(ABC):
    """An open notebook; cells are counted from 0.

    Attributes:
        page: the browser's page.
        dialogs: the texts of the dialogs that the page opened.
        received: the messages of the kernel.
    """

    def __init__(self, page: Page, server: Server, name: str) -> None:
        self.page = page
        self.front_end = server.front_end
        self.python = server.python
        self.path = server.folder / name
        self.dialogs: list[str] = []
        self.received: list[Message] = []
        page.on("dialog", self._dialog)
        page.on("websocket", self._websocket)
        page.add_init_script(_GUARD)
        page.goto(f"{server.url}{self._route}/{quote(name)}?token={server.token}")
        page.wait_for_function(self._ready, timeout=WAIT_MS)

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _websocket(self, socket: WebSocket) -> None:
        if "/channels" in socket.url:
            socket.on("framereceived", lambda frame: self.received.extend(messages(frame)))

    @property
    @abstractmethod
    def _route(self) -> str:
        """The path of an open notebook on the server."""

    @property
    @abstractmethod
    def _ready(self) -> str:
        """What the page is asked to know that a cell can be run."""

    @property
    @abstractmethod
    def _done(self) -> str:
        """What the page is asked to know that the cell of a number has ended."""

    @abstractmethod
    def run(self, cell: int = 0) -> None:
        """Begin to run a cell."""

    @abstractmethod
    def interrupt(self) -> None:
        """Do what the front end's stop button does."""

    @abstractmethod
    def output(self, cell: int = 0) -> Locator:
        """Return the outputs of a cell."""

    @abstractmethod
    def content(self, cell: int = 0) -> Locator:
        """Return the first of the outputs of a cell, without the prompt beside it."""

    @abstractmethod
    def set_dark(self, dark: bool) -> None:
        """Take the dark theme or the light one."""

    @abstractmethod
    def _save(self) -> None: ...

    def wait(self, cell: int = 0, *, timeout_ms: float = WAIT_MS) -> None:
        """Wait until a cell has ended."""
        self.page.wait_for_function(self._done, arg=cell, timeout=timeout_ms)

    def live(self, cell: int = 0) -> Locator:
        """Return the live view in the outputs of a cell."""
        return self.output(cell).locator(LIVE)

    def wait_live(self, cell: int = 0) -> Locator:
        """Wait until a cell shows a live view, and give it.

        Raises:
            AssertionError: it does not; with what it shows.
        """
        from playwright.sync_api import TimeoutError as Late

        try:
            self.live(cell).wait_for(timeout=WAIT_MS)
        except Late:
            raise AssertionError(f"no live view, but:\n{self.text(cell)}") from None
        return self.live(cell)

    def text(self, cell: int = 0) -> str:
        """Return what the outputs of a cell say."""
        return "\n".join(self.output(cell).all_inner_texts())

    def wait_for_text(self, pattern: str, cell: int = 0, *, timeout_ms: float = WAIT_MS) -> str:
        """Wait until the outputs of a cell match a regular expression of JavaScript, and give what
        matched.

        Raises:
            AssertionError: they do not; with what they say.
        """
        from playwright.sync_api import TimeoutError as Late

        output = self.output(cell).first.element_handle(timeout=WAIT_MS)
        try:
            found = self.page.wait_for_function(
                "([output, pattern]) => output.innerText.match(pattern)?.[0]",
                arg=[output, pattern],
                timeout=timeout_ms,
            )
        except Late:
            raise AssertionError(f"waited for {pattern!r} and saw:\n{self.text(cell)}") from None
        return str(found.json_value())

    def wait_static(self, cell: int = 0) -> None:
        """Wait until no live view is left in the outputs of a cell."""
        from playwright.sync_api import TimeoutError as Late

        try:
            self.live(cell).wait_for(state="detached", timeout=WAIT_MS)
        except Late:
            raise AssertionError(f"it is still live:\n{self.text(cell)}") from None

    def wait_buttons(self, wanted: Sequence[str], cell: int = 0) -> None:
        """Wait until a live view shows these buttons and no other, in their order.

        Raises:
            AssertionError: it does not come to that; with what is shown.
        """
        from playwright.sync_api import TimeoutError as Late

        root = self.wait_live(cell).element_handle()
        try:
            self.page.wait_for_function(
                """([root, wanted]) => {
                     const found = [...root.querySelectorAll("button")];
                     return found.every(one => !one.disabled)
                       && found.map(one => one.innerText.trim()).join() === wanted.join();
                   }""",
                arg=[root, list(wanted)],
                timeout=WAIT_MS,
            )
        except Late:
            raise AssertionError(f"not {wanted}:\n{self.text(cell)}") from None

    def press(self, button: str, cell: int = 0) -> None:
        """Press a button of a live view, once it can be pressed."""
        self.wait_live(cell).get_by_role("button", name=button, exact=True).click(timeout=WAIT_MS)

    def save(self) -> Any:
        """Save it, and return what is in the file then."""
        self._save()
        return nbformat.read(self.path, as_version=4)

    def outputs(self, cell: int = 0) -> list[Any]:
        """Save it, and return the outputs of a cell as the file has them."""
        return list(self.save().cells[cell].outputs)

    def close(self) -> None:
        """End the kernel and close the page."""
        self.page.evaluate(self._shut_down)
        self.page.close()

    @property
    @abstractmethod
    def _shut_down(self) -> str: ...


class _Lab(Notebook):
    """JupyterLab; `jupyterapp` is there because of the option `expose_app_in_browser`."""

    _route = "doc/tree"
    _ready = """
        () => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status
              === "idle"
    """
    _done = """
        cell => {
          const panel = window.jupyterapp.shell.currentWidget;
          const widget = panel.content.widgets[cell];
          return widget.model.executionCount !== null
                 && widget.promptNode.innerText !== "[*]:"
                 && panel.sessionContext.session.kernel.status === "idle";
        }
    """
    _shut_down = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"

    def run(self, cell: int = 0) -> None:
        self.page.evaluate(
            """cell => {
              const app = window.jupyterapp;
              app.shell.currentWidget.content.deselectAll();
              app.shell.currentWidget.content.activeCellIndex = cell;
              app.commands.execute("notebook:run-cell");
            }""",
            cell,
        )

    def interrupt(self) -> None:
        self.page.evaluate(
            "() => { window.jupyterapp.commands.execute('notebook:interrupt-kernel') }"
        )

    def output(self, cell: int = 0) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".jp-OutputArea")

    def content(self, cell: int = 0) -> Locator:
        return self.output(cell).locator(".jp-OutputArea-output").first

    def set_dark(self, dark: bool) -> None:
        theme = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme
        )
        self.page.wait_for_function(
            # A veil lies over the page until the theme is there.
            "theme => document.body.dataset.jpThemeName === theme"
            " && !document.querySelector('#jupyterlab-splash')",
            arg=theme,
            timeout=WAIT_MS,
        )

    def _save(self) -> None:
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")


class _Classic(Notebook):
    """The classic notebook 6."""

    _route = "notebooks"
    _ready = """
        () => window.Jupyter?.notebook?._fully_loaded && Jupyter.notebook.kernel?.is_connected()
              && !Jupyter.notebook.kernel_busy && Jupyter.WidgetManager?._managers.length > 0
    """
    _done = """
        cell => Jupyter.notebook.get_cell(cell).input_prompt_number !== "*"
                && !Jupyter.notebook.get_cell(cell).running && !Jupyter.notebook.kernel_busy
    """
    _shut_down = "() => new Promise(done => Jupyter.notebook.session.delete(done, done))"

    def __init__(self, page: Page, server: Server, name: str) -> None:
        super().__init__(page, server, name)
        # When it has found out which widgets the kernel has, it draws all outputs anew. Asking once
        # more ends after that.
        page.evaluate("() => Jupyter.WidgetManager._managers[0]._loadFromKernel()")

    def run(self, cell: int = 0) -> None:
        self.page.evaluate("cell => { Jupyter.notebook.execute_cells([cell]) }", cell)

    def interrupt(self) -> None:
        self.page.evaluate("() => { Jupyter.notebook.kernel.interrupt() }")

    def output(self, cell: int = 0) -> Locator:
        return self.page.locator(".code_cell").nth(cell).locator(".output")

    def content(self, cell: int = 0) -> Locator:
        return self.output(cell).locator(".output_subarea").first

    def set_dark(self, dark: bool) -> None:
        # It has no dark theme: what a system asks for may change nothing.
        self.page.emulate_media(color_scheme="dark" if dark else "light")

    def _save(self) -> None:
        self.page.evaluate("() => Jupyter.notebook.save_notebook()")


_FRONT_ENDS: Mapping[FrontEnd, type[Notebook]] = {
    FrontEnd.LAB: _Lab,
    FrontEnd.CLASSIC: _Classic,
}


def open_notebook(
    browser: Browser, server: Server, name: str, *cells: str, scale: float = 1.0
) -> Notebook:
    """Write a notebook with these cells, open it, and wait for its kernel.

    Args:
        scale: pixels of a screenshot for one of the page.
    """
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=KERNEL
    )
    (server.folder / name).write_text(json.dumps(notebook), encoding="utf-8")
    page = browser.new_page(
        viewport={"width": 1300, "height": 1600}, device_scale_factor=scale, color_scheme="light"
    )
    return _FRONT_ENDS[server.front_end](page, server, name)
