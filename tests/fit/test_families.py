"""Families: found by class, and each with its figures and where they come from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from nbloader.fit.families import Family, activation_bytes, family_of, models, pipelines
from nbloader.records import Component, Kind, Selection

PIPELINES, MODELS = pipelines(), models("sense", "text")
FAMILIES = [*PIPELINES, *models("embedding"), *MODELS]


def selection(kind: Kind, class_name: str | None = None, *parts: Component) -> Selection:
    return Selection(
        repo_id="org/name",
        revision="main",
        commit_hash="0" * 40,
        kind=kind,
        class_name=class_name,
        components=parts,
        files=(),
    )


def part(class_name: str | None = None, model_type: str | None = None) -> Component:
    return Component(name="text_encoder", class_name=class_name, model_type=model_type, paths=())


@pytest.mark.parametrize(
    ("class_name", "family"),
    [
        ("QwenImageEditPlusPipeline", "Qwen-Image"),
        ("QwenImagePipeline", "Qwen-Image"),
        ("FluxPipeline", "FLUX"),
        ("FluxFillPipeline", "FLUX Fill"),
        ("FluxKontextPipeline", "FLUX"),
        ("StableDiffusionPipeline", "Stable Diffusion"),
        ("StableDiffusionXLImg2ImgPipeline", "Stable Diffusion XL"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("WanImageToVideoPipeline", "Wan"),
        ("HunyuanVideoPipeline", "HunyuanVideo"),
        ("HunyuanDiTPipeline", "PixArt, Hunyuan-DiT, AuraFlow"),
        ("LTXPipeline", "LTX-Video"),
        ("SanaPipeline", "Sana"),
        ("PixArtSigmaPipeline", "PixArt, Hunyuan-DiT, AuraFlow"),
        ("ZImagePipeline", "Z-Image"),
        ("MyNewPipeline", "unknown pipeline"),
    ],
)
def test_pipelines_by_their_class(class_name: str, family: str) -> None:
    # Its text encoder does not make a pipeline a language model.
    found = family_of(selection(Kind.DIFFUSERS, class_name, part("T5EncoderModel", "t5")))

    assert found.name == family


def test_pipeline_of_an_own_class_by_its_components() -> None:
    found = family_of(selection(Kind.DIFFUSERS, "MyPipeline", part("FluxTransformer2DModel")))

    assert found.name == "FLUX"


def test_unknown_pipeline_with_a_text_encoder_that_overflows() -> None:
    found = family_of(selection(Kind.DIFFUSERS, "MyPipeline", part("Gemma2Model")))

    assert (found.name, found.fp16) == ("unknown pipeline", False)
    assert found.fp16_reason.startswith("Gemma: ")


@pytest.mark.parametrize(
    ("kind", "model_type", "family"),
    [
        (Kind.SENTENCE_TRANSFORMERS, "bert", "BERT"),
        (Kind.SENTENCE_TRANSFORMERS, "xlm-roberta", "BERT"),
        (Kind.SENTENCE_TRANSFORMERS, "qwen3", "language model for embeddings"),
        (Kind.SENTENCE_TRANSFORMERS, "gemma3_text", "EmbeddingGemma"),
        (Kind.SENTENCE_TRANSFORMERS, "t5", "T5 encoder"),
        (Kind.SENTENCE_TRANSFORMERS, None, "unknown embedding model"),
        (Kind.TRANSFORMERS, "qwen2", "language model"),
        (Kind.TRANSFORMERS, "qwen3", "language model"),
        (Kind.TRANSFORMERS, "llama", "language model"),
        (Kind.TRANSFORMERS, "gemma2", "Gemma"),
        (Kind.TRANSFORMERS, "umt5", "T5"),
        (Kind.TRANSFORMERS, "gemma3", "Gemma"),
        (Kind.TRANSFORMERS, "my_own", "unknown model"),
        (Kind.SENTENCE_TRANSFORMERS, "mpnet", "MPNet"),
        (Kind.SENTENCE_TRANSFORMERS, "clip", "image and text embeddings"),
    ],
)
def test_models_by_their_type(kind: Kind, model_type: str | None, family: str) -> None:
    assert family_of(selection(kind, None, part(None, model_type))).name == family


@pytest.mark.parametrize(
    ("model_type", "workload"),
    [
        ("vit", "one image of 224 x 224"),
        ("dinov2", "one image of 224 x 224"),
        ("convnextv2", "one image of 224 x 224"),
        ("clip", "one image of 384 x 384 and 8 captions"),
        ("siglip2", "one image of 384 x 384 and 8 captions"),
        ("sam", "one image of 1024 x 1024"),
        ("sam2_video", "one image of 1024 x 1024"),
        ("detr", "one image of 1333 x 800"),
        ("rt_detr_v2", "one image of 1333 x 800"),
        ("conditional_detr", "one image of 1333 x 800"),
        ("grounding-dino", "one image of 1333 x 800"),
        ("depth_anything", "one image of 512 x 512"),
        ("segformer", "one image of 512 x 512"),
        ("videomae", "16 frames of 224 x 224"),
        ("wav2vec2", "30 s of speech at 16 kHz"),
        ("hubert", "30 s of speech at 16 kHz"),
        ("whisper", "30 s of speech at 16 kHz, 448 tokens of text"),
        ("vits", "10 s of speech"),
        ("bark", "10 s of speech"),
        ("musicgen", "30 s of music"),
        ("qwen2_vl", "one image of 1024 x 1024 and 4096 tokens of context"),
        ("llava_next", "one image of 1024 x 1024 and 4096 tokens of context"),
        ("idefics3", "one image of 1024 x 1024 and 4096 tokens of context"),
        ("qwen2_audio", "30 s of speech and 4096 tokens of context"),
        ("bart", "1024 tokens of text"),
        ("llama", "4096 tokens of context"),
        ("qwen3_moe", "4096 tokens of context"),
        ("gpt_oss", "4096 tokens of context"),
        ("bert", "32 texts of 512 tokens"),
        ("deberta-v2", "32 texts of 512 tokens"),
    ],
)
def test_what_a_model_is_used_for(model_type: str, workload: str) -> None:
    assert (
        family_of(selection(Kind.TRANSFORMERS, None, part(None, model_type))).workload == workload
    )


@pytest.mark.parametrize(
    ("class_name", "task", "workload"),
    [
        ("MyForImageClassification", None, "one image of 224 x 224"),
        ("MyForCTC", None, "30 s of speech at 16 kHz"),
        ("MyForCausalLM", None, "4096 tokens of context"),
        ("MyForTokenClassification", None, "32 texts of 512 tokens"),
        (None, "image-segmentation", "one image of 512 x 512"),
        (None, "text-to-speech", "10 s of speech"),
        # What a class says goes before what a model is called.
        ("MyForImageClassification", "text-to-speech", "one image of 224 x 224"),
    ],
)
def test_what_a_model_of_no_known_type_is_used_for(
    class_name: str | None, task: str | None, workload: str
) -> None:
    own = selection(Kind.TRANSFORMERS, None, part(class_name, "my_own"))
    assert family_of(replace(own, task=task)).workload == workload


def test_a_type_of_the_library_is_matched_by_one_family_that_means_it() -> None:
    """No pattern for models of one sense takes those of another along."""
    types = [name for name in CONFIG_MAPPING_NAMES if _first(name) in SEEING]
    assert len(types) > 100
    language = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "gpt2", "olmo2"}
    assert not language & set(types)
    texts = {"bert", "roberta", "t5", "mpnet", "deberta", "xlm-roberta", "marian", "modernbert"}
    assert not texts & set(types)


SEEING = {family.name for family in models("sense")}


def _first(model_type: str) -> str:
    return family_of(selection(Kind.TRANSFORMERS, None, part(None, model_type))).name


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_says_where_its_figures_come_from(family: Family) -> None:
    assert family.source.startswith(("measured", "counted", "inferred"))
    assert family.patterns
    assert family.fp16_reason
    if not family.fp16:
        links = ("github.com/", "Gemma")
        assert any(link in family.fp16_reason for link in links)
    # A part takes no more than the whole.
    assert all(size <= family.activation_bytes for size in family.by_component.values())


def test_activations_of_a_component_and_of_a_number_format() -> None:
    flux = next(family for family in PIPELINES if family.name == "FLUX")
    whole, step = flux.activation_bytes, flux.by_component["transformer"]
    transformer, vae = named("transformer"), named("vae")

    assert activation_bytes(flux, "bfloat16") == activation_bytes(flux, "float16") == whole
    assert activation_bytes(flux, "float32") == flux.activation_bytes_float32
    assert activation_bytes(flux, "bfloat16", transformer) == step
    assert activation_bytes(flux, "float32", transformer) == 2 * step
    assert activation_bytes(flux, "bfloat16", vae) == whole
    gemma = next(family for family in MODELS if family.name == "Gemma")
    assert activation_bytes(gemma, "float32") == 2 * gemma.activation_bytes


def test_a_vae_that_decodes_in_float32_only_with_float16() -> None:
    xl = next(family for family in PIPELINES if family.name == "Stable Diffusion XL")

    assert xl.float32_components == ("vae",)
    assert activation_bytes(xl, "float16") > activation_bytes(xl, "bfloat16")


@pytest.mark.parametrize(
    ("class_name", "measured"),
    [("CLIPTextModel", 0), ("CLIPTextModelWithProjection", 0), ("T5EncoderModel", 240_000_000)],
)
def test_text_encoders_take_little_by_themselves(class_name: str, measured: int) -> None:
    for family in PIPELINES:
        found = activation_bytes(family, "bfloat16", named("encoder", class_name))
        assert measured <= found <= measured + 30_000_000


@pytest.mark.parametrize(("width", "counted"), [(384, 0.13), (768, 0.26), (1024, 0.34)])
def test_activations_grow_with_the_width(width: int, counted: float) -> None:
    bert = next(family for family in MODELS if family.name == "BERT")

    found = activation_bytes(bert, "bfloat16", width=width)
    assert counted <= found / 1024**3 <= 1.2 * counted
    assert activation_bytes(bert, "bfloat16") == bert.activation_bytes
    assert activation_bytes(bert, "float32", width=width) == 2 * found


def named(name: str, class_name: str | None = None) -> Component:
    return Component(name=name, class_name=class_name, paths=())
