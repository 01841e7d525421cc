"""Several repositories in one call: checked together, counted once, fetched once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

import nbloader
from nbloader.checks import Facts, JointReport
from nbloader.errors import DiskSpaceError, InvalidArgumentError, PreflightError, RepoNotFoundError
from nbloader.hub_cache.partial import JOURNAL_EVERY_BYTES
from nbloader.localhub import LocalHub
from nbloader.records import (
    CheckStatus,
    DiskFacts,
    Event,
    FileDone,
    HubFacts,
    Kind,
    Ready,
    RepoFile,
    Selected,
    Selection,
    Stage,
    StageStarted,
)
from nbloader.request import Call, checked
from nbloader.selection import FIRST_READ_BYTES
from nbloader.stages.several import Found, joined, joint_report, labels
from nbloader.state import JobState, apply
from tests.conftest import WriteRepo
from tests.gguf_files import gguf_file
from tests.transfer.test_transfer import files, weights

SHARED = weights(3_000_000, seed=11)
ONE = {**files(1000), "model.safetensors": SHARED}
OTHER = {**files(1000), "config.json": b'{"model_type": "bert"}', "model.safetensors": SHARED}


HEADER = FIRST_READ_BYTES + 1000
"""What is read of a file of weights before it is fetched, with a small file beside it."""


def served(hub: LocalHub) -> int:
    return hub.counters().file_bytes


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def two(hub: LocalHub, hub_root: Path, write_repo: WriteRepo) -> list[str]:
    write_repo(hub_root, "org/first-of-several", ONE)
    write_repo(hub_root, "org/second-of-several", OTHER)
    hub.reset_counters()
    return ["org/first-of-several", "org/second-of-several"]


def arguments(hub: LocalHub, cache: Path, **more: Any) -> dict[str, Any]:
    return {"endpoint": hub.endpoint, "token": False, "cache_dir": cache, **more}


def test_what_two_repositories_have_comes_once(
    hub: LocalHub, two: list[str], tmp_path: Path
) -> None:
    events: list[Event] = []
    where = arguments(hub, tmp_path)
    folders = nbloader.download(two, view="none", on_event=events.append, **where)
    assert [contents(folder) for folder in folders] == [ONE, OTHER]
    small = len(ONE["config.json"]) + len(OTHER["config.json"])
    assert len(SHARED) <= served(hub) - small <= len(SHARED) + 4 * HEADER
    first, second = ((folder / "model.safetensors").resolve(strict=True) for folder in folders)
    assert (first.parent != second.parent, first.stat().st_ino) == (True, second.stat().st_ino)

    # One job, in which each repository is a part.
    state = JobState(repo_id="", started_at=0.0, updated_at=0.0)
    for event in events:
        state = apply(state, event, 1.0)
    assert [part.name for part in state.components] == two
    assert state.total == 2 * len(SHARED) + small
    assert state.to_fetch == state.fetched <= len(SHARED) + small
    assert [event.stage for event in events if isinstance(event, StageStarted)] == [
        Stage.CONNECT,
        Stage.SET_UP,
        Stage.DOWNLOAD,
        Stage.FINISH,
    ]
    assert {event.path for event in events if isinstance(event, FileDone)} == {
        f"{repo_id}:{name}" for repo_id in two for name in ONE
    }
    assert isinstance(events[-1], Ready)

    # The Hub's own tools find the same.
    assert not scan_cache_dir(tmp_path).warnings
    before = served(hub)
    for repo_id, folder in zip(two, folders, strict=True):
        found = snapshot_download(repo_id, allow_patterns=list(ONE), **where)
        assert Path(found) == folder
    assert nbloader.download(tuple(reversed(two)), view="none", **where) == folders[::-1]
    assert served(hub) == before


def test_what_a_later_one_has_in_the_cache_is_not_fetched_for_the_first(
    hub: LocalHub, two: list[str], tmp_path: Path
) -> None:
    where = arguments(hub, tmp_path, view="none")
    nbloader.download(two[1], **where)
    before = served(hub)
    nbloader.download(two, **where)
    assert served(hub) - before <= len(ONE["config.json"]) + 2 * HEADER


def test_two_revisions_of_one_repository_share_what_has_not_changed(
    hub: LocalHub, hub_root: Path, write_repo: WriteRepo, tmp_path: Path
) -> None:
    repo_id = "org/revisions-of-several"
    write_repo(hub_root, repo_id, ONE)
    hub.set_ref(repo_id, "v1", kind="tag")
    write_repo(hub_root, repo_id, OTHER)
    hub.reset_counters()
    where = arguments(hub, tmp_path, view="none")
    ids = [f"{repo_id}@v1", repo_id, f"{repo_id}@v1"]
    first, second, again = nbloader.download(ids, **where)
    assert (contents(first), contents(second), again) == (ONE, OTHER, first)
    assert served(hub) < len(SHARED) + 4 * HEADER


def test_files_of_several_datasets_are_chosen_by_the_same_patterns(
    hub: LocalHub, hub_root: Path, write_repo: WriteRepo, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_repo(hub_root, f"datasets/org/{name}-of-several", {"x.csv": b"1", "y.bin": b"2"})
    ids = ["org/a-of-several", "org/b-of-several"]
    where = arguments(hub, tmp_path, view="none", repo_type="dataset")
    folders = nbloader.download(ids, allow_patterns="*.csv", **where)
    assert [contents(folder) for folder in folders] == [{"x.csv": b"1"}] * 2
    assert nbloader.download(ids, filename="y.bin", **where)[1].read_bytes() == b"2"


def test_two_files_of_one_repository_are_two(
    hub: LocalHub, hub_root: Path, write_repo: WriteRepo, tmp_path: Path
) -> None:
    write_repo(hub_root, "datasets/org/files-of-several", {"x.csv": b"1", "y.csv": b"2"})
    page = f"{hub.endpoint}/datasets/org/files-of-several/blob/main/"
    where = arguments(hub, tmp_path, view="none", repo_type="dataset")
    paths = nbloader.download([f"{page}x.csv", f"{page}y.csv", f"{page}x.csv"], **where)
    assert [path.read_bytes() for path in paths] == [b"1", b"2", b"1"]


def test_two_checkpoints_of_one_repository_have_two_reports(
    hub: LocalHub, hub_root: Path, write_repo: WriteRepo, tmp_path: Path
) -> None:
    small = gguf_file({"general.architecture": "clip"}, {"a": ("F32", (4, 4), None)})
    other = gguf_file({"general.architecture": "bert"}, {"a": ("F32", (4, 4), None)})
    write_repo(hub_root, "org/ggufs-of-several", {"a.gguf": small, "b.gguf": other})
    ids = [f"org/ggufs-of-several/{name}.gguf" for name in "ab"]
    report = nbloader.preflight(ids, **arguments(hub, tmp_path))
    told = [next(each.message for each in one.results if each.name == "files") for one in report]
    assert ["'a.gguf'" in told[0], "'b.gguf'" in told[1]] == [True, True]


def test_one_that_is_not_there_ends_all_before_a_weight(
    hub: LocalHub, two: list[str], tmp_path: Path
) -> None:
    where = arguments(hub, tmp_path, view="none", allow_patterns="*")
    with pytest.raises(RepoNotFoundError, match="org/no-such-repo"):
        nbloader.download([two[0], "org/no-such-repo"], **where)
    with pytest.raises(PreflightError) as caught:
        nbloader.download(["org/no-such-repo", two[0], "org/nor-this"], **where)
    assert "org/no-such-repo" in caught.value.message
    assert "org/nor-this" in caught.value.message
    assert served(hub) == 0


@pytest.mark.parametrize(
    ("ids", "more", "words"),
    [
        ([], {}, "empty list"),
        (["org/name"], {"local_dir": "here"}, "local_dir= is one folder"),
        (["org/name", 3], {}, "3"),
        (["org/name", "no id at all"], {}, "no id at all"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(
    ids: list[str], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=r"id|folder") as caught:
        nbloader.download(ids, view="none", **more)
    assert words in str(caught.value)


def test_a_report_over_all_has_that_of_each(hub: LocalHub, two: list[str], tmp_path: Path) -> None:
    report = nbloader.preflight([*two, "org/no-such-repo"], **arguments(hub, tmp_path))
    assert [each.repo_id for each in report] == [*two, "org/no-such-repo"]
    assert (len(report), report[0].repo_id) == (3, two[0])
    small = len(ONE["config.json"]) + len(OTHER["config.json"])
    assert (report.missing_bytes, report.shared_bytes) == (len(SHARED) + small, len(SHARED))
    assert not report.ok
    # The weights are of no model: the trial of each build finds that, too.
    assert {each.reference for each in report.failures} == {"missing-tensors", "repo-not-found"}
    with pytest.raises(PreflightError) as caught:
        report.raise_for_failures()
    assert all(repo_id in caught.value.message for repo_id in (*two, "org/no-such-repo"))
    text, markup = str(report), report._repr_html_()
    told = json.loads(json.dumps(report.to_json()))
    assert (told["ok"], told["shared_bytes"]) == (False, len(SHARED))
    assert [each["repo_id"] for each in told["repositories"]] == [each.repo_id for each in report]
    for each in report:
        for form in (text, markup):
            assert each.repo_id in form
    assert text.startswith("✗ 3 repositories cannot be loaded here\n")
    for each in report:
        assert f"✗ {each.repo_id} " in text
    assert served(hub) < 10 * HEADER


class _Stop(Exception):  # noqa: N818 - what a caller's own function raises
    pass


@pytest.mark.parametrize("kind", [StageStarted, Selected, FileDone])
def test_it_stops_where_the_caller_stops_it_and_goes_on_from_there(
    hub: LocalHub, two: list[str], tmp_path: Path, kind: type[Event]
) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, kind):
            raise _Stop

    where = arguments(hub, tmp_path, view="none")
    with pytest.raises(_Stop):
        nbloader.download(two, on_event=listen, **where)
    folders = nbloader.download(two, **where)
    assert [contents(folder) for folder in folders] == [ONE, OTHER]
    assert served(hub) < len(SHARED) + 10 * HEADER + JOURNAL_EVERY_BYTES * 16


# -- the same, without a Hub -----------------------------------------------------------------------

_DISK = DiskFacts(folder="/cache", free=250, total=10_000, writable=True)
_HUB = HubFacts(endpoint="https://huggingface.co", cache_dir="/cache", answer_s=0.1)


def found(repo_id: str, sizes: Mapping[str, int], **more: Any) -> Found:
    """A repository of which each file has its name as etag."""
    listed = tuple(
        RepoFile(path=path, size=size, etag=path) for path, size in sorted(sizes.items())
    )
    request = checked(Call(repo_id))
    selection = Selection(
        repo_id=request.repo_id,
        revision=request.revision,
        commit_hash="c" * 40,
        kind=Kind.FILES,
        class_name=None,
        components=(),
        files=listed,
    )
    selected = Selected(selection=selection, hub=_HUB, **more)
    return Found(request=request, label=repo_id, selected=selected)


def report_of(*every: Found) -> JointReport:
    facts = []
    for one in every:
        assert one.selected is not None
        facts.append(
            Facts(
                repo_id=one.request.repo_id,
                loads=False,
                hub=_HUB,
                selection=one.selected.selection,
                cached=frozenset(one.selected.cached),
                partial=one.selected.partial,
                disk=_DISK,
            )
        )
    return joint_report(facts, joined(every))


def test_the_disk_has_to_have_room_for_the_sum() -> None:
    ids = ["org/a", "org/b", "org/c"]
    fits = report_of(*(found(each, {each: 80}) for each in ids))
    assert (fits.ok, fits.missing_bytes, fits.shared_bytes) == (True, 240, 0)
    too_much = report_of(*(found(each, {each: 90}) for each in ids))
    assert (too_much.missing_bytes, len(too_much.failures)) == (270, 1)
    for report in too_much:
        assert [each.name for each in report.failures] == ["disk"]
    with pytest.raises(DiskSpaceError, match="270 B required, 250 B available"):
        too_much.raise_for_failures()
    too_much.raise_for_failures(force=True)
    (disk,) = [each for each in too_much.results if each.name == "disk"]
    assert disk.status is CheckStatus.FAILED
    # What all have in common is told once, and first.
    assert str(too_much).startswith(f"✗ 3 repositories cannot be loaded here: {disk.message}")
    for form in (str(too_much), too_much._repr_html_()):
        assert form.count(disk.message) == 1


def test_what_is_shared_takes_the_disk_once_whoever_has_it() -> None:
    shared = {"t5": 200}
    assert report_of(found("org/a", shared), found("org/b", shared)).missing_bytes == 200
    with_more = report_of(
        found("org/a", {**shared, "a": 10}, partial={"t5": 150}),
        found("org/b", {**shared, "b": 20}),
    )
    assert (with_more.missing_bytes, with_more.shared_bytes) == (80, 200)
    cached = report_of(found("org/a", {**shared, "a": 10}), found("org/b", shared, cached=("t5",)))
    assert (cached.missing_bytes, cached.shared_bytes) == (10, 200)


def test_repositories_are_told_apart_by_their_revisions_where_that_is_needed() -> None:
    requests = [checked(Call(each)) for each in ("org/a@v1", "org/a", "org/b")]
    assert labels(requests) == ["org/a@v1", "org/a@main", "org/b"]
    files = [checked(Call(each)) for each in ("org/a/x.gguf", "org/a@v1/y.gguf", "org/b/x.gguf")]
    assert labels(files) == ["org/a@main/x.gguf", "org/a@v1/y.gguf", "org/b"]


def test_nothing_is_joined_of_nothing() -> None:
    one = Found(
        request=checked(Call("org/a")), label="org/a", problem=InvalidArgumentError("x", hint="y")
    )
    assert joined([one]) is None
