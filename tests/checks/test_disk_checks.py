"""The checks of the cache folder, as somebody sees them who will share what is shown."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from nbloader.assess import gather_joint
from nbloader.checks import Facts, run_checks
from nbloader.checks.files import disk
from nbloader.errors import DiskSpaceError
from nbloader.records import CheckResult, CheckStatus, Component, Selected
from nbloader.request import check_folder
from tests.checks.test_checks import DISK, GOOD, HUB
from tests.samples import MB

HOME = "/home/alice"


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", HOME)


def found(facts: Facts, name: str) -> CheckResult:
    return next(each for each in run_checks(facts) if each.name == name)


def test_folders_are_shown_without_the_name_of_their_user() -> None:
    mine = replace(DISK, folder=f"{HOME}/.cache/huggingface/hub")
    assert found(replace(GOOD, disk=mine), "cache").message == "~/.cache/huggingface/hub"
    refused = found(replace(GOOD, disk=replace(mine, writable=False)), "cache")
    assert refused.message == "the cache folder ~/.cache/huggingface/hub cannot be written"
    full = replace(
        GOOD,
        disk=replace(mine, free=30 * MB),
        bigger_disks=(replace(DISK, folder=f"{HOME}/big"),),
    )
    short = found(full, "disk")
    assert short.message.endswith("30.0 MB available at ~/.cache/huggingface/hub")
    assert "or pass `cache_dir='~/big'`, where " in short.hint
    for result in run_checks(full):
        assert "alice" not in f"{result.message} {result.hint}"


@pytest.mark.parametrize(
    "folder",
    [f"{HOME}/hub", '/mnt/it\'s "so"', "/mnt/a\nb\x1b[31m", "/mnt/\udcff", "/mnt/$(x) {y} \\"],
)
def test_the_call_that_lists_what_can_go_names_the_folder(folder: str) -> None:
    hint = found(replace(GOOD, disk=replace(DISK, folder=folder, free=0)), "disk").hint
    call = hint.partition("(`nbloader.")[2].partition("` shows what can go)")[0]
    assert "".join(call).isprintable()
    ((argument,),) = [node.keywords for node in ast.walk(ast.parse(call)) if type(node) is ast.Call]
    assert argument.arg == "cache_dir"
    assert check_folder("cache_dir", ast.literal_eval(argument.value)) == folder


def test_space_that_a_setting_asks_for_is_told_as_such() -> None:
    asked = replace(GOOD, required_disk_bytes=60_000 * MB)
    assert found(asked, "disk").message == (
        "not enough disk space: 60.0 GB required (asked for by required_disk_space_gb), "
        "50.0 GB available at /cache"
    )
    assert "asked for" not in found(GOOD, "disk").message


def test_a_disk_that_cannot_be_asked_is_told() -> None:
    facts = replace(GOOD, disk=None, hub=replace(HUB, cache_dir=f"{HOME}/hub"))
    for name in ("cache", "disk"):
        result = found(facts, name)
        assert (result.status, result.message) == (
            CheckStatus.SKIPPED,
            "the file system of ~/hub cannot be asked",
        )
    assert found(replace(facts, hub=None), "disk").message == "the folder is not known"


# -- weights that go once they are loaded ----------------------------------------------------------

WEIGHTS = frozenset({"transformer/model.safetensors", "vae/model.safetensors"})
GOING = replace(GOOD, passes=True, passing=WEIGHTS)
"""100 MB, of which 80 are needed at a time, with 2 kB of other files and 4.2 MB to spare."""

FREE = (
    "Free {} there (`nbloader.cache(cache_dir='/cache')` shows what can go), or pass a folder on "
    "another disk as `cache_dir=`."
)


def with_free(facts: Facts, free: int) -> Facts:
    assert facts.disk is not None
    return replace(facts, disk=replace(facts.disk, free=free))


def failed(message: str, hint: str) -> CheckResult:
    return CheckResult(
        name="disk",
        status=CheckStatus.FAILED,
        message=message,
        hint=hint,
        reference=DiskSpaceError.reference,
        forceable=True,
    )


def passed(message: str) -> CheckResult:
    return CheckResult(name="disk", status=CheckStatus.PASSED, message=message)


TEXTS = {
    "enough for one at a time": (
        with_free(GOING, 85 * MB),
        passed(
            "84.2 MB required at a time for 100 MB in all, as weights are not kept, "
            "85.0 MB available at /cache"
        ),
    ),
    "enough for everything": (
        GOING,
        passed(
            "84.2 MB required at a time for 100 MB in all, as weights are not kept, "
            "50.0 GB available at /cache"
        ),
    ),
    "too little for the largest": (
        with_free(GOING, 80 * MB),
        failed(
            "not enough disk space: 84.2 MB required at a time for 100 MB in all, as weights are "
            "not kept, 80.0 MB available at /cache",
            FREE.format("4.2 MB"),
        ),
    ),
    "one is there, and goes first": (
        with_free(replace(GOING, cached=frozenset({"vae/model.safetensors"})), 65 * MB),
        passed(
            "64.2 MB required at a time for 80.0 MB in all, as weights are not kept, "
            "65.0 MB available at /cache"
        ),
    ),
    "it would help, and is not asked for": (
        with_free(replace(GOOD, passing=WEIGHTS), 85 * MB),
        failed(
            "not enough disk space: 100 MB required, 85.0 MB available at /cache",
            FREE.format("15.0 MB")
            + " Or pass `keep_files=False`, which needs 84.2 MB at a time: weights are deleted "
            "once they are loaded, and the next load downloads them again.",
        ),
    ),
    "it would not help": (
        with_free(replace(GOOD, passing=WEIGHTS), 80 * MB),
        failed(
            "not enough disk space: 100 MB required, 80.0 MB available at /cache",
            FREE.format("20.0 MB"),
        ),
    ),
    "it cannot be, and is asked for": (
        with_free(replace(GOOD, passes=True, stays="it comes from a single file"), 80 * MB),
        failed(
            "not enough disk space: 100 MB required, 80.0 MB available at /cache",
            FREE.format("20.0 MB")
            + " keep_files=False does not help here: it comes from a single file.",
        ),
    ),
    "it cannot be, and is not asked for": (
        with_free(replace(GOOD, stays="it comes from a single file"), 80 * MB),
        failed(
            "not enough disk space: 100 MB required, 80.0 MB available at /cache",
            FREE.format("20.0 MB"),
        ),
    ),
    "it cannot be, and need not": (
        replace(GOOD, passes=True, stays="it comes from a single file"),
        passed(
            "100 MB required, 50.0 GB available at /cache; all files are kept: it comes from a "
            "single file"
        ),
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_what_is_said_of_weights_that_go(case: str) -> None:
    facts, expected = TEXTS[case]
    assert found(facts, "disk") == expected


def test_a_disk_that_would_be_almost_full_is_told_though_nothing_goes() -> None:
    facts = with_free(replace(GOOD, passes=True, stays="it comes from a single file"), 200 * MB)
    result = found(facts, "disk")
    assert result.status is CheckStatus.WARNING
    assert result.hint == (
        "Free some space there, or pass a folder on another disk as `cache_dir=`. "
        "keep_files=False does not help here: it comes from a single file."
    )


def test_of_several_repositories_the_largest_file_has_to_have_room() -> None:
    """Though their files have the same names."""
    assert GOOD.selection is not None
    parts = [
        (f"org/{name}", tuple(replace(file, etag=name * 64) for file in GOOD.selection.files))
        for name in ("a", "b")
    ]
    every = [
        replace(GOING, repo_id=repo_id, selection=replace(GOOD.selection, files=files))
        for repo_id, files in parts
    ]
    joint = Selected(
        selection=replace(
            GOOD.selection,
            files=tuple(
                replace(file, path=f"{repo_id}:{file.path}", etag=f"{repo_id}{file.path}")
                for repo_id, files in parts
                for file in files
            ),
            components=tuple(Component(name=repo_id, paths=()) for repo_id, _ in parts),
        )
    )
    assert disk(gather_joint(every, joint)).message == (
        "84.2 MB required at a time for 200 MB in all, as weights are not kept, "
        "50.0 GB available at /cache"
    )


def test_a_cache_that_every_user_may_write_to_is_told() -> None:
    shared = replace(DISK, folder=f"{HOME}/my hub", open_to_all=True)
    told = found(replace(GOOD, disk=shared), "cache")
    assert told.status is CheckStatus.WARNING
    assert told.message == "every user of this machine may write to ~/my hub"
    assert "chmod o-w ~/'my hub'" in told.hint
    assert "`verify=True`" in told.hint
