"""GPUs as torch will count them, told from what their driver says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nbloader.records import DriverFacts, GpuFacts, MemoryFacts


def driver_facts(snapshot: NvmlSnapshot | None) -> DriverFacts | None:
    """Give the versions of the NVIDIA driver; None where there is none."""
    if snapshot is None:
        return None
    major, minor = divmod(snapshot.cuda, 1000)
    return DriverFacts(version=snapshot.driver, cuda=(major, minor // 10))


def gpu_facts(
    snapshot: NvmlSnapshot | None, environ: Mapping[str, str], memory: MemoryFacts
) -> tuple[GpuFacts, ...]:
    """Give the GPUs that a process with these variables sees, in the order in which it counts them.

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
    """Give what is there to be counted: whole GPUs, or else one part, for CUDA takes no second one.

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
