from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.history import (
    MAX_JOBS,
    MAX_RETRIES,
    History,
    JobEntry,
    RetryEntry,
    entry_of,
    past_of,
    recall,
    remember,
)
from nbloader.records import Checked, Event, LibrariesImported, Retry
from nbloader.redaction import Redactor
from nbloader.state import PastJob
from tests.jobs import BROKEN, DOWNLOADING, FIT, LOADED, WEIGHTS, jobs, last_state
from tests.samples import MB

VERSIONS = {"nbloader": "0.1.0", "torch": "2.13.0"}
REDACT = Redactor(homes=("/home/alice",))
NOW = 1_800_000_000.0

LOADED_ENTRY = JobEntry(
    repo_id="org/name",
    commit_hash="c" * 40,
    kind="diffusers",
    started="2027-01-15T07:59:36+00:00",
    seconds=24.0,
    status="ready",
    reference="",
    fetched=80 * MB + 1_000,
    total=100 * MB + 2_000,
    stages=(("connect", 1.0), ("set up", 1.0), ("download", 21.0), ("initialise", 1.0)),
    retries=(
        RetryEntry(
            time="1970-01-01T00:01:00+00:00",
            path=WEIGHTS,
            reason="timed out",
            wait_s=5,
            route=None,
        ),
    ),
    retry_count=1,
    notices=("invalid-token",),
    versions=VERSIONS,
)


def entry(events: object = LOADED) -> JobEntry:
    state = last_state(events)  # type: ignore[arg-type]
    return entry_of(state, now=NOW, versions=VERSIONS, redact=REDACT)


def named(number: int) -> JobEntry:
    return replace(LOADED_ENTRY, repo_id=f"org/{number}")


def test_a_job_that_is_ready_becomes_one_record() -> None:
    assert entry() == LOADED_ENTRY


def test_a_job_that_failed_names_its_error() -> None:
    failed = entry(BROKEN)
    assert (failed.status, failed.reference, failed.fetched) == ("failed", "disk-full", 40 * MB)
    early = entry(DOWNLOADING[:1])
    assert (early.commit_hash, early.kind, early.total, early.stages) == (
        None,
        None,
        0,
        (("connect", 0.0),),
    )


def test_what_was_built_tells_about_the_next_load() -> None:
    built = entry(
        (
            *LOADED[:3],
            (2.0, Checked(results=(), fit=FIT)),
            *LOADED[4:-3],
            (15.0, LibrariesImported(seconds=9.0)),
            *LOADED[-3:],
        )
    )
    assert built == replace(LOADED_ENTRY, device="cuda:0", plan="gpu", import_s=9.0, build_s=2.0)
    failed = replace(built, status="failed")
    never = replace(built, import_s=86_401.0, build_s=float(1 << 61))
    assert past_of([LOADED_ENTRY, failed, built, never]) == (
        PastJob(
            repo_id="org/name",
            kind="diffusers",
            device="",
            plan="",
            total=100 * MB + 2_000,
            fetched=True,
        ),
        PastJob(
            repo_id="org/name",
            kind="diffusers",
            device="cuda:0",
            plan="gpu",
            total=100 * MB + 2_000,
            fetched=True,
            import_s=9.0,
            build_s=2.0,
        ),
        PastJob(
            repo_id="org/name",
            kind="diffusers",
            device="cuda:0",
            plan="gpu",
            total=100 * MB + 2_000,
            fetched=True,
        ),
    )


def test_a_line_of_before_is_read_and_tells_of_no_build(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(replace(LOADED_ENTRY, device="cpu", plan="cpu", import_s=1.0, build_s=1.0))
    (line,) = lines_of(history)
    for name in ("device", "plan", "import_s", "build_s"):
        del line[name]
    history.path.write_text(json.dumps(line) + "\n")
    assert history.entries() == (LOADED_ENTRY,)


def test_what_cannot_be_recalled_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert recall() == ()
    History(tmp_path / "nbloader").add(LOADED_ENTRY)
    assert recall() == past_of([LOADED_ENTRY])
    path = tmp_path / "nbloader" / "jobs.jsonl"
    path.write_bytes(b"\x00" * 5_000)
    assert recall() == ()
    path.unlink()
    path.mkdir()
    assert recall() == ()


def test_no_secret_is_kept() -> None:
    token = "hf_" + "s" * 34
    retry = Retry(
        time=60,
        path=None,
        reason=f"GET https://me:pw@host/x?sig=abc with {token} from /home/alice/x\n/home/bob",
        wait_s=1,
        attempt=1,
        max_attempts=5,
    )
    kept = entry((*DOWNLOADING, (13.0, retry))).retries[-1]
    assert kept.reason == "GET https://host/x with *** from ~/x /home/***"


def test_the_last_retries_are_kept_and_all_are_counted() -> None:
    retries = [
        (12.0, Retry(time=60, path=str(n), reason="r", wait_s=0, attempt=1, max_attempts=5))
        for n in range(MAX_RETRIES + 9)
    ]
    kept = entry((*DOWNLOADING, *retries))
    assert kept.retry_count == MAX_RETRIES + 10
    assert [retry.path for retry in kept.retries] == [str(n) for n in range(9, MAX_RETRIES + 9)]


def test_what_is_added_is_read_again_and_the_oldest_go(tmp_path: Path) -> None:
    history = History(tmp_path / "new" / "nbloader")
    assert history.entries() == ()
    assert not history.folder.exists()
    for number in range(MAX_JOBS + 3):
        history.add(named(number))
    assert history.entries() == tuple(named(number) for number in range(3, MAX_JOBS + 3))
    assert sorted(path.name for path in history.folder.iterdir()) == ["jobs.jsonl", "jobs.lock"]


@given(jobs)
def test_any_job_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, Event]]
) -> None:
    kept = entry(steps)
    history = History(tmp_path_factory.mktemp("history"))
    history.add(kept)
    assert history.entries() == (kept,)


def lines_of(history: History) -> list[dict[str, object]]:
    return [json.loads(line) for line in history.path.read_text("utf-8").splitlines()]


def hostile() -> list[bytes]:
    """Lines that are no job, each nearly one."""
    history_line = {
        "format": 1,
        **{name: getattr(LOADED_ENTRY, name) for name in LOADED_ENTRY.__slots__},
        "retries": [],
    }
    changes: list[dict[str, object]] = [
        {"format": 2},
        {"repo_id": 3},
        {"repo_id": "x" * 10_000},
        {"repo_id": "\x1b[2J"},
        {"seconds": -1},
        {"fetched": 10**40},
        {"retries": [{"time": "x"}]},
        {"stages": [["connect"]]},
        {"stages": [["connect", 1.0]] * 1_000},
        {"versions": {"a": {"b": {"c": {"d": {"e": {}}}}}}},
        {"notices": "text"},
        {"device": 3},
        {"device": "x" * 400},
        {"plan": ["gpu"]},
        {"build_s": -1.0},
        {"build_s": "soon"},
        {"import_s": 10**40},
    ]
    lines = [json.dumps(history_line | change).encode() for change in changes]
    lines.append(json.dumps(history_line).replace("24.0", "NaN").encode())
    lines.append(json.dumps(history_line).replace("24.0", "1e999").encode())
    lines += [b"", b"\xff\xfe\x00", b"null", b"[" * 100_000, b"{}", b'{"format": 1}', b"1" * 5_000]
    return lines


def test_what_is_no_job_is_skipped(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(named(1))
    good = history.path.read_bytes()
    history.path.write_bytes(b"\n".join([*hostile(), good, *hostile()]))
    assert history.entries() == (named(1),)
    history.add(named(2))
    assert history.entries() == (named(1), named(2))
    assert len(lines_of(history)) == 2


@given(st.binary(max_size=2_000))
def test_any_bytes_are_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    history = History(tmp_path_factory.mktemp("history"))
    history.path.write_bytes(content)
    assert history.entries() == ()


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(named(1))
    good = history.path.read_bytes()
    with history.path.open("wb") as file:
        file.truncate(10_000_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + good)
    assert history.entries() == (named(1),)
    history.add(named(2))
    assert history.path.stat().st_size < 10_000


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    history = History(tmp_path / "a")
    history.folder.mkdir()
    os.mkfifo(history.path)
    assert history.entries() == ()
    history.add(named(1))
    assert history.entries() == (named(1),)
    history.path.unlink()
    history.path.symlink_to("/dev/zero")
    assert history.entries() == ()
    history.path.unlink()
    history.path.mkdir()
    assert history.entries() == ()


@pytest.mark.parametrize(
    "in_the_way", ["nbloader", "nbloader/jobs.lock/x", "nbloader/jobs.jsonl/x"]
)
def test_a_job_does_not_fail_with_its_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_the_way: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    path = tmp_path / in_the_way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    remember(last_state(LOADED))
    assert [each for each in path.parent.iterdir() if each.name.startswith(".jobs")] == []


def test_a_job_is_remembered_in_the_hubs_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    history = History(tmp_path / "nbloader")
    remember(last_state(DOWNLOADING))  # It still runs.
    assert history.entries() == ()
    remember(last_state(BROKEN))
    (kept,) = history.entries()
    assert (kept.repo_id, kept.reference, kept.versions["torch"]) == (
        "org/name",
        "disk-full",
        "2.13.0",
    )


def test_several_processes_lose_no_job(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from nbloader.history import History\n"
        "from tests.test_history import named\n"
        "history = History(Path(sys.argv[1]))\n"
        "sys.stdin.readline()\n"
        "for number in range(5): history.add(named(int(sys.argv[2]) * 100 + number))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(number)], stdin=subprocess.PIPE
        )
        for number in range(3)
    ]
    for process in processes:
        process.communicate(b"go\n")
    assert [process.returncode for process in processes] == [0, 0, 0]
    found = {kept.repo_id for kept in History(tmp_path).entries()}
    assert found == {f"org/{n * 100 + each}" for n in range(3) for each in range(5)}
