"""Which files a checkpoint of one file is loaded from, and what is refused before a byte of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import save

from nbloader.errors import (
    InvalidArgumentError,
    NbloaderError,
    UnsupportedClassError,
    UnsupportedRepoError,
)
from nbloader.records import (
    Component,
    Form,
    Kind,
    Listing,
    RepoFile,
    Selection,
    SelectionRequest,
    Target,
)
from nbloader.selection import describe, format_of, needed, select
from tests.gguf_files import gguf_file

SD = "stable-diffusion-v1-5/stable-diffusion-v1-5"
WAN = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
INPUT = "model.diffusion_model.input_blocks.0.0.weight"
CLIP = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"


def tensors(*names: str) -> bytes:
    return save({name: torch.zeros(4, 4, 1, 1) for name in names})


def gguf(*, tokenizer: str = "", **metadata: object) -> bytes:
    known = {"tokenizer.ggml.model": tokenizer} if tokenizer else {}
    return gguf_file(
        {"general.architecture": "llama", **known, **metadata}, {"w": ("F32", (2,), None)}
    )


INDEX = json.dumps(
    {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
).encode()
REPOS: dict[str, dict[str, bytes]] = {
    "org/files": {
        "sd.safetensors": tensors(INPUT, CLIP, "first_stage_model.encoder.conv_in.weight"),
        "unet.safetensors": tensors(INPUT),
        "wan.safetensors": tensors("head.modulation", "patch_embedding.weight"),
        "llama.gguf": gguf(tokenizer="gpt2"),
        "bare.gguf": gguf(),
        "bert.gguf": gguf(tokenizer="bert"),
        "split.gguf": gguf(tokenizer="gpt2", **{"split.count": 3}),
        "adapter.gguf": gguf(**{"general.type": "adapter"}),
        "wan.gguf": gguf_file(
            {"general.architecture": "wan"},
            {
                "head.modulation": ("F32", (2,), None),
                "patch_embedding.weight": ("IQ2_XXS", (256,), None),
            },
        ),
        "t5.gguf": gguf_file({"general.architecture": "t5encoder"}, {"w": ("F32", (2,), None)}),
        "random.safetensors": tensors("a"),
        "model.onnx": b"x",
    },
    SD: {
        "model_index.json": INDEX,
        "feature_extractor/preprocessor_config.json": b"{}",
        "safety_checker/config.json": b"{}",
        "safety_checker/model.safetensors": tensors("a"),
        "scheduler/scheduler_config.json": b"{}",
        "text_encoder/config.json": b"{}",
        "text_encoder/model.safetensors": tensors("a"),
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"",
        "unet/config.json": b"{}",
        "unet/diffusion_pytorch_model.safetensors": tensors("a"),
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": tensors("a"),
    },
    WAN: {"transformer/config.json": b"{}"},
}


def listing_of(repo_id: str) -> Listing:
    return Listing(
        repo_id=repo_id,
        revision="main",
        commit_hash="0" * 40,
        files=tuple(
            RepoFile(path=path, size=len(content), etag="0" * 40)
            for path, content in sorted(REPOS[repo_id].items())
        ),
    )


def selected(checkpoint: str, **request: Any) -> Selection:
    """The selection, as the worker makes it."""
    wanted = SelectionRequest(checkpoint=checkpoint, **request)
    own = listing_of("org/files")
    known: dict[str, bytes] = {}
    others: dict[str, Listing] = {}
    for _ in range(20):
        asked = needed(own, wanted, known, others)
        if not asked:
            return select(own, wanted, known, others)
        for reference in asked.references:
            others[reference.repo_id] = listing_of(reference.repo_id)
        for path in asked.reads:
            repo_id, _, inner = path.rpartition(":")
            content = REPOS[repo_id or "org/files"][inner]
            if format_of(path):
                file = RepoFile(path=path, size=len(content), etag="0" * 40)
                content = describe(file, lambda first, last, whole=content: whole[first:last])  # type: ignore[misc]
            known[path] = content
    raise AssertionError(f"it never ends: {asked}")


def target(name: str, form: Form, library: str = "diffusers") -> tuple[Target, ...]:
    return (Target(library=library, class_name=name, form=form),)


def parts(selection: Selection) -> dict[str, tuple[str, bool]]:
    """Where the tensors of each component are, and whether it is of another repository."""
    return {
        part.name: (part.tensors if part.checkpoint else "", bool(part.repo_id))
        for part in selection.components
    }


def test_of_a_whole_checkpoint_only_small_files_are_fetched_beside_it() -> None:
    selection = selected("sd.safetensors")
    assert (selection.kind, selection.class_name, selection.checkpoint) == (
        Kind.DIFFUSERS,
        "StableDiffusionPipeline",
        "sd.safetensors",
    )
    assert {file.path.removeprefix(f"{SD}:") for file in selection.files} == {
        "sd.safetensors",
        "model_index.json",
        "feature_extractor/preprocessor_config.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "vae/config.json",
    }
    assert parts(selection) == {
        "feature_extractor": ("", False),
        "scheduler": ("", False),
        "text_encoder": ("cond_stage_model.", False),
        "tokenizer": ("", False),
        "unet": ("model.diffusion_model.", False),
        "vae": ("first_stage_model.", False),
        "config": ("", False),
    }
    assert [part.name for part in selection.components if part.weights] == ["unet"]


def test_what_a_checkpoint_lacks_comes_from_the_repository_of_its_configuration() -> None:
    selection = selected(
        "unet.safetensors", targets=(target("StableDiffusionPipeline", Form.PIPELINE),)
    )
    assert {file.path.removeprefix(f"{SD}:") for file in selection.files} >= {
        "unet.safetensors",
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert not any("unet/diffusion" in file.path for file in selection.files)
    found = parts(selection)
    assert (found["unet"], found["vae"]) == (("model.diffusion_model.", False), ("", True))


def test_a_model_alone_has_its_configuration_beside_it() -> None:
    selection = selected("wan.safetensors")
    assert selection.kind is Kind.CLASSES
    assert selection.components == (
        Component(
            name="model",
            library="diffusers",
            class_name="WanTransformer3DModel",
            paths=(f"{WAN}:transformer/config.json", "wan.safetensors"),
            weights=("wan.safetensors",),
            folder="transformer",
            checkpoint="wan.safetensors",
            config=WAN,
        ),
    )
    assert [target.class_name for target in selection.targets] == ["WanTransformer3DModel"]


def test_what_is_handed_in_is_not_fetched() -> None:
    selection = selected("sd.safetensors", handed_in=("scheduler", "vae"))
    assert {"scheduler", "vae"}.isdisjoint(part.name for part in selection.components)
    assert not any("vae/" in file.path for file in selection.files)


def test_a_language_model_is_one_file() -> None:
    selection = selected("llama.gguf")
    assert selection.kind is Kind.TRANSFORMERS
    assert selection.components == (
        Component(
            name="model",
            library="transformers",
            class_name="AutoModelForCausalLM",
            paths=("llama.gguf",),
            weights=("llama.gguf",),
            model_type="llama",
            needs=("accelerate", "gguf"),
            checkpoint="llama.gguf",
        ),
    )


def test_a_model_without_a_vocabulary_is_loaded_alone() -> None:
    selection = selected(
        "bare.gguf", targets=(target("AutoModelForCausalLM", Form.MODEL, "transformers"),)
    )
    assert (selection.kind, selection.class_name) == (Kind.CLASSES, "AutoModelForCausalLM")


def test_what_writes_no_text_is_loaded_by_its_class() -> None:
    selection = selected("t5.gguf")
    assert (selection.kind, selection.class_name) == (Kind.CLASSES, "T5EncoderModel")


@pytest.mark.parametrize(
    ("checkpoint", "request_", "error", "message"),
    [
        ("sd.safetensor", {}, UnsupportedRepoError, "has no file 'sd.safetensor'"),
        ("model.onnx", {}, UnsupportedRepoError, "is no file of weights that a library reads"),
        ("random.safetensors", {}, UnsupportedRepoError, "is no checkpoint that diffusers can"),
        (
            "sd.safetensors",
            {"targets": (target("FluxControlNetModel", Form.MODEL),)},
            UnsupportedClassError,
            "FluxControlNetModel has no from_single_file",
        ),
        (
            "sd.safetensors",
            {"targets": (target("AutoPipelineForText2Image", Form.PIPELINE),)},
            UnsupportedClassError,
            "AutoPipelineForText2Image has no from_single_file",
        ),
        (
            "sd.safetensors",
            {"targets": (target("AutoModel", Form.MODEL, "transformers"),)},
            UnsupportedClassError,
            "AutoModel has no from_single_file",
        ),
        (
            "sd.safetensors",
            {"targets": (target("A", Form.MODEL), target("B", Form.MODEL))},
            InvalidArgumentError,
            "A cannot be made of one checkpoint",
        ),
        (
            "sd.safetensors",
            {"targets": (target("CLIPTokenizer", Form.PART, "transformers"),)},
            InvalidArgumentError,
            "CLIPTokenizer cannot be made of one checkpoint",
        ),
        (
            "llama.gguf",
            {"targets": (target("FluxTransformer2DModel", Form.MODEL),)},
            UnsupportedClassError,
            "a GGUF of the architecture 'llama', which is for transformers",
        ),
        ("split.gguf", {}, UnsupportedRepoError, "is one of 3 files of one model"),
        ("adapter.gguf", {}, UnsupportedRepoError, "is no model by itself"),
        ("bare.gguf", {}, UnsupportedRepoError, "has no vocabulary"),
        ("bert.gguf", {}, UnsupportedRepoError, "has a vocabulary of the kind 'bert'"),
        ("wan.gguf", {}, UnsupportedRepoError, "holds tensors of IQ2_XXS"),
        ("sd.safetensors", {"config": WAN}, UnsupportedRepoError, "is no pipeline of diffusers"),
        (
            "wan.safetensors",
            {"config": SD, "targets": (target("WanTransformer3DModel", Form.MODEL),)},
            UnsupportedRepoError,
            "has no config.json",
        ),
        (
            "unet.safetensors",
            {
                "handed_in": ("unet",),
                "targets": (target("StableDiffusionPipeline", Form.PIPELINE),),
            },
            UnsupportedRepoError,
            "No component would be taken from 'unet.safetensors'",
        ),
    ],
)
def test_what_cannot_be_loaded_is_named(
    checkpoint: str, request_: dict[str, Any], error: type[NbloaderError], message: str
) -> None:
    with pytest.raises(error) as caught:
        selected(checkpoint, **request_)
    assert message in caught.value.message
    assert caught.value.hint
