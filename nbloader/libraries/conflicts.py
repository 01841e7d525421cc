"""Known conflicts between installed versions, from the table `conflicts.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from nbloader.libraries.versions import is_one_of
from nbloader.records import Kind, PackageFacts

__all__ = ["Conflict", "conflicts", "found_conflicts"]

_TABLE = "conflicts.toml"


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
    """Give the conflicts between the installed versions of these packages."""
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
