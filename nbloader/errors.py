"""The errors that nbloader raises.

Every error has a `reference` (kebab-case, stable, to search for), a `message` (what happened) and
a `hint` (what to do, in words that can be pasted). All three stand in `str(error)`. A notebook
shows them as a short card, headed by the first line of the documentation of the error's class, and
the whole traceback with `%tb`.

    NbloaderError
    ├── InputError                    the call itself cannot work
    │   ├── InvalidRepoIdError
    │   ├── InvalidArgumentError
    │   └── InvalidSettingError
    ├── RepoError                     the repository, or the access to it
    │   ├── RepoNotFoundError
    │   ├── RevisionNotFoundError
    │   ├── GatedRepoError
    │   ├── InvalidTokenError
    │   ├── UnsupportedRepoError
    │   ├── NoWeightsError
    │   ├── VariantNotFoundError
    │   ├── MalformedFileError
    │   ├── MissingComponentError
    │   └── UnsafePathError
    ├── PreflightError                a check failed before the first weight
    │   ├── DiskSpaceError
    │   ├── DoesNotFitError
    │   └── PickledWeightsError
    ├── TransferError                 the way from the Hub to the disk
    │   ├── HubUnreachableError
    │   ├── RateLimitedError
    │   ├── DownloadError
    │   ├── IntegrityError
    │   ├── DiskFullError
    │   ├── CacheNotWritableError
    │   ├── NotCachedError
    │   ├── ProtocolError
    │   └── WorkerDiedError
    ├── LoadError                     from the disk to a working model
    │   ├── MissingPackageError
    │   ├── UnsupportedClassError
    │   ├── ConflictingPackagesError
    │   ├── RestartNeededError
    │   ├── ModelLoadError
    │   │   └── MissingTensorsError
    │   └── SelfTestError
    └── CancelledError                the job was cancelled
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from nbloader.card import render
from nbloader.quoting import printable

__all__ = [
    "RUN_AGAIN",
    "CacheNotWritableError",
    "CancelledError",
    "ConflictingPackagesError",
    "DiskFullError",
    "DiskSpaceError",
    "DoesNotFitError",
    "DownloadError",
    "GatedRepoError",
    "HubUnreachableError",
    "InputError",
    "IntegrityError",
    "Interrupted",
    "InvalidArgumentError",
    "InvalidRepoIdError",
    "InvalidSettingError",
    "InvalidTokenError",
    "LoadError",
    "MalformedFileError",
    "MissingComponentError",
    "MissingPackageError",
    "MissingTensorsError",
    "ModelLoadError",
    "NbloaderError",
    "NoWeightsError",
    "NotCachedError",
    "PickledWeightsError",
    "PreflightError",
    "ProtocolError",
    "RateLimitedError",
    "RepoError",
    "RepoNotFoundError",
    "RestartNeededError",
    "RevisionNotFoundError",
    "SelfTestError",
    "TransferError",
    "UnsafePathError",
    "UnsupportedClassError",
    "UnsupportedRepoError",
    "VariantNotFoundError",
    "WaitInterrupted",
    "WorkerDiedError",
    "error_from_parts",
]


RUN_AGAIN = "Run the line again: what has arrived is kept."
"""The hint where nothing is wrong but the moment."""


class NbloaderError(Exception):
    """What was asked for could not be done.

    It is the base of all errors that nbloader raises on purpose.

    Attributes:
        reference: stable kebab-case name of the kind of error.
        message: what happened, one or a few plain sentences.
        hint: what to do about it; may hold lines to paste. Never a token.
    """

    reference: ClassVar[str] = "nbloader-error"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{printable(self.message)}\n  Hint: {printable(self.hint)}\n  [{self.reference}]"

    def _render_traceback_(self) -> list[str]:
        """Tell IPython what to show: a card for the cell that failed, all of it for `%tb`."""
        return render(self, message=self.message, hint=self.hint, reference=self.reference)

    def __reduce__(self) -> tuple[object, ...]:
        return error_from_parts, (self.reference, self.message, self.hint)


class InputError(NbloaderError, ValueError):
    """The call cannot work as it was written."""

    reference = "invalid-input"


class InvalidRepoIdError(InputError):
    """The value is no repository id of the Hub."""

    reference = "invalid-repo-id"


class InvalidArgumentError(InputError):
    """An argument has a value that cannot be used."""

    reference = "invalid-argument"


class InvalidSettingError(InputError):
    """A setting is unknown or has a bad value, or the file of settings cannot be read."""

    reference = "invalid-setting"


class RepoError(NbloaderError):
    """The repository, or the access to it, does not allow the load."""

    reference = "repo-error"


class RepoNotFoundError(RepoError):
    """The repository does not exist, is private, or is not available."""

    reference = "repo-not-found"


class RevisionNotFoundError(RepoError):
    """The repository has no such branch, tag or commit."""

    reference = "revision-not-found"


class GatedRepoError(RepoError):
    """The repository is gated, and access to it is not granted."""

    reference = "gated-repo"


class InvalidTokenError(RepoError):
    """The Hub does not accept the token, or not for this repository."""

    reference = "invalid-token"


class UnsupportedRepoError(RepoError):
    """The repository cannot be loaded, or not in the way that was asked for."""

    reference = "unsupported-repo"


class NoWeightsError(RepoError):
    """The repository, or a part of it that is needed, has no weights that can be loaded."""

    reference = "no-weights"


class VariantNotFoundError(RepoError):
    """The repository has no weights of the variant that was asked for."""

    reference = "variant-not-found"


class MalformedFileError(RepoError):
    """A file that decides the plan is wrong or cannot be read."""

    reference = "malformed-file"


class MissingComponentError(RepoError):
    """The repository lacks a part that the class of its pipeline cannot do without."""

    reference = "missing-component"


class UnsafePathError(RepoError):
    """A file name of the repository is not safe to write."""

    reference = "unsafe-path"


class PreflightError(NbloaderError):
    """At least one check failed before the first weight was fetched."""

    reference = "preflight-failed"


class DiskSpaceError(PreflightError):
    """The disk of the cache has less free space than is required."""

    reference = "not-enough-disk"


class DoesNotFitError(PreflightError):
    """The model cannot be placed on this machine in any way that is allowed."""

    reference = "does-not-fit"


class PickledWeightsError(PreflightError):
    """The weights are in a format that can run code when it is loaded."""

    reference = "pickled-weights"


class TransferError(NbloaderError):
    """The files could not be brought to the disk."""

    reference = "transfer-error"


class HubUnreachableError(TransferError):
    """The Hub does not answer, or not like a Hub."""

    reference = "hub-unreachable"


class RateLimitedError(TransferError):
    """The Hub answers no more requests for a while."""

    reference = "rate-limited"


class DownloadError(TransferError):
    """A part of the repository could not be downloaded."""

    reference = "download-failed"


class IntegrityError(TransferError):
    """A file has the wrong bytes."""

    reference = "wrong-bytes"


class DiskFullError(TransferError):
    """The disk of the cache has no room for what is still to come."""

    reference = "disk-full"


class CacheNotWritableError(TransferError):
    """The cache folder cannot be used."""

    reference = "cache-not-writable"


class NotCachedError(TransferError):
    """What was asked for is not in the cache, or not all of it."""

    reference = "not-cached"


class ProtocolError(TransferError):
    """The worker process and this one do not understand each other."""

    reference = "worker-protocol"


class WorkerDiedError(TransferError):
    """The worker process ended before its work was done.

    Attributes:
        by_signal: whether a signal ended it, as it does where memory runs out.
    """

    reference = "worker-died"
    by_signal = False


class LoadError(NbloaderError):
    """No working model came of the files."""

    reference = "load-error"


class MissingPackageError(LoadError, ImportError):
    """A package that is needed is not installed."""

    reference = "missing-package"


class UnsupportedClassError(LoadError):
    """The installed library does not have the class that the model needs."""

    reference = "unsupported-class"


class ConflictingPackagesError(LoadError):
    """Installed packages that the model needs do not work together."""

    reference = "conflicting-packages"


class RestartNeededError(LoadError):
    """A package was changed after this process had imported it."""

    reference = "restart-needed"


class ModelLoadError(LoadError):
    """The model could not be built from its files."""

    reference = "model-load-failed"


class MissingTensorsError(ModelLoadError):
    """The files lack tensors that the model needs, or have them in another shape."""

    reference = "missing-tensors"


class SelfTestError(LoadError):
    """The model was built, but does not work."""

    reference = "self-test-failed"


class CancelledError(NbloaderError):
    """The job was cancelled before it had a result."""

    reference = "cancelled"


class Interrupted(KeyboardInterrupt):
    """The call was stopped, and what it had started was ended."""

    def _render_traceback_(self) -> list[str]:
        """Tell IPython to show no traceback: there is nothing wrong."""
        return ["KeyboardInterrupt: stopped; run the line again to go on"]


class WaitInterrupted(KeyboardInterrupt):
    """The waiting for a job was stopped; the job goes on."""

    def _render_traceback_(self) -> list[str]:
        """Tell IPython to show no traceback: there is nothing wrong."""
        return ["KeyboardInterrupt: stopped waiting; the job goes on (job.cancel() ends it)"]


def _tree(root: type[NbloaderError]) -> Iterator[type[NbloaderError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def error_from_parts(reference: str, message: str, hint: str) -> NbloaderError:
    """Build the error that `reference` names, as it arrives from another process.

    An unknown reference gives a plain `NbloaderError`, so that nothing is lost.
    """
    for kind in _tree(NbloaderError):
        if kind.reference == reference:
            return kind(message, hint=hint)
    return NbloaderError(message, hint=hint)
