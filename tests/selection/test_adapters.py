"""Adapters are recognised by their tensors' names, and matched with models of their true sizes.

The models are made by diffusers itself without their weights, so that their names and widths are
those of the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbloader.records import AdapterFacts, AdapterKind
from nbloader.selection import adapter_families as families
from nbloader.selection.adapter_match import Base, matched, part_of
from nbloader.selection.adapters import Shapes, place_of, recognised
from tests.selection.published import MODELS, Made, base_of, shapes_of

# -- adapters of them ------------------------------------------------------------------------------

RANK = 4
# What the usual programs train.
_TRAINED = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
_MORE = (".ff.net.0.proj", ".ff.net.2", "img_mlp.net.0.proj", "proj_mlp", ".proj_out", ".proj_in")


def layers(family: str, ends: tuple[str, ...] = _TRAINED) -> dict[tuple[str, str], tuple[int, ...]]:
    """The weights that an adapter changes, by component and path."""
    return {
        (component, name.removesuffix(".weight")): shape
        for component, shapes in shapes_of(family).items()
        for name, shape in shapes.items()
        if name.endswith(tuple(f"{end}.weight" for end in ends))
    }


def pair(shape: tuple[int, ...], rank: int = RANK) -> tuple[tuple[int, ...], tuple[int, ...]]:
    kernel = shape[2:]
    return (rank, shape[1], *kernel), (shape[0], rank, *(1 for _ in kernel))


@cache
def in_diffusers(family: str) -> Made:
    made: Made = {}
    for (component, name), shape in layers(family).items():
        down, up = pair(shape)
        made[f"{component}.{name}.lora_A.weight"] = down
        made[f"{component}.{name}.lora_B.weight"] = up
    return made


def of_kohya(family: str) -> Made:
    prefixes = {"text_encoder": "te", "text_encoder_2": "te2"}
    if family == families.SDXL:
        prefixes["text_encoder"] = "te1"
    made: Made = {}
    for (component, name), shape in layers(family).items():
        down, up = pair(shape)
        key = f"lora_{prefixes.get(component, 'unet')}_{name.replace('.', '_')}"
        made[f"{key}.lora_down.weight"] = down
        made[f"{key}.lora_up.weight"] = up
        made[f"{key}.alpha"] = ()
    return made


def of_processors(family: str) -> Made:
    """As diffusers wrote it first."""
    made: Made = {}
    for (component, name), shape in layers(family, ("to_q", "to_k", "to_v", "to_out.0")).items():
        down, up = pair(shape)
        place, _, last = name.removesuffix(".0").rpartition(".")
        made[f"{component}.{place}.processor.{last}_lora.down.weight"] = down
        made[f"{component}.{place}.processor.{last}_lora.up.weight"] = up
    return made


def with_prefix(family: str) -> Made:
    return {
        f"diffusion_model.{name.partition('.')[2]}": shape
        for name, shape in in_diffusers(family).items()
        if name.startswith("transformer.")
    }


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("form", [in_diffusers, of_kohya])
def test_a_lora_of_a_model_is_matched_whole(family: str, form: Callable[[str], Made]) -> None:
    base = base_of(family)
    assert base.family == family
    found = matched("style.safetensors", 9, form(family), base)
    writer = "kohya" if form is of_kohya else "diffusers"
    assert found == AdapterFacts(
        path="style.safetensors",
        kind=AdapterKind.LORA,
        format=writer,
        made_for=family,
        base=family,
        matched=len(layers(family)),
        ranks=(RANK,),
        size=9,
        problem=families.why_not(AdapterKind.LORA, writer, family),
    )


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("other", MODELS)
def test_a_lora_of_another_model_is_known_for_it(family: str, other: str) -> None:
    if family == other:
        return
    found = matched("style.safetensors", 9, in_diffusers(family), base_of(other))
    assert families.are_other_models(found.made_for, found.base)
    assert found.unmatched + found.mismatched > 0
    assert found.example


@pytest.mark.parametrize("family", [families.SD1, families.SDXL])
def test_the_first_names_of_diffusers(family: str) -> None:
    found = matched("a", 9, of_processors(family), base_of(family))
    assert (found.made_for, found.unmatched, found.mismatched) == (family, 0, 0)
    assert found.matched == len(of_processors(family)) // 2


@pytest.mark.parametrize(
    "family", [families.QWEN_IMAGE, families.WAN, families.Z_IMAGE, families.LTX_VIDEO]
)
def test_names_of_comfyui(family: str) -> None:
    found = matched("a", 9, with_prefix(family), base_of(family))
    assert found.format == "ComfyUI"
    assert (found.made_for, found.unmatched, found.mismatched) == (family, 0, 0)
    assert found.problem == ""


def lora(layer: str, inputs: int, outputs: int, rank: int = RANK) -> Made:
    return {
        f"{layer}.lora_down.weight": (rank, inputs),
        f"{layer}.lora_up.weight": (outputs, rank),
        f"{layer}.alpha": (),
    }


FLUX_KOHYA: Made = {
    key: shape
    for layer, inputs, outputs in (
        ("lora_unet_double_blocks_0_img_attn_qkv", 3072, 9216),
        ("lora_unet_double_blocks_18_txt_attn_qkv", 3072, 9216),
        ("lora_unet_double_blocks_3_img_attn_proj", 3072, 3072),
        ("lora_unet_double_blocks_3_txt_attn_proj", 3072, 3072),
        ("lora_unet_double_blocks_3_img_mlp_0", 3072, 12288),
        ("lora_unet_double_blocks_3_img_mlp_2", 12288, 3072),
        ("lora_unet_double_blocks_3_txt_mlp_0", 3072, 12288),
        ("lora_unet_double_blocks_3_txt_mlp_2", 12288, 3072),
        ("lora_unet_double_blocks_3_img_mod_lin", 3072, 18432),
        ("lora_unet_double_blocks_3_txt_mod_lin", 3072, 18432),
        ("lora_unet_single_blocks_37_linear1", 3072, 21504),
        ("lora_unet_single_blocks_37_linear2", 15360, 3072),
        ("lora_unet_single_blocks_37_modulation_lin", 3072, 9216),
        ("lora_unet_img_in", 64, 3072),
        ("lora_unet_txt_in", 4096, 3072),
        ("lora_unet_final_layer_linear", 3072, 64),
        ("lora_unet_time_in_in_layer", 256, 3072),
        ("lora_unet_vector_in_out_layer", 3072, 3072),
        ("lora_unet_guidance_in_in_layer", 256, 3072),
        ("lora_te1_text_model_encoder_layers_11_mlp_fc1", 768, 3072),
    )
    for key, shape in lora(layer, inputs, outputs).items()
}
FLUX_XLABS: Made = {
    key: shape
    for layer, inputs, outputs in (
        ("double_blocks.0.processor.qkv_lora1", 3072, 9216),
        ("double_blocks.0.processor.qkv_lora2", 3072, 9216),
        ("double_blocks.0.processor.proj_lora1", 3072, 3072),
        ("double_blocks.18.processor.proj_lora2", 3072, 3072),
        ("single_blocks.2.processor.qkv_lora", 3072, 9216),
        ("single_blocks.2.processor.proj_lora", 15360, 3072),
    )
    for key, shape in {
        f"{layer}.down.weight": (16, inputs),
        f"{layer}.up.weight": (outputs, 16),
    }.items()
}
FLUX_CONTROL: Made = {
    # black-forest-labs/FLUX.1-Canny-dev-lora: it sees a second picture, and brings norms.
    "double_blocks.0.img_attn.norm.query_norm.scale": (128,),
    "double_blocks.0.img_attn.qkv.lora_A.weight": (128, 3072),
    "double_blocks.0.img_attn.qkv.lora_B.weight": (9216, 128),
    "double_blocks.0.img_attn.qkv.lora_B.bias": (9216,),
    "img_in.lora_A.weight": (128, 128),
    "img_in.lora_B.weight": (3072, 128),
}
WAN_COMFYUI: Made = {
    f"diffusion_model.blocks.{block}.{layer}.lora_{side}.weight": shape
    for block in (0, 39)
    for layer, inputs, outputs in (
        ("self_attn.q", 5120, 5120),
        ("self_attn.o", 5120, 5120),
        ("cross_attn.k", 5120, 5120),
        ("cross_attn.o", 5120, 5120),
        ("ffn.0", 5120, 13824),
        ("ffn.2", 13824, 5120),
    )
    for side, shape in (("A", (32, inputs)), ("B", (outputs, 32)))
}
QWEN_LIGHTNING: Made = {
    # lightx2v/Qwen-Image-Lightning: the names of diffusers without the component.
    key: shape
    for layer, inputs, outputs in (
        ("transformer_blocks.0.attn.add_k_proj", 3072, 3072),
        ("transformer_blocks.0.attn.to_out.0", 3072, 3072),
        ("transformer_blocks.59.attn.to_add_out", 3072, 3072),
        ("transformer_blocks.59.img_mlp.net.0.proj", 3072, 12288),
        ("transformer_blocks.59.txt_mlp.net.2", 12288, 3072),
        ("transformer_blocks.3.img_mod.1", 3072, 18432),
    )
    for key, shape in lora(layer, inputs, outputs, 64).items()
}
SDXL_SGM: Made = {
    key: shape
    for layer, inputs, outputs in (
        ("lora_unet_input_blocks_4_1_proj_in", 640, 640),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", 640, 640),
        ("lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_k", 2048, 1280),
        ("lora_unet_middle_block_1_transformer_blocks_9_ff_net_2", 5120, 1280),
        ("lora_unet_output_blocks_2_1_transformer_blocks_9_attn2_to_out_0", 1280, 1280),
        ("lora_unet_output_blocks_5_1_transformer_blocks_1_attn1_to_v", 640, 640),
        ("lora_unet_label_emb_0_0", 2816, 1280),
        ("lora_unet_time_embed_2", 1280, 1280),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 768, 768),
        ("lora_te2_text_model_encoder_layers_31_mlp_fc2", 5120, 1280),
    )
    for key, shape in lora(layer, inputs, outputs).items()
} | {
    # LoCon changes convolutions, too.
    "lora_unet_input_blocks_3_0_op.lora_down.weight": (RANK, 320, 3, 3),
    "lora_unet_input_blocks_3_0_op.lora_up.weight": (320, RANK, 1, 1),
    "lora_unet_output_blocks_2_2_conv.lora_down.weight": (RANK, 1280, 3, 3),
    "lora_unet_output_blocks_2_2_conv.lora_up.weight": (1280, RANK, 1, 1),
    "lora_unet_middle_block_2_in_layers_2.lora_down.weight": (RANK, 1280, 3, 3),
    "lora_unet_middle_block_2_in_layers_2.lora_up.weight": (1280, RANK, 1, 1),
}


@pytest.mark.parametrize(
    ("shapes", "family", "writer", "count", "ranks"),
    [
        (FLUX_KOHYA, families.FLUX1, "kohya", 20, (4,)),
        (FLUX_XLABS, families.FLUX1, "XLabs", 6, (16,)),
        (FLUX_CONTROL, families.FLUX1, "original", 2, (128,)),
        (WAN_COMFYUI, families.WAN, "ComfyUI", 12, (32,)),
        (QWEN_LIGHTNING, families.QWEN_IMAGE, "diffusers", 6, (64,)),
        (SDXL_SGM, families.SDXL, "kohya", 13, (4,)),
    ],
)
def test_names_of_others_are_matched_with_those_of_diffusers(
    shapes: Made, family: str, writer: str, count: int, ranks: tuple[int, ...]
) -> None:
    assert matched("a", 9, shapes, base_of(family)) == AdapterFacts(
        path="a",
        kind=AdapterKind.LORA,
        format=writer,
        made_for=family,
        base=family,
        matched=count,
        ranks=ranks,
        size=9,
    )


def test_what_is_not_matched_is_named() -> None:
    base = base_of(families.SDXL)
    found = matched("a", 9, in_diffusers(families.SD1), base)
    assert (found.made_for, found.base) == (families.SD1, families.SDXL)
    narrow = {**in_diffusers(families.SDXL)}
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    narrow[f"{name}.lora_A.weight"] = (RANK, 768)
    one = matched("a", 9, narrow, base)
    assert (one.mismatched, one.unmatched) == (1, 0)
    assert one.example == (
        "'unet.mid_block_attentions_0_transformer_blocks_0_attn2_to_k' is 768 to 1280 wide, and "
        "2048 to 1280 here"
    )


# -- LyCORIS ---------------------------------------------------------------------------------------

LOHA: Made = {
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.hada_w1_a": (1280, 8),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.hada_w1_b": (8, 768),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.hada_w2_a": (1280, 8),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.hada_w2_b": (8, 768),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.alpha": (),
}
LOKR: Made = {
    "diffusion_model.layers.0.attention.to_q.lokr_w1": (4, 4),
    "diffusion_model.layers.0.attention.to_q.lokr_w2_a": (960, 16),
    "diffusion_model.layers.0.attention.to_q.lokr_w2_b": (16, 960),
    "diffusion_model.layers.0.attention.to_q.alpha": (),
}


def test_loha_and_lokr() -> None:
    loha = matched("a", 9, LOHA, base_of(families.SD1))
    assert loha == AdapterFacts(
        path="a",
        kind=AdapterKind.LOHA,
        format="kohya",
        made_for=families.SD1,
        base=families.SD1,
        matched=1,
        ranks=(8,),
        size=9,
        problem="diffusers loads no LoHa",
    )
    lokr = matched("a", 9, LOKR, base_of(families.Z_IMAGE))
    assert lokr == AdapterFacts(
        path="a",
        kind=AdapterKind.LOKR,
        format="ComfyUI",
        made_for=families.Z_IMAGE,
        base=families.Z_IMAGE,
        matched=1,
        ranks=(16,),
        size=9,
    )
    assert families.why_not(AdapterKind.LOKR, "kohya", families.SDXL)


# -- IP-Adapters and textual inversions ------------------------------------------------------------


def ip_adapter(family: str) -> Made:
    """As h94/IP-Adapter numbers them: the odd ones of all attention processors."""
    texts = [
        shape
        for name, shape in shapes_of(family)["unet"].items()
        if name.endswith("attn2.to_k.weight")
    ]
    width = texts[0][1]
    made: Made = {"image_proj.proj.weight": (4 * width, 1024), "image_proj.norm.weight": (width,)}
    for number, shape in enumerate(texts):
        made[f"ip_adapter.{2 * number + 1}.to_k_ip.weight"] = shape
        made[f"ip_adapter.{2 * number + 1}.to_v_ip.weight"] = shape
    return made


@pytest.mark.parametrize("family", [families.SD1, families.SDXL])
def test_ip_adapters(family: str) -> None:
    found = matched("ip.bin", 9, ip_adapter(family), base_of(family))
    assert found == AdapterFacts(
        path="ip.bin",
        kind=AdapterKind.IP_ADAPTER,
        format="diffusers",
        made_for=family,
        base=family,
        matched=len(ip_adapter(family)) // 2 - 1,
        size=9,
    )
    other = families.SDXL if family == families.SD1 else families.SD1
    wrong = matched("ip.bin", 9, ip_adapter(family), base_of(other))
    assert wrong.mismatched
    assert families.are_other_models(wrong.made_for, wrong.base)


def test_an_ip_adapter_of_xlabs() -> None:
    shapes = {
        "ip_adapter_proj_model.proj.weight": (16384, 768),
        "double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": (3072, 4096),
        "double_blocks.0.processor.ip_adapter_double_stream_v_proj.weight": (3072, 4096),
    }
    found = matched("ip.safetensors", 9, shapes, base_of(families.FLUX1))
    assert (found.kind, found.format, found.made_for) == (
        AdapterKind.IP_ADAPTER,
        "XLabs",
        families.FLUX1,
    )
    assert (found.unknown, found.mismatched, found.problem) == (1, 0, "")
    assert matched("ip", 9, shapes, base_of(families.QWEN_IMAGE)).problem


@pytest.mark.parametrize(
    ("shapes", "family", "writer"),
    [
        ({"<cat-toy>": (768,)}, families.SD1, "diffusers"),
        ({"emb_params": (8, 768)}, families.SD1, "other"),
        ({"string_to_param.*": (4, 1024)}, families.SD2, "other"),
        ({"clip_l": (4, 768), "clip_g": (4, 1280)}, families.SDXL, "other"),
    ],
)
def test_textual_inversions(shapes: Made, family: str, writer: str) -> None:
    assert matched("a", 9, shapes, base_of(family)) == AdapterFacts(
        path="a",
        kind=AdapterKind.TEXTUAL_INVERSION,
        format=writer,
        made_for=family,
        base=family,
        matched=len(shapes),
        size=9,
    )


def test_words_of_another_width() -> None:
    found = matched("a", 9, {"<cat-toy>": (768,)}, base_of(families.SD2))
    assert (found.mismatched, found.example) == (
        1,
        "'<cat-toy>' is 768 wide, and words are 1024 here",
    )


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"weight": (4, 4)},
        {"model.layers.0.self_attn.q_proj.weight": (4, 4)},
        {"a.lora_A.weight": (4, 8)},
        {"a.lora_A.weight": (4,), "a.lora_B.weight": (8,)},
        {"image_proj.proj.weight": (4, 4)},
        {"clip_l": (4, 768), "other": (4, 768)},
        {"x": (60000, 768)},
    ],
)
def test_what_is_no_adapter(shapes: Made) -> None:
    assert recognised(shapes) is None
    assert matched("a", 9, shapes, Base()) == AdapterFacts(path="a", kind=None, size=9)


@pytest.mark.parametrize("family", MODELS)
def test_a_whole_model_is_no_adapter(family: str) -> None:
    for shapes in shapes_of(family).values():
        assert recognised(shapes) is None


# -- models of which not all is known --------------------------------------------------------------


def test_one_shard_tells_the_widths_of_layers_of_the_same_form() -> None:
    shapes = shapes_of(families.FLUX1)["transformer"]
    first = {name: shape for name, shape in shapes.items() if "blocks.0." in name}
    base = Base(family=families.FLUX1, parts={"transformer": part_of(shapes, first)})
    adapter = {
        name: shape
        for name, shape in in_diffusers(families.FLUX1).items()
        if name.startswith("transformer.")
    }
    found = matched("a", 9, adapter, base)
    assert (found.matched, found.unknown, found.unmatched) == (len(adapter) // 2, 0, 0)
    packed = Base(family=families.FLUX1, parts={"transformer": part_of((), shapes, packed=True)})
    found = matched("a", 9, adapter, packed)
    assert (found.matched, found.unknown, found.unmatched) == (0, len(adapter) // 2, 0)


def test_an_adapter_of_peft_for_a_model_alone() -> None:
    layer = "layers.0.self_attn.q_proj"
    base = Base(
        parts={"model": part_of((), {f"model.{layer}.weight": (64, 32)})}, in_diffusers=False
    )
    good = {
        f"base_model.model.model.{layer}.lora_A.weight": (8, 32),
        f"base_model.model.model.{layer}.lora_B.weight": (64, 8),
    }
    found = matched("a", 9, good, base)
    assert (found.format, found.matched, found.ranks) == ("PEFT", 1, (8,))
    words = Base(
        parts={"model": part_of((), {"transformer.wte.weight": (100, 32)})}, in_diffusers=False
    )
    table = {
        "base_model.model.transformer.wte.lora_embedding_A": (8, 100),
        "base_model.model.transformer.wte.lora_embedding_B": (32, 8),
    }
    assert matched("a", 9, table, words).matched == 1


# -- for any file ----------------------------------------------------------------------------------

_PIECE = st.sampled_from(
    [
        "unet", "transformer", "lora_unet_", "lora_te_", "base_model.model", "diffusion_model",
        "blocks", "0", "12", "attn1", "to_q", "to_out", "processor", "lora_A", "lora_B", "lora",
        "lora_down", "lora_up", "weight", "alpha", "hada_w1_a", "hada_w1_b", "lokr_w1", "lokr_w2",
        "default", "image_proj", "ip_adapter", "to_k_ip", "clip_l", "", "²", "_lora",
    ]
)  # fmt: skip
_NAME = st.lists(_PIECE, min_size=1, max_size=7).map(".".join)
_SHAPE = st.lists(st.integers(0, 9), max_size=4).map(tuple)


@given(st.dictionaries(_NAME, _SHAPE, max_size=12), st.sampled_from([families.SD1, ""]))
def test_any_names_are_counted_once(shapes: dict[str, tuple[int, ...]], family: str) -> None:
    adapter = recognised(shapes)
    found = matched("a", 9, shapes, base_of(family) if family else Base())
    total = found.matched + found.unmatched + found.mismatched + found.unknown
    if adapter is None:
        assert (found.kind, total) == (None, 0)
        return
    assert found.kind is adapter.kind
    assert total == len(adapter.targets) + len(adapter.widths)
    assert (found.example != "") == (found.unmatched + found.mismatched > 0)


@given(st.lists(_PIECE, min_size=1, max_size=7).map(".".join))
def test_a_place_has_no_dots(layer: str) -> None:
    _, module = place_of(layer)
    assert "." not in module


# -- what the library makes of it ------------------------------------------------------------------

PIPELINES: Mapping[str, type] = {
    families.SD1: diffusers.StableDiffusionPipeline,
    families.SDXL: diffusers.StableDiffusionXLPipeline,
    families.SD3: diffusers.StableDiffusion3Pipeline,
    families.FLUX1: diffusers.FluxPipeline,
    families.FLUX2: diffusers.Flux2Pipeline,
    families.QWEN_IMAGE: diffusers.QwenImagePipeline,
    families.WAN: diffusers.WanPipeline,
    families.HUNYUAN_VIDEO: diffusers.HunyuanVideoPipeline,
    families.LTX_VIDEO: diffusers.LTXPipeline,
    families.Z_IMAGE: diffusers.ZImagePipeline,
    families.LUMINA2: diffusers.Lumina2Pipeline,
    families.COGVIDEOX: diffusers.CogVideoXPipeline,
    families.SANA: diffusers.SanaPipeline,
}


def is_read(family: str, shapes: Shapes) -> bool:
    """Say whether the library finds anything in a file that it would put into a pipeline."""
    state = {name: torch.ones(shape) for name, shape in shapes.items()}
    pipeline: Any = PIPELINES[family]
    try:
        found = pipeline.lora_state_dict(state)
    except (AssertionError, KeyError, NotImplementedError, ValueError):
        return False
    found = found[0] if isinstance(found, tuple) else found
    parts = ("transformer.", "unet.", "text_encoder.")
    taken = {name: tuple(one.shape) for name, one in found.items() if name.startswith(parts)}
    fits = matched("a", 9, taken, base_of(family)).matched > 0
    return fits and all("lora" in name or "lokr" in name for name in found)


def small(shapes: Made, count: int) -> Made:
    """The first layers of an adapter, so that the library has less to do."""
    return dict(list(shapes.items())[:count])


@pytest.mark.parametrize("family", PIPELINES)
def test_what_the_library_does_not_read_is_known(family: str) -> None:
    kohya = small(of_kohya(family), 9)
    comfyui = {
        f"diffusion_model.{name.partition('.')[2]}": shape
        for name, shape in small(in_diffusers(family), 8).items()
    }
    lycoris = {f"lycoris_{name[10:]}": shape for name, shape in kohya.items()}
    assert is_read(family, small(in_diffusers(family), 8))
    for shapes, writer in ((kohya, "kohya"), (comfyui, "ComfyUI"), (lycoris, "LyCORIS")):
        found = recognised(shapes)
        assert found is not None
        assert found.format == writer
        if families.why_not(AdapterKind.LORA, writer, family):
            assert not is_read(family, shapes), writer
    assert families.why_not(AdapterKind.LOHA, "kohya", family)
    assert not is_read(family, LOHA)
    if family != families.FLUX2:
        reads = not families.why_not(AdapterKind.LOKR, "ComfyUI", family)
        assert is_read(family, LOKR) == reads
    else:
        bare = {"transformer_blocks.0.attn.to_out.0.lokr_w1": (4, 4)}
        bare["transformer_blocks.0.attn.to_out.0.lokr_w2"] = (1536, 1536)
        assert is_read(family, bare)
