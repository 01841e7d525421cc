"""The report of a preflight about other machines than the one that it was made on."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

import nbloader
from nbloader import PreflightReport
from nbloader.errors import DiskSpaceError, InvalidArgumentError
from nbloader.fit import fit
from nbloader.localhub import LocalHub
from nbloader.localhub.demo import MINILM
from nbloader.records import DiskFacts
from tests.fit.machines import MACHINES

DISK = DiskFacts(folder="/there", free=50_000_000, total=10**9, writable=True)


@pytest.fixture
def report(demo_hub: LocalHub, tmp_path: Path) -> PreflightReport:
    """Of a model that is in the cache of this machine."""
    nbloader.download(MINILM, endpoint=demo_hub.endpoint, cache_dir=tmp_path, view="none")
    return nbloader.preflight(MINILM, endpoint=demo_hub.endpoint, cache_dir=tmp_path)


def test_the_plan_is_the_one_of_that_machine_and_nobody_is_asked(
    report: PreflightReport, demo_hub: LocalHub
) -> None:
    asked = demo_hub.counters()
    assert report.selection is not None
    assert report.machine is not None
    assert report.missing_bytes == 0
    for machine in MACHINES.values():
        there = report.on(machine)
        packages = {**report.machine.packages, **machine.packages}
        facts = replace(machine, packages=packages)
        assert there.machine == facts
        assert there.fit == fit(report.selection, report.weights, facts)
        assert there.missing_bytes == report.selection.total
        assert (there.selection, there.weights) == (report.selection, report.weights)
        assert there.disk == report.disk
        assert "trial" not in [each.name for each in there.results]
    assert demo_hub.counters() == asked


def test_a_machine_is_as_good_to_ask_about_another(report: PreflightReport) -> None:
    first, second = MACHINES["Colab T4"], MACHINES["L4"]
    assert report.on(first).on(second) == report.on(second)


def test_the_disk_may_be_another_too(report: PreflightReport) -> None:
    there = report.on(MACHINES["L4"], disk=DISK)
    assert there.disk == DISK
    with pytest.raises(DiskSpaceError, match=r"91\.6 MB required, 50\.0 MB available at /there"):
        there.raise_for_failures()


def test_what_is_not_known_cannot_be_judged(
    report: PreflightReport, demo_hub: LocalHub, tmp_path: Path
) -> None:
    kept = pickle.loads(pickle.dumps(report.on(MACHINES["L4"])))
    missing = nbloader.preflight("no/such", endpoint=demo_hub.endpoint, cache_dir=tmp_path)
    for one in (kept, missing):
        with pytest.raises(InvalidArgumentError, match="is not known to this report"):
            one.on(MACHINES["L4"])
