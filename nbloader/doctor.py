"""Diagnostics to paste into a report of a problem: versions and facts, without secrets."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nbloader._version import __version__
from nbloader.checks import PreflightReport
from nbloader.environment import (
    disk_facts,
    folder_of_environment,
    gpu_facts,
    memory_facts,
    package_versions,
    place,
)
from nbloader.errors import InvalidSettingError
from nbloader.records import DiskFacts, GpuFacts
from nbloader.units import format_bytes

__all__ = ["DoctorReport", "doctor"]

PACKAGES = (
    "huggingface_hub",
    "hf_xet",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "sentence_transformers",
    "accelerate",
    "safetensors",
    "tokenizers",
    "ipywidgets",
    "ipykernel",
    "IPython",
    "jupyterlab",
    "tenacity",
    "pydantic",
)

_SHOWN = re.compile(
    r"(HF|HUGGING_?FACE|NBLOADER|XDG_CACHE|CUDA_VISIBLE|(HTTPS?|NO)_PROXY)\w*", re.IGNORECASE
)
_SECRET = re.compile(r"TOKEN(?!_PATH)|SECRET|PASSWORD|KEY", re.IGNORECASE)

_SECRET_VALUE = re.compile(r"@|\bhf_\w{4,}|bearer|basic ", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """Versions and facts of this machine. `str` of it is made to be pasted.

    Attributes:
        packages: installed versions; None where a package is missing.
        variables: environment variables that matter, secrets and home folder taken out.
        settings: what is set, or the error in it.
        disk: of the Hub's cache folder.
        memory: (available, total) bytes.
    """

    nbloader: str
    python: str
    platform: str
    place: str
    packages: Mapping[str, str | None]
    variables: Mapping[str, str]
    settings: str
    disk: DiskFacts
    memory: tuple[int, int]
    gpus: tuple[GpuFacts, ...]
    preflight: PreflightReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the report as plain values for `json.dumps`."""
        return {
            "nbloader": self.nbloader,
            "python": self.python,
            "platform": self.platform,
            "place": self.place,
            "packages": dict(self.packages),
            "variables": dict(self.variables),
            "settings": self.settings,
            "disk": asdict(self.disk),
            "memory": {"available": self.memory[0], "total": self.memory[1]},
            "gpus": [asdict(gpu) for gpu in self.gpus],
            "preflight": self.preflight.to_json() if self.preflight else None,
        }

    def __str__(self) -> str:
        disk, (available, total) = self.disk, self.memory
        rows = [
            ("nbloader", self.nbloader),
            ("python", self.python),
            ("platform", self.platform),
            ("place", self.place),
            ("cache", f"{disk.folder}{'' if disk.writable else ' (cannot be written)'}"),
            ("disk", f"{format_bytes(disk.free)} free of {format_bytes(disk.total)}"),
            ("memory", f"{format_bytes(available)} available of {format_bytes(total)}"),
            *(
                (
                    f"gpu {number}",
                    f"{gpu.name}, {format_bytes(gpu.free)} free of {format_bytes(gpu.total)}, "
                    f"compute capability {gpu.capability[0]}.{gpu.capability[1]}",
                )
                for number, gpu in enumerate(self.gpus)
            ),
            *([] if self.gpus else [("gpu", "none (NVIDIA)")]),
            *((name, version or "missing") for name, version in self.packages.items()),
            *self.variables.items(),
            ("settings", self.settings),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        if self.preflight:
            lines += ["", f"preflight of {self.preflight.repo_id}", str(self.preflight)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("DoctorReport(...)" if cycle else str(self))


def doctor(repo_id: str | None = None) -> DoctorReport:
    """Gather what a report of a problem needs. Imports none of the heavy libraries.

    Args:
        repo_id: also make the checks for this repository; otherwise nothing goes over the network.

    Raises:
        InvalidRepoIdError: `repo_id` is no id.
    """
    preflight = None
    if repo_id is not None:
        from nbloader.job import preflight as make_checks

        preflight = make_checks(repo_id)
    home = str(Path.home())
    disk = disk_facts(folder_of_environment(os.environ))
    return DoctorReport(
        nbloader=__version__,
        python=sys.version.split()[0],
        platform=platform.platform(),
        place=str(place(os.environ)),
        packages=package_versions(PACKAGES),
        variables=redacted(os.environ, home),
        settings=_settings(),
        disk=DiskFacts(
            folder=disk.folder.replace(home, "~"),
            free=disk.free,
            total=disk.total,
            writable=disk.writable,
        ),
        memory=memory_facts(),
        gpus=gpu_facts(),
        preflight=preflight,
    )


def redacted(environ: Mapping[str, str], home: str) -> dict[str, str]:
    """Pick the variables that matter: secrets become `(set)`, addresses lose what they carry."""
    found = {}
    for name in sorted(environ):
        if not _SHOWN.fullmatch(name):
            continue
        value = environ[name]
        if "://" in value and " " not in value and "," not in value:
            parts = urlsplit(value)
            value = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        # What still looks like a secret, or could hold one, is not shown at all.
        if _SECRET.search(name) or _SECRET_VALUE.search(value):
            value = "(set)"
        found[name] = value.replace(home, "~")[:200]
    return found


def _settings() -> str:
    from nbloader.settings import Settings

    try:
        changed = Settings().model_dump(exclude_defaults=True)
    except InvalidSettingError as error:
        return f"wrong: {error.message}"
    return ", ".join(f"{key}={value}" for key, value in changed.items()) or "defaults"
