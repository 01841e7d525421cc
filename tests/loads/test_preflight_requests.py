"""What the worker asks before the first weight, how long that takes, and what it tells then."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import hf_hub_download, save_torch_state_dict

import nbloader
from nbloader.errors import RateLimitedError
from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM, QWEN_IMAGE_EDIT
from nbloader.records import (
    ComponentWeights,
    RateLimitFacts,
    Route,
    Selected,
    SelectionRequest,
    TransferPolicy,
    XetFacts,
)
from nbloader.transfer.protocol import Start
from nbloader.transfer.supervisor import transfer
from nbloader.worker import xet_route
from tests.conftest import Publish
from tests.pickled import saved

LATENCY_S = 0.05
LIMIT_S = 2.0


class EnoughError(Exception):
    pass


def selected(hub: LocalHub, repo_id: str, cache: Path, **keywords: Any) -> Selected:
    """Run a worker until it has made its selection."""
    found: list[Selected] = []

    def stop(report: Selected) -> None:
        found.append(report)
        raise EnoughError

    policy = keywords.pop("policy", None) or TransferPolicy(
        max_retries=1, route=keywords.pop("route", None)
    )
    start = Start(
        repo_id=repo_id, revision="main", request=SelectionRequest(), policy=policy, **keywords
    )
    with pytest.raises(EnoughError):
        transfer(
            start,
            endpoint=hub.endpoint,
            cache_dir=str(cache),
            publish=lambda event: None,
            approve=stop,
            cancelled=threading.Event(),
        )
    return found[0]


def asked(hub: LocalHub) -> Counter[tuple[RequestClass, str]]:
    return Counter((request.request_class, request.path) for request in hub.requests())


def expected(
    repo_id: str, small: Iterable[str], headers: Mapping[str, int]
) -> Counter[tuple[RequestClass, str]]:
    """The requests for a selection.

    Args:
        small: files that decide the selection; the Hub redirects them to another path of its own.
        headers: files whose headers are read, with the ranges that takes.
    """
    requests = Counter({(RequestClass.MODEL_INFO, repo_id): 1, (RequestClass.TREE, repo_id): 1})
    for path in small:
        requests[RequestClass.RESOLVE_GET, f"{repo_id}/{path}"] = 2
    for path, ranges in headers.items():
        requests[RequestClass.RESOLVE_GET, f"{repo_id}/{path}"] = 1
        requests[RequestClass.CDN_GET, f"{repo_id}/{path}"] = ranges
    return requests


LAYERS = {
    f"model.layers.{layer}.{'long_name_' * 8}.weight": torch.zeros(64, 64) for layer in range(300)
}


@pytest.fixture
def sharded(tmp_path: Path, publish: Publish) -> str:
    """A sharded model whose headers take two reads each."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: our-own\n---\n")
    save_torch_state_dict(LAYERS, folder, max_shard_size="2MB")
    return publish({path.name: path.read_bytes() for path in folder.iterdir()})


SHARDED = ComponentWeights(
    name="model",
    bytes_by_dtype={"F32": 300 * 64 * 64 * 4},
    largest_tensor=64 * 64 * 4,
    largest_block=64 * 64 * 4,
)
FIRST = "model-00001-of-00003.safetensors"
INDEX = "model.safetensors.index.json"


# --- a public repository --------------------------------------------------------------------------


DEMO = pytest.mark.parametrize(
    ("repo_id", "small", "headers"),
    [
        (
            MINILM,
            [
                "config.json",
                "config_sentence_transformers.json",
                "modules.json",
                "tokenizer_config.json",
            ],
            {"model.safetensors": 1},
        ),
        (
            QWEN_IMAGE_EDIT,
            [
                "model_index.json",
                "text_encoder/config.json",
                "text_encoder/model.safetensors.index.json",
                "transformer/config.json",
                "transformer/diffusion_pytorch_model.safetensors.index.json",
                "vae/config.json",
            ],
            {
                "text_encoder/model-00001-of-00003.safetensors": 1,
                "transformer/diffusion_pytorch_model-00001-of-00004.safetensors": 1,
                "vae/diffusion_pytorch_model.safetensors": 2,
            },
        ),
    ],
)


@DEMO
def test_a_preflight_asks_no_more_than_it_must(
    demo_hub: LocalHub, tmp_path: Path, repo_id: str, small: list[str], headers: dict[str, int]
) -> None:
    report = nbloader.preflight(repo_id, endpoint=demo_hub.endpoint, cache_dir=tmp_path)
    assert report.selection is not None
    assert asked(demo_hub) == expected(repo_id, small, headers)


@pytest.mark.timed
@pytest.mark.parametrize("repo_id", [MINILM, QWEN_IMAGE_EDIT])
def test_a_preflight_ends_soon(
    demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo_id: str
) -> None:
    demo_hub.set_faults([Fault(kind, latency_s=LATENCY_S) for kind in RequestClass])
    seconds = []
    for attempt in range(5):  # What else runs on this machine may be in the way of one.
        monkeypatch.setenv("HF_HOME", str(tmp_path / str(attempt)))
        began_at = time.monotonic()
        assert nbloader.preflight(repo_id, endpoint=demo_hub.endpoint).selection is not None
        seconds.append(time.monotonic() - began_at)
        if seconds[-1] < LIMIT_S:
            break
    assert min(seconds) < LIMIT_S


def test_of_a_sharded_model_one_header_is_asked_for(
    hub: LocalHub, sharded: str, tmp_path: Path
) -> None:
    found = selected(hub, sharded, tmp_path)
    assert asked(hub) == expected(sharded, ["config.json", INDEX], {FIRST: 2})
    assert found.weights == (SHARDED,)
    assert found.hub is not None
    assert found.hub == replace(
        found.hub, license="our-own", rate_limit=None, xet=None, token_sent=False
    )


def test_the_headers_that_tell_of_the_rate_limit_are_told(
    hub: LocalHub, sharded: str, tmp_path: Path
) -> None:
    told = []
    try:
        for cache, quotas in enumerate(({"api": 50, "resolvers": 90}, {"api": 99, "resolvers": 9})):
            hub.set_rate_limits(quotas, window_s=1000)
            facts = selected(hub, sharded, tmp_path / str(cache)).hub
            assert facts is not None
            assert facts.rate_limit is not None
            assert 0 < facts.rate_limit.reset_s <= 1000
            told.append(replace(facts.rate_limit, reset_s=0))
    finally:
        hub.set_rate_limits({})
    assert told == [
        RateLimitFacts(kind="api", remaining=48, limit=50, window_s=1000, reset_s=0),
        RateLimitFacts(kind="resolvers", remaining=6, limit=9, window_s=1000, reset_s=0),
    ]


# --- what the cache holds -------------------------------------------------------------------------


def test_a_warm_load_asks_one_question_and_knows_as_much(
    hub: LocalHub, sharded: str, tmp_path: Path
) -> None:
    token = f"hf_{'x' * 34}"
    hub.add_token(token)
    hub.upload_to_xet(sharded)
    cold = selected(hub, sharded, tmp_path, token=token)
    nbloader.download(sharded, endpoint=hub.endpoint, cache_dir=tmp_path, view="none", token=token)
    hub.reset_counters()
    warm = selected(hub, sharded, tmp_path, token=token)
    assert asked(hub) == Counter({(RequestClass.MODEL_INFO, sharded): 1})
    assert warm.weights == cold.weights == (SHARDED,)
    assert warm.hub is not None
    assert (warm.hub.token_sent, warm.hub.xet) == (True, None)

    hub.reset_counters()
    local = selected(hub, sharded, tmp_path, local_files_only=True)
    assert (local.weights, asked(hub)) == ((SHARDED,), Counter())


def test_a_header_is_read_from_the_cache_if_its_file_is_there(
    hub: LocalHub, sharded: str, tmp_path: Path
) -> None:
    hf_hub_download(sharded, FIRST, endpoint=hub.endpoint, cache_dir=tmp_path)
    hub.reset_counters()
    found = selected(hub, sharded, tmp_path)
    assert asked(hub) == expected(sharded, ["config.json", INDEX], {})
    assert (found.weights, found.cached) == ((SHARDED,), (FIRST,))


def test_a_damaged_header_in_the_cache_costs_the_figures_only(
    hub: LocalHub, sharded: str, tmp_path: Path
) -> None:
    folder = nbloader.download(sharded, endpoint=hub.endpoint, cache_dir=tmp_path, view="none")
    damaged = (folder / FIRST).resolve()
    damaged.write_bytes(bytes(damaged.stat().st_size))
    found = selected(hub, sharded, tmp_path)
    size = sum(file.size for file in found.selection.files if file.path.endswith(".safetensors"))
    assert found.weights == (
        ComponentWeights(name="model", bytes_by_dtype={"F32": size}, counted=False),
    )


# --- pickled weights ------------------------------------------------------------------------------

SHARDS = tuple(f"pytorch_model-0000{number}-of-00003.bin" for number in (1, 2, 3))
BIN_INDEX = "pytorch_model.bin.index.json"


@pytest.fixture
def pickled(publish: Publish) -> str:
    """The same model in pickled shards, of a megabyte and more each."""
    files = {}
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(SHARDS):
        part = dict(list(LAYERS.items())[100 * number : 100 * (number + 1)])
        files[shard] = saved(lambda part=part: part)  # type: ignore[misc]
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 300 * 64 * 64 * 4}, "weight_map": weight_map}
    files["config.json"] = b'{"model_type": "bert"}'
    files[BIN_INDEX] = json.dumps(index).encode()
    return publish(files)


def test_pickled_weights_are_looked_through_by_two_ranges_of_each(
    hub: LocalHub, pickled: str, tmp_path: Path
) -> None:
    found = selected(hub, pickled, tmp_path)
    assert asked(hub) == expected(pickled, ["config.json", BIN_INDEX], dict.fromkeys(SHARDS, 2))
    assert [(each.path, each.tensors_only) for each in found.pickles] == [
        (shard, True) for shard in SHARDS
    ]
    read = sum(each.bytes_read for each in found.pickles)
    assert hub.counters().of(RequestClass.CDN_GET).body_bytes == read
    assert read < 3 * 50_000
    assert found.weights == (SHARDED,)

    hub.reset_counters()
    assert selected(hub, pickled, tmp_path, loads=False).pickles == ()
    assert RequestClass.CDN_GET not in {request.request_class for request in hub.requests()}


def test_pickled_weights_are_looked_through_where_they_are(
    hub: LocalHub, pickled: str, tmp_path: Path
) -> None:
    cold = selected(hub, pickled, tmp_path)
    nbloader.download(pickled, endpoint=hub.endpoint, cache_dir=tmp_path, view="none")
    hub.reset_counters()
    local = selected(hub, pickled, tmp_path, local_files_only=True)
    assert (local.pickles, local.weights, asked(hub)) == (cold.pickles, cold.weights, Counter())


def test_a_range_of_a_pickle_is_asked_for_again(
    hub: LocalHub, pickled: str, tmp_path: Path
) -> None:
    hub.set_faults([Fault(RequestClass.CDN_GET, status=503, times=2)])
    policy = TransferPolicy(max_retries=3, retry_delay_min_s=0.0, retry_delay_max_s=0.0)
    found = selected(hub, pickled, tmp_path, policy=policy)
    assert all(each.tensors_only for each in found.pickles)


# --- Xet storage ----------------------------------------------------------------------------------


def test_xet_storage_is_tried_beside_the_headers_and_without_a_token(
    hub: LocalHub, sharded: str, tmp_path: Path
) -> None:
    token = f"hf_{'x' * 34}"
    hub.add_token(token)
    hub.upload_to_xet(sharded)
    hub.set_faults([Fault(RequestClass.CDN_GET, latency_s=LATENCY_S)])
    hub.reset_counters()
    facts = selected(hub, sharded, tmp_path, token=token).hub
    assert facts is not None
    assert facts.xet is not None
    assert (facts.xet.host, facts.xet.answer_s is not None) == (hub.cas, True)
    requests = hub.requests()
    tried = [request for request in requests if request.request_class is RequestClass.XET_OTHER]
    assert [(request.path, request.had_authorization) for request in tried] == [("/", False)]
    kinds = [request.request_class for request in requests]
    assert RequestClass.XET_TOKEN not in kinds
    # Before the header's second range, so while its first was on its way.
    assert kinds[kinds.index(RequestClass.XET_OTHER) :].count(RequestClass.CDN_GET) >= 1


def test_xet_storage_that_does_not_answer_is_told(
    hub: LocalHub, sharded: str, tmp_path: Path
) -> None:
    hub.upload_to_xet(sharded)
    hub.set_faults([Fault(RequestClass.XET_OTHER, cut=Cut.DROP)])
    facts = selected(hub, sharded, tmp_path).hub
    assert facts is not None
    assert facts.xet == XetFacts(host=hub.cas)


def test_without_the_route_xet_storage_is_left_alone(
    hub: LocalHub, sharded: str, tmp_path: Path
) -> None:
    hub.upload_to_xet(sharded)
    hub.reset_counters()
    facts = selected(hub, sharded, tmp_path, route=Route.HTTP).hub
    assert facts is not None
    assert facts.xet is None
    assert asked(hub) == expected(sharded, ["config.json", INDEX], {FIRST: 2})


def test_a_silent_host_is_waited_for_only_so_long(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test takes a minute if the wait is not the shorter of the two.
    monkeypatch.setattr(xet_route, "XET_PROBE_TIMEOUT_S", 60.0)
    hub.set_faults([Fault(RequestClass.XET_OTHER, cut=Cut.STALL)])
    probe = xet_route.XetProbe()
    assert probe.result() is None
    probe.ask(hub.cas)
    probe.ask(hub.cdn)
    assert probe.result(0.2) == XetFacts(host=hub.cas)
    assert asked(hub) == Counter({(RequestClass.XET_OTHER, "/"): 1})


def test_the_wait_for_an_answer_ends_with_its_own_limit(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xet_route, "XET_PROBE_TIMEOUT_S", 0.2)
    hub.set_faults([Fault(RequestClass.XET_OTHER, cut=Cut.STALL)])
    probe = xet_route.XetProbe()
    probe.ask(hub.cas)
    assert probe.result(60.0) == XetFacts(host=hub.cas)


def test_a_slow_host_that_answers_in_the_wait_is_no_silent_one(hub: LocalHub) -> None:
    hub.set_faults([Fault(RequestClass.XET_OTHER, latency_s=0.3)])
    probe = xet_route.XetProbe()
    probe.ask(hub.cas)
    found = probe.result(60.0)
    assert found is not None
    assert found.answer_s is not None
    assert found.answer_s >= 0.3


# --- a Hub that wants to be left alone ------------------------------------------------------------


WAIT_S = "120"
"""A test that waits for so long has found a fault."""


@pytest.mark.parametrize(
    ("kind", "path", "what"),
    [
        (RequestClass.MODEL_INFO, "*", r"the Hub at http://127\.0\.0\.1:\d+"),
        (RequestClass.TREE, "*", r"the Hub at http://127\.0\.0\.1:\d+"),
        # The small files are asked for side by side, and what one is told holds for all.
        (
            RequestClass.RESOLVE_GET,
            "*/config.json",
            rf"the server of (?:config\.json|{re.escape(INDEX)})",
        ),
        (RequestClass.RESOLVE_GET, f"*/{FIRST}", f"the server of {re.escape(FIRST)}"),
    ],
)
@pytest.mark.parametrize("with_token", [False, True])
def test_a_long_wait_is_told_at_once(
    hub: LocalHub,
    sharded: str,
    tmp_path: Path,
    kind: RequestClass,
    path: str,
    what: str,
    with_token: bool,
) -> None:
    token = f"hf_{'x' * 34}"
    hub.add_token(token)
    hub.set_faults([Fault(kind, status=429, retry_after=WAIT_S, path=path)])
    with pytest.raises(RateLimitedError) as caught:
        selected(
            hub,
            sharded,
            tmp_path,
            policy=TransferPolicy(max_wait_s=2.0),
            token=token if with_token else None,
        )
    told = re.fullmatch(
        rf"{what} allows no more requests for (\d+) s "
        r"\(429, too many requests\)",
        caught.value.message,
    )
    assert told is not None
    assert int(told[1]) <= int(WAIT_S)
    alone = "Wait that long, then run the line again."
    assert (caught.value.hint == alone) is with_token
    assert caught.value.hint.startswith(alone)
    assert ("token" in caught.value.hint) is not with_token


def test_the_end_of_the_window_is_told_where_no_wait_is_asked_for(
    hub: LocalHub, sharded: str, tmp_path: Path
) -> None:
    try:
        hub.set_rate_limits({"api": 1}, window_s=1000)
        with pytest.raises(RateLimitedError, match=r"allows no more requests for 300 s "):
            selected(hub, sharded, tmp_path, policy=TransferPolicy(max_wait_s=2.0))
    finally:
        hub.set_rate_limits({})


def test_with_the_files_at_hand_a_hub_that_refuses_ends_nothing(
    hub: LocalHub, sharded: str, tmp_path: Path
) -> None:
    folder = nbloader.download(sharded, endpoint=hub.endpoint, cache_dir=tmp_path, view="none")
    hub.set_faults([Fault(RequestClass.MODEL_INFO, status=429, retry_after=WAIT_S)])
    found = selected(hub, sharded, tmp_path)
    assert set(found.cached) == {file.path for file in found.selection.files}
    again = nbloader.download(sharded, endpoint=hub.endpoint, cache_dir=tmp_path, view="none")
    assert again == folder
