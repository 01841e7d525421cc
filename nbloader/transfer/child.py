"""A child process of ours: it is started, heard line by line, and ended whatever happens.

The parent opens no socket and makes no trial build; all it does is read a pipe. So it can always go
on: what hangs is ended by killing the process that it runs in.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from nbloader.errors import RUN_AGAIN, WorkerDiedError
from nbloader.hub_names import TOKEN_VARIABLES
from nbloader.limits import CONNECT_TIMEOUT_S, KILL_LIMIT_S
from nbloader.paths import with_absolute_folders, working_folder
from nbloader.records import TransferPolicy
from nbloader.transfer import START_MARK

if TYPE_CHECKING:
    from nbloader.transfer.protocol import Command, Report, Start

__all__ = ["Child", "Standby", "Worker", "environment"]

MAX_LINE_BYTES = 64 * 1024 * 1024
"""The longest line that is read of a child: the selection of a repository of many files."""

STDERR_LINES = 40

_ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}
"""What glibc reads when a process starts; elsewhere it means nothing. Each piece over Xet takes
some megabytes and gives them back at once. By its own rules glibc hands them to the system and gets
them anew, page by page, and keeps a stock for each thread (measured: without these each GB takes
0.2 to 0.3 s more of the processor)."""

_TOKEN_VARIABLES = (*TOKEN_VARIABLES, "HUGGINGFACEHUB_API_TOKEN")
_SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}|(?i:bearer)\s+\S+|(?i:[a-z]+)://\S+")


def environment(
    parent: Mapping[str, str],
    *,
    endpoint: str | None,
    cache_dir: str | None,
    stall_timeout_s: float = TransferPolicy().stall_timeout_s,
) -> dict[str, str]:
    """Make the environment of a child process.

    The Hub's library reads its settings once, when it is imported, so they are set before. Tokens
    are taken out: they travel over stdin only.
    """
    env = {name: value for name, value in parent.items() if name not in _TOKEN_VARIABLES}
    env = with_absolute_folders(env)
    env["PYTHONPATH"] = os.pathsep.join(worker_path(sys.path, working_folder()))
    env["PYTHONIOENCODING"] = "utf-8"
    env["PYTHONWARNINGS"] = "ignore"
    env["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    env["HF_HUB_DISABLE_SYMLINKS_WARNING"] = "1"
    # From 1.27 on the library would first ask the Hub for a list of agents to report.
    env.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for name, value in _xet_environment(stall_timeout_s).items():
        env.setdefault(name, value)
    # What other tools trust; the Hub's client reads one variable alone.
    trusted = parent.get("REQUESTS_CA_BUNDLE") or parent.get("CURL_CA_BUNDLE")
    if trusted and os.path.isfile(trusted):  # noqa: PTH113 - it never raises
        env.setdefault("SSL_CERT_FILE", trusted)
    # An empty one would be taken for the address of the Hub.
    if endpoint := endpoint or env.pop("HF_ENDPOINT", "").strip():
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


def worker_path(path: Sequence[object], working_folder: str | None) -> list[str]:
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
    if working_folder is None:  # It was removed, and what is named from it with it.
        known = [entry for entry in texts if os.path.isabs(entry)]  # noqa: PTH117
    else:
        known = [entry for entry in texts if os.path.realpath(entry) != working_folder]
    own = str(Path(__file__).parents[2])
    # The worker must find the same nbloader; where the working folder is its place, it would not.
    found = [] if own in known else [own]
    return [
        *(entry for entry in known if entry in standard),
        *found,
        *(entry for entry in known if entry not in standard),
    ]


class Child:
    """A running child process. Use as a context manager: leaving it kills the process.

    Args:
        module: what it runs; it is told the number of this process, and `arguments`.
        kill_limit_s: how long a killed one is waited for.
    """

    def __init__(
        self, module: str, env: Mapping[str, str], *arguments: str, kill_limit_s: float
    ) -> None:
        self._kill_limit_s = kill_limit_s
        command = [_python(), "-P", "-m", module, str(os.getpid()), *arguments]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(env),
                # A kernel's interrupt goes to the whole process group; this one is ended by us.
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerDiedError(
                f"no process could be started with {command[0]}: {error.strerror or error}",
                hint="Set sys.executable to the Python that this runs in, or free processes and "
                "memory, and run the line again.",
            ) from error
        try:
            self._listen_to(self._process)
        except BaseException:
            # An interrupt that comes before `with` has this child must not leave it behind.
            self._process.kill()
            raise

    def _listen_to(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._commands: IO[bytes] = process.stdin
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._threads = (
            threading.Thread(target=self._read, args=(process.stdout,), daemon=True),
            threading.Thread(target=self._listen, args=(process.stderr,), daemon=True),
        )
        for thread in self._threads:
            thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def __enter__(self) -> Self:
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
        # What it has started goes with it; else it could hold the pipes open.
        with contextlib.suppress(OSError, AttributeError):  # Windows has no such groups.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        # One that waits for a dead disk cannot be collected; it is not to be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._kill_limit_s)
        for thread in self._threads:
            thread.join(timeout=self._kill_limit_s / 4)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            # A thread that still reads means that another process holds the pipe open.
            if stream and not any(thread.is_alive() for thread in self._threads):
                with contextlib.suppress(OSError):
                    stream.close()

    def write(self, line: bytes) -> None:
        """Write to its stdin; one that is gone is noticed by `read`."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._commands.write(line)
            self._commands.flush()

    def read(self, timeout_s: float) -> bytes | None:
        """Return its next line; None if none comes for so long. Empty at the end of its stdout.

        A line without an end was cut: the process died, or wrote more than a message has.
        """
        try:
            return self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def ended(self) -> int:
        """Wait for the process that has closed its stdout, and return its exit status."""
        status = self._process.wait()
        self._threads[1].join(timeout=1)
        return status

    def stderr_tail(self) -> str:
        """Return the last lines that it wrote to stderr, without secrets and addresses."""
        return _SECRET.sub("<redacted>", "\n".join(self._stderr))

    def _read(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):  # It is closed at the end.
            # A `sitecustomize` may print before the process has its streams.
            while (line := stream.readline(MAX_LINE_BYTES)) and line != START_MARK:
                self._note(line)
            while line := stream.readline(MAX_LINE_BYTES):
                self._lines.put(line)
        self._lines.put(b"")

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._note(line)

    def _note(self, line: bytes) -> None:
        self._stderr.append(line[:2000].decode("utf-8", "replace").rstrip()[:500])


def _python() -> str:
    """Return the Python that this process runs in.

    Raises:
        WorkerDiedError: it is not known, as where another program has Python built in.
    """
    if sys.executable:
        return sys.executable
    raise WorkerDiedError(
        "the download runs in a process of its own, and sys.executable, which names the Python for "
        "it, is empty",
        hint='Set it before the call: import sys; sys.executable = "/usr/bin/python3", the path of '
        f"a Python {sys.version_info.major}.{sys.version_info.minor}.",
    )


class Worker(Child):
    """The process that downloads."""

    def __init__(self, env: Mapping[str, str]) -> None:
        super().__init__("nbloader.worker", {**_ALLOCATOR, **env}, kill_limit_s=KILL_LIMIT_S)

    def send(self, command: Command) -> None:
        """Send a command; one that is gone is noticed by `receive`."""
        from nbloader.transfer.protocol import encode

        self.write(encode(command))

    def receive(self, timeout_s: float) -> Report | None:
        """Return what the worker says next; None if it says nothing for so long.

        Raises:
            WorkerDiedError: the process ended.
            ProtocolError: it sent something that is no message.
        """
        from nbloader.transfer.protocol import decode_report

        line = self.read(timeout_s)
        if line is None:
            return None
        if not line:
            raise self._death()
        return decode_report(line)

    def _death(self) -> WorkerDiedError:
        code = self.ended()
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


class Standby:
    """A worker that starts before it is known what it will be asked for. To be closed.

    Its own start, the Hub's library and a first connection take a quarter of a second, in which
    this process imports and checks what it needs itself; what it then asks the Hub takes as long.
    """

    def __init__(self, *, endpoint: str | None, cache_dir: str | None) -> None:
        self._env = environment(os.environ, endpoint=endpoint, cache_dir=cache_dir)
        self._worker: Worker | None = Worker(self._env)
        self._asked: Start | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask(self, start: Start) -> None:
        """Ask it, while nobody listens yet."""
        if self._worker is not None and self._worker.is_running:
            self._worker.send(start)
            self._asked = start

    def take(self, env: Mapping[str, str], start: Start) -> Worker | None:
        """Hand it over, once, with its question asked.

        None if it was started in another environment, was asked something else, or has ended.
        """
        worker, self._worker = self._worker, None
        if worker is None:
            return None
        if env != self._env or self._asked not in (None, start) or not worker.is_running:
            worker.kill()
            return None
        if self._asked is None:
            worker.send(start)
        return worker

    def close(self) -> None:
        """End it, if nobody has taken it."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
