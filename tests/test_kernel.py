"""The stop button, in a real kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM

SECONDS = 60


class Kernel:
    """A kernel with somebody at the notebook, who can be asked for input."""

    def __init__(self, manager: KernelManager, folder: Path) -> None:
        self.manager = manager
        self.folder = folder
        self.client: BlockingKernelClient = manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)

    def workers(self) -> list[psutil.Process]:
        kernel = psutil.Process(self.manager.provisioner.pid)  # type: ignore[union-attr]
        return [child for child in kernel.children() if "nbloader" in " ".join(child.cmdline())]

    def run(self, code: str, *, interrupt: bool = False) -> tuple[list[str], float]:
        """Run a cell; gives the lines of its traceback and the seconds after the interrupt."""
        request = self.client.execute(code, allow_stdin=True)
        interrupted_at = 0.0
        traceback: list[str] = []
        while True:
            if interrupt and not interrupted_at and (self.folder / "downloading").exists():
                interrupted_at = time.monotonic()
                self.manager.interrupt_kernel()
            try:
                message: dict[str, Any] = self.client.get_iopub_msg(timeout=0.1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "error":
                traceback = message["content"]["traceback"]
            elif (
                message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
            ):
                return traceback, time.monotonic() - interrupted_at


@pytest.fixture
def kernel(demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    demo_hub.set_faults([Fault(RequestClass.CDN_GET, bytes_per_second=2_000_000)])
    monkeypatch.setenv("HF_ENDPOINT", demo_hub.endpoint)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    manager = KernelManager()
    manager.start_kernel(env=dict(os.environ), cwd=str(tmp_path))
    try:
        kernel = Kernel(manager, tmp_path)
        yield kernel
        kernel.client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)


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
    traceback, seconds = kernel.run(call.format(repo=MINILM), interrupt=True)
    assert traceback
    assert shown is None or traceback == shown
    assert seconds < 5
    assert kernel.workers() == []
