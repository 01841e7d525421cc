"""Facts about the machine: where we run, disk, memory, GPUs, installed packages.

Only gathers; what follows from the facts is decided in `checks` and `fit`.
"""

from __future__ import annotations

from nbloader.environment._attached import attached_models, looks_like, matching
from nbloader.environment._classes import class_facts
from nbloader.environment._disk import (
    bigger_disks,
    disk_facts,
    disk_facts_or_none,
    existing_part,
    expanded,
    folder_of_environment,
    home_of_environment,
    switched_on,
)
from nbloader.environment._machine import machine_facts
from nbloader.environment._memory import memory_facts
from nbloader.environment._packages import (
    distribution_name,
    package_facts,
)
from nbloader.environment._place import (
    how_to_add_token,
    how_to_connect,
    how_to_free,
    place,
    place_facts,
)
from nbloader.environment._requirements import unmet_requirements
from nbloader.environment._torch import torch_facts
from nbloader.environment._versions import changed_since_import, is_one_of

__all__ = [
    "attached_models",
    "bigger_disks",
    "changed_since_import",
    "class_facts",
    "disk_facts",
    "disk_facts_or_none",
    "distribution_name",
    "existing_part",
    "expanded",
    "folder_of_environment",
    "home_of_environment",
    "how_to_add_token",
    "how_to_connect",
    "how_to_free",
    "is_one_of",
    "looks_like",
    "machine_facts",
    "matching",
    "memory_facts",
    "package_facts",
    "place",
    "place_facts",
    "switched_on",
    "torch_facts",
    "unmet_requirements",
]
