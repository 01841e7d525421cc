"""What the checks look at, and what they can say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nbloader.errors import NbloaderError
from nbloader.records import (
    SPARE_DISK_BYTES,
    AdapterFacts,
    AttentionFacts,
    CheckResult,
    CheckStatus,
    ClassFacts,
    ComponentWeights,
    DiskFacts,
    Fit,
    HubFacts,
    LoadedModel,
    MachineFacts,
    PackageFacts,
    PickleFacts,
    RepoType,
    Selection,
    TokenFacts,
    UnmetRequirement,
)
from nbloader.wording import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the checks look at; a part that is not known is None.

    Attributes:
        folder: the folder of this machine that is loaded; None for a repository.
        is_path: whether that was given as a path, so that no repository can be meant.
        loads: whether a model will be built, so that packages, memory and safety matter.
        problem: the error that ended the worker before there was a selection.
        pickles: what the files of pickled weights hold that could be looked through.
        adapters: whether what is put into the model fits it.
        cached: paths of the selection that the cache holds already.
        partial: bytes that an earlier download left of others, by path.
        copied: others again whose content is elsewhere on this machine, by path; each with the
            bytes that it takes of the disk once it is at its place.
        passing: paths of weights that can go once they are loaded.
        passes: whether they do.
        stays: why none can, as a clause; empty if some can.
        disk: of the cache.
        bigger_disks: others with more room, best first.
        packages: those that the selection needs, by the name of their import.
        classes: those that the selection names, as the installed libraries have them.
        unmet: requirements of installed packages that are not met.
        fit_without_loaded: what it would be if the models of `loaded` were freed; None if none of
            them is on a GPU.
        loaded: the models that this process has loaded before, the largest first.
        places_itself: whether the caller's own arguments settle where the model goes.
        attention: the way to compute attention that the caller asks for; None for the library's own
            choice.
        asked: libraries, each with a method that the caller asks it to quantize with.
        handed_in: names that the caller passes on to the library.
        named: the components that the caller names.
        allow_pickle: whether weights that can run code may be loaded.
        safe_globals: names that the caller has added to what torch's restricted unpickler allows.
        required_disk_bytes: free space to ask for; None for the exact missing bytes.
        reader: where the hints are read.
    """

    repo_id: str
    repo_type: RepoType = RepoType.MODEL
    folder: str | None = None
    is_path: bool = False
    loads: bool = True
    hub: HubFacts | None = None
    token: TokenFacts = field(default_factory=TokenFacts)
    selection: Selection | None = None
    weights: tuple[ComponentWeights, ...] = ()
    pickles: tuple[PickleFacts, ...] = ()
    adapters: tuple[AdapterFacts, ...] = ()
    cached: frozenset[str] = frozenset()
    partial: Mapping[str, int] = field(default_factory=dict)
    copied: Mapping[str, int] = field(default_factory=dict)
    problem: NbloaderError | None = None
    passing: frozenset[str] = frozenset()
    passes: bool = False
    stays: str = ""
    disk: DiskFacts | None = None
    bigger_disks: tuple[DiskFacts, ...] = ()
    packages: Mapping[str, PackageFacts] = field(default_factory=dict)
    classes: tuple[ClassFacts, ...] = ()
    unmet: tuple[UnmetRequirement, ...] = ()
    machine: MachineFacts | None = None
    fit: Fit | None = None
    fit_without_loaded: Fit | None = None
    loaded: tuple[LoadedModel, ...] = ()
    places_itself: bool = False
    attention: AttentionFacts | None = None
    asked: tuple[tuple[str, str], ...] = ()
    handed_in: frozenset[str] = frozenset()
    named: tuple[str, ...] = ()
    allow_pickle: bool = False
    safe_globals: frozenset[str] = frozenset()
    check_network: bool = True
    check_disk_space: bool = True
    required_disk_bytes: int | None = None
    reader: Reader = Reader.CELL

    @property
    def in_notebook(self) -> bool:
        """Whether hints are for a cell, and not for a terminal."""
        return self.reader is Reader.CELL

    @property
    def missing_bytes(self) -> int:
        """Bytes that have to be downloaded; two files of one content come once."""
        missing = {
            file.etag or file.path: file.size - self.partial.get(file.path, 0)
            for file in (self.selection.files if self.selection else ())
            if file.path not in self.cached and file.path not in self.copied
        }
        return sum(missing.values())

    @property
    def room_bytes(self) -> int:
        """Bytes that the disk of the files will have less: what is downloaded, or copied there."""
        return self.missing_bytes + sum(self.copied.values())

    @property
    def required_bytes(self) -> int:
        """Free space that the disk has to have."""
        if self.passes and self.passing:
            return self.passing_room_bytes
        if not self.room_bytes or self.required_disk_bytes is None:
            return self.room_bytes
        return self.required_disk_bytes

    @property
    def passing_room_bytes(self) -> int:
        """Free space that is needed at a time where weights go once they are loaded.

        What stays has to have room, and the largest of what goes, with a little to spare. What is
        there of what goes is gone first.
        """
        room = {
            file.path: file.size - self.partial.get(file.path, 0)
            for file in (self.selection.files if self.selection else ())
            if file.path not in self.cached and file.path not in self.copied
        }
        stays = sum(size for path, size in room.items() if path not in self.passing)
        largest = max(
            (size + SPARE_DISK_BYTES for path, size in room.items() if path in self.passing),
            default=0,
        )
        there = sum(
            file.size
            for file in (self.selection.files if self.selection else ())
            if file.path in self.passing and file.path in self.cached
        )
        return max(0, stays + sum(self.copied.values()) + largest - there)


# -- what a check can say --------------------------------------------------------------------------

MAX_NAMES = 5


def passed(name: str, message: str) -> CheckResult:
    """Make the result of a check that found nothing wrong."""
    return CheckResult(name=name, status=CheckStatus.PASSED, message=message)


def skipped(name: str, cause: str) -> CheckResult:
    """Make the result of a check that was not made.

    Args:
        cause: as a clause.
    """
    return CheckResult(name=name, status=CheckStatus.SKIPPED, message=cause)


def warned(
    name: str, message: str, *, hint: str, reference: str = "", link: str = ""
) -> CheckResult:
    """Make the result of a check that found something the user should know."""
    return CheckResult(
        name=name,
        status=CheckStatus.WARNING,
        message=message,
        hint=hint,
        reference=reference,
        link=link,
    )


def failed(
    name: str,
    error: type[NbloaderError],
    message: str,
    *,
    hint: str,
    link: str = "",
    forceable: bool = False,
) -> CheckResult:
    """Make the result of a check that stops the load with an error of this kind.

    Args:
        forceable: whether `force=True` goes on all the same. What reckons may be wrong; what
            protects has an argument of its own; and where the load could not take its next step,
            there is nothing to go on with.
    """
    return CheckResult(
        name=name,
        status=CheckStatus.FAILED,
        message=message,
        hint=hint,
        reference=error.reference,
        link=link,
        forceable=forceable,
    )


def failed_with(
    name: str, error: NbloaderError, *, link: str = "", forceable: bool = False
) -> CheckResult:
    """Make the result of a check that found this error."""
    return failed(name, type(error), error.message, hint=error.hint, link=link, forceable=forceable)


def named(names: Sequence[str]) -> str:
    """Name the first few, and count the rest."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
