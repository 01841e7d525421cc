"""Machines as tables of variables, files and answers of their driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nbloader.machine.gpus import NvmlDevice, NvmlSnapshot, driver_facts, gpu_facts, torch_facts
from nbloader.machine.memory import within_cgroups
from nbloader.machine.places import place_from
from nbloader.notebook.kernel import Kernel
from nbloader.records import MachineFacts, MemoryFacts

GIB = 2**30

VERSION_2_13 = """\
from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.13.0+cu130'
debug = False
cuda: Optional[str] = '13.0'
git_version = 'cf30153c4c131c8164ee7798e5022d810682e2cb'
hip: Optional[str] = None
"""
VERSION_2_6 = """\
__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']
__version__ = '2.6.0+cu124'
debug = False
cuda = '12.4'
hip = None
"""
VERSION_CPU = VERSION_2_13.replace("+cu130", "+cpu").replace("'13.0'", "None")
VERSION_ROCM = VERSION_CPU.replace("+cpu", "+rocm6.4").replace(
    "hip: Optional[str] = None", "hip: Optional[str] = '6.4.43482'"
)
ARCHS_2_13 = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120"
ARCHS_2_6 = "sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90"


def device(
    name: str,
    uuid: str,
    capability: tuple[int, int],
    total: int,
    *,
    free: int | None = None,
    mig: bool = False,
    parts: tuple[NvmlDevice, ...] = (),
    instance: tuple[int, int] | None = None,
) -> NvmlDevice:
    return NvmlDevice(
        name=name,
        uuid=uuid,
        capability=capability,
        memory=(total if free is None else free, total),
        mig=mig,
        parts=parts,
        instance=instance,
    )


T4 = device("Tesla T4", "GPU-1a", (7, 5), 16_106_127_360, free=15_642_329_088)
SECOND_T4 = device("Tesla T4", "GPU-1b", (7, 5), 16_106_127_360)
P100 = device("Tesla P100-PCIE-16GB", "GPU-2a", (6, 0), 17_179_869_184)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is to be read on a machine.

    Attributes:
        files: below its root folder.
        torch: the text of `torch/version.py`, and the list of architectures in its library.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    kernel: Kernel | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    memory: MemoryFacts
    nvml: NvmlSnapshot | None = None
    torch: tuple[str, str] | None = None


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def write_torch(folder: Path, version: str, archs: str = "") -> Path:
    """Write what is read of an installed torch; without `archs` its library is left out."""
    write(folder, {"version.py": version})
    if archs:
        noise = bytes(range(256)) * 500 + b"\0_set_sm_carveout_experimental\0sm_99 unknown\0 sm_98"
        write(folder, {"lib/libtorch_python.so": noise + b"\0" + archs.encode() + b"\0\0" + noise})
    return folder


def facts_of(machine: Machine, root: Path) -> MachineFacts:
    """Put the same together as `machine_facts` does, on a machine that is not here."""
    write(root, machine.files)
    memory = within_cgroups(machine.memory, root)
    return MachineFacts(
        memory=memory,
        place=place_from(machine.environ, machine.kernel),
        gpus=gpu_facts(machine.nvml, machine.environ, memory),
        driver=driver_facts(machine.nvml),
        torch=torch_facts(write_torch(root / "torch", *machine.torch)) if machine.torch else None,
    )


CGROUP_V2 = "30 23 0:26 / /sys/fs/cgroup ro,nosuid,nodev shared:4 - cgroup2 cgroup rw,nsdelegate\n"
CGROUP_V1 = "35 31 0:32 {inside} /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n"
UNLIMITED_V1 = "9223372036854771712\n"


def v2(path: str, groups: Mapping[str, tuple[str, int, str]]) -> dict[str, str]:
    """Return the files of a process in `path`, and of cgroups as (limit, used, statistics)."""
    files = {"proc/self/cgroup": f"0::{path}\n", "proc/self/mountinfo": CGROUP_V2}
    for name, (limit, used, statistics) in groups.items():
        folder = f"sys/fs/cgroup/{name.strip('/')}".rstrip("/")
        files[f"{folder}/memory.max"] = f"{limit}\n"
        files[f"{folder}/memory.current"] = f"{used}\n"
        files[f"{folder}/memory.stat"] = statistics
    return files


def v1(path: str, groups: Mapping[str, tuple[str, int, str]], inside: str = "/") -> dict[str, str]:
    files = {
        "proc/self/cgroup": f"9:cpu,cpuacct:/other\n4:memory:{path}\n0::/\n",
        "proc/self/mountinfo": CGROUP_V1.format(inside=inside)
        + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
    }
    for name, (limit, used, statistics) in groups.items():
        folder = f"sys/fs/cgroup/memory/{name.strip('/')}".rstrip("/")
        files[f"{folder}/memory.limit_in_bytes"] = f"{limit}\n"
        files[f"{folder}/memory.usage_in_bytes"] = f"{used}\n"
        files[f"{folder}/memory.stat"] = statistics
    return files
