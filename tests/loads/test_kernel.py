"""The stop button, in a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from tests.kernels import Kernel, running


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
    if event.type == "file-progress" and event.completed:
        pathlib.Path("downloading").touch()
"""


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (
            "nbloader.download({repo!r}, cache_dir='cache', on_event=note)",
            ["KeyboardInterrupt: stopped; run the line again to go on"],
        ),
        ("await nbloader.aload({repo!r}, cache_dir='cache', on_event=note)", None),
    ],
    ids=["download", "aload"],
)
def test_an_interrupt_stops_the_cell_and_the_download(
    kernel: Kernel, call: str, shown: list[str] | None
) -> None:
    kernel.run(NOTE_PROGRESS)
    cell = kernel.run(call.format(repo=MINILM), interrupt=(kernel.folder / "downloading").exists)
    assert cell.traceback
    assert shown is None or cell.traceback == shown
    assert cell.seconds < 5
    assert kernel.workers() == []
