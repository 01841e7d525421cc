"""Names of the Hub: ids of repositories, revisions, tags, hashes, and paths of files. Pure.

Ids and revisions become a part of an address and of a path in the cache, whoever wrote them: a
caller, a card or a configuration of another repository.

The path of a file in a selection is the one inside the repository of the selection. That of another
repository's file begins with its id and a colon: `org/base:config.json`; the folder of such a file
in the root is `org/base:`. No file of the selection's own repository may have a colon in its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeGuard

__all__ = [
    "HUB",
    "MAX_BASE_MODELS",
    "TOKEN_VARIABLES",
    "cache_folder",
    "folder_and_name",
    "is_etag",
    "is_path",
    "is_repo_id",
    "is_revision",
    "is_tag",
    "is_xet_hash",
    "join",
    "page_of",
    "repo_folder",
    "successor_of",
]

HUB = "https://huggingface.co"
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Variables that hold a token, in the order in which the Hub's library looks at them."""

MAX_BASE_MODELS = 8
"""A merge names a handful; who names more says nothing that could be used."""

# The Hub's rule for names: letters, digits, `-`, `_`, `.`; at most 96 characters in all; `--` and
# `..` forbidden; a name neither starts nor ends with `-` or `.`.
_NAME = r"(?![-.])[\w\-.]{1,96}(?<![-.])"
_REPO_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
_SHA1, _SHA256 = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{64}")
_NO_PATH = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_REVISION = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|/\.")


def cache_folder(repo_id: str, repo_type: str = "model") -> str:
    """Return the name of a repository's folder in the Hub's cache, such as `models--org--name`."""
    return f"{repo_type}s--{repo_id.replace('/', '--')}"


def is_repo_id(value: object) -> TypeGuard[str]:
    """Say whether a value can be the id of a repository: `org/name`, or an old bare `name`."""
    return (
        isinstance(value, str)
        and len(value) <= 96
        and _REPO_ID.fullmatch(value) is not None
        and "--" not in value
        and ".." not in value
        and not value.endswith(".git")
    )


def is_path(value: object) -> TypeGuard[str]:
    """Say whether a value can be the path of a folder of this machine."""
    return isinstance(value, str) and 0 < len(value) <= 4096 and not _NO_PATH.search(value)


def is_revision(value: object) -> TypeGuard[str]:
    """Say whether a value can be the name of a branch, a tag or a commit.

    The rules are git's for names of references, as far as they matter here.
    """
    return (
        isinstance(value, str)
        and 0 < len(value) <= 255
        and not _NO_REVISION.search(value)
        and not value.startswith(("/", ".", "-"))
        and not value.endswith(("/", ".", ".lock"))
    )


def is_tag(value: object) -> TypeGuard[str]:
    """Say whether a value can be the name of a task or a library, as the Hub writes them:
    `text-generation`, `sentence-transformers`."""
    return isinstance(value, str) and _TAG.fullmatch(value) is not None


def is_etag(value: object, *, lfs: bool) -> TypeGuard[str]:
    """Say whether a value can be the hash of a file: git's of a small one, sha256 of one in LFS."""
    digits = _SHA256 if lfs else _SHA1
    return isinstance(value, str) and digits.fullmatch(value) is not None


def is_xet_hash(value: object) -> TypeGuard[str]:
    """Say whether a value can be the name of a file in Xet storage."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def page_of(repo_id: str, repo_type: str = "model") -> str:
    """Return the address of the page of a repository."""
    return f"{HUB}/{repo_id}" if repo_type == "model" else f"{HUB}/{repo_type}s/{repo_id}"


def repo_folder(repo_id: str, repo_type: str = "model") -> str:
    """Return the name of the folder of a repository in the Hub's cache."""
    return "--".join([f"{repo_type}s", *repo_id.split("/")])


def join(folder: str, name: str) -> str:
    """Return the path of `name` in `folder`; the root is the empty string, or ends with a colon."""
    return f"{folder}{name}" if not folder or folder.endswith(":") else f"{folder}/{name}"


def folder_and_name(path: str) -> tuple[str, str]:
    """Take a path apart, so that `join` puts it together again."""
    repository, colon, inner = path.rpartition(":")
    folder, _, name = inner.rpartition("/")
    return f"{repository}{colon}{folder}", name


# -- ids that are gone -----------------------------------------------------------------------------

_SUCCESSORS: Mapping[str, str] = {
    # Deleted with their organization in August 2024:
    # https://github.com/lllyasviel/ControlNet-v1-1-nightly/issues/155
    # https://github.com/ZhanxyR/SHERT/issues/5
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    # Withdrawn in November 2025, and kept by the community:
    # https://github.com/huggingface/optimum-habana/pull/2363
    # https://github.com/CompVis/cleandift/issues/17
    # https://github.com/Nerogar/OneTrainer/pull/1140
    **{
        f"stabilityai/{name}": f"sd2-community/{name}"
        for name in (
            "stable-diffusion-2",
            "stable-diffusion-2-1",
            "stable-diffusion-2-1-base",
            "stable-diffusion-2-1-unclip",
            "stable-diffusion-2-1-unclip-small",
            "stable-diffusion-2-base",
            "stable-diffusion-2-depth",
            "stable-diffusion-2-inpainting",
        )
    },
}


def successor_of(repo_id: str) -> str | None:
    """Return the id under which a model that is gone can still be found; None if none is known."""
    return _SUCCESSORS.get(repo_id.lower())
