"""GPUs as torch will count them, told from what their driver says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nbloader.machine.nvml import NvmlDevice, NvmlSnapshot
from nbloader.records import DriverFacts, GpuFacts, MemoryFacts

__all__ = ["driver_facts", "gpu_facts"]


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
