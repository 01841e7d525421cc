"""The errors that nbloader raises.

Every error has a `reference` (kebab-case, stable, to search for), a `message` (what happened) and
a `hint` (what to do, in words that can be pasted). All three stand in `str(error)`. A notebook
shows them as a short card, headed by the first line of the documentation of the error's class, and
the whole traceback with `%tb`. The documentation goes on with the usual cause and its cure.

    NbloaderError
    ├── InputError      the call itself cannot work: InvalidRepoId, InvalidArgument, InvalidSetting
    ├── RepoError       the repository, or the access to it: RepoNotFound, RevisionNotFound,
    │                   GatedRepo, InvalidToken, UnsupportedRepo, NoWeights, VariantNotFound,
    │                   MalformedFile, MissingComponent, UnsafePath
    ├── PreflightError  a check failed before any weight: DiskSpace, DoesNotFit, PickledWeights
    ├── TransferError   the way from the Hub to the disk: HubUnreachable, RateLimited, Download,
    │                   Integrity, DiskFull, CacheNotWritable, NotCached, Protocol, WorkerDied
    ├── LoadError       from the disk to a working model: MissingPackage, UnsupportedClass,
    │                   ConflictingPackages, RestartNeeded, ModelLoad (MissingTensors), SelfTest
    └── CancelledError  the job was cancelled
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from nbloader.notebook import Stop, render_error
from nbloader.text import printable
from nbloader.wording import Reader, reader_here, worded

__all__ = [
    "BY_FORCE",
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
    "ProxyError",
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
    "UntrustedCertificateError",
    "VariantNotFoundError",
    "WaitInterrupted",
    "WorkerDiedError",
    "error_from_parts",
]

RUN_AGAIN = "Run the line again: what has arrived is kept."
"""The hint where nothing is wrong but the moment."""

BY_FORCE = "With `force=True` the load goes on; what is missing is then random."
"""Stands in the hint of an error of missing tensors where the library can fill them."""


class NbloaderError(Exception):
    """What was asked for could not be done. All errors of nbloader are of this kind.

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

    def told(self, reader: Reader) -> str:
        """Return all three in the words of its reader, as `str` does in those of who reads it here.

        `message` and `hint` themselves are as they read in Python.
        """
        message, hint = (worded(printable(text), reader) for text in (self.message, self.hint))
        return f"{message}\n  Hint: {hint}\n  [{self.reference}]"

    def __str__(self) -> str:
        return self.told(reader_here())

    def _render_traceback_(self) -> list[str]:
        """Tell IPython what to show: a card for the cell that failed, all of it for `%tb`."""
        message, hint = (worded(text, reader_here()) for text in (self.message, self.hint))
        return render_error(self, message=message, hint=hint, reference=self.reference)

    def __reduce__(self) -> tuple[object, ...]:
        return error_from_parts, (self.reference, self.message, self.hint)


class InputError(NbloaderError, ValueError):
    """The call cannot work as it was written."""

    reference = "invalid-input"


class InvalidRepoIdError(InputError):
    """The value is not a repository id of the Hub.

    Cause: A file, a folder that is not there, a dataset, another host's page, or a misspelt id.
    Cure: Pass `org/name` as it stands at the head of the model's page, or the path of a folder.
    """

    reference = "invalid-repo-id"


class InvalidArgumentError(InputError):
    """An argument has a value that cannot be used.

    Cause: A value is of the wrong type or out of range, or two arguments contradict each other.
    Cure: The message names the argument and what it takes.
    """

    reference = "invalid-argument"


class InvalidSettingError(InputError):
    """A setting is unknown or has a bad value, or the file of settings cannot be read.

    Cause: A key is misspelt, a value is out of its bounds, or a file of settings is no YAML.
    Cure: Mend the place that the message names; see the page of settings for the keys.
    """

    reference = "invalid-setting"


class RepoError(NbloaderError):
    """The repository, or the access to it, does not allow the load."""

    reference = "repo-error"


class RepoNotFoundError(RepoError):
    """The repository does not exist, is private, or is not available.

    Cause: The id is misspelt, or the token (or no token) may not see a private repository.
    Cure: Check the id; pass a token that may read the repository.
    """

    reference = "repo-not-found"


class RevisionNotFoundError(RepoError):
    """The repository has no such branch, tag or commit.

    Cause: The branch or tag was misspelt or deleted.
    Cure: Leave `revision=` out for `main`, or take one of those that the repository's page lists.
    """

    reference = "revision-not-found"


class GatedRepoError(RepoError):
    """The repository is gated, and access to it is not granted.

    Cause: Its author lets people in who have agreed to conditions, or one by one.
    Cure: Agree on its page with the account of the token, wait if you must, and run the line again.
    """

    reference = "gated-repo"


class InvalidTokenError(RepoError):
    """The Hub does not accept the token, or not for this repository.

    Cause: The token was revoked, is cut off, or lacks the right to read this repository.
    Cure: Make one with the right to read, and log in anew; `token=False` does without.
    """

    reference = "invalid-token"


class UnsupportedRepoError(RepoError):
    """The repository cannot be loaded, or not in the way that was asked for.

    Cause: It holds a LoRA, ONNX or another thing, is of another `kind`, or an adapter misfits it.
    Cure: The hint has the line that loads it, or asks for `trust_remote_code=True`.
    """

    reference = "unsupported-repo"


class NoWeightsError(RepoError):
    """The repository, or a part of it that is needed, has no weights that can be loaded.

    Cause: The weights lie elsewhere, in another format, or were never uploaded.
    Cure: Take another revision or repository; the message names the folders that were looked in.
    """

    reference = "no-weights"


class VariantNotFoundError(RepoError):
    """The repository has no weights of the variant that was asked for.

    Cause: No file of weights has the variant in its name.
    Cure: Leave `variant=` out, or take one of those that the hint lists.
    """

    reference = "variant-not-found"


class MalformedFileError(RepoError):
    """A file that decides the selection is wrong or cannot be read.

    Cause: An upload that was cut off, a file edited by hand, or a header that cannot be right.
    Cure: Take another revision, and tell the author.
    """

    reference = "malformed-file"


class MissingComponentError(RepoError):
    """The repository lacks a part that the class of its pipeline cannot do without.

    Cause: The repository is a part of a pipeline, or its author left the part to the user.
    Cure: Hand the part in: `components={"name": part}`.
    """

    reference = "missing-component"


class UnsafePathError(RepoError):
    """A file name of the repository is not safe to write.

    Cause: A name that leaves its folder, has control characters, or is reserved on some system.
    Cure: Do not use the repository, or ask its author to rename what is only not portable.
    """

    reference = "unsafe-path"


class PreflightError(NbloaderError):
    """At least one check failed before the first weight was fetched."""

    reference = "preflight-failed"


class DiskSpaceError(PreflightError):
    """The disk of the cache has less free space than is required.

    Cause: The missing bytes, or `required_disk_space_gb`, are more than what is free.
    Cure: `nbloader.cache()` shows what can go; `cache_dir=` takes another disk.
    """

    reference = "not-enough-disk"


class DoesNotFitError(PreflightError):
    """The model cannot be placed on this machine in any way that is allowed.

    Cause: No plan fits the GPUs and the memory that are free, or not the plan that was asked for.
    Cure: Free what other kernels hold, leave `plan=` out, or take a larger machine.
    """

    reference = "does-not-fit"


class PickledWeightsError(PreflightError):
    """The weights are in a format that can run code when it is loaded.

    Cause: The files hold more than tensors, or cannot be looked through.
    Cure: Look for safetensors; if you trust the author, `allow_pickle=True` where the hint says so.
    """

    reference = "pickled-weights"


class TransferError(NbloaderError):
    """The files could not be brought to the disk."""

    reference = "transfer-error"


class HubUnreachableError(TransferError):
    """The Hub does not answer, or not like a Hub.

    Cause: There is no network, a proxy stands between, or the endpoint is no Hub.
    Cure: Connect; check `endpoint=` and HF_ENDPOINT. What is in the cache loads without the Hub.
    """

    reference = "hub-unreachable"


class ProxyError(HubUnreachableError):
    """A proxy that is set in the environment does not let requests through.

    Cause: Its address is wrong, it refuses, or it wants a name and a password.
    Cure: Correct the variable that the message names, or unset it; NO_PROXY names exceptions.
    """

    reference = "proxy-failed"


class UntrustedCertificateError(HubUnreachableError):
    """The certificate of a server is not trusted.

    Cause: A proxy of the network opens TLS, and Python does not know its authority.
    Cure: Set SSL_CERT_FILE to a file with the certificate of that authority.
    """

    reference = "certificate-not-trusted"


class RateLimitedError(TransferError):
    """The Hub answers no more requests for a while.

    Cause: Too many requests came from this address or token; hosted machines share theirs.
    Cure: Log in with a token: its limits are its own. Else wait as long as the message says.
    """

    reference = "rate-limited"


class DownloadError(TransferError):
    """A part of the repository could not be downloaded.

    Cause: The link or the server failed in every attempt that was allowed in a row.
    Cure: Run the line again, it goes on from what is there; on a bad link raise `max_retries`.
    """

    reference = "download-failed"


class IntegrityError(TransferError):
    """A file has the wrong bytes.

    Cause: A proxy, a mirror or a disk changed the bytes, in two attempts.
    Cure: Try again later, or from another network; check the disk.
    """

    reference = "wrong-bytes"


class DiskFullError(TransferError):
    """The disk of the cache has no room for what is still to come.

    Cause: Something else filled the disk while the files were coming.
    Cure: Free some space and run the line again: what has arrived is kept.
    """

    reference = "disk-full"


class CacheNotWritableError(TransferError):
    """The cache folder cannot be used.

    Cause: The folder belongs to another user, is read-only, or cannot replace files in one step.
    Cure: Pass a folder of your own as `cache_dir=`, or set HF_HOME.
    """

    reference = "cache-not-writable"


class NotCachedError(TransferError):
    """What was asked for is not in the cache, or not all of it.

    Cause: The network was ruled out, by `local_files_only=True` or HF_HUB_OFFLINE.
    Cure: Run the line once with a network.
    """

    reference = "not-cached"


class ProtocolError(TransferError):
    """The worker process and this one do not understand each other.

    Cause: nbloader was upgraded while this process had the old version imported.
    Cure: Restart the kernel.
    """

    reference = "worker-protocol"


class WorkerDiedError(TransferError):
    """The worker process ended before its work was done.

    Cause: It was killed, as systems do where memory runs out, or native code broke.
    Cure: Run the line again: what has arrived is kept. If memory ran out, free some.

    Attributes:
        by_signal: whether a signal ended it, as it does where memory runs out.
    """

    reference = "worker-died"
    by_signal = False


class LoadError(NbloaderError):
    """No working model came of the files."""

    reference = "load-error"


class MissingPackageError(LoadError, ImportError):
    """A package that is needed is not installed.

    Cause: The library of the model, or a package that a part of it needs, is missing.
    Cure: Run the line of the hint, and restart the kernel.
    """

    reference = "missing-package"


class UnsupportedClassError(LoadError):
    """The installed library does not have the class that the model needs.

    Cause: The model is newer than the library, or the library has dropped the class.
    Cure: Run the line of the hint, and restart the kernel.
    """

    reference = "unsupported-class"


class ConflictingPackagesError(LoadError):
    """Installed packages that the model needs do not work together.

    Cause: An upgrade of one package has left another behind.
    Cure: Run the one line of the hint, which resolves them together, and restart the kernel.
    """

    reference = "conflicting-packages"


class RestartNeededError(LoadError):
    """A package was changed after this process had imported it.

    Cause: An install in a cell changed files under modules that were loaded before.
    Cure: Restart the kernel, and run the line again: what has arrived is kept.
    """

    reference = "restart-needed"


class ModelLoadError(LoadError):
    """The model could not be built from its files.

    Cause: The GPU or the memory is full, or the library does not take these files.
    Cure: Take the plan of the hint, restart the kernel to free what it holds, or upgrade.
    """

    reference = "model-load-failed"


class MissingTensorsError(ModelLoadError):
    """The files lack tensors that the model needs, or have them in another shape.

    Cause: The files are of another model, of a part, or of another version of the library.
    Cure: Take the repository that has them; `force=True` goes on with random numbers instead.
    """

    reference = "missing-tensors"


class SelfTestError(LoadError):
    """The model was built, but does not work.

    Cause: Weights are on the wrong device or not finite, or a small call failed.
    Cure: Try another dtype or plan; if it stays so, report it with `nbloader.doctor()`.
    """

    reference = "self-test-failed"


class CancelledError(NbloaderError):
    """The job was cancelled before it had a result.

    Cure: `job.retry()`, or the line again: what has arrived is kept.
    """

    reference = "cancelled"


class Interrupted(Stop):
    """The call was stopped, and what it had started was ended."""

    reference = "interrupted"

    def __init__(self, *, shown: bool = False) -> None:
        super().__init__("stopped; run the line again to go on", shown=shown)


class WaitInterrupted(Stop):
    """The waiting for a job was stopped; the job goes on."""

    def __init__(self) -> None:
        super().__init__("stopped waiting; the job goes on (job.cancel() ends it)")


def _tree(root: type[NbloaderError]) -> Iterator[type[NbloaderError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def error_from_parts(reference: str, message: str, hint: str) -> NbloaderError:
    """Build the error that `reference` names, as it arrives from another process.

    An unknown reference gives a plain `NbloaderError`, so that nothing is lost.
    """
    kinds = (kind for kind in _tree(NbloaderError) if kind.reference == reference)
    return next(kinds, NbloaderError)(message, hint=hint)
