"""The checks of the cache folder, as somebody sees them who will share what is shown."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from nbloader.checks import Facts, run_checks
from nbloader.records import CheckResult, CheckStatus
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
    assert found(replace(facts, hub=None), "disk").message == "not checked"
