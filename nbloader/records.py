"""Frozen records that pass between the parts of nbloader.

The first half describes *what is there and what will be done* (listing, plan); the second half is
*what happens*: events that the worker, the loaders and the job publish, that `state` folds, and
that reach a caller's `on_event`. Events carry a `type`, so that they survive a trip through JSON.

All sizes are bytes, all durations seconds, all times seconds since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

__all__ = [
    "LARGE_FILE_BYTES",
    "CheckResult",
    "CheckStatus",
    "Checked",
    "Component",
    "ComponentDownloaded",
    "ComponentLoaded",
    "Event",
    "Failed",
    "FileDone",
    "FileProgress",
    "HubFacts",
    "Kind",
    "Listing",
    "Notice",
    "Plan",
    "PlanRequest",
    "Planned",
    "Ready",
    "RepoFile",
    "Retry",
    "Route",
    "Stage",
    "StageStarted",
    "TransferPolicy",
]


LARGE_FILE_BYTES = 10_000_000_000
"""From this size on a file is a large one."""


class Kind(StrEnum):
    """The library that a repository is loaded with."""

    DIFFUSERS = "diffusers"
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    TRANSFORMERS = "transformers"


class Stage(StrEnum):
    """The stages of a load, in their order. Not every load has every stage."""

    CONNECT = "connect"
    SET_UP = "set up"
    DOWNLOAD = "download"
    INITIALISE = "initialise"
    SELF_TEST = "self-test"
    TEST_EMBEDDINGS = "test embeddings"
    FINISH = "finish"


class Route(StrEnum):
    """A way for the bytes of a file."""

    HTTP = "http"
    XET = "xet"


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
    """

    kind: Kind | None = None
    variant: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of a model that is loaded by itself.

    Attributes:
        name: the name in `model_index.json`, the path of the module in `modules.json`, or `model`;
            the files that belong to no part stand under `config`.
        library: the package that its class comes from, where the repository says so.
        class_name: the class, where the repository says so.
        paths: all its files that are fetched, weights included, sorted.
        weights: those of `paths` that hold weights.
    """

    name: str
    library: str | None = None
    class_name: str | None = None
    paths: tuple[str, ...]
    weights: tuple[str, ...] = ()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPolicy:
    """How hard the worker tries.

    Attributes:
        max_retries: attempts in a row that may bring nothing, for each file or call.
        retry_delay_min_s, retry_delay_max_s: bounds of the exponential wait between attempts.
        timeout_s: the longest that a file may make no progress over all its attempts.
        large_file_timeout_s: the same for files over 10 GB.
        stall_timeout_s: a connection that brings nothing for so long is given up.
        min_speed: bytes per second; so is one that is slower over that time.
        max_workers: files that are downloaded at the same time.
        answer_timeout_s: the longest that the Hub may take for its first answer.
        route: the only way to take; None for the faster of those that are there.
        check_disk_space: whether to stop early once the rest does not fit on the disk.
    """

    max_retries: int = 5
    retry_delay_min_s: float = 5.0
    retry_delay_max_s: float = 60.0
    timeout_s: float = 300.0
    large_file_timeout_s: float = 1800.0
    stall_timeout_s: float = 30.0
    min_speed: float = 10_000.0
    max_workers: int = 4
    answer_timeout_s: float = 5.0
    route: Route | None = None
    check_disk_space: bool = True

    def quiet_limit_s(self, size: int) -> float:
        """Give the longest that a file of `size` bytes may make no progress."""
        return self.large_file_timeout_s if size >= LARGE_FILE_BYTES else self.timeout_s


class CheckStatus(StrEnum):
    """What a check found."""

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: short and stable, such as `disk`.
        message: what was found, one line, with the figures.
        hint: what to do about it; empty where nothing is to be done.
        reference: of the error that a failure is, such as `disk-full`; empty if there is none.
    """

    name: str
    status: CheckStatus
    message: str
    hint: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage begins; the one before it is over."""

    stage: Stage
    type: Literal["stage-started"] = "stage-started"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFacts:
    """What the worker found out about the Hub and the access to the repository.

    Attributes:
        endpoint: the address of the Hub.
        cache_dir: the folder of the Hub's cache.
        answer_s: seconds until the first answer; None if the plan was made from the cache alone.
        token_sent: whether the calls carry a token.
        token_refused: whether the Hub refused the token, and the calls go on without it.
    """

    endpoint: str
    cache_dir: str
    answer_s: float | None = None
    private: bool = False
    gated: bool = False
    token_sent: bool = False
    token_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The files are known.

    Attributes:
        cached: paths of the plan that the cache holds already, complete.
        partial: bytes that an earlier download left of the others, by path.
    """

    plan: Plan
    cached: tuple[str, ...] = ()
    partial: Mapping[str, int] = field(default_factory=dict)
    hub: HubFacts | None = None
    type: Literal["planned"] = "planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The checks were made; the download begins only if none has failed, or if it is forced."""

    results: tuple[CheckResult, ...]
    type: Literal["checked"] = "checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProgress:
    """Bytes of a file that have arrived so far. May fall when an attempt starts over."""

    path: str
    completed: int
    type: Literal["file-progress"] = "file-progress"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDone:
    """A file is in the cache and its hash was right."""

    path: str
    type: Literal["file-done"] = "file-done"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentDownloaded:
    """All files of a component are in the cache."""

    name: str
    type: Literal["component-downloaded"] = "component-downloaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """An attempt failed, and another follows.

    Attributes:
        time: when the attempt failed.
        path: the file, or None for a call that is about no file.
        reason: what went wrong, one line.
        wait_s: how long until the next attempt.
        attempt: how many attempts in a row have brought nothing, this one included; 0 if it
            brought bytes, and so does not count.
        max_attempts: how many in a row may.
        route: the way that the next attempt takes, where it is about a file.
    """

    time: float
    path: str | None
    reason: str
    wait_s: float
    attempt: int
    max_attempts: int
    route: Route | None = None
    type: Literal["retry"] = "retry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that the user should know, and that stops nothing."""

    reference: str
    message: str
    hint: str
    type: Literal["notice"] = "notice"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentLoaded:
    """A component is in memory."""

    name: str
    seconds: float
    type: Literal["component-loaded"] = "component-loaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The work is done.

    Attributes:
        summary: what came of it, one line: class, device, dtype; or the folder.
    """

    summary: str
    type: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The work ended with an error of `errors`, or by an interrupt (reference `interrupted`)."""

    reference: str
    message: str
    hint: str
    type: Literal["failed"] = "failed"


Event = (
    StageStarted
    | Planned
    | Checked
    | FileProgress
    | FileDone
    | ComponentDownloaded
    | Retry
    | Notice
    | ComponentLoaded
    | Ready
    | Failed
)
"""Everything that can happen; what `on_event` is called with."""
