"""Can this work here? Facts and a selection turned into a report, before the first weight is
fetched.

Each check is a small object that looks at facts and says what it found. A check whose
requirements did not pass is skipped. Pure: the facts are gathered elsewhere.
"""

from nbloader.checks.facts import Facts
from nbloader.checks.files import LOW_DISK_BYTES, disk
from nbloader.checks.joint import JointReport
from nbloader.checks.needs import (
    inspected_packages,
    install_hint,
    quantizations_of,
    required_packages,
)
from nbloader.checks.report import CHECKS, Check, PreflightReport, in_words_of, run_checks
from nbloader.checks.safety import trial

__all__ = [
    "CHECKS",
    "LOW_DISK_BYTES",
    "Check",
    "Facts",
    "JointReport",
    "PreflightReport",
    "disk",
    "in_words_of",
    "inspected_packages",
    "install_hint",
    "quantizations_of",
    "required_packages",
    "run_checks",
    "trial",
]
