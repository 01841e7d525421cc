"""Is what came out of a load fit to be called ready? Cheap checks only.

A key that is missing in a checkpoint does not raise in the libraries: transformers fills it with
random numbers, diffusers leaves a tensor without storage. A model that came so far and cannot
work must not be returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nbloader.errors import SelfTestError
from nbloader.fit import Placement

if TYPE_CHECKING:
    import torch

__all__ = ["check_embeddings", "check_modules"]

_HINT = (
    "The files may not fit the installed library. Load again with `verify=True`; if it stays so, "
    "upgrade the library or report the repository."
)
_SENTENCES = ("A cat sits on the mat.", "Stock prices fell sharply today.")


def check_modules(modules: dict[str, Any], placement: Placement | None) -> None:
    """Check that every tensor is there and on the right device, and every weight is finite.

    Args:
        modules: `torch.nn.Module`s by component; other values are passed over.
        placement: where the tensors should be; None if the library spread them itself.

    Raises:
        SelfTestError: names the component and the tensor.
    """
    import torch

    wanted = torch.device(placement.device).type if placement else None
    for component, module in modules.items():
        if not isinstance(module, torch.nn.Module):
            continue
        for name, tensor in _tensors(module):
            if tensor.is_meta:
                raise SelfTestError(f"{component}: {name} was not in the weights", hint=_HINT)
            if wanted and tensor.device.type != wanted:
                raise SelfTestError(
                    f"{component}: {name} is on {tensor.device}, not on {wanted}", hint=_HINT
                )
        # Buffers may hold infinities on purpose (attention masks); weights may not. The sum is
        # not finite if any element is not, and costs one pass over the memory.
        for name, weight in module.named_parameters():
            if weight.is_floating_point() and not bool(
                torch.isfinite(weight.detach().sum(dtype=torch.float32))
            ):
                raise SelfTestError(f"{component}: {name} holds no finite numbers", hint=_HINT)


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def check_embeddings(model: Any) -> None:
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
            hint=_HINT,
        ) from error
    if vectors.ndim != 2 or len(vectors) != len(_SENTENCES) or not vectors.shape[1]:
        raise SelfTestError(f"embeddings have the shape {vectors.shape}", hint=_HINT)
    if not np.isfinite(vectors).all() or not vectors.any():
        raise SelfTestError("embeddings are zero or not finite", hint=_HINT)
    if np.array_equal(vectors[0], vectors[1]):
        raise SelfTestError("two different sentences get the same embedding", hint=_HINT)
