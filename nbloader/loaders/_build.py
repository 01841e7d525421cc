"""One model from one folder, with the library that the plan names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from nbloader.loaders import _diffusers, _sentence_transformers, _transformers
from nbloader.loaders._arguments import BuildSteps
from nbloader.loaders._placing import steps
from nbloader.records import Kind, Placement, Plan

__all__ = ["build", "check_arguments", "current", "modules_of", "uses_pooler", "versions"]

_PACKAGES = ("accelerate", "bitsandbytes", "diffusers", "sentence-transformers", "transformers")

_BUILDERS: Mapping[Kind, ModuleType] = MappingProxyType(
    {
        Kind.DIFFUSERS: _diffusers,
        Kind.SENTENCE_TRANSFORMERS: _sentence_transformers,
        Kind.TRANSFORMERS: _transformers,
    }
)


def build(
    plan: Plan,
    folder: Path,
    placement: Placement,
    loader_kwargs: Mapping[str, Any],
    *,
    fills: bool = False,
) -> BuildSteps:
    """Build the model that `plan` describes from `folder`, without the network.

    Args:
        fills: whether tensors that no file has are made up, so that the model can be used.

    Yields:
        Each component that is loaded by itself, once it is where it belongs, and notices.

    Returns:
        The model.

    Raises:
        ModelLoadError: the libraries cannot place it so.
    """
    todo = replace(steps(plan, placement, versions()), fills=fills)
    return (yield from _BUILDERS[plan.kind].build(plan, folder, placement, todo, loader_kwargs))


def modules_of(model: Any, plan: Plan) -> dict[str, Any]:
    """Give the parts of a built model that may hold tensors, by name."""
    found: dict[str, Any] = _BUILDERS[plan.kind].modules_of(model)
    return found


def check_arguments(plan: Plan, loader_kwargs: Mapping[str, Any]) -> None:
    """See that what a plan is built with takes the caller's arguments.

    Raises:
        InvalidArgumentError: it does not.
    """
    if plan.kind is Kind.SENTENCE_TRANSFORMERS:
        _sentence_transformers.check_arguments(plan, loader_kwargs)


def uses_pooler(model: Any, plan: Plan) -> bool:
    """Tell whether a built model computes with the layer over the first token of an encoder."""
    if plan.kind is Kind.SENTENCE_TRANSFORMERS:
        return _sentence_transformers.uses_pooler(model)
    return plan.kind is Kind.DIFFUSERS


def versions() -> dict[str, str]:
    """Give the versions of the packages that a placement depends on, of those that are there."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def current(device: str) -> AbstractContextManager[None]:
    """Make a GPU the one that `cuda` means; the libraries quantize there unless told otherwise."""
    return _on_gpu(device) if device.startswith("cuda:") else nullcontext()


@contextmanager
def _on_gpu(device: str) -> Iterator[None]:
    import torch

    with torch.cuda.device(device):
        yield
