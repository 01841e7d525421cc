"""Signed URLs of the CDN: a path, the time of expiry, and an HMAC over both."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import Enum, auto

__all__ = ["Verdict", "sign", "verify"]


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
