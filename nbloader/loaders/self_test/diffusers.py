"""Can the parts of a pipeline of diffusers be called?

Called are the parts whose input is the same for all of their kind, and small: text encoders, on a
few numbers of tokens, and plain decoders of pictures, on latents of a few pixels. The denoiser is
not: its inputs are each pipeline's own, and a step of a large one takes a minute on a CPU. Neither
are safety checkers and encoders of pictures, whose input sizes are large. What fails on an input
that we thought of may well work on the pipeline's own, so it is worth a notice and no more: that
all tensors are there, placed and finite was seen before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from nbloader.errors import SelfTestError
from nbloader.loaders.placing import OFFLOADING
from nbloader.loaders.reports import quiet
from nbloader.records import Notice, Placement

if TYPE_CHECKING:
    import torch

_TOKENS = 4
_LATENT_PIXELS = 4
_DECODERS = frozenset({"AutoencoderKL", "AutoencoderTiny"})

_MOST_ON_CPU = 300_000_000
_MOST_ON_GPU = 10_000_000_000
"""Parameters of what is called, so that it takes some tenths of a second."""


def check_pipeline(
    pipeline: Any, placement: Placement | None, called: Set[str] = frozenset()
) -> list[Notice]:
    """Call what is cheap to call, and leave everything as it was.

    Args:
        placement: where the pipeline is; None if the library spread it itself. Then, and where its
            parts wait in memory for their turn, nothing is called.
        called: the components that were called before they were put together.

    Returns:
        Notices of the parts that could not be called, or gave numbers that are not finite.
    """
    if placement is None or placement.method in OFFLOADING:
        return []
    return [
        notice
        for name, part in pipeline.components.items()
        if name not in called and (call := _call_of(name, part)) is not None
        for notice in _called(name, part, call, placement)
    ]


def check_part(name: str, part: Any, placement: Placement) -> list[Notice] | None:
    """Call one component, as `check_pipeline` does, before it is put together with the others.

    Returns:
        Notices; None where it is not yet where it will be, so that it was not called.
    """
    import torch

    if placement.method in OFFLOADING or not isinstance(part, torch.nn.Module):
        return None
    if getattr(part, "is_quantized", False):
        return None  # bitsandbytes moves the scales at the first call; they are looked for before.
    weight = next(part.parameters(), None)
    if weight is None or weight.device.type != placement.device.partition(":")[0]:
        return None
    call = _call_of(name, part)
    return [] if call is None else _called(name, part, call, placement)


def _called(name: str, part: Any, call: Callable[[], Any], placement: Placement) -> list[Notice]:
    try:
        with _as_before(part):
            outcome = call()
        told = "" if _all_finite(outcome) else "gives numbers that are not finite"
    except Exception as error:
        told = f"could not be called: {type(error).__name__}: {str(error)[:200]}"
    return [_notice(name, told, placement)] if told else []


def _call_of(name: str, part: Any) -> Callable[[], Any] | None:
    """Return a call of a component; None if there is none that is cheap and would tell anything."""
    import torch

    if not isinstance(part, torch.nn.Module) or part.training:
        return None
    tensors = list(part.parameters())
    if not tensors or any(tensor.is_meta for tensor in tensors):
        return None
    most = _MOST_ON_CPU if tensors[0].device.type == "cpu" else _MOST_ON_GPU
    if sum(tensor.numel() for tensor in tensors) > most:
        return None
    words = getattr(getattr(part, "config", None), "vocab_size", None)
    own = type(part).__module__.startswith("transformers.")
    if own and name.startswith("text_encoder") and isinstance(words, int) and words > 0:
        return partial(_encode, part, words, tensors[0].device)
    if type(part).__name__ in _DECODERS and name == "vae":
        return partial(_decode, part, tensors[0])
    return None


def _encode(encoder: Any, words: int, device: torch.device) -> Any:
    import torch

    tokens = torch.arange(_TOKENS, device=device).unsqueeze(0) % words
    return encoder(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0]


def _decode(decoder: Any, example: torch.Tensor) -> Any:
    import torch

    size = (1, decoder.config.latent_channels, _LATENT_PIXELS, _LATENT_PIXELS)
    return decoder.decode(torch.zeros(size, device=example.device, dtype=example.dtype))[0]


@contextmanager
def _as_before(part: torch.nn.Module) -> Iterator[None]:
    """Call a model without gradients, and take back what it keeps of the call, such as caches."""
    import torch

    kept = [
        (module, dict(vars(module)), dict(module._buffers))  # noqa: SLF001 - torch's own place
        for module in part.modules()
    ]
    try:
        devices = {each.device for each in part.parameters() if each.device.type == "cuda"}
        with quiet(), torch.no_grad(), torch.random.fork_rng(list(devices)):
            yield
    finally:
        for module, attributes, buffers in kept:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()  # noqa: SLF001
            module._buffers.update(buffers)  # noqa: SLF001


def _all_finite(outcome: Any) -> bool:
    import torch

    return not isinstance(outcome, torch.Tensor) or bool(torch.isfinite(outcome).all())


def _notice(name: str, told: str, placement: Placement) -> Notice:
    narrow = placement.dtype == "float16"
    return Notice(
        reference=SelfTestError.reference,
        message=f"{name} {told}, on a small input of ours",
        hint='float16 is narrow: dtype="bfloat16" or dtype="float32" may help.'
        if narrow
        else "If the pipeline makes what it should, nothing is needed.",
    )
