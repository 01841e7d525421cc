from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nbloader.localhub import LocalHub
from nbloader.localhub.demo import publish
from tests.browser.chromium import chromium
from tests.browser.driver import build_driver
from tests.browser.looks import Looks, pictures
from tests.browser.notebooks import Notebook, open_notebook
from tests.browser.servers import FrontEnd, Server, serving
from tests.notebook_runs import ROOT, notebook_environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OpenNotebook = Callable[..., Notebook]


@pytest.fixture(scope="session")
def demo_root() -> Path:
    """The demo repositories, kept from run to run."""
    root = ROOT / "demo/hub"
    publish(root)
    return root


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session", params=list(FrontEnd), ids=str)
def server(
    request: pytest.FixtureRequest,
    _demo_server: LocalHub,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp(request.param)
    environment = notebook_environment(_demo_server.endpoint, home)
    environment["LD_LIBRARY_PATH"] = build_driver(home / "driver")
    with serving(request.param, home, environment) as server:
        yield server
    shutil.rmtree(home)  # the cache in it holds models


@pytest.fixture
def open_cells(
    browser: Browser, server: Server, request: pytest.FixtureRequest
) -> Iterator[OpenNotebook]:
    """Open a notebook with the given cells; it is closed, and its kernel ended, with the test."""
    opened: list[Notebook] = []

    def open_cells(*cells: str) -> Notebook:
        name = f"{request.node.originalname}-{len(opened)}.ipynb"
        scale = float(os.environ.get("SCREENSHOT_SCALE", "1"))
        opened.append(open_notebook(browser, server, name, *cells, scale=scale))
        return opened[-1]

    yield open_cells
    for notebook in opened:
        notebook.close()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """An empty cache of the Hub."""
    folder = tmp_path / "cache"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def look(tmp_path: Path) -> Callable[[Notebook], Looks]:
    return lambda notebook: Looks(notebook, pictures() or tmp_path)


class Served:
    """Notes when the Hub has served how many bytes of files."""

    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.history: list[tuple[float, int]] = []

    def __enter__(self) -> Served:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            served = self._hub.counters().file_bytes
            if not self.history or served != self.history[-1][1]:
                self.history.append((time.time(), served))


@pytest.fixture
def served(demo_hub: LocalHub) -> Iterator[Served]:
    with Served(demo_hub) as served:
        yield served
