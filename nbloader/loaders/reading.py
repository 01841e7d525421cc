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
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nbloader.errors import CancelledError, ModelLoadError
from nbloader.limits import WAIT_STEP_S
from nbloader.loaders.device import trim_memory
from nbloader.records import RepoFile
from nbloader.selection import FIRST_READ_BYTES, StoredTensor, header_end, stored_tensors

if TYPE_CHECKING:
    import torch

PIECE_BYTES = 16 * 1024**2
"""Of a read, and of each of the two buffers of a thread. Larger ones are slower: more of a piece
has left the processor's cache when it is sent on."""

MAX_READERS = 12
"""Threads. On a machine with 16 cores 4, 8 and 12 of them gave 13, 20 and 20 GB/s; with 12, the
buffers are 0.4 GB. To pin those of 16 took longer than 4 GB gained by them."""

FEW_READERS = 4
"""Threads while nobody waits for what they read: libraries are being imported then, on a thread
that needs the interpreter. On that machine 12 readers made the imports take a second longer; with
4 of them 22 GB were on the GPU two seconds before the imports ended."""

MAX_HELD = 2
"""Files that go once they are read, and whose tensors nobody has taken yet, at a time: so much of a
model is in memory twice where what the library makes of it is something else."""

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
        path: where it is; None before it is there.
        device: where its tensors go.
        read: called once it is read, where it goes then.
        tensors: those that nobody has taken yet; None before it was opened.
        descriptor: while it is read.
        left: pieces of it that are not on the device yet.
        filled: what the copies have to wait for: the memory may have been used before.
    """

    path: Path | None
    device: str
    read: Callable[[], object] | None = None
    tensors: dict[str, torch.Tensor] | None = None
    descriptor: int = -1
    left: int = 0
    filled: Any = None

    @property
    def name(self) -> str:
        return "" if self.path is None else self.path.name

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
    taken is given up, and `problem` says why. The files can then be loaded in another way, but not
    those that are gone by then: a library that asks for them meets an error.

    Args:
        cancelled: whoever waits stops when it is set.
        readers: the most threads; by default as many as the machine has processors, up to 12. There
            are four at most until somebody waits.
    """

    def __init__(
        self, *, cancelled: threading.Event | None = None, readers: int | None = None
    ) -> None:
        self._cancelled = cancelled or threading.Event()
        self._most = readers or min(MAX_READERS, os.cpu_count() or 1)
        self._limit = min(FEW_READERS, self._most)
        self._files: dict[str, _File] = {}
        self._going: dict[str, str] = {}
        self._outlines: dict[str, Path] = {}
        self._asked: set[str] = set()
        self._wanted: Counter[str] = Counter()
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
            if key not in self._files:
                self._begin(key, _File(Path(key), _numbered(device)))

    def expect(self, stand_in: Path, device: str, *, name: str, outline: Path) -> None:
        """Announce a file that goes once it is read. Whoever takes from it waits for it.

        Args:
            stand_in: what a library opens in its place; nobody can read it.
            name: the file's, for errors.
            outline: a file with its header, and nothing else.
        """
        key = os.path.realpath(stand_in)
        with self._changed:
            self._files[key] = _File(None, _numbered(device))
            self._going[key] = name
            self._outlines[key] = outline

    def add_expected(self, stand_in: Path, path: Path, read: Callable[[], object]) -> None:
        """Let a file be read that was expected, and is there now.

        Args:
            read: called once all of it is read, from a thread that reads.
        """
        key = os.path.realpath(stand_in)
        with self._changed:
            file = self._files.get(key)
            if file is not None and file.path is None:
                file.path, file.read = Path(os.path.realpath(path)), read
                self._begin(key, file)

    def _begin(self, key: str, file: _File) -> None:
        with self._changed:
            if self._closed or self.problem:
                return
            self._files[key] = file
            self._queue.files.append(file)
            self._start_threads()
            self._changed.notify_all()

    def _start_threads(self) -> None:
        """Start as many more threads as there is work for, under the lock."""
        if self._over():
            return
        pieces = sum(_size(each.path) for each in self._queue.files) // PIECE_BYTES
        pieces += len(self._queue.pieces)
        for _ in range(len(self._threads), min(self._limit, 1 + pieces)):
            thread = threading.Thread(target=self._read, name="nbloader-read", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stands_in(self, path: str | os.PathLike[str]) -> bool:
        """Say whether a file only stands for one that is read, so that there is nothing in it."""
        return os.path.realpath(path) in self._going

    def outline(self, path: str | os.PathLike[str]) -> Path:
        """Return what has the header of a file, for one that stands in."""
        return self._outlines[os.path.realpath(path)]

    def never_asked(self) -> list[str]:
        """Name the files that go once they are read, and of which nobody has asked for anything."""
        with self._changed:
            return [name for key, name in self._going.items() if key not in self._asked]

    def take(self, path: str | os.PathLike[str]) -> dict[str, torch.Tensor] | None:
        """Hand over all tensors of a file, and keep none; None if they are not all here.

        Waits for what is on its way.

        Raises:
            CancelledError: the load was cancelled.
            ModelLoadError: the file is gone, and its tensors were taken before or are lost.
        """
        with self._arrived(path) as file:
            if file is None or file.tensors is None:
                return None
            self._forget(path)
            return file.tensors

    def take_one(self, path: str | os.PathLike[str], name: str) -> torch.Tensor | None:
        """Hand over one tensor of a file; None if it is not here, or was taken before.

        Waits and raises as `take` does.
        """
        with self._arrived(path) as file:
            if file is None or file.tensors is None:
                return None
            tensor = file.tensors.pop(name, None)
            if file.read is not None:
                if tensor is None:
                    raise self._gone(os.path.realpath(path))
                if not file.tensors:
                    self._forget(path)
            return tensor

    def _forget(self, path: str | os.PathLike[str]) -> None:
        """Forget a file that was taken; another may be held in its place."""
        del self._files[os.path.realpath(path)]
        self._changed.notify_all()

    def close(self) -> None:
        """End the threads, and free what nobody has taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in tuple(self._threads):
            thread.join()  # It ends after the piece that it is at.
        self._drop()
        with self._changed:
            self._threads.clear()
            for descriptor in tuple(self._descriptors):
                self._leave(descriptor)
        if self._pins:
            _free_pinned()
        if self._going:  # What was made of them is something else: theirs is free now.
            trim_memory()

    # -- what whoever takes waits for ----------------------------------------------------------

    @contextlib.contextmanager
    def _arrived(self, path: str | os.PathLike[str]) -> Iterator[_File | None]:
        """Wait until a file is whole, and yield it under the lock."""
        key = os.path.realpath(path)
        with self._changed:
            self._asked.add(key)
            file = self._files.get(key)
            if file is not None and not file.done:
                file = self._waited_for(key)
            if file is None and key in self._going:
                raise self._gone(key)
            yield file

    def _waited_for(self, key: str) -> _File | None:
        """Wait, under the lock, until a file is whole; None if it was given up."""
        self._wanted[key] += 1
        self._changed.notify_all()  # It may be opened now.
        self._limit = self._most
        self._start_threads()
        try:
            while (file := self._files.get(key)) is not None and not file.done:
                if self._cancelled.is_set() or (self._closed and key in self._going):
                    raise _cancelled()
                self._changed.wait(WAIT_STEP_S)
            return file
        finally:
            self._wanted[key] -= 1

    def _gone(self, key: str) -> CancelledError | ModelLoadError:
        if self._closed and not self.problem:
            return _cancelled()
        why = self.problem or "its tensors were taken before"
        return ModelLoadError(
            f"{self._going[key]} is not kept, and cannot be read: {why}",
            hint="Load once more, without `keep_files=False`.",
        )

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
            if hand is not None:
                self._count(hand.finish())
                if self._is_idle():
                    hand.rest()
            with self._changed:
                self._changed.wait_for(lambda: self._over() or self._has_work())

    def _is_idle(self) -> bool:
        """Say whether nothing is left to do of what was announced so far."""
        with self._changed:
            queue = self._queue
            return not (queue.files or queue.pieces or queue.opening)

    def _over(self) -> bool:
        return self._closed or bool(self.problem) or self._cancelled.is_set()

    def _has_work(self) -> bool:
        queue = self._queue
        return bool(queue.pieces or (not queue.opening and self._openable() is not None))

    def _openable(self) -> _File | None:
        """Return the file to open next: the first, but not too many that are held in memory.

        One that is waited for comes in any case; and where what is waited for is not there yet,
        all that is there: nothing else would make room for it on the disk.
        """
        files = self._queue.files
        if not files or files[0].read is None:
            return files[0] if files else None
        wanted = [
            self._files[key] for key, count in self._wanted.items() if count and key in self._files
        ]
        held = sum(
            file.read is not None and file.tensors is not None for file in self._files.values()
        )
        if held < MAX_HELD or any(file.path is None for file in wanted):
            return files[0]
        return next((file for file in files if file in wanted), None)

    def _chosen(self) -> _File | _Piece | None:
        """Open the next file before the pieces of the last are used up, else take a piece."""
        queue = self._queue
        if self._over():
            return None
        if not queue.opening and len(queue.pieces) < self._limit:
            file = self._openable()
            if file is not None:
                queue.opening = True
                queue.files.remove(file)
                return file
        return queue.pieces.popleft() if queue.pieces else None

    def _open(self, file: _File) -> None:
        assert file.path is not None
        file.descriptor = os.open(file.path, os.O_RDONLY)
        with self._changed:
            self._descriptors.add(file.descriptor)
        with contextlib.suppress(AttributeError, OSError):  # Only a hint, and not everywhere.
            os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        if file.read is not None:
            trim_memory()  # Those of the files before are free by now.
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
            self._start_threads()
            if not pieces:
                self._leave(file.descriptor)
            self._changed.notify_all()
        if not pieces and file.read is not None:
            file.read()

    def _count(self, arrived: list[_Piece]) -> None:
        """Note that pieces are on their device."""
        whole: list[_File] = []
        with self._changed:
            for piece in arrived:
                piece.file.left -= 1
                if piece.file.left == 0:
                    self._leave(piece.file.descriptor)
                    self._changed.notify_all()
                    whole.append(piece.file)
        for file in whole:
            if file.read is not None:
                file.read()

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
        self._pinned = pinned
        self._buffers: list[torch.Tensor] = []
        self._turn = 0
        self._under_way: deque[tuple[_Piece, Any]] = deque()
        self._streams: dict[str, Any] = {}

    def copy(self, piece: _Piece) -> list[_Piece]:
        """Read a piece, and send it on; return those that have arrived meanwhile."""
        self._buffers = self._buffers or [self._buffer() for _ in range(2)]
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

    def rest(self) -> None:
        """Free the buffers until there is more to read; nothing is under way.

        To free pinned memory takes tenths of a second, and at the end somebody waits for it.
        """
        self._buffers.clear()
        if self._pinned:
            _free_pinned()

    def _buffer(self) -> torch.Tensor:
        import torch

        return torch.empty(PIECE_BYTES, dtype=torch.uint8, device="cpu", pin_memory=self._pinned)

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


def _cancelled() -> CancelledError:
    return CancelledError("the load was cancelled", hint="Run the line again.")


# -- one file --------------------------------------------------------------------------------------


def _stored(file: _File) -> list[StoredTensor]:
    """Read the header of a file: its tensors, in the order of their bytes."""
    described = RepoFile(path=file.name, size=os.fstat(file.descriptor).st_size, etag="")
    start = os.pread(file.descriptor, FIRST_READ_BYTES, 0)
    end = header_end(start, described)
    if end > len(start):
        start += os.pread(file.descriptor, end - len(start), len(start))
    return sorted(stored_tensors(start, described), key=lambda tensor: (tensor.first, tensor.last))


def _size(path: Path | None) -> int:
    try:
        return path.stat().st_size if path is not None else 0
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
            raise EOFError(f"{piece.file.name} ends too early")
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
