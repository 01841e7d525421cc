"""The one line that installs what is missing or does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from nbloader.libraries.packages import distribution_name
from nbloader.records import PackageFacts

RELATED = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "sentence_transformers",
    "huggingface_hub",
    "tokenizers",
    "safetensors",
)
"""Packages that bound each other's versions. pip looks at the requirements of what it is told by
name and of what it installs, not at those of the rest: `pip install -U diffusers` brings a
huggingface_hub that the installed transformers refuses."""

NOT_RELEASED = "(If pip finds none, the class may be in a version that is not released yet.)"
"""Stands after a line that wants a version newer than the installed one."""

_FITTED = ("torch", "torchvision")
"""They fit the driver and each other as they are, on Colab and Kaggle by builds of their own."""

_OWN_BOUNDS = {"huggingface_hub": ">=1.8,<3"}
"""What this package requires itself, so that the line does not break it."""

_LEAST = {"diffusers": ">=0.37", "sentence_transformers": ">=5.2"}
"""The oldest that is worth to be installed anew: this package's extras."""

_BUILT_WITH_TORCH = frozenset({"flash_attn"})
"""Packages that are compiled when they are installed, and import the torch that is there for it."""

_TORCH_BUILD = re.compile(r"\+(cu\d+|cpu|xpu|rocm\d+(?:\.\d+)*)")


def merged(changes: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Put the versions that several findings want of each package together."""
    wanted: dict[str, list[str]] = {}
    for change in changes:
        for name, versions in change.items():
            wanted.setdefault(name, []).append(versions)
    return {name: ",".join(dict.fromkeys(filter(None, all_))) for name, all_ in wanted.items()}


def pip_hint(
    change: Mapping[str, str], packages: Mapping[str, PackageFacts], *, notebook: bool = True
) -> str:
    """Say what to do in one line: what to run, and whether a restart is needed after it."""
    if not change:
        if notebook:
            return "Restart the kernel, then run the cell again."
        return "Start the program again."
    line = pip_line(change, packages, notebook=notebook)
    if not notebook:
        return f"Run this: {line}"
    # These libraries look once for what is installed, and then remember it.
    remembering = (set(RELATED) - set(_FITTED)) | change.keys()
    if any(name in packages and packages[name].imported for name in remembering):
        return f"Run this and restart the kernel: {line}"
    return f"Run this, then this cell again: {line}"


def pip_line(
    change: Mapping[str, str], packages: Mapping[str, PackageFacts], *, notebook: bool = True
) -> str:
    """Return the command that makes a change and leaves the rest working.

    It names what has to change and every related package that is installed, so that pip finds
    versions that fit together, and moves what it must. torch and torchvision stay what they are,
    and so does what is imported, if all that is wanted is something more.

    Args:
        change: versions (PEP 440, empty for any) by the name of the import.
        packages: what is installed.
    """
    adds_only = not any(_installed(packages, name) for name in change)
    parts = []
    for name, versions in change.items():
        if name == "torch" and not versions and _installed(packages, name):
            continue  # It is what another package has to fit.
        if not _installed(packages, name):
            versions = versions or _LEAST.get(name, "")
        parts.append(_requirement(name, _both(versions, _OWN_BOUNDS.get(name, ""))))
    named = {name for name in change if name != "torch" or change[name]}
    for name in RELATED:
        installed = _installed(packages, name)
        if installed is None or name in named:
            continue
        stays = name in _FITTED or (adds_only and packages[name].imported)
        pinned = f"=={installed}" if stays and installed != "?" else ""
        parts.append(_requirement(name, pinned or _OWN_BOUNDS.get(name, "")))
    command = "%pip install" if notebook else "pip install"
    isolation = () if _BUILT_WITH_TORCH.isdisjoint(change) else ("--no-build-isolation",)
    return " ".join([command, *_index(change, packages), *isolation, *parts])


def normal_name(distribution: str) -> str:
    """Return a name of the package index in the form in which they are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def import_name(distribution: str) -> str:
    """Return the name of the import of a related package; of others, the name that is given."""
    return _IMPORTS.get(normal_name(distribution), distribution)


_IMPORTS = {normal_name(distribution_name(name)): name for name in RELATED}


def _installed(packages: Mapping[str, PackageFacts], name: str) -> str | None:
    return packages[name].installed if name in packages else None


def _both(versions: str, bounds: str) -> str:
    return ",".join(filter(None, (versions, bounds)))


def _requirement(name: str, versions: str) -> str:
    text = f"{distribution_name(name)}{versions}"
    return f'"{text}"' if re.search(r"[<>!~,]", text) else text


def _index(change: Mapping[str, str], packages: Mapping[str, PackageFacts]) -> tuple[str, ...]:
    """Where a torchvision for a build of torch comes from that is not the package index's."""
    build = _TORCH_BUILD.search(_installed(packages, "torch") or "")
    if build is None or "torchvision" not in change:
        return ()
    return ("--extra-index-url", f"https://download.pytorch.org/whl/{build[1]}")
