"""A load in the background of a real kernel, between cells and beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from tests.kernels import Kernel, running

SET_UP = """
import pathlib, sys, threading
import nbloader

class Probe:
    "Notes on which thread torch is imported; finds nothing itself."
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            pathlib.Path("imported").write_text(threading.current_thread().name)

sys.meta_path.insert(0, Probe())

def note(event):
    pathlib.Path(event.type).touch()
"""

START = f"job = nbloader.start({MINILM!r}, cache_dir='cache', on_event=note)"


@pytest.fixture
def kernel(demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    demo_hub.set_faults([Fault(RequestClass.CDN_GET, total_bytes_per_second=30_000_000)])
    monkeypatch.setenv("HF_ENDPOINT", demo_hub.endpoint)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    with running(tmp_path) as kernel:
        kernel.run(SET_UP)
        yield kernel


def test_between_cells_the_libraries_are_imported_where_cells_run(kernel: Kernel) -> None:
    cell = kernel.run(START)
    assert (cell.traceback, kernel.run("print(job.done())").text) == ([], "False\n")
    kernel.listen_until((kernel.folder / "ready").exists)
    assert (kernel.folder / "imported").read_text() == "MainThread"
    last = kernel.run("print(type(job.result()).__name__)")
    assert last.text == "SentenceTransformer\n"
    (output,) = last.displays.values()
    assert set(output) == {"text/html", "text/plain"}
    assert "SentenceTransformer on cpu, float32" in output["text/plain"]


@pytest.mark.parametrize("wait", ["job.result()", "await job"])
def test_a_cell_that_waits_lets_the_job_import_and_build(kernel: Kernel, wait: str) -> None:
    kernel.run("import time")
    cell = kernel.run(START + f"\nmodel = {wait}\nprint(type(model).__name__)")
    assert (cell.text, cell.traceback) == ("SentenceTransformer\n", [])
    assert (kernel.folder / "imported").read_text().startswith("nbloader")


def test_a_cell_that_waits_can_be_interrupted_and_the_job_goes_on(kernel: Kernel) -> None:
    kernel.run(START)
    cell = kernel.run("job.result()", interrupt=(kernel.folder / "file-progress").exists)
    said = "stopped waiting; the job goes on (job.cancel() ends it)\n"
    assert (cell.text, cell.traceback, cell.status) == (said, [], "error")
    assert cell.seconds < 1
    assert kernel.run("print(type(await job).__name__)").text == "SentenceTransformer\n"


def test_a_cell_that_awaits_can_be_interrupted_in_the_middle_of_an_import(kernel: Kernel) -> None:
    # In one cell, so that nothing is imported before it waits.
    cell = kernel.run(f"{START}\nawait job", interrupt=(kernel.folder / "imported").exists)
    assert cell.traceback
    assert cell.seconds < 1
    assert kernel.run("print(type(job.result()).__name__)").text == "SentenceTransformer\n"


def test_a_cell_can_cancel_the_job(kernel: Kernel) -> None:
    kernel.run(START)
    kernel.listen_until((kernel.folder / "file-progress").exists)
    kernel.run("job.cancel()")
    kernel.listen_until((kernel.folder / "failed").exists)
    assert kernel.workers() == []
    cell = kernel.run("job.result()")
    assert "cancelled" in "".join(cell.traceback)
    (output,) = cell.displays.values()
    assert set(output) == {"text/html", "text/plain"}


def test_in_a_batch_run_its_lines_stand_where_the_result_is_asked_for(
    kernel: Kernel, demo_hub: LocalHub
) -> None:
    begun = kernel.run(START, batch=True)
    assert begun.text == f"started: {MINILM}\n"
    kernel.listen_until((kernel.folder / "ready").exists)
    assert kernel.run("1 + 1", batch=True).text == ""
    lines = kernel.run("model = job.result()", batch=True).text.splitlines()
    assert lines[0] == f"connect: {MINILM}"
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")][:-1] == [
        "connect",
        "set up",
        "download",
        "initialise",
        "self-test",
        "test embeddings",
        "finish",
    ]
    assert lines[-1].startswith("ready in ")
    assert kernel.displays == {}


def test_a_view_that_is_closed_keeps_no_model(kernel: Kernel) -> None:
    kernel.run(START)
    kernel.run("import gc, weakref\nmodel = job.result()\nalive = weakref.ref(model)")
    cell = kernel.run("del model, job\ngc.collect()\nprint(alive())")
    assert (cell.text, cell.traceback) == ("None\n", [])


@pytest.mark.parametrize("wait", ["job.result()", "await job", "job.result(timeout=0.1)"])
def test_a_wait_that_was_broken_off_keeps_no_model(kernel: Kernel, wait: str) -> None:
    """The error of the cell stays for `%tb`, with its frames."""
    kernel.run(START)
    interrupt = None if "timeout" in wait else (kernel.folder / "file-progress").exists
    assert kernel.run(wait, interrupt=interrupt).status == "error"
    kernel.run("import gc, weakref\nmodel = job.result()\nalive = weakref.ref(model)")
    cell = kernel.run("del model, job\ngc.collect()\nprint(alive())")
    assert (cell.text, cell.traceback) == ("None\n", [])


def test_an_interrupt_before_a_failure_leaves_buttons_that_act(kernel: Kernel) -> None:
    kernel.run(START)
    cell = kernel.run("job.result()", interrupt=(kernel.folder / "file-progress").exists)
    assert cell.status == "error"
    kernel.run("job.cancel()")
    kernel.listen_until((kernel.folder / "failed").exists)
    assert kernel.run("print(job.state.waited_for)").text == "False\n"
