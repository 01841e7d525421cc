"""What a user sees in JupyterLab while a model loads, and what the saved notebook holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from tests.browser.lab import Lab, Notebook, chromium, jupyterlab
from tests.notebook_runs import ROOT, notebook_environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BYTES_PER_SECOND = 8_000_000
BAR = ".jupyter-widgets .progress-bar"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
WIDTH = "element => parseFloat(element.style.width)"


@pytest.fixture(scope="module")
def hub(demo_root: Path) -> Iterator[LocalHub]:
    with LocalHub.start(demo_root, max_seconds=1200) as hub:
        yield hub


@pytest.fixture(scope="module")
def lab(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("lab")
    environment = notebook_environment(hub.endpoint, home)
    with jupyterlab(home, environment) as lab:
        yield lab
    shutil.rmtree(home)  # the cache in it holds the model


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def slow_hub(hub: LocalHub) -> Iterator[None]:
    hub.set_faults([Fault(RequestClass.CDN_GET, total_bytes_per_second=BYTES_PER_SECOND)])
    yield
    hub.clear_faults()


def outputs_of(notebook: Any, cell_id: str) -> list[Any]:
    (outputs,) = (cell.outputs for cell in notebook.cells if cell.id == cell_id)
    return list(outputs)


def assert_static(output: Any, end: str) -> None:
    """The output shows the last state in every place, without a script or a kernel."""
    assert output.output_type == "display_data"
    assert set(output.data) == {"text/html", "text/plain"}
    for form in output.data.values():
        assert "91.6 MB" in form
        assert end in form
        assert "<script" not in form
    assert "[100 %] ready in " in output.data["text/plain"]


@pytest.mark.usefixtures("slow_hub")
def test_widgets_move_while_bytes_arrive_and_leave_static_html(
    browser: Browser, lab: Lab, tmp_path: Path
) -> None:
    cell = nbformat.v4.new_code_cell(
        f'import nbloader\n\nfolder = nbloader.download("{MINILM}")', id="download"
    )
    (lab.folder / "download.ipynb").write_text(
        nbformat.writes(nbformat.v4.new_notebook(cells=[cell], metadata=KERNEL))
    )
    notebook = Notebook.open(browser, lab, "download.ipynb")
    page = notebook.page
    notebook.run_all()
    bar = page.locator(BAR)
    bar.wait_for(timeout=60_000)
    first = bar.evaluate(WIDTH)
    page.wait_for_function(
        "([bar, first]) => parseFloat(document.querySelector(bar)?.style.width) > first + 10",
        arg=[BAR, first],
        timeout=60_000,
    )
    page.wait_for_function(
        "bar => parseFloat(document.querySelector(bar)?.style.width) > 50", arg=BAR, timeout=60_000
    )
    assert "MB/s" in page.locator(".jupyter-widgets").first.inner_text()
    page.screenshot(path=tmp_path / "running.png")

    notebook.wait()
    page.locator(".jp-OutputArea-output", has_text="ready in").wait_for(timeout=10_000)
    assert page.locator(".jupyter-widgets").count() == 0
    page.screenshot(path=tmp_path / "ready.png")
    saved = notebook.save()
    (output,) = outputs_of(saved, "download")
    assert_static(output, "snapshots")
    assert "widgets" not in saved.metadata


def test_the_embeddings_notebook_runs_and_is_saved_without_widgets(
    browser: Browser, lab: Lab, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "notebooks/01_embeddings.ipynb", lab.folder)
    notebook = Notebook.open(browser, lab, "01_embeddings.ipynb")
    notebook.page.evaluate(
        "() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')"
    )
    notebook.run_all()
    notebook.wait()
    notebook.page.screenshot(path=tmp_path / "embeddings.png")
    saved = notebook.save()
    (output,) = outputs_of(saved, "load")
    assert_static(output, "SentenceTransformer on cpu, float32")
    assert "widgets" not in saved.metadata

    # All that follows is as it is stored, which came from a batch run.
    stored = nbformat.read(ROOT / "notebooks/01_embeddings.ipynb", as_version=4)
    for cell in stored.cells:
        if cell.cell_type == "code" and cell.id != "load":
            assert texts(outputs_of(saved, cell.id)) == texts(cell.outputs)


def texts(outputs: Any) -> list[str]:
    return [
        output.text if output.output_type == "stream" else output.data["text/plain"]
        for output in outputs
    ]
