"""Who may do what: tokens and the access of repositories, signed URLs, and grants of Xet storage.

A signed URL has a time of expiry, and an HMAC over path and time. A grant says what it allows, for
which repository, until when, and has an HMAC over that.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import Enum, StrEnum, auto

from nbloader.localhub.records import Access, Token


class Denial(Enum):
    """Why a request is refused."""

    BAD_TOKEN = auto()
    REPO_HIDDEN = auto()
    GATE_CLOSED = auto()


def _may_read_gated(token: Token | None) -> bool:
    return token is not None and (token.reads_gated or not token.fine_grained)


def bearer(authorization: str | None) -> str | None:
    """Return the token of an Authorization header; a header of another scheme is a bad token."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def judge(
    repo_id: str,
    access: Access,
    token: str | None,
    tokens: Mapping[str, Token],
    *,
    for_file: bool,
) -> Denial | None:
    """Return why the repository (or a file of it) is refused to the token, or None if it is not.

    A bad token is refused for public repositories too, as the Hub does.
    """
    known = tokens.get(token) if token is not None else None
    if token is not None and (known is None or known.stale):
        return Denial.BAD_TOKEN
    named = known is not None and repo_id in known.repos
    if access.private and not named:
        return Denial.REPO_HIDDEN
    if access.gated and for_file and not (named and _may_read_gated(known)):
        return Denial.GATE_CLOSED
    return None


class Verdict(Enum):
    """What is to be said of a signature."""

    VALID = auto()
    EXPIRED = auto()
    FORGED = auto()


def sign(secret: bytes, path: str, expires: int) -> dict[str, str]:
    """Return the query that makes `path` valid until `expires`, seconds since the epoch."""
    return {"Expires": str(expires), "Signature": _signature(secret, path, str(expires))}


def verify(secret: bytes, path: str, query: Mapping[str, str], now: float) -> Verdict:
    """Judge the query of a request for `path` at the time `now`, seconds since the epoch."""
    expires = query.get("Expires", "")
    expected = _signature(secret, path, expires)
    # As bytes: compare_digest refuses text that is not ASCII.
    if not hmac.compare_digest(expected.encode(), query.get("Signature", "").encode()):
        return Verdict.FORGED
    return Verdict.VALID if now < int(expires) else Verdict.EXPIRED


def _signature(secret: bytes, path: str, expires: str) -> str:
    return hmac.digest(secret, f"{path}\n{expires}".encode(), "sha256").hex()


class Scope(StrEnum):
    """What a token allows; who may write may read."""

    READ = "read"
    WRITE = "write"


def grant(secret: bytes, scope: Scope, repo_id: str, expires: int) -> str:
    """Return a token that is valid until `expires`, seconds since the epoch."""
    signature = sign(secret, _subject(scope, repo_id), expires)["Signature"]
    return f"xet:{scope}:{repo_id}:{expires}:{signature}"


def check_grant(secret: bytes, token: str | None, scope: Scope, now: float) -> str | None:
    """Return the repository of a token that allows `scope`, or None if it does not."""
    parts = (token or "").split(":")
    if len(parts) != 5 or parts[0] != "xet" or parts[1] not in (scope, Scope.WRITE):
        return None
    _, granted, repo_id, expires, signature = parts
    query = {"Expires": expires, "Signature": signature}
    verdict = verify(secret, _subject(Scope(granted), repo_id), query, now)
    return repo_id if verdict is Verdict.VALID else None


def _subject(scope: Scope, repo_id: str) -> str:
    return f"xet {scope} {repo_id}"
