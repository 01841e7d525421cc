"""The parent's side of a trial: a process that builds, is listened to, and always ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType

from nbloader.errors import NbloaderError, error_from_parts
from nbloader.limits import TRIAL_KILL_LIMIT_S, TRIAL_LIMIT_S, WAIT_STEP_S
from nbloader.transfer.supervisor import environment
from nbloader.trial.task import Task

__all__ = ["Trial", "verdict"]

_NICE = 10
"""What is waited for comes first: the download, and the import in the parent."""

_LINES = 5
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def verdict(answer: Mapping[str, str]) -> NbloaderError | str | None:
    """Read an answer of the process.

    Returns:
        None if the library builds it, the error that a load would end with, or, as text, why
        nothing came of the trial.
    """
    match answer:
        case {"reference": str(reference), "message": str(message), "hint": str(hint)}:
            return error_from_parts(reference, message, hint)
        case {"unmade": str(reason)}:
            return reason
    return None


class Trial:
    """A process that imports what a selection needs, and builds it when it is told the folder.

    Use as a context manager: leaving it kills the process.

    Args:
        beside: ends the build when set, for one that makes way for other work meanwhile.
    """

    def __init__(self, task: Task, *, beside: threading.Event | None = None) -> None:
        from pydantic import TypeAdapter

        self._given_up = beside or threading.Event()
        nice = () if beside is None else (str(_NICE),)

        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nbloader.worker.trial", str(os.getpid()), *nice],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(os.environ, endpoint=None, cache_dir=None) | _OFFLINE,
            # A kernel's interrupt goes to the whole process group; this one is ended by us.
            start_new_session=True,
        )
        try:
            self._tail: deque[bytes] = deque(maxlen=_LINES)
            self._listener = threading.Thread(target=self._listen, daemon=True)
            self._listener.start()
            self._answers: SimpleQueue[bytes] = SimpleQueue()
            self._hearer = threading.Thread(target=self._hear, daemon=True)
            self._hearer.start()
            self._say(TypeAdapter(Task).dump_json(task))
        except BaseException:
            self._process.kill()
            raise

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What it has started goes with it; else it could hold the pipes open.
        with contextlib.suppress(OSError, AttributeError):  # Windows has no such groups.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TRIAL_KILL_LIMIT_S)
        for thread in (self._listener, self._hearer):
            thread.join(TRIAL_KILL_LIMIT_S)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                if stream and not self._listener.is_alive() and not self._hearer.is_alive():
                    stream.close()

    def build(self, folder: Path) -> NbloaderError | str | None:
        """Let it build what is in a folder, and give its `verdict`."""
        self._say(json.dumps(str(folder)).encode())
        end = time.monotonic() + TRIAL_LIMIT_S
        while True:
            with contextlib.suppress(Empty):
                answer = self._answers.get(timeout=WAIT_STEP_S)
                return verdict(json.loads(answer)) if answer.endswith(b"\n") else self._end()
            if self._given_up.is_set() or time.monotonic() > end:
                self._process.kill()
                return self._end()

    def _say(self, line: bytes) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # It is gone, which its answer shows.
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def _hear(self) -> None:
        assert self._process.stdout
        with contextlib.suppress(OSError, ValueError):  # It is closed at the end.
            self._answers.put(self._process.stdout.readline())

    def _listen(self) -> None:
        assert self._process.stderr
        self._tail.extend(self._process.stderr)

    def _end(self) -> str:
        status = self._process.wait()
        self._listener.join(timeout=1)
        last = b"".join(self._tail).decode("utf-8", "replace").strip().splitlines()
        told = f": {last[-1][:200]}" if last else ""
        return f"its process ended with status {status}{told}"
