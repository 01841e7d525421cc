"""Who may do what, decided from the token of a request and the access of a repository."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from nbloader.localhub.records import Access, Token

__all__ = ["Denial", "bearer", "judge"]


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
