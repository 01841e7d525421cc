"""What the network does wrong, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.errors import DownloadError, HubUnreachableError, IntegrityError, NbloaderError
from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from nbloader.records import Event, FileDone, Notice, Retry

WEIGHTS = "model.safetensors"
CDN = RequestClass.CDN_GET
HEADER = 1  # the first request for a file is for its header
BROUGHT = 0  # an attempt that brought bytes does not count


class Download:
    """One download, and what was said on the way."""

    def __init__(self, hub: LocalHub, cache: Path, **settings: Any) -> None:
        self.events: list[Event] = []
        self.folder: Path | None = None
        self.error: NbloaderError | None = None
        try:
            self.folder = nbloader.download(
                MINILM,
                endpoint=hub.endpoint,
                cache_dir=cache,
                view="none",
                on_event=self.events.append,
                settings={"retry_delay_min": 0.01, "retry_delay_max": 0.02, **settings},
            )
        except NbloaderError as error:
            self.error = error

    @property
    def retries(self) -> list[tuple[str | None, str, int]]:
        return [(e.path, e.reason, e.attempt) for e in self.events if isinstance(e, Retry)]


@pytest.mark.parametrize(
    ("fault", "retries"),
    [
        (
            Fault(CDN, cut=Cut.RESET, after_bytes=5_000_000, times=1, skip=HEADER),
            [(WEIGHTS, "connection lost (ConnectionResetError)", BROUGHT)],
        ),
        (Fault(CDN, status=503, times=1), [(WEIGHTS, "the server is busy (503)", 1)]),
        (Fault(CDN, wrong_bytes=True, times=1), [(WEIGHTS, "wrong bytes in the header", 1)]),
        (Fault(CDN, wrong_bytes=True, times=1, skip=HEADER), [(WEIGHTS, "wrong bytes", 1)]),
        (
            Fault(CDN, cut=Cut.TRUNCATE, after_bytes=5_000_000, times=1, skip=HEADER),
            [(WEIGHTS, "the file came short", BROUGHT)],
        ),
        (
            Fault(RequestClass.MODEL_INFO, status=503, times=2),
            [(None, "the server is busy (503)", 1), (None, "the server is busy (503)", 2)],
        ),
        (
            Fault(CDN, cut=Cut.DROP, after_bytes=5_000_000, times=2, skip=HEADER),
            [(WEIGHTS, "connection lost (IncompleteRead)", BROUGHT)] * 2,
        ),
        (
            Fault(RequestClass.RESOLVE_GET, status=429, retry_after="0", times=1, path="*/vocab*"),
            [("vocab.txt", "the server asks for fewer requests (429)", 1)],
        ),
        (
            Fault(RequestClass.RESOLVE_GET, status=503, times=1, path="*/vocab*"),
            [("vocab.txt", "the server is busy (503)", 1)],
        ),
        (
            Fault(RequestClass.TREE, status=429, retry_after="0", times=1),
            [
                (None, "the server asks for fewer requests (429)", 1),
            ],
        ),
        (
            Fault(RequestClass.TREE, cut=Cut.RESET, times=1),
            [
                (None, "connection lost (ReadError)", 1),
            ],
        ),
    ],
    ids=lambda value: value.request_class if isinstance(value, Fault) else "",
)
def test_a_passing_fault_is_retried_and_told(
    demo_hub: LocalHub, tmp_path: Path, fault: Fault, retries: list[tuple[str | None, str, int]]
) -> None:
    demo_hub.set_faults([fault])
    download = Download(demo_hub, tmp_path)
    assert (download.error, download.retries) == (None, retries)
    done = [event.path for event in download.events if isinstance(event, FileDone)]
    assert sorted(done) == sorted(set(done))


def test_wrong_bytes_twice_are_an_error_and_leave_nothing(
    demo_hub: LocalHub, tmp_path: Path
) -> None:
    demo_hub.set_faults([Fault(CDN, wrong_bytes=True, skip=HEADER)])
    download = Download(demo_hub, tmp_path)
    assert isinstance(download.error, IntegrityError)
    assert download.retries == [(WEIGHTS, "wrong bytes", 1)]
    large = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 10**7]
    assert large == []
    assert not list(tmp_path.rglob("refs/*"))

    demo_hub.clear_faults()
    assert Download(demo_hub, tmp_path).error is None


def test_attempts_run_out(demo_hub: LocalHub, tmp_path: Path) -> None:
    demo_hub.set_faults([Fault(CDN, status=500)])
    download = Download(demo_hub, tmp_path, max_retries=3)
    assert [attempt for _, _, attempt in download.retries] == [1, 2]
    assert isinstance(download.error, DownloadError)
    host = demo_hub.cdn.partition("//")[2]
    assert download.error.message == (
        f"model.safetensors could not be downloaded from {host} (the server failed (500); "
        "3 attempts)"
    )


def test_a_hub_that_does_not_answer_is_named(demo_hub: LocalHub, tmp_path: Path) -> None:
    demo_hub.set_faults([Fault(RequestClass.MODEL_INFO, status=502)])
    download = Download(demo_hub, tmp_path, max_retries=2)
    assert isinstance(download.error, HubUnreachableError)
    assert download.error.message == (
        f"the Hub at {demo_hub.endpoint} does not answer (the server's gateway failed (502); "
        "2 attempts)"
    )


def test_a_complete_cache_serves_while_the_hub_is_down(demo_hub: LocalHub, tmp_path: Path) -> None:
    first = Download(demo_hub, tmp_path)
    demo_hub.set_faults([Fault(RequestClass.MODEL_INFO, status=503)])
    second = Download(demo_hub, tmp_path)
    assert (second.error, second.folder, second.retries) == (None, first.folder, [])
    notices = [event.reference for event in second.events if isinstance(event, Notice)]
    assert notices == ["hub-unreachable"]


def test_a_file_of_the_wrong_size_in_the_cache_is_fetched_again(
    demo_hub: LocalHub, tmp_path: Path
) -> None:
    folder = Download(demo_hub, tmp_path).folder
    assert folder
    blob = (folder / WEIGHTS).resolve()
    blob.write_bytes(b"short")
    demo_hub.reset_counters()
    assert Download(demo_hub, tmp_path).error is None
    assert (folder / WEIGHTS).stat().st_size == 90_868_376
    fetched = {r.path for r in demo_hub.requests() if r.request_class is RequestClass.RESOLVE_GET}
    assert fetched == {f"{MINILM}/{WEIGHTS}"}


def test_verify_finds_wrong_bytes_in_the_cache(demo_hub: LocalHub, tmp_path: Path) -> None:
    folder = Download(demo_hub, tmp_path).folder
    assert folder
    blob = (folder / WEIGHTS).resolve()
    right = blob.read_bytes()
    blob.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    again = nbloader.download(
        MINILM, endpoint=demo_hub.endpoint, cache_dir=tmp_path, view="none", verify=True
    )
    assert (again / WEIGHTS).read_bytes() == right


def test_the_hubs_own_tools_agree_with_what_is_in_the_cache(
    demo_hub: LocalHub, tmp_path: Path
) -> None:
    from huggingface_hub import scan_cache_dir, snapshot_download

    download = Download(demo_hub, tmp_path)
    assert download.folder
    files = sorted(
        path.relative_to(download.folder).as_posix()
        for path in download.folder.rglob("*")
        if path.is_file()
    )
    found = snapshot_download(
        MINILM, cache_dir=tmp_path, local_files_only=True, allow_patterns=files
    )
    assert Path(found) == download.folder
    info = scan_cache_dir(tmp_path)
    assert (len(info.warnings), [repo.repo_id for repo in info.repos]) == (0, [MINILM])
    revisions = [
        (rev.commit_hash, sorted(rev.refs)) for repo in info.repos for rev in repo.revisions
    ]
    assert revisions == [(download.folder.name, ["main"])]
    assert not list(tmp_path.rglob("*.incomplete"))
    assert not list(tmp_path.rglob("trees/*"))
