"""Machines that notebooks run on, as the facts about them are gathered there.

Memory of GPUs is what NVML reports of an idle one, in MiB: a part of what is printed on the box is
reserved by the driver. What is free of the memory is after a kernel has started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nbloader.records import (
    DriverFacts,
    GpuFacts,
    Interface,
    MachineFacts,
    MemoryFacts,
    PackageFacts,
    Place,
    PlaceFacts,
    TorchFacts,
)

__all__ = ["MACHINES", "gpu", "machine", "with_bitsandbytes"]

MIB = 1024**2
GIB = 1024**3

_VERSIONS = {
    "accelerate": "1.12.0",
    "diffusers": "0.39.0",
    "sentence_transformers": "5.7.0",
    "torch": "2.9.0",
    "transformers": "5.15.0",
}

# What `torch.cuda.get_arch_list()` gives in the builds of torch 2.9 for CUDA 12.6 and 12.8.
_ARCHS_126 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
_ARCHS_128 = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
TORCH_126 = TorchFacts(version="2.9.0+cu126", cuda=(12, 6), archs=_ARCHS_126)
TORCH_128 = TorchFacts(version="2.9.0+cu128", cuda=(12, 8), archs=_ARCHS_128)
_TORCH_CPU = TorchFacts(version="2.9.0+cpu")
_TORCH_MAC = TorchFacts(version="2.9.0")

_DRIVER = DriverFacts(version="570.124.06", cuda=(12, 8))


def gpu(name: str, total_mib: int, free_mib: int, capability: tuple[int, int]) -> GpuFacts:
    """A GPU with memory in MiB, as `nvidia-smi` shows it."""
    return GpuFacts(name=name, free=free_mib * MIB, total=total_mib * MIB, capability=capability)


def machine(
    total: int,
    available: int,
    *gpus: GpuFacts,
    torch: TorchFacts = TORCH_126,
    mps: bool = False,
    place: Place = Place.OTHER,
) -> MachineFacts:
    """A machine with the usual packages."""
    return MachineFacts(
        memory=MemoryFacts(available=available, total=total),
        place=PlaceFacts(place=place, interface=Interface.JUPYTER),
        gpus=gpus,
        driver=_DRIVER if gpus else None,
        torch=torch,
        mps=mps,
        packages={
            name: PackageFacts(name=name, installed=version) for name, version in _VERSIONS.items()
        },
    )


def with_bitsandbytes(facts: MachineFacts) -> MachineFacts:
    """The same machine after `pip install bitsandbytes`."""
    package = PackageFacts(name="bitsandbytes", installed="0.49.0")
    return replace(facts, packages={**facts.packages, "bitsandbytes": package})


_T4 = gpu("Tesla T4", 15_360, 15_095, (7, 5))
_P100 = gpu("Tesla P100-PCIE-16GB", 16_384, 16_269, (6, 0))

_COLAB_T4 = machine(13_609_431_040, 12_000_000_000, _T4, place=Place.COLAB)
_KAGGLE_2T4 = machine(33_662_474_240, 31_500_000_000, _T4, _T4, place=Place.KAGGLE)
_COLAB_L4 = machine(
    56_865_542_144,
    54_500_000_000,
    gpu("NVIDIA L4", 23_034, 22_563, (8, 9)),
    place=Place.COLAB,
)
_A100_40 = machine(
    89_634_000_000,
    87_000_000_000,
    gpu("NVIDIA A100-SXM4-40GB", 40_960, 40_441, (8, 0)),
    place=Place.COLAB,
)
_LAPTOP = machine(
    int(15.7 * GIB),
    int(10.5 * GIB),
    # The desktop has some of it.
    gpu("NVIDIA GeForce RTX 4060 Laptop GPU", 8_188, 7_630, (8, 9)),
    torch=TORCH_128,
)
_LAPTOP_32 = machine(int(31.2 * GIB), int(25 * GIB), _LAPTOP.gpus[0], torch=TORCH_128)

MACHINES: Mapping[str, MachineFacts] = {
    "Colab T4": _COLAB_T4,
    "Colab T4, bitsandbytes": with_bitsandbytes(_COLAB_T4),
    "Kaggle 2 x T4": _KAGGLE_2T4,
    "Kaggle 2 x T4, bitsandbytes": with_bitsandbytes(_KAGGLE_2T4),
    "Kaggle P100": machine(33_662_474_240, 31_500_000_000, _P100, place=Place.KAGGLE),
    "Kaggle P100, torch without sm_60": machine(
        33_662_474_240, 31_500_000_000, _P100, torch=TORCH_128, place=Place.KAGGLE
    ),
    "L4": _COLAB_L4,
    "L4, bitsandbytes": with_bitsandbytes(_COLAB_L4),
    "A100 40 GB": _A100_40,
    "A100 40 GB, bitsandbytes": with_bitsandbytes(_A100_40),
    "A100 80 GB": machine(
        179_400_000_000,
        176_000_000_000,
        gpu("NVIDIA A100-SXM4-80GB", 81_920, 81_038, (8, 0)),
        place=Place.COLAB,
    ),
    "H100 80 GB": machine(
        216_000_000_000,
        210_000_000_000,
        gpu("NVIDIA H100 80GB HBM3", 81_559, 81_008, (9, 0)),
        torch=TORCH_128,
    ),
    "Laptop 8 GB": _LAPTOP,
    "Laptop 8 GB, bitsandbytes": with_bitsandbytes(_LAPTOP),
    "Laptop 8 GB, 32 GB of memory": _LAPTOP_32,
    "Mac 16 GB": machine(16 * GIB, 10 * GIB, torch=_TORCH_MAC, mps=True),
    "Mac 64 GB": machine(64 * GIB, 52 * GIB, torch=_TORCH_MAC, mps=True),
    "Binder": machine(2 * GIB, int(1.8 * GIB), torch=_TORCH_CPU, place=Place.BINDER),
}
