"""Tokens of Xet storage: what they allow, for which repository, until when, and an HMAC over it."""

from __future__ import annotations

from enum import StrEnum

from nbloader.localhub.signing import Verdict, sign, verify

__all__ = ["Scope", "check", "grant"]


class Scope(StrEnum):
    """What a token allows; who may write may read."""

    READ = "read"
    WRITE = "write"


def grant(secret: bytes, scope: Scope, repo_id: str, expires: int) -> str:
    """Return a token that is valid until `expires`, seconds since the epoch."""
    signature = sign(secret, _subject(scope, repo_id), expires)["Signature"]
    return f"xet:{scope}:{repo_id}:{expires}:{signature}"


def check(secret: bytes, token: str | None, scope: Scope, now: float) -> str | None:
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
