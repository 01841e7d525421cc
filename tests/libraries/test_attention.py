"""Ways to compute attention: the table against the libraries, and what is read of their files."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbloader.libraries import (
    ATTENTIONS,
    attention_facts,
    attention_named,
    is_hub_kernel,
    near_attentions,
)
from nbloader.records import AttentionFacts, Component, Kind, Selection
from tests.samples import SELECTION

OTHER_HARDWARE = {"_native_npu", "_native_xla"}


def selection_of(kind: Kind, **component: Any) -> Selection:
    file = "part/model.safetensors"
    part = Component(name="part", paths=(file,), weights=(file,), **component)
    return replace(SELECTION, kind=kind, components=(part,))


def taken_by(kind: Kind, name: str) -> frozenset[str] | None:
    """What the files say that a class takes."""
    library = "diffusers" if kind is Kind.DIFFUSERS else "transformers"
    facts = attention_facts(selection_of(kind, library=library, class_name=name), "sdpa")
    ((_, takes),) = facts.classes
    return takes


def test_the_table_has_what_the_libraries_have() -> None:
    from diffusers.models.attention_dispatch import _HUB_KERNELS_REGISTRY, AttentionBackendName
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    names = {each.value for each in AttentionBackendName}
    kernels = {each.value for each in _HUB_KERNELS_REGISTRY}
    assert {each.diffusers for each in ATTENTIONS if each.diffusers} == (
        names - kernels - OTHER_HARDWARE
    )
    assert {name for name in names if is_hub_kernel(name)} == kernels
    transformers = {each.transformers for each in ATTENTIONS if each.transformers}
    assert transformers == {"eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()} - {"paged|eager"}


def test_the_table_asks_for_what_the_libraries_ask_for() -> None:
    from diffusers.models import attention_dispatch as dispatch
    from transformers.modeling_flash_attention_utils import FLASH_ATTENTION_COMPATIBILITY_MATRIX

    versions = {
        "flash_attn": dispatch._REQUIRED_FLASH_VERSION,
        "sageattention": dispatch._REQUIRED_SAGE_VERSION,
        "torch": dispatch._REQUIRED_FLEX_VERSION.removesuffix(".0"),
        "xformers": dispatch._REQUIRED_XFORMERS_VERSION,
    }
    for way in ATTENTIONS:
        wanted = way.versions.get("diffusers")
        assert wanted == (f">={versions[way.package]}" if way.package in versions else None)
    for number, matrix in FLASH_ATTENTION_COMPATIBILITY_MATRIX.items():
        flash = attention_named(f"flash_attention_{number}")
        assert flash is not None
        assert flash.capability == (matrix.get("cuda_min_major_version", 8), 0)
    constraints = dispatch._AttentionBackendRegistry._constraints
    for way in ATTENTIONS:
        if way.diffusers:
            found = constraints[dispatch.AttentionBackendName(way.diffusers)]
            assert (dispatch._check_qkv_dtype_bf16_or_fp16 in found) is way.in_16_bits


@pytest.mark.parametrize(
    "name",
    ["org/name", "org/name@v1", "org/name:fn", "org/name@v1:fn", "kernels-community/flash-attn2"],
)
def test_a_kernel_of_the_hub_is_known_as_the_library_knows_it(name: str) -> None:
    from transformers.integrations.hub_kernels import is_kernel

    assert is_hub_kernel(name)
    assert is_kernel(name)


def test_names_that_are_not_known() -> None:
    assert attention_named("flash_attn") is None
    assert near_attentions("flash-attention-2")[0] == "flash_attention_2"
    assert near_attentions("sdp") == ["sdpa"]
    assert near_attentions("Xformers") == ["xformers"]
    usual = near_attentions("\x1b[2J")
    assert usual[:3] == ["sdpa", "eager", "flex_attention"]
    assert not any(name.startswith("_") for name in usual)


def test_one_name_is_translated_for_each_library() -> None:
    for ours, transformers, diffusers in (
        ("sdpa", "sdpa", "native"),
        ("flex_attention", "flex_attention", "flex"),
        ("flash_attention_2", "flash_attention_2", "flash"),
        ("flash_attention_3", "flash_attention_3", "_flash_3"),
        ("sage", "", "sage"),
        ("xformers", "", "xformers"),
        ("eager", "eager", ""),
    ):
        for name in filter(None, (ours, transformers, diffusers)):
            way = attention_named(name)
            assert way is not None
            assert (way.name, way.of("transformers"), way.of("diffusers")) == (
                ours,
                transformers,
                diffusers,
            )


@pytest.mark.parametrize(
    "name",
    [
        "BertForMaskedLM",
        "DebertaV2Model",
        "GptOssForCausalLM",
        "LlamaForCausalLM",
        "MiniMaxM3SparseForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "T5ForConditionalGeneration",
        "WhisperForConditionalGeneration",
        "XLNetLMHeadModel",
    ],
)
def test_what_a_class_of_transformers_supports(name: str) -> None:
    import transformers

    cls = getattr(transformers, name)
    flashes = cls._compatible_flash_implementations
    flags = {
        "flash_attention_2": cls._supports_flash_attn,
        "flash_attention_3": cls._supports_flash_attn,
        "flash_attention_4": cls._supports_flash_attn,
        "flex_attention": cls._supports_flex_attn,
        "sdpa": cls._supports_sdpa,
    }
    ways = {
        way
        for way, flag in flags.items()
        if flag and not (flashes and "flash" in way and way not in flashes)
    }
    assert taken_by(Kind.TRANSFORMERS, name) == frozenset({"eager", *ways})


@pytest.mark.parametrize(
    "name",
    [
        "AuraFlowTransformer2DModel",
        "FluxTransformer2DModel",
        "QwenImageTransformer2DModel",
        "SD3Transformer2DModel",
        "UNet2DConditionModel",
        "WanTransformer3DModel",
        "ZImageTransformer2DModel",
    ],
)
def test_which_classes_of_diffusers_can_be_told(name: str) -> None:
    import diffusers
    import torch

    cls = getattr(diffusers, name)
    fewer = {"num_layers": 1} if "num_layers" in inspect.signature(cls.__init__).parameters else {}
    with torch.device("meta"):
        model = cls(**fewer)
    told = any(
        hasattr(getattr(module, "processor", None), "_attention_backend")
        for module in model.modules()
    )
    takes = taken_by(Kind.DIFFUSERS, name)
    assert takes is not None
    assert ("flash_attention_2" in takes) is told
    assert "sdpa" in takes
    assert "eager" not in takes
    assert ("xformers" in takes) is (told or name[:2] in ("UN", "SD"))


def test_the_class_of_an_embedder_is_that_of_its_family() -> None:
    selection = selection_of(
        Kind.SENTENCE_TRANSFORMERS,
        library="sentence_transformers.models",
        class_name="Transformer",
        model_type="funnel",
    )
    assert [name for name, _ in attention_facts(selection, "sdpa").classes] == ["FunnelModel"]


def test_text_encoders_and_autoencoders_of_a_pipeline_are_left_out() -> None:
    for library, name in (
        ("transformers", "CLIPTextModel"),
        ("diffusers", "AutoencoderKL"),
        ("diffusers", "DDIMScheduler"),
    ):
        selection = selection_of(Kind.DIFFUSERS, library=library, class_name=name)
        assert attention_facts(selection, "sdpa").classes == ()


LANGUAGE = selection_of(Kind.TRANSFORMERS, library="transformers", class_name="OddModel")
INIT = 'a = {\n    "models.odd": [\n        "OddModel",\n    ],\n}\n'
UTILS = "class AttentionInterface(X):\n    _global_mapping = {\n        'x': f,\n    }\n"


@pytest.mark.parametrize(
    ("body", "takes"),
    [
        ("class OddModel(PreTrainedModel):\n    pass\n", {"eager"}),
        ("class OddModel(PreTrainedModel):\n    _supports_sdpa = True\n", {"eager", "sdpa"}),
        ("class OddModel(PreTrainedModel):\n    _supports_sdpa: bool = f()\n", {"eager", "sdpa"}),
        (
            "class OddModel(PreTrainedModel):\n    _supports_flash_attn_2 = True\n",
            {"eager", "flash_attention_2", "flash_attention_3", "flash_attention_4"},
        ),
        ("class OddModel(Elsewhere):\n    _supports_sdpa = True\n", None),
        ("class OddModel(OddModel):\n    pass\n", None),
        ("class OddModel(PreTrainedModel:\n", None),
        ("", None),
    ],
)
def test_what_cannot_be_read_is_not_told(tmp_path: Path, body: str, takes: set[str] | None) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "__init__.py").write_text(INIT)
    (tmp_path / "models/odd.py").write_text(body)
    (tmp_path / "modeling_utils.py").write_text(UTILS.replace("'", '"'))

    def find(name: str) -> Path | None:
        return tmp_path if name == "transformers" else None

    facts = attention_facts(LANGUAGE, "sdpa", find=find)
    assert facts == AttentionFacts(
        name="sdpa",
        offered=False,
        classes=(("OddModel", None if takes is None else frozenset(takes)),),
    )
    (tmp_path / "modeling_utils.py").unlink()
    assert attention_facts(LANGUAGE, "sdpa", find=find).offered is None
    assert attention_facts(LANGUAGE, "sdpa", find=lambda _: None) == AttentionFacts(name="sdpa")
