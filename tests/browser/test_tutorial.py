"""A tutorial, run by somebody who sits at it: not a batch run, so it shows widgets."""

from __future__ import annotations

from typing import Any

import nbformat

from tests.browser.conftest import OpenNotebook
from tests.browser.saved import assert_static
from tests.notebook_runs import ROOT

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


def texts(outputs: Any) -> list[str]:
    return [
        output.text if output.output_type == "stream" else output.data["text/plain"]
        for output in outputs
    ]
