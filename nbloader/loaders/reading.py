"""Weights read from files of safetensors straight to where they will stay, by several threads.

What a library does for it, tensor by tensor from mapped memory, leaves most of the bus of a GPU
unused. Here each thread has two pieces of pinned memory: one is on its way to the GPU while the
other is filled from the page cache. Files are read in the order in which they are given, each from
its begin to its end, so that a cold disk reads in order, too. A tensor is made once, on its device,
in the number format that it is stored in.

It needs torch alone, and can begin while other libraries are being imported.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nbloader.errors import CancelledError
from nbloader.limits import WAIT_STEP_S
from nbloader.records import RepoFile
from nbloader.selection import FIRST_READ_BYTES, StoredTensor, header_end, stored_tensors

if TYPE_CHECKING:
    import torch

PIECE_BYTES = 16 * 1024**2
"""Of a read, and of each of the two buffers of a thread. Larger ones are slower: more of a piece
has left the processor's cache when it is sent on."""

MAX_READERS = 12
"""Threads. On a machine with 16 cores 4, 8 and 16 of them gave 13, 20 and 23 GB/s; with 12, the
buffers are 0.4 GB."""

PINNED = "pinned"
"""Stands for a device: memory that a GPU copies from by itself."""

_DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "bool",
        "U8": "uint8",
        "I8": "int8",
        "U16": "uint16",
        "I16": "int16",
        "U32": "uint32",
        "I32": "int32",
        "U64": "uint64",
        "I64": "int64",
        "F16": "float16",
        "BF16": "bfloat16",
        "F32": "float32",
        "F64": "float64",
        "C64": "complex64",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2",
    }
)
"""Torch's names of number formats by those of safetensors."""


@dataclass(slots=True, eq=False)
class _File:
    """A file on its way.

    Attributes:
        device: where its tensors go.
        tensors: those that nobody has taken yet; None before it was opened.
        descriptor: while it is read.
        left: pieces of it that are not on the device yet.
        filled: what the copies have to wait for: the memory may have been used before.
    """

    path: Path
    device: str
    tensors: dict[str, torch.Tensor] | None = None
    descriptor: int = -1
    left: int = 0
    filled: Any = None

    @property
    def done(self) -> bool:
        return self.tensors is not None and self.left == 0


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of a file that are read at once.

    Attributes:
        parts: the bytes of tensors that are in it, in their order, without gaps.
    """

    file: _File
    offset: int
    size: int
    parts: tuple[torch.Tensor, ...]


@dataclass(slots=True)
class _Queue:
    """What is left to do: files that were not opened yet, and pieces of those that were."""

    files: deque[_File] = field(default_factory=deque)
    pieces: deque[_Piece] = field(default_factory=deque)
    opening: bool = False


class Reading:
    """Files on their way to devices. To be closed; until then it holds what nobody has taken.

    Torch has to be imported before the first file is added. Any fault ends all of it: what was not
    taken is given up, and `problem` says why. The files can then be loaded in another way.

    Args:
        cancelled: whoever waits stops when it is set.
        readers: the most threads; by default as many as the machine has processors, up to 12.
    """

    def __init__(
        self, *, cancelled: threading.Event | None = None, readers: int | None = None
    ) -> None:
        self._cancelled = cancelled or threading.Event()
        self._most = readers or min(MAX_READERS, os.cpu_count() or 1)
        self._files: dict[str, _File] = {}
        self._descriptors: set[int] = set()
        self._pins = False
        self._queue = _Queue()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.problem = ""

    def add(self, path: Path, device: str) -> None:
        """Let a file be read to a device, or to `PINNED` memory.

        It has to be complete, and stays as it is.
        """
        key = os.path.realpath(path)
        with self._changed:
            if self._closed or self.problem or key in self._files:
                return
            self._files[key] = file = _File(Path(key), _numbered(device))
            self._queue.files.append(file)
            pieces = sum(_size(each.path) for each in self._queue.files) // PIECE_BYTES
            for _ in range(len(self._threads), min(self._most, 1 + pieces)):
                thread = threading.Thread(target=self._read, name="nbloader-read", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()

    def take(self, path: str | os.PathLike[str]) -> dict[str, torch.Tensor] | None:
        """Hand over all tensors of a file, and keep none; None if they are not all here.

        Waits for what is on its way.

        Raises:
            CancelledError: the load was cancelled.
        """
        with self._arrived(path) as file:
            if file is None or file.tensors is None:
                return None
            del self._files[os.path.realpath(path)]
            return file.tensors

    def take_one(self, path: str | os.PathLike[str], name: str) -> torch.Tensor | None:
        """Hand over one tensor of a file; None if it is not here, or was taken before.

        Waits and raises as `take` does.
        """
        with self._arrived(path) as file:
            return None if file is None or file.tensors is None else file.tensors.pop(name, None)

    def close(self) -> None:
        """End the threads, and free what nobody has taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()  # It ends after the piece that it is at.
        self._drop()
        self._threads.clear()
        for descriptor in tuple(self._descriptors):
            self._leave(descriptor)
        if self._pins:
            _free_pinned()

    # -- what whoever takes waits for ----------------------------------------------------------

    @contextlib.contextmanager
    def _arrived(self, path: str | os.PathLike[str]) -> Iterator[_File | None]:
        """Wait until a file is whole, and yield it under the lock."""
        key = os.path.realpath(path)
        with self._changed:
            while (file := self._files.get(key)) is not None and not file.done:
                if self._cancelled.is_set():
                    raise CancelledError("the load was cancelled", hint="Run the line again.")
                self._changed.wait(WAIT_STEP_S)
            yield file

    # -- the threads ---------------------------------------------------------------------------

    def _read(self) -> None:
        hand: _Hand | None = None
        try:
            while (work := self._next(hand)) is not None:
                if isinstance(work, _File):
                    self._open(work)
                else:
                    hand = hand or _Hand(pinned=work.file.device.startswith("cuda"))
                    self._count(hand.copy(work))
                del work  # Its tensors would live on while the next is waited for.
        except BaseException as error:
            self._give_up(error)
        finally:
            if hand is not None:
                with contextlib.suppress(Exception):  # A GPU that has failed fails at this, too.
                    hand.finish()

    def _next(self, hand: _Hand | None) -> _File | _Piece | None:
        """Return what to do next; None at the end.

        Before there is a wait, what is under way has to arrive: nobody else looks after it.
        """
        while True:
            with self._changed:
                if (work := self._chosen()) is not None or self._over():
                    return work
            self._count(hand.finish() if hand is not None else [])
            with self._changed:
                self._changed.wait_for(lambda: self._over() or self._has_work())

    def _over(self) -> bool:
        return self._closed or bool(self.problem) or self._cancelled.is_set()

    def _has_work(self) -> bool:
        return bool(self._queue.pieces or (self._queue.files and not self._queue.opening))

    def _chosen(self) -> _File | _Piece | None:
        """Open the next file before the pieces of the last are used up, else take a piece."""
        queue = self._queue
        if self._over():
            return None
        if queue.files and not queue.opening and len(queue.pieces) < self._most:
            queue.opening = True
            return queue.files.popleft()
        return queue.pieces.popleft() if queue.pieces else None

    def _open(self, file: _File) -> None:
        file.descriptor = os.open(file.path, os.O_RDONLY)
        with self._changed:
            self._descriptors.add(file.descriptor)
        with contextlib.suppress(AttributeError, OSError):  # Only a hint, and not everywhere.
            os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        stored = _stored(file)
        tensors = _made(stored, file.device)
        pieces = list(_pieces(file, stored, tensors))
        if file.device.startswith("cuda"):
            file.filled = _mark(file.device)
        self._pins = self._pins or file.filled is not None or file.device == PINNED
        with self._changed:
            file.left = len(pieces)
            file.tensors = tensors
            self._queue.pieces.extend(pieces)
            self._queue.opening = False
            if not pieces:
                self._leave(file.descriptor)
            self._changed.notify_all()

    def _count(self, arrived: list[_Piece]) -> None:
        """Note that pieces are on their device."""
        with self._changed:
            for piece in arrived:
                piece.file.left -= 1
                if piece.file.left == 0:
                    self._leave(piece.file.descriptor)
                    self._changed.notify_all()

    def _leave(self, descriptor: int) -> None:
        self._descriptors.discard(descriptor)
        os.close(descriptor)

    def _give_up(self, error: BaseException) -> None:
        text = " ".join(str(error).split())[:300]
        with self._changed:
            self.problem = self.problem or f"{type(error).__name__}: {text}"
        self._drop()

    def _drop(self) -> None:
        """Forget what nobody has taken. Pieces that are under way keep their own tensors."""
        with self._changed:
            self._files.clear()
            self._queue = _Queue()
            self._changed.notify_all()


class _Hand:
    """Two buffers of a thread: one is filled while the other is on its way.

    Args:
        pinned: whether they are for a GPU.
    """

    def __init__(self, *, pinned: bool) -> None:
        import torch

        self._buffers = [
            torch.empty(PIECE_BYTES, dtype=torch.uint8, device="cpu", pin_memory=pinned)
            for _ in range(2)
        ]
        self._turn = 0
        self._under_way: deque[tuple[_Piece, Any]] = deque()
        self._streams: dict[str, Any] = {}

    def copy(self, piece: _Piece) -> list[_Piece]:
        """Read a piece, and send it on; return those that have arrived meanwhile."""
        arrived = [self._wait()] if len(self._under_way) == len(self._buffers) else []
        buffer = self._buffers[self._turn]
        self._turn = (self._turn + 1) % len(self._buffers)
        _fill(buffer, piece)
        start = 0
        with self._stream(piece.file) as stream:
            for part in piece.parts:
                part.copy_(buffer[start : start + part.numel()], non_blocking=True)
                start += part.numel()
            self._under_way.append((piece, stream and stream.record_event(_event())))
        return arrived

    def finish(self) -> list[_Piece]:
        """Wait for what is under way, and return it."""
        return [self._wait() for _ in range(len(self._under_way))]

    def _wait(self) -> _Piece:
        piece, event = self._under_way.popleft()
        if event is not None:
            event.synchronize()
        return piece

    @contextlib.contextmanager
    def _stream(self, file: _File) -> Iterator[Any]:
        """Let copies go beside what the GPU does else; each thread has a stream of its own."""
        if file.filled is None:
            yield None
            return
        import torch

        stream = self._streams.get(file.device)
        if stream is None:
            stream = self._streams[file.device] = torch.cuda.Stream(file.device)  # type: ignore[no-untyped-call]
        stream.wait_event(file.filled)
        with torch.cuda.stream(stream):
            yield stream


# -- one file --------------------------------------------------------------------------------------


def _stored(file: _File) -> list[StoredTensor]:
    """Read the header of a file: its tensors, in the order of their bytes."""
    described = RepoFile(path=file.path.name, size=os.fstat(file.descriptor).st_size, etag="")
    start = os.pread(file.descriptor, FIRST_READ_BYTES, 0)
    end = header_end(start, described)
    if end > len(start):
        start += os.pread(file.descriptor, end - len(start), len(start))
    return sorted(stored_tensors(start, described), key=lambda tensor: (tensor.first, tensor.last))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # It is told when the file is opened.
        return 0


def _made(stored: list[StoredTensor], device: str) -> dict[str, torch.Tensor]:
    """Make the tensors of a file, without content.

    Raises:
        ValueError: one is of a number format that torch has not.
    """
    import torch

    place = {"device": "cpu", "pin_memory": True} if device == PINNED else {"device": device}
    formats = {tensor.dtype: _DTYPES.get(tensor.dtype) for tensor in stored}
    if unknown := [name for name, of_torch in formats.items() if of_torch is None]:
        raise ValueError(f"there are tensors of {unknown[0]}")
    with _current(device):
        if stored and device.startswith("cuda"):
            # One large piece of memory is asked for at once, from which torch then cuts them.
            torch.empty(stored[-1].last - stored[0].first, dtype=torch.uint8, device=device)
        return {
            tensor.name: torch.empty(
                tensor.shape, dtype=getattr(torch, _DTYPES[tensor.dtype]), **place
            )
            for tensor in stored
        }


def _pieces(
    file: _File, stored: list[StoredTensor], tensors: Mapping[str, torch.Tensor]
) -> Iterator[_Piece]:
    """Cut a file into pieces, whatever tensors begin or end in them."""
    import torch

    parts: list[torch.Tensor] = []
    offset, size = stored[0].first if stored else 0, 0
    for tensor in stored:
        content = tensors[tensor.name].reshape(-1).view(torch.uint8)
        while content.numel():
            part, content = content[: PIECE_BYTES - size], content[PIECE_BYTES - size :]
            parts.append(part)
            size += part.numel()
            if size == PIECE_BYTES:
                yield _Piece(file, offset, size, tuple(parts))
                offset, size, parts = offset + size, 0, []
    if parts:
        yield _Piece(file, offset, size, tuple(parts))


def _fill(buffer: torch.Tensor, piece: _Piece) -> None:
    """Read a piece into a buffer.

    Raises:
        EOFError: the file has become shorter.
    """
    view = memoryview(buffer.numpy())[: piece.size]  # type: ignore[arg-type]
    done = 0
    while done < piece.size:
        count = os.preadv(piece.file.descriptor, [view[done:]], piece.offset + done)
        if not count:
            raise EOFError(f"{piece.file.path.name} ends too early")
        done += count


# -- what only a GPU has ---------------------------------------------------------------------------


def _numbered(device: str) -> str:
    """Say which GPU `cuda` means on this thread: on another one it may be another."""
    if device != "cuda":
        return device
    import torch

    # Only where GPUs are in use can one have been chosen. To begin using them takes a while.
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return f"cuda:{torch.cuda.current_device() if used else 0}"


def _current(device: str) -> AbstractContextManager[Any]:
    import torch

    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()


def _mark(device: str) -> Any:
    """Return an event that comes when the GPU has done all that it was told so far."""
    import torch

    with _current(device):
        return torch.cuda.current_stream().record_event(_event())


def _event() -> Any:
    """Return an event whose waiters sleep: other threads need the processor."""
    import torch

    return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]


def _free_pinned() -> None:
    """Give pinned memory back, which torch keeps for the next time."""
    import torch

    free = getattr(torch._C, "_host_emptyCache", None)  # noqa: SLF001  It has no public name.
    if free is not None:
        free()
