from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from nbloader.hub_cache.filesystem import holder_of, try_lock
from nbloader.hub_cache.folders import (
    Folder,
    copy_bytes,
    open_folder,
    replacing,
    write_whole,
)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return open_folder(tmp_path)


def test_the_new_takes_the_place_of_the_old(folder: Folder, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    with replacing(folder, "target") as scratch:
        (tmp_path / scratch).write_text("new")
        assert target.read_text() == "old"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("target", "new")]


def _broken(folder: Folder, error: type[BaseException]) -> None:
    with replacing(folder, "target") as scratch:
        os.close(folder.create(scratch))
        raise error


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_after_an_error_the_old_is_there_and_nothing_else(
    folder: Folder, tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    with pytest.raises(error):
        _broken(folder, error)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("target", "old")]


def test_where_nothing_can_be_replaced_nothing_is_left(folder: Folder, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(folder, "target", b"new")
    assert list(tmp_path.iterdir()) == [target]


def test_no_two_scratch_files_have_one_name(folder: Folder) -> None:
    assert len({folder.scratch_name("a", "b") for _ in range(1000)}) == 1000


def test_what_is_there_is_not_written_through(folder: Folder, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "link").symlink_to(precious)
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        with pytest.raises(OSError, match="symbolic"):
            folder.open("link", flags)
    with pytest.raises(FileExistsError):
        folder.create("link")
    with pytest.raises(FileExistsError):
        copy_bytes(precious, folder, "link")
    write_whole(folder, "link", b"new")
    assert (precious.read_text(), (tmp_path / "link").read_text()) == ("precious", "new")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a"])
def test_a_path_is_no_name(folder: Folder, name: str) -> None:
    for act in (folder.unlink, folder.create, folder.stat, folder.target_of):
        with pytest.raises(OSError, match="no name of an entry"):
            act(name)


def test_an_error_tells_the_whole_path(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        folder.stat("missing")
    assert caught.value.filename == str(tmp_path / "missing")
    with pytest.raises(FileNotFoundError) as caught:
        open_folder(tmp_path / "a" / "b", below=tmp_path, make=False)
    assert caught.value.filename == str(tmp_path / "a")


# -- links to folders --------------------------------------------------------------------------


def test_below_the_folder_that_was_named_no_link_is_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    for path in ("link", "inner/link"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).symlink_to(victim)
        for below in (path, f"{path}/deeper"):
            with pytest.raises(OSError, match="a link stands in the place of a folder") as caught:
                open_folder(root / below, below=root)
            assert caught.value.filename == str(root / path)
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize("path", ["../victim", "/etc", "a/../../victim"])
def test_no_folder_outside_is_opened(tmp_path: Path, path: str) -> None:
    with pytest.raises(OSError, match="not below"):
        open_folder(tmp_path / "root" / path, below=tmp_path / "root")


def test_the_folder_itself_may_be_a_link_but_not_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "shared" / "link"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "disk")
    with open_folder(link) as opened:
        write_whole(opened, "file", b"x")
    assert (tmp_path / "disk" / "file").read_bytes() == b"x"
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    os.lchown(link, 12345, 12345)
    with pytest.raises(OSError, match="another user"):
        open_folder(link)
    os.chown(link.parent, 12345, 12345)
    open_folder(link).close()


def test_an_open_folder_stays_the_one_that_it_was(tmp_path: Path) -> None:
    """Who renames it and puts a link there leads nothing elsewhere."""
    root, victim = tmp_path / "root", tmp_path / "victim"
    victim.mkdir()
    with open_folder(root / "inner", below=root) as opened:
        (root / "inner").rename(root / "moved")
        (root / "inner").symlink_to(victim)
        write_whole(opened, "file", b"x")
        assert opened.has("file")
    assert (root / "moved" / "file").read_bytes() == b"x"
    assert list(victim.iterdir()) == []


# -- locks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_file_that_a_lock_leads_to_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    precious.chmod(0o600)
    path = tmp_path / "locks" / "lock"
    path.parent.mkdir()
    if kind == "hard":
        path.hardlink_to(precious)
        lock = try_lock(path, flock=True)
        assert lock is not None
        lock.release()
    else:
        path.symlink_to(precious)
        with pytest.raises(OSError, match="symbolic"):
            try_lock(path, flock=True)
    assert (precious.read_text(), precious.stat().st_mode & 0o777) == ("precious", 0o600)


def test_a_fifo_is_no_lock(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OSError, match="not a regular file"):
        try_lock(tmp_path / "lock", flock=True)


def test_a_lock_can_be_taken_by_a_group_whatever_the_mask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        lock = try_lock(tmp_path / "lock", flock=True)
    finally:
        os.umask(before)
    assert lock is not None
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o664
    lock.release()


def test_who_holds_a_lock_is_known(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder_of(path) is None
    with path.open("wb") as held:
        assert holder_of(path) is None
        fcntl.flock(held, fcntl.LOCK_EX)
        assert holder_of(path) == os.getpid()
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'wb'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert holder_of(path) == other.pid
        other.communicate()
    soft = filelock.SoftFileLock(tmp_path / "soft")
    with soft:
        assert holder_of(tmp_path / "soft") == os.getpid()


@pytest.mark.parametrize(
    "table", ["", "1: FLOCK", "1: FLOCK ADVISORY WRITE x 0:0:0 0 EOF\n", "\xff"]
)
def test_a_table_of_locks_of_another_form_says_nothing(tmp_path: Path, table: str) -> None:
    (tmp_path / "locks").write_text(table, "latin-1")
    (tmp_path / "lock").touch()
    assert holder_of(tmp_path / "lock", tmp_path / "locks") is None
