"""The parent's side of a transfer: starts the workers that its machine asks for, and listens."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from nbloader.errors import WorkerDiedError
from nbloader.limits import WAIT_STEP_S
from nbloader.records import Event, Selected
from nbloader.transfer.child import Standby, Worker, environment
from nbloader.transfer.protocol import (
    Fetch,
    Sketch,
    Start,
)
from nbloader.transfer.state_machine import (
    Approve,
    Died,
    Fail,
    Finish,
    Input,
    KillWorker,
    Moment,
    Publish,
    Send,
    StartWorker,
    Tick,
    TransferMachine,
)

__all__ = ["Cancelled", "Worker", "transfer"]


class Cancelled(Exception):  # noqa: N818 - not an error: the caller asked for it
    """The transfer was cancelled from another thread."""


def transfer(
    start: Start,
    *,
    endpoint: str | None,
    cache_dir: str | None,
    publish: Callable[[Event], object],
    approve: Callable[[Selected], object],
    check: Callable[[], object] = lambda: None,
    cancelled: threading.Event,
    order: Fetch | Sketch | None = None,
    fetch: Callable[[], Fetch] | None = None,
    standby: Standby | None = None,
) -> Path:
    """Run workers from the first question to the complete snapshot folder.

    A worker that dies or hangs is followed by another, which goes on from what is on the disk.

    Args:
        endpoint, cache_dir: None for the Hub library's own defaults.
        publish: told of every event.
        approve: called with the selection before the first weight is fetched; raises to stop there.
        check: called before every report and while none comes; raises to stop.
        cancelled: when set, the worker is killed and `Cancelled` raised within a second.
        order: what to do with the selection; None to fetch its files.
        fetch: asked for that order, for each worker once the selection is approved; None for the
            plain one.
        standby: a worker that has been started already; None for none.

    Raises:
        NbloaderError: of the tree under `RepoError` or `TransferError`.
    """
    env = environment(
        os.environ,
        endpoint=endpoint,
        cache_dir=cache_dir,
        stall_timeout_s=start.policy.stall_timeout_s,
    )
    machine = TransferMachine(start, order or Fetch(), now=time.monotonic())
    worker: Worker | None = None
    heard: Input = Tick(waited_s=0.0)
    try:
        while True:
            for output in machine.step(heard, _moment()):
                match output:
                    case StartWorker(start=question):
                        worker = standby.take(env, question) if standby is not None else None
                        if worker is None:
                            worker = Worker(env)
                            worker.send(question)
                    case Send(command=command):
                        assert worker is not None
                        if fetch is not None and isinstance(command, Fetch):
                            command = fetch()
                        worker.send(command)
                    case KillWorker():
                        assert worker is not None
                        worker.kill()
                        worker = None
                    case Publish(event=event):
                        publish(event)
                    case Approve(selected=selected):
                        approve(selected)
                    case Finish(folder=folder):
                        return folder
                    case Fail(error=error):
                        raise error
            if cancelled.is_set():
                raise Cancelled
            check()
            heard = _hear(worker, cancelled)
    finally:
        if worker is not None:
            worker.kill()


def _moment() -> Moment:
    return Moment(
        now=time.monotonic(),
        wall=time.time(),
        chance=random.random(),  # noqa: S311 - it spreads waits, and guards nothing
    )


def _hear(worker: Worker | None, cancelled: threading.Event) -> Input:
    """Wait a short step for what the worker says, or for the next one."""
    if worker is None:
        cancelled.wait(WAIT_STEP_S)
        return Tick(waited_s=WAIT_STEP_S)
    try:
        report = worker.receive(WAIT_STEP_S)
    except WorkerDiedError as error:
        return Died(error=error)
    return Tick(waited_s=WAIT_STEP_S) if report is None else report
