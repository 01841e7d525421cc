"""Servers that change a file in the middle, or send no parts of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbloader.errors import DownloadError
from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from tests.faults.repos import ONE, SIZES
from tests.faults.runs import BODY, check_kept, check_right, check_stopped, download

CDN = BODY["http"]
OTHER = "0" * 64
OTHER_VERSION = "the server has another version of the file"


def test_an_etag_that_changes_between_attempts(hub: LocalHub, tmp_path: Path) -> None:
    faults = [
        Fault(CDN, cut=Cut.RESET, after_bytes=1_000_000, times=3),
        Fault(CDN, etag=OTHER, skip=3),
    ]
    run = download(hub, ONE, tmp_path, faults, route="http")
    check_right(run)
    assert OTHER_VERSION in run.reasons


def test_a_hub_that_has_another_version_for_a_moment(hub: LocalHub, tmp_path: Path) -> None:
    fault = Fault(RequestClass.RESOLVE_GET, etag=OTHER, path="*.bin", times=1)
    run = download(hub, ONE, tmp_path, [fault], route="http")
    check_right(run)
    assert run.reasons == [OTHER_VERSION]


def test_a_hub_that_has_another_version_for_good(hub: LocalHub, tmp_path: Path) -> None:
    fault = Fault(RequestClass.RESOLVE_GET, etag=OTHER, path="*.bin")
    run = download(hub, ONE, tmp_path, [fault], route="http", max_retries=2)
    check_stopped(run, DownloadError, "one.bin", OTHER_VERSION)
    check_kept(hub, run, tmp_path, route="http")


@pytest.mark.parametrize("times", [1, None])
def test_every_size_gets_there_without_ranges(
    hub: LocalHub, tmp_path: Path, times: int | None
) -> None:
    run = download(hub, SIZES, tmp_path, [Fault(CDN, ignore_range=True, times=times)], route="http")
    check_right(run)


def test_a_whole_file_goes_on_after_a_break(hub: LocalHub, tmp_path: Path) -> None:
    faults = [
        Fault(CDN, ignore_range=True),
        Fault(CDN, cut=Cut.RESET, after_bytes=20_000_000, times=3),
    ]
    run = download(hub, ONE, tmp_path, faults, route="http")
    check_right(run)
    assert "connection lost (ConnectionResetError)" in run.reasons


@pytest.mark.parametrize("times", [1, 2])
def test_xet_storage_that_sends_whole_xorbs_at_first(
    hub: LocalHub, tmp_path: Path, times: int
) -> None:
    fault = Fault(BODY["xet"], ignore_range=True, times=times)
    run = download(hub, ONE, tmp_path, [fault], route="xet")
    check_right(run)
