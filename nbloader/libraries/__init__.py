"""What is installed, read from the files of packages without an import of them.

Which versions, whether they agree with each other, which classes they have, and the line of pip
that mends what does not fit.
"""

from __future__ import annotations

from nbloader.libraries.attention import (
    ATTENTIONS,
    Attention,
    attention_library,
    attention_named,
    is_denoiser,
    is_hub_kernel,
    near_attentions,
    takes_xformers,
)
from nbloader.libraries.attention_facts import attention_facts
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
    "ATTENTIONS",
    "NOT_RELEASED",
    "RELATED",
    "Attention",
    "attention_facts",
    "attention_library",
    "attention_named",
    "auto_pipeline",
    "changed_since_import",
    "class_facts",
    "conflicts",
    "distribution_name",
    "found_conflicts",
    "import_name",
    "is_denoiser",
    "is_hub_kernel",
    "is_one_of",
    "look_up",
    "merged",
    "near_attentions",
    "normal_name",
    "package_facts",
    "package_folder",
    "pip_hint",
    "takes_xformers",
    "unmet_requirements",
]
