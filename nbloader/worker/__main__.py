"""The child process that does everything on the network.

Run as `python -P -m nbloader.worker PARENT_PID`. Reads commands from stdin, writes
reports to what was stdout when it started.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nbloader.limits import ALIVE_EVERY_S, START_TIMEOUT_S
from nbloader.worker.process import end_with_parent, run, take_streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbloader.transfer.protocol import Command, Report, Start


def main() -> None:
    """Do what the parent asks, and report it."""
    gc.disable()  # Or a seventh of the start goes into looking through what is imported.
    commands, reports = take_streams()
    end_with_parent(int(sys.argv[1]))
    # Where native code takes the process down, this is all that is left of it.
    faulthandler.enable()
    # Imported only now: a library that prints while it is imported must not reach the protocol.
    from nbloader.errors import NbloaderError, ProtocolError
    from nbloader.transfer.protocol import PROTOCOL_VERSION, Hello, Start, stopped

    channel = _Channel(commands, reports)
    channel.publish(Hello(version=PROTOCOL_VERSION))
    _get_ready()
    start: Command | None = None
    try:
        # A parent that was interrupted while it started this process may never speak.
        start = channel.receive(START_TIMEOUT_S)
        if not isinstance(start, Start) or start.version != PROTOCOL_VERSION:
            raise ProtocolError(
                "the worker and its parent are of different versions",
                hint="Restart the kernel: nbloader was upgraded under it.",
            )
        _work(start, channel)
    except NbloaderError as error:
        channel.publish(stopped(error))
    except OSError as error:
        from nbloader.worker.unusable import unusable

        local_dir = start.local_dir if isinstance(start, Start) else None
        channel.publish(stopped(unusable(error, local_dir)))


def _get_ready() -> None:
    """Import what any question needs, and make the Hub's client, before the first one comes."""
    # What fails here fails again where it can be explained.
    with contextlib.suppress(Exception):
        from huggingface_hub import get_session

        import nbloader.worker.session  # noqa: F401

        get_session()
    # What was imported stays, and need not be looked through again.
    gc.freeze()
    gc.enable()


class _Channel:
    """Commands in, reports out."""

    def __init__(self, commands: IO[bytes], reports: IO[bytes]) -> None:
        import queue

        self._reports = reports
        self._secret = b""
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()

        def read() -> None:
            for line in commands:
                self._queue.put(line)
            os._exit(0)

        threading.Thread(target=read, name="commands", daemon=True).start()

    def receive(self, timeout_s: float | None = None) -> Command:
        from nbloader.transfer.protocol import decode_command

        return decode_command(self._queue.get(timeout=timeout_s))

    def hide(self, secret: str | None) -> None:
        """Take a secret out of all reports from now on."""
        self._secret = (secret or "").encode()

    def publish(self, report: Report) -> None:
        from dataclasses import replace

        from nbloader.records import FileProgress, Silence
        from nbloader.redaction import HIDDEN
        from nbloader.transfer.protocol import encode

        if isinstance(report, FileProgress | Silence):
            # The parent may read it late: an import can hold its interpreter for seconds.
            report = replace(report, at=time.monotonic())
        line = encode(report)
        if self._secret:  # Whatever a server repeats of what it was sent stays here.
            line = line.replace(self._secret, HIDDEN.encode())
        with self._lock:
            try:
                self._reports.write(line)
                self._reports.flush()
            except (BrokenPipeError, ValueError):
                os._exit(0)


def _show_life(channel: _Channel, moved: Callable[[], object]) -> None:
    """Tell the parent every second that this process lives, and whether something moves in it.

    Args:
        moved: gives something that differs from the time before if so.
    """
    from nbloader.transfer.protocol import Alive

    def tell() -> None:
        seen = moved()
        while True:
            time.sleep(ALIVE_EVERY_S)
            now = moved()
            channel.publish(Alive(busy=now != seen))
            seen = now

    threading.Thread(target=tell, name="alive", daemon=True).start()


def _work(start: Start, channel: _Channel) -> None:
    from nbloader.transfer.protocol import Fetch, Finished, Sketch
    from nbloader.worker.session import Session

    session = Session(start, channel.publish)
    channel.hide(session.secret())
    _show_life(channel, session.moved)
    channel.publish(session.select())
    match channel.receive():
        case Fetch() as order:
            place = session.fetch(order)
            channel.publish(Finished(folder=str(place)))
        case Sketch(folder=folder):
            session.sketch(Path(folder))
            channel.publish(Finished(folder=folder))


if __name__ == "__main__":
    run(main)
