"""One question to the NVIDIA driver, through NVML: no torch, and no CUDA context."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["NvmlDevice", "NvmlSnapshot", "read_nvml"]


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
