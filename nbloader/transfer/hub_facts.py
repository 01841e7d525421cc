"""What answers of the Hub tell beside what was asked for. Pure; all of it is checked first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nbloader.records import RateLimitFacts
from nbloader.transfer.links import may_lead_to

__all__ = ["TokenScope", "license_of", "rate_limit_of", "tightest", "token_scope", "xet_host"]

# Names of licences: SPDX, the Hub's own (`openrail++`), and what authors write as `license_name`.
_LICENSE = re.compile(r"[A-Za-z0-9][\w .+()-]{0,79}", re.ASCII)

# https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-09.html, as far as the Hub
# uses it: `RateLimit: "api";r=489;t=183`, `RateLimit-Policy: "fixed window";"api";q=500;w=300`.
_RATE_LIMIT = re.compile(r'"(\w{1,40})"\s*;\s*r=(\d{1,9})\s*;\s*t=(\d{1,9})', re.ASCII)
_POLICY = re.compile(r'"(\w{1,40})"\s*;\s*q=(\d{1,9})\s*;\s*w=(\d{1,9})', re.ASCII)

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")


def license_of(info: Mapping[str, Any]) -> str | None:
    """Give the licence that the card of a repository names, from the Hub's answer about it.

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
    """Give the limit that leaves the fewest requests."""
    return min(limits, key=lambda limit: limit.remaining, default=None)


def xet_host(link: object, endpoint: str) -> str | None:
    """Give the server of Xet storage, without path, from the address that an answer links to.

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
