"""Weights read straight to a real GPU, or to memory that is pinned for one.

Skipped where torch sees none; what needs no GPU is in tests/loaders/test_direct.py.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_models import save_flux
from nbloader import loaders
from nbloader.loaders.reading import Reading
from nbloader.records import Method, Notice, PlacedComponent, Placement, Selection
from tests.differential.comparison import differences
from tests.models import picture, save_classifier, save_pipeline, selected, selection_of

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    pytest.mark.filterwarnings("ignore"),  # of the libraries, while they compute
]

GB = 1_000_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    save_pipeline(made / "pipeline")
    save_classifier(made / "classifier")
    return made


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the tensors that the libraries take, by their devices."""
    found: list[str] = []
    take, take_one = Reading.take, Reading.take_one

    def noting(self: Reading, path: Any) -> Any:
        tensors = take(self, path)
        found.extend(str(each.device) for each in (tensors or {}).values())
        return tensors

    def noting_one(self: Reading, path: Any, name: str) -> Any:
        tensor = take_one(self, path, name)
        found.extend([] if tensor is None else [str(tensor.device)])
        return tensor

    monkeypatch.setattr(Reading, "take", noting)
    monkeypatch.setattr(Reading, "take_one", noting_one)
    return found


def placed(place: Path, dtype: str, devices: dict[str, str] | None = None) -> Placement:
    """All on the first GPU, with the figures that the plan would have."""
    share = 1 if dtype == "float32" else 2
    components = tuple(
        PlacedComponent(
            name=part.name,
            device=(devices or {}).get(part.name, "cuda"),
            dtype=dtype,
            bytes=part.total // share,
        )
        for part in selected(place)[1]
    )
    gpus = torch.cuda.device_count()
    return Placement(
        method=Method.MULTI_GPU if devices else Method.GPU,
        device="cuda:0" if devices else "cuda",
        dtype=dtype,
        components=components,
        vram=(GB,) * gpus,
    )


def load(selection: Selection, place: Path, placement: Placement) -> Any:
    with closing(loaders.Building(selection, place, placement, {})) as building:
        while (told := building.step()) is not None:
            assert not isinstance(told, Notice), told
        return building.model()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_pipeline_is_what_the_library_makes(folder: Path, taken: list[str], dtype: str) -> None:
    from diffusers import StableDiffusionPipeline

    place = folder / "pipeline"
    ours = load(selection_of(place), place, placed(place, dtype))
    theirs = StableDiffusionPipeline.from_pretrained(
        place, dtype=getattr(torch, dtype), device_map="cuda"
    )
    for name in ("text_encoder", "unet", "vae"):
        assert differences(getattr(ours, name), getattr(theirs, name)) == []
    assert set(taken) == {"cuda:0"}
    assert np.array_equal(picture(ours), picture(theirs))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_model_is_what_the_library_makes(folder: Path, taken: list[str], dtype: str) -> None:
    import transformers

    place = folder / "classifier"
    ours = load(selection_of(place), place, placed(place, dtype))
    of_torch = getattr(torch, dtype)
    theirs = transformers.pipeline(
        "text-classification", str(place), dtype=of_torch, device="cuda:0"
    )
    assert differences(ours.model, theirs.model) == []
    assert ours("a good b") == theirs("a good b")
    assert set(taken) == {"cuda:0"}


def test_each_component_comes_to_its_gpu(folder: Path, taken: list[str]) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("torch sees one GPU")
    place = folder / "pipeline"
    devices = {"text_encoder": "cuda:1", "unet": "cuda:0", "vae": "cuda:1"}
    pipeline = load(selection_of(place), place, placed(place, "float32", devices))
    for name, device in devices.items():
        assert {str(each.device) for each in getattr(pipeline, name).parameters()} == {device}
    assert set(taken) == {"cuda:0", "cuda:1"}


def test_layers_that_wait_are_pinned_once(folder: Path, taken: list[str]) -> None:
    place = folder / "pipeline"
    selection = selection_of(place)
    whole = placed(place, "float32")
    expected = picture(load(selection, place, whole))
    waiting = replace(
        whole,
        method=Method.GROUP_OFFLOAD,
        group_stream=True,
        components=tuple(replace(part, device="cpu") for part in whole.components),
    )
    taken.clear()
    pipeline = load(selection, place, waiting)
    assert set(taken) == {"cpu"}
    weights = [each for part in (pipeline.unet, pipeline.vae) for each in part.parameters()]
    assert all(each.is_pinned() for each in weights)
    for _ in range(2):  # the second use of the hooks
        assert np.allclose(picture(pipeline), expected, atol=0.01)


def test_memory_stays_small_and_the_bus_is_used(tmp_path: Path) -> None:
    """A pipeline of 4 GB, from the page cache."""
    save_flux(tmp_path, 4 * GB)
    ways = ("nbloader", "safetensors load_file")
    ours, theirs = gpu._rows_of_folder(ways, tmp_path, "cuda", cold=False)
    assert ours["digest"] == theirs["digest"]
    assert ours["host"] < GB
    assert ours["device"] < 1.1 * sum(path.stat().st_size for path in tmp_path.rglob("*.safe*"))
    assert ours["seconds"] < theirs["seconds"] / 2
