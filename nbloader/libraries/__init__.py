"""What is installed, read from the files of packages without an import of them.

Which versions, whether they agree with each other, which classes they have, and the line of pip
that mends what does not fit.
"""

from __future__ import annotations

from nbloader.libraries.auto_pipelines import auto_pipeline
from nbloader.libraries.classes import class_facts
from nbloader.libraries.lookup import look_up
from nbloader.libraries.packages import (
    changed_since_import,
    conflicts,
    distribution_name,
    found_conflicts,
    is_one_of,
    package_facts,
    package_folder,
    unmet_requirements,
)
from nbloader.libraries.pip import (
    NOT_RELEASED,
    RELATED,
    import_name,
    merged,
    normal_name,
    pip_hint,
)

__all__ = [
    "NOT_RELEASED",
    "RELATED",
    "auto_pipeline",
    "changed_since_import",
    "class_facts",
    "conflicts",
    "distribution_name",
    "found_conflicts",
    "import_name",
    "is_one_of",
    "look_up",
    "merged",
    "normal_name",
    "package_facts",
    "package_folder",
    "pip_hint",
    "unmet_requirements",
]
