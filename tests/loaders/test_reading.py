"""Files of safetensors read to a device by several threads."""

from __future__ import annotations

import gc
import json
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nbloader.errors import CancelledError, ModelLoadError
from nbloader.loaders import reading
from nbloader.loaders.reading import Reading

DTYPES = [getattr(torch, name) for name in reading._DTYPES.values()]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert [each.name for each in threading.enumerate() if each.name == "nbloader-read"] == []


def random_bytes(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    if dtype is torch.bool:
        return (torch.arange(torch.Size(shape).numel()) % 3 == seed % 3).reshape(shape)
    size = torch.Size(shape).numel() * torch.empty(0, dtype=dtype).element_size()
    generator = torch.Generator().manual_seed(seed)
    content = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)
    return content.view(dtype).reshape(shape)


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Bit for bit, also where numbers are none."""
    if (ours.dtype, ours.shape, ours.stride()) != (theirs.dtype, theirs.shape, theirs.stride()):
        return False
    mine, other = (each.reshape(-1).view(torch.uint8) for each in (ours, theirs))
    return torch.equal(mine, other)


SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
FILES = st.lists(
    st.dictionaries(
        st.text("abc.", min_size=1, max_size=6), st.tuples(SHAPES, st.sampled_from(DTYPES))
    ),
    min_size=1,
    max_size=3,
)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files=FILES, piece=st.integers(1, 40), readers=st.integers(1, 4))
def test_all_that_is_in_the_files_arrives(
    files: list[dict[str, Any]],
    piece: int,
    readers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", piece)
    paths = [tmp_path / f"{number}.safetensors" for number in range(len(files))]
    for path, described in zip(paths, files, strict=True):
        tensors = {
            name: random_bytes(shape, dtype, number)
            for number, (name, (shape, dtype)) in enumerate(described.items())
        }
        save_file(tensors, path)
    with closing(Reading(readers=readers)) as each:
        for path in paths:
            each.add(path, "cpu")
        for path in paths:
            ours, theirs = each.take(path), load_file(path)
            assert ours is not None
            assert ours.keys() == theirs.keys()
            assert [name for name in theirs if not same(ours[name], theirs[name])] == []
        assert each.problem == ""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(10.0), "b": torch.ones(3, 4, dtype=torch.bfloat16)}, path)
    return path


def descriptors() -> int:
    opened = Path("/proc/self/fd")
    return len(list(opened.iterdir())) if opened.is_dir() else 0


def test_what_is_taken_is_handed_out_once(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.symlink_to(file)
    with closing(Reading()) as each:
        assert each.take(file) is None  # It was not added.
        each.add(file, "cpu")
        found = each.take_one(other, "a")  # the same file by another name
        assert found is not None
        assert torch.equal(found, torch.arange(10.0))
        assert each.take_one(file, "a") is None
        rest = each.take(file)
        assert rest is not None
        assert list(rest) == ["b"]
        assert each.take(file) is None
        each.add(file, "cpu")
        again = each.take(file)
        assert again is not None
        assert again["a"].data_ptr() != found.data_ptr()


def test_a_file_may_be_added_while_others_are_read(file: Path, tmp_path: Path) -> None:
    with closing(Reading(readers=2)) as each:
        for number in range(20):
            path = tmp_path / f"{number}.safetensors"
            save_file({"a": torch.full((1000,), float(number))}, path)
            each.add(path, "cpu")
        for number in range(20):
            found = each.take(tmp_path / f"{number}.safetensors")
            assert found is not None
            assert found["a"].tolist() == [float(number)] * 1000


def test_few_threads_read_until_somebody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(100, dtype=torch.uint8)}, path)
    may_go_on, fill = threading.Event(), reading._fill

    def held_up(buffer: torch.Tensor, piece: Any) -> None:
        assert may_go_on.wait(10)
        fill(buffer, piece)

    def threads() -> int:
        return sum(each.name == "nbloader-read" for each in threading.enumerate())

    monkeypatch.setattr(reading, "PIECE_BYTES", 10)
    monkeypatch.setattr(reading, "_fill", held_up)
    with closing(Reading(readers=6)) as each:
        each.add(path, "cpu")
        few = threads()
        waits = in_background(lambda: each.take(path))
        while threads() == few:
            assert waits.is_alive()
        may_go_on.set()
        waits.join(10)
        assert (few, threads()) == (reading.FEW_READERS, 6)


def test_nothing_stays_of_what_was_taken(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(2)}, other)
    with closing(Reading(readers=1)) as each:
        each.add(file, "cpu")
        found = each.take(file)
        assert found is not None
        gone = weakref.ref(found["a"])
        each.add(other, "cpu")
        each.take(other)  # The thread has left the first.
        del found
        gc.collect()
        assert gone() is None


def test_nothing_stays_of_what_nobody_has_taken(file: Path) -> None:
    before = descriptors()
    each = Reading()
    each.add(file, "cpu")
    found = each.take_one(file, "a")
    left = each._files[str(file.resolve())].tensors
    assert left is not None
    gone = weakref.ref(left["b"])
    del left
    each.close()
    gc.collect()
    assert gone() is None
    assert found is not None
    assert descriptors() == before
    each.add(file, "cpu")  # after the end it does nothing
    assert each.take(file) is None


def write(path: Path, header: object, content: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file that is gone": (lambda path: path.unlink(), "FileNotFoundError"),
    "a folder": (put_folder, "IsADirectoryError"),
    "no header": (lambda path: path.write_bytes(b"abc"), "MalformedFileError"),
    "a file without its end": (shorten, "MalformedFileError"),
    "a format that torch has not": (
        lambda path: write(
            path, {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"\0"
        ),
        "there are tensors of F4",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_nothing_is_there_and_nothing_stays(
    fault: str, file: Path, tmp_path: Path
) -> None:
    before = descriptors()
    good = tmp_path / "good.safetensors"
    save_file({"a": torch.zeros(4)}, good)
    spoil, told = FAULTS[fault]
    spoil(file)
    with closing(Reading(readers=1)) as each:
        each.add(file, "cpu")
        assert each.take(file) is None
        assert told in each.problem
        each.add(good, "cpu")
        assert each.take(good) is None
    assert descriptors() == before


def test_a_file_that_becomes_shorter_is_a_fault(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = reading._made

    def cut(*arguments: Any) -> Any:
        os.truncate(file, file.stat().st_size - 5)
        return made(*arguments)

    monkeypatch.setattr(reading, "_made", cut)
    with closing(Reading()) as each:
        each.add(file, "cpu")
        assert each.take(file) is None
        assert each.problem == "EOFError: model.safetensors ends too early"


def test_whoever_waits_stops_when_the_load_is_cancelled(file: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with closing(Reading(cancelled=cancelled)) as each:
        each.add(file, "cpu")
        with pytest.raises(CancelledError):
            each.take(file)
        with pytest.raises(CancelledError):
            each.take_one(file, "a")


# -- files that go once they are read --------------------------------------------------------------


class Going:
    """Files that are expected, and what stands for them."""

    def __init__(self, folder: Path, reading: Reading, count: int) -> None:
        self._folder, self._reading = folder, reading
        self.read: list[int] = []
        self.changed = threading.Condition()
        folder.mkdir()
        for number in range(count):
            save_file({"a": torch.full((5,), number), "b": torch.ones(2)}, self._file(number))
            self.stand_in(number).write_bytes(b"")
            place = self.stand_in(number)
            reading.expect(place, "cpu", name=f"{number}.safetensors", outline=place)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.safetensors"

    def stand_in(self, number: int) -> Path:
        return self._folder / f"{number}.stand-in"

    def come(self, number: int) -> None:
        """Let a file be there."""

        def read() -> None:
            self._file(number).unlink()
            with self.changed:
                self.read.append(number)
                self.changed.notify_all()

        self._reading.add_expected(self.stand_in(number), self._file(number), read)

    def wait(self, count: int) -> list[int]:
        """Wait until so many are read, and say which."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.read) >= count, timeout=10)
            return sorted(self.read)

    def rest(self) -> list[int]:
        """Say which are read once nothing is done any more."""
        threading.Event().wait(0.2)
        return sorted(self.read)

    def take(self, number: int) -> None:
        found = self._reading.take(self.stand_in(number))
        assert found is not None
        assert torch.equal(found["a"], torch.full((5,), number))


@pytest.fixture
def expecting() -> Iterator[Reading]:
    with closing(Reading(readers=2)) as each:
        yield each


@pytest.fixture
def going(expecting: Reading, tmp_path: Path) -> Going:
    return Going(tmp_path / "going", expecting, 5)


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_no_more_are_held_than_two(going: Going) -> None:
    for number in range(5):
        going.come(number)
    going.wait(2)
    assert going.rest() == [0, 1]
    going.take(0)  # Room for another.
    going.wait(3)
    assert going.rest() == [0, 1, 2]


def test_one_that_is_asked_for_comes_however_many_are_held(going: Going) -> None:
    for number in range(5):
        going.come(number)
    going.wait(2)
    going.take(4)
    assert going.rest() == [0, 1, 4]


def test_while_one_is_waited_for_that_is_not_there_all_others_are_read(going: Going) -> None:
    waits = in_background(lambda: going.take(4))
    for number in range(4):
        going.come(number)
    assert going.wait(4) == [0, 1, 2, 3]
    going.come(4)
    waits.join(10)
    assert not waits.is_alive()
    for number in range(4):
        going.take(number)


def test_what_is_taken_a_second_time_is_an_error(going: Going, expecting: Reading) -> None:
    going.come(0)
    going.take(0)
    for take in (expecting.take, lambda path: expecting.take_one(path, "a")):
        with pytest.raises(ModelLoadError, match=r"0\.safetensors is not kept, .* taken before"):
            take(going.stand_in(0))
    going.come(1)
    assert expecting.take_one(going.stand_in(1), "a") is not None
    with pytest.raises(ModelLoadError, match="taken before"):
        expecting.take_one(going.stand_in(1), "a")
    assert expecting.take_one(going.stand_in(1), "b") is not None
    going.come(1)  # It was told before, and nothing comes of it.
    with pytest.raises(ModelLoadError, match="taken before"):
        expecting.take(going.stand_in(1))


def test_of_a_file_that_cannot_be_read_the_reason_is_told(going: Going, expecting: Reading) -> None:
    (expecting_file := going.stand_in(0).with_name("0.safetensors")).unlink()
    assert not expecting_file.exists()
    going.come(0)
    with pytest.raises(ModelLoadError, match="FileNotFoundError"):
        expecting.take(going.stand_in(0))


def test_whoever_waits_when_it_is_closed_is_told(going: Going, expecting: Reading) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            expecting.take(going.stand_in(0))
        except BaseException as error:
            errors.append(error)

    waits = in_background(wait)
    while expecting.never_asked() != [f"{number}.safetensors" for number in range(1, 5)]:
        pass
    closes = [in_background(expecting.close) for _ in range(2)]
    for thread in (waits, *closes):
        thread.join(10)
    assert [type(error) for error in errors] == [CancelledError]


def test_what_nobody_has_asked_for_is_named(going: Going, expecting: Reading) -> None:
    for number in range(5):
        going.come(number)
    going.take(1)
    going.take(3)
    assert expecting.never_asked() == ["0.safetensors", "2.safetensors", "4.safetensors"]
    assert [expecting.stands_in(going.stand_in(0)), expecting.stands_in("0.safetensors")] == [
        True,
        False,
    ]


# -- a GPU, stood in for: what it is told, in which order ------------------------------------------


class Gpu:
    """Takes down what streams and events are told; tensors that are meant for it are in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[str, ...]] = []
        self.pinned = 0
        self.freed = 0
        self._lock = threading.Lock()
        self._events = 0
        gpu, empty = self, torch.empty

        class Event:
            def __init__(self, *, blocking: bool) -> None:
                assert blocking
                gpu._events += 1
                self.name = f"event {gpu._events}"

            def synchronize(self) -> None:
                gpu.tell("wait", self.name)

        class Stream:
            def __init__(self, device: str) -> None:
                self.device = device

            def wait_event(self, event: Event) -> None:
                gpu.tell("after", event.name)

            def record_event(self, event: Event) -> Event:
                gpu.tell("mark", event.name)
                return event

        def made(*shape: Any, device: str, pin_memory: bool = False, **options: Any) -> Any:
            self.pinned += pin_memory
            assert not (pin_memory and device != "cpu")
            return empty(*shape, device="cpu", **options)

        monkeypatch.setattr(torch, "empty", made)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", nullcontext)
        monkeypatch.setattr(torch.cuda, "device", self.on)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("cuda"))
        monkeypatch.setattr(torch._C, "_host_emptyCache", self.free, raising=False)

    def on(self, device: str) -> AbstractContextManager[object]:
        assert device == "cuda:1"
        return nullcontext()

    def tell(self, *what: str) -> None:
        with self._lock:
            self.told.append(what)

    def free(self) -> None:
        self.freed += 1


def test_a_buffer_is_filled_again_only_when_it_has_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(monkeypatch)
    monkeypatch.setattr(reading, "PIECE_BYTES", 16)
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(16, dtype=torch.float32)}, path)  # four pieces
    with closing(Reading(readers=1)) as each:
        each.add(path, "cuda")  # which is the second here, and on every thread
        found = each.take(path)
    assert found is not None
    assert found["a"].tolist() == list(range(16))
    assert gpu.told == [
        ("mark", "event 1"),  # when the memory is free
        ("after", "event 1"),
        ("mark", "event 2"),
        ("after", "event 1"),
        ("mark", "event 3"),
        ("wait", "event 2"),
        ("after", "event 1"),
        ("mark", "event 4"),
        ("wait", "event 3"),
        ("after", "event 1"),
        ("mark", "event 5"),
        ("wait", "event 4"),
        ("wait", "event 5"),
    ]
    # Once there is nothing left to read, not only at the end, where somebody waits for it.
    assert (gpu.pinned, gpu.freed) == (2, 2)


def test_what_waits_for_a_gpu_is_made_in_pinned_memory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(monkeypatch)
    with closing(Reading(readers=1)) as each:
        each.add(file, reading.PINNED)
        found = each.take(file)
    assert found is not None
    assert [name for name, tensor in load_file(file).items() if not same(tensor, found[name])] == []
    assert (gpu.pinned, gpu.told, gpu.freed) == (2, [], 1)  # two tensors, and no buffer


def test_a_full_gpu_is_a_fault(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)

    def full(*arguments: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with closing(Reading()) as each:
        each.add(file, "cuda")
        assert each.take(file) is None
        assert each.problem == "OutOfMemoryError: CUDA out of memory"
    assert gpu.told == []
