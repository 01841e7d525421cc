"""Weights that are read straight to where they stay make what the library's own call makes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nbloader.loaders import Direct
from nbloader.localhub import LocalHub
from nbloader.records import Notice
from tests.differential.harness import Case, TrialHere, check
from tests.straight import straight_on_the_cpu

_NO_FAULT = re.compile(
    r"The library itself has read the weights: (the caller gives \w+"
    r"|it is built by code of its repository|it comes from a single file"
    r"|.* is not in safetensors|the weights of \w+ are quantized)"
)


def test_it_is_what_the_library_makes_of_it(
    case: Case,
    hub: LocalHub,
    hub_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if case.plain is None:
        pytest.skip("nothing is loaded")
    monkeypatch.setattr("nbloader.trial.Trial", TrialHere)
    straight_on_the_cpu(monkeypatch)
    told: list[str] = []
    notice = Direct.notice

    def noting(self: Direct) -> Notice | None:
        if (found := notice(self)) is not None:
            told.append(found.message)
        return found

    monkeypatch.setattr(Direct, "notice", noting)
    found = list(check(case, hub, hub_root, tmp_path / "cache").differences)
    found += [message for message in told if not _NO_FAULT.fullmatch(message)]
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_it_is_that_where_each_file_goes_once_it_is_read(
    case: Case,
    hub: LocalHub,
    hub_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if case.plain is None or case.arguments.get("replace"):
        pytest.skip("nothing is loaded, or only once all files are there")
    monkeypatch.setattr("nbloader.trial.Trial", TrialHere)
    passing = replace(case, arguments={**case.arguments, "keep_files": False})
    if found := check(passing, hub, hub_root, tmp_path / "cache").differences:
        pytest.fail("\n".join(found), pytrace=False)
