"""Which of the GPUs that are there the installed torch can compute on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbloader.records import DriverFacts, GpuFacts, MachineFacts, TorchFacts

_ARCH = re.compile(r"(sm|compute)_(\d{1,2})(\d)([af]?)")

_INTEGRATED = frozenset({(5, 3), (6, 2), (7, 2), (8, 7), (10, 1)})
"""GPUs of Jetson boards: they run no machine code made for cards, and cards none of theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableGpu:
    """A GPU that torch can compute on.

    Attributes:
        number: its place among all GPUs, which torch's names count.
    """

    number: int
    facts: GpuFacts

    @property
    def device(self) -> str:
        """Its name for torch."""
        return f"cuda:{self.number}"

    @property
    def bfloat16(self) -> bool:
        """Whether it computes in bfloat16 itself.

        Capability decides: torch's `is_bf16_supported()` counts emulation, and says yes on a T4.
        """
        return self.facts.capability >= (8, 0)


def usable_gpus(machine: MachineFacts) -> tuple[UsableGpu, ...]:
    """Return the GPUs that torch can compute on; all of them if that cannot be told."""
    return tuple(
        UsableGpu(number=number, facts=gpu)
        for number, gpu in enumerate(machine.gpus)
        if not gpu_problem(gpu, machine)
    )


def gpu_problem(gpu: GpuFacts, machine: MachineFacts) -> str:
    """Say why torch cannot compute on a GPU; empty if it can, or if that cannot be told."""
    torch, driver = machine.torch, machine.driver
    if torch is None or torch.version == "?":  # Not there, or its files cannot be read.
        return ""
    if torch.cuda is None:
        return "" if torch.hip else f"torch {torch.version} is a build without CUDA"
    if driver is not None and not driver_runs(driver, torch):
        return (
            f"torch {torch.version} needs a driver for CUDA {_dotted(torch.cuda)}, "
            f"{driver.version} runs CUDA {_dotted(driver.cuda)}"
        )
    if can_run(torch, gpu.capability) is False:
        return (
            f"torch {torch.version} has no kernels for {gpu.name} "
            f"(compute capability {_dotted(gpu.capability)})"
        )
    return ""


def can_run(torch: TorchFacts, capability: tuple[int, int]) -> bool | None:
    """Say whether a build of torch has kernels for an NVIDIA GPU; None if that is not known.

    Machine code (`sm_80`) runs on GPUs of the same major capability and the same or a later minor
    one; that for a feature set (`sm_90a`) on this capability alone, that for a family (`sm_100f`)
    as usual. PTX (`compute_80`) is compiled by the driver for any later GPU. Integrated GPUs have
    code of their own: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#binary-compatibility
    and the table in `torch/cuda/__init__.py`.
    """
    if torch.cuda is None:
        return False
    if torch.archs is None:
        return None
    return any(_runs(arch, capability) for arch in torch.archs)


def _runs(arch: str, capability: tuple[int, int]) -> bool:
    parts = _ARCH.fullmatch(arch)
    if parts is None:
        return False
    kind, suffix = parts[1], parts[4]
    built = (int(parts[2]), int(parts[3]))
    if suffix == "a" or (kind == "sm" and (built in _INTEGRATED or capability in _INTEGRATED)):
        return built == capability
    if kind == "sm" or suffix == "f":
        return built[0] == capability[0] and built[1] <= capability[1]
    return built <= capability


def driver_runs(driver: DriverFacts, torch: TorchFacts) -> bool:
    """Say whether the NVIDIA driver runs what a build of torch was made with.

    From CUDA 11 on, a driver runs all of its own major version and the older ones ("minor version
    compatibility"): https://docs.nvidia.com/deploy/cuda-compatibility/. Before that it had to be
    as new as the build. A build without CUDA asks nothing of the driver.
    """
    if torch.cuda is None:
        return True
    if torch.cuda[0] < 11:
        return driver.cuda >= torch.cuda
    return driver.cuda[0] >= torch.cuda[0]


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
