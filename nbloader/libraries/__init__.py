"""What is installed, read from the files of packages without an import of them.

Which versions, whether they agree with each other, which classes they have, and the line of pip
that mends what does not fit.
"""

from __future__ import annotations

from nbloader.libraries.classes import class_facts
from nbloader.libraries.conflicts import found_conflicts
from nbloader.libraries.packages import distribution_name, package_facts, package_folder
from nbloader.libraries.pip import (
    NOT_RELEASED,
    RELATED,
    import_name,
    merged,
    normal_name,
    pip_hint,
    pip_line,
)
from nbloader.libraries.requirements import unmet_requirements
from nbloader.libraries.versions import changed_since_import, is_one_of

__all__ = [
    "NOT_RELEASED",
    "RELATED",
    "changed_since_import",
    "class_facts",
    "distribution_name",
    "found_conflicts",
    "import_name",
    "is_one_of",
    "merged",
    "normal_name",
    "package_facts",
    "package_folder",
    "pip_hint",
    "pip_line",
    "unmet_requirements",
]
