"""Weights are read to where they will stay as soon as they are there, and torch is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbloader.errors import MissingTensorsError
from nbloader.loaders.reading import Reading
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.records import Event, FileDone, Notice
from tests.differential.comparison import differences
from tests.models import save_classifier, save_pipeline
from tests.straight import straight_on_the_cpu


@pytest.fixture
def load(load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    straight_on_the_cpu(monkeypatch)
    return load


def reading_threads() -> int:
    return sum(thread.name == "nbloader-read" for thread in threading.enumerate())


def test_the_first_weights_are_read_while_others_still_arrive(
    hub: LocalHub,
    hub_root: Path,
    load: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from diffusers import DiffusionPipeline

    folder = hub_root / "models" / "org" / "straight-cold"
    save_pipeline(folder)
    path = "*/unet/*.safetensors"
    hub.set_faults([Fault(RequestClass.CDN_GET, path=path, total_bytes_per_second=60_000)])
    told: list[Any] = []
    add = Reading.add

    def noting(self: Reading, path: Path, device: str) -> None:
        told.append((path.parent.name, device))
        add(self, path, device)

    monkeypatch.setattr(Reading, "add", noting)
    pipeline = load("org/straight-cold", on_event=told.append)
    done = [each for each in told if isinstance(each, tuple | FileDone)]
    last = max(number for number, each in enumerate(done) if isinstance(each, FileDone))
    before = [each for each in done[:last] if isinstance(each, tuple)]
    after = [each for each in done[last:] if isinstance(each, tuple)]
    assert sorted(before) == [("text_encoder", "cpu"), ("vae", "cpu")]
    assert after == [("unet", "cpu")]
    assert differences(pipeline, DiffusionPipeline.from_pretrained(folder)) == []
    assert [each for each in told if isinstance(each, Notice)] == []
    assert reading_threads() == 0


def test_a_model_is_read_shard_by_shard_as_they_arrive(
    hub: LocalHub,
    hub_root: Path,
    load: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import transformers

    folder = hub_root / "models" / "org" / "straight-shards"
    save_classifier(folder)
    model = transformers.BertForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="200KB")
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 1
    hub.set_faults(
        [Fault(RequestClass.CDN_GET, path=f"*/{shards[-1]}", total_bytes_per_second=60_000)]
    )
    told: list[Any] = []
    add = Reading.add

    def noting(self: Reading, path: Path, device: str) -> None:
        if "snapshots" in path.parts:  # A rehearsal has files of its own.
            told.append(path.name)
        add(self, path, device)

    monkeypatch.setattr(Reading, "add", noting)
    ours = load("org/straight-shards", kind="transformers", on_event=told.append)
    done = [each for each in told if isinstance(each, str | FileDone)]
    assert done[-2:] == [FileDone(path=shards[-1]), shards[-1]]
    assert {each for each in done[:-2] if isinstance(each, str)} == set(shards[:-1])
    theirs = transformers.pipeline("text-classification", str(folder), device="cpu")
    assert differences(ours, theirs) == []


def test_a_load_that_fails_leaves_nothing_behind(hub_root: Path, load: Callable[..., Any]) -> None:
    from safetensors.torch import load_file, save_file

    folder = hub_root / "models" / "org" / "straight-lacking"
    save_pipeline(folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    told: list[Event] = []
    with pytest.raises(MissingTensorsError):
        load("org/straight-lacking", on_event=told.append)
    assert reading_threads() == 0


_EARLY = """
import sys
from pathlib import Path

from nbloader.loaders import direct
from nbloader.loaders.reading import Reading
from nbloader.records import Method

direct._DEVICES, direct._METHODS = frozenset({"cpu"}), frozenset(Method)
add, told = Reading.add, []

def noting(self, path, device):
    told.append(path.parent.name)
    add(self, path, device)

def hear(event):
    if event.type == "libraries-imported":
        told.append(event.type)

Reading.add = noting
import nbloader
assert "torch" not in sys.modules
nbloader.load(Path(sys.argv[1]), device="cpu", view="none", on_event=hear)
print(told)
"""


def test_weights_are_read_before_the_libraries_are_imported(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    save_pipeline(folder)
    done = subprocess.run(
        [sys.executable, "-c", _EARLY, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)},
    )
    told = done.stdout.splitlines()[-1]
    assert told == "['text_encoder', 'unet', 'vae', 'libraries-imported']"
