"""How files come into the cache when nothing goes wrong: order, requests, what is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

import nbloader
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM, QWEN_IMAGE_EDIT
from nbloader.records import (
    Component,
    Event,
    FileDone,
    FileProgress,
    Kind,
    Notice,
    RepoFile,
    Selected,
    Selection,
)
from nbloader.state import JobState, apply
from nbloader.worker.session import fetch_order
from nbloader.worker.xet_route import xet_is_usable
from tests.samples import safetensors

Publish = Callable[[Mapping[str, bytes]], str]

AT_HOME = {
    RequestClass.MODEL_INFO,
    RequestClass.TREE,
    RequestClass.RESOLVE_GET,
    RequestClass.RESOLVE_HEAD,
    RequestClass.WHOAMI,
    RequestClass.XET_TOKEN,
    RequestClass.OTHER,
}


def asked_at_home(hub: LocalHub) -> int:
    """Count the requests to the Hub's own host, those that a 307 led to left out."""
    return sum(r.request_class in AT_HOME and r.status != 307 for r in hub.requests())


def weights(size: int, seed: int = 0) -> bytes:
    """Make a safetensors file with `size` bytes of weights."""
    header = {"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    return safetensors(header, Random(seed).randbytes(size))


def files(size: int = 30_000_000) -> dict[str, bytes]:
    """Make a small model with weights of `size` bytes."""
    config = {"model_type": "bert", "architectures": ["BertModel"]}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": weights(size)}


@pytest.mark.parametrize("repo_id", [MINILM, QWEN_IMAGE_EDIT])
def test_few_requests_go_to_the_hub_itself(
    demo_hub: LocalHub, tmp_path: Path, repo_id: str
) -> None:
    folder = nbloader.download(repo_id, endpoint=demo_hub.endpoint, cache_dir=tmp_path, view="none")
    count = sum(path.is_file() for path in folder.rglob("*"))
    assert asked_at_home(demo_hub) <= count + 4

    # The header that the selection needs and all ranges of a file come from one signed address.
    resolved = [
        r.path
        for r in demo_hub.requests()
        if r.request_class is RequestClass.RESOLVE_GET and r.status == 302
    ]
    assert sorted(resolved) == sorted(set(resolved))

    demo_hub.reset_counters()
    nbloader.download(repo_id, endpoint=demo_hub.endpoint, cache_dir=tmp_path, view="none")
    assert asked_at_home(demo_hub) <= 2


def test_what_is_told_adds_up(demo_hub: LocalHub, tmp_path: Path) -> None:
    events: list[Event] = []
    nbloader.download(
        QWEN_IMAGE_EDIT,
        endpoint=demo_hub.endpoint,
        cache_dir=tmp_path,
        view="none",
        on_event=events.append,
    )
    selection = next(event.selection for event in events if isinstance(event, Selected))
    done = [event.path for event in events if isinstance(event, FileDone)]
    assert sorted(done) == [file.path for file in selection.files]

    state = JobState(repo_id=QWEN_IMAGE_EDIT, started_at=0, updated_at=0)
    for event in events:
        state = apply(state, event, 0)
    assert state.kept + state.fetched == selection.total


def test_small_files_go_first_and_then_the_largest_component() -> None:
    sizes = {"a/w": 5 << 20, "b/w1": 4 << 20, "b/w2": 4 << 20, "b/config.json": 10, "i.json": 20}
    selection = Selection(
        repo_id="org/name",
        revision="main",
        commit_hash="c" * 40,
        kind=Kind.DIFFUSERS,
        class_name=None,
        components=(
            Component(name="config", paths=("i.json",)),
            Component(name="a", paths=("a/w",)),
            Component(name="b", paths=("b/config.json", "b/w1", "b/w2")),
        ),
        files=tuple(RepoFile(path=path, size=size, etag="0" * 64) for path, size in sizes.items()),
    )
    order = [file.path for file in fetch_order(selection)]
    assert order == ["b/config.json", "i.json", "b/w1", "b/w2", "a/w"]


def download(hub: LocalHub, repo_id: str, cache_dir: Path, **more: Any) -> Path:
    """Download a model of `files`."""
    return nbloader.download(
        repo_id,
        kind="transformers",
        endpoint=hub.endpoint,
        cache_dir=cache_dir,
        view="none",
        **more,
    )


class Enough(Exception):  # noqa: N818 - the way out, not an error
    pass


def stop_after(count: int) -> Callable[[Event], None]:
    """Return a listener that ends the download after so many bytes of a file."""

    def listen(event: Event) -> None:
        if isinstance(event, FileProgress) and event.completed >= count:
            raise Enough

    return listen


def test_what_an_interrupted_download_left_is_credited_and_not_fetched_again(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(files())
    hub.set_faults([Fault(RequestClass.CDN_GET, total_bytes_per_second=20e6)])
    with pytest.raises(Enough):
        download(hub, repo_id, tmp_path, on_event=stop_after(15_000_000))
    hub.clear_faults()
    events: list[Event] = []
    report = nbloader.preflight(
        repo_id, kind="transformers", endpoint=hub.endpoint, cache_dir=tmp_path
    )
    assert report.missing_bytes <= 16_000_000
    folder = download(hub, repo_id, tmp_path, on_event=events.append)
    assert (folder / "model.safetensors").read_bytes() == weights(30_000_000)
    selected = next(event for event in events if isinstance(event, Selected))
    assert 14_000_000 <= selected.partial["model.safetensors"] <= 30_000_000
    # What the sockets held when it was killed is lost, and at most 256 KiB a connection beside.
    assert hub.counters().body_bytes_by_path[f"{repo_id}/model.safetensors"] <= 1.15 * 30_000_000
    assert not list(tmp_path.rglob("*.incomplete"))


def test_the_partial_of_a_file_that_has_changed_is_removed_and_that_is_told(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(files())
    hub.set_faults([Fault(RequestClass.CDN_GET, total_bytes_per_second=20e6)])
    with pytest.raises(Enough):
        download(hub, repo_id, tmp_path, on_event=stop_after(15_000_000))
    hub.clear_faults()
    publish({"model.safetensors": weights(5_000_000, seed=1)})
    events: list[Event] = []
    download(hub, repo_id, tmp_path, on_event=events.append)
    told = [event for event in events if isinstance(event, Notice)]
    assert [event.reference for event in told] == ["space-freed"]
    assert "MB were freed: 1 file that broken downloads had left" in told[0].message
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_route_can_be_chosen(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    repo_id = publish(files())
    hub.upload_to_xet(repo_id)
    hub.reset_counters()
    served = {}
    for route in ("http", "xet"):
        download(hub, repo_id, tmp_path / route, settings={"route": route})
        counters = hub.counters()
        served[route] = [
            round(counters.of(kind).body_bytes / 1e6)
            for kind in (RequestClass.CDN_GET, RequestClass.XET_XORB)
        ]
        hub.reset_counters()
    assert served == {"http": [30, 0], "xet": [0, 30]}


def test_with_xet_switched_off_files_come_over_http(
    hub: LocalHub, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo_id = publish(files())
    hub.upload_to_xet(repo_id)
    hub.reset_counters()
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    download(hub, repo_id, tmp_path, settings={"route": "xet"})
    assert hub.counters().of(RequestClass.XET_TOKEN).requests == 0


@pytest.mark.parametrize(
    ("version", "usable"),
    [
        (None, False),
        ("", False),
        ("1.4.3", False),
        ("1.5.1", False),
        ("1.5.2", True),
        ("1.5.2rc1", True),
        ("1.10.0", True),
        ("2.0.0", True),
    ],
)
def test_which_versions_of_hf_xet_read_ranges(version: str | None, usable: bool) -> None:
    assert xet_is_usable(version) == usable
