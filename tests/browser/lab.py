"""A JupyterLab of its own, and a notebook in it that a test can drive."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["Lab", "Notebook", "chromium", "jupyterlab"]

START_TIMEOUT_S = 120
IDLE_LIMIT_S = 300
RUN_TIMEOUT_S = 300
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab.

    Attributes:
        folder: the notebooks that it shows.
    """

    url: str
    token: str
    folder: Path


@contextmanager
def jupyterlab(home: Path, environment: Mapping[str, str]) -> Iterator[Lab]:
    """Start JupyterLab on loopback, with the settings that it comes with.

    Args:
        home: an empty folder for all that it writes.
        environment: that of its kernels.
    """
    folder, config, runtime = (home / name for name in ("notebooks", "config", "runtime"))
    overrides = config / "labconfig/default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    folder.mkdir()
    # It would ask for news and updates over the internet.
    notification = {"fetchNews": "false", "checkForUpdates": False}
    overrides.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": notification}))
    token = secrets.token_hex(16)
    options = {
        "IdentityProvider.token": token,
        "LabApp.expose_app_in_browser": True,
        "LabApp.news_url": None,
        "MappingKernelManager.cull_idle_timeout": IDLE_LIMIT_S,
        "ServerApp.allow_root": True,
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.open_browser": False,
        "ServerApp.port": 0,
        "ServerApp.root_dir": str(folder),
        # It ends by itself if nobody is left to end it.
        "ServerApp.shutdown_no_activity_timeout": IDLE_LIMIT_S,
    }
    own = {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_SETTINGS_DIR": str(config / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(config / "workspaces"),
    }
    with (home / "jupyterlab.log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab"),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            env={**environment, **own},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield Lab(_address(server, runtime, home / "jupyterlab.log"), token, folder)
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _address(server: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Wait until the server has written down where it listens."""
    file = runtime / f"jpserver-{server.pid}.json"
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            return str(json.loads(file.read_text())["url"])
        except (FileNotFoundError, json.JSONDecodeError):
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-4000:]}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium of this machine, without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        pytest.fail("Playwright is missing. Run: make browser-test")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.fail("Chromium is missing. On Debian and Ubuntu, run: apt-get install chromium")
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


# What the page is asked; `jupyterapp` is there because of `expose_app_in_browser`.
_READY = """
() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === "idle"
"""
_RUN = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
_SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"
_DONE = """
() => {
  const panel = window.jupyterapp.shell.currentWidget;
  const code = [...panel.content.model.cells].filter(cell => cell.type === "code");
  const failed = code.some(cell => cell.toJSON().outputs.some(o => o.output_type === "error"));
  const ran = code.every(cell => cell.executionCount !== null);
  return panel.sessionContext.session.kernel.status === "idle" && (ran || failed);
}
"""


class Notebook:
    """A notebook that is open in JupyterLab.

    Attributes:
        page: the browser's page.
    """

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self._path = path

    @classmethod
    def open(cls, browser: Browser, lab: Lab, name: str) -> Notebook:
        """Open the notebook of that name, and wait for its kernel."""
        page = browser.new_page(viewport={"width": 1000, "height": 1400})
        page.goto(f"{lab.url}doc/tree/{name}?token={lab.token}")
        page.wait_for_function(_READY, timeout=1000 * START_TIMEOUT_S)
        return cls(page, lab.folder / name)

    def run_all(self) -> None:
        """Begin to run all cells."""
        self.page.evaluate(_RUN)

    def wait(self) -> None:
        """Wait until all cells have run, or one has failed."""
        self.page.wait_for_function(_DONE, timeout=1000 * RUN_TIMEOUT_S)

    def save(self) -> Any:
        """Save it, and return what is in the file then."""
        self.page.evaluate(_SAVE)
        return nbformat.read(self._path, as_version=4)
