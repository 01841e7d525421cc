"""Every method of placement on a real GPU, with tiny models. Skipped where torch sees none."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.architectures import ARCHITECTURES
from benchmarks.memory import Row, measure
from nbloader import loaders
from nbloader.machine import torch_facts
from nbloader.records import Method, PlacedComponent, Placement, Quantization, Selection
from tests.models import built, picture, save_classifier, save_embedder, save_pipeline, selection_of

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    pytest.mark.filterwarnings("ignore"),  # of the libraries, while they compute
]

OFFLOADING = [Method.MODEL_OFFLOAD, Method.GROUP_OFFLOAD, Method.SEQUENTIAL_OFFLOAD]
QUANTIZING = [Method.FOUR_BIT, Method.EIGHT_BIT, Method.FOUR_BIT_MODEL_OFFLOAD]
MB = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    save_pipeline(made / "pipeline")
    save_classifier(made / "classifier")
    save_embedder(made / "embedder")
    return made


@pytest.fixture(autouse=True)
def _free_gpu() -> Iterator[None]:
    import gc

    yield
    gc.collect()
    torch.cuda.empty_cache()


def placed(selection: Selection, method: Method, device: str = "cuda", **changes: Any) -> Placement:
    """All components in float16; the text encoder, or the one model, quantized if asked."""
    names = [part.name for part in selection.components if part.weights]
    small = "model" if "model" in names else "text_encoder"
    to = {
        Method.FOUR_BIT: Quantization.FOUR_BIT,
        Method.FOUR_BIT_MODEL_OFFLOAD: Quantization.FOUR_BIT,
        Method.FOUR_BIT_MULTI_GPU: Quantization.FOUR_BIT,
        Method.EIGHT_BIT: Quantization.EIGHT_BIT,
    }.get(method)
    rests = "cpu" if "offload" in method else device
    components = tuple(
        PlacedComponent(
            name=name,
            device=rests,
            dtype="float16",
            bytes=1,
            quantization=to if name == small else None,
        )
        for name in names
    )
    made = Placement(method=method, device=device, dtype="float16", components=components)
    return replace(made, **changes)


def load(folder: Path, wanted: Placement) -> Any:
    selection = selection_of(folder)
    loaders.check_device(wanted)
    model = built(selection, folder, wanted, {})
    loaders.check_modules(loaders.modules_of(model, selection), wanted)
    return model


def bytes_on_gpus(model: Any) -> int:
    modules = [part for part in model.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [tensor for part in modules for tensor in part.parameters()]
    return sum(each.numel() * each.element_size() for each in tensors if each.is_cuda)


@pytest.mark.parametrize("method", [Method.GPU, *OFFLOADING])
def test_a_pipeline_makes_the_same_picture_by_every_method(folder: Path, method: Method) -> None:
    place = folder / "pipeline"
    selection = selection_of(place)
    expected = picture(load(place, placed(selection, Method.GPU)))
    pipeline = load(place, placed(selection, method))
    assert (bytes_on_gpus(pipeline) > 0) == (method is Method.GPU)
    assert np.allclose(picture(pipeline), expected, atol=0.01)
    assert np.allclose(picture(pipeline), expected, atol=0.01)  # the second use of the hooks


def test_group_offload_with_pinned_copies(folder: Path) -> None:
    place = folder / "pipeline"
    selection = selection_of(place)
    expected = picture(load(place, placed(selection, Method.GPU)))
    pipeline = load(place, placed(selection, Method.GROUP_OFFLOAD, group_stream=True))
    assert pipeline.unet.conv_in.weight.is_pinned()
    assert np.allclose(picture(pipeline), expected, atol=0.01)


@pytest.mark.parametrize("method", QUANTIZING)
def test_a_pipeline_with_a_quantized_component(folder: Path, method: Method) -> None:
    pytest.importorskip("bitsandbytes")
    place = folder / "pipeline"
    selection = selection_of(place)
    expected = picture(load(place, placed(selection, Method.GPU)))
    pipeline = load(place, placed(selection, method))
    weights = {weight.dtype for weight in pipeline.text_encoder.parameters()}
    assert (torch.int8 if method is Method.EIGHT_BIT else torch.uint8) in weights
    assert np.allclose(picture(pipeline), expected, atol=0.05)


@pytest.mark.parametrize("method", [Method.FOUR_BIT, Method.EIGHT_BIT])
def test_a_transformer_of_diffusers_quantized(folder: Path, method: Method) -> None:
    pytest.importorskip("bitsandbytes")
    place = folder / "pipeline"
    selection = selection_of(place)
    wanted = placed(selection, method)
    to = next(part.quantization for part in wanted.components if part.quantization)
    moved = tuple(
        replace(part, quantization=to if part.name == "unet" else None)
        for part in wanted.components
    )
    pipeline = load(place, replace(wanted, components=moved))
    assert np.isfinite(picture(pipeline)).all()


@pytest.mark.parametrize("method", [Method.GPU, Method.FOUR_BIT, Method.EIGHT_BIT])
def test_models_of_transformers(folder: Path, method: Method) -> None:
    if method is not Method.GPU:
        pytest.importorskip("bitsandbytes")
    place = folder / "classifier"
    classifier = load(place, placed(selection_of(place), method))
    assert 0 < classifier("a good b")[0]["score"] <= 1
    place = folder / "embedder"
    embedder = load(place, placed(selection_of(place), method))
    loaders.check_embeddings(embedder)
    assert {tensor.device.type for tensor in embedder.parameters()} == {"cuda"}


def test_a_model_whose_last_layers_wait_in_memory(tmp_path: Path) -> None:
    """12 layers of 1.6 MB and embeddings: half of them fit into what the GPU may have."""
    place = tmp_path / "deep"
    save_classifier(
        place, hidden_size=256, num_hidden_layers=12, num_attention_heads=4, intermediate_size=1024
    )
    selection = selection_of(place)
    plain = load(place, placed(selection, Method.GPU))
    [expected] = plain("a good b")
    del plain
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    wanted = placed(selection, Method.CPU_OFFLOAD, max_memory={"cuda:0": 10 * MB, "cpu": 20 * MB})
    there = tuple(replace(part, device="cuda:0,cpu") for part in wanted.components)
    classifier = load(place, replace(wanted, components=there))
    assert set(classifier.model.hf_device_map.values()) == {0, "cpu"}
    for _ in range(2):  # The second use of the hooks is the same.
        [found] = classifier("a good b")
        assert found["label"] == expected["label"]
        assert found["score"] == pytest.approx(expected["score"], abs=0.01)
    weights = list(classifier.model.parameters())
    assert {weight.device.type for weight in weights} == {"cuda", "meta"}
    assert sum(weight.nbytes for weight in weights if weight.is_cuda) <= 10 * MB
    # Those that wait have come one by one, and gone again.
    assert torch.cuda.max_memory_allocated() - before < 12 * MB


def test_an_embedder_whose_layers_are_dealt_out(folder: Path) -> None:
    pytest.importorskip("sentence_transformers", minversion="6.2")
    place = folder / "embedder"
    selection = selection_of(place)
    expected = load(place, placed(selection, Method.GPU)).encode("a good b")
    wanted = placed(selection, Method.CPU_OFFLOAD, max_memory={"cuda:0": 200_000, "cpu": MB})
    there = tuple(replace(part, device="cuda:0,cpu") for part in wanted.components)
    embedder = load(place, replace(wanted, components=there))
    assert np.allclose(embedder.encode("a good b"), expected, atol=0.01)


def measured_whole(name: str, dtype: torch.dtype) -> Row:
    (architecture,) = [found for found in ARCHITECTURES if name in found.repo_id]
    *_, whole = measure(architecture, device="cuda", dtype=dtype, tiny=False)
    return whole


@pytest.mark.parametrize("name", ["MiniLM-L6", "stable-diffusion-v1-5"])
def test_no_peak_is_above_the_predicted(name: str) -> None:
    """Of models of their true size, one part after the other; within a tenth where it was tuned."""
    old = torch.cuda.get_device_capability() < (8, 0)
    dtype = torch.float16 if old else torch.bfloat16
    # In a process that has used no other kernels.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        whole = pool.submit(measured_whole, name, dtype).result()
    measured = whole.weights[0] + whole.activations[0]
    predicted = whole.weights[1] + whole.activations[1]
    assert measured <= predicted
    if "H200" in torch.cuda.get_device_name():
        assert predicted <= 1.1 * measured


@pytest.mark.parametrize("method", [Method.MULTI_GPU, Method.FOUR_BIT_MULTI_GPU])
def test_components_spread_over_two_gpus(folder: Path, method: Method) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("torch sees one GPU")
    pytest.importorskip("bitsandbytes")
    place = folder / "pipeline"
    selection = selection_of(place)
    expected = picture(load(place, placed(selection, Method.GPU)))
    wanted = placed(selection, method)
    where = {"text_encoder": "cuda:1", "unet": "cuda:0", "vae": "cuda:1"}
    spread = tuple(replace(part, device=where[part.name]) for part in wanted.components)
    pipeline = load(place, replace(wanted, components=spread))
    assert pipeline.hf_device_map == where
    assert np.allclose(picture(pipeline), expected, atol=0.05)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose U-Net has 130 MB in float16 and is stored in float32."""
    from diffusers import UNet2DConditionModel

    folder = tmp_path_factory.mktemp("large")
    save_pipeline(folder)
    unet = UNet2DConditionModel(
        block_out_channels=(128, 256, 512),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
    )
    unet.save_pretrained(folder / "unet")
    return folder


@pytest.mark.parametrize("method", [Method.GPU, *OFFLOADING])
def test_the_peak_on_the_gpu(large: Path, method: Method) -> None:
    selection = selection_of(large)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    pipeline = load(large, placed(selection, method))
    loading = torch.cuda.max_memory_allocated() - before
    weights = 2 * sum(weight.numel() for weight in pipeline.unet.parameters())
    picture(pipeline)
    using = torch.cuda.max_memory_allocated() - before
    if method in (Method.GPU, Method.MODEL_OFFLOAD):
        assert weights < using < 1.5 * weights + 50 * MB
    else:
        assert using < 0.5 * weights + 50 * MB
    if method is Method.GPU:
        assert loading < 1.2 * weights + 10 * MB
    else:
        assert loading < 10 * MB


def test_what_a_full_gpu_held_is_freed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import StableDiffusionPipeline

    from nbloader.errors import ModelLoadError

    before = torch.cuda.memory_allocated()

    def full(*arguments: Any, **keywords: Any) -> Any:
        held = torch.empty(64 * MB, device="cuda")
        free, _ = torch.cuda.mem_get_info()
        return held, torch.empty(2 * free, device="cuda")

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", full)
    place = folder / "pipeline"
    selection = selection_of(place)
    building = loaders.Building(
        selection, place, placed(selection, Method.GPU), {}, next_method=Method.GROUP_OFFLOAD
    )
    with closing(building), pytest.raises(ModelLoadError, match="does not fit on cuda") as caught:
        list(iter(building.step, None))
    assert 'plan="group-offload"' in caught.value.hint
    # What tests before have left may be freed along with it.
    assert torch.cuda.memory_allocated() <= before


def test_the_gpus_that_torch_finds() -> None:
    found = loaders.devices(torch_facts())
    assert len(found) == torch.cuda.device_count()
    assert all(0 < gpu.free <= gpu.total and gpu.source == "torch" for gpu in found)
