"""GPUs as torch will count them, told from what their driver says; the installed build of torch.

The build is read from its files: importing it takes seconds.
"""

from __future__ import annotations

import ast
import mmap
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbloader.libraries import package_folder
from nbloader.records import DriverFacts, GpuFacts, MemoryFacts, TorchFacts

_VERSION_FILE_BYTES = 65_536
_LIBRARIES = ("libtorch_python.so", "torch_python.dll")
"""What holds the list that `torch.cuda.get_arch_list()` gives. A Mac's build has none."""

_ARCH = rb"(?:sm|compute)_\d{2,3}[af]?"
_ARCH_LIST = re.compile(rb"%s(?: %s)*\0" % (_ARCH, _ARCH))
_LONGEST = 64
"""Bytes of PTX (`compute_..`) that may stand in a list before the first machine code."""


def driver_facts(snapshot: NvmlSnapshot | None) -> DriverFacts | None:
    """Return the versions of the NVIDIA driver; None where there is none."""
    if snapshot is None:
        return None
    major, minor = divmod(snapshot.cuda, 1000)
    return DriverFacts(version=snapshot.driver, cuda=(major, minor // 10))


def gpu_facts(
    snapshot: NvmlSnapshot | None, environ: Mapping[str, str], memory: MemoryFacts
) -> tuple[GpuFacts, ...]:
    """Return the GPUs that a process with these variables sees, in the order of its counting.

    `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER` are read as CUDA does:
    https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html.
    CUDA puts the fastest GPU first, by a measure of its own; here that is the one with the highest
    compute capability, then with the most memory.

    Args:
        memory: of the machine, which a GPU without memory of its own shares.
    """
    if snapshot is None:
        return ()
    devices: Sequence[NvmlDevice] = snapshot.devices
    if environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        devices = sorted(devices, key=_speed)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    chosen = _unasked(devices) if visible is None else _visible(devices, visible)
    return tuple(_facts(device, memory) for device in chosen)


def _speed(device: NvmlDevice) -> tuple[int, int, int]:
    major, minor = device.capability
    return -major, -minor, -(device.memory[1] if device.memory else 0)


def _unasked(devices: Sequence[NvmlDevice]) -> Sequence[NvmlDevice]:
    """Return what there is to count: whole GPUs, or else one part, for CUDA takes no second one.

    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/ (CUDA device enumeration).
    """
    whole = [device for device in devices if not device.mig]
    return whole or [part for device in devices for part in device.parts][:1]


def _visible(devices: Sequence[NvmlDevice], value: str) -> Sequence[NvmlDevice]:
    """Pick devices in the order of a list, up to its first entry that names none.

    A device that is named twice makes CUDA see none at all.
    """
    if value.startswith("MIG-"):
        part = _part(devices, value.split(",")[0])
        return [] if part is None else [part]
    find = _by_uuid if value.startswith("GPU-") else _by_index
    found: list[NvmlDevice] = []
    for entry in value.split(","):
        device = find(devices, entry)
        if device is None:
            break
        if any(device is other for other in found):
            return []
        found.append(device)
    return found


def _by_index(devices: Sequence[NvmlDevice], entry: str) -> NvmlDevice | None:
    # CUDA reads it as C's strtoul does: "1gpu" is 1.
    number = re.match(r"\s*\+?(\d{1,9})", entry)
    counted = _unasked(devices)
    return counted[int(number[1])] if number and int(number[1]) < len(counted) else None


def _by_uuid(devices: Sequence[NvmlDevice], entry: str) -> NvmlDevice | None:
    if not entry.startswith("GPU-"):
        return None
    fitting = [device for device in devices if device.uuid.startswith(entry)]
    if len(fitting) != 1:
        return None
    # Of a GPU in MIG mode only a part can be meant.
    device = fitting[0]
    return next(iter(device.parts), None) if device.mig else device


def _part(devices: Sequence[NvmlDevice], entry: str) -> NvmlDevice | None:
    """Find a part by `MIG-<uuid>`, or by `MIG-GPU-<uuid>/<instance>/<instance>` (before R470)."""
    old = re.fullmatch(r"MIG-(GPU-[0-9a-fA-F-]+)/(\d{1,9})/(\d{1,9})", entry)
    fitting = [
        part
        for device in devices
        for part in device.parts
        if (
            device.uuid == old[1] and part.instance == (int(old[2]), int(old[3]))
            if old
            else part.uuid.startswith(entry)
        )
    ]
    return fitting[0] if len(fitting) == 1 else None


def _facts(device: NvmlDevice, memory: MemoryFacts) -> GpuFacts:
    if device.memory is None:
        return GpuFacts(
            name=device.name,
            free=memory.available,
            total=memory.total,
            capability=device.capability,
            source="NVML, memory of the machine",
            unified=True,
        )
    free, total = device.memory
    return GpuFacts(
        name=device.name,
        free=free,
        total=total,
        capability=device.capability,
        source="NVML" if device.instance is None else "NVML, part of a GPU in MIG mode",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlDevice:
    """A GPU, or a part of one in MIG mode (https://docs.nvidia.com/datacenter/tesla/mig-user-guide).

    Attributes:
        uuid: `GPU-...`, or `MIG-...` of a part; empty if the driver does not tell.
        memory: (free, total) bytes; None where the GPU uses the memory of the machine.
        instance: (GPU instance, compute instance) of a part, which older names of parts consist of.
        mig: whether it is in MIG mode: then only its parts can compute.
    """

    name: str
    uuid: str
    capability: tuple[int, int]
    memory: tuple[int, int] | None
    instance: tuple[int, int] | None = None
    mig: bool = False
    parts: tuple[NvmlDevice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlSnapshot:
    """What the driver told, its GPUs by their PCI bus ids, which is NVML's order.

    Attributes:
        driver: its version.
        cuda: the newest version of CUDA that it runs, as NVML writes it: 12080 for 12.8.
    """

    driver: str
    cuda: int
    devices: tuple[NvmlDevice, ...] = ()


def read_nvml() -> NvmlSnapshot | None:
    """Ask the driver; None where there is none, or where it answers with an error.

    A GPU that answers with one is left out. The library is foreign, and so are its errors: an old
    one lacks functions, and a broken driver gives values that cannot be read.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return None
    try:
        return NvmlSnapshot(
            driver=_text(pynvml.nvmlSystemGetDriverVersion()),
            cuda=int(pynvml.nvmlSystemGetCudaDriverVersion_v2()),
            devices=tuple(
                device
                for index in range(pynvml.nvmlDeviceGetCount())
                if (device := _device(pynvml, index)) is not None
            ),
        )
    except Exception:
        return None
    finally:
        with suppress(Exception):
            pynvml.nvmlShutdown()


def _device(nvml: Any, index: int) -> NvmlDevice | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
        mig = _is_mig(nvml, handle)
        return NvmlDevice(
            name=_text(nvml.nvmlDeviceGetName(handle)),
            uuid=_uuid(nvml, handle),
            capability=capability,
            memory=_memory(nvml, handle),
            mig=mig,
            parts=_parts(nvml, handle, capability) if mig else (),
        )
    except Exception:  # such as "GPU is lost"
        return None


def _parts(nvml: Any, parent: Any, capability: tuple[int, int]) -> tuple[NvmlDevice, ...]:
    found = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(parent)):
        with suppress(Exception):  # such as "no part has this number"
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, index)
            found.append(
                NvmlDevice(
                    name=_text(nvml.nvmlDeviceGetName(handle)),
                    uuid=_uuid(nvml, handle),
                    capability=capability,
                    memory=_memory(nvml, handle),
                    instance=(
                        int(nvml.nvmlDeviceGetGpuInstanceId(handle)),
                        int(nvml.nvmlDeviceGetComputeInstanceId(handle)),
                    ),
                )
            )
    return tuple(found)


def _is_mig(nvml: Any, handle: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except Exception:  # The GPU cannot be parted, or the driver is older than that.
        return False
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _memory(nvml: Any, handle: Any) -> tuple[int, int] | None:
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        return None
    return int(memory.free), int(memory.total)


def _uuid(nvml: Any, handle: Any) -> str:
    try:
        return _text(nvml.nvmlDeviceGetUUID(handle))
    except Exception:
        return ""


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def torch_facts(folder: Path | None = None) -> TorchFacts | None:
    """Read version, CUDA and kernels of the installed torch; None if there is none.

    Args:
        folder: of the package; None to look where Python would import it from.
    """
    folder = folder or package_folder("torch")
    if folder is None or not folder.is_dir():
        return None
    values = _assigned(folder / "version.py")
    version, cuda = values.get("__version__"), _version_of_cuda(values.get("cuda"))
    return TorchFacts(
        version=version or "?",
        cuda=cuda,
        archs=_archs(folder / "lib") if cuda else None,
        hip=bool(values.get("hip")),
    )


def _assigned(file: Path) -> dict[str, str]:
    """Return the names that a module of Python sets to a text, without running it."""
    try:
        with file.open("rb") as content:
            tree = ast.parse(content.read(_VERSION_FILE_BYTES))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets: list[ast.expr] = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= {t.id: node.value.value for t in targets if isinstance(t, ast.Name)}
    return found


def _version_of_cuda(text: str | None) -> tuple[int, int] | None:
    parts = re.match(r"(\d{1,3})\.(\d{1,3})", text or "")
    return (int(parts[1]), int(parts[2])) if parts else None


def _archs(folder: Path) -> tuple[str, ...] | None:
    """Find the list of architectures in the library, where it is a text of its own."""
    for name in _LIBRARIES:
        try:
            with (
                (folder / name).open("rb") as library,
                mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                return _arch_list(content)
        except (OSError, ValueError):  # not there, or empty
            continue
    return None


def _arch_list(content: mmap.mmap) -> tuple[str, ...] | None:
    longest = b""
    # Plain bytes are searched for, because a regular expression takes ten times as long.
    at = content.find(b"sm_")
    while at >= 0:
        start = content.rfind(b"\0", max(0, at - _LONGEST), at) + 1
        found = _ARCH_LIST.match(content, start)
        if found and len(found[0]) > len(longest):
            longest = found[0]
        at = content.find(b"sm_", max(at + 1, found.end() if found else 0))
    return tuple(longest[:-1].decode("ascii").split()) or None
