"""The Hub's API: calls that hang or are refused, tokens and addresses that expire."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants

from nbloader.errors import HubUnreachableError, InvalidTokenError
from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.records import Event, FileProgress, Retry, TransferPolicy
from nbloader.worker.hub import Hub
from tests.conftest import WriteRepo
from tests.faults.repos import ONE, SIZES, SMALL
from tests.faults.runs import BODY, BOTH, check_kept, check_right, check_stopped, download

MODEL_INFO = RequestClass.MODEL_INFO
TREE = RequestClass.TREE

TOKEN = "hf_matrix"


def test_a_hub_that_hangs_is_asked_again_and_given_up(hub: LocalHub, tmp_path: Path) -> None:
    # Both at once: the time limit of the first question is no setting.
    hub.set_faults(
        [
            Fault(MODEL_INFO, cut=Cut.STALL, times=1, path=ONE.repo_id),
            Fault(MODEL_INFO, cut=Cut.STALL, path=SIZES.repo_id),
        ]
    )
    with ThreadPoolExecutor() as pool:
        once, always = (
            pool.submit(download, hub, repo, tmp_path, None, alone=False, max_retries=retries)
            for repo, retries in ((ONE, 2), (SIZES, 1))
        )
    check_right(once.result())
    assert once.result().reasons == ["no bytes came"]
    check_stopped(always.result(), HubUnreachableError, "does not answer", "1 attempt")
    assert isinstance(always.result().error, HubUnreachableError)
    assert "check_network" in str(always.result().error)


def test_where_every_answer_begins_late_more_time_is_given(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, where the time limits of the calls can be others."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr("nbloader.worker.hub.CALL_TIMEOUT_S", 0.3)
    hub.set_faults([Fault(request_class, latency_s=0.6) for request_class in (MODEL_INFO, TREE)])
    told: list[Retry] = []
    policy = TransferPolicy(answer_timeout_s=0.3, retry_delay_min_s=0.01, retry_delay_max_s=0.02)
    asked = Hub(repo_id=SMALL.repo_id, policy=policy, token=False, publish=told.append)
    listing = asked.listing("main", asked.resolve("main").commit_hash)
    assert {file.path for file in listing.files} == set(SMALL.files)
    # Once for the first answer; after it, it is known how long the others may take.
    assert [retry.reason for retry in told] == ["no bytes came"]


def test_a_listing_that_hangs_is_asked_for_again_and_given_up(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, where the time limit of the call can be another."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr("nbloader.worker.hub.CALL_TIMEOUT_S", 0.5)
    told: list[Retry] = []
    policy = TransferPolicy(max_retries=2, retry_delay_min_s=0.01, retry_delay_max_s=0.02)
    asked = Hub(repo_id=SMALL.repo_id, policy=policy, token=False, publish=told.append)
    commit_hash = asked.resolve("main").commit_hash
    hub.set_faults([Fault(TREE, cut=Cut.STALL, times=1)])
    listing = asked.listing("main", commit_hash)
    assert {file.path for file in listing.files} == set(SMALL.files)
    assert [(retry.path, retry.reason, retry.attempt) for retry in told] == [
        (None, "no bytes came", 1)
    ]
    hub.set_faults([Fault(TREE, cut=Cut.STALL)])
    with pytest.raises(HubUnreachableError, match="does not answer"):
        asked.listing("main", commit_hash)


@pytest.mark.parametrize("request_class", [RequestClass.XET_TOKEN, RequestClass.XET_RECONSTRUCTION])
@pytest.mark.parametrize("skip", [0, 3])
def test_bytes_flow_again_after_xet_storage_hung(
    hub: LocalHub, tmp_path: Path, request_class: RequestClass, skip: int
) -> None:
    fault = Fault(request_class, cut=Cut.STALL, times=2, skip=skip)
    run = download(hub, ONE, tmp_path, [fault], route="xet", stall_timeout_s=1.0)
    check_right(run)
    assert run.longest_silence <= 1.0 + 3.0


def test_the_hub_hangs_when_a_file_is_asked_for(hub: LocalHub, tmp_path: Path) -> None:
    fault = Fault(RequestClass.RESOLVE_GET, cut=Cut.STALL, times=2, path="*.bin")
    run = download(hub, ONE, tmp_path, [fault], route="http", stall_timeout_s=1.0)
    check_right(run)
    assert set(run.reasons) == {"no bytes came"}
    assert run.longest_silence <= 1.0 + 3.0


def test_a_hub_that_is_busy_for_a_moment(hub: LocalHub, tmp_path: Path) -> None:
    faults = [
        Fault(request_class, status=status, times=1, skip=skip)
        for request_class in (MODEL_INFO, TREE)
        for skip, status in enumerate((503, 429))
    ]
    run = download(hub, SMALL, tmp_path, faults)
    check_right(run)
    assert (
        run.reasons == ["the server is busy (503)", "the server asks for fewer requests (429)"] * 2
    )


@pytest.fixture
def private(hub: LocalHub) -> Iterator[str]:
    """Let only a token see the repository of many sizes."""
    hub.set_access(SIZES.repo_id, private=True)
    hub.add_token(TOKEN, repos=[SIZES.repo_id])
    yield TOKEN
    hub.set_access(SIZES.repo_id, private=False)


@pytest.mark.parametrize("route", BOTH)
def test_a_token_that_is_withdrawn_in_the_middle(
    hub: LocalHub, tmp_path: Path, private: str, route: str
) -> None:
    def withdraw(event: Event) -> None:
        if isinstance(event, FileProgress) and event.path.endswith("20000000.bin"):
            hub.add_token(private, repos=[SIZES.repo_id], stale=True)

    # One file after another, and not too fast: those to come have to ask the Hub.
    slow = Fault(BODY[route], total_bytes_per_second=60_000_000)
    run = download(
        hub, SIZES, tmp_path, [slow], on_event=withdraw, token=private, route=route, max_workers=1
    )
    if route == "http":
        check_stopped(run, InvalidTokenError, "token")
        assert private not in str(run.error)
    else:
        check_right(run)  # Xet storage has a token of its own.
    hub.add_token(private, repos=[SIZES.repo_id])
    check_kept(hub, run, tmp_path, token=private, route=route)
    assert hub.counters().cdn_authorizations == 0


@pytest.fixture(scope="module")
def _hasty(tmp_path_factory: pytest.TempPathFactory, write_repo: WriteRepo) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("hasty")
    write_repo(root, ONE.repo_id, ONE.files)
    # A token of Xet storage is renewed 60 s before its end.
    with LocalHub.start(root, signature_seconds=1, xet_token_seconds=62, max_seconds=600) as hub:
        hub.upload_to_xet(ONE.repo_id)
        yield hub


@pytest.fixture
def hasty(_hasty: LocalHub) -> LocalHub:
    """A server whose addresses and tokens are soon too old."""
    _hasty.reset_counters()
    return _hasty


@pytest.mark.parametrize("route", BOTH)
def test_addresses_and_tokens_that_expire_in_the_middle(
    hasty: LocalHub, tmp_path: Path, route: str
) -> None:
    faults = [Fault(BODY[route], total_bytes_per_second=6_000_000)]
    if route == "http":
        # An answer that has begun is not ended by its address.
        faults.append(Fault(BODY[route], cut=Cut.DROP, after_bytes=2_000_000))
    else:
        # By then all pieces may be under way; the next ones that are asked for are refused. Two of
        # them: one may belong to a piece that is given up at that moment.
        faults.append(Fault(RequestClass.XET_RECONSTRUCTION, expired=True, skip=1, times=2))
    run = download(hasty, ONE, tmp_path, faults, route=route)
    check_right(run)
    assert run.served <= 1.02 * ONE.total
    if route == "http":
        assert "the signed address has expired" in run.reasons
    else:
        assert hasty.counters().of(RequestClass.XET_TOKEN).requests > 1


def test_a_token_that_expires_where_chunks_are_asked_for_is_renewed_without_a_retry(
    hub: LocalHub, tmp_path: Path
) -> None:
    refused = Fault(RequestClass.XET_RECONSTRUCTION, expired=True, times=1)
    run = download(hub, ONE, tmp_path, [refused], route="xet")
    check_right(run)
    assert run.reasons == []
    assert hub.counters().of(RequestClass.XET_TOKEN).requests == 2
