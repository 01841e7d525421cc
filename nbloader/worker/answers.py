"""The errors of the Hub's library and of the system, in our own words and with a hint."""

from __future__ import annotations

import errno
import math
import os
import re
from dataclasses import dataclass

from huggingface_hub import constants
from huggingface_hub import errors as hub_errors

from nbloader.errors import (
    RUN_AGAIN,
    CacheNotWritableError,
    DiskFullError,
    DownloadError,
    GatedRepoError,
    HubUnreachableError,
    InvalidRepoIdError,
    InvalidTokenError,
    MalformedFileError,
    NbloaderError,
    NotCachedError,
    RateLimitedError,
    RepoNotFoundError,
    RevisionNotFoundError,
)
from nbloader.machine import how_to_add_token, how_to_connect, place
from nbloader.redaction import short_path
from nbloader.transfer.policy import Reason
from nbloader.worker.failure import Failure
from nbloader.worker.hub_facts import TokenScope

__all__ = [
    "Attempted",
    "cache_not_writable",
    "explain",
    "no_hub",
    "rate_limited",
    "token_refused",
]

_TOKENS = "https://huggingface.co/settings/tokens"

# What the boxes on the page of a fine-grained token are called.
_GATED_BOX = '"Read access to contents of all public gated repos you can access"'
_READ_BOX = '"Read access to contents of selected repos"'

_NOT_WRITABLE = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,  # as in /proc, where no folder can be made
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """What was tried when an error came.

    Attributes:
        path: the file, or None for a call that is about no file.
        token_sent: whether the call carried a token.
        token_refused: whether the Hub refused one before.
        token_scope: what the Hub says of the token; None if it was not asked.
    """

    repo_id: str
    revision: str | None
    path: str | None
    attempts: int
    token_sent: bool
    token_refused: bool
    token_scope: TokenScope | None = None


def explain(error: Exception, what: Attempted) -> NbloaderError:
    """Give the error of our tree that says the same, with a hint that fits the case."""
    if isinstance(error.__cause__, MalformedFileError):
        return error.__cause__
    if isinstance(error, Failure):
        return _gave_up(error, what)
    match error:
        case hub_errors.HFValidationError():
            return InvalidRepoIdError(
                f"{what.repo_id!r} is no repository id",
                hint='Ids look like "Qwen/Qwen-Image-Edit-2509".',
            )
        case hub_errors.OfflineModeIsEnabled():
            return NotCachedError(
                f"{what.repo_id} is not complete in the cache, and offline mode is on",
                hint="Unset HF_HUB_OFFLINE, or run once with a network.",
            )
        case hub_errors.GatedRepoError() if what.token_refused:
            return token_refused(what.repo_id)
        case hub_errors.GatedRepoError():
            return _gated(what)
        case hub_errors.RevisionNotFoundError():
            return RevisionNotFoundError(
                f"{what.repo_id} has no revision {what.revision!r}",
                hint=f"See https://huggingface.co/{what.repo_id}/tree/main for its branches "
                "and tags, or leave `revision=` out.",
            )
        case hub_errors.RepositoryNotFoundError() if what.path is not None and what.token_sent:
            # It was listed a moment ago.
            return InvalidTokenError(
                f"the Hub does not accept the token any more, and {what.path} needs it",
                hint=f"Make a new token at {_TOKENS}. {_how_to_add_token()} What has arrived is "
                "kept.",
            )
        case hub_errors.RepositoryNotFoundError():
            return _not_found(what)
        case hub_errors.HfHubHTTPError() if error.response.status_code in (410, 451) or (
            isinstance(error, hub_errors.DisabledRepoError)
        ):
            return RepoNotFoundError(
                f"{what.repo_id} is not available any more "
                f"(the Hub answers {error.response.status_code})",
                hint=f"See https://huggingface.co/{what.repo_id} for the reason.",
            )
        case hub_errors.HfHubHTTPError() if error.response.status_code == 401:
            return InvalidTokenError(
                "the Hub does not accept the token",
                hint=f"Make a new token at {_TOKENS}. {_how_to_add_token()}",
            )
        case hub_errors.HfHubHTTPError() if error.response.status_code == 403:
            if what.token_sent:
                return InvalidTokenError(
                    f"the token may not read {what.repo_id}",
                    hint=f"Give it read access to this repository at {_TOKENS}, or use one of "
                    "an account that may read it.",
                )
            if what.path is None:
                return no_hub("it answered 403")
        case hub_errors.HfHubHTTPError() if error.response.status_code == 404 and what.path is None:
            # The Hub says in a header what it does not find, and has an error above for each.
            return no_hub("it answered 404, and not what is missing")
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFullError(
                f"the disk of {short_path(constants.HF_HUB_CACHE)} is full",
                hint="Free some space there, or pass another folder as `cache_dir=`.",
            )
        case OSError() if error.errno in _NOT_WRITABLE:
            return cache_not_writable()
    if what.path is None and isinstance(error, (AttributeError, KeyError, TypeError, ValueError)):
        # The library's own code stumbles over answers of a wrong shape.
        return no_hub("its answers have the wrong form")
    text = _URL.sub("<url>", str(error)).strip().partition("\n")[0][:200]
    return DownloadError(
        f"{what.path or what.repo_id}: {type(error).__name__}: {text}",
        hint="Run the line again. If it fails the same way, report it with the full text.",
    )


def _gave_up(failure: Failure, what: Attempted) -> NbloaderError:
    tried = "1 attempt" if what.attempts == 1 else f"{what.attempts} attempts"
    if failure.reason is Reason.RATE_LIMITED:
        return rate_limited(failure, what.path, token_sent=what.token_sent)
    if what.path is None:
        return HubUnreachableError(
            f"the Hub at {constants.ENDPOINT} does not answer ({failure}; {tried})",
            hint=how_to_connect(place(os.environ)),
        )
    return DownloadError(
        f"{what.path} could not be downloaded ({failure}; {tried})",
        hint=f"{RUN_AGAIN} On a bad link, set NBLOADER_MAX_RETRIES=10.",
    )


def rate_limited(failure: Failure, path: str | None, *, token_sent: bool) -> RateLimitedError:
    """Make the error for a server that wants to be left alone.

    Args:
        path: the file that was asked for; None for a call that is about no file.
    """
    wait_s = math.ceil(failure.retry_after_s or 0)
    # The Hub counts over five minutes, and need not say how much of them is left.
    how_long = f"for {wait_s} s" if wait_s else "for now"
    what = f"the Hub at {constants.ENDPOINT}" if path is None else f"the server of {path}"
    wait = f"Wait {'that long' if wait_s else 'five minutes'}, then run the line again."
    token = (
        ""
        if token_sent
        else " Or use a token: without one the limit is that of the whole address, which hosted "
        f"notebooks share. {_how_to_add_token()}"
    )
    return RateLimitedError(
        f"{what} allows no more requests {how_long} (429, too many requests)", hint=wait + token
    )


def token_refused(repo_id: str) -> InvalidTokenError:
    """Make the error for a token that the Hub refuses, where nothing goes on without one."""
    return InvalidTokenError(
        f"the Hub does not accept the token, and without one {repo_id} cannot be read",
        hint=f"Make a new token at {_TOKENS}. {_how_to_add_token()}",
    )


def _gated(what: Attempted) -> GatedRepoError:
    page, scope = f"https://huggingface.co/{what.repo_id}", what.token_scope
    if scope is not None and not scope.reads_gated:
        return GatedRepoError(
            f"{what.repo_id} is gated, and the token has no permission to read gated repositories",
            hint=f"Edit the token at {_TOKENS} and tick {_GATED_BOX}. The conditions at {page} "
            "have to be accepted too, with the account of the token.",
        )
    if not what.token_sent:
        how = f"and use a token of that account. {_how_to_add_token()}"
    elif scope is not None:
        how = "with the account of the token."
    else:
        how = f"with the account of the token; a fine-grained one needs the box {_GATED_BOX}."
    return GatedRepoError(
        f"{what.repo_id} is gated: its conditions have to be accepted first",
        hint=f"Accept them at {page} {how}",
    )


def _not_found(what: Attempted) -> NbloaderError:
    if what.token_sent:
        narrow = what.token_scope is not None and what.token_scope.fine_grained
        return RepoNotFoundError(
            f"{what.repo_id} does not exist, or is private and the token does not open it",
            hint="Check the spelling. For a private repository, "
            + (
                f"edit the token at {_TOKENS}: it is fine-grained, and needs the box {_READ_BOX} "
                "for this repository."
                if narrow
                else "use a token of an account that may read it."
            ),
        )
    return RepoNotFoundError(
        f"{what.repo_id} does not exist, or is private",
        hint="Check the spelling. A private repository needs a token. " + _how_to_add_token(),
    )


def cache_not_writable() -> CacheNotWritableError:
    """Make the error for a cache folder of this process that cannot be used."""
    return CacheNotWritableError(
        f"the cache folder {short_path(constants.HF_HUB_CACHE)} cannot be written",
        hint="Pass a folder of your own as `cache_dir=`, or set HF_HOME.",
    )


def _how_to_add_token() -> str:
    return how_to_add_token(place(os.environ))


def no_hub(what: str) -> HubUnreachableError:
    """Make the error for an answer that no Hub gives."""
    return HubUnreachableError(
        f"{constants.ENDPOINT} does not answer like a Hub: {what}",
        hint="Check `endpoint=` and HF_ENDPOINT: the address may be no Hub, or a sign-in page of "
        "the network may stand before it.",
    )
