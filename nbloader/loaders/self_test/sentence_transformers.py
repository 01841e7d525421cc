"""Can a model of sentence-transformers be called?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from nbloader.errors import SelfTestError
from nbloader.loaders.self_test.state import as_it_was
from nbloader.loaders.self_test.weights import HINT
from nbloader.records import Notice
from nbloader.text import plain

_SENTENCES = ("A cat sits on the mat.", "Stock prices fell sharply today.")
"""Where the vocabulary of a model cannot be read."""

_TRIED = 64
"""Words of a vocabulary that are looked at, evenly over all of it."""

_OWN = frozenset({"sentence_transformers", "torch"})
"""Where the classes of modules come from whose input is known."""


@dataclass(frozen=True, slots=True)
class _Input:
    """Two inputs of one kind.

    Attributes:
        what: what they are, in words.
        differ: whether the model has to see a difference between them.
    """

    what: str
    first: Any
    second: Any
    differ: bool = True


def check_embeddings(model: Any) -> list[Notice]:
    """Embed two small inputs, or score them as a pair, and look at the result.

    Returns:
        That the two could not be told apart, or that it is not known what the model takes.

    Raises:
        SelfTestError: it cannot be called, or gives numbers that are none.
    """
    import torch

    call = _way(model)
    failed: Exception | None = None
    given = None
    with as_it_was(model) if isinstance(model, torch.nn.Module) else nullcontext():
        for given in _inputs(model):
            for task in _tasks(model):
                try:
                    found = call(given, {} if task is None else {"task": task})
                except Exception as error:
                    failed = failed or error
                else:
                    return _judged(found, given)
    if given is None:
        return [_not_called("it says of no input that it takes it")]
    assert failed is not None
    why = f"{type(failed).__name__}: {plain(str(failed), 200)}"
    if isinstance(failed, ImportError) or not _is_known(model):
        # An input may need a package that others do not, or have a form that only the code of the
        # repository knows.
        return [_not_called(f"{given.what} could not be handed to it: {why}")]
    raise SelfTestError(f"{given.what} could not be handed to it: {why}", hint=HINT) from failed


# -- how it is called ------------------------------------------------------------------------------

_Call = Callable[[_Input, dict[str, Any]], Any]


def _way(model: Any) -> _Call:
    """Return the call that suits the class; it returns rows of numbers, one array for each input.

    The functions get the model as an argument: the frames of an error keep what they close over.
    """
    names = {each.__name__ for each in type(model).__mro__}
    for name, way in _WAYS.items():
        if name in names:
            return partial(way, model)
    return partial(_embed, model)


def _score(model: Any, given: _Input, task: dict[str, Any]) -> Any:
    return [model.predict([(given.first, given.second)], show_progress_bar=False, **task)]


def _embed(model: Any, given: _Input, task: dict[str, Any]) -> Any:
    both = [given.first, given.second]
    return model.encode(both, show_progress_bar=False, convert_to_numpy=True, **task)


def _embed_sparsely(model: Any, given: _Input, task: dict[str, Any]) -> Any:
    both = [given.first, given.second]
    found = model.encode(both, show_progress_bar=False, convert_to_sparse_tensor=False, **task)
    return found.float().cpu().numpy()


def _embed_tokens(model: Any, given: _Input, task: dict[str, Any]) -> Any:
    query = model.encode_query([given.first], show_progress_bar=False, **task)
    document = model.encode_document([given.second], show_progress_bar=False, **task)
    return [_array(each) for each in (*query, *document)]


_WAYS: Mapping[str, Callable[[Any, _Input, dict[str, Any]], Any]] = {
    "CrossEncoder": _score,
    "SparseEncoder": _embed_sparsely,
    "MultiVectorEncoder": _embed_tokens,
}


def _array(rows: Any) -> Any:
    return rows.float().cpu().numpy() if hasattr(rows, "cpu") else rows


def _tasks(model: Any) -> list[str | None]:
    """Name the tasks to try: those of its routes, where a model does not choose one itself."""
    tasks: list[str | None] = [None]
    for module in model.children() if hasattr(model, "children") else ():
        routes = getattr(module, "sub_modules", None)
        if routes is not None and hasattr(module, "default_route"):
            tasks += [task for task, _ in getattr(module, "route_mappings", None) or () if task]
            tasks += list(routes)
    return list(dict.fromkeys(tasks))


def _is_known(model: Any) -> bool:
    parts = model.modules() if hasattr(model, "modules") else ()
    own = _OWN | {"transformers"}
    return all(type(part).__module__.partition(".")[0] in own for part in parts)


# -- what it is called with ------------------------------------------------------------------------


def _inputs(model: Any) -> Iterator[_Input]:
    """Yield the smallest inputs of a kind that the model takes, then larger ones."""
    kinds = list(getattr(model, "modalities", ["text"]))
    singles = [kind for kind in ("text", "image", "audio", "video", "message") if kind in kinds]
    pairs = [kind for kind in kinds if isinstance(kind, tuple)]
    if singles:
        yield from _of_kind(singles[0], model)
    elif pairs:
        for parts in zip(*(_of_kind(kind, model) for kind in pairs[0]), strict=False):
            first = {kind: part.first for kind, part in zip(pairs[0], parts, strict=True)}
            second = {kind: part.second for kind, part in zip(pairs[0], parts, strict=True)}
            yield _Input(" with ".join(part.what for part in parts), first, second)


def _of_kind(kind: str, model: Any) -> Iterator[_Input]:
    if kind == "text":
        yield _texts(model)
    elif kind == "message":
        texts = _texts(model)
        first, second = (
            [{"role": "user", "content": text}] for text in (texts.first, texts.second)
        )
        yield _Input("two messages", first, second, differ=texts.differ)
    elif kind == "image":
        for size in dict.fromkeys((32, _image_size(model))):
            yield _Input(f"two pictures of {size} pixels", _picture(size, 0), _picture(size, 1))
    elif kind == "audio":
        for seconds in (0.1, 1.0):
            silence = _silence(model, seconds)
            yield _Input(f"{seconds} s of silence, twice", silence, silence, differ=False)
    elif kind == "video":
        yield _Input("two videos of 8 pictures", _video(0), _video(1))


def _texts(model: Any) -> _Input:
    """Take two words of the model's own vocabulary."""
    try:
        words = _words(model.tokenizer)
    except Exception:  # Tokenizers are of many kinds, some from code of the repository.
        words = []
    if len(words) == 2:
        return _Input("two words", words[0], words[1])
    return _Input("two sentences", _SENTENCES[0], _SENTENCES[1], differ=False)


def _words(tokenizer: Any) -> list[str]:
    """Find two words that a tokenizer knows and tells apart."""
    found: dict[tuple[int, ...], str] = {}
    size = _size(tokenizer)
    for number in range(0, size, max(1, size // _TRIED)):
        word = _word(tokenizer, number).strip()
        if word.isalpha() and (ids := _ids(tokenizer, word)):
            found.setdefault(ids, word)
            if len(found) == 2:
                break
    return list(found.values())


def _size(tokenizer: Any) -> int:
    if hasattr(tokenizer, "get_vocab_size"):  # of the package tokenizers
        return int(tokenizer.get_vocab_size())
    return len(tokenizer.get_vocab()) if not hasattr(tokenizer, "__len__") else len(tokenizer)


def _word(tokenizer: Any, number: int) -> str:
    if hasattr(tokenizer, "decode"):
        return str(tokenizer.decode([number]))
    return str(list(tokenizer.get_vocab())[number])


def _ids(tokenizer: Any, word: str) -> tuple[int, ...]:
    """Return the numbers of a word's tokens; empty if one is not known."""
    if callable(tokenizer):
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        return () if getattr(tokenizer, "unk_token_id", None) in ids else tuple(ids)
    if hasattr(tokenizer, "encode"):
        return tuple(tokenizer.encode(word, add_special_tokens=False).ids)
    return tuple(tokenizer.tokenize(word))


def _image_size(model: Any) -> int:
    """Return the size that a model of pictures was made for."""
    for module in model.modules():
        config = getattr(module, "config", None)
        size = getattr(getattr(config, "vision_config", config), "image_size", None)
        if isinstance(size, int) and 0 < size <= 1024:
            return size
    return 224


def _pixels(seed: int, *shape: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def _picture(size: int, seed: int) -> Any:
    from PIL import Image

    return Image.fromarray(_pixels(seed, size, size))


def _video(seed: int) -> Any:
    return _pixels(seed, 8, 32, 32).transpose(0, 3, 1, 2)


def _silence(model: Any, seconds: float) -> Any:
    import numpy as np

    processor = getattr(model, "processor", None)
    extractor = getattr(processor, "feature_extractor", processor)
    rate = getattr(extractor, "sampling_rate", None) or 16000
    return {"array": np.zeros(int(rate * seconds), dtype=np.float32), "sampling_rate": rate}


# -- what it gives ---------------------------------------------------------------------------------


def _judged(found: Any, given: _Input) -> list[Notice]:
    import numpy as np

    rows = [np.asarray(each, dtype=np.float64) for each in found]
    shapes = " and ".join(str(row.shape) for row in rows)
    if not rows or not all(row.size for row in rows):
        raise SelfTestError(f"{given.what} gave results of the shape {shapes}", hint=HINT)
    if not all(np.isfinite(row).all() for row in rows):
        raise SelfTestError(f"{given.what} gave results that are not finite", hint=HINT)
    if len(rows) < 2 or not given.differ:
        return []
    if not any(row.any() for row in rows):
        return [_alike(f"{given.what} gave embeddings of zeros alone")]
    if rows[0].shape == rows[1].shape and np.array_equal(rows[0], rows[1]):
        return [_alike(f"{given.what} gave the same embedding")]
    return []


def _alike(message: str) -> Notice:
    return Notice(
        reference="same-embeddings",
        message=message,
        hint="It may be what the model gives for so short an input: try it with one of yours.",
    )


def _not_called(why: str) -> Notice:
    return Notice(
        reference="not-called",
        message=f"the model was not tried: {why}",
        hint="Its weights are complete; try it with an input of yours.",
    )
