"""Is what came out of a load fit to be called ready? Cheap checks only.

A model that came so far and cannot work must not be returned, and one that works must not be
refused.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from nbloader.loaders.offline import offline
from nbloader.loaders.reports import quiet
from nbloader.loaders.self_test.diffusers import check_part, check_pipeline
from nbloader.loaders.self_test.sentence_transformers import check_embeddings
from nbloader.loaders.self_test.state import as_it_was
from nbloader.loaders.self_test.transformers import check_model
from nbloader.loaders.self_test.weights import check_finite, check_modules
from nbloader.records import Kind, Notice, Placement, Selection

__all__ = [
    "as_it_was",
    "check_call",
    "check_embeddings",
    "check_finite",
    "check_modules",
    "check_part",
]


def check_call(
    model: Any,
    selection: Selection,
    placement: Placement | None,
    called: Set[str] = frozenset(),
) -> list[Notice]:
    """Call what a load gave on the smallest input that suits it; its state stays as it was.

    Args:
        placement: where it is; None if the library spread it itself.
        called: the components of a pipeline that were called when they were built.

    Returns:
        What is worth a notice.

    Raises:
        SelfTestError: it cannot be called, or what it gives is of no use.
    """
    with quiet(), offline():
        match selection.kind:
            case Kind.DIFFUSERS:
                return check_pipeline(model, placement, called)
            case Kind.SENTENCE_TRANSFORMERS:
                return check_embeddings(model)
            case Kind.TRANSFORMERS:
                return check_model(model, placement)
            case Kind.FILES:
                return []
            case Kind.CLASSES:
                return _check_objects(model, placement)


def _check_objects(built: Any, placement: Placement | None) -> list[Notice]:
    """Call the model of transformers among objects of classes that were named."""
    from nbloader.loaders import classes

    return [
        notice
        for model in classes.modules_of(built).values()
        if type(model).__module__.startswith("transformers")
        for notice in check_model(model, placement)
    ]
