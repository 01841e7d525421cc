"""A trial of the build, before a weight is fetched: would the library make a model of these files?

What a model needs is known to nobody but the library: it compares the names and shapes of tensors
with those in the files while it loads. So it is let load, in a process of its own, from a copy of
the repository in which the small files are whole, and files of weights have their true header and
no bytes on the disk behind it (a sparse file reads as zeros). The tensors keep their stored dtype,
so that nothing is cast, and memory holds next to nothing of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from nbloader.errors import NbloaderError, error_from_parts
from nbloader.limits import TRIAL_KILL_LIMIT_S, TRIAL_LIMIT_S, WAIT_STEP_S
from nbloader.loaders import DTYPES, PLACING
from nbloader.records import ComponentWeights, Method, PlacedComponent, Placement, Selection
from nbloader.transfer.supervisor import environment

__all__ = ["Task", "Trial", "task_of"]

MAX_SHARDS = 64
"""Headers that are read; each is a request or two."""

_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""The dtypes that a model is loaded in: the names of safetensors, and torch's."""

_NICE = 10
"""What is waited for comes first: the download, and the import in the parent."""

_LINES = 5
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A build to try.

    Attributes:
        placement: on the CPU, in the dtypes that are stored.
        loader_kwargs: those of the caller that do not place the model.
    """

    selection: Selection
    placement: Placement
    loader_kwargs: dict[str, Any] = field(default_factory=dict)


def task_of(
    selection: Selection, weights: Sequence[ComponentWeights], loader_kwargs: Mapping[str, Any]
) -> Task | str:
    """Say what is to be tried; or why nothing can be, in a few words."""
    files = [path for component in selection.components for path in component.weights]
    if selection.custom_code:
        return "the code of the repository is not run before a load"
    if selection.companions:
        return "files of several repositories are put together"
    if not files:
        return "it has no weights"
    if any(part.quantization for part in weights):
        return "its weights are quantized"
    if len(files) > MAX_SHARDS:
        return f"{len(files)} files of weights are more than {MAX_SHARDS}"
    kept = _kept(loader_kwargs)
    if kept is None:
        return "`loader_kwargs` holds objects"
    total: Counter[str] = Counter()
    for part in weights:
        total.update(part.bytes_by_dtype)
    return Task(
        selection=selection,
        placement=Placement(
            method=Method.CPU,
            device="cpu",
            dtype=_dtype(total),
            components=tuple(
                PlacedComponent(
                    name=part.name, device="cpu", dtype=_dtype(part.bytes_by_dtype), bytes=0
                )
                for part in weights
            ),
        ),
        loader_kwargs=kept,
    )


def _dtype(stored: Mapping[str, int]) -> str:
    """Return torch's name of the dtype that most bytes are stored in."""
    sizes = {name: stored.get(name, 0) for name in _NAMES}
    return _NAMES[max(sizes, key=sizes.__getitem__)]


_SETTLED = {*PLACING, *DTYPES, "device"}
"""Arguments that say where a model goes and in which number format, which the trial settles."""


def _kept(loader_kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments that another process can be told; None if some cannot be written."""
    kept = {key: value for key, value in loader_kwargs.items() if key not in _SETTLED}
    if isinstance(inner := kept.get("model_kwargs"), Mapping):
        kept["model_kwargs"] = {k: value for k, value in inner.items() if k not in _SETTLED}
    try:
        written = json.loads(json.dumps(kept))
    except (TypeError, ValueError, RecursionError):
        return None
    return kept if written == kept else None


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
