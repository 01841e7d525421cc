"""The checks of files that go into a folder of the user's own, or are copied on this machine."""

from __future__ import annotations

from typing import Any

from nbloader.checks import Facts, run_checks
from nbloader.records import (
    CheckResult,
    CheckStatus,
    DiskFacts,
    HubFacts,
    Kind,
    RepoFile,
    RepoType,
    Selection,
)

FILES = (
    RepoFile(path="a.bin", size=3_000_000_000, etag="a" * 64, lfs=True),
    RepoFile(path="b.bin", size=2_000_000_000, etag="b" * 64, lfs=True),
)
SELECTION = Selection(
    repo_id="org/name",
    revision="main",
    commit_hash="c" * 40,
    kind=Kind.FILES,
    class_name=None,
    components=(),
    files=FILES,
)


def checked(
    *, free: int = 100_000_000_000, local: bool = True, **more: Any
) -> dict[str, CheckResult]:
    folder = "/data/here" if local else "/cache"
    facts = Facts(
        repo_id="org/name",
        loads=False,
        selection=SELECTION,
        hub=HubFacts(
            endpoint="https://huggingface.co", cache_dir=folder, local=local, answer_s=0.1
        ),
        disk=DiskFacts(folder=folder, free=free, total=10**12, writable=more.pop("writable", True)),
        **more,
    )
    return {result.name: result for result in run_checks(facts)}


def test_files_alone_are_named_without_a_kind() -> None:
    assert checked()["files"].message == "2 files, 5.0 GB to download"


def test_what_is_copied_is_no_download_and_takes_room() -> None:
    results = checked(copied={"a.bin": 3_000_000_000})
    assert results["files"].message == "2 files, 2.0 of 5.0 GB to download"
    assert results["disk"].message.startswith("5.0 GB required, 100 GB available")
    full = checked(copied={"a.bin": 3_000_000_000}, free=4_000_000_000)["disk"]
    assert (full.status, full.message.split(",")[0]) == (
        CheckStatus.FAILED,
        "not enough disk space: 5.0 GB required",
    )


def test_a_second_link_takes_none() -> None:
    results = checked(local=False, copied={"a.bin": 0, "b.bin": 0}, free=0)
    assert results["disk"].status is CheckStatus.PASSED


def test_hints_name_the_argument_that_the_folder_came_with() -> None:
    full = {local: checked(local=local, free=0)["disk"].hint for local in (True, False)}
    assert ("local_dir=" in full[True], "cache_dir" in full[True]) == (True, False)
    assert ("local_dir=" in full[False], "cache_dir=" in full[False]) == (False, True)
    closed = checked(writable=False)["cache"]
    assert (closed.status, closed.hint) == (
        CheckStatus.FAILED,
        "Pass another one as `local_dir=`.",
    )


def test_the_page_of_a_dataset_is_linked() -> None:
    from nbloader.errors import GatedRepoError

    facts = Facts(
        repo_id="org/name",
        repo_type=RepoType.DATASET,
        problem=GatedRepoError("org/name is gated", hint="Accept its conditions."),
    )
    (access,) = [each for each in run_checks(facts) if each.name == "access"]
    assert access.link == "https://huggingface.co/datasets/org/name"
