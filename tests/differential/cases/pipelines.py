"""Pipelines of diffusers by their classes, each with tiny components of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nbloader.records import Kind
from tests.differential.harness import Case
from tests.differential.pipeline_parts import parts_of

TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")

PIPELINES: dict[str, tuple[str, ...]] = {
    # Pictures of nothing.
    "ConsistencyModelPipeline": (),
    "DDIMPipeline": (),
    "DDPMPipeline": (),
    "LDMPipeline": (),
    "PNDMPipeline": (),
    "RePaintPipeline": (),
    "ScoreSdeVePipeline": (),
    # Stable Diffusion and its kin.
    "AnimateDiffPipeline": ("motion_adapter",),
    "AnimateDiffSDXLPipeline": TEXT,
    "LEditsPPPipelineStableDiffusion": (),
    "LatentConsistencyModelPipeline": (),
    "MarigoldDepthPipeline": (),
    "MarigoldNormalsPipeline": (),
    "StableDiffusionAdapterPipeline": (),
    "StableDiffusionAttendAndExcitePipeline": (),
    "StableDiffusionControlNetImg2ImgPipeline": (),
    "StableDiffusionControlNetInpaintPipeline": (),
    "StableDiffusionControlNetPipeline": (),
    "StableDiffusionDiffEditPipeline": ("inverse_scheduler",),
    "StableDiffusionImageVariationPipeline": (),
    "StableDiffusionImg2ImgPipeline": (),
    "StableDiffusionInpaintPipeline": ("image_encoder",),
    "StableDiffusionInstructPix2PixPipeline": (),
    "StableDiffusionLatentUpscalePipeline": (),
    "StableDiffusionPAGPipeline": (),
    "StableDiffusionPanoramaPipeline": (),
    "StableDiffusionPipeline": ("image_encoder", "feature_extractor"),
    "StableDiffusionUpscalePipeline": (),
    "StableDiffusionXLAdapterPipeline": TEXT,
    "StableDiffusionXLControlNetPipeline": TEXT,
    "StableDiffusionXLImg2ImgPipeline": TEXT,
    "StableDiffusionXLInpaintPipeline": TEXT,
    "StableDiffusionXLInstructPix2PixPipeline": TEXT,
    "StableDiffusionXLPipeline": TEXT,
    "TextToVideoSDPipeline": (),
    # Other ways from words to pictures.
    "AuraFlowPipeline": (),
    "BriaPipeline": (),
    "ChromaPipeline": (),
    "CogView3PlusPipeline": (),
    "CogView4Pipeline": (),
    "DiTPipeline": (),
    "Flux2KleinPipeline": (),
    "FluxControlNetPipeline": (),
    "FluxControlPipeline": (),
    "FluxFillPipeline": (),
    "FluxImg2ImgPipeline": (),
    "FluxInpaintPipeline": (),
    "FluxKontextPipeline": (),
    "FluxPipeline": (),
    "HiDreamImagePipeline": (),
    "HunyuanDiTPipeline": TEXT,
    "IFPipeline": (),
    "Kandinsky3Pipeline": (),
    "KandinskyV22Pipeline": (),
    "KandinskyV22PriorPipeline": (),
    "Lumina2Pipeline": (),
    "LuminaPipeline": (),
    "OmniGenPipeline": (),
    "PixArtAlphaPipeline": (),
    "PixArtSigmaPipeline": (),
    "QwenImagePipeline": (),
    "SanaPipeline": (),
    "StableDiffusion3Img2ImgPipeline": (),
    "StableDiffusion3Pipeline": (),
    "ZImagePipeline": (),
    # Moving pictures.
    "AllegroPipeline": (),
    "CogVideoXImageToVideoPipeline": (),
    "CogVideoXPipeline": (),
    "HunyuanVideoPipeline": (),
    "I2VGenXLPipeline": (),
    "LTXImageToVideoPipeline": (),
    "LTXPipeline": (),
    "LattePipeline": (),
    "WanPipeline": ("transformer", "transformer_2"),
    # Sound.
    "AudioLDMPipeline": (),
    "DanceDiffusionPipeline": (),
}
"""The classes that are compared, each with what is made besides what it cannot do without."""

_PICTURE = {"num_inference_steps": 1, "output_type": "np"}
_WORDS = {"prompt": "a", "height": 16, "width": 16, **_PICTURE}

CALLS: dict[str, dict[str, Any]] = {
    "AuraFlowPipeline": {**_WORDS, "max_sequence_length": 4},
    "ConsistencyModelPipeline": _PICTURE,
    "DDIMPipeline": _PICTURE,
    "DDPMPipeline": _PICTURE,
    "LDMPipeline": _PICTURE,
    "LuminaPipeline": {**_WORDS, "max_sequence_length": 4},
    "ScoreSdeVePipeline": _PICTURE,
    "TextToVideoSDPipeline": {**_WORDS, "num_frames": 2},
}
"""Of those whose parts fit together: the arguments of a call."""


def _class(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)


def _save(name: str, folder: Path) -> None:
    pipeline_class = _class(name)
    pipeline_class(**parts_of(pipeline_class, PIPELINES[name])).save_pretrained(folder)


def _plain(folder: Path) -> Any:
    import diffusers
    import torch

    return diffusers.DiffusionPipeline.from_pretrained(str(folder), torch_dtype=torch.float32)


def _call(arguments: dict[str, Any], pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(**arguments)[0]


def _caller(name: str) -> Callable[[Any], Any] | None:
    return partial(_call, CALLS[name]) if name in CALLS else None


CASES = tuple(
    Case(
        name=f"of-{name.removesuffix('Pipeline').lower()}",
        kind=Kind.DIFFUSERS,
        save=partial(_save, name),
        plain=_plain,
        call=_caller(name),
        group=name,
    )
    for name in PIPELINES
)
