"""Requirements of installed packages that what is installed does not meet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution

from nbloader.libraries.packages import distribution_name
from nbloader.libraries.versions import is_one_of
from nbloader.records import UnmetRequirement

__all__ = ["unmet_requirements"]

_FIELD = re.compile(r"^(Name|Version|Requires-Dist): *(.*?)\s*$", re.MULTILINE)
_OF_EXTRA = re.compile(r"\bextra *==")


def unmet_requirements(
    names: Iterable[str], *, path: Sequence[str] | None = None
) -> tuple[UnmetRequirement, ...]:
    """Give what the named packages require and do not find, like `pip check` for them alone.

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
