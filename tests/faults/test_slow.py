"""Connections that are slow, or say nothing at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nbloader.errors import DownloadError
from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.records import Route
from tests.faults.repos import LARGE, ONE, SIZES, SMALL, Repo
from tests.faults.runs import BODY, BOTH, Run, check_kept, check_right, check_stopped, download

STALL_S = 1.0
SOON_S = STALL_S + 3.0

NO_BYTES = "no bytes came"


@pytest.mark.parametrize("route", BOTH)
def test_without_faults_every_size_is_right(hub: LocalHub, tmp_path: Path, route: str) -> None:
    run = download(hub, SIZES, tmp_path, route=route)
    check_right(run)
    assert run.retries == []
    # Over Xet a chunk in which two pieces meet may be sent for both.
    assert run.served <= 1.02 * SIZES.total
    assert hub.counters().cdn_authorizations == 0


def test_what_is_late_or_slow_is_no_stall(hub: LocalHub, tmp_path: Path) -> None:
    late = (RequestClass.MODEL_INFO, RequestClass.TREE, RequestClass.RESOLVE_GET, *BODY.values())
    hub.set_faults(
        [
            *(Fault(request_class, latency_s=0.5) for request_class in late),
            *(Fault(request_class, bytes_per_second=200_000) for request_class in BODY.values()),
        ]
    )

    def run(route: str) -> Run:
        return download(hub, SMALL, tmp_path / route, None, route=route, alone=False)

    with ThreadPoolExecutor() as pool:
        for result in pool.map(run, BOTH):
            check_right(result)
            assert result.retries == []


def test_of_two_answers_that_begin_late_one_is_read(hub: LocalHub, tmp_path: Path) -> None:
    run = download(hub, SMALL, tmp_path, [Fault(BODY["http"], latency_s=6.0)], route="http")
    check_right(run)
    assert run.reasons == [f"{NO_BYTES}; asking again"]
    assert run.served <= 1.02 * SMALL.total


@pytest.mark.parametrize(
    ("after_bytes", "times"), [(0, 1), (0, 3), (300_000, 3)], ids=["start", "starts", "middle"]
)
@pytest.mark.parametrize("route", BOTH)
def test_bytes_flow_again_after_a_stall(
    hub: LocalHub, tmp_path: Path, route: str, after_bytes: int, times: int
) -> None:
    fault = Fault(BODY[route], cut=Cut.STALL, after_bytes=after_bytes, times=times)
    run = download(hub, ONE, tmp_path, [fault], route=route, stall_timeout_s=STALL_S)
    check_right(run)
    assert set(run.reasons) == {NO_BYTES}
    assert run.longest_silence <= SOON_S


@pytest.mark.parametrize("route", BOTH)
def test_bytes_flow_again_after_a_stall_at_the_last_byte(
    hub: LocalHub, tmp_path: Path, route: str
) -> None:
    download(hub, SMALL, tmp_path / "before", route=route)
    log = [request for request in hub.requests() if request.request_class is BODY[route]]
    last = max(request.body_bytes for request in log) - 1
    fault = Fault(BODY[route], cut=Cut.STALL, after_bytes=last, times=len(log))
    run = download(hub, SMALL, tmp_path, [fault], route=route, stall_timeout_s=STALL_S)
    check_right(run)
    assert run.reasons == [NO_BYTES]
    assert run.longest_silence <= SOON_S


@pytest.mark.parametrize("route", BOTH)
def test_a_trickle_is_given_up(hub: LocalHub, tmp_path: Path, route: str) -> None:
    fault = Fault(BODY[route], bytes_per_second=2_000, times=1)
    run = download(hub, ONE, tmp_path, [fault], route=route, stall_timeout_s=STALL_S)
    check_right(run)
    assert run.reasons in (["too slow"], [NO_BYTES], [f"{NO_BYTES}; asking again"])
    assert run.longest_silence <= SOON_S


@pytest.mark.parametrize("route", BOTH)
def test_a_server_that_always_stalls_is_given_up(hub: LocalHub, tmp_path: Path, route: str) -> None:
    run = download(
        hub,
        ONE,
        tmp_path,
        [Fault(BODY[route], cut=Cut.STALL)],
        route=route,
        stall_timeout_s=STALL_S,
        max_retries=2,
    )
    check_stopped(run, DownloadError, "one.bin", NO_BYTES, "2 attempts")
    assert run.reasons == [NO_BYTES]
    check_kept(hub, run, tmp_path, route=route)


@pytest.mark.parametrize(
    ("stalls", "repo", "other"), [("http", ONE, Route.XET), ("xet", LARGE, Route.HTTP)]
)
def test_the_other_route_takes_over_from_one_that_stalls(
    hub: LocalHub, tmp_path: Path, stalls: str, repo: Repo, other: Route
) -> None:
    faults = [
        Fault(BODY[stalls], cut=Cut.STALL),
        # Without it all may be on its way before the speed of HTTP is known, and Xet tried.
        Fault(BODY["http"], total_bytes_per_second=100_000_000),
    ]
    run = download(hub, repo, tmp_path, faults, stall_timeout_s=STALL_S)
    check_right(run)
    assert [(retry.reason, retry.route) for retry in run.retries] == [(NO_BYTES, other)]
    assert run.longest_silence <= SOON_S


def test_time_runs_out_for_a_file_that_makes_no_progress(hub: LocalHub, tmp_path: Path) -> None:
    run = download(
        hub,
        SMALL,
        tmp_path,
        [Fault(BODY["http"], cut=Cut.STALL)],
        route="http",
        stall_timeout_s=STALL_S,
        max_retries=100,
        timeout=1.5,
    )
    check_stopped(run, DownloadError, "small.bin", NO_BYTES, "no progress for")
    assert len(run.retries) < 5
