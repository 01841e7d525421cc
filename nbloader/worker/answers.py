"""What the answers of the Hub mean: errors in our own words and with a hint, and facts.

What an answer tells beside what was asked for is checked before it is used.
"""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants
from huggingface_hub import errors as hub_errors

from nbloader.errors import (
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
from nbloader.hub_names import MAX_BASE_MODELS, is_repo_id, is_tag, page_of
from nbloader.machine import how_to_add_token, how_to_connect, place
from nbloader.records import RateLimitFacts, RepoType
from nbloader.redaction import short_path
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure, not_downloaded
from nbloader.worker.links import may_lead_to
from nbloader.worker.unusable import unusable

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

_COMMIT = re.compile(r"[0-9a-f]{40}")

# Names of licences: SPDX, the Hub's own (`openrail++`), and what authors write as `license_name`.
_LICENSE = re.compile(r"[A-Za-z0-9][\w .+()-]{0,79}", re.ASCII)

# https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-09.html, as far as the Hub
# uses it: `RateLimit: "api";r=489;t=183`, `RateLimit-Policy: "fixed window";"api";q=500;w=300`.
_RATE_LIMIT = re.compile(r'"(\w{1,40})"\s*;\s*r=(\d{1,9})\s*;\s*t=(\d{1,9})', re.ASCII)
_POLICY = re.compile(r'"(\w{1,40})"\s*;\s*q=(\d{1,9})\s*;\s*w=(\d{1,9})', re.ASCII)

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """What was tried when an error came.

    Attributes:
        path: the file, or None for a call that is about no file.
        token_sent: whether the call carried a token.
        token_refused: whether the Hub refused one before.
        token_scope: what the Hub says of the token; None if it was not asked.
        local_dir: where its files go, if that is not the Hub's cache.
    """

    repo_id: str
    revision: str | None
    path: str | None
    attempts: int
    token_sent: bool
    token_refused: bool
    token_scope: TokenScope | None = None
    repo_type: RepoType = RepoType.MODEL
    local_dir: str | None = None

    @property
    def page(self) -> str:
        """The address of its page."""
        return page_of(self.repo_id, self.repo_type)


def explain(error: Exception, what: Attempted) -> NbloaderError:
    """Return the error of our tree that says the same, with a hint that fits the case."""
    if isinstance(error.__cause__, MalformedFileError):
        return error.__cause__
    if isinstance(error, Failure):
        return _gave_up(error, what)
    match error:
        case hub_errors.HFValidationError():
            return InvalidRepoIdError(
                f"{what.repo_id!r} is not a repository id",
                hint='Ids look like "Qwen/Qwen-Image-Edit-2509".',
            )
        case hub_errors.OfflineModeIsEnabled():
            return NotCachedError(
                f"{what.repo_id} is not complete in the cache, and offline mode is on",
                hint="Run once with a network, and without that mode: unset HF_HUB_OFFLINE",
            )
        case hub_errors.HfHubHTTPError() if what.path is None and _is_page(error.response):
            return no_hub(f"it answered {error.response.status_code} with a web page")
        case hub_errors.GatedRepoError() if what.token_refused:
            return token_refused(what.repo_id)
        case hub_errors.GatedRepoError():
            return _gated(what)
        case hub_errors.RevisionNotFoundError():
            return RevisionNotFoundError(
                f"{what.repo_id} has no revision {what.revision!r}",
                hint=f"See {what.page}/tree/main for its branches "
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
                hint=f"See {what.page} for the reason.",
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
                f"the disk of {short_path(what.local_dir or constants.HF_HUB_CACHE)} is full",
                hint="Free some space there, or pass another folder as "
                f"`{'local_dir' if what.local_dir else 'cache_dir'}=`.",
            )
        case OSError() if error.errno in _NOT_WRITABLE or (
            error.errno == errno.EINVAL and error.filename is not None  # It is no regular file.
        ):
            return unusable(error, what.local_dir)
    if what.path is None and isinstance(error, (AttributeError, KeyError, TypeError, ValueError)):
        # The library's own code stumbles over answers of a wrong shape.
        return no_hub("its answers have the wrong form")
    text = _URL.sub("<url>", str(error)).strip().partition("\n")[0][:200]
    return DownloadError(
        f"{what.path or what.repo_id}: {type(error).__name__}: {text}",
        hint="Run the line again. If it fails the same way, report it with the full text.",
    )


def _is_page(response: Any) -> bool:
    """Say whether an error is a web page, which the Hub sends to nobody who asks its API."""
    headers = response.headers
    told = "X-Error-Code" in headers or "X-Error-Message" in headers
    return not told and headers.get("Content-Type", "").lower().startswith("text/html")


def _gave_up(failure: Failure, what: Attempted) -> NbloaderError:
    tried = "1 attempt" if what.attempts == 1 else f"{what.attempts} attempts"
    if failure.reason is Reason.RATE_LIMITED:
        return rate_limited(failure, what.path, token_sent=what.token_sent)
    if what.path is None:
        hint = how_to_connect(place(os.environ))
        if failure.reason in (Reason.STALLED, Reason.TIMED_OUT):
            hint += (
                ' Where each answer begins late, pass settings={"check_network": False}: then a '
                "minute is waited for the first."
            )
        return HubUnreachableError(
            f"the Hub at {constants.ENDPOINT} does not answer ({failure}; {tried})", hint=hint
        )
    hosts = [failure.host] if failure.host else []
    return not_downloaded(what.path, failure, tried, what.attempts, hosts)


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
    page, scope = what.page, what.token_scope
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


def _how_to_add_token() -> str:
    return how_to_add_token(place(os.environ))


def no_hub(what: str) -> HubUnreachableError:
    """Make the error for an answer that no Hub gives."""
    return HubUnreachableError(
        f"{constants.ENDPOINT} does not answer like a Hub: {what}",
        hint="Check `endpoint=` and HF_ENDPOINT: the address may not be a Hub, or a sign-in page "
        "of the network may stand before it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoInfo:
    """What the Hub says of a repository at a revision.

    Attributes:
        repo_id: its id; another one than was asked for where it was renamed.
        commit_hash: the commit that the revision stands for.
        pipeline_tag: see `Listing`; so are the others.
    """

    repo_id: str
    commit_hash: str
    pipeline_tag: str | None = None
    library_name: str | None = None
    base_models: tuple[str, ...] = ()


def repo_info(info: object, asked: str) -> RepoInfo | None:
    """Read the Hub's answer about a repository; None if it names no commit.

    Args:
        asked: the id that was asked for, which counts where the answer names none.
    """
    if not isinstance(info, dict):
        return None
    commit_hash, name = info.get("sha"), info.get("id")
    if not isinstance(commit_hash, str) or not _COMMIT.fullmatch(commit_hash):
        return None
    return RepoInfo(
        repo_id=name if is_repo_id(name) else asked,
        commit_hash=commit_hash,
        pipeline_tag=_tag(info.get("pipeline_tag")),
        library_name=_tag(info.get("library_name")),
        base_models=_base_models(info),
    )


def _tag(value: object) -> str | None:
    return value if is_tag(value) else None


def _base_models(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the models that a card says its own was made from: `base_model`, and the Hub's tags
    `base_model:<id>` and `base_model:<relation>:<id>`."""
    card, tags = info.get("cardData"), info.get("tags")
    named = card.get("base_model") if isinstance(card, dict) else None
    tagged = (
        tag.rpartition(":")[2]
        for tag in (tags if isinstance(tags, list) else ())
        if isinstance(tag, str) and tag.startswith("base_model:")
    )
    found = [*(named if isinstance(named, list) else [named]), *tagged]
    ids = dict.fromkeys(name for name in found if is_repo_id(name))
    return tuple(ids)[:MAX_BASE_MODELS]


def license_of(info: Mapping[str, Any]) -> str | None:
    """Return the licence that the card of a repository names, from the Hub's answer about it.

    That is `license_name` where the licence is none of the Hub's list (`other`).
    """
    card = info.get("cardData")
    tags = info.get("tags")
    named = [card.get("license"), card.get("license_name")] if isinstance(card, dict) else []
    if named and named[0] == "other" and _is_license(named[1]):
        return str(named[1])
    tagged = [
        tag.removeprefix("license:")
        for tag in (tags if isinstance(tags, list) else ())
        if isinstance(tag, str) and tag.startswith("license:")
    ]
    return next((str(name) for name in [*named[:1], *tagged] if _is_license(name)), None)


def _is_license(name: object) -> bool:
    return isinstance(name, str) and _LICENSE.fullmatch(name) is not None


def rate_limit_of(headers: Mapping[str, str]) -> RateLimitFacts | None:
    """Read what an answer says of the rate limit; None if it says nothing."""
    told = _RATE_LIMIT.match(headers.get("RateLimit", ""))
    if told is None:
        return None
    kind, remaining, reset_s = told[1], int(told[2]), int(told[3])
    policies = {
        match[1]: (int(match[2]), int(match[3]))
        for match in _POLICY.finditer(headers.get("RateLimit-Policy", "")[:1000])
    }
    limit, window_s = policies.get(kind, (None, None))
    return RateLimitFacts(
        kind=kind, remaining=remaining, limit=limit, window_s=window_s, reset_s=reset_s
    )


def tightest(limits: Iterable[RateLimitFacts]) -> RateLimitFacts | None:
    """Return the limit that leaves the fewest requests."""
    return min(limits, key=lambda limit: limit.remaining, default=None)


def xet_host(link: object, endpoint: str) -> str | None:
    """Return the server of Xet storage, without path, from the address that an answer links to.

    None for what is no such address, or one that the Hub may not lead to.
    """
    if not isinstance(link, str) or not may_lead_to(endpoint, link):
        return None
    parts = urlsplit(link)
    host, _, port = parts.netloc.rpartition(":") if parts.port else (parts.netloc, "", "")
    if not _HOST.fullmatch(host):
        return None
    return f"{parts.scheme}://{host}:{port}" if port else f"{parts.scheme}://{host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScope:
    """What the Hub says of a token.

    Attributes:
        valid: whether it knows the token.
        fine_grained: whether what it may do was chosen box by box.
        reads_gated: whether it may read public gated repositories that its account has access to.
    """

    valid: bool = True
    fine_grained: bool = False
    reads_gated: bool = True


def token_scope(answer: object) -> TokenScope:
    """Read the answer of `whoami-v2` to a token that the Hub knows."""
    match answer:
        case {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {**boxes}}}}:
            return TokenScope(fine_grained=True, reads_gated=boxes.get("canReadGatedRepos") is True)
        case _:
            return TokenScope()
