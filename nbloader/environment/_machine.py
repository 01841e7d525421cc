"""All facts about this machine that every load asks for, gathered once."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

from nbloader.environment._gpus import driver_facts, gpu_facts
from nbloader.environment._memory import memory_facts
from nbloader.environment._nvml import read_nvml
from nbloader.environment._place import place_facts
from nbloader.environment._torch import torch_facts
from nbloader.records import MachineFacts, PackageFacts

__all__ = ["machine_facts"]


def machine_facts(
    environ: Mapping[str, str] = os.environ, packages: Mapping[str, PackageFacts] | None = None
) -> MachineFacts:
    """Gather what this machine is and has. Imports no heavy library, and makes no CUDA context.

    Args:
        packages: the packages that are asked about, by the names under which they are imported.
    """
    memory = memory_facts()
    snapshot = read_nvml()
    return MachineFacts(
        memory=memory,
        place=place_facts(environ),
        gpus=gpu_facts(snapshot, environ, memory),
        driver=driver_facts(snapshot),
        torch=torch_facts(),
        mps=sys.platform == "darwin" and platform.machine() == "arm64",
        packages=packages or {},
    )
