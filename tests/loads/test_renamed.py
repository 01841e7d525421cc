"""A repository by an old name: the Hub leads from it to the new one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download

import nbloader
from nbloader.localhub import LocalHub
from nbloader.records import Event, Notice, Selected
from tests.conftest import Publish, WriteRepo
from tests.sessions import Worker

FILES = {
    "config.json": b'{"model_type": "bert"}',
    "pytorch_model.bin.index.json": json.dumps(
        {"metadata": {}, "weight_map": {"a": "a.bin", "b": "b.bin"}}
    ).encode(),
    "a.bin": b"a" * 40_000,
    "b.bin": b"b" * 2_000_000,
}


def tree(folder: Path) -> Mapping[str, bytes]:
    """The snapshots and the references of a cache; each library keeps the blobs as it likes."""
    found = [*folder.glob("models--*/snapshots/*/*"), *folder.glob("models--*/refs/*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("route", ["http", "xet"])
def test_it_lies_in_the_cache_as_the_hubs_library_leaves_it(
    hub: LocalHub, publish: Publish, tmp_path: Path, route: str
) -> None:
    now, old = publish(FILES), "older/of-before"
    hub.add_old_name(now, old)
    hub.upload_to_xet(now)
    theirs = snapshot_download(
        old, endpoint=hub.endpoint, cache_dir=tmp_path / "theirs", token=False
    )
    told: list[Event] = []
    ours = nbloader.download(
        old,
        endpoint=hub.endpoint,
        cache_dir=tmp_path / "ours",
        view="none",
        on_event=told.append,
        settings={"route": route},
    )
    assert tree(tmp_path / "ours") == tree(tmp_path / "theirs") != {}
    assert ours.relative_to(tmp_path / "ours") == Path(theirs).relative_to(tmp_path / "theirs")
    assert [event.message for event in told if isinstance(event, Notice)] == [
        f"{old} is called {now} now"
    ]
    selection = next(event.selection for event in told if isinstance(event, Selected))
    assert (selection.repo_id, selection.total) == (old, sum(map(len, FILES.values())))
    assert HfApi(endpoint=hub.endpoint, token=False).model_info(old).id == now


def test_the_token_goes_on_to_the_same_host(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    now, old = publish(FILES), "older/of-before-and-private"
    token = f"hf_{'y' * 34}"
    hub.add_old_name(now, old)
    hub.add_token(token, repos=[now])
    hub.set_access(now, private=True)
    try:
        folder = nbloader.download(
            old, endpoint=hub.endpoint, cache_dir=tmp_path, view="none", token=token
        )
    finally:
        hub.set_access(now)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert hub.counters().cdn_authorizations == 0


def test_a_base_may_be_named_as_the_oldest_are(
    hub: LocalHub,
    hub_root: Path,
    write_repo: WriteRepo,
    publish: Publish,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = "org/base-that-was-bare"
    write_repo(hub_root, base, FILES)
    hub.add_old_name(base, "bare-base")
    config = {"peft_type": "LORA", "base_model_name_or_path": "bare-base"}
    adapter = {"adapter_config.json": json.dumps(config).encode(), "adapter_model.bin": b"x"}
    worker = Worker(hub, tmp_path, monkeypatch)
    session = worker.session(publish(adapter))
    selection = session.select().selection
    session.fetch()
    assert [one.repo_id for one in selection.companions] == ["bare-base"]
    assert [told.message for told in worker.told if isinstance(told, Notice)] == [
        f"bare-base is called {base} now"
    ]
    (folder,) = (tmp_path / "hub/models--bare-base/snapshots").iterdir()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
