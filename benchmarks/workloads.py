"""What models take for an image, a video or a sound: counted, beside what is predicted.

    python -m benchmarks.workloads

counts the live tensors of one pass of the true architectures on torch's meta device, as
`benchmarks.memory --count` does for those whose weights are looked at, too. Nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.memory import FusedAttention, LiveBytes, default_dtype
from nbloader.fit.families import Family, activation_bytes, family_of
from nbloader.records import Component, Kind, Selection

__all__ = ["PASSES", "Pass", "count", "family", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One pass of a model in bfloat16.

    Attributes:
        class_name: of transformers.
        config: what its configuration says beyond its defaults, most of which are of a base model.
        inputs: shape by name; token ids are those whose names end so.
    """

    name: str
    class_name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, tuple[int, ...]]


_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_HUGE = {
    "hidden_size": 1280,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "intermediate_size": 5120,
}
_DEEP_SPEECH = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
}
_PICTURE = {"pixel_values": (1, 3, 224, 224)}
_SPEECH = {"input_values": (1, 480_000)}
_TEXTS = {"input_ids": (32, 512)}

PASSES = (
    Pass(name="ViT-B", class_name="ViTForImageClassification", inputs=_PICTURE),
    Pass(
        name="DINOv2-g",
        class_name="Dinov2Model",
        config={
            "hidden_size": 1536,
            "num_hidden_layers": 40,
            "num_attention_heads": 24,
            "use_swiglu_ffn": True,
            "patch_size": 14,
        },
        inputs=_PICTURE,
    ),
    Pass(
        name="Swin-L",
        class_name="SwinForImageClassification",
        config={
            "embed_dim": 192,
            "depths": [2, 2, 18, 2],
            "num_heads": [6, 12, 24, 48],
            "window_size": 12,
            "image_size": 384,
        },
        inputs={"pixel_values": (1, 3, 384, 384)},
    ),
    Pass(name="ResNet-50", class_name="ResNetForImageClassification", inputs=_PICTURE),
    Pass(
        name="CLIP-L",
        class_name="CLIPModel",
        config={
            "vision_config": {**_LARGE, "patch_size": 14, "image_size": 336},
            "text_config": {"hidden_size": 768, "intermediate_size": 3072},
        },
        inputs={"input_ids": (8, 77), "pixel_values": (1, 3, 336, 336)},
    ),
    Pass(
        name="SigLIP-so400m",
        class_name="SiglipModel",
        config={
            "vision_config": {**_SO400M, "patch_size": 14, "image_size": 384},
            "text_config": _SO400M,
        },
        inputs={"input_ids": (8, 64), "pixel_values": (1, 3, 384, 384)},
    ),
    Pass(
        name="SAM ViT-B",
        class_name="SamModel",
        inputs={"pixel_values": (1, 3, 1024, 1024), "input_points": (1, 1, 1, 2)},
    ),
    Pass(
        name="RT-DETR",
        class_name="RTDetrForObjectDetection",
        inputs={"pixel_values": (1, 3, 640, 640)},
    ),
    Pass(
        name="SegFormer-B5",
        class_name="SegformerForSemanticSegmentation",
        config={
            "depths": [3, 6, 40, 3],
            "hidden_sizes": [64, 128, 320, 512],
            "decoder_hidden_size": 768,
        },
        inputs={"pixel_values": (1, 3, 512, 512)},
    ),
    Pass(
        name="DPT-L",
        class_name="DPTForDepthEstimation",
        config={
            **_LARGE,
            "backbone_out_indices": [5, 11, 17, 23],
            "neck_hidden_sizes": [256, 512, 1024, 1024],
        },
        inputs={"pixel_values": (1, 3, 384, 384)},
    ),
    Pass(
        name="ZoeDepth",
        class_name="ZoeDepthForDepthEstimation",
        inputs={"pixel_values": (1, 3, 384, 512)},
    ),
    Pass(
        name="Depth Pro",
        class_name="DepthProForDepthEstimation",
        inputs={"pixel_values": (1, 3, 1536, 1536)},
    ),
    Pass(
        name="Swin2SR",
        class_name="Swin2SRForImageSuperResolution",
        inputs={"pixel_values": (1, 3, 512, 512)},
    ),
    Pass(
        name="Donut",
        class_name="DonutSwinModel",
        config={
            "embed_dim": 128,
            "depths": [2, 2, 14, 2],
            "num_heads": [4, 8, 16, 32],
            "window_size": 10,
            "image_size": [2560, 1920],
        },
        inputs={"pixel_values": (1, 3, 2560, 1920)},
    ),
    Pass(
        name="VideoMAE-L",
        class_name="VideoMAEForVideoClassification",
        config=_LARGE,
        inputs={"pixel_values": (1, 16, 3, 224, 224)},
    ),
    Pass(
        name="TimeSformer",
        class_name="TimesformerForVideoClassification",
        inputs={"pixel_values": (1, 8, 3, 224, 224)},
    ),
    Pass(
        name="Whisper-large",
        class_name="WhisperForConditionalGeneration",
        config={
            "vocab_size": 51866,
            "d_model": 1280,
            "encoder_layers": 32,
            "decoder_layers": 32,
            "encoder_attention_heads": 20,
            "decoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "decoder_ffn_dim": 5120,
            "num_mel_bins": 128,
        },
        inputs={"input_features": (1, 128, 3000), "decoder_input_ids": (1, 448)},
    ),
    Pass(name="wav2vec 2.0", class_name="Wav2Vec2ForCTC", inputs=_SPEECH),
    Pass(
        name="HuBERT-XL",
        class_name="HubertModel",
        config={**_HUGE, **_DEEP_SPEECH},
        inputs=_SPEECH,
    ),
    Pass(
        name="WavLM-L",
        class_name="WavLMModel",
        config={**_LARGE, **_DEEP_SPEECH},
        inputs=_SPEECH,
    ),
    Pass(
        name="wav2vec 2.0 BERT",
        class_name="Wav2Vec2BertModel",
        inputs={"input_features": (1, 1500, 160)},
    ),
    Pass(
        name="AST",
        class_name="ASTForAudioClassification",
        inputs={"input_values": (1, 1024, 128)},
    ),
    Pass(
        name="MusicGen-large",
        class_name="MusicgenForCausalLM",
        config={
            "hidden_size": 2048,
            "ffn_dim": 8192,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
        },
        inputs={"input_ids": (8, 1500)},
    ),
    Pass(name="MPNet", class_name="MPNetModel", inputs=_TEXTS),
    Pass(
        name="ModernBERT-L",
        class_name="ModernBertModel",
        config={
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "intermediate_size": 2624,
            "num_attention_heads": 16,
        },
        inputs=_TEXTS,
    ),
    Pass(name="BERT-L", class_name="BertModel", config=_LARGE, inputs=_TEXTS),
)


def count(wanted: Pass) -> tuple[str, int]:
    """Return the type of a model, and what one pass takes beside its weights."""
    import transformers

    of_library = getattr(transformers, wanted.class_name)
    with torch.device("meta"), default_dtype(torch.bfloat16), torch.no_grad():
        config = of_library.config_class(**wanted.config)
        model = of_library(config).eval()
        counter = LiveBytes()
        for tensor in [*model.parameters(), *model.buffers()]:
            counter.leave_out(tensor)
        inputs = {
            name: torch.zeros(shape, dtype=torch.int64 if name.endswith("ids") else torch.bfloat16)
            for name, shape in wanted.inputs.items()
        }
        with FusedAttention(), counter:
            model(**inputs)
    return config.model_type, counter.peak


def family(model_type: str, class_name: str) -> Family:
    """The family that `nbloader.fit` finds for a model."""
    part = Component(name="model", class_name=class_name, model_type=model_type, paths=())
    return family_of(
        Selection(
            repo_id="org/name",
            revision="main",
            commit_hash="0" * 40,
            kind=Kind.TRANSFORMERS,
            class_name=None,
            components=(part,),
            files=(),
        )
    )


def _lines() -> Iterator[str]:
    yield "| model | workload | counted | predicted |"
    yield "|---|---|---|---|"
    for wanted in PASSES:
        model_type, counted = count(wanted)
        found = family(model_type, wanted.class_name)
        predicted = activation_bytes(found, "bfloat16")
        sizes = f"{counted / 1e9:.3f} | {predicted / 1e9:.2f}"
        yield f"| {wanted.name} | {found.workload} | {sizes} |"


def main() -> None:
    """Print the table."""
    for line in _lines():
        print(line, flush=True)  # noqa: T201 - a script


if __name__ == "__main__":
    main()
