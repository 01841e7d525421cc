"""Which cases are run, and where their outcomes go."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TypeVar

import pytest

from nbloader.localhub import LocalHub
from tests.differential import cases
from tests.differential.harness import Case, Outcome, TrialHere, check
from tests.differential.idioms import Idiom, idioms

Chosen = TypeVar("Chosen", Case, Idiom)

SAMPLED = 10
"""One case of so many is run where not all are asked for."""


def all_cases() -> list[Case]:
    """Return the cases of every module of `cases`, sorted."""
    names = sorted(module.name for module in iter_modules(cases.__path__))
    modules = [import_module(f"{cases.__name__}.{name}") for name in names]
    found = [case for module in modules for case in getattr(module, "CASES", ())]
    return sorted(found, key=lambda case: case.id)


def chosen(found: list[Chosen], which: str) -> list[Chosen]:
    """Return all cases, a sample, those for the oldest versions, or one part of several (`2/3`).

    The same of the rows of the page of idioms; none of them is for the oldest versions.
    """
    if which == "all":
        return found
    if which == "oldest":
        return [case for case in found if getattr(case, "oldest", False)]
    if which == "sample":
        return [case for case in found if zlib.crc32(case.id.encode()) % SAMPLED == 0]
    part, _, parts = which.partition("/")
    return found[int(part) - 1 :: int(parts)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a `case`, or an `idiom`, with each that is chosen."""
    if "case" in metafunc.fixturenames:
        found = chosen(all_cases(), metafunc.config.getoption("models"))
        metafunc.parametrize("case", found, ids=[case.id for case in found])
    if "idiom" in metafunc.fixturenames:
        rows = chosen(idioms(), metafunc.config.getoption("models"))
        metafunc.parametrize("idiom", rows, ids=[row.id for row in rows])


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Iterator[list[Outcome]]:
    """Gather what came of the cases, for the file that `--outcomes` names."""
    found: list[Outcome] = []
    yield found
    if target := request.config.getoption("outcomes"):
        Path(target).write_text(json.dumps([asdict(outcome) for outcome in found]), "utf-8")


@pytest.fixture
def checked(
    hub: LocalHub,
    hub_root: Path,
    tmp_path: Path,
    outcomes: list[Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Case], Outcome]:
    """Do with a case what `check` does, and keep the outcome."""
    monkeypatch.setattr("nbloader.trial.Trial", TrialHere)

    def run(case: Case) -> Outcome:
        outcome = check(case, hub, hub_root, tmp_path / "cache")
        outcomes.append(outcome)
        return outcome

    return run
