"""Two repositories fetched as one: pinned, counted, verified, gone on with, and kept offline."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

import nbloader
from nbloader.errors import GatedRepoError, HubUnreachableError, NotCachedError, RepoNotFoundError
from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.records import Event, FileDone, FileProgress, Selected
from tests.conftest import WriteRepo
from tests.samples import safetensors
from tests.sessions import Worker

ADAPTER = {
    "adapter_config.json": json.dumps(
        {"peft_type": "LORA", "base_model_name_or_path": "org/base-of-companions"}
    ).encode(),
    "adapter_model.safetensors": safetensors(
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)
    ),
}
SIZE = 6_000_000
WEIGHTS = safetensors(
    {"w": {"dtype": "F32", "shape": [SIZE // 4], "data_offsets": [0, SIZE]}},
    b"".join(index.to_bytes(4, "little") for index in range(SIZE // 4)),
)
BASE = {
    "config.json": b'{"model_type": "bert", "architectures": ["BertModel"]}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
}
OWN, OTHER = "org/adapter-of-companions", "org/base-of-companions"
TOKEN = f"hf_{'x' * 34}"


@pytest.fixture
def worker(
    hub: LocalHub,
    hub_root: Path,
    write_repo: WriteRepo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Worker:
    write_repo(hub_root, OWN, ADAPTER)
    write_repo(hub_root, OTHER, BASE)
    return Worker(hub, tmp_path, monkeypatch)


def contents(folder: str | Path) -> dict[str, bytes]:
    root = Path(folder)
    return {path.name: path.read_bytes() for path in root.iterdir()}


def base_folder(folder: Path) -> Path:
    """The one snapshot of the base in the same cache."""
    (snapshot,) = (folder.parents[2] / f"models--{OTHER.replace('/', '--')}/snapshots").iterdir()
    return snapshot


def asked(hub: LocalHub) -> Counter[tuple[RequestClass, str]]:
    """What was asked of the API since the last time."""
    api = (RequestClass.MODEL_INFO, RequestClass.TREE)
    found = Counter(
        (one.request_class, one.path) for one in hub.requests() if one.request_class in api
    )
    hub.reset_counters()
    return found


def test_both_come_into_the_cache_as_they_are(hub: LocalHub, worker: Worker) -> None:
    session = worker.session(OWN)
    selected = session.select()
    folder = session.fetch()
    assert contents(folder) == ADAPTER
    assert contents(base_folder(folder)) == BASE
    assert asked(hub) == {
        (kind, repo_id): 1
        for kind in (RequestClass.MODEL_INFO, RequestClass.TREE)
        for repo_id in (OWN, OTHER)
    }
    selection = selected.selection
    assert selection.total == sum(map(len, (*ADAPTER.values(), *BASE.values())))
    assert {one.name: one.bytes_by_dtype for one in selected.weights} == {
        OTHER: {"F32": SIZE},
        "adapter": {"F32": 8},
    }
    done = [report.path for report in worker.told if isinstance(report, FileDone)]
    assert sorted(done) == [file.path for file in selection.files]
    # The Hub's own library finds them where it would have put them.
    for repo_id, files in ((OWN, ADAPTER), (OTHER, BASE)):
        kept = snapshot_download(
            repo_id, cache_dir=worker.home / "hub", local_files_only=True, token=False
        )
        assert contents(kept) == files


def test_offline_it_is_the_same_selection(hub: LocalHub, worker: Worker) -> None:
    session = worker.session(OWN)
    selection = session.select().selection
    folder = session.fetch()
    asked(hub)
    offline = worker.session(OWN, local_files_only=True, verify=True)
    selected = offline.select()
    assert (selected.selection, offline.fetch(), asked(hub)) == (selection, folder, Counter())
    assert selected.cached == tuple(file.path for file in selection.files)
    # A warm load asks one question of each.
    assert worker.session(OWN).select().selection == selection
    assert asked(hub) == {(RequestClass.MODEL_INFO, one): 1 for one in (OWN, OTHER)}
    # Without the base it is not whole.
    (base_folder(folder) / "model.safetensors").unlink()
    with pytest.raises(NotCachedError):
        worker.session(OWN, local_files_only=True).select()


def test_with_both_at_hand_a_hub_that_is_away_ends_nothing(hub: LocalHub, worker: Worker) -> None:
    session = worker.session(OWN)
    selection = session.select().selection
    folder = session.fetch()
    for path in (OWN, OTHER):
        hub.set_faults([Fault(RequestClass.MODEL_INFO, cut=Cut.RESET, path=path)])
        worker.told.clear()
        again = worker.session(OWN)
        assert (again.select().selection, again.fetch()) == (selection, folder)
        assert [getattr(told, "reference", None) for told in worker.told][-1:] == [
            HubUnreachableError.reference
        ]


def test_a_second_worker_goes_on_with_both_commits(
    hub: LocalHub, hub_root: Path, write_repo: WriteRepo, worker: Worker
) -> None:
    selection = worker.session(OWN).select().selection
    try:
        write_repo(hub_root, OTHER, {"config.json": BASE["config.json"] + b" "})
        asked(hub)
        again = worker.session(
            OWN, commit_hash=selection.commit_hash, companions=selection.companions
        )
        assert again.select().selection == selection
        assert asked(hub) == Counter()
        assert contents(base_folder(again.fetch())) == BASE
    finally:
        write_repo(hub_root, OTHER, BASE)


def test_a_killed_download_is_gone_on_with(hub: LocalHub, worker: Worker, tmp_path: Path) -> None:
    """The end of the process while the base is on its way."""
    hub.set_faults([Fault(RequestClass.CDN_GET, cut=Cut.STALL, after_bytes=4_000_000)])
    cache = tmp_path / "killed"
    told: list[Event] = []

    class StopError(Exception):
        pass

    def listen(event: Event) -> None:
        told.append(event)
        if isinstance(event, FileProgress) and event.completed > 3_000_000:
            raise StopError

    keywords = {"endpoint": hub.endpoint, "cache_dir": cache, "view": "none", "token": False}
    with pytest.raises(StopError):
        nbloader.download(OWN, on_event=listen, **keywords)  # type: ignore[call-overload]
    hub.clear_faults()
    hub.reset_counters()
    told.clear()
    folder = nbloader.download(OWN, on_event=told.append, **keywords)  # type: ignore[call-overload]
    selected = next(event for event in told if isinstance(event, Selected))
    left = selected.partial[f"{OTHER}:model.safetensors"]
    assert left > 500_000
    assert hub.counters().file_bytes < selected.selection.total - left + 100_000
    assert contents(base_folder(folder)) == BASE


def test_the_token_goes_to_the_hub_alone(hub: LocalHub, worker: Worker) -> None:
    hub.add_token(TOKEN, repos=[OTHER])
    hub.set_access(OTHER, private=True)
    try:
        with pytest.raises(RepoNotFoundError, match=OTHER):
            worker.session(OWN).select()
        hub.reset_counters()
        session = worker.session(OWN, token=TOKEN)
        session.select()
        assert contents(base_folder(session.fetch())) == BASE
        with_token = {
            request.request_class for request in hub.requests() if request.had_authorization
        }
        assert RequestClass.RESOLVE_GET in with_token
        assert RequestClass.CDN_GET not in with_token
    finally:
        hub.set_access(OTHER)


def test_a_base_behind_a_gate_is_told_before_any_weight(hub: LocalHub, worker: Worker) -> None:
    hub.set_access(OTHER, gated="auto")
    try:
        with pytest.raises(GatedRepoError, match=OTHER):
            worker.session(OWN).select()
        assert not list(worker.home.rglob("*.safetensors"))
    finally:
        hub.set_access(OTHER)
