"""Facts about the machine: where we run, disk, memory, GPUs, installed packages.

Only gathers; what follows from the facts is decided in `checks` and `fit`.
"""

from __future__ import annotations

from nbloader.environment._disk import disk_facts, existing_part, folder_of_environment
from nbloader.environment._gpus import gpu_facts
from nbloader.environment._memory import memory_facts
from nbloader.environment._packages import package_versions, pipeline_classes
from nbloader.environment._place import how_to_add_token, how_to_connect, place

__all__ = [
    "disk_facts",
    "existing_part",
    "folder_of_environment",
    "gpu_facts",
    "how_to_add_token",
    "how_to_connect",
    "memory_facts",
    "package_versions",
    "pipeline_classes",
    "place",
]
