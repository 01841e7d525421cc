"""The parent's side of the worker: starts it, listens, and ends it whatever happens.

The parent never opens a socket; all it does is read a pipe. So it can always go on: a transfer
that hangs is ended by killing the process that it runs in.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import re
import subprocess
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from nbloader import tokens
from nbloader.errors import RUN_AGAIN, NbloaderError, ProtocolError, WorkerDiedError
from nbloader.limits import CONNECT_TIMEOUT_S, KILL_LIMIT_S, WAIT_STEP_S
from nbloader.records import Event, Selected, TransferPolicy
from nbloader.transfer.protocol import (
    MAX_LINE_BYTES,
    Command,
    Fetch,
    Report,
    Sketch,
    Start,
    decode_report,
    encode,
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

__all__ = ["Cancelled", "environment", "transfer"]

STDERR_LINES = 40

_TOKEN_VARIABLES = (*tokens.VARIABLES, "HUGGINGFACEHUB_API_TOKEN")
_SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}|(?i:bearer)\s+\S+|(?i:[a-z]+)://\S+")


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
                        worker = Worker(env)
                        worker.send(question)
                    case Send(command=command):
                        assert worker is not None
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


def environment(
    parent: Mapping[str, str],
    *,
    endpoint: str | None,
    cache_dir: str | None,
    stall_timeout_s: float = TransferPolicy().stall_timeout_s,
) -> dict[str, str]:
    """Make the environment of the worker.

    The Hub's library reads its settings once, when it is imported, so they are set before. Tokens
    are taken out: they travel over stdin only.
    """
    env = {name: value for name, value in parent.items() if name not in _TOKEN_VARIABLES}
    env["PYTHONPATH"] = os.pathsep.join(worker_path(sys.path, os.getcwd()))  # noqa: PTH109
    env["PYTHONIOENCODING"] = "utf-8"
    env["PYTHONWARNINGS"] = "ignore"
    env["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    env["HF_HUB_DISABLE_SYMLINKS_WARNING"] = "1"
    # From 1.27 on the library would first ask the Hub for a list of agents to report.
    env.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for name, value in _xet_environment(stall_timeout_s).items():
        env.setdefault(name, value)
    if endpoint is not None:
        env["HF_ENDPOINT"] = endpoint
    if cache_dir is not None:
        env["HF_HUB_CACHE"] = cache_dir
    return env


def _xet_environment(stall_timeout_s: float) -> Mapping[str, str]:
    """Return the variables that hf_xet reads when its first session is made.

    Its own waits would hide a failure for minutes; attempts are ours to make and to show. Its
    buffers take up to 1 GB unless they are bounded (measured on a file of 1 GB: 298 MB with these,
    at the same speed).
    """
    seconds = max(1, round(stall_timeout_s))
    return {
        # The unit is needed: a bare number is ignored.
        "HF_XET_CLIENT_READ_TIMEOUT": f"{seconds}s",
        "HF_XET_CLIENT_CONNECT_TIMEOUT": f"{min(CONNECT_TIMEOUT_S, seconds):g}s",
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "0",
        "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_SIZE": "64mb",
        "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_LIMIT": "64mb",
    }


def worker_path(path: Sequence[object], working_folder: str) -> list[str]:
    """Order the parent's `sys.path` for the worker.

    The worker has to find what the parent finds, but a `queue.py` in the user's folder must not
    break it: the standard library goes first, and the working folder is left out.
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    standard = {
        *(str(place) for place in (stdlib, stdlib / "lib-dynload", stdlib.parent / archive)),
        sysconfig.get_path("platstdlib"),
    }
    # Python passes over entries that are no text.
    texts = [entry for entry in path if isinstance(entry, str) and entry]
    known = [entry for entry in texts if os.path.realpath(entry) != working_folder]
    own = str(Path(__file__).parents[2])
    # The worker must find the same nbloader; where the working folder is its place, it would not.
    found = [] if own in known else [own]
    return [
        *(entry for entry in known if entry in standard),
        *found,
        *(entry for entry in known if entry not in standard),
    ]


class Worker:
    """A running worker process. Use as a context manager: leaving it kills the process."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nbloader.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            # A kernel's interrupt goes to the whole process group; the worker is ended by us.
            start_new_session=True,
        )
        try:
            self._listen_to(self._process)
        except BaseException:
            # An interrupt that comes before `with` has this worker must not leave it behind.
            self._process.kill()
            raise

    def _listen_to(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._commands: IO[bytes] = process.stdin
        self._queue: queue.SimpleQueue[Report | NbloaderError | None] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._threads = (
            threading.Thread(target=self._read, args=(process.stdout,), daemon=True),
            threading.Thread(target=self._listen, args=(process.stderr,), daemon=True),
        )
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End the process at once, and wait for it. Bytes on the disk stay."""
        self._process.kill()
        # One that waits for a dead disk cannot be collected; it is not to be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_LIMIT_S)
        for thread in self._threads:
            thread.join(timeout=KILL_LIMIT_S / 4)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            # A thread that still reads means that another process holds the pipe open.
            if stream and not any(thread.is_alive() for thread in self._threads):
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def send(self, command: Command) -> None:
        """Send a command; one that is gone is noticed by `receive`."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._commands.write(encode(command))
            self._commands.flush()

    def receive(self, timeout_s: float) -> Report | None:
        """Return what the worker says next; None if it says nothing for so long.

        Raises:
            WorkerDiedError: the process ended.
            ProtocolError: it sent something that is no message.
        """
        try:
            report = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if report is None:
            raise self._death()
        if isinstance(report, NbloaderError):
            raise report
        return report

    def stderr_tail(self) -> str:
        """Return the last lines that the worker wrote to stderr, without secrets and addresses."""
        return _SECRET.sub("<redacted>", "\n".join(self._stderr))

    def _death(self) -> WorkerDiedError:
        code = self._process.wait()
        self._threads[1].join(timeout=1)
        how = f"by signal {-code}" if code < 0 else f"with exit status {code}"
        hint = RUN_AGAIN
        if code == -9:
            hint = f"The system may have run out of memory. {hint}"
        tail = self.stderr_tail()
        error = WorkerDiedError(
            f"the download process ended {how}" + (f":\n{tail}" if tail else ""), hint=hint
        )
        error.by_signal = code < 0
        return error

    def _read(self, stream: IO[bytes]) -> None:
        while line := stream.readline(MAX_LINE_BYTES):
            try:
                self._queue.put(decode_report(line))
            except ProtocolError as error:
                self._queue.put(error)
        self._queue.put(None)

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._stderr.append(line.decode("utf-8", "replace").rstrip()[:500])
