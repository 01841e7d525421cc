"""The environments of `make test-compat`: versions of places where notebooks run, and bounds."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["ENVIRONMENTS", "Environment"]

ROOT = Path(__file__).parents[2]

TITLES = {
    "colab": "Colab",
    "kaggle": "Kaggle",
    "newest": "the newest that there are",
    "oldest": "the oldest that are allowed",
}


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment, which the Makefile has made.

    Attributes:
        place: whose versions it has; those of its requirements in this folder.
        series: of its Python, such as `3.12`.
    """

    place: str
    series: str

    @property
    def name(self) -> str:
        """What the Makefile calls it."""
        return f"{self.place}-{self.series}"

    @property
    def title(self) -> str:
        """What the page of what was compared calls it, without its Python."""
        return TITLES[self.place]

    @property
    def folder(self) -> Path:
        return ROOT / ".venv/compat" / self.name

    @property
    def python(self) -> str:
        python = self.folder / "bin/python"
        if not python.exists():
            pytest.fail("The environments are missing. Run: make test-compat")
        return str(python)

    @property
    def pins(self) -> dict[str, str]:
        """The versions that are asked for, by the names of packages."""
        return _pins(Path(__file__).with_name(f"{self.place}.txt"))

    @property
    def before(self) -> dict[str, str]:
        """What there was before nbloader was installed."""
        return _pins(self.folder / "before.txt")

    def versions(self) -> dict[str, str]:
        """Return the versions of all packages that are installed, and of Python."""
        return _versions(self.python)


@cache
def _versions(python: str) -> dict[str, str]:
    code = (
        "import json, platform\nfrom importlib.metadata import distributions\n"
        "found = {each.name: each.version for each in distributions()}\n"
        "print(json.dumps(found | {'python': platform.python_version()}))"
    )
    # Nothing of the folder that the tests are run in, nor of the variables of their Python.
    told = subprocess.check_output([python, "-I", "-c", code], text=True, timeout=60)
    found: dict[str, str] = json.loads(told)
    return {canonicalize_name(name): version for name, version in found.items()}


def _pins(file: Path) -> dict[str, str]:
    found = {}
    for line in file.read_text("utf-8").splitlines():
        if text := line.partition("#")[0].strip():
            asked = Requirement(text)
            for each in asked.specifier:
                found[str(canonicalize_name(asked.name))] = each.version
    return found


ENVIRONMENTS = tuple(
    Environment(*name.split("-"))
    for name in ("colab-3.12", "colab-3.13", "kaggle-3.12", "oldest-3.11", "newest-3.13")
)
"""As the Makefile makes them."""
