"""Reading files that others may have written: only regular ones, and no more than is honest."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nbloader.loaders.folders import read_object
from nbloader.machine.folders import holds_model, kind_of
from nbloader.small_files import open_regular, read_small
from nbloader.stages.warm import guess


def refused(path: str | Path, most_bytes: int = 100, **arguments: object) -> int | None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what is looked at
        read_small(path, most_bytes, **arguments)  # type: ignore[arg-type]
    return caught.value.errno


def test_a_small_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert read_small(tmp_path / "file", 100) == b"x" * 100
    (tmp_path / "empty").touch()
    assert read_small(tmp_path / "empty", 0) == b""


def test_one_byte_too_many_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 101)
    assert refused(tmp_path / "file") == errno.EFBIG
    os.truncate(tmp_path / "file", 1 << 40)
    assert refused(tmp_path / "file", 1 << 30) == errno.EFBIG


def test_what_tells_a_size_of_nothing_is_read_up_to_the_limit() -> None:
    assert read_small("/proc/self/stat", 1 << 16)
    assert refused("/proc/self/maps", 10) == errno.EFBIG


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "zero", "folder"):
        assert refused(tmp_path / name) == errno.EINVAL
    assert refused("/dev/zero") == errno.EINVAL
    assert refused(tmp_path / "nothing") == errno.ENOENT
    (tmp_path / "loop").symlink_to("loop")
    assert refused(tmp_path / "loop") == errno.ELOOP


def test_a_link_is_followed_only_where_one_is_meant(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("file")
    assert read_small(tmp_path / "link", 10) == b"secret"
    assert refused(tmp_path / "link", follow=False) == errno.ELOOP


def test_a_path_may_begin_in_an_open_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert read_small("file", 1, dir_fd=folder) == b"x"
        os.close(open_regular("file", dir_fd=folder))
    finally:
        os.close(folder)


def test_the_text_of_a_refusal_quotes_nothing_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"secret" * 20)
    with pytest.raises(OSError, match="more than") as caught:
        read_small(tmp_path / "file", 10)
    assert "secret" not in str(caught.value)


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 101)
    before = list(Path("/proc/self/fd").iterdir())
    refused(tmp_path / "file")
    refused("/proc/self/maps", 10)
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


@pytest.mark.parametrize("make", [os.mkfifo, lambda place: place.symlink_to("/dev/zero")])
def test_what_is_read_of_a_folder_of_a_model_never_hangs(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    for name in ("model_index.json", "modules.json", "config.json", "adapter_config.json"):
        make(tmp_path / name)
    assert guess(tmp_path) == []
    assert kind_of(tmp_path) is None
    assert not holds_model(tmp_path)
    assert read_object(tmp_path / "config.json") == {}
