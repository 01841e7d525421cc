"""What torch finds on this machine, and whether a placement can be carried out there."""

from __future__ import annotations

from nbloader.errors import ModelLoadError
from nbloader.records import GpuFacts, Placement

__all__ = ["check_device", "devices"]


def devices() -> tuple[GpuFacts, ...]:
    """Ask torch for its GPUs, for builds whose GPUs NVML does not know (ROCm).

    Imports torch and begins to use every GPU, which takes some hundred megabytes of each.
    """
    import torch

    if not torch.cuda.is_available():
        return ()
    found = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append(
            GpuFacts(
                name=torch.cuda.get_device_name(number),
                free=free,
                total=total,
                capability=torch.cuda.get_device_capability(number),
                source="torch",
            )
        )
    return tuple(found)


def check_device(placement: Placement) -> None:
    """Check that torch sees every GPU that a placement uses. Imports torch.

    Raises:
        ModelLoadError: it does not; the hint says what may be wrong.
    """
    import torch

    wanted = {
        name
        for component in placement.components
        for name in component.device.split(",")
        if name != "cpu"
    } | {placement.device}
    for name in sorted(wanted):
        kind, _, index = name.partition(":")
        if kind == "mps" and not torch.backends.mps.is_available():
            raise ModelLoadError(
                f"torch {torch.__version__} cannot use the GPU of this Mac",
                hint='It needs a build for Apple silicon (arm64); else load with device="cpu".',
            )
        if kind == "cuda" and int(index or 0) >= (count := _count()):
            raise ModelLoadError(
                f"torch {torch.__version__} does not see {name}: it finds {count or 'no'} GPU"
                + ("s" if count > 1 else ""),
                hint=_hint(torch.version.cuda, torch.version.hip, count),
            )


def _count() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _hint(cuda: str | None, hip: str | None, count: int) -> str:
    """Say what may keep torch from a GPU, by the versions of CUDA and HIP that it was built for."""
    if count:
        return 'Look at CUDA_VISIBLE_DEVICES, or leave `device=` out; device="cpu" works too.'
    if cuda is None and hip is None:
        return (
            "This build of torch has no support for GPUs: install one that has "
            '(pytorch.org/get-started), restart the kernel, or load with device="cpu".'
        )
    return (
        "The driver may be older than this build of torch, or the GPU is hidden "
        '(CUDA_VISIBLE_DEVICES). Restart the kernel; else load with device="cpu".'
    )
