"""Take the pictures that the README and the guide show: `python -m tests.browser.screenshots`.

They are real: JupyterLab in Chromium, a download from the local Hub over a slow link that stalls.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.localhub.demo import QWEN_IMAGE_EDIT, publish
from tests.browser.chromium import chromium
from tests.browser.notebooks import LIVE, WAIT_MS, Notebook, open_notebook
from tests.browser.servers import FrontEnd, serving
from tests.notebook_runs import ROOT, notebook_environment

__all__ = ["main"]

IMAGES = ROOT / "docs/images"
SCALE = 2.0
COLOURS = 96
MAX_RUN_S = 600

SLOW = Fault(RequestClass.CDN_GET, total_bytes_per_second=6_000_000)
STALL = Fault(RequestClass.CDN_GET, path="*/transformer/*", cut=Cut.STALL, after_bytes=6_000_000)

DOWNLOAD = """\
import nbloader

nbloader.download("{repo}", cache_dir={cache!r}, settings={{"stall_timeout_s": 5}})"""

START = """\
import nbloader

job = nbloader.start("{repo}", cache_dir={cache!r}, settings={{"stall_timeout_s": 5}})"""

CHART = """\
job.result()
job.report.plot().savefig({path!r}, dpi=110, bbox_inches="tight")"""


def main() -> None:
    """Write all pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    root = ROOT / "demo/hub"
    publish(root)
    with (
        tempfile.TemporaryDirectory(prefix="nbloader-screenshots-") as temporary,
        LocalHub.start(root, max_seconds=MAX_RUN_S) as hub,
    ):
        home = Path(temporary)
        environment = notebook_environment(hub.endpoint, home)
        with serving(FrontEnd.LAB, home, environment) as server, chromium() as browser:

            def opened(name: str, *cells: str) -> Notebook:
                return open_notebook(browser, server, f"{name}.ipynb", *cells, scale=SCALE)

            _widget(opened, hub, home / "first")
            _job(opened, hub, home / "second")


def _widget(opened: Callable[..., Notebook], hub: LocalHub, cache: Path) -> None:
    notebook = opened("widget", DOWNLOAD.format(repo=QWEN_IMAGE_EDIT, cache=str(cache)))
    _begin(notebook, hub)
    _take(notebook, "widget", "light", "dark")
    notebook.interrupt()
    notebook.wait()
    notebook.close()


def _job(opened: Callable[..., Notebook], hub: LocalHub, cache: Path) -> None:
    start = START.format(repo=QWEN_IMAGE_EDIT, cache=str(cache))
    notebook = opened("job", start, CHART.format(path=str(IMAGES / "chart.png")))
    _begin(notebook, hub)
    _take(notebook, "start", "light")
    notebook.run(1)
    notebook.wait(1)
    notebook.close()
    _shrink(IMAGES / "chart.png", (IMAGES / "chart.png").read_bytes())


def _begin(notebook: Notebook, hub: LocalHub) -> None:
    """Run the first cell until its download has stalled and goes on."""
    hub.set_faults([SLOW, STALL])
    notebook.run()
    notebook.wait_for_text(r"no bytes for \d+ s")
    hub.set_faults([SLOW])
    notebook.wait_for_text(r"fell silent")
    live = notebook.wait_live()
    bar = "[role=progressbar][aria-label=bytes]"
    share = float(live.locator(bar).get_attribute("aria-valuenow") or 0)
    notebook.page.wait_for_function(
        "([bar, share]) => document.querySelector(bar).ariaValueNow > share + 5",
        arg=[f"{LIVE} {bar}", share],
        timeout=WAIT_MS,
    )


def _take(notebook: Notebook, name: str, *themes: str) -> None:
    for theme in themes:
        notebook.set_dark(theme == "dark")
        _shrink(IMAGES / f"{name}-{theme}.png", notebook.wait_live().screenshot(timeout=WAIT_MS))
    notebook.set_dark(False)


def _shrink(file: Path, content: bytes) -> None:
    """Write a picture with few colours, which is a third of its size."""
    from PIL import Image

    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    main()
