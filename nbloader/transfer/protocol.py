"""What the parent and the worker say to each other: one JSON object a line.

The parent sends `Start`, then `Fetch` or `Sketch`. The worker answers with `Hello`, `Alive` every
second, the events of `records`, perhaps `Stuck`, and at the end `Finished` or `Stopped`. A line
that is no message of the right direction is an error, not something to pass over: both ends come
from the same installation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from nbloader.errors import NbloaderError, ProtocolError
from nbloader.records import (
    Companion,
    FileDone,
    FileProgress,
    Notice,
    RepoType,
    Retry,
    Route,
    Selected,
    SelectionRequest,
    Silence,
    StageStarted,
    TransferPolicy,
)

if TYPE_CHECKING:
    from nbloader.request import Request

_T = TypeVar("_T")

__all__ = [
    "PROTOCOL_VERSION",
    "Alive",
    "Command",
    "Fetch",
    "Finished",
    "Hello",
    "Report",
    "Sketch",
    "Start",
    "Stuck",
    "Tried",
    "decode_command",
    "encode",
    "start_of",
    "stopped",
]

PROTOCOL_VERSION = 9

"""A selection of 100,000 files takes about 20 MB; a longer line is a fault, not a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """How far an earlier worker came with a file, so that the next one does not begin anew.

    Attributes:
        route: the way of the next attempt.
        fruitless: attempts in a row that brought nothing.
        wrong: how often the whole file had the wrong bytes.
    """

    path: str
    route: Route
    fruitless: int = 0
    wrong: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Look at a repository and make the selection.

    Attributes:
        token: a token, None for the one that is stored on this machine, False for none at all.
        verify: hash what the cache holds already, too.
        folder: the folder to look at in place of a repository; see `Listing`.
        loads: whether a model will be built of the files, so that what pickles hold matters.
        commit_hash: the commit to go on with, where an earlier worker has found it.
        companions: the other repositories of the selection, so far as it has found them.
        tried: what an earlier worker learned about files.
        local_dir: a folder of the user's own for the files; None for the Hub's cache.
        donors: folders of blobs, of which files are taken that are wanted here, too.
    """

    repo_id: str
    revision: str
    request: SelectionRequest
    policy: TransferPolicy
    token: str | bool | None = field(default=None, repr=False)
    local_files_only: bool = False
    verify: bool = False
    folder: str | None = None
    loads: bool = True
    commit_hash: str | None = None
    companions: tuple[Companion, ...] = ()
    tried: tuple[Tried, ...] = ()
    repo_type: RepoType = RepoType.MODEL
    local_dir: str | None = None
    donors: tuple[str, ...] = ()
    version: int = PROTOCOL_VERSION
    type: Literal["start"] = "start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Download what the selection names and the cache lacks.

    Attributes:
        sketch: a folder of the parent's own in which a copy appears, once the small files are
            there, with the weights as `Sketch` writes them; None for none.
        passing: paths of weights that the parent reads and removes as soon as they are there, so
            that they need not have room all at once. The sketch is there before the first of them.
        taken: those of them that the parent has read already, which nobody needs again.
    """

    sketch: str | None = None
    passing: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    type: Literal["fetch"] = "fetch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """Write the files of the selection into a folder, those of weights without what is in them.

    Attributes:
        folder: it is there, empty, and the parent's own.
    """

    folder: str
    type: Literal["sketch"] = "sketch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The worker is there."""

    version: int
    type: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """The worker is alive; sent every second.

    Attributes:
        busy: whether something moves that is not told: a file is hashed, or another process that
            downloads the same file is waited for.
    """

    busy: bool = False
    type: Literal["alive"] = "alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """The fetch of a file hangs, and only the end of the worker ends it.

    Attributes:
        route: the one that it hangs on.
    """

    path: str
    route: Route
    type: Literal["stuck"] = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """All files are in the cache, or the sketch is written.

    Attributes:
        folder: the snapshot folder, or that of the sketch.
    """

    folder: str
    type: Literal["finished"] = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The worker gave up, with an error of `errors`."""

    reference: str
    message: str
    hint: str
    type: Literal["stopped"] = "stopped"


Command = Start | Fetch | Sketch
Report = (
    Hello
    | Alive
    | StageStarted
    | Selected
    | FileProgress
    | FileDone
    | Silence
    | Retry
    | Notice
    | Stuck
    | Finished
    | Stopped
)

_COMMANDS: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])
_REPORTS: TypeAdapter[Report] = TypeAdapter(Annotated[Report, Field(discriminator="type")])


def start_of(
    request: Request,
    policy: TransferPolicy,
    *,
    loads: bool = True,
    commit_hash: str | None = None,
    companions: tuple[Companion, ...] = (),
    donors: Sequence[str] = (),
) -> Start:
    """Return the question of a request; the arguments are those of `Start`."""
    return Start(
        repo_id=request.repo_id,
        repo_type=request.repo_type,
        local_dir=request.local_dir,
        revision=request.revision,
        request=request.selection,
        policy=policy,
        token=request.token,
        local_files_only=request.local_files_only,
        verify=request.verify,
        folder=request.folder,
        loads=loads,
        commit_hash=commit_hash,
        companions=companions,
        donors=tuple(donors),
    )


def stopped(error: NbloaderError) -> Stopped:
    """Return the report of an error. What no text can hold in it, such as half a character, is
    escaped: the end of a worker must not fail."""
    reference, message, hint = (
        text.encode("utf-8", "backslashreplace").decode("utf-8")
        for text in (error.reference, error.message, error.hint)
    )
    return Stopped(reference=reference, message=message, hint=hint)


def encode(message: Command | Report) -> bytes:
    """Write a message as one line, with its line break.

    Raises:
        ProtocolError: a name in it is no text that can be written.
    """
    adapter: TypeAdapter[Command] | TypeAdapter[Report] = (
        _COMMANDS if isinstance(message, Command) else _REPORTS
    )
    try:
        return adapter.dump_json(message) + b"\n"  # type: ignore[arg-type]
    except (PydanticSerializationError, UnicodeError):
        # The text itself stays out of the error: a command holds the token.
        raise ProtocolError(
            f"a name in the message {message.type!r} is not text that can be written in UTF-8",
            hint="Check the arguments of the call. If they are plain text, the name comes from a "
            "file of the repository: tell its author.",
        ) from None


def decode_command(line: bytes) -> Command:
    """Read a line of the parent. Raises ProtocolError."""
    return _decode(_COMMANDS, line)


def decode_report(line: bytes) -> Report:
    """Read a line of the worker. Raises ProtocolError."""
    return _decode(_REPORTS, line)


def _decode(adapter: TypeAdapter[_T], line: bytes) -> _T:
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        # The line itself stays out of the text: a command holds the token.
        kinds = sorted({finding["type"] for finding in error.errors(include_url=False)})
        raise ProtocolError(
            f"a line between nbloader and its worker is not a message ({', '.join(kinds)[:200]})",
            hint="Restart the kernel: the installed version may have changed under it.",
        ) from None
