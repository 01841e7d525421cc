"""Versions of packages against what is wanted of them (PEP 440)."""

from __future__ import annotations

from nbloader.records import PackageFacts

__all__ = ["changed_since_import", "is_one_of"]


def is_one_of(version: str, versions: str) -> bool | None:
    """Tell whether a version is one of those, such as `>=1.5,<2.0`; None if it cannot be told."""
    # Imported here: it takes 30 ms, a good part of `import nbloader`.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(versions).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return None


def changed_since_import(found: PackageFacts) -> bool:
    """Tell whether another version of a package is installed than this process has imported."""
    if found.imported is None or found.installed in (None, "?"):
        return False
    # A build says `2.13.0+cu130` in its code and may say `2.13.0` in its metadata.
    imported, installed = (
        version.partition("+")[0] for version in (found.imported, found.installed)
    )
    # `2.1` and `2.1.0` are the same; what is no version can only be compared as text.
    same = is_one_of(imported, f"=={installed}")
    return imported != installed if same is None else not same
