"""The stop button, in a real kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from tests.kernels import Cell, Kernel, running


@pytest.fixture
def kernel(demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    demo_hub.set_faults([Fault(RequestClass.CDN_GET, bytes_per_second=2_000_000)])
    monkeypatch.setenv("HF_ENDPOINT", demo_hub.endpoint)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    with running(tmp_path) as kernel:
        yield kernel


NOTE_PROGRESS = """
import nbloader, pathlib

def note(event):
    if event.type == "file-progress" and event.path == "model.safetensors" and event.completed:
        pathlib.Path("downloading").touch()
"""


CALL = f"nbloader.download({MINILM!r}, cache_dir='cache', on_event=note{{}})"


def stopped(kernel: Kernel, call: str) -> Cell:
    kernel.run(NOTE_PROGRESS)
    cell = kernel.run(call, interrupt=(kernel.folder / "downloading").exists)
    assert cell.status == "error"  # so that no cell runs that was to run after it
    assert cell.seconds < 5
    assert kernel.workers() == []
    return cell


def test_a_stop_ends_the_cell_and_the_download_and_is_no_error(kernel: Kernel) -> None:
    cell = stopped(kernel, CALL.format(""))
    assert (cell.text, cell.traceback) == ("", [])
    (output,) = cell.displays.values()
    (last,) = [line for line in output["text/plain"].splitlines() if "stopped" in line]
    assert re.fullmatch(
        r"stopped after [\d.]+ s; [\d.]+ ([kM]?B )?of 91\.6 MB are kept; run it again to go on",
        last,
    )
    assert kernel.run("1 / 0").traceback[-1].endswith("division by zero")
    assert kernel.run("%tb").status == "ok"


def test_a_stop_that_no_view_shows_is_one_line(kernel: Kernel) -> None:
    cell = stopped(kernel, CALL.format(", view='none'"))
    assert (cell.text, cell.traceback) == ("stopped; run the line again to go on\n", [])


def test_what_others_have_asked_ipython_to_show_stays(kernel: Kernel) -> None:
    kernel.run(
        "def show(shell, kind, error, trace, tb_offset=None):\n    print('mine', error)\n"
        "get_ipython().set_custom_exc((ValueError,), show)"
    )
    stopped(kernel, CALL.format(""))
    cell = kernel.run("raise ValueError('x')")
    assert (cell.text, cell.traceback) == ("mine x\n", [])


def test_in_a_batch_a_stop_is_an_error(kernel: Kernel) -> None:
    kernel.run(NOTE_PROGRESS, batch=True)
    cell = kernel.run(CALL.format(""), interrupt=(kernel.folder / "downloading").exists, batch=True)
    assert cell.traceback == ["KeyboardInterrupt: stopped; run the line again to go on"]


def test_a_cell_that_awaits_stops_too(kernel: Kernel) -> None:
    cell = stopped(kernel, f"await nbloader.aload({MINILM!r}, cache_dir='cache', on_event=note)")
    assert cell.traceback  # of asyncio, whose way it is that a task that is cancelled says so
