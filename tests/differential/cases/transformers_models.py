"""Tiny models of transformers: every task, and heads that no pipeline is for.

A line of `_TABLE` is a class, the task that has to come of it (None for the model alone), and what
its configuration needs beyond `_SMALL`, which makes nearly all of them tiny.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nbloader.records import Kind
from tests.differential.harness import Case

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<image>"]
WORDS = [
    *_SPECIAL,
    "a",
    "b",
    "good",
    "bad",
    "cat",
    "mat",
    "this",
    "is",
    "an",
    "example",
    "of",
    "yes",
    "no",
]
VOCABULARY = 32
PIXELS = 32

_SMALL: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "embedding_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 2,
    "image_size": PIXELS,
    "patch_size": 8,
    "d_kv": 16,
    "d_ff": 32,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "projection_dim": 16,
    "layer_norm_eps": 1e-5,
}

# -- writing them ----------------------------------------------------------------------------------


def small(cls: Any, **own: Any) -> Any:
    """Make a tiny configuration of a class, those inside of it too."""
    default = cls()
    given = default.to_dict() | default.attribute_map
    values = {name: value for name, value in _SMALL.items() if name in given}
    for name in getattr(cls, "sub_configs", {}):
        if getattr(default, name, None) is not None:
            values[name] = small(type(getattr(default, name)), **own.pop(name, {})).to_dict()
    return cls(**{**values, **own})


def save(cls: str, changes: Mapping[str, Any], extra: str, folder: Path) -> None:
    """Write a tiny model of a class, and what `extra` names beside it."""
    import transformers

    found = getattr(transformers, cls)
    model = found(small(found.config_class, **changes))
    model.save_pretrained(folder)
    for each in extra.split():
        if each.startswith("tag:"):
            (folder / "README.md").write_text(f"---\npipeline_tag: {each[4:]}\n---\n")
        else:
            _EXTRA[each](folder)


def _tokenizer(folder: Path, **more: Any) -> Any:
    from transformers import BertTokenizerFast

    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(WORDS))
    made = BertTokenizerFast(vocab=str(vocab), model_max_length=64, **more)
    made.add_tokens(["<image>"], special_tokens=True)
    made.save_pretrained(folder)
    return made


def _chat(folder: Path) -> None:
    _tokenizer(folder, chat_template="{% for m in messages %}{{ m['content'] }} {% endfor %}")


def _untyped(folder: Path) -> Any:
    return _tokenizer(folder, model_input_names=["input_ids", "attention_mask"])


def _tables(folder: Path) -> None:
    from transformers import TapasTokenizer

    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(["[EMPTY]", *WORDS]))
    TapasTokenizer(vocab_file=str(vocab), model_max_length=64).save_pretrained(folder)


def _letters(folder: Path) -> Any:
    import json

    from transformers import Wav2Vec2CTCTokenizer

    vocab = folder / "vocab.json"
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefgh"]
    vocab.write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    made = Wav2Vec2CTCTokenizer(str(vocab))
    made.save_pretrained(folder)
    return made


def _whisper(folder: Path) -> None:
    from transformers import WhisperTokenizer

    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|0.00|>"]
    tokens = [*special, "<|notimestamps|>", *"abcdefgh"]
    vocab = {token: number for number, token in enumerate(tokens)}
    WhisperTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)


def _speech(folder: Path) -> None:
    import json

    from transformers import VitsTokenizer

    vocab = folder / "vocab.json"
    vocab.write_text(json.dumps({letter: number for number, letter in enumerate("_ abcdefgdot")}))
    VitsTokenizer(str(vocab), phonemize=False, pad_token="_", unk_token="_").save_pretrained(folder)


def _of_library(name: str, **arguments: Any) -> Callable[[Path], object]:
    """Write a processor of a class of the library."""

    def save(folder: Path) -> None:
        import transformers

        getattr(transformers, name)(**arguments).save_pretrained(folder)

    return save


_SIZE = {"height": PIXELS, "width": PIXELS}


def _both(name: str, tokenizer: Callable[[Path], Any], part: str, **arguments: Any) -> Any:
    """Write a processor of a class of the library, with its parts."""

    def save(folder: Path) -> None:
        import transformers

        of_part, more = _PARTS[part]
        inner = getattr(transformers, of_part)(**more)
        made = getattr(transformers, name)(inner, tokenizer(folder), **arguments)
        made.save_pretrained(folder)

    return save


_SQUARE = {"size": _SIZE}
_CROP = {"size": {"shortest_edge": PIXELS}, "crop_size": _SIZE}

_PARTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "image": ("ViTImageProcessor", _SQUARE),
    "clip": ("CLIPImageProcessor", _CROP),
    "owl": ("OwlViTImageProcessor", _SQUARE),
    "blip": ("BlipImageProcessor", _SQUARE),
    "segments": ("SegformerImageProcessor", _SQUARE),
    "masks": ("Mask2FormerImageProcessor", {"size": {"height": 64, "width": 64}}),
    "detections": ("YolosImageProcessor", {"size": {"shortest_edge": 32, "longest_edge": 32}}),
    "depth": ("GLPNImageProcessor", {"size_divisor": 32}),
    "dpt": ("DPTImageProcessor", _SQUARE),
    "sam": (
        "SamImageProcessor",
        {
            "size": {"longest_edge": 32},
            "pad_size": _SIZE,
            "mask_size": {"longest_edge": 8},
            "mask_pad_size": {"height": 8, "width": 8},
        },
    ),
    "pages": ("LayoutLMv2ImageProcessor", {"apply_ocr": False, **_SQUARE}),
    "points": ("SuperGlueImageProcessor", _SQUARE),
    "videos": ("VideoMAEImageProcessor", _CROP),
    "waves": ("Wav2Vec2FeatureExtractor", {}),
    "mels": ("WhisperFeatureExtractor", {"feature_size": 16, "chunk_length": 1}),
    "clap": ("ClapFeatureExtractor", {"max_length_s": 1, "truncation": "rand_trunc"}),
    "spectra": ("ASTFeatureExtractor", {"max_length": 32, "num_mel_bins": 16}),
}

_EXTRA: Mapping[str, Callable[[Path], object]] = {
    "text": _tokenizer,
    "tables": _tables,
    "chat": _chat,
    "letters": _letters,
    "speech": _speech,
    "whisper": _whisper,
    **{name: _of_library(cls, **arguments) for name, (cls, arguments) in _PARTS.items()},
    "llava": _both(
        "LlavaProcessor",
        _tokenizer,
        "clip",
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ),
    "blip": _both("BlipProcessor", _tokenizer, "blip"),
    "clap": _both("ClapProcessor", _untyped, "clap"),
}

# -- calling them ----------------------------------------------------------------------------------


def _picture() -> Any:
    import numpy as np
    from PIL import Image

    return Image.fromarray(
        np.arange(PIXELS * PIXELS * 3, dtype=np.uint32).astype(np.uint8).reshape(PIXELS, PIXELS, 3)
    )


def _sound() -> Any:
    import numpy as np

    return {"raw": np.sin(np.arange(1600) / 9).astype(np.float32), "sampling_rate": 16_000}


def _briefly(made: Any) -> dict[str, Any]:
    return {"generate_kwargs": {"max_new_tokens": 3}} if made.model.can_generate() else {}


_TEXT = "a good cat"

_CALLS: Mapping[str, Callable[[Any], Any]] = {
    "audio-classification": lambda made: made(_sound()),
    "automatic-speech-recognition": lambda made: made(_sound(), **_briefly(made)),
    "text-to-audio": lambda made: made(_TEXT),
    "feature-extraction": lambda made: made(_TEXT),
    "text-classification": lambda made: made(_TEXT),
    "token-classification": lambda made: made(_TEXT),
    "table-question-answering": lambda made: made(table={"a": ["good"], "b": ["bad"]}, query="cat"),
    "document-question-answering": lambda made: made(
        image=_picture(),
        question=_TEXT,
        word_boxes=[("good", [0, 0, 9, 9]), ("cat", [9, 9, 20, 20])],
    ),
    "fill-mask": lambda made: made("a good [MASK]"),
    "text-generation": lambda made: made(_TEXT, max_new_tokens=3, do_sample=False),
    "zero-shot-classification": lambda made: made(_TEXT, candidate_labels=["cat", "mat"]),
    "zero-shot-image-classification": lambda made: made(
        _picture(), candidate_labels=["cat", "mat"], hypothesis_template="a {}"
    ),
    "zero-shot-audio-classification": lambda made: made(
        _sound()["raw"], candidate_labels=["cat", "mat"], hypothesis_template="a {}"
    ),
    "image-classification": lambda made: made(_picture()),
    "image-feature-extraction": lambda made: made(_picture()),
    "image-segmentation": lambda made: made(_picture()),
    "image-text-to-text": lambda made: made(_picture(), text="<image> a cat", max_new_tokens=2),
    "object-detection": lambda made: made(_picture(), threshold=0.0),
    "zero-shot-object-detection": lambda made: made(
        _picture(), candidate_labels=["cat", "mat"], threshold=0.0
    ),
    "depth-estimation": lambda made: made(_picture()),
    "mask-generation": lambda made: made(_picture(), points_per_crop=4),
    "decision": lambda made: made(
        {"state": "cat", "questions": {"q": {"type": "noul", "instructions": "good"}}}
    ),
    "any-to-any": lambda made: made(text="a cat", max_new_tokens=2),
    "keypoint-matching": lambda made: made([_picture(), _picture()]),
}


# -- the table -------------------------------------------------------------------------------------

_Line = tuple[str, str | None, Mapping[str, Any], str]


def _text(task: str | None, *classes: str, **changes: Any) -> list[_Line]:
    extra = "chat" if task == "text-generation" else "text"
    return [(cls, task, changes, extra) for cls in classes]


def _image(task: str | None, *classes: str, extra: str = "image", **changes: Any) -> list[_Line]:
    return [(cls, task, changes, extra) for cls in classes]


_STAGES: Mapping[str, Any] = {
    "hidden_sizes": [8, 8, 8, 8],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 8,
}
_DECODER: Mapping[str, Any] = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
}
_LLAVA: Mapping[str, Any] = {
    "image_token_id": 5,
    "vision_feature_layer": -1,
    "text_config": {"tie_word_embeddings": False},
}
_VITS: Mapping[str, Any] = {
    "ffn_dim": 16,
    "flow_size": 8,
    "spectrogram_bins": 5,
    "upsample_rates": [4, 4],
    "upsample_kernel_sizes": [8, 8],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "prior_encoder_num_wavenet_layers": 1,
    "duration_predictor_filter_channels": 8,
}
_MASKS: Mapping[str, Any] = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 8,
    "dim_feedforward": 8,
    "backbone_config": {
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "num_attention_heads": [1, 1, 2, 2],
        "window_size": 2,
        "image_size": 64,
        "patch_size": 4,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_queries": 4,
    "train_num_points": 16,
}
WAVES: Mapping[str, Any] = {
    "conv_dim": (16, 16),
    "conv_kernel": (3, 3),
    "conv_stride": (3, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "num_codevectors_per_group": 4,
    "codevector_dim": 8,
    "proj_codevector_dim": 8,
    "classifier_proj_size": 8,
    "hidden_dropout": 0.0,
    "layerdrop": 0.0,
}

_TABLE: tuple[_Line, ...] = (
    *_text(
        "feature-extraction",
        "AlbertModel",
        "BertModel",
        "DebertaV2Model",
        "DistilBertModel",
        "ElectraModel",
        "MPNetModel",
        "RobertaModel",
        "LlamaModel",
        "XLMRobertaModel",
        "CLIPTextModel",
    ),
    *_text(
        "text-classification", "RobertaForSequenceClassification", "Qwen2ForSequenceClassification"
    ),
    *_text("token-classification", "BertForTokenClassification", "ElectraForTokenClassification"),
    *_text("fill-mask", "BertForMaskedLM", "DistilBertForMaskedLM", "XLMRobertaForMaskedLM"),
    *_text("fill-mask", "CamembertForMaskedLM", "MPNetForMaskedLM", "AlbertForMaskedLM"),
    *_text("fill-mask", "ModernBertForMaskedLM", cls_token_id=2, sep_token_id=3),
    *_text(
        "text-generation",
        "BloomForCausalLM",
        "CohereForCausalLM",
        "FalconForCausalLM",
        "GPT2LMHeadModel",
        "GPTNeoXForCausalLM",
        "Gemma2ForCausalLM",
        "GemmaForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "OlmoForCausalLM",
        "Phi3ForCausalLM",
        "PhiForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "StableLmForCausalLM",
        "Starcoder2ForCausalLM",
    ),
    *_text("text-generation", "OPTForCausalLM", ffn_dim=32, word_embed_proj_dim=32),
    *_text("text-generation", "GPTJForCausalLM", rotary_dim=8),
    *_text("text-generation", "MixtralForCausalLM", num_local_experts=2),
    *_text("text-generation", "MambaForCausalLM", state_size=4),
    # No pipeline is for these.
    *_text(
        None,
        "BertForQuestionAnswering",
        "RobertaForQuestionAnswering",
        "DistilBertForQuestionAnswering",
        "BertForPreTraining",
        "BertForNextSentencePrediction",
        "BertForMultipleChoice",
        "ElectraForPreTraining",
        "CLIPTextModelWithProjection",
        "T5ForConditionalGeneration",
        "T5EncoderModel",
        "MT5ForConditionalGeneration",
        "BartForConditionalGeneration",
        "MBartForConditionalGeneration",
        "MarianMTModel",
        "PegasusForConditionalGeneration",
        "GPT2DoubleHeadsModel",
    ),
    # Pictures.
    *_image("image-feature-extraction", "ViTModel", "Dinov2Model", "DeiTModel", "BeitModel"),
    *_image("image-feature-extraction", "CLIPVisionModel", "SiglipVisionModel"),
    *_image("image-classification", "ViTForImageClassification", "BeitForImageClassification"),
    *_image(
        "image-classification",
        "ConvNextForImageClassification",
        hidden_sizes=[8, 8],
        depths=[1, 1],
        num_stages=2,
    ),
    *_image(
        "image-classification",
        "ResNetForImageClassification",
        hidden_sizes=[8, 8],
        depths=[1, 1],
        embedding_size=8,
    ),
    *_image(
        "image-classification",
        "SwinForImageClassification",
        embed_dim=8,
        depths=[1, 1],
        num_heads=[1, 2],
        num_attention_heads=[1, 2],
        window_size=2,
    ),
    *_image("image-segmentation", "SegformerForSemanticSegmentation", extra="segments", **_STAGES),
    *_image(
        "image-segmentation",
        "Mask2FormerForUniversalSegmentation",
        extra="masks tag:image-segmentation",
        **_MASKS,
    ),
    *_image(None, "Mask2FormerForUniversalSegmentation", extra="masks", **_MASKS),
    *_image(
        "object-detection",
        "YolosForObjectDetection",
        extra="detections",
        num_detection_tokens=4,
        image_size=[32, 32],
    ),
    *_image("depth-estimation", "GLPNForDepthEstimation", extra="depth", **_STAGES),
    *_image("zero-shot-image-classification", "CLIPModel", "SiglipModel", extra="clip text"),
    *_image(
        "zero-shot-object-detection",
        "OwlViTForObjectDetection",
        extra="owl text",
        text_config={"hidden_size": 16, "projection_dim": 16},
        vision_config={"hidden_size": 16, "projection_dim": 16},
    ),
    *_image(
        "mask-generation",
        "SamModel",
        extra="sam",
        vision_config={"output_channels": 8, "mlp_dim": 16, "num_pos_feats": 4, "window_size": 2},
        prompt_encoder_config={"hidden_size": 8, "image_embedding_size": 4, "patch_size": 8},
        mask_decoder_config={
            "hidden_size": 8,
            "mlp_dim": 8,
            "iou_head_hidden_dim": 8,
            "num_hidden_layers": 1,
        },
    ),
    *_image(
        "keypoint-matching",
        "SuperGlueForKeypointMatching",
        extra="points",
        hidden_size=256,
        gnn_layers_types=["self", "cross"],
        num_hidden_layers=2,
    ),
    *_image("image-text-to-text", "BlipForConditionalGeneration", extra="blip"),
    *_image(None, "BlipForQuestionAnswering", extra="blip"),
    *_image("image-text-to-text", "LlavaForConditionalGeneration", extra="llava", **_LLAVA),
    *_image(None, "ViTForMaskedImageModeling"),
    *_image(None, "ViTMAEForPreTraining", **_DECODER),
    *_image(None, "VideoMAEForPreTraining", extra="videos", num_frames=2, **_DECODER),
    *_image(None, "VideoMAEModel", extra="videos", num_frames=2),
    *_image("video-classification", "VideoMAEForVideoClassification", extra="videos", num_frames=2),
    # Questions about pages and tables.
    *_text("document-question-answering", "LayoutLMForQuestionAnswering"),
    *_image("table-question-answering", "TapasForQuestionAnswering", extra="tables"),
    # Sounds.
    *_image(
        "automatic-speech-recognition",
        "Wav2Vec2ForCTC",
        "HubertForCTC",
        "WavLMForCTC",
        extra="waves letters",
        **WAVES,
    ),
    *_image(
        "audio-classification",
        "Wav2Vec2ForSequenceClassification",
        "HubertForSequenceClassification",
        extra="waves",
        **WAVES,
    ),
    *_image(
        None,
        "Wav2Vec2Model",
        "Wav2Vec2ForPreTraining",
        "WavLMForAudioFrameClassification",
        extra="waves",
        **WAVES,
    ),
    *_image(
        "automatic-speech-recognition",
        "WhisperForConditionalGeneration",
        extra="mels whisper",
        num_mel_bins=16,
        max_source_positions=50,
        max_target_positions=64,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    ),
    *_image(
        "audio-classification",
        "ASTForAudioClassification",
        extra="spectra",
        max_length=32,
        num_mel_bins=16,
    ),
    *_image(
        "zero-shot-audio-classification",
        "ClapModel",
        extra="clap",
        audio_config={
            "num_attention_heads": [1, 1, 2, 2],
            "depths": [1, 1, 1, 1],
            "hidden_size": 64,
            "patch_embeds_hidden_size": 8,
            "patch_size": 4,
            "spec_size": 128,
            "window_size": 2,
        },
    ),
    *_image("text-to-audio", "VitsModel", extra="speech", **_VITS),
    # By the Hub's tag.
    (
        "BertForSequenceClassification",
        "zero-shot-classification",
        {},
        "text tag:zero-shot-classification",
    ),
    ("BertForMaskedLM", "feature-extraction", {}, "text tag:feature-extraction"),
    ("BertForPreTraining", "fill-mask", {}, "text tag:fill-mask"),
    ("BertModel", "feature-extraction", {}, "text tag:sentence-similarity"),
    ("T5ForConditionalGeneration", None, {}, "text tag:translation"),
    ("BertForQuestionAnswering", None, {}, "text tag:question-answering"),
    ("ViTModel", "image-feature-extraction", {}, "image tag:feature-extraction"),
    ("BlipForConditionalGeneration", "image-text-to-text", {}, "blip tag:image-to-text"),
    ("VitsModel", "text-to-speech", _VITS, "speech tag:text-to-speech"),
    ("LlavaForConditionalGeneration", "any-to-any", _LLAVA, "llava tag:any-to-any"),
    # A processor is not there that the pipeline needs.
    ("BertModel", None, {}, ""),
    ("ViTForImageClassification", None, {}, ""),
    ("Wav2Vec2ForCTC", None, WAVES, "waves"),
    ("LlamaForCausalLM", None, {}, "tag:text-generation"),
)


_PACKAGES = {"table-question-answering": "pandas", "video-classification": "av"}
"""What pipelines want beyond what is installed for tests."""


def call_of(task: str | None) -> Callable[[Any], Any] | None:
    """Return one call of the pipeline of a task; None for a model alone."""
    other = {"sentiment-analysis": "text-classification", "text-to-speech": "text-to-audio"}
    return _CALLS.get(other.get(task or "", task or ""))


def plain(cls: str, task: str | None, folder: Path) -> Any:
    """Load a folder by the library's own call: the pipeline of a task, or the class."""
    import transformers

    if task is None:
        return getattr(transformers, cls).from_pretrained(str(folder)).eval()
    return transformers.pipeline(task, model=str(folder), device="cpu")


def _case(line: _Line) -> Case:
    cls, task, changes, extra = line
    name = "-".join(filter(None, (cls.lower(), *extra.split()))).replace("tag:", "as-")
    lacks = find_spec(_PACKAGES.get(task or "", "sys")) is None
    return Case(
        name=name,
        kind=Kind.TRANSFORMERS,
        save=partial(save, cls, changes, extra),
        plain=None if lacks else partial(plain, cls, task),
        call=call_of(task),
        notices=frozenset() if task else frozenset({"no-pipeline"}),
        refused="missing-package" if lacks else None,
        group=task or "no pipeline",
    )


CASES = tuple(_case(line) for line in _TABLE)
