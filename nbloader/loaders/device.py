"""What torch finds on this machine, and what this process holds of it already."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

from nbloader.errors import ModelLoadError
from nbloader.records import GpuFacts, LoadedModel, Placement, TorchFacts

if TYPE_CHECKING:
    import torch

_ASK = """
import json
from torch import cuda
count = cuda.device_count() if cuda.is_available() else 0
print(json.dumps([
    [cuda.get_device_name(n), *cuda.mem_get_info(n), *cuda.get_device_capability(n)]
    for n in range(count)
]))
"""

ASK_TIMEOUT_S = 60.0


def trim_memory() -> None:
    """Let the C library return to the system what it holds for later use."""
    with contextlib.suppress(OSError, AttributeError):  # It is not glibc.
        ctypes.CDLL("libc.so.6").malloc_trim(0)


_DEVICE_FILES = ("/dev/kfd", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/dxg")
"""AMD's, NVIDIA's, that of NVIDIA's boards, and that of a GPU in Windows' Linux."""


def devices(torch: TorchFacts | None) -> tuple[GpuFacts, ...]:
    """Ask torch for its GPUs where NVML does not know them: AMD's, and some containers.

    It takes seconds, and is done in a process of its own: what begins to use a GPU keeps some
    hundred megabytes of it. Returns nothing where there seems to be no GPU.
    """
    able = torch is not None and (torch.hip or torch.cuda is not None)
    if not able or not any(os.path.exists(path) for path in _DEVICE_FILES):  # noqa: PTH110
        return ()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return ()
    return tuple(
        GpuFacts(name=name, free=free, total=total, capability=(major, minor), source="torch")
        for name, free, total, major, minor in found
    )


def spare_bytes() -> tuple[int, ...]:
    """Return what torch holds of each GPU for later use: to the driver it counts as taken.

    Imports nothing, and begins to use no GPU.
    """
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return ()
        return tuple(
            torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number)
            for number in range(torch.cuda.device_count())
        )
    except (AttributeError, RuntimeError):  # Another thread is importing it just now.
        return ()


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


# -- models that are still alive -------------------------------------------------------------------

_ALIVE: list[tuple[Hashable, LoadedModel, weakref.ref[Any]]] = []
"""The models that this process has loaded: a second copy of one takes its memory again."""


def remember(key: Hashable, facts: LoadedModel, model: Any) -> None:
    """Note that a model was made, without keeping it alive.

    Args:
        key: equal for two models that are the same.
    """
    _ALIVE[:] = [entry for entry in _ALIVE if entry[2]() is not None]
    _ALIVE.append((key, facts, weakref.ref(model)))


def loaded() -> tuple[LoadedModel, ...]:
    """Return the models that are alive, the largest first."""
    alive = [facts for _, facts, model in _ALIVE if model() is not None]
    return tuple(sorted(alive, key=lambda facts: -facts.bytes))


def alive(repo_id: str | None = None) -> list[Any]:
    """Return the models themselves that are alive, the oldest first.

    Args:
        repo_id: only those of this repository.
    """
    return [
        model
        for _, facts, found in _ALIVE
        if (model := found()) is not None and repo_id in (None, facts.repo_id)
    ]


def forget(model: Any) -> None:
    """Take a model off the list: it holds nothing any more."""
    _ALIVE[:] = [entry for entry in _ALIVE if entry[2]() is not model]


def copies(key: Hashable) -> list[int]:
    """Return the sizes in bytes of all models with this key that are alive.

    A model whose names are gone may live on in reference cycles. A blocking load collects it first;
    beside an event loop that would take too long (a third of a second with torch imported).
    """

    def found() -> list[int]:
        return [
            facts.bytes for known, facts, model in _ALIVE if known == key and model() is not None
        ]

    if found() and threading.current_thread() is threading.main_thread():
        gc.collect()
    return found()


def bytes_of(modules: Iterable[Any]) -> int:
    """Add up the tensors of `torch.nn.Module`s, shared ones once."""
    import torch

    tensors: dict[int, torch.Tensor] = {}
    for module in modules:
        if isinstance(module, torch.nn.Module):
            for tensor in (*module.parameters(), *module.buffers()):
                tensors[id(tensor)] = tensor
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
