"""Building beforehand, of headers alone: what it finds, and when it is not made."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nbloader
from nbloader import trial
from nbloader.checks import trial as judged
from nbloader.errors import DownloadError, MissingTensorsError, ModelLoadError, NbloaderError
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.records import CheckStatus, Companion, ComponentWeights, Kind, RepoFile, Selection
from nbloader.stages import loading
from nbloader.trial import MAX_SHARDS, Task, Trial, task_of, verdict
from nbloader.worker.sketch import write_sketch
from nbloader.worker.trial import answer
from tests.models import save_classifier, save_embedder, save_pipeline, selected


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial") / "classifier"
    save_classifier(folder)
    return folder


Selected = tuple[Selection, tuple[ComponentWeights, ...]]


@pytest.fixture(scope="session")
def plain(classifier: Path) -> Selected:
    return selected(classifier)


# -- whether it can be made ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {}),
        ({"device_map": object(), "torch_dtype": object(), "device": 0}, {}),
        (
            {"model_kwargs": {"quantization_config": object(), "attn_implementation": "eager"}},
            {"model_kwargs": {"attn_implementation": "eager"}},
        ),
        ({"safety_checker": None, "top_k": 3}, {"safety_checker": None, "top_k": 3}),
    ],
)
def test_arguments_that_do_not_place_the_model_are_kept(
    plain: Selected, given: Mapping[str, Any], kept: Mapping[str, Any]
) -> None:
    task = task_of(*plain, given)
    assert isinstance(task, Task)
    assert task.loader_kwargs == kept


def test_attention_is_tried_where_it_is_an_argument(plain: Selected) -> None:
    selection, weights = plain
    task = task_of(selection, weights, {}, "eager")
    assert isinstance(task, Task)
    assert task.attention == "eager"
    task = task_of(replace(selection, kind=Kind.DIFFUSERS), weights, {}, "sdpa")
    assert isinstance(task, Task)
    assert task.attention is None


@pytest.mark.parametrize(
    ("more", "weights", "given", "why"),
    [
        ({"custom_code": True}, {}, {}, "the code of the repository"),
        (
            {"companions": (Companion(repo_id="a/b", role="code", revision="", commit_hash=""),)},
            {},
            {},
            "several repositories",
        ),
        ({"components": ()}, {}, {}, "no weights"),
        ({}, {"quantization": "gptq"}, {}, "quantized"),
        ({}, {}, {"vae": object()}, "holds objects"),
        ({}, {}, {"size": (1, 2)}, "holds objects"),  # it would arrive as a list
    ],
)
def test_it_is_said_why_it_cannot_be_made(
    plain: Selected,
    more: Mapping[str, Any],
    weights: Mapping[str, Any],
    given: Mapping[str, Any],
    why: str,
) -> None:
    selection, (part,) = plain
    task = task_of(replace(selection, **more), (replace(part, **weights),), given)
    assert isinstance(task, str)
    assert why in task


@pytest.mark.parametrize(
    ("paths", "made"),
    [
        (["model.safetensors"], True),
        (["pytorch_model.bin"], True),
        ([f"{number}.safetensors" for number in range(MAX_SHARDS)], True),
        ([f"{number}.safetensors" for number in range(MAX_SHARDS + 1)], False),
    ],
)
def test_headers_decide_and_there_may_be_too_many(
    plain: Selected, paths: list[str], made: bool
) -> None:
    selection, weights = plain
    components = tuple(
        replace(component, weights=tuple(paths)) if component.weights else component
        for component in selection.components
    )
    assert isinstance(task_of(replace(selection, components=components), weights, {}), Task) is made


def test_each_component_keeps_the_dtype_that_most_of_it_is_stored_in(plain: Selected) -> None:
    selection, (part,) = plain
    parts = (
        replace(part, name="a", bytes_by_dtype={"BF16": 10, "F32": 9}),
        replace(part, name="b", bytes_by_dtype={"F16": 8, "I64": 100}),
        replace(part, name="c", bytes_by_dtype={"F32": 8}),
    )
    task = task_of(selection, parts, {})
    assert isinstance(task, Task)
    assert task.placement.dtype == "float32"
    assert [(each.name, each.dtype) for each in task.placement.components] == [
        ("a", "bfloat16"),
        ("b", "float16"),
        ("c", "float32"),
    ]


# -- the copy --------------------------------------------------------------------------------------


def test_weights_are_holes_behind_their_headers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    small = RepoFile(path="config.json", size=2, etag="a")
    large = RepoFile(path="unet/model.safetensors", size=50_000_000_000, etag="b")
    (folder := tmp_path / "sketch").mkdir()
    write_sketch(
        folder, {small: tmp_path / "config.json"}, {large: {0: b"header", 40_000_000_000: b"end"}}
    )
    hollow = folder / large.path
    with hollow.open("rb") as opened:
        assert opened.read(8) == b"header\0\0"
        opened.seek(40_000_000_000)
        assert opened.read(8) == b"end\0\0\0\0\0"
    assert (folder / "config.json").read_text() == "{}"
    assert hollow.stat().st_size == large.size
    assert hollow.stat().st_blocks * 512 < 100_000


def test_without_a_header_there_is_no_copy(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="not at hand"):
        write_sketch(tmp_path, {}, {RepoFile(path="a.safetensors", size=9, etag="b"): None})


# -- what comes of it ------------------------------------------------------------------------------


def without(folder: Path, target: Path, key: str) -> None:
    """Copy a model without a tensor."""
    for path in folder.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".safetensors":
                left = {name: each for name, each in load_file(path).items() if name != key}
                save_file(left, place, metadata={"format": "pt"})
            else:
                place.write_bytes(path.read_bytes())


def test_a_missing_tensor_is_told_and_no_weight_is_fetched(
    hub: LocalHub, hub_root: Path, tmp_path: Path, classifier: Path
) -> None:
    repo_id = "org/trial-missing"
    without(classifier, hub_root / "models" / repo_id, "classifier.weight")
    report = nbloader.preflight(repo_id, device="cpu", endpoint=hub.endpoint, cache_dir=tmp_path)
    asked = len(hub.requests())
    assert not report.ok
    result = report.results[-1]
    assert (result.name, result.reference) == ("trial", "missing-tensors")
    assert "'classifier.weight'" in result.message
    with pytest.raises(MissingTensorsError, match=r"classifier\.weight"):
        report.raise_for_failures()
    # The results were made once, when they were looked at; of the weights, headers alone were read.
    more = hub.requests()[asked:]
    assert more
    assert [each for each in more if each.request_class is RequestClass.TREE] == []
    assert not [path for path in tmp_path.rglob("*.safetensors") if path.exists()]
    size = (classifier / "model.safetensors").stat().st_size
    assert hub.counters().file_bytes < size / 4


@pytest.fixture
def large(hub_root: Path, classifier: Path) -> Path:
    """A repository whose weights take a minute, over a link of the next test."""
    folder = hub_root / "models" / "org" / "trial-beside"
    without(classifier, folder, "classifier.weight")
    place = folder / "model.safetensors"
    tensors = load_file(place) | {"surplus": np.zeros(10_000_000, dtype=np.uint8)}
    save_file(tensors, place, metadata={"format": "pt"})
    return folder


SLOW = Fault(RequestClass.CDN_GET, path="*.safetensors", total_bytes_per_second=150_000)


def test_a_long_download_of_what_lacks_a_tensor_is_ended(
    hub: LocalHub, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "TRIAL_FROM_BYTES", 10_000_000)
    hub.set_faults([SLOW])
    with pytest.raises(MissingTensorsError, match=r"classifier\.weight"):
        nbloader.load(
            "org/trial-beside", device="cpu", endpoint=hub.endpoint, cache_dir=tmp_path, view="none"
        )
    assert hub.counters().file_bytes < 9_000_000
    # No small file was fetched for both of them.
    asked = Counter(each.path for each in hub.requests() if each.path.endswith(".json"))
    assert {path: count for path, count in asked.items() if count > 2} == {}


def test_a_load_does_not_wait_for_a_trial_beside_it(
    hub: LocalHub, hub_root: Path, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(classifier, hub_root / "models" / "org" / "trial-whole")
    begun: list[trial.Trial] = []

    class Seen(trial.Trial):
        def build(self, folder: Path) -> NbloaderError | str | None:
            begun.append(self)
            return super().build(folder)

    monkeypatch.setattr(loading, "TRIAL_FROM_BYTES", 0)
    monkeypatch.setattr(trial, "Trial", Seen)
    nbloader.load(
        "org/trial-whole", device="cpu", endpoint=hub.endpoint, cache_dir=tmp_path, view="none"
    )
    for each in begun:
        each._process.wait(10)


@pytest.mark.parametrize("more", [{"force": True}, {}])
def test_none_runs_beside_what_is_forced_or_small(
    hub: LocalHub,
    hub_root: Path,
    classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
) -> None:
    shutil.copytree(classifier, hub_root / "models" / "org" / f"trial-none-{len(more)}")

    def never(*_arguments: object) -> None:
        raise AssertionError("it was tried")

    monkeypatch.setattr(loading, "TrialBeside", never)
    if more:
        monkeypatch.setattr(loading, "TRIAL_FROM_BYTES", 0)
    nbloader.load(
        f"org/trial-none-{len(more)}",
        device="cpu",
        endpoint=hub.endpoint,
        cache_dir=tmp_path,
        view="none",
        **more,
    )


def test_a_build_beside_other_work_ends_when_it_is_told(plain: Selected, tmp_path: Path) -> None:
    task = task_of(*plain, {})
    assert isinstance(task, Task)
    over = threading.Event()
    over.set()
    with Trial(task, beside=over) as building:
        assert building.build(tmp_path) == "its process ended with status -9"


def pickled(folder: Path, *, old: bool = False, drop: str = "") -> None:
    """Put pickles in place of the safetensors in a folder."""
    import torch
    from safetensors.torch import load_file as load_tensors

    for path in folder.rglob("*.safetensors"):
        name = "pytorch_model" if path.stem == "model" else path.stem
        tensors = {key: each for key, each in load_tensors(path).items() if key != drop}
        torch.save(tensors, path.with_name(f"{name}.bin"), _use_new_zipfile_serialization=not old)
        path.unlink()


def test_a_missing_tensor_of_a_pickle_is_told_and_no_weight_is_fetched(
    hub: LocalHub, hub_root: Path, tmp_path: Path
) -> None:
    repo_id = "org/trial-pickle-missing"
    folder = hub_root / "models" / repo_id
    save_classifier(folder)
    pickled(folder, drop="classifier.weight")
    report = nbloader.preflight(repo_id, device="cpu", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert not report.ok
    result = report.results[-1]
    assert (result.name, result.reference) == ("trial", "missing-tensors")
    assert "'classifier.weight'" in result.message
    assert not [path for path in tmp_path.rglob("*.bin") if path.exists()]


@pytest.mark.parametrize("save", [save_classifier, save_pipeline, save_embedder])
def test_pickles_that_are_whole_are_built(
    hub: LocalHub, hub_root: Path, tmp_path: Path, save: Callable[[Path], None]
) -> None:
    repo_id = f"org/trial-pickle-{save.__name__}"
    save(hub_root / "models" / repo_id)
    pickled(hub_root / "models" / repo_id)
    report = nbloader.preflight(repo_id, device="cpu", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert report.ok, report
    assert [each.status for each in report.results if each.name == "trial"] == [CheckStatus.PASSED]


def test_a_pickle_that_cannot_be_looked_through_is_not_built(
    hub: LocalHub, hub_root: Path, tmp_path: Path
) -> None:
    repo_id = "org/trial-pickle-old"
    folder = hub_root / "models" / repo_id
    save_classifier(folder)
    pickled(folder, old=True)
    report = nbloader.preflight(
        repo_id, device="cpu", endpoint=hub.endpoint, cache_dir=tmp_path, allow_pickle=True
    )
    assert report.ok, report
    assert "is not at hand" in report.results[-1].message


def test_a_pipeline_that_is_whole_is_built(hub: LocalHub, hub_root: Path, tmp_path: Path) -> None:
    repo_id = "org/trial-pipeline"
    save_pipeline(hub_root / "models" / repo_id)
    report = nbloader.preflight(repo_id, device="cpu", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert report.ok, report
    assert [each.status for each in report.results if each.name == "trial"] == [CheckStatus.PASSED]


def test_nothing_is_tried_where_another_check_fails(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: object) -> None:
        raise AssertionError("it was tried")

    monkeypatch.setattr(trial, "Trial", never)
    report = nbloader.preflight("org/not-there", endpoint=hub.endpoint, cache_dir=tmp_path)
    assert not report.ok
    assert "trial" not in {each.name for each in report.results}


def test_where_nothing_can_be_tried_the_other_checks_stand(
    hub: LocalHub, hub_root: Path, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(classifier, hub_root / "models" / "org" / "untried")

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    report = nbloader.preflight(
        "org/untried", endpoint=hub.endpoint, cache_dir=tmp_path, device="cpu"
    )
    assert report.ok
    (tried,) = (each for each in report.results if each.name == "trial")
    assert tried.status is CheckStatus.SKIPPED
    assert "No space left on device" in tried.message


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (None, CheckStatus.PASSED),
        ("it is too large", CheckStatus.SKIPPED),
        (MissingTensorsError("no file has it", hint="Look."), CheckStatus.FAILED),
    ],
)
def test_only_an_error_of_a_load_fails(
    found: NbloaderError | str | None, status: CheckStatus
) -> None:
    assert judged(found).status is status


# -- the process -----------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_that_dies_is_no_answer(plain: Selected, tmp_path: Path) -> None:
    task = task_of(*plain, {})
    assert isinstance(task, Task)
    with Trial(task) as building:
        building._process.kill()
        assert building.build(tmp_path) == "its process ended with status -9"


def test_the_process_ends_with_the_block(plain: Selected) -> None:
    task = task_of(*plain, {})
    assert isinstance(task, Task)
    with pytest.raises(KeyboardInterrupt), Trial(task) as building:  # noqa: PT012
        pid = building._process.pid
        assert alive(pid)
        raise KeyboardInterrupt
    assert not alive(pid)


def test_what_cannot_be_built_is_said_in_short(plain: Selected, tmp_path: Path) -> None:
    task = task_of(*plain, {})
    assert isinstance(task, Task)
    told = verdict(answer(task, tmp_path, lambda: None))
    assert isinstance(told, ModelLoadError)
    assert len(told.message) < 1000


def test_short_memory_is_no_error_of_a_load(plain: Selected, tmp_path: Path) -> None:
    def short() -> None:
        raise MemoryError

    task = task_of(*plain, {})
    assert isinstance(task, Task)
    assert isinstance(verdict(answer(task, tmp_path, short)), str)
