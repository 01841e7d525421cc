"""What cannot work on this machine is refused in seconds, before a weight, in a few lines."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.errors import NbloaderError
from nbloader.localhub import LocalHub, RequestClass
from nbloader.machine import attached_models, machine_facts
from nbloader.records import GpuFacts, MachineFacts, MemoryFacts
from tests.conftest import Publish
from tests.samples import safetensors

pytestmark = pytest.mark.timed

MOST_SECONDS = 3.0
MOST_LINES = 6

MB = 1_000_000
TENSORS = bytes(40 * MB)
WEIGHTS = safetensors(
    {"w": {"dtype": "F32", "shape": [10 * MB], "data_offsets": [0, 40 * MB]}}, TENSORS
)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


BERT = {
    "config.json": as_json({"model_type": "bert", "architectures": ["BertModel"]}),
    "model.safetensors": WEIGHTS,
}
PICKLED = {"config.json": BERT["config.json"], "pytorch_model.bin": TENSORS}


def pipeline(class_name: str, **components: list[str]) -> dict[str, bytes]:
    """Return the files of a pipeline whose last component alone has weights."""
    files = {"model_index.json": as_json({"_class_name": class_name, **components})}
    for name, (_, part) in components.items():
        files[f"{name}/preprocessor_config.json"] = b"{}"
        if not part.endswith("Processor"):
            files[f"{name}/config.json"] = b"{}"
            files[f"{name}/diffusion_pytorch_model.safetensors"] = WEIGHTS
    return files


VAE = ["diffusers", "AutoencoderKL"]


def refused(hub: LocalHub, cache: Path, repo_id: str, **keywords: Any) -> NbloaderError:
    """Load, and hold what every refusal has to keep."""
    began_at = time.monotonic()
    with pytest.raises(NbloaderError) as caught:
        nbloader.load(
            repo_id, **{"endpoint": hub.endpoint, "cache_dir": cache, "view": "none", **keywords}
        )
    seconds = time.monotonic() - began_at
    assert hub.counters().of(RequestClass.CDN_GET).body_bytes <= 64 * 1024  # a header, not a weight
    assert not [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > MB]
    assert len(str(caught.value).splitlines()) <= MOST_LINES
    assert seconds < MOST_SECONDS
    return caught.value


def on(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let this machine have other memory or GPUs than it has."""

    def facts(**keywords: Any) -> MachineFacts:
        return replace(machine_facts(**keywords), **changes)

    monkeypatch.setattr("nbloader.assess.machine_facts", facts)


def test_a_pipeline_that_the_installed_diffusers_lacks(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    error = refused(hub, tmp_path, publish(pipeline("PipelineOfTomorrow", vae=VAE)))
    assert error.reference == "unsupported-class"
    assert "PipelineOfTomorrow" in error.message
    assert "pip install" in error.hint


def test_a_component_that_the_installed_transformers_lacks(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    files = pipeline(
        "StableDiffusionPipeline", vae=VAE, processor=["transformers", "Qwen99VLProcessor"]
    )
    error = refused(hub, tmp_path, publish(files))
    assert error.reference == "unsupported-class"
    assert "Qwen99VLProcessor" in error.message


def test_a_family_of_models_that_the_installed_transformers_lacks(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    config = {"model_type": "bert_of_tomorrow", "architectures": ["BertOfTomorrowModel"]}
    error = refused(hub, tmp_path, publish({**BERT, "config.json": as_json(config)}))
    assert error.reference == "unsupported-class"
    assert "bert_of_tomorrow" in error.message or "BertOfTomorrowModel" in error.message


def test_a_processor_that_needs_a_missing_package(
    hub: LocalHub, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # as if it were not installed
    files = pipeline(
        "QwenImageEditPlusPipeline", vae=VAE, processor=["transformers", "Qwen2VLProcessor"]
    )
    error = refused(hub, tmp_path, publish(files))
    assert error.reference == "missing-package"
    assert "torchvision" in error.message
    assert "torchvision" in error.hint


def test_more_than_the_disk_holds(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    error = refused(hub, tmp_path, publish(BERT), settings={"required_disk_space_gb": 1_000_000})
    assert error.reference == "not-enough-disk"
    assert "1.0 PB required" in error.message


def test_more_than_the_memory_holds(
    hub: LocalHub, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, memory=MemoryFacts(available=500 * MB, total=2000 * MB), gpus=())
    error = refused(hub, tmp_path, publish(BERT))
    assert error.reference == "does-not-fit"
    assert "of RAM" in error.message


def test_more_than_the_gpu_holds(
    hub: LocalHub, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = GpuFacts(name="Tesla T4", free=100 * MB, total=16_000 * MB, capability=(7, 5))
    on(monkeypatch, gpus=(small,), driver=None, torch=None)
    error = refused(hub, tmp_path, publish(BERT), device="cuda")
    assert error.reference == "does-not-fit"
    assert "100 MB free on Tesla T4" in error.message


def test_a_plan_that_was_asked_for_and_does_not_work(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    error = refused(hub, tmp_path, publish(BERT), device="cpu", plan="model-offload")
    assert error.reference == "does-not-fit"
    assert error.message.startswith("plan=model-offload does not work here: ")


def test_pickled_weights(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    error = refused(hub, tmp_path, publish(PICKLED))
    assert error.reference == "pickled-weights"
    assert "pytorch_model.bin" in error.message
    assert "allow_pickle=True" in error.hint


def test_force_passes_over_what_is_reckoned_and_never_over_what_is_not_safe(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    error = refused(hub, tmp_path, publish(PICKLED), force=True)
    assert error.reference == "pickled-weights"


def test_arguments_for_the_library_are_looked_at_before_anything_is_asked(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    error = refused(hub, tmp_path, publish(BERT), loader_kwargs={"model_kwargs": 3})
    assert error.reference == "invalid-argument"
    assert hub.requests() == []


def test_kaggle_without_internet_says_where_to_switch_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached = tmp_path / "input" / "all-minilm-l6-v2" / "transformers" / "default" / "1"
    attached.mkdir(parents=True)
    (attached / "modules.json").write_text('[{"idx": 0}]')
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setattr(
        "nbloader.assess.attached_models", lambda: attached_models(tmp_path / "input")
    )
    with pytest.raises(NbloaderError) as caught:
        nbloader.load(
            "sentence-transformers/all-MiniLM-L6-v2",
            endpoint="http://127.0.0.1:9",
            cache_dir=tmp_path / "cache",
            settings={"max_retries": 1},
            view="none",
        )
    assert caught.value.reference == "hub-unreachable"
    assert "Internet" in caught.value.hint
    assert f'nbloader.load("{attached}")' in caught.value.hint
    assert len(str(caught.value).splitlines()) <= MOST_LINES
