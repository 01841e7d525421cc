"""Can a model of sentence-transformers be called?"""

from __future__ import annotations

from typing import Any

from nbloader.errors import SelfTestError
from nbloader.loaders.self_test._weights import HINT
from nbloader.records import Notice

__all__ = ["check_embeddings"]

_SENTENCES = ("A cat sits on the mat.", "Stock prices fell sharply today.")


def check_embeddings(model: Any) -> list[Notice]:
    """Embed two sentences and look at the result.

    Raises:
        SelfTestError: the embeddings are of the wrong shape, not finite, or all the same.
    """
    import numpy as np

    try:
        vectors = np.asarray(
            model.encode(list(_SENTENCES), show_progress_bar=False, convert_to_numpy=True),
            dtype=np.float64,
        )
    except Exception as error:
        raise SelfTestError(
            f"two sentences could not be embedded: {type(error).__name__}: {str(error)[:200]}",
            hint=HINT,
        ) from error
    if vectors.ndim != 2 or len(vectors) != len(_SENTENCES) or not vectors.shape[1]:
        raise SelfTestError(f"embeddings have the shape {vectors.shape}", hint=HINT)
    if not np.isfinite(vectors).all() or not vectors.any():
        raise SelfTestError("embeddings are zero or not finite", hint=HINT)
    if np.array_equal(vectors[0], vectors[1]):
        raise SelfTestError("two different sentences get the same embedding", hint=HINT)
    return []
