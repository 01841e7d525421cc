"""What happens: published by the worker, the loaders and the job, folded by `state`.

What the checks find stands here, too: it is published as an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from nbloader.records.facts import AdapterFacts, HubFacts, PickleFacts
from nbloader.records.fit import ComponentWeights, Fit
from nbloader.records.repo import Route, Selection


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
        reference: of the error that a failure is, such as `not-enough-disk`; empty if none.
        link: a page where it can be mended or read about; empty if there is none.
        forceable: of a failure, whether `force=True` goes on despite it.
    """

    name: str
    status: CheckStatus
    message: str
    hint: str = ""
    reference: str = ""
    link: str = ""
    forceable: bool = False


class Stage(StrEnum):
    """The stages of a load, in their order. Not every load has every stage."""

    CONNECT = "connect"
    SET_UP = "set up"
    DOWNLOAD = "download"
    INITIALISE = "initialise"
    SELF_TEST = "self-test"
    TEST_EMBEDDINGS = "test embeddings"
    FINISH = "finish"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage begins; the one before it is over."""

    stage: Stage
    type: Literal["stage-started"] = "stage-started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """The files are known.

    Attributes:
        cached: paths of the selection that the cache holds already, complete.
        partial: bytes that an earlier download left of the others, by path.
        copied: others again whose content is elsewhere on this machine, by path; each with the
            bytes that it takes of the disk once it is at its place.
        weights: what the tensors of each component with weights take.
        pickles: what the files of pickled weights hold that could be looked through.
        adapters: whether they fit, in the order of the selection.
        folder: where the files of the selection's own repository will be, as an absolute path.
    """

    selection: Selection
    cached: tuple[str, ...] = ()
    partial: Mapping[str, int] = field(default_factory=dict)
    copied: Mapping[str, int] = field(default_factory=dict)
    weights: tuple[ComponentWeights, ...] = ()
    pickles: tuple[PickleFacts, ...] = ()
    adapters: tuple[AdapterFacts, ...] = ()
    hub: HubFacts | None = None
    folder: str = ""
    type: Literal["selected"] = "selected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The checks were made; the download begins only if none has failed, or if it is forced."""

    results: tuple[CheckResult, ...]
    fit: Fit | None = None
    type: Literal["checked"] = "checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class LibrariesImported:
    """All that the model needs is imported; it was done beside the download.

    Attributes:
        seconds: how long ago it began.
    """

    seconds: float
    type: Literal["libraries-imported"] = "libraries-imported"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProgress:
    """Bytes of a file that have arrived so far. May fall when an attempt starts over.

    Attributes:
        at: when, in seconds of the monotonic clock, which all processes of a machine share; None
            for now.
    """

    path: str
    completed: int
    at: float | None = field(default=None, compare=False)
    type: Literal["file-progress"] = "file-progress"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDone:
    """A file is in the cache and its hash was right."""

    path: str
    type: Literal["file-done"] = "file-done"


NO_BYTES, WITH_ANOTHER = "no bytes came", "ended together with another that stalled"
ASKING_AGAIN = f"{NO_BYTES}; asking again"

SILENT = frozenset({NO_BYTES, WITH_ANOTHER, ASKING_AGAIN})
"""Reasons of a `Retry` that mean: nothing was refused, the bytes stayed away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """No byte has come for a while; somebody is asked for them again if none comes.

    Attributes:
        path: the file whose bytes are asked for again first.
        asked_again_in_s: how long until then, at most.
        at: as in `FileProgress`.
    """

    path: str
    asked_again_in_s: float
    at: float | None = field(default=None, compare=False)
    type: Literal["silence"] = "silence"


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
        failed_route: the way that the one that failed took.
    """

    time: float
    path: str | None
    reason: str
    wait_s: float
    attempt: int
    max_attempts: int
    route: Route | None = None
    failed_route: Route | None = None
    type: Literal["retry"] = "retry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that the user should know, and that stops nothing.

    Attributes:
        quiet: whether only reports tell it: nothing is to be done, and nothing is lost.
    """

    reference: str
    message: str
    hint: str
    quiet: bool = False
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
    """The work ended with an error of `errors`, or by an interrupt (reference `interrupted`).

    Attributes:
        forceable: whether with `force=True` it would not have ended so.
    """

    reference: str
    message: str
    hint: str
    forceable: bool = False
    type: Literal["failed"] = "failed"


Event = (
    StageStarted
    | Selected
    | Checked
    | LibrariesImported
    | FileProgress
    | FileDone
    | Silence
    | Retry
    | Notice
    | ComponentLoaded
    | Ready
    | Failed
)
"""Everything that can happen; what `on_event` is called with."""
