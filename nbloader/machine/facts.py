"""All facts about this machine that every load asks for, gathered once."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from nbloader.machine.gpus import driver_facts, gpu_facts, read_nvml, torch_facts
from nbloader.machine.memory import UNKNOWN_MEMORY, memory_facts
from nbloader.machine.places import place_facts
from nbloader.records import MachineFacts, PackageFacts, PlaceFacts

_T = TypeVar("_T")


def machine_facts(
    environ: Mapping[str, str] = os.environ, packages: Mapping[str, PackageFacts] | None = None
) -> MachineFacts:
    """Gather what this machine is and has. Imports no heavy library, and makes no CUDA context.

    Each fact is gathered on its own: one that cannot be had is unknown, and ends nothing.

    Args:
        packages: the packages that are asked about, by the names under which they are imported.
    """
    memory = _known(memory_facts, UNKNOWN_MEMORY)
    snapshot = _known(read_nvml, None)
    return MachineFacts(
        memory=memory,
        place=_known(lambda: place_facts(environ), PlaceFacts(source="unknown")),
        gpus=_known(lambda: gpu_facts(snapshot, environ, memory), ()),
        driver=_known(lambda: driver_facts(snapshot), None),
        torch=_known(torch_facts, None),
        mps=sys.platform == "darwin" and platform.machine() == "arm64",
        packages=packages or {},
    )


def _known(read: Callable[[], _T], unknown: _T) -> _T:
    """Return what `read` gives, or what stands for not knowing it."""
    try:
        return read()
    except Exception:  # What is read is foreign, and so is what can go wrong with it.
        return unknown
