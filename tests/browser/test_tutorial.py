"""A tutorial, run by somebody who sits at it: not a batch run, so it shows widgets."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.conftest import OpenNotebook
from tests.browser.saved import WIDGET_MIME, assert_static, converted, stripped
from tests.notebook_runs import NOTEBOOKS, ROOT

LOAD = "import nbloader"


def test_the_embeddings_notebook_runs_and_is_saved_without_widgets(
    open_cells: OpenNotebook,
) -> None:
    stored = nbformat.read(ROOT / "notebooks/01_embeddings.ipynb", as_version=4)
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    notebook = open_cells(*(cell.source for cell in cells))
    for number in range(len(cells)):
        notebook.run(number)
        notebook.wait(number)
    saved = notebook.save()
    for number, cell in enumerate(cells):
        if cell.source.startswith(LOAD):
            assert_static(saved, number)
            (output,) = saved.cells[number].outputs
            for form in output.data.values():
                assert "SentenceTransformer on cpu, float32" in form
                assert "91.6 MB" in form
        else:
            # As it is stored, which came from a batch run.
            assert texts(saved.cells[number].outputs) == texts(cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_is_a_page_with_its_figures_and_texts(path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    page = converted(stored, Path(sys.executable))
    outputs = [output for cell in stored.cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", ())]
    assert len(re.findall(r'<img[^>]* src="data:image/png', page)) == len(pictures)
    assert WIDGET_MIME not in page
    assert "Error displaying widget" not in page
    shown = [output.text for output in outputs if output.output_type == "stream"]
    assert all(text.splitlines()[0].strip() in stripped(page) for text in shown)


def texts(outputs: Any) -> list[str]:
    return [
        output.text if output.output_type == "stream" else output.data["text/plain"]
        for output in outputs
    ]
