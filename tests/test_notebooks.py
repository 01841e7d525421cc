"""The notebooks as a batch run leaves them, and what `pytest --nbval` compares of them."""

from __future__ import annotations

import copy
import io
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbval.plugin import get_sanitize_patterns

from nbloader.machine import place
from nbloader.records import (
    Event,
    FileDone,
    FileProgress,
    Place,
    Ready,
    Selected,
    Stage,
    StageStarted,
)
from nbloader.state import JobState, apply
from nbloader.views.text import TextView
from tests.notebook_heads import INSTALL, put_head
from tests.notebook_runs import NOTEBOOKS, ROOT, as_python
from tests.samples import MB, SELECTION

PATTERNS = get_sanitize_patterns((ROOT / "tests/nbval.ini").read_text())
LOADS = {
    "01_embeddings": ("load", list(Stage)),
    "02_image_edit": ("load", [stage for stage in Stage if stage is not Stage.TEST_EMBEDDINGS]),
    "03_unreliable_network": ("limit", list(Stage)),
    "05_background_jobs": ("await", list(Stage)),
}
"""For each notebook that loads a model, a cell that does, and the stages that it goes through."""

# -- a batch run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_batch_run_leaves_lines_of_text_and_no_widget(path: Path) -> None:
    """What is stored is such a run, and `pytest --nbval` compares every further one with it."""
    notebook = nbformat.read(path, as_version=4)

    if path.stem in LOADS:
        name, expected = LOADS[path.stem]
        (loaded,) = next(cell.outputs for cell in notebook.cells if cell.id == name)
        assert (loaded.output_type, loaded.name) == ("stream", "stdout")
        *stages, last = re.findall(r"(?m)^[a-z][a-z -]*", loaded.text)
        assert stages == expected
        assert last == "ready in "

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert {output.get("name") for output in outputs} == {None, "stdout"}
    kinds = {mime for output in outputs for mime in output.get("data", ())}
    assert kinds <= {"text/plain", "image/png"}
    assert "widgets" not in notebook.metadata


# -- the files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_is_complete_and_holds_nothing_of_a_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert [cell.metadata for cell in notebook.cells] == [{}] * len(notebook.cells)
    # nbval passes over a cell that was never run.
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures = re.compile(r'"image/png": "[^"]*"')
    text = pictures.sub("", json.dumps(notebook))
    assert not re.search(r"HF_ENDPOINT|127\.0\.0\.1|localhost|NBVAL|/tmp|/home|/root", text)


# -- the head ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_the_badges_and_the_cell_that_installs(path: Path) -> None:
    """`make notebooks` writes them."""
    notebook = nbformat.read(path, as_version=4)
    written = copy.deepcopy(notebook)
    put_head(written, path.name)
    assert written == notebook
    code = [cell.id for cell in notebook.cells if cell.cell_type == "code"]
    assert (notebook.cells[0].id, code[0]) == ("intro", "install")


@pytest.mark.parametrize(
    ("variables", "where", "ran"),
    [
        ({"COLAB_RELEASE_TAG": "release-colab"}, Place.COLAB, ["install --quiet nbloader-hub"]),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, Place.KAGGLE, ["install --quiet nbloader-hub"]),
        ({"BINDER_SERVICE_HOST": "10.0.0.1"}, Place.BINDER, []),
        ({}, Place.OTHER, []),
    ],
)
def test_that_cell_installs_on_colab_and_kaggle_alone(
    variables: dict[str, str], where: Place, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", variables)
    assert place(variables) is where
    lines = []
    shell = SimpleNamespace(run_line_magic=lambda name, line: lines.append((name, line)))
    exec(as_python(INSTALL), {"get_ipython": lambda: shell})
    assert lines == [("pip", line) for line in ran]


# -- what is left out of the comparison ----------------------------------------------------------


def sanitized(text: str) -> str:
    for pattern, replacement in PATTERNS:
        text = re.sub(pattern, replacement, text)
    return text


def log(*, scale: float = 1.0, progress: int = 0, summary: str = "Model on cpu, float32") -> str:
    """The lines of a job whose times are stretched, and that shows its progress so many times."""
    weights = max(SELECTION.files, key=lambda file: file.size)
    events: list[tuple[float, Event]] = [
        (0, StageStarted(stage=Stage.CONNECT)),
        (1, StageStarted(stage=Stage.SET_UP)),
        (2, Selected(selection=SELECTION, cached=())),
        (2, StageStarted(stage=Stage.DOWNLOAD)),
        *(
            (3 + i, FileProgress(path=weights.path, completed=(i + 1) * MB))
            for i in range(progress)
        ),
        *((50, FileDone(path=file.path)) for file in SELECTION.files),
        (51, StageStarted(stage=Stage.INITIALISE)),
        (52, Ready(summary=summary)),
    ]
    out = io.StringIO()
    now = 0.0
    # Each look at the clock of the view is late enough for another line of progress.
    view = TextView(out, interactive=False, clock=iter(range(0, 10**6, 100)).__next__)
    state = JobState(repo_id="org/name", started_at=0.0, updated_at=0.0)
    for at, event in events:
        now = at * scale
        state = apply(state, event, now)
        view.update(state)
    view.close(state)
    return out.getvalue()


def test_sanitized_lines_keep_all_but_times_and_speeds() -> None:
    raw = log(progress=3)
    assert raw.count(" of 100 MB, ") >= 3
    assert sanitized(raw) == (
        "connect: org/name\n"
        "set up\n"
        "download: 4 files, 100 MB\n"
        "  downloaded 100 MB in TIME, SPEED\n"
        "initialise\n"
        "ready in TIME: Model on cpu, float32\n"
    )


@given(scale=st.floats(1e-3, 1e5), progress=st.integers(0, 20))
def test_runs_of_any_speed_are_equal_when_sanitized(scale: float, progress: int) -> None:
    assert sanitized(log(scale=scale, progress=progress)) == sanitized(log())


@pytest.mark.parametrize(
    ("stored", "changed"),
    [
        ("4 files", "5 files"),
        ("download: 4 files, 100 MB", "download: 4 files, 101 MB"),
        ("downloaded 100 MB", "downloaded 101 MB"),
        ("downloaded 100 MB", "downloaded 100 kB"),
        ("on cpu, float32", "on cpu, float16"),
        ("initialise\n", ""),
        ("initialise\n", "  retry: the Hub: timed out\ninitialise\n"),
        ("initialise\n", "  [ 50 %] 50.0 of 100 MB\ninitialise\n"),
        ("download: 4 files, 100 MB", "download: 4 files, 100 MB, 50.0 MB of it cached"),
        ("ready in", "failed after"),
    ],
)
def test_a_real_difference_is_still_one_when_sanitized(stored: str, changed: str) -> None:
    raw = log()
    assert stored in raw
    assert sanitized(raw.replace(stored, changed)) != sanitized(raw)


def test_what_was_there_after_a_kill_is_left_out_and_nothing_else() -> None:
    there = "download: 11 files, 91.6 MB, {} of it cached\n  downloaded {} in 1.2 s, 37.1 MB/s\n"
    assert sanitized(there.format("47.1 MB", "44.5 MB")) == there.format("SOME", "SOME").replace(
        "1.2 s, 37.1 MB/s", "TIME, SPEED"
    )
    whole = "download: 11 files, 91.6 MB, all cached\n"
    assert sanitized(whole) == whole


def test_numbers_of_a_cell_are_not_sanitized() -> None:
    numbers = " 1.00   0.39  -0.08   12 s   3.5 MB/s   1:05\nready in 3 s: no\n  0.42  A sentence."
    assert sanitized(numbers) == numbers
