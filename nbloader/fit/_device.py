"""Which device and number format a model gets on the hardware that is there. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from nbloader.errors import InvalidArgumentError

__all__ = ["DeviceFacts", "Placement", "choose_placement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What torch can compute on here.

    Attributes:
        cuda_capabilities: (major, minor) of each CUDA device, in torch's order.
        mps: whether Apple's GPU can be used.
    """

    cuda_capabilities: tuple[tuple[int, int], ...] = ()
    mps: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a model goes, and in which number format.

    Attributes:
        device: torch's name, such as `cuda`, `cuda:1`, `mps`, `cpu`.
        dtype: torch's name, such as `bfloat16`.
    """

    device: str
    dtype: str


def choose_placement(device: str, dtype: str, facts: DeviceFacts) -> Placement:
    """Settle device and dtype.

    Args:
        device: a name of torch, or `auto` for the best there is: CUDA, MPS, CPU.
        dtype: a name of torch, or `auto`: bfloat16 on CUDA from compute capability 8.0, float16 on
            older CUDA and on MPS, float32 on the CPU. Capability decides, because torch's own
            `is_bf16_supported()` counts emulation and says yes on a T4.

    Raises:
        InvalidArgumentError: the device is not there.
    """
    if device == "auto":
        device = "cuda" if facts.cuda_capabilities else "mps" if facts.mps else "cpu"
    kind, _, index = device.partition(":")
    present = {"cuda": len(facts.cuda_capabilities), "mps": int(facts.mps), "cpu": 1}.get(kind, 0)
    number = int(index or 0)
    if number >= present:
        raise InvalidArgumentError(
            f"device={device!r}: torch finds {_listed(facts)} here",
            hint="Leave `device=` out for the best one. On Colab and Kaggle, choose a GPU in the "
            "notebook's settings first.",
        )
    if dtype == "auto":
        if kind == "cuda":
            dtype = "bfloat16" if facts.cuda_capabilities[number] >= (8, 0) else "float16"
        else:
            dtype = "float16" if kind == "mps" else "float32"
    return Placement(device=device, dtype=dtype)


def _listed(facts: DeviceFacts) -> str:
    names = [f"cuda:{number}" for number in range(len(facts.cuda_capabilities))]
    return ", ".join([*names, *(["mps"] if facts.mps else []), "cpu"])
