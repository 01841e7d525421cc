"""The versions of the packages that build a model."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("accelerate", "bitsandbytes", "diffusers", "sentence-transformers", "transformers")


def versions() -> dict[str, str]:
    """Return the versions of the packages that a placement depends on, of those that are there."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
