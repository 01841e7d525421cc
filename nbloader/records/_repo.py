"""A repository at a commit, and which of its files will be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Component",
    "Kind",
    "Listing",
    "Plan",
    "PlanRequest",
    "RepoFile",
]


class Kind(StrEnum):
    """The library that a repository is loaded with."""

    DIFFUSERS = "diffusers"
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    TRANSFORMERS = "transformers"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFile:
    """One file of a repository at a commit, as the Hub lists it.

    Attributes:
        path: path inside the repository, with `/`.
        size: bytes.
        etag: the name of its blob in the Hub's cache: sha256 of the content for large (LFS, Xet)
            files, git's sha1 of the blob for small ones.
        lfs: whether `etag` is a sha256.
        xet_hash: its name in Xet storage, where it is there.
    """

    path: str
    size: int
    etag: str
    lfs: bool = False
    xet_hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All files of a repository at one commit.

    Attributes:
        revision: what was asked for: a branch, a tag or a commit.
        commit_hash: the commit that it stands for (40 hex digits).
    """

    repo_id: str
    revision: str
    commit_hash: str
    files: tuple[RepoFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What the caller wants of a repository.

    Attributes:
        kind: the library to load it with; None lets the files decide.
        variant: a variant of the weights, such as `fp16`; None for the plain ones.
        trust_remote_code: whether Python files of the repository may be fetched and run.
        handed_in: names that the caller passes on to the library. A component of that name is not
            loaded: it is there already, or left out.
    """

    kind: Kind | None = None
    variant: str | None = None
    trust_remote_code: bool = False
    handed_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of a model that is loaded by itself.

    Attributes:
        name: the name in `model_index.json`, the path of the module in `modules.json`, or `model`;
            the files that belong to no part stand under `config`.
        library: the package or module that its class comes from, where the repository says so.
        class_name: the class, where the repository says so.
        paths: all its files that are fetched, weights included, sorted.
        weights: those of `paths` that hold weights.
        model_type: the family of the model that its `config.json` names, such as `bert`, where
            that was read for the plan.
        code: Python files that the `auto_map` of its `config.json` names and that are not fetched,
            because the repository's code is not trusted; those of another repository as
            `org/name--file.py`.
    """

    name: str
    library: str | None = None
    class_name: str | None = None
    paths: tuple[str, ...]
    weights: tuple[str, ...] = ()
    model_type: str | None = None
    code: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Exactly which files of a commit will be loaded, and by what.

    Attributes:
        class_name: the class of the pipeline, where the repository names one.
        components: every file of `files` is in exactly one of them.
        files: sorted by path.
        custom_code: whether the load runs Python files of the repository.
        variant: the variant of the weights that was chosen, None for the plain ones.
    """

    repo_id: str
    revision: str
    commit_hash: str
    kind: Kind
    class_name: str | None
    components: tuple[Component, ...]
    files: tuple[RepoFile, ...]
    custom_code: bool = False
    variant: str | None = None

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)
