"""Is every tensor there, where it belongs, and finite?

A key that is missing in a checkpoint does not raise in the libraries: transformers fills it with
random numbers, diffusers leaves a tensor without storage. A model that came so far and cannot
work must not be returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import TYPE_CHECKING, Any

from nbloader.errors import SelfTestError
from nbloader.loaders.placing import OFFLOADING, WHOLE
from nbloader.records import PlacedComponent, Placement

if TYPE_CHECKING:
    import torch

HINT = (
    "The files may not fit the installed library. Load again with `verify=True`; if it stays so, "
    "upgrade the library or report the repository."
)

_PIECE = 1 << 20
"""Elements that are summed at once on a CPU, where torch makes a float32 copy of them.

Larger copies stay with the allocator: with four times as many elements, a gigabyte of weights left
30 to 80 MB behind instead of 11.
"""


def check_modules(
    modules: dict[str, Any], placement: Placement | None, tested: Set[str] = frozenset()
) -> None:
    """Check that every tensor is there and where it belongs, and every weight is finite.

    Of weights that are quantized the scales are looked at, and that there are any.

    Args:
        modules: `torch.nn.Module`s by component; other values are passed over.
        placement: where the tensors should be; None if the library spread them itself.
        tested: the components that `check_finite` has looked at already.

    Raises:
        SelfTestError: names the component and the tensor.
    """
    import torch

    for component, module in modules.items():
        if not isinstance(module, torch.nn.Module):
            continue
        waiting = _waiting(module)
        placed = _placed(component, placement) if placement else ()
        allowed = _devices(placed, placement) if placement else ()
        for name, tensor in _tensors(module):
            if tensor.is_meta and name not in waiting:
                raise SelfTestError(f"{component}: {name} was not in the weights", hint=HINT)
            if allowed and not tensor.is_meta and not _is_on(tensor.device, allowed):
                raise SelfTestError(
                    f"{component}: {name} is on {tensor.device}, not on {' or '.join(allowed)}",
                    hint=HINT,
                )
        shrunk = any(part.quantization for part in placed)
        if shrunk and not any(_scales(weight) for weight in module.parameters()):
            raise SelfTestError(f"{component} was not quantized", hint=HINT)
        if component not in tested:
            check_finite(component, module)


def check_finite(component: str, module: Any) -> None:
    """Check that every weight is finite, of those that have storage.

    Args:
        module: a `torch.nn.Module`; anything else is passed over.

    Raises:
        SelfTestError: names the component and the tensor.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        return
    waiting = _waiting(module)
    # Buffers may hold infinities on purpose (attention masks); weights may not.
    for name, weight in module.named_parameters():
        held = waiting.get(name, weight) if weight.is_meta else weight
        if held.is_meta:
            continue
        for part in (held, *_scales(held)):
            if not _finite(part):
                raise SelfTestError(
                    f"{component}: {name} holds numbers that are not finite", hint=HINT
                )


def _placed(component: str, placement: Placement) -> tuple[PlacedComponent, ...]:
    """Find a component in its placement. A model that is one module is all that was placed."""
    own = tuple(part for part in placement.components if part.name == component)
    return placement.components if not own and component == WHOLE else own


def _devices(placed: tuple[PlacedComponent, ...], placement: Placement) -> tuple[str, ...]:
    """Name the devices that the tensors of a component may be on."""
    if placement.method in OFFLOADING:
        # Some stay on the GPU: buffers, and what a pipeline excludes from offload.
        return ("cpu", placement.device)
    names = [name for part in placed for name in part.device.split(",")]
    return tuple(dict.fromkeys(names)) or (placement.device,)


def _is_on(device: torch.device, allowed: tuple[str, ...]) -> bool:
    """Compare with torch's names, of which `cuda` means the first GPU."""
    for name in allowed:
        kind, _, index = name.partition(":")
        if device.type == kind and (kind != "cuda" or int(index or 0) == (device.index or 0)):
            return True
    return False


def _waiting(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors that accelerate's hooks keep elsewhere until their module computes."""
    waiting: dict[str, torch.Tensor] = {}
    for path, part in module.named_modules():
        hook = getattr(part, "_hf_hook", None)
        for each in (hook, *getattr(hook, "hooks", ())):
            kept = getattr(each, "weights_map", None)
            if kept is None:
                continue
            for name, tensor in _tensors(part):
                if tensor.is_meta and name in kept and not kept[name].is_meta:
                    waiting[f"{path}.{name}" if path else name] = kept[name]
    return waiting


def _scales(weight: torch.Tensor) -> list[torch.Tensor]:
    """Return what bitsandbytes keeps beside a weight that it has quantized; empty for any other.

    4-bit weights have a scale for each block, which may be quantized in turn; 8-bit weights have
    one for each row.
    """
    state = getattr(weight, "quant_state", None)
    if state is None:
        rows = getattr(weight, "SCB", None)
        return [] if rows is None else [rows]
    return [state.absmax, *([state.state2.absmax] if state.nested else [])]


def _finite(tensor: torch.Tensor) -> bool:
    """Say whether all elements are finite.

    A finite sum proves it in one pass over the memory. Large finite numbers, such as those of a
    mask, can overflow in a sum: then each element is looked at. Integers are finite; so is, for
    want of a way to tell, what a library keeps in a class of its own.
    """
    import torch

    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    if not plain or not tensor.is_floating_point():
        return True
    flat = tensor.detach().reshape(-1)
    if tensor.device.type != "cpu" and tensor.element_size() > 1:
        pieces = [flat]
    else:
        pieces = [flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE)]
    return all(_sums_up(piece) or _each_finite(piece) for piece in pieces)


def _sums_up(piece: torch.Tensor) -> bool:
    import torch

    if piece.device.type == "cpu" or piece.element_size() == 1:
        piece = piece.to(torch.float32)
    return bool(torch.isfinite(piece.sum(dtype=torch.float32)))


def _each_finite(piece: torch.Tensor) -> bool:
    import torch

    if piece.element_size() == 1:  # torch has no answer for formats of 8 bits
        piece = piece.to(torch.float32)
    return bool(torch.isfinite(piece).all())


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
