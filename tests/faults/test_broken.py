"""Connections that break, and answers that are errors."""

from __future__ import annotations

import email.utils
import time
from pathlib import Path

import pytest

from nbloader.errors import DownloadError
from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.records import FileDone, FileProgress, Retry, Route
from tests.faults.repos import LARGE, ONE, SIZES, SMALL, Repo
from tests.faults.runs import BODY, BOTH, Run, check_kept, check_right, check_stopped, download

RESOLVE = RequestClass.RESOLVE_GET
XORB = RequestClass.XET_XORB
RECONSTRUCTION = RequestClass.XET_RECONSTRUCTION

BROKEN = [Cut.DROP, Cut.RESET]

NOT_ALL_AT_ONCE = Fault(BODY["http"], total_bytes_per_second=100_000_000)
"""Without it all of a file may be on its way before the speed of HTTP is known, and Xet tried."""


def name(value: object) -> str | None:
    """Name a case by what its fault does."""
    if not isinstance(value, Fault):
        return None
    what = value.status or value.cut or ("expired" if value.expired else "redirect")
    return f"{value.request_class}-{what}"


@pytest.mark.parametrize("cut", BROKEN)
def test_a_link_that_breaks_every_9_mb_gets_there(hub: LocalHub, tmp_path: Path, cut: Cut) -> None:
    fault = Fault(BODY["http"], cut=cut, after_bytes=9_000_000)
    run = download(hub, LARGE, tmp_path, [fault], route="http")
    check_right(run)
    assert run.retries
    # An attempt that brought bytes counts for nothing.
    assert {retry.attempt for retry in run.retries} == {0}
    assert run.served <= 1.02 * LARGE.total


@pytest.mark.parametrize("cut", [*BROKEN, Cut.TRUNCATE])
def test_every_size_gets_there_over_http_that_always_breaks(
    hub: LocalHub, tmp_path: Path, cut: Cut
) -> None:
    fault = Fault(BODY["http"], cut=cut, after_bytes=900_000)
    run = download(hub, SIZES, tmp_path, [fault], route="http")
    check_right(run)
    assert run.served <= 1.05 * SIZES.total


@pytest.mark.parametrize("cut", [*BROKEN, Cut.TRUNCATE])
def test_every_size_gets_there_over_xet_that_breaks_at_times(
    hub: LocalHub, tmp_path: Path, cut: Cut
) -> None:
    run = download(
        hub, SIZES, tmp_path, [Fault(XORB, cut=cut, after_bytes=300_000, times=4)], route="xet"
    )
    check_right(run)
    assert run.retries


@pytest.mark.parametrize("cut", [*BROKEN, Cut.TRUNCATE])
def test_xet_that_always_breaks_is_an_error(hub: LocalHub, tmp_path: Path, cut: Cut) -> None:
    # A range over Xet is had as a whole or not at all: nothing is gained by 300 kB.
    fault = Fault(XORB, cut=cut, after_bytes=300_000)
    run = download(hub, ONE, tmp_path, [fault], route="xet")
    check_stopped(run, DownloadError, "one.bin", "Xet storage failed", "5 attempts")
    check_kept(hub, run, tmp_path, route="xet")


@pytest.mark.parametrize("route", BOTH)
def test_a_server_that_is_busy_five_times(hub: LocalHub, tmp_path: Path, route: str) -> None:
    run = download(hub, SIZES, tmp_path, [Fault(BODY[route], status=503, times=5)], route=route)
    check_right(run)
    # What hf_xet says of an error does not always hold the status.
    assert set(run.reasons) - {"Xet storage failed (Internal error)"} <= {
        "the server is busy (503)"
    }
    assert run.retries


@pytest.mark.parametrize("route", BOTH)
def test_a_server_that_is_always_busy(hub: LocalHub, tmp_path: Path, route: str) -> None:
    fault = Fault(BODY[route], status=503)
    run = download(hub, SIZES, tmp_path, [fault], route=route, max_retries=3)
    check_stopped(run, DownloadError, "3 attempts")
    assert max(retry.attempt for retry in run.retries) == 2
    check_kept(hub, run, tmp_path, route=route)


@pytest.mark.parametrize(
    ("request_class", "repo"),
    [
        (RequestClass.CDN_GET, SMALL),  # one piece: no other is under way
        (RequestClass.RESOLVE_GET, ONE),
        (RequestClass.XET_TOKEN, ONE),
    ],
    ids=str,
)
def test_no_request_comes_before_the_time_that_the_server_names(
    hub: LocalHub, tmp_path: Path, request_class: RequestClass, repo: Repo
) -> None:
    route = "xet" if request_class is RequestClass.XET_TOKEN else "http"
    path = "*" if request_class is RequestClass.XET_TOKEN else "*.bin"

    def run(retry_after: str) -> Run:
        fault = Fault(request_class, status=429, retry_after=retry_after, times=1, path=path)
        return download(hub, repo, tmp_path / retry_after, [fault], route=route)

    # A date has whole seconds. Each time the next request would have brought bytes at once.
    at = int(time.time()) + 3
    for_date = run(email.utils.formatdate(at, usegmt=True))
    for result, asked in ((for_date, at - for_date.retries[0].time), (run("1"), 1.0)):
        check_right(result)
        assert set(result.reasons) == {"the server asks for fewer requests (429)"}
        assert _first_bytes_after_retry(result) >= asked - 0.05


def _first_bytes_after_retry(run: Run) -> float:
    """Return the seconds from the first retry until bytes of the file came."""
    failed = next(now for now, event in run.events if isinstance(event, Retry))
    return next(
        now - failed
        for now, event in run.events
        if now > failed
        and isinstance(event, FileProgress | FileDone)
        and event.path in run.repo.sizes
    )


def test_xet_storage_that_asks_for_fewer_requests(hub: LocalHub, tmp_path: Path) -> None:
    faults = [Fault(XORB, status=429, retry_after="1", times=3)]
    run = download(hub, SIZES, tmp_path, faults, route="xet")
    check_right(run)
    assert run.retries


FIRST, SECOND, THIRD, FOURTH, FIFTH = (f"*/{path}" for path in sorted(SIZES.sizes)[-5:])


@pytest.mark.parametrize(
    ("faults", "route"),
    [
        pytest.param(
            [
                Fault(BODY["http"], expired=True, times=2, path=FIRST),
                Fault(BODY["http"], redirect=True, times=2, path=SECOND),
                Fault(RESOLVE, redirect=True, times=2, path=THIRD),
                Fault(RESOLVE, status=503, times=2, path=FOURTH),
                Fault(RESOLVE, cut=Cut.RESET, times=2, path=FIFTH),
            ],
            "http",
            id="http",
        ),
        pytest.param(
            [
                Fault(RECONSTRUCTION, expired=True, times=2, path=FIRST),
                Fault(RECONSTRUCTION, redirect=True, times=2, path=SECOND),
                Fault(RECONSTRUCTION, status=503, times=2, path=THIRD),
                Fault(RECONSTRUCTION, cut=Cut.RESET, times=2, path=FOURTH),
            ],
            "xet",
            id="reconstruction",
        ),
        pytest.param([Fault(XORB, expired=True, times=2, skip=2)], "xet", id="xorb-expired"),
        pytest.param([Fault(XORB, redirect=True, times=3)], "xet", id="xorb-redirect"),
        pytest.param(
            [
                Fault(RequestClass.XET_TOKEN, status=503, times=1),
                Fault(RequestClass.XET_TOKEN, cut=Cut.RESET, times=1, skip=1),
            ],
            "xet",
            id="token",
        ),
    ],
)
def test_a_refusal_that_passes(
    hub: LocalHub, tmp_path: Path, faults: list[Fault], route: str
) -> None:
    run = download(hub, SIZES, tmp_path, faults, route=route)
    check_right(run)
    assert run.served <= 1.1 * SIZES.total


@pytest.mark.parametrize(
    ("fault", "route", "words"),
    [
        (Fault(BODY["http"], expired=True), "http", "the signed address has expired"),
        (Fault(BODY["http"], redirect=True), "http", "redirected without an end"),
        (Fault(RESOLVE, redirect=True), "http", "redirected without an end"),
        (Fault(XORB, redirect=True), "xet", ""),
        (Fault(XORB, expired=True), "xet", ""),
        (Fault(RECONSTRUCTION, redirect=True), "xet", ""),
        (Fault(RECONSTRUCTION, status=503), "xet", ""),
        (Fault(RequestClass.XET_TOKEN, redirect=True), "xet", ""),
        (Fault(RequestClass.XET_TOKEN, status=403), "xet", ""),
        (Fault(RequestClass.XET_TOKEN, status=503), "xet", "503"),
    ],
    ids=name,
)
def test_a_refusal_that_lasts(
    hub: LocalHub, tmp_path: Path, fault: Fault, route: str, words: str
) -> None:
    run = download(hub, ONE, tmp_path, [fault], route=route, max_retries=2)
    check_stopped(run, DownloadError, words)
    check_kept(hub, run, tmp_path, route=route)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(RECONSTRUCTION, status=503),
        Fault(XORB, cut=Cut.RESET, after_bytes=300_000),
        Fault(XORB, expired=True),
        Fault(RequestClass.XET_TOKEN, status=503),
        Fault(RequestClass.XET_TOKEN, status=404),
        Fault(RequestClass.XET_TOKEN, status=403),
        Fault(RequestClass.XET_TOKEN, expired=True),
    ],
    ids=name,
)
def test_http_takes_over_from_xet_storage_that_refuses(
    hub: LocalHub, tmp_path: Path, fault: Fault
) -> None:
    run = download(hub, LARGE, tmp_path, [fault, NOT_ALL_AT_ONCE])
    check_right(run)
    assert run.retries
    assert run.retries[-1].route is Route.HTTP
    assert run.served <= 1.05 * LARGE.total


@pytest.mark.parametrize(
    "fault",
    [Fault(BODY["http"], status=503), Fault(BODY["http"], cut=Cut.RESET)],
    ids=name,
)
def test_xet_takes_over_from_a_cdn_that_refuses(
    hub: LocalHub, tmp_path: Path, fault: Fault
) -> None:
    run = download(hub, ONE, tmp_path, [fault])
    check_right(run)
    assert run.retries[-1].route is Route.XET
    assert run.served <= 1.05 * ONE.total
