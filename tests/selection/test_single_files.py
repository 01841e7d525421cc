"""What is in a checkpoint of one file, and what a file is that is none."""

from __future__ import annotations

import pytest
from diffusers.loaders import single_file_utils
from diffusers.loaders.single_file import SINGLE_FILE_OPTIONAL_COMPONENTS
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from nbloader.errors import UnsupportedRepoError
from nbloader.hub_names import successor_of
from nbloader.selection.checkpoint_types import types
from nbloader.selection.checkpoints import NEVER
from nbloader.selection.described import Described, DescribedTensor
from nbloader.selection.gguf_models import (
    FAMILIES,
    UNPACKED,
    VOCABULARIES,
    GgufModel,
    gguf_model,
)
from nbloader.selection.model_files import READERS, configuration_of
from nbloader.selection.single_files import CLIPS, OF_CLIP, T5, VAES, Checkpoint, checkpoint_of

INPUT = "model.diffusion_model.input_blocks.0.0.weight"
CLIP = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"


def described(*names: str, format_: str = "safetensors", **metadata: object) -> Described:
    return Described(
        format=format_,
        tensors={name: DescribedTensor("F16", (4, 4, 3, 3), 288) for name in names},
        length=100,
        metadata=metadata,
    )


def found(*names: str) -> Checkpoint:
    return checkpoint_of("org/name", "x.safetensors", described(*names))


def test_a_whole_checkpoint_has_all_parts_of_a_pipeline() -> None:
    checkpoint = found(INPUT, CLIP, "first_stage_model.encoder.conv_in.weight")
    assert (checkpoint.type.name, checkpoint.alone) == ("v1", False)
    assert (checkpoint.main, checkpoint.vae, checkpoint.texts) == (
        "model.diffusion_model.",
        "first_stage_model.",
        ("cond_stage_model.",),
    )
    assert [
        name
        for name in ("UNet2DConditionModel", "AutoencoderKL", "CLIPTextModel", "T5EncoderModel")
        if checkpoint.holds(name)
    ] == ["UNet2DConditionModel", "AutoencoderKL", "CLIPTextModel"]


@pytest.mark.parametrize(
    ("names", "type_", "class_name"),
    [
        ((INPUT,), "v1", "UNet2DConditionModel"),
        (("encoder.down.0.block.0.norm1.weight",), "v1", "AutoencoderKL"),
        (("controlnet_cond_embedding.conv_in.weight",), "controlnet", "ControlNetModel"),
        (("head.modulation", "patch_embedding.weight"), "wan-i2v-14B", "WanTransformer3DModel"),
        (("decoder.middle.0.residual.0.gamma",), "wan-t2v-14B", "AutoencoderKLWan"),
    ],
)
def test_a_model_alone_is_told_with_its_class(
    names: tuple[str, ...], type_: str, class_name: str
) -> None:
    checkpoint = found(*names)
    assert checkpoint.alone
    assert (checkpoint.type.name, checkpoint.type.class_name) == (type_, class_name)


def test_text_encoders_are_in_the_order_of_their_components() -> None:
    checkpoint = found(
        "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias",
        "conditioner.embedders.1.model.positional_embedding",
        "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight",
        INPUT,
    )
    assert checkpoint.type.name == "xl_base"
    assert checkpoint.texts == ("conditioner.embedders.0.", "conditioner.embedders.1.")


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("unet.down.lora_A.weight", "a LoRA", "adapters="),
        ("lora_unet_down_blocks_0.lora_up.weight", "a LoRA", "adapters="),
        ("lora_unet_mid.lokr_w1", "a LoRA", "adapters="),
        ("transformer.blocks.0.attn.lora_down.weight", "a LoRA", "adapters="),
        ("image_proj.proj.weight", "an IP-Adapter", "adapters="),
        ("emb_params", "a textual inversion", "adapters="),
        ("single_blocks.0.qkv_proj.wscales", "weights quantized by Nunchaku", "Nunchaku"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "a text encoder alone", "repository"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "a text encoder alone", "repository"),
        (
            "model.layers.0.self_attn.q_proj.weight",
            "a model of transformers",
            'nbloader.load("org/name")',
        ),
        (
            "transformer_blocks.0.attn.to_q.weight",
            "one model in the format of diffusers",
            'nbloader.load("org/name"), or',
        ),
        ("something.weight", "", "cls="),
    ],
)
def test_what_is_no_checkpoint_is_named(name: str, what: str, hint: str) -> None:
    with pytest.raises(UnsupportedRepoError) as caught:
        found(name, "another")
    assert caught.value.message.startswith(
        "'x.safetensors' is no checkpoint that diffusers can tell."
        + (f" It seems to be {what}" if what else "")
    )
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "name", ["scaled_fp8", "double_blocks.0.img_attn.qkv.scale_weight", "blocks.0.q.weight_scale"]
)
def test_scales_that_the_library_passes_over_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedRepoError, match="scales of their own"):
        found(INPUT, name)


def test_a_gguf_that_nothing_reads_is_named_by_its_architecture() -> None:
    with pytest.raises(UnsupportedRepoError) as caught:
        checkpoint_of(
            "org/name",
            "x.gguf",
            described("blk.0.w", format_="gguf", **{"general.architecture": "rwkv6"}),
        )
    assert "of the architecture 'rwkv6', which neither diffusers nor transformers" in str(
        caught.value
    )
    assert 'llama_cpp.Llama.from_pretrained("org/name", filename="x.gguf")' in str(caught.value)


def test_a_configuration_that_was_withdrawn_is_taken_from_where_it_is_kept() -> None:
    moved = {
        type_.repo_id: configuration_of(type_)
        for type_ in types()
        if configuration_of(type_) != type_.repo_id
    }
    assert moved == {name: successor_of(name) for name in moved}
    assert moved.keys() == {
        type_.repo_id for type_ in types() if successor_of(type_.repo_id) is not None
    }


# -- against the installed libraries ---------------------------------------------------------------


def test_the_classes_that_read_checkpoints_are_those_of_the_library() -> None:
    theirs = {
        name: entry.get("default_subfolder", "")
        for name, entry in SINGLE_FILE_LOADABLE_CLASSES.items()
    }
    assert READERS.keys() == theirs.keys()
    # One folder of many, which the type tells.
    assert {name: READERS[name] for name in theirs if name != "StableCascadeUNet"} == {
        name: folder for name, folder in theirs.items() if name != "StableCascadeUNet"
    }


def test_the_names_of_parts_are_those_of_the_library() -> None:
    names = single_file_utils.CHECKPOINT_KEY_NAMES
    for class_name in OF_CLIP:
        cls = type(class_name, (), {})
        for name in CLIPS:
            assert single_file_utils.is_clip_model_in_single_file(cls, {name: None})
    assert not single_file_utils.is_clip_model_in_single_file(
        type("CLIPTextModel", (), {}), {names["clip_sdxl"]: None}
    )
    assert single_file_utils.is_t5_in_single_file({T5: None})
    assert list(VAES) == single_file_utils.LDM_VAE_KEYS
    assert sorted(NEVER) == SINGLE_FILE_OPTIONAL_COMPONENTS


def test_the_families_are_those_of_the_library() -> None:
    theirs = {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS} - {"general", "tokenizer"}
    assert set(FAMILIES.values()) == theirs


def test_the_vocabularies_are_those_of_the_library() -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_TOKENIZER_TYPES

    assert GGUF_TOKENIZER_TYPES.keys() == VOCABULARIES


def test_the_types_that_are_unpacked_are_those_of_the_library() -> None:
    pytest.importorskip("gguf")
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    assert {each.name for each in SUPPORTED_GGUF_QUANT_TYPES} | {"F16", "F32"} == UNPACKED


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("llama", GgufModel("llama", "llama", "AutoModelForCausalLM")),
        ("qwen3moe", GgufModel("qwen3moe", "qwen3_moe", "AutoModelForCausalLM")),
        ("t5encoder", GgufModel("t5encoder", "t5", "T5EncoderModel")),
        ("flux", None),
        (3, None),
        (None, None),
    ],
)
def test_the_class_of_a_language_model(architecture: object, expected: GgufModel | None) -> None:
    assert gguf_model({"general.architecture": architecture}) == expected
