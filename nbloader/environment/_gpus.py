"""GPUs, as their driver tells, without torch."""

from __future__ import annotations

from nbloader.records import GpuFacts

__all__ = ["gpu_facts"]


def gpu_facts() -> tuple[GpuFacts, ...]:
    """Ask the NVIDIA driver for its GPUs, without torch; empty where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        found = []
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            found.append(
                GpuFacts(
                    name=name.decode() if isinstance(name, bytes) else str(name),
                    free=int(memory.free),
                    total=int(memory.total),
                    capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
                )
            )
        return tuple(found)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()
