"""Can a model of transformers, or its pipeline, be called?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

from nbloader.errors import SelfTestError
from nbloader.loaders.self_test.state import as_it_was, attributes_kept, padding_kept, settings_kept
from nbloader.loaders.self_test.weights import HINT
from nbloader.records import Notice, Placement

_MOST_ON_CPU = 1_000_000_000
"""Parameters up to which some words of text are worth the wait on a CPU: about a second."""

_MOST_ON_CPU_OTHERWISE = 150_000_000
"""The same for pictures and sounds, which are hundreds of tokens."""

_MOST_PIXELS = 512
_PIXELS = 32
_TRIED_WORDS = 40
_IDS = 4

_TEXT = frozenset(
    {
        "feature-extraction",
        "fill-mask",
        "text-classification",
        "text-generation",
        "token-classification",
        "zero-shot-classification",
    }
)
_CERTAIN = _TEXT | {
    "audio-classification",
    "automatic-speech-recognition",
    "depth-estimation",
    "image-classification",
    "image-feature-extraction",
    "object-detection",
}
"""Tasks whose input is surely of the kind that the model wants. Of the others some want more of it,
such as words that stand for a picture, so that an error says nothing."""

_Call = Callable[[Any], Any]
"""It gets what it calls as an argument: the frames of an error keep what they close over."""


def check_model(built: Any, placement: Placement | None) -> list[Notice]:
    """Call it on the smallest input that suits its kind.

    What comes of it is told and never refused: the library gives the same model for the same files,
    and an input may be wanted that cannot be guessed. What is large for where it lies, or waits
    elsewhere, is not called.
    """
    import torch

    alone = isinstance(built, torch.nn.Module)
    model = built if alone else built.model
    task = None if alone else _task_of(built)
    if not _is_cheap(model, placement, task):
        return []
    with ExitStack() as kept:
        for context in (as_it_was(model), settings_kept(model), *_surroundings(built, alone)):
            kept.enter_context(context)
        try:
            call = _of_pipeline(built, task) if task is not None else _of_model(model)
            if call is None:
                return []
            with torch.no_grad():
                given = call(built)
        except Exception as error:
            if task not in _CERTAIN:
                return []
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return [_notice(f"a first call of the pipeline {task} ended in {text}")]
    if _holds_nan(given):
        return [_notice("the numbers that a first call gave are not finite")]
    return []


def _notice(message: str) -> Notice:
    return Notice(reference=SelfTestError.reference, message=message, hint=HINT)


# -- what is cheap, and what is put back -----------------------------------------------------------


def _is_cheap(model: Any, placement: Placement | None, task: str | None) -> bool:
    weights = list(model.parameters())
    if not weights or any(weight.is_meta for weight in weights):
        return False
    if all(weight.device.type == "cpu" for weight in weights):
        text = task in _TEXT or getattr(model, "main_input_name", "") == "input_ids"
        most = _MOST_ON_CPU if text else _MOST_ON_CPU_OTHERWISE
        return bool(sum(weight.numel() for weight in weights) <= most)
    return placement is not None


def _surroundings(built: Any, alone: bool) -> list[Any]:
    if alone:
        return []
    processors = (built.tokenizer, getattr(getattr(built, "processor", None), "tokenizer", None))
    return [
        attributes_kept(built),
        *(padding_kept(each) for each in processors if each is not None),
    ]


def _holds_nan(value: Any) -> bool:
    """Look for numbers that are none in what a call gave."""
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, Mapping):
        return any(_holds_nan(each) for each in value.values())
    if isinstance(value, (list, tuple)):
        return any(_holds_nan(each) for each in value)
    if hasattr(value, "is_floating_point") and value.is_floating_point():
        return bool(value.isnan().any())
    return False


# -- a pipeline ------------------------------------------------------------------------------------


def _task_of(pipe: Any) -> str:
    """Return the library's own name of the task of a pipeline, which keeps the one it was given."""
    from transformers.pipelines import check_task

    with suppress(Exception):  # A task of the repository's own.
        return str(check_task(pipe.task)[0])
    return str(pipe.task)


def _of_pipeline(pipe: Any, task: str) -> _Call | None:
    """Return the smallest call that suits the task; None if there is none."""
    word = _word(pipe)
    if task in _TEXT and word is None:
        return None
    labels = {"candidate_labels": [word or "a"]}
    brief = {"max_new_tokens": 1, "do_sample": False}
    match task:
        case "feature-extraction" | "text-classification" | "token-classification":
            return lambda pipe: pipe(word)
        case "text-generation":
            return lambda pipe: pipe(word, **brief)
        case "fill-mask":
            mask = pipe.tokenizer.mask_token
            return None if mask is None else lambda pipe: pipe(f"{word} {mask}")
        case "zero-shot-classification":
            return lambda pipe: pipe(word, **labels, hypothesis_template="{}")
        case "image-classification" | "image-feature-extraction" | "object-detection":
            return lambda pipe: pipe(_picture(pipe.image_processor))
        case "depth-estimation" | "image-segmentation":
            return lambda pipe: pipe(_picture(pipe.image_processor))
        case "zero-shot-image-classification":
            return lambda pipe: pipe(_picture(), **labels, hypothesis_template="{}")
        case "zero-shot-object-detection":
            return lambda pipe: pipe(_picture(), **labels)
        case "audio-classification":
            return lambda pipe: pipe(_sound(pipe))
        case "automatic-speech-recognition":
            more = {"generate_kwargs": {"max_new_tokens": 1}} if pipe.model.can_generate() else {}
            return lambda pipe: pipe(_sound(pipe), **more)
        case "zero-shot-audio-classification":
            return lambda pipe: pipe(_sound(pipe)["raw"], **labels, hypothesis_template="{}")
        case "text-to-audio":
            # How long those speak that generate cannot be bounded in a way that all know.
            if word is None or pipe.model.can_generate():
                return None
            return lambda pipe: _said_fast(pipe, word)
        case "image-text-to-text" | "any-to-any":
            return _of_chat(pipe, word)
        case "video-classification":
            return lambda pipe: _video_seen(pipe)
        case "document-question-answering":
            if pipe.model.can_generate():
                return None
            boxes = [(word or "a", [0, 0, 9, 9])]
            return lambda pipe: pipe(image=_picture(), question=word or "a", word_boxes=boxes)
        case "table-question-answering":
            table = {word or "a": [word or "a"]}
            return lambda pipe: pipe(table=table, query=word or "a")
        case _:
            return None


def _word(pipe: Any) -> str | None:
    """Find a word of which the model knows all; None if there is none.

    Numbers beyond the embeddings would end in an error; on a GPU no later call survives that.
    """
    processor = getattr(pipe, "processor", None)
    tokenizer = pipe.tokenizer or getattr(processor, "tokenizer", None)
    if tokenizer is None or not callable(tokenizer):
        return None
    with suppress(Exception):
        known = _rows(pipe.model)
        vocabulary: list[str] = []
        for number in range(_TRIED_WORDS):
            if number == 1:
                vocabulary = sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens))
            if number > len(vocabulary):
                break
            at = (number - 1) * max(1, len(vocabulary) // _TRIED_WORDS)
            word = vocabulary[at].strip("\u2581\u0120#@") if number else "hello"
            ids = tokenizer(word)["input_ids"] if word else []
            own = set(tokenizer(word, add_special_tokens=False)["input_ids"]) if word else set()
            if own and tokenizer.unk_token_id not in own and max(ids) < known:
                return word
    return None


def _rows(model: Any) -> int:
    """Count the tokens that a model has numbers for."""
    return int(model.get_input_embeddings().weight.shape[0])


def _of_chat(pipe: Any, word: str | None) -> _Call | None:
    """Call a model of text and pictures: with a word alone where it chats, else with a picture."""
    brief = {"max_new_tokens": 1, "generate_kwargs": {"do_sample": False}}
    if word is None:
        return None
    if getattr(pipe.processor, "chat_template", None):
        content = [{"type": "text", "text": word}]
        return lambda pipe: pipe(text=[{"role": "user", "content": content}], **brief)
    return lambda pipe: pipe(_picture(), text=word, **brief)


def _picture(processor: Any = None) -> Any:
    """Make a small grey picture, of the size that a processor wants where it does not change it."""
    from PIL import Image

    size = getattr(processor, "size", None)
    wanted = size if isinstance(size, Mapping) else {}
    sides = [wanted.get("width", _PIXELS), wanted.get("height", _PIXELS)]
    fits = all(isinstance(side, int) and 0 < side <= _MOST_PIXELS for side in sides)
    return Image.new("RGB", tuple(sides) if fits else (_PIXELS, _PIXELS), (127, 127, 127))


def _sound(pipe: Any) -> dict[str, Any]:
    """Make a tenth of a second of silence."""
    import numpy as np

    rate = int(getattr(pipe.feature_extractor, "sampling_rate", 16_000))
    return {"raw": np.zeros(rate // 10, dtype=np.float32), "sampling_rate": rate}


def _said_fast(pipe: Any, word: str) -> Any:
    """Speak a word as fast as can be: how long it takes is the model's own guess (VITS)."""
    if hasattr(pipe.model, "speaking_rate"):
        pipe.model.speaking_rate = 1000.0  # put back with the model's other attributes
    return pipe(word)


def _video_seen(pipe: Any) -> Any:
    """Look at some frames, past the pipeline's own reading of files."""
    processor = getattr(pipe, "video_processor", None) or pipe.image_processor
    count = int(getattr(pipe.model.config, "num_frames", 8))
    inputs = processor([_picture()] * count, return_tensors="pt")
    weight = next(pipe.model.parameters())
    return pipe.model(**{key: value.to(weight.device) for key, value in inputs.items()})


# -- a model alone ---------------------------------------------------------------------------------


def _of_model(model: Any) -> _Call | None:
    """Return a call of the model's main input alone; None if that cannot be made."""
    import torch

    name = getattr(model, "main_input_name", None)
    weight = next(model.parameters())
    inputs: dict[str, Any]
    if name == "input_ids":
        ids = torch.arange(_rows(model), device=weight.device)[-_IDS:][None]
        inputs = {"input_ids": ids}
        if getattr(model.config, "is_encoder_decoder", False):
            inputs["decoder_input_ids"] = ids[:, :1]
    elif name == "pixel_values" and isinstance(getattr(model.config, "image_size", None), int):
        side = min(model.config.image_size, _MOST_PIXELS)
        channels = int(getattr(model.config, "num_channels", 3))
        pixels = torch.zeros((1, channels, side, side), dtype=weight.dtype, device=weight.device)
        inputs = {"pixel_values": pixels}
    else:
        return None
    return lambda model: model(**inputs)
