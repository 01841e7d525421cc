"""Installed packages, without importing them: their versions, requirements and known conflicts.

Versions are compared as PEP 440 says. Conflicts that no metadata tell are in `conflicts.toml`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution
from pathlib import Path

from nbloader.records import Kind, PackageFacts, UnmetRequirement

# Where the name on the package index is not that of the import, the one to install first.
_DISTRIBUTIONS = {
    "Levenshtein": ("levenshtein", "python-Levenshtein"),
    "PIL": ("pillow", "pillow-simd"),
    "auto_gptq": ("auto-gptq",),
    "awq": ("autoawq",),
    "bs4": ("beautifulsoup4",),
    "cv2": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
    "flash_attn.cute": ("flash-attn-4",),
    "flash_attn_interface": ("flash-attn-3",),
    "google.protobuf": ("protobuf",),
    "imwatermark": ("invisible-watermark",),
    "modelopt": ("nvidia-modelopt",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "optimum.intel": ("optimum-intel",),
    "optimum.onnxruntime": ("optimum-onnx",),
    "optimum.quanto": ("optimum-quanto",),
    "quark": ("amd-quark",),
    "sklearn": ("scikit-learn",),
    "spqr_quant": ("spqr-quant",),
}

_FIELD = re.compile(r"^(Name|Version|Requires-Dist): *(.*?)\s*$", re.MULTILINE)
_OF_EXTRA = re.compile(r"\bextra *==")

_TABLE = "conflicts.toml"


def distribution_name(name: str) -> str:
    """Return the name on the package index of the package that is imported as `name`."""
    return _distribution_names(name)[0]


def package_facts(names: Iterable[str]) -> dict[str, PackageFacts]:
    """Return the installed and the imported version of each package. Nothing is imported.

    A package that is there without metadata has the version `?`.

    Args:
        names: as they are imported, such as `PIL` or `google.protobuf`.
    """
    return {name: _facts(name) for name in dict.fromkeys(names)}


def package_folder(name: str) -> Path | None:
    """Return the folder of the files of a package; None if there is none. Nothing is imported.

    An empty folder of that name, or somebody's module, is none.
    """
    spec = _spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        return None
    return Path(spec.origin).parent


def _distribution_names(name: str) -> tuple[str, ...]:
    # A module inside of a package is not on the index by that name; what is, is someone else's.
    return _DISTRIBUTIONS.get(name) or (name.partition(".")[0].replace("_", "-"),)


def _facts(name: str) -> PackageFacts:
    imported = _imported(name)
    # To look for `google.protobuf` would import `google`; its metadata have to be enough.
    if "." not in name and _spec(name) is None:
        return PackageFacts(name=name, installed=None, imported=imported)
    for distribution in _distribution_names(name):
        try:
            found = importlib.metadata.distribution(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        return PackageFacts(
            name=name,
            installed=found.version,
            imported=imported,
            editable=_is_editable(found),
            compiled="." in name or _is_compiled(name),
        )
    return PackageFacts(name=name, installed=None if "." in name else "?", imported=imported)


def _is_editable(found: importlib.metadata.Distribution) -> bool:
    """Say whether a package is a link to its sources, as `direct_url.json` (PEP 610) says."""
    try:
        match json.loads(found.read_text("direct_url.json") or "null"):
            case {"dir_info": {"editable": True}}:
                return True
    except ValueError:
        pass
    return False


def _is_compiled(name: str) -> bool:
    """Say whether the bytecode of a package is where Python looks for it.

    Whoever imports a package compiles all of it that is imported, so its first file tells.
    """
    spec = _spec(name)
    cached = spec.cached if spec is not None and spec.has_location else None
    return cached is None or Path(cached).exists()


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _imported(name: str) -> str | None:
    module = sys.modules.get(name)
    try:
        version = getattr(module, "__version__", None)
    except Exception:  # A module may answer for its attributes by code of its own.
        return None
    return str(version) if isinstance(version, str) else None


def is_one_of(version: str, versions: str) -> bool | None:
    """Say whether a version is one of those, such as `>=1.5,<2.0`; None if it cannot be told."""
    # Imported here: it takes 30 ms, a good part of `import nbloader`.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(versions).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return None


def changed_since_import(found: PackageFacts) -> bool:
    """Say whether another version of a package is installed than this process has imported."""
    if found.imported is None or found.installed in (None, "?"):
        return False
    # A build says `2.13.0+cu130` in its code and may say `2.13.0` in its metadata.
    imported, installed = (
        version.partition("+")[0] for version in (found.imported, found.installed)
    )
    # `2.1` and `2.1.0` are the same; what is no version can only be compared as text.
    same = is_one_of(imported, f"=={installed}")
    return imported != installed if same is None else not same


def unmet_requirements(
    names: Iterable[str], *, path: Sequence[str] | None = None
) -> tuple[UnmetRequirement, ...]:
    """Return what the named packages require and do not find, like `pip check` for them alone.

    What only an extra requires does not count. Packages that are not installed, and requirements
    that cannot be read, are left out.

    Args:
        names: of packages, as they are imported.
        path: folders to look into; None for those that Python imports from.
    """
    installed = _Installed(path)
    wanted = dict.fromkeys(distribution_name(name) for name in names)
    found = (installed.get(name) for name in wanted)
    return tuple(unmet for package in found if package for unmet in _unmet(package, installed))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Package:
    """The metadata of an installed package."""

    name: str
    version: str
    requires: tuple[str, ...]


class _Installed:
    """The installed packages, each looked up once."""

    def __init__(self, path: Sequence[str] | None) -> None:
        self._path = path
        self._known: dict[str, _Package | None] = {}

    def get(self, name: str) -> _Package | None:
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> _Package | None:
        found = (
            Distribution.discover(name=name)
            if self._path is None
            else Distribution.discover(name=name, path=list(self._path))
        )
        distribution = next(iter(found), None)
        if distribution is None:
            return None
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        # The description behind the first empty line is long, and nothing of it is needed.
        fields = _FIELD.findall(text.replace("\r\n", "\n").partition("\n\n")[0])
        first = dict(reversed(fields))
        return _Package(
            name=first.get("Name", name),
            version=first.get("Version", "?"),
            requires=tuple(value for field, value in fields if field == "Requires-Dist"),
        )


def _unmet(package: _Package, installed: _Installed) -> Iterator[UnmetRequirement]:
    # Imported here: it takes 30 ms, a good part of `import nbloader`.
    from packaging.markers import UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    for text in package.requires:
        # Nine of ten belong to extras, and a test for that is quicker than to parse them.
        if _OF_EXTRA.search(text) and " or " not in text:
            continue
        try:
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
        except (InvalidRequirement, UndefinedEnvironmentName):
            continue
        found = installed.get(requirement.name)
        if found is None or is_one_of(found.version, str(requirement.specifier)) is False:
            yield UnmetRequirement(
                package=package.name,
                version=package.version,
                requirement=f"{requirement.name}{requirement.specifier}",
                installed=None if found is None else found.version,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Versions that do not work together although their metadata allow it.

    Attributes:
        packages: versions (PEP 440) by the name of the import; all have to match.
        kinds: the loads that it ends; empty for one that ends none.
        why: one line.
        change: what to install instead, versions by the name of the import.
        link: where it was found out.
    """

    packages: Mapping[str, str]
    kinds: frozenset[Kind]
    why: str
    change: Mapping[str, str]
    link: str


@cache
def conflicts() -> tuple[Conflict, ...]:
    """Read the table."""
    # Imported here: every process looks at its machine, and few read this.
    import tomllib
    from importlib.resources import files

    table = tomllib.loads(files(__package__).joinpath(_TABLE).read_text("utf-8"))
    return tuple(
        Conflict(
            packages=entry["packages"],
            kinds=frozenset(map(Kind, entry["kinds"])),
            why=entry["why"],
            change=entry["change"],
            link=entry["link"],
        )
        for entry in table["conflict"]
    )


def found_conflicts(packages: Mapping[str, PackageFacts]) -> tuple[Conflict, ...]:
    """Return the conflicts between the installed versions of these packages."""
    return tuple(
        conflict
        for conflict in conflicts()
        if all(
            name in packages
            and packages[name].installed is not None
            and is_one_of(str(packages[name].installed), versions)
            for name, versions in conflict.packages.items()
        )
    )
