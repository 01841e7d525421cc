"""What the Hub says of a repository: kept with its listing, so that all selections are the same."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from nbloader.localhub import LocalHub, RequestClass
from nbloader.records import Selection
from tests.conftest import Publish
from tests.sessions import Worker

CARD = "---\npipeline_tag: {}\nlibrary_name: transformers\nbase_model: org/base\n---\n"
FILES = {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": b"x"}


@pytest.fixture
def worker(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    return Worker(hub, tmp_path, monkeypatch)


@pytest.fixture
def repo_id(publish: Publish) -> str:
    return publish({**FILES, "README.md": CARD.format("fill-mask").encode()})


def asked(hub: LocalHub) -> Counter[RequestClass]:
    """What was asked since the last time, apart from files."""
    found = Counter(request.request_class for request in hub.requests())
    hub.reset_counters()
    return Counter({kind: found[kind] for kind in (RequestClass.MODEL_INFO, RequestClass.TREE)})


def kept(worker: Worker, selection: Selection) -> Path:
    """The file of the listing that was kept."""
    (file,) = worker.home.rglob(f"listings/*/{selection.commit_hash}.json")
    return file


def test_the_task_of_the_hub_is_known_offline_too(
    hub: LocalHub, worker: Worker, repo_id: str
) -> None:
    session = worker.session(repo_id)
    selection = session.select().selection
    session.fetch()
    assert selection.task == "fill-mask"
    assert asked(hub) == {RequestClass.MODEL_INFO: 1, RequestClass.TREE: 1}
    assert worker.session(repo_id, local_files_only=True).select().selection == selection
    assert asked(hub) == {RequestClass.MODEL_INFO: 0, RequestClass.TREE: 0}


def test_what_the_hub_says_now_is_kept(hub: LocalHub, worker: Worker, repo_id: str) -> None:
    selection = worker.session(repo_id).select().selection
    stored = json.loads(kept(worker, selection).read_bytes())
    names = ("pipeline_tag", "library_name", "base_models", "described")
    assert [stored[name] for name in names] == ["fill-mask", "transformers", ["org/base"], True]
    # A commit that stays the same while its card changes: as if it had been kept before.
    kept(worker, selection).write_text(
        json.dumps(stored | {"pipeline_tag": "token-classification"})
    )
    assert worker.session(repo_id).select().selection == selection
    assert json.loads(kept(worker, selection).read_bytes())["pipeline_tag"] == "fill-mask"


def test_a_second_worker_makes_the_selection_of_the_first(
    hub: LocalHub, worker: Worker, repo_id: str
) -> None:
    selection = worker.session(repo_id).select().selection
    asked(hub)
    again = worker.session(repo_id, commit_hash=selection.commit_hash)
    assert again.select().selection == selection
    assert asked(hub) == {RequestClass.MODEL_INFO: 0, RequestClass.TREE: 0}
    # Without what the first one kept it has to ask.
    kept(worker, selection).unlink()
    assert (
        worker.session(repo_id, commit_hash=selection.commit_hash).select().selection == selection
    )
    assert asked(hub) == {RequestClass.MODEL_INFO: 1, RequestClass.TREE: 1}


def test_a_listing_that_an_older_version_kept_is_completed(
    hub: LocalHub, worker: Worker, repo_id: str
) -> None:
    selection = worker.session(repo_id).select().selection
    file = kept(worker, selection)
    names = ("repo_id", "revision", "commit_hash", "files")
    complete = file.read_bytes()
    file.write_text(json.dumps({name: json.loads(complete)[name] for name in names}))
    asked(hub)
    assert (
        worker.session(repo_id, commit_hash=selection.commit_hash).select().selection == selection
    )
    assert asked(hub) == {RequestClass.MODEL_INFO: 1, RequestClass.TREE: 0}
    assert file.read_bytes() == complete
