"""What answers of the Hub tell beside what was asked for. Pure; all of it is checked first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nbloader.hub_names import is_repo_id
from nbloader.records import RateLimitFacts
from nbloader.worker.links import may_lead_to

__all__ = [
    "RepoInfo",
    "TokenScope",
    "license_of",
    "rate_limit_of",
    "repo_info",
    "tightest",
    "token_scope",
    "xet_host",
]

_COMMIT = re.compile(r"[0-9a-f]{40}")

# Tasks and libraries, as the Hub names them: `text-generation`, `sentence-transformers`.
_TAG = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)

_MAX_BASE_MODELS = 8
"""A merge names a handful; who names more says nothing that could be used."""

# Names of licences: SPDX, the Hub's own (`openrail++`), and what authors write as `license_name`.
_LICENSE = re.compile(r"[A-Za-z0-9][\w .+()-]{0,79}", re.ASCII)

# https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-09.html, as far as the Hub
# uses it: `RateLimit: "api";r=489;t=183`, `RateLimit-Policy: "fixed window";"api";q=500;w=300`.
_RATE_LIMIT = re.compile(r'"(\w{1,40})"\s*;\s*r=(\d{1,9})\s*;\s*t=(\d{1,9})', re.ASCII)
_POLICY = re.compile(r'"(\w{1,40})"\s*;\s*q=(\d{1,9})\s*;\s*w=(\d{1,9})', re.ASCII)

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")


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
    return value if isinstance(value, str) and _TAG.fullmatch(value) else None


def _base_models(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the models that a card says its own was made from: `base_model`, and the Hub's tags
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
    return tuple(ids)[:_MAX_BASE_MODELS]


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
