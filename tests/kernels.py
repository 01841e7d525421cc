"""A real kernel that a test runs cells in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

__all__ = ["Cell", "Kernel", "running"]

SECONDS = 60


@dataclass
class Cell:
    """What came of a cell.

    Attributes:
        text: that it printed.
        traceback: lines of the error that ended it, as it is shown.
        status: of the reply: whatever is not `ok` keeps the cells from running that wait.
        displays: outputs by display id, as they stood when the cell ended.
        seconds: from the interrupt to the end; from the start without one.
    """

    text: str = ""
    traceback: list[str] = field(default_factory=list)
    status: str = ""
    displays: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0


class Kernel:
    """A kernel with somebody at the notebook, who can be asked for input.

    Attributes:
        displays: outputs by display id, as they stand now.
    """

    def __init__(self, manager: KernelManager, folder: Path) -> None:
        self.manager = manager
        self.folder = folder
        self.displays: dict[str, dict[str, Any]] = {}
        self.client: BlockingKernelClient = manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)

    def workers(self) -> list[psutil.Process]:
        kernel = psutil.Process(self.manager.provisioner.pid)  # type: ignore[union-attr]
        return [child for child in kernel.children() if "nbloader" in " ".join(child.cmdline())]

    def run(
        self, code: str, *, interrupt: Callable[[], bool] | None = None, batch: bool = False
    ) -> Cell:
        """Run a cell.

        Args:
            batch: whether nobody can be asked for input.
            interrupt: tells that the moment has come for the interrupt button.
        """
        request = self.client.execute(code, allow_stdin=not batch)
        begun = time.monotonic()
        cell = Cell()
        while True:
            if interrupt is not None and interrupt():
                interrupt, begun = None, time.monotonic()
                self.manager.interrupt_kernel()
            message = self._message()
            if message is None or message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                cell.text += content["text"]
            elif message["msg_type"] == "error":
                cell.traceback = content["traceback"]
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                cell.seconds = time.monotonic() - begun
                cell.displays = dict(self.displays)
                cell.status = self._status(request)
                return cell

    def _status(self, request: str) -> str:
        while True:
            reply = self.client.get_shell_msg(timeout=SECONDS)
            if reply["parent_header"].get("msg_id") == request:
                return str(reply["content"]["status"])

    def listen_until(self, condition: Callable[[], bool]) -> None:
        """Take messages in while no cell runs."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline
            self._message()

    def _message(self) -> dict[str, Any] | None:
        try:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=0.1)
        except Empty:
            return None
        if message["msg_type"] in {"display_data", "update_display_data"}:
            content = message["content"]
            self.displays[content.get("transient", {}).get("display_id", "")] = content["data"]
        return message


@contextmanager
def running(folder: Path) -> Iterator[Kernel]:
    """Run a kernel in this process's environment for a while."""
    manager = KernelManager()
    manager.start_kernel(env=dict(os.environ), cwd=str(folder))
    try:
        kernel = Kernel(manager, folder)
        yield kernel
        kernel.client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
