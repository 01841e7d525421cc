"""Which of the GPUs that are there the installed torch can compute on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbloader.records import DriverFacts, GpuFacts, MachineFacts, TorchFacts

__all__ = ["UsableGpu", "gpu_problem", "usable_gpus"]

_ARCH = re.compile(r"(sm|compute)_(\d+)(\d)[a-z]?")


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
    """Give the GPUs that torch can compute on; all of them if that cannot be told."""
    return tuple(
        UsableGpu(number=number, facts=gpu)
        for number, gpu in enumerate(machine.gpus)
        if not gpu_problem(gpu, machine)
    )


def gpu_problem(gpu: GpuFacts, machine: MachineFacts) -> str:
    """Say why torch cannot compute on a GPU; empty if it can, or if that cannot be told."""
    torch, driver = machine.torch, machine.driver
    if torch is None:
        return ""
    if torch.cuda is None:
        return "" if torch.hip else f"torch {torch.version} is a build without CUDA"
    if driver is not None and not _driver_runs(driver, torch.cuda):
        return (
            f"torch {torch.version} needs a driver for CUDA {_dotted(torch.cuda)}, "
            f"{driver.version} runs CUDA {_dotted(driver.cuda)}"
        )
    if torch.archs is not None and not _has_kernels(torch, gpu.capability):
        return (
            f"torch {torch.version} has no kernels for {gpu.name} "
            f"(compute capability {_dotted(gpu.capability)})"
        )
    return ""


def _driver_runs(driver: DriverFacts, cuda: tuple[int, int]) -> bool:
    """A driver runs every minor version of its major one, from CUDA 11 on.

    NVIDIA calls this minor version compatibility (CUDA Compatibility, chapter 2).
    """
    return driver.cuda >= cuda if cuda[0] < 11 else driver.cuda[0] >= cuda[0]


def _has_kernels(torch: TorchFacts, capability: tuple[int, int]) -> bool:
    """Compiled code runs on the same major version from its minor one on, PTX on all newer.

    (CUDA C++ Programming Guide, binary and PTX compatibility.)
    """
    for arch in torch.archs or ():
        match = _ARCH.fullmatch(arch)
        if match is None:
            continue
        major, minor = int(match[2]), int(match[3])
        if match[1] == "compute":
            if capability >= (major, minor):
                return True
        elif capability[0] == major and capability[1] >= minor:
            return True
    return False


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
