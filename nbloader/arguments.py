"""The arguments of `load` checked before anything is started. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TypeVar
from urllib.parse import urlsplit

from nbloader.errors import InvalidArgumentError, InvalidRepoIdError

__all__ = ["check_endpoint", "check_repo_id", "check_revision", "check_variant", "one_of"]

_E = TypeVar("_E", bound=StrEnum)

# The Hub's rule for names: letters, digits, `-`, `_`, `.`; at most 96 characters in all; `--` and
# `..` forbidden; a name neither starts nor ends with `-` or `.`.
_NAME = r"(?![-.])[\w\-.]{1,96}(?<![-.])"
_REPO_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}", re.ASCII)
_SAMPLE = 'Ids look like "Qwen/Qwen-Image-Edit-2509".'


def check_repo_id(repo_id: object) -> str:
    """Give the id if it can be one. Raises InvalidRepoIdError."""
    if (
        isinstance(repo_id, str)
        and len(repo_id) <= 96
        and _REPO_ID.fullmatch(repo_id)
        and "--" not in repo_id
        and ".." not in repo_id
        and not repo_id.endswith(".git")
    ):
        return repo_id
    hint = _SAMPLE
    if isinstance(repo_id, str):
        found = re.search(r"huggingface\.co/([\w.\-]+/[\w.\-]+)", repo_id, re.ASCII)
        if found:
            hint = f'Pass the id alone: "{found[1]}".'
        elif repo_id.startswith((".", "/", "~")) or "\\" in repo_id:
            hint = f"A folder cannot be loaded, only a repository of the Hub. {_SAMPLE}"
    raise InvalidRepoIdError(f"{_shown(repo_id)} is no repository id", hint=hint)


def check_revision(revision: object) -> str:
    """Give the branch, tag or commit, `main` for None. Raises InvalidArgumentError.

    The rules are git's for names of references, as far as they matter here: a revision becomes a
    part of an address and of a path in the cache.
    """
    if revision is None:
        return "main"
    if (
        isinstance(revision, str)
        and 0 < len(revision) <= 255
        and not re.search(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{", revision)
        and not revision.startswith(("/", ".", "-"))
        and not revision.endswith(("/", ".", ".lock"))
        and "/." not in revision
    ):
        return revision
    raise InvalidArgumentError(
        f"revision={_shown(revision)} is no name of a branch, tag or commit",
        hint='Leave it out for "main", or pass a branch, a tag or a commit of 40 hex digits.',
    )


def check_variant(variant: object) -> str | None:
    """Give the variant of the weights, or None. Raises InvalidArgumentError."""
    if variant is None or (
        isinstance(variant, str) and re.fullmatch(r"[\w\-]{1,64}", variant, re.ASCII)
    ):
        return variant
    raise InvalidArgumentError(
        f"variant={_shown(variant)} is no name of a variant",
        hint='Variants look like "fp16" or "bf16"; leave it out for the plain weights.',
    )


def check_endpoint(endpoint: object) -> str | None:
    """Give the address of the Hub, or None for the default. Raises InvalidArgumentError."""
    if endpoint is None:
        return None
    if isinstance(endpoint, str):
        try:
            parts = urlsplit(endpoint)
            _ = parts.port
        except ValueError:
            parts = urlsplit("")
        if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc:
            return endpoint.rstrip("/")
    raise InvalidArgumentError(
        f"endpoint={_shown(endpoint)} is no address of a Hub",
        hint='It looks like "https://huggingface.co"; leave it out for the default.',
    )


def one_of(name: str, value: object, choices: type[_E]) -> _E:
    """Give the member of `choices` that `value` names. Raises InvalidArgumentError."""
    try:
        return choices(str(value))
    except ValueError:
        allowed = ", ".join(repr(str(choice)) for choice in choices)
        raise InvalidArgumentError(
            f"{name}={_shown(value)} is not allowed", hint=f"Choose one of {allowed}."
        ) from None


def _shown(value: object) -> str:
    """Quote foreign text safely and briefly."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
