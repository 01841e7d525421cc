"""What is done beside the download: the start of the worker, imports, components, a rehearsal."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import nbloader
from nbloader.errors import InvalidArgumentError, MissingTensorsError
from nbloader.loaders.collector import collector_off
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.records import ComponentLoaded, Event, FileDone, Notice
from nbloader.stages import ahead, warm
from tests.models import picture, save_classifier, save_embedder, save_pipeline


def slow(hub: LocalHub, path: str, bytes_per_second: int = 150_000) -> None:
    hub.set_faults(
        [Fault(RequestClass.CDN_GET, path=path, total_bytes_per_second=bytes_per_second)]
    )


def test_components_are_built_while_another_still_arrives(
    hub: LocalHub, hub_root: Path, load: Callable[..., Any]
) -> None:
    from diffusers import DiffusionPipeline

    repo_id = "org/ahead-pipeline"
    folder = hub_root / "models" / repo_id
    save_pipeline(folder)
    slow(hub, "*/unet/*.safetensors", 60_000)
    told: list[Event] = []
    pipeline = load(repo_id, on_event=told.append)
    done = [each for each in told if isinstance(each, ComponentLoaded | FileDone)]
    last = max(at for at, each in enumerate(done) if isinstance(each, FileDone))
    built = [each.name for each in done[:last] if isinstance(each, ComponentLoaded)]
    after = [each.name for each in done[last:] if isinstance(each, ComponentLoaded)]
    assert sorted(built) == ["scheduler", "text_encoder", "tokenizer", "vae"]
    assert after == ["unet"]
    assert [each for each in told if isinstance(each, Notice)] == []
    assert np.array_equal(picture(pipeline), picture(DiffusionPipeline.from_pretrained(folder)))


def test_what_cannot_be_built_by_itself_is_left_to_the_pipeline(
    hub: LocalHub, hub_root: Path, load: Callable[..., Any], tmp_path: Path
) -> None:
    from diffusers import DiffusionPipeline
    from transformers import CLIPImageProcessor

    repo_id = "org/ahead-renamed"
    folder = hub_root / "models" / repo_id
    save_pipeline(folder)
    # transformers 5 has no class of this name; diffusers takes the one that followed it.
    index = json.loads((folder / "model_index.json").read_text())
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    CLIPImageProcessor().save_pretrained(folder / "feature_extractor")
    told: list[Event] = []
    pipeline = load(repo_id, on_event=told.append)
    plain = DiffusionPipeline.from_pretrained(folder)
    assert type(pipeline.feature_extractor) is type(plain.feature_extractor)
    (notice,) = (each for each in told if isinstance(each, Notice))
    assert (notice.reference, notice.quiet) == ("whole-folder", True)
    assert "feature_extractor" in notice.message


def test_a_model_that_lacks_a_tensor_is_refused_before_its_bytes_have_come(
    hub: LocalHub, hub_root: Path, load: Callable[..., Any]
) -> None:
    from safetensors.torch import load_file, save_file

    repo_id = "org/ahead-lacks"
    folder = hub_root / "models" / repo_id
    save_classifier(folder, hidden_size=256, intermediate_size=1024)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["classifier.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    size = weights.stat().st_size
    slow(hub, "*.safetensors")
    with pytest.raises(MissingTensorsError, match=r"classifier\.weight"):
        load(repo_id)
    assert hub.counters().file_bytes < size
    hub.clear_faults()
    told: list[Event] = []
    assert load(repo_id, force=True, on_event=told.append)("word")
    assert [each.reference for each in told if isinstance(each, Notice)] == ["missing-tensors"]


def test_what_a_library_warns_of_in_a_rehearsal_is_told_once(
    hub: LocalHub, hub_root: Path, load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo_id = "org/ahead-warns"
    save_embedder(hub_root / "models" / repo_id)
    slow(hub, "*.safetensors")
    rehearse = ahead.Rehearsal.__call__
    once = Notice(reference="library-warning", message="sentence-transformers warns: x", hint="")

    def warned(rehearsal: ahead.Rehearsal) -> None:
        rehearse(rehearsal)
        rehearsal.notices += [once, once]

    monkeypatch.setattr(ahead.Rehearsal, "__call__", warned)
    told: list[Event] = []
    load(repo_id, on_event=told.append)
    assert [each for each in told if isinstance(each, Notice)] == [once]


def of_transformers(folder: Path) -> Any:
    from transformers import pipeline

    return pipeline("text-classification", model=str(folder), device="cpu")


def of_sentence_transformers(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("save", "plain"),
    [(save_classifier, of_transformers), (save_embedder, of_sentence_transformers)],
)
def test_a_rehearsal_leaves_nothing_behind(
    hub: LocalHub,
    hub_root: Path,
    load: Callable[..., Any],
    save: Callable[[Path], None],
    plain: Callable[[Path], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    repo_id = f"org/ahead-{save.__name__}"
    save(hub_root / "models" / repo_id)
    slow(hub, "*.safetensors")
    held: list[ahead.Rehearsal] = []
    rehearse = ahead.Rehearsal.__call__

    def noted(rehearsal: ahead.Rehearsal) -> None:
        held.append(rehearsal)
        assert rehearsal.folder.exists()
        rehearse(rehearsal)

    monkeypatch.setattr(ahead.Rehearsal, "__call__", noted)
    folder = hub_root / "models" / repo_id
    torch.manual_seed(7)
    plain(folder)
    expected = torch.rand(3)  # The libraries draw numbers while they build.
    torch.manual_seed(7)
    told: list[Event] = []
    model = load(repo_id, on_event=told.append)
    assert len(held) == 1
    assert not held[0].folder.parent.exists()
    assert torch.equal(torch.rand(3), expected)
    module = getattr(model, "model", model)
    assert all(torch.isfinite(weight).all() for weight in module.parameters())
    assert any(weight.any() for weight in module.parameters())


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_a_worker_that_nobody_asks_is_ended(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(InvalidArgumentError):
        nbloader.load("org/name", plan="fastest", cache_dir=tmp_path, view="none")
    assert children() <= before


def test_the_collector_is_as_it_was_and_finds_what_was_made_old() -> None:
    gc.collect()
    with collector_off():
        assert not gc.isenabled()
        made: list[list[int]] = [[] for _ in range(10_000)]
    assert gc.isenabled()
    assert len(gc.get_objects(generation=2)) > len(made)
    assert len(gc.get_objects(generation=0)) < len(made)
    assert gc.get_freeze_count() == 0
    gc.disable()
    try:
        with collector_off():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_somebody_else_has_frozen_stays_so() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with collector_off():
            pass
        assert gc.get_freeze_count() > frozen // 2  # Some have ended meanwhile.
    finally:
        gc.unfreeze()


INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "safety_checker": [None, None],
    "odd": ["os", "system"],
    "worse": ["transformers", "__import__('os')"],
}


@pytest.mark.parametrize(
    ("files", "subfolder", "expected"),
    [
        (
            {"model_index.json": INDEX},
            "",
            [
                ("diffusers", "DiffusionPipeline"),
                ("diffusers", "StableDiffusionPipeline"),
                ("diffusers", "DDIMScheduler"),
                ("transformers", "CLIPTextModel"),
            ],
        ),
        (
            {
                "model_index.json": INDEX,
                "unet/config.json": {"_class_name": "UNet2DConditionModel"},
            },
            "unet",
            [("diffusers", "UNet2DConditionModel")],
        ),
        ({"modules.json": []}, "", [("sentence_transformers", "SentenceTransformer")]),
        ({"config.json": {"architectures": ["BertModel"]}}, "", [("transformers", "BertModel")]),
        ({"config.json": {"architectures": "BertModel", "_class_name": 7}}, "", []),
        ({"config.json": []}, "", []),
        ({}, "", []),
    ],
)
def test_what_cached_files_name_is_imported_at_once(
    files: dict[str, Any], subfolder: str, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    assert warm.guess(tmp_path, subfolder) == expected


def test_only_a_model_that_is_whole_in_the_cache_is_guessed(
    hub: LocalHub,
    hub_root: Path,
    load: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repo_id = "org/ahead-warm"
    save_embedder(hub_root / "models" / repo_id)
    begun: list[Any] = []
    monkeypatch.setattr(warm, "_import", begun.append)
    load(repo_id)
    assert begun == []
    load(repo_id)  # Its own import waits for that one.
    assert begun == [[("sentence_transformers", "SentenceTransformer")]]
    assert "sentence_transformers" in sys.modules


def test_a_commit_that_is_in_the_cache_needs_no_question(
    hub: LocalHub, hub_root: Path, load: Callable[..., Any], tmp_path: Path
) -> None:
    repo_id = "org/ahead-commit"
    save_embedder(hub_root / "models" / repo_id)
    load(repo_id)
    (snapshot,) = (tmp_path / "cache" / "models--org--ahead-commit" / "snapshots").iterdir()
    before = len(hub.requests())
    assert len(load(repo_id).encode("word")) > 0
    assert len(hub.requests()) - before == 1  # whether the branch has moved
    assert len(load(repo_id, revision=snapshot.name).encode("word")) > 0
    assert len(hub.requests()) - before == 1


def test_a_commit_that_is_verified_is_fetched_again_where_its_bytes_are_wrong(
    hub: LocalHub, hub_root: Path, load: Callable[..., Any], tmp_path: Path
) -> None:
    repo_id = "org/ahead-verified"
    save_embedder(hub_root / "models" / repo_id)
    load(repo_id)
    (snapshot,) = (tmp_path / "cache" / "models--org--ahead-verified" / "snapshots").iterdir()
    weights = (snapshot / "model.safetensors").resolve()
    right = weights.read_bytes()
    weights.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    load(repo_id, revision=snapshot.name, verify=True)
    assert (snapshot / "model.safetensors").read_bytes() == right
