"""Facts about the machine: where we run, disk, memory, GPUs, the build of torch.

Only gathers; what follows from the facts is decided in `checks` and `fit`.
"""

from __future__ import annotations

from nbloader.machine.disk import (
    bigger_disks,
    disk_facts,
    disk_facts_or_none,
    existing_part,
    folder_of_environment,
    home_of_environment,
    offline_variable,
    switched_on,
)
from nbloader.machine.facts import machine_facts
from nbloader.machine.folders import holds_model
from nbloader.machine.gpus import torch_facts
from nbloader.machine.memory import memory_facts, own_bytes
from nbloader.machine.places import (
    HOW_TO_FREE,
    attached_models,
    how_to_add_token,
    how_to_connect,
    looks_like,
    matching,
    place,
    place_facts,
)

__all__ = [
    "HOW_TO_FREE",
    "attached_models",
    "bigger_disks",
    "disk_facts",
    "disk_facts_or_none",
    "existing_part",
    "folder_of_environment",
    "holds_model",
    "home_of_environment",
    "how_to_add_token",
    "how_to_connect",
    "looks_like",
    "machine_facts",
    "matching",
    "memory_facts",
    "offline_variable",
    "own_bytes",
    "place",
    "place_facts",
    "switched_on",
    "torch_facts",
]
