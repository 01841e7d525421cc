"""Repositories of well-known models, of which only the headers of the weights are there.

That is all that a preflight reads of weights. Behind the true headers the files are holes of the
true length, so that they take no disk. The small files hold what decides the selection.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from tests.fit.models import BYTES, MODELS, Shapes

__all__ = ["SKETCHES"]

_FILES: Mapping[str, Mapping[str, Any]] = {
    "stabilityai/stable-diffusion-xl-base-1.0": {
        "model_index.json": {
            "_class_name": "StableDiffusionXLPipeline",
            "force_zeros_for_empty_prompt": True,
            "scheduler": ["diffusers", "EulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "scheduler/scheduler_config.json": {"_class_name": "EulerDiscreteScheduler"},
        "text_encoder/config.json": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
        },
        "text_encoder_2/config.json": {
            "architectures": ["CLIPTextModelWithProjection"],
            "model_type": "clip_text_model",
        },
        "tokenizer/tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"},
        "tokenizer/vocab.json": {},
        "tokenizer_2/tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"},
        "tokenizer_2/vocab.json": {},
        "unet/config.json": {"_class_name": "UNet2DConditionModel"},
        "vae/config.json": {"_class_name": "AutoencoderKL", "force_upcast": True},
    },
    "Qwen/Qwen2.5-7B-Instruct": {
        "config.json": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer"},
        "tokenizer.json": {},
    },
    "Qwen/Qwen3-Embedding-0.6B": {
        "config.json": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
        "config_sentence_transformers.json": {},
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
        ],
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer"},
        "tokenizer.json": {},
    },
}
"""What is written of a repository beside its weights, by path."""


def _write(repo_id: str, folder: Path) -> None:
    model = next(
        each
        for each in MODELS
        if each.selection.repo_id == repo_id  # Of SDXL that is its variant fp16.
    )
    for path, content in _FILES[repo_id].items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(content), encoding="utf-8")
    for component in model.selection.components:
        (path,) = component.weights
        _write_hole(folder / path, model.headers[component.name])


def _write_hole(place: Path, shapes: Shapes) -> None:
    """Write a header of safetensors, and the length that follows from it."""
    header, end = {}, 0
    for name, (dtype, shape) in shapes.items():
        size = prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
    os.truncate(place, 8 + len(text) + end)


SKETCHES: Mapping[str, Callable[[Path], None]] = {
    repo_id: partial(_write, repo_id) for repo_id in _FILES
}
"""What writes each of them, by id."""
