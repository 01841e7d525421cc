"""Classes in the files of sentence-transformers that are whole models."""

from __future__ import annotations

import re

from nbloader.libraries.sources import Sources
from nbloader.records import Form

_MODELS = ("SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder")
"""They load what they are made with; none has `from_pretrained`."""


def form_of(sources: Sources, name: str) -> Form | None:
    """Say what a public class makes of a repository; None if it is none of a whole model."""
    return Form.ENCODER if name in _MODELS and name in class_names(sources) else None


def class_names(sources: Sources) -> set[str]:
    """Return the public names that can be those of classes."""
    listed = sources.text("__init__.py").partition("\n__all__")[2]
    return set(re.findall(r'"([A-Z]\w*)"', listed))
