"""Files in a folder of the user's own: as the Hub's library lays them out, and known to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from huggingface_hub import hf_hub_download, snapshot_download

import nbloader
from nbloader.errors import (
    CacheNotWritableError,
    DiskSpaceError,
    NotCachedError,
    UnsafePathError,
)
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.records import Event, Notice, Selected
from tests.conftest import WriteRepo

Publish = Callable[[Mapping[str, bytes]], str]

LARGE = Random(7).randbytes(3_000_000)
FILES = {
    "README.md": b"# read me",
    "config.json": b"{}",
    "data/a.csv": b"1,2\n",
    "weights/model.bin": LARGE,
    "copies/model.bin": LARGE,
}


def tree(root: Path) -> dict[str, bytes]:
    """The files of a folder, without the notes of who has fetched them."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".cache" not in path.relative_to(root).parts
    }


def notes(root: Path) -> dict[str, list[str]]:
    """The commit and the etag that are noted of each file."""
    folder = root / ".cache" / "huggingface" / "download"
    return {
        path.relative_to(folder).as_posix(): path.read_text().splitlines()[:2]
        for path in folder.rglob("*.metadata")
    }


def later(path: Path, content: bytes) -> None:
    """Change a file so that it is newer than what is noted of it."""
    path.write_bytes(content)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10_000_000_000))


class Caller:
    """Calls both libraries with the same arguments, each with an empty cache of its own."""

    def __init__(self, hub: LocalHub, folder: Path) -> None:
        self.hub = hub
        self.folder = folder
        self.events: list[Event] = []
        self._caches = 0

    def arguments(self, **more: Any) -> dict[str, Any]:
        self._caches += 1
        cache = self.folder / f"cache{self._caches}"
        return {"endpoint": self.hub.endpoint, "token": False, "cache_dir": cache, **more}

    def ours(self, repo_id: str, **more: Any) -> Path:
        self.events = []
        more = {"allow_patterns": "*", "view": "none", "on_event": self.events.append, **more}
        return nbloader.download(repo_id, **self.arguments(**more))

    def theirs(self, repo_id: str, **more: Any) -> Path:
        return Path(snapshot_download(repo_id, **self.arguments(**more)))

    @property
    def notices(self) -> list[str]:
        return [event.reference for event in self.events if isinstance(event, Notice)]

    @property
    def selected(self) -> Selected:
        return next(event for event in self.events if isinstance(event, Selected))

    @contextmanager
    def nothing_fetched(self) -> Iterator[None]:
        before = self.hub.counters().file_bytes
        yield
        assert self.hub.counters().file_bytes == before


@pytest.fixture
def call(hub: LocalHub, tmp_path: Path) -> Caller:
    return Caller(hub, tmp_path)


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_each_library_finds_what_the_other_has_brought(
    call: Caller, hub_root: Path, write_repo: WriteRepo, tmp_path: Path, repo_type: str
) -> None:
    prefix = "" if repo_type == "model" else "datasets/"
    write_repo(hub_root, f"{prefix}org/local", FILES)
    ours = call.ours("org/local", local_dir=tmp_path / "ours", repo_type=repo_type)
    theirs = call.theirs("org/local", local_dir=tmp_path / "theirs", repo_type=repo_type)
    assert (ours, tree(ours), notes(ours)) == (tmp_path / "ours", FILES, notes(theirs))
    assert not any(path.is_symlink() for path in ours.rglob("*"))
    assert not list(ours.rglob("*.incomplete"))
    with call.nothing_fetched():
        call.theirs("org/local", local_dir=ours, repo_type=repo_type)
        call.ours("org/local", local_dir=theirs, repo_type=repo_type)
        assert set(call.selected.cached) == set(FILES)
    for folder in (ours, theirs):
        own = folder / ".cache" / "huggingface"
        assert (own / ".gitignore").read_text() == "*"
        assert (own / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886")


def test_the_cache_is_left_alone_and_a_content_comes_once(
    call: Caller, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(FILES)
    before = call.hub.counters().file_bytes
    folder = call.ours(repo_id, local_dir=tmp_path / "local")
    assert tree(folder) == FILES
    small = sum(len(content) for path, content in FILES.items() if not path.endswith(".bin"))
    assert call.hub.counters().file_bytes - before == len(LARGE) + small
    assert not (tmp_path / "cache1").exists()


def test_one_file_goes_where_the_hubs_library_puts_it(
    call: Caller, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(FILES)
    one: dict[str, Any] = {"filename": "data/a.csv", "allow_patterns": None}
    ours = call.ours(repo_id, local_dir=tmp_path / "ours", **one)
    theirs = hf_hub_download(repo_id, "data/a.csv", **call.arguments(local_dir=tmp_path / "theirs"))
    assert ours.relative_to(tmp_path / "ours") == Path(theirs).relative_to(tmp_path / "theirs")
    assert (tree(tmp_path / "ours"), notes(tmp_path / "ours")) == (
        tree(tmp_path / "theirs"),
        notes(tmp_path / "theirs"),
    )


def test_what_the_cache_has_is_copied_and_stays_there(
    call: Caller, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(FILES)
    cache = call.theirs(repo_id, cache_dir=tmp_path / "cache")
    with call.nothing_fetched():
        folder = call.ours(repo_id, cache_dir=tmp_path / "cache", local_dir=tmp_path / "local")
    assert tree(folder) == FILES
    sizes = {path: len(content) for path, content in FILES.items()}
    assert (call.selected.cached, call.selected.copied) == ((), sizes)
    (folder / "data/a.csv").write_bytes(b"changed")
    assert (cache / "data/a.csv").read_bytes() == FILES["data/a.csv"]
    with pytest.raises(DiskSpaceError):
        call.ours(
            repo_id,
            cache_dir=tmp_path / "cache",
            local_dir=tmp_path / "other",
            settings={"required_disk_space_gb": 1e6},
        )


def test_a_new_revision_replaces_what_has_changed_and_nothing_else(
    call: Caller, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(FILES)
    folder = call.ours(repo_id, local_dir=tmp_path / "local")
    old = (folder / "weights/model.bin").stat().st_ino
    (folder / "mine.txt").write_bytes(b"of the user")
    publish({"config.json": b'{"new": 1}'})
    before = call.hub.counters().file_bytes
    call.ours(repo_id, local_dir=folder)
    assert tree(folder) == {**FILES, "config.json": b'{"new": 1}', "mine.txt": b"of the user"}
    assert call.hub.counters().file_bytes - before == len(b'{"new": 1}')
    assert (folder / "weights/model.bin").stat().st_ino == old
    assert call.notices == []
    # All is noted for the new commit, so that the Hub's library need not ask for each file.
    assert len({commit for commit, _ in notes(folder).values()}) == 1
    with call.nothing_fetched():
        call.theirs(repo_id, local_dir=folder)


def test_a_file_that_the_user_has_changed_is_not_replaced_in_silence(
    call: Caller, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(FILES)
    folder = call.ours(repo_id, local_dir=tmp_path / "local")
    later(folder / "config.json", b'{"changed": true}')
    later(folder / "weights/model.bin", LARGE)  # Touched, and the same.
    before = call.hub.counters().file_bytes
    call.ours(repo_id, local_dir=folder)
    assert tree(folder) == FILES
    assert call.hub.counters().file_bytes - before == len(FILES["config.json"])
    (notice,) = [event for event in call.events if isinstance(event, Notice)]
    assert (notice.reference, notice.message.split()[0]) == ("file-replaced", "config.json")


@pytest.mark.parametrize(("name", "is_folder"), [("config.json", True), ("data", False)])
def test_what_is_in_the_way_is_told_before_a_byte(
    call: Caller, publish: Publish, tmp_path: Path, name: str, is_folder: bool
) -> None:
    repo_id = publish(FILES)
    place = tmp_path / "local" / name
    place.parent.mkdir()
    if is_folder:
        place.mkdir()
    else:
        place.write_bytes(b"of the user")
    with (
        call.nothing_fetched(),
        pytest.raises(CacheNotWritableError, match=f"{name} is in the way"),
    ):
        call.ours(repo_id, local_dir=tmp_path / "local")
    place.rename(tmp_path / "away")
    assert tree(call.ours(repo_id, local_dir=tmp_path / "local")) == FILES


def test_no_repository_writes_the_notes_of_others(
    call: Caller, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish({**FILES, ".cache/huggingface/download/config.json.metadata": b"x"})
    with pytest.raises(UnsafePathError) as caught:
        call.ours(repo_id, local_dir=tmp_path / "local")
    assert 'ignore_patterns=[".cache/"]' in caught.value.hint
    folder = call.ours(repo_id, local_dir=tmp_path / "local", ignore_patterns=[".cache/"])
    assert tree(folder) == FILES


def test_a_folder_that_was_copied_without_notes_is_hashed_and_kept(
    call: Caller, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(FILES)
    for path, content in FILES.items():
        place = tmp_path / "copied" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    with call.nothing_fetched():
        folder = call.ours(repo_id, local_dir=tmp_path / "copied")
        call.theirs(repo_id, local_dir=folder)
    assert call.notices == []
    assert set(call.selected.cached) == set(FILES)


def test_wrong_bytes_that_look_right_are_found_by_verify(
    call: Caller, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(FILES)
    folder = call.ours(repo_id, local_dir=tmp_path / "local")
    place = folder / "weights/model.bin"
    status = place.stat()
    place.write_bytes(bytes(len(LARGE)))
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    call.ours(repo_id, local_dir=folder, verify=True)
    assert tree(folder) == FILES


def test_offline_the_folder_answers(call: Caller, publish: Publish, tmp_path: Path) -> None:
    repo_id = publish(FILES)
    folder = call.ours(repo_id, local_dir=tmp_path / "local", allow_patterns="data/")
    call.hub.reset_counters()
    offline: dict[str, Any] = {"local_files_only": True, "allow_patterns": None}
    one = call.ours(repo_id, local_dir=folder, filename="data/a.csv", **offline)
    assert one == folder / "data/a.csv"
    with pytest.raises(NotCachedError):
        call.ours(repo_id, local_dir=folder, filename="README.md", **offline)
    with pytest.raises(NotCachedError):
        call.ours(repo_id, local_dir=tmp_path / "none", filename="data/a.csv", **offline)
    assert call.hub.requests() == []


def test_an_adapter_brings_its_base_into_the_cache(
    call: Caller, hub_root: Path, write_repo: WriteRepo, tmp_path: Path
) -> None:
    from tests.transfer.test_companion_transfer import ADAPTER, BASE, OTHER, OWN

    write_repo(hub_root, OWN, ADAPTER)
    write_repo(hub_root, OTHER, BASE)
    folder = call.ours(OWN, local_dir=tmp_path / "local", allow_patterns=None)
    assert tree(folder) == ADAPTER
    (cache,) = (tmp_path / "cache1").glob(f"models--{OTHER.replace('/', '--')}/snapshots/*")
    assert {path.name for path in cache.iterdir()} == set(BASE)


_KILLED = """
import sys, nbloader
nbloader.download(sys.argv[1], endpoint=sys.argv[2], local_dir=sys.argv[3], cache_dir=sys.argv[4],
                  allow_patterns="*", token=False, view="none",
                  on_event=lambda event: print(getattr(event, "completed", 0), flush=True))
"""


def test_it_goes_on_after_a_kill_and_needs_the_disk_once(
    call: Caller, publish: Publish, tmp_path: Path
) -> None:
    content = Random(8).randbytes(40_000_000)
    repo_id = publish({"model.bin": content, "config.json": b"{}"})
    local = tmp_path / "local"
    body = Fault(RequestClass.CDN_GET, total_bytes_per_second=12_000_000)
    call.hub.set_faults([body])
    places = (str(local), str(tmp_path / "no"))
    command = [sys.executable, "-c", _KILLED, repo_id, call.hub.endpoint, *places]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= len(content) // 2:
                process.send_signal(signal.SIGKILL)
    call.hub.clear_faults()
    assert not (local / "model.bin").exists()
    (partial,) = local.rglob("*.nbloader.incomplete")
    call.hub.reset_counters()
    call.ours(repo_id, local_dir=local)
    kept = call.selected.partial["model.bin"]
    assert kept >= 0.4 * len(content)
    served = call.hub.counters().file_bytes
    assert served <= 1.05 * (len(content) - kept) + 1000
    assert tree(local)["model.bin"] == content
    assert not partial.exists()
    with call.nothing_fetched():
        call.theirs(repo_id, local_dir=local)


def test_two_processes_bring_each_file_once(call: Caller, publish: Publish, tmp_path: Path) -> None:
    content = Random(9).randbytes(6_000_000)
    repo_id = publish({"model.bin": content, "config.json": b"{}"})
    local = tmp_path / "local"
    call.hub.set_faults([Fault(RequestClass.CDN_GET, total_bytes_per_second=3_000_000)])
    places = (str(local), str(tmp_path / "no"))
    command = [sys.executable, "-c", _KILLED, repo_id, call.hub.endpoint, *places]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as one,
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as other,
    ):
        assert (one.wait(60), other.wait(60)) == (0, 0)
    assert tree(local) == {"model.bin": content, "config.json": b"{}"}
    assert call.hub.counters().file_bytes < 1.05 * len(content)
