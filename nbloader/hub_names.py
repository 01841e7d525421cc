"""Names of the Hub: what can be the id of a repository, or a revision. Pure.

Both become a part of an address and of a path in the cache, whoever wrote them: a caller, a card
or a configuration of another repository.
"""

from __future__ import annotations

import re
from typing import TypeGuard

__all__ = ["is_repo_id", "is_revision"]

# The Hub's rule for names: letters, digits, `-`, `_`, `.`; at most 96 characters in all; `--` and
# `..` forbidden; a name neither starts nor ends with `-` or `.`.
_NAME = r"(?![-.])[\w\-.]{1,96}(?<![-.])"
_REPO_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}", re.ASCII)
_NO_REVISION = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|/\.")


def is_repo_id(value: object) -> TypeGuard[str]:
    """Tell whether a value can be the id of a repository: `org/name`, or an old bare `name`."""
    return (
        isinstance(value, str)
        and len(value) <= 96
        and _REPO_ID.fullmatch(value) is not None
        and "--" not in value
        and ".." not in value
        and not value.endswith(".git")
    )


def is_revision(value: object) -> TypeGuard[str]:
    """Tell whether a value can be the name of a branch, a tag or a commit.

    The rules are git's for names of references, as far as they matter here.
    """
    return (
        isinstance(value, str)
        and 0 < len(value) <= 255
        and not _NO_REVISION.search(value)
        and not value.startswith(("/", ".", "-"))
        and not value.endswith(("/", ".", ".lock"))
    )
