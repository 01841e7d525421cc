"""The way to the repository: the Hub, the access, Xet storage, the limits of requests."""

from __future__ import annotations

from urllib.parse import urlsplit

from nbloader.checks.facts import Facts, failed_with, named, passed, skipped, warned
from nbloader.errors import (
    GatedRepoError,
    HubUnreachableError,
    InvalidTokenError,
    RateLimitedError,
    RepoNotFoundError,
    RevisionNotFoundError,
)
from nbloader.hub_names import HUB, is_repo_id, page_of
from nbloader.records import CheckResult, HubFacts
from nbloader.redaction import short_path
from nbloader.text import format_duration

TOKENS = f"{HUB}/settings/tokens"

FEW_REQUESTS = 0.1
"""Below this share of its limit, a download of many files may have to wait."""


def hub(facts: Facts) -> CheckResult:
    """Does the Hub answer?"""
    if isinstance(facts.problem, (HubUnreachableError, RateLimitedError)):
        return failed_with("hub", facts.problem)
    if facts.folder is not None and facts.hub is None:
        return skipped("hub", "all files are on this machine")
    if not facts.check_network:
        return skipped("hub", "check_network is off")
    if facts.hub is None:
        return passed("hub", "the Hub answers")
    if facts.hub.answer_s is None:
        return skipped("hub", "the files of the cache are used")
    answer = f"{facts.hub.endpoint} answers in {format_duration(facts.hub.answer_s)}"
    return passed("hub", answer if _is_home(facts.hub) else f"{answer}, in place of {HUB}")


def _is_home(found: HubFacts) -> bool:
    return urlsplit(found.endpoint).hostname == "huggingface.co"


_ACCESS_ERRORS = (RepoNotFoundError, RevisionNotFoundError, GatedRepoError, InvalidTokenError)


def access(facts: Facts) -> CheckResult:
    """May the repository be read, and with which token?"""
    if isinstance(facts.problem, _ACCESS_ERRORS):
        page = HUB if facts.folder is not None else page_of(facts.repo_id, facts.repo_type)
        link = TOKENS if isinstance(facts.problem, InvalidTokenError) else page
        return failed_with("access", facts.problem, link=link)
    if facts.folder is not None:
        return _folder(facts)
    if facts.hub is None:
        return passed("access", f"{facts.repo_id} can be read")
    if facts.hub.token_refused:
        return warned(
            "access",
            f"{facts.repo_id} is public; the Hub does not accept the token{_from(facts)}, so it "
            "goes on without one",
            hint=f"Make a new token at {TOKENS}, or remove the old one with `hf auth logout`.",
            reference=InvalidTokenError.reference,
            link=TOKENS,
        )
    if facts.hub.answer_s is None:
        return passed("access", f"{facts.repo_id} is in the cache")
    kind = "private" if facts.hub.private else "gated" if facts.hub.gated else "public"
    token = f", with a token{_from(facts)}" if facts.hub.token_sent else ""
    return passed("access", f"{facts.repo_id} is {kind} and can be read{token}")


def _folder(facts: Facts) -> CheckResult:
    """Say which folder it is, and what comes from the Hub."""
    assert facts.folder is not None
    selection = facts.selection
    others = [
        one.repo_id for one in (selection.companions if selection else ()) if one.folder is None
    ]
    more = f"; {named(list(dict.fromkeys(others)))} is read from the Hub" if others else ""
    folder = short_path(facts.folder)
    if is_repo_id(facts.repo_id) and not facts.is_path:
        return warned(
            "access",
            f"{facts.repo_id} is a folder here, {folder}, and is loaded in place of the repository "
            f"of that name{more}",
            hint=f'For the repository, pass "hf://{facts.repo_id}"; "./{facts.repo_id}" says that '
            "the folder is meant.",
        )
    return passed("access", f"the folder {folder}{more}")


def _from(facts: Facts) -> str:
    return f" ({facts.token.source})" if facts.token.source else ""


def license_(facts: Facts) -> CheckResult:
    """Under which licence is it?"""
    name = facts.hub.license if facts.hub else None
    if facts.folder is not None:
        return skipped("license", "a folder names none")
    if name is None:
        return skipped("license", "its card names none")
    return passed("license", name)


def xet(facts: Facts) -> CheckResult:
    """Can Xet storage be reached, where files come from there?"""
    found = facts.hub.xet if facts.hub else None
    if found is None:
        return skipped("xet", "nothing has to come from Xet storage")
    if found.answer_s is None:
        return warned(
            "xet",
            f"Xet storage at {found.host} does not answer; the files come over HTTP",
            hint="Nothing is needed. Where a firewall is in the way, allow that host.",
        )
    return passed("xet", f"{found.host} answers in {format_duration(found.answer_s)}")


def rate_limit(facts: Facts) -> CheckResult:
    """How many more requests does the Hub answer?"""
    found = facts.hub.rate_limit if facts.hub else None
    if found is None:
        asked = facts.folder is None or facts.hub is not None
        return skipped("rate-limit", "the Hub does not tell" if asked else "the Hub is not asked")
    of = f" of {found.limit}" if found.limit is not None else ""
    message = (
        f"{found.remaining}{of} {found.kind} requests left, "
        f"new ones in {format_duration(found.reset_s)}"
    )
    if found.limit is None or found.remaining >= FEW_REQUESTS * found.limit:
        return passed("rate-limit", message)
    sent = facts.hub is not None and facts.hub.token_sent
    return warned(
        "rate-limit",
        message,
        hint="Wait that long if the download is refused."
        if sent
        else "Limits without a token are for the whole address, which hosted notebooks share: "
        f"make a token at {TOKENS}.",
        link=f"{HUB}/docs/hub/rate-limits",
    )
