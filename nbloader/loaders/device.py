"""What torch finds on this machine, and the names that libraries want for a dtype."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from nbloader.fit import DeviceFacts

__all__ = ["device_facts", "dtype_argument"]

_DTYPE_SINCE = {"diffusers": "0.40", "transformers": "4.56"}
"""The versions from which `dtype=` replaces `torch_dtype=`, which warns from there on."""


def device_facts() -> DeviceFacts:
    """Ask torch for its devices. Imports torch."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return DeviceFacts(
        cuda_capabilities=tuple(torch.cuda.get_device_capability(i) for i in range(count)),
        mps=torch.backends.mps.is_available(),
    )


def dtype_argument(library: str, dtype: str) -> dict[str, Any]:
    """Give the keyword argument that passes `dtype` to the installed version of a library."""
    import torch
    from packaging.version import Version

    new = Version(version(library)) >= Version(_DTYPE_SINCE[library])
    return {"dtype" if new else "torch_dtype": getattr(torch, dtype)}
