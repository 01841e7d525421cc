"""How a model that was built computes attention, against the library's own lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbloader import loaders
from nbloader.errors import ModelLoadError
from nbloader.loaders.attention import attention_arguments, attention_backend, with_attention
from nbloader.loaders.placing import Steps, steps
from nbloader.loaders.versions import versions
from nbloader.records import Kind, Method, Notice, Placement
from tests.differential.cases.transformers_models import save
from tests.differential.comparison import differences
from tests.differential.pipeline_parts import parts_of
from tests.models import seeded, selection_of
from tests.samples import SELECTION

pytestmark = pytest.mark.filterwarnings("ignore")

CPU = Placement(method=Method.CPU, device="cpu", dtype="float32")


def made(folder: Path, attention: str | None, **loader_kwargs: Any) -> tuple[Any, list[Notice]]:
    """What nbloader builds of a folder, and what it tells of it."""
    told: list[Notice] = []
    selection = selection_of(folder)
    with closing(
        loaders.Building(selection, folder, CPU, loader_kwargs, attention=attention)
    ) as building:
        while (one := building.step()) is not None:
            told += [one] if isinstance(one, Notice) else []
        return building.model(), told


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    seeded(lambda: save("BertForSequenceClassification", {}, "text", folder))
    return folder


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import diffusers

    folder = tmp_path_factory.mktemp("flux")
    seeded(
        lambda: diffusers.FluxPipeline(**parts_of(diffusers.FluxPipeline)).save_pretrained(folder)
    )
    return folder


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import diffusers

    folder = tmp_path_factory.mktemp("unet")
    parts = parts_of(diffusers.LDMPipeline)
    seeded(lambda: diffusers.LDMPipeline(**parts).save_pretrained(folder))
    return folder


@pytest.fixture
def backend_of_all() -> Iterator[Any]:
    """Gives what every model of diffusers computes with, and puts it back."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

    before, _ = Registry.get_active_backend()
    yield lambda: Registry.get_active_backend()[0].value
    Registry.set_active_backend(before)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_a_model_of_transformers_computes_as_it_is_asked_to(bert: Path, attention: str) -> None:
    import transformers

    ours, told = made(bert, attention)
    theirs = transformers.pipeline(
        "text-classification",
        model=str(bert),
        device="cpu",
        model_kwargs={"attn_implementation": attention},
    )
    assert ours.model.config._attn_implementation == attention
    assert theirs.model.config._attn_implementation == attention
    assert ours("a good b") == theirs("a good b")
    assert differences(ours, theirs) == []
    assert told == []


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_an_embedder_computes_as_it_is_asked_to(bert: Path, tmp_path: Path, attention: str) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(bert), device="cpu").save_pretrained(str(tmp_path))
    ours, told = made(tmp_path, attention)
    theirs = SentenceTransformer(
        str(tmp_path), device="cpu", model_kwargs={"attn_implementation": attention}
    )
    for model in (ours, theirs):
        assert model[0].auto_model.config._attn_implementation == attention
    assert (ours.encode("a good b") == theirs.encode("a good b")).all()
    assert told == []


def backends(transformer: Any) -> set[Any]:
    """What the processors of a transformer of diffusers were told."""
    return {
        module.processor._attention_backend
        for module in transformer.modules()
        if hasattr(getattr(module, "processor", None), "_attention_backend")
    }


def called(transformer: Any) -> Any:
    import torch

    config = transformer.config

    def call() -> Any:
        return transformer(
            hidden_states=torch.randn(1, 4, config.in_channels),
            encoder_hidden_states=torch.randn(1, 3, config.joint_attention_dim),
            pooled_projections=torch.randn(1, config.pooled_projection_dim),
            timestep=torch.tensor([0.5]),
            img_ids=torch.zeros(4, 3),
            txt_ids=torch.zeros(3, 3),
        )[0]

    with torch.no_grad():
        return seeded(call)


@pytest.mark.parametrize(
    ("attention", "backend"), [("sdpa", "native"), ("_native_math", "_native_math")]
)
def test_the_denoiser_of_a_pipeline_computes_as_it_is_asked_to(
    flux: Path, attention: str, backend: str, backend_of_all: Any
) -> None:
    import diffusers

    ours, told = made(flux, attention)
    assert backend_of_all() == "native"  # the library sets it for every model
    theirs = diffusers.FluxPipeline.from_pretrained(str(flux))
    theirs.transformer.set_attention_backend(backend)
    assert backend_of_all() == backend
    assert backends(ours.transformer) == backends(theirs.transformer) == {backend}
    assert (called(ours.transformer) == called(theirs.transformer)).all()
    assert told == []


def test_a_pipeline_that_the_caller_places_is_told_as_well(flux: Path) -> None:
    ours, _ = made(flux, "sdpa", quantization_config=None, device_map=None)
    assert backends(ours.transformer) == {"native"}


def test_nothing_is_told_by_default(flux: Path, bert: Path) -> None:
    assert backends(made(flux, None)[0].transformer) == {None}
    assert made(bert, None)[0].model.config._attn_implementation == "sdpa"


def test_a_unet_computes_with_torchs_own_and_cannot_be_told_another(unet: Path) -> None:
    assert made(unet, "sdpa")[1] == []
    _, (notice,) = made(unet, "_native_math")
    assert (notice.reference, notice.message) == (
        "attention-not-taken",
        "'UNet2DModel' cannot be told to compute attention as '_native_math': it computes as it "
        "always does",
    )


def test_xformers_is_switched_on_for_the_pipeline_of_a_unet(unet: Path) -> None:
    # By the library's own call, which says here that it has neither the package nor a GPU.
    with pytest.raises(ModelLoadError, match=r"facebookresearch/xformers|only available for GPU"):
        made(unet, "xformers")


def test_where_no_part_has_attention_of_its_own_it_is_told(tmp_path: Path) -> None:
    import diffusers

    parts = parts_of(diffusers.DanceDiffusionPipeline)
    diffusers.DanceDiffusionPipeline(**parts).save_pretrained(tmp_path)
    _, (notice,) = made(tmp_path, "_native_math")
    assert notice.reference == "attention-not-taken"


def todo(kind: Kind, attention: str | None) -> Steps:
    selection = replace(SELECTION, kind=kind)
    return with_attention(steps(selection, CPU, versions()), selection, attention)


def test_each_library_gets_its_own_name() -> None:
    for kind in (Kind.TRANSFORMERS, Kind.SENTENCE_TRANSFORMERS):
        plain, asked = todo(kind, None), todo(kind, "flash_attention_2")
        own = {"attn_implementation": "flash_attention_2"}
        nested = {**plain.arguments["model_kwargs"], **own}
        assert asked == replace(plain, arguments={**plain.arguments, "model_kwargs": nested})
    assert todo(Kind.DIFFUSERS, "flash_attention_2") == todo(Kind.DIFFUSERS, None)
    assert attention_backend("flash_attention_2") == "flash"
    assert (attention_arguments(None), attention_backend(None)) == ({}, "")
    for call, name in ((attention_arguments, "sage"), (attention_backend, "eager")):
        with pytest.raises(ModelLoadError, match=f"has no attention '{name}'"):
            call(name)
