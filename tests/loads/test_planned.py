"""Nothing runs, and nothing is read, that was not planned: whatever else lies in the folder."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.errors import NbloaderError
from nbloader.localhub import LocalHub
from nbloader.records import Companion, Kind, RepoFile, Selection
from nbloader.stages.planned import Planned
from tests.conftest import Publish
from tests.differential.harness import seeded
from tests.models import save_classifier, save_embedder, save_pipeline
from tests.sockets import connections

ENCODE = {"kind": "sentence-transformers"}


def content_of(save: Callable[[Path], object], folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    seeded(lambda: save(folder))
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def changed(files: dict[str, bytes], path: str, **values: Any) -> None:
    files[path] = json.dumps({**json.loads(files[path]), **values}).encode()


class _Runs:
    """What a pickle that runs code holds."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._mark}",)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What hostile code makes when it runs."""
    return tmp_path / "RAN"


def code(ran: Path, cls: str = "") -> bytes:
    return f"open({str(ran)!r}, 'w').close()\n{cls}".encode()


def fetched(hub: LocalHub, cache: Path, repo_id: str) -> None:
    """Fetch all of a repository, as `hf download` does: nothing of it is run."""
    nbloader.download(
        repo_id, allow_patterns="*", endpoint=hub.endpoint, cache_dir=cache, view="none"
    )


def refused_or_loaded(load: Callable[..., Any], repo_id: str, **keywords: Any) -> Any:
    try:
        return load(repo_id, **keywords)
    except NbloaderError as error:
        return error


HIDDEN = {
    "a component's module": {"unet": ["evil", "UNet2DConditionModel"]},
    "a scheduler's module": {"scheduler": ["evil", "DDIMScheduler"]},
    "a pipeline's module": {"_class_name": ["evil", "StableDiffusionPipeline"]},
}


@pytest.mark.parametrize("what", HIDDEN)
@pytest.mark.parametrize("force", [False, True])
def test_code_that_a_pipeline_hides_from_the_plan_does_not_run(
    hub: LocalHub,
    load: Callable[..., Any],
    publish: Publish,
    tmp_path: Path,
    ran: Path,
    what: str,
    force: bool,
) -> None:
    files = content_of(save_pipeline, tmp_path / "made")
    changed(files, "model_index.json", **HIDDEN[what])
    changed(
        files,
        "model_index.json",
        _ignore_files=["unet/evil.py", "scheduler/evil.py", "evil.py"],
    )
    for folder in ("", "unet/", "scheduler/", "tokenizer/additional_chat_templates/"):
        files[f"{folder}evil.py"] = code(ran)
    repo_id = publish(files)
    fetched(hub, tmp_path / "cache", repo_id)
    refused_or_loaded(load, repo_id, trust_remote_code=False, force=force)
    assert not ran.exists()


@pytest.mark.parametrize("allow_pickle", [False, True])
def test_code_that_a_configuration_names_does_not_run(
    hub: LocalHub,
    load: Callable[..., Any],
    publish: Publish,
    tmp_path: Path,
    ran: Path,
    allow_pickle: bool,
) -> None:
    files = content_of(save_classifier, tmp_path / "made")
    own = {
        "AutoConfig": "evil.Config",
        "AutoModel": "evil.Model",
        "AutoModelForSequenceClassification": "evil.Model",
    }
    changed(
        files,
        "config.json",
        auto_map=own,
        custom_pipelines={"text-classification": {"impl": "evil.Pipe", "pt": ["AutoModel"]}},
    )
    changed(files, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
    files["evil.py"] = files["custom_generate/generate.py"] = code(ran)
    repo_id = publish(files)
    fetched(hub, tmp_path / "cache", repo_id)
    model = load(repo_id, allow_pickle=allow_pickle)
    assert type(getattr(model, "model", model)).__module__.startswith("transformers.models.")
    assert not ran.exists()


@pytest.mark.parametrize("allow_pickle", [False, True])
@pytest.mark.parametrize("key", ["model_args", "model_kwargs"])
def test_a_configuration_does_not_choose_pickles(
    hub: LocalHub,
    load: Callable[..., Any],
    publish: Publish,
    tmp_path: Path,
    ran: Path,
    key: str,
    allow_pickle: bool,
) -> None:
    files = content_of(save_embedder, tmp_path / "made")
    files["pytorch_model.bin"] = pickle.dumps(_Runs(ran))
    config = json.loads(files["sentence_bert_config.json"])
    config[key] = {"use_safetensors": False, "weights_only": False, "trust_remote_code": True}
    files["sentence_bert_config.json"] = json.dumps(config).encode()
    changed(files, "config.json", use_safetensors=False)
    repo_id = publish(files)
    fetched(hub, tmp_path / "cache", repo_id)
    model = load(repo_id, allow_pickle=allow_pickle)
    assert model.encode(["a good one"]).shape[0] == 1
    assert not ran.exists()


def test_an_index_that_names_code_is_refused_and_allows_none(
    load: Callable[..., Any], publish: Publish, tmp_path: Path, ran: Path
) -> None:
    files = content_of(save_classifier, tmp_path / "made")
    names = json.loads(
        files["model.safetensors"][8 : 8 + int.from_bytes(files["model.safetensors"][:8], "little")]
    )
    files["model-1.safetensors"] = files.pop("model.safetensors")
    weight_map = dict.fromkeys(names.keys() - {"__metadata__"}, "model-1.safetensors")
    files["model.safetensors.index.json"] = json.dumps(
        {"metadata": {}, "weight_map": {**weight_map, "zz": "evil.py"}}
    ).encode()
    files["evil.py"] = code(ran)
    changed(files, "config.json", auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.M"})
    error = refused_or_loaded(load, publish(files), allow_pickle=True)
    assert error.reference == "malformed-file"
    assert not ran.exists()


def test_a_folder_of_this_machine_shows_no_more(tmp_path: Path, ran: Path) -> None:
    files = content_of(save_pipeline, tmp_path / "made")
    changed(
        files,
        "model_index.json",
        scheduler=["evil", "DDIMScheduler"],
        _ignore_files=["scheduler/evil.py"],
    )
    (tmp_path / "made/model_index.json").write_bytes(files["model_index.json"])
    (tmp_path / "made/scheduler/evil.py").write_bytes(code(ran))
    refused_or_loaded(
        lambda folder, **keywords: nbloader.load(folder, view="none", device="cpu", **keywords),
        str(tmp_path / "made"),
        force=True,
        endpoint="http://127.0.0.1:1",
    )
    assert not ran.exists()


def test_the_links_are_gone_and_named_nowhere(
    load: Callable[..., Any], publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "tmp"
    private.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    told: list[object] = []
    repo_id = publish(content_of(save_pipeline, tmp_path / "made"))
    pipe = load(repo_id, on_event=told.append)
    assert list(private.iterdir()) == []
    assert pipe.config["_name_or_path"] == repo_id
    assert pipe.tokenizer.name_or_path == repo_id
    pipe.save_pretrained(tmp_path / "again")
    saved = {p: p.read_bytes() for p in (tmp_path / "again").rglob("*.json")}
    assert not [path for path, content in saved.items() if b"nbloader-load-" in content]
    assert "nbloader-load-" not in repr(told)


def test_an_error_names_the_repository_and_not_the_links(
    load: Callable[..., Any], publish: Publish, tmp_path: Path
) -> None:
    files = content_of(save_classifier, tmp_path / "made")
    files["tokenizer.json"] = b"{}"
    error = refused_or_loaded(load, publish(files), force=True)
    assert "nbloader-load-" not in str(error)


# -- the folder itself -----------------------------------------------------------------------------


def selection(folder: Path, *paths: str, companions: tuple[Companion, ...] = ()) -> Selection:
    files = tuple(
        RepoFile(path=path, size=1, etag="0" * 40, repo_id=path.rpartition(":")[0])
        for path in paths
    )
    return Selection(
        repo_id="org/name",
        revision="main",
        commit_hash=folder.name,
        kind=Kind.TRANSFORMERS,
        class_name=None,
        components=(),
        files=files,
        companions=companions,
    )


def files_of(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    blobs = tmp_path / "models--org--name/blobs"
    folder = tmp_path / "models--org--name/snapshots" / ("a" * 40)
    (folder / "unet").mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "unet/config.json", "evil.py"):
        blob = blobs / name.replace("/", "-")
        blob.write_text(name)
        (folder / name).symlink_to(blob)
    return folder


def test_it_holds_the_files_of_the_plan_alone(snapshot: Path) -> None:
    planned = Planned(selection(snapshot, "config.json", "unet/config.json"), snapshot)
    assert files_of(planned.folder) == {
        "config.json": "config.json",
        "unet/config.json": "unet/config.json",
    }
    # A module of the repository's own is named after the last part.
    assert planned.folder.parts[-3:] == snapshot.parts[-3:]
    assert (planned.folder / "config.json").resolve() == (snapshot / "config.json").resolve()
    planned.close()
    assert not planned.folder.parents[2].exists()
    assert (snapshot / "config.json").read_text() == "config.json"


def test_a_file_that_comes_later_is_there_then(snapshot: Path) -> None:
    planned = Planned(selection(snapshot, "config.json", "late.json"), snapshot)
    assert not (planned.folder / "late.json").exists()
    (snapshot / "late.json").write_text("late")
    assert (planned.folder / "late.json").read_text() == "late"
    planned.close()


def test_without_links_a_file_that_comes_later_is_there_with_the_next_step(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError("no privilege")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    planned = Planned(selection(snapshot, "config.json", "late.json"), snapshot)
    (snapshot / "late.json").write_text("late")
    monkeypatch.setattr(Path, "hardlink_to", no_links)
    planned.update()
    assert files_of(planned.folder) == {"config.json": "config.json", "late.json": "late"}
    planned.close()


def test_other_repositories_lie_there_under_their_commits(snapshot: Path, tmp_path: Path) -> None:
    other = tmp_path / "models--org--base/snapshots" / ("b" * 40)
    mine = tmp_path / "my model"
    for folder in (other, mine):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(folder.name)
        (folder / "evil.py").write_text("")
    hub = Companion(repo_id="org/base", role="base-model", revision="main", commit_hash="b" * 40)
    own = Companion(
        repo_id=str(mine), role="component", revision="", commit_hash="c" * 40, folder=str(mine)
    )
    planned = Planned(
        selection(
            snapshot,
            "config.json",
            "org/base:config.json",
            f"{mine}:config.json",
            companions=(hub, own),
        ),
        snapshot,
    )
    root = planned.folder.parents[2]
    # A library that names no revision asks for `main`.
    assert files_of(root) == {
        "models--org--name/refs/main": "a" * 40,
        f"models--org--name/snapshots/{'a' * 40}/config.json": "config.json",
        "models--org--base/refs/main": "b" * 40,
        f"models--org--base/snapshots/{'b' * 40}/config.json": "b" * 40,
        "2/my model/config.json": "my model",
    }
    assert planned.selection.companions[0] == hub
    place = Path(planned.selection.companions[1].folder or "")
    assert (place.name, files_of(place)) == ("my model", {"config.json": "my model"})
    planned.close()


# -- the network -----------------------------------------------------------------------------------


def test_a_library_asks_nobody_for_what_a_file_names(
    load: Callable[..., Any], publish: Publish, tmp_path: Path
) -> None:
    files = content_of(save_embedder, tmp_path / "made")
    changed(files, "sentence_bert_config.json", tokenizer_name_or_path="org/somewhere-else")
    repo_id = publish(files)
    with connections() as seen:
        error = refused_or_loaded(load, repo_id)
    assert seen == []
    assert isinstance(error, NbloaderError)
    assert "nbloader.download(" in error.hint


def test_the_switch_is_put_back(load: Callable[..., Any], publish: Publish, tmp_path: Path) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    load(publish(content_of(save_embedder, tmp_path / "made")))
    assert constants.HF_HUB_OFFLINE is before
    shutil.rmtree(tmp_path / "cache")


def test_weights_that_stay_on_the_disk_are_found_when_they_are_needed(
    load: Callable[..., Any], publish: Publish, tmp_path: Path
) -> None:
    import torch

    repo_id = publish(content_of(save_classifier, tmp_path / "made"))
    named = {"cls": "AutoModelForSequenceClassification"}
    whole = load(repo_id, **named)
    parts = {"bert": "cpu", "bert.encoder": "disk", "classifier": "cpu"}
    parts |= {"bert.embeddings": "cpu", "bert.pooler": "cpu"}
    parts.pop("bert")
    spread = load(
        repo_id,
        **named,
        loader_kwargs={"device_map": parts, "offload_folder": str(tmp_path / "offload")},
    )
    given = {"input_ids": torch.tensor([[2, 5, 6, 3]])}
    with torch.no_grad():
        assert torch.equal(whole(**given).logits, spread(**given).logits)


def test_many_links_take_no_time(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--name/snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    paths = [f"{number}.json" for number in range(1000)]
    for path in paths:
        (folder / path).write_text("{}")
    began = time.process_time()
    planned = Planned(selection(folder, *paths), folder)
    for _ in range(100):
        planned.update()
    planned.close()
    assert time.process_time() - began < 2
