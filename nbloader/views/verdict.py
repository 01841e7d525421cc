"""The verdict of the checks: can it be loaded here? One sentence, which every form shows first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nbloader.records import (
    CheckResult,
    CheckStatus,
    ComponentWeights,
    Fit,
    Kind,
    Selection,
)
from nbloader.text import format_bytes, format_share, quote
from nbloader.views.words import placement_words

__all__ = ["Report", "Verdict", "joint_verdict", "room", "verdict", "what_it_is"]


class Report(Protocol):
    """What is shown of the checks of a repository."""

    @property
    def repo_id(self) -> str:
        """Which."""

    @property
    def results(self) -> Sequence[CheckResult]:
        """Of all checks."""

    @property
    def selection(self) -> Selection | None:
        """What would be loaded."""

    @property
    def weights(self) -> Sequence[ComponentWeights]:
        """Of each component."""

    @property
    def fit(self) -> Fit | None:
        """The ways to place the model."""

    @property
    def missing_bytes(self) -> int:
        """What would be downloaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether it can be loaded here. All texts may be foreign.

    Attributes:
        status: of what asks for most among the results.
        subject: the repository.
        what: what it is, such as `QwenImageEditPlusPipeline of diffusers`; empty if not known.
        says: the rest of the sentence: what the load takes, or what is in its way.
        failure: the result that `says` and the cure are of; None if there is none.
    """

    status: CheckStatus
    subject: str
    what: str = ""
    says: str
    failure: CheckResult | None = None

    @property
    def cure(self) -> str:
        """What to do; empty for nothing."""
        return self.failure.hint if self.failure else ""

    @property
    def link(self) -> str:
        """A page about it; empty for none."""
        return self.failure.link if self.failure else ""


def verdict(report: Report, *, told: Sequence[CheckResult] = ()) -> Verdict:
    """Sum the results of a report up.

    Args:
        told: failures that are told elsewhere, because other repositories share them.
    """
    status = _worst([each.status for each in report.results])
    what = what_it_is(report.selection) if report.selection else ""
    failures = [each for each in report.results if _has_failed(each)]
    own = [each for each in failures if each not in told]
    if own:
        says = _cannot(own[0], report.repo_id)
    elif failures:
        says = "cannot be loaded here"
    else:
        placed = _is_placed(report)
        parts = (_download(report), _placed(report), room(report.fit) if placed else "")
        says = ": ".join(filter(None, ("can be loaded here", ", ".join(filter(None, parts)))))
    return Verdict(
        status=status,
        subject=report.repo_id,
        what=what,
        says=says,
        failure=own[0] if own else None,
    )


def joint_verdict(reports: Sequence[Report], *, missing_bytes: int, shared_bytes: int) -> Verdict:
    """Sum the reports of several repositories up.

    Args:
        missing_bytes: what would be downloaded for all of them.
        shared_bytes: what comes once for several.
    """
    results = [report.results for report in reports]
    status = _worst([each.status for found in results for each in found])
    subject = f"{len(reports)} repositories"
    failing = [found for found in results if any(_has_failed(each) for each in found)]
    if not failing:
        less = f", {format_bytes(shared_bytes)} less than one by one" if shared_bytes else ""
        says = (
            f"can be loaded here, each by itself: {format_bytes(missing_bytes)} to download{less}"
        )
        return Verdict(status=status, subject=subject, says=says)
    if len(failing) < len(reports):
        subject = f"{len(failing)} of {subject}"
    says = "cannot be loaded here"
    if shared := shared_failures(reports):
        return Verdict(
            status=status,
            subject=subject,
            says=_cannot(shared[0]),
            failure=shared[0],
        )
    return Verdict(status=status, subject=subject, says=says)


def _cannot(failure: CheckResult, repo_id: str = "") -> str:
    """Say that something is in the way; of what the Hub has not answered nothing is known."""
    how = "could not be checked" if failure.name == "hub" else "cannot be loaded here"
    message = failure.message.removeprefix(f"{quote(repo_id)} cannot be loaded: ")
    return f"{how}: {message}"


def shared_failures(reports: Sequence[Report]) -> list[CheckResult]:
    """Return the failures that several repositories have in common, as that of the disk."""
    failures = [each for report in reports for each in report.results if _has_failed(each)]
    return [each for each in dict.fromkeys(failures) if failures.count(each) > 1]


def what_it_is(selection: Selection) -> str:
    """Name what will be loaded, and by which library; nothing for files alone."""
    if selection.targets:
        named = (target.library.partition(".")[0] for target in selection.targets)
        libraries = dict.fromkeys(named)
        names = " and ".join(target.class_name for target in selection.targets)
        return f"{names} of {', '.join(libraries).replace('_', '-')}"
    if selection.class_name:
        return f"{selection.class_name} of {selection.kind}"
    return "" if selection.kind is Kind.FILES else f"a model of {selection.kind}"


def room(fit: Fit | None) -> str:
    """Say what the chosen placement needs of what is free, on the GPUs and in memory."""
    placement = fit.chosen if fit else None
    if fit is None or placement is None:
        return ""
    used = [(size, *gpu) for size, gpu in zip(placement.vram, fit.gpus, strict=False) if size]
    parts = _on_gpus(used)
    rests = any(part.device == "cpu" for part in placement.components)
    if fit.memory and (rests or not used):
        ram = placement.ram_peak + placement.mapped
        parts.append(f"{_of_the(ram, fit.memory)} of RAM that are free")
    return f"needs {' and '.join(parts)}" if parts else ""


def _of_the(needed: int, free: int) -> str:
    """Write how many of the bytes that are free are needed."""
    if needed > free:  # A plan that was asked for goes on by force.
        return f"{format_bytes(needed)} of the {format_bytes(free)}"
    share = format_share(needed, free)
    return share.replace(" of ", " of the ") if " of " in share else f"all {share}"


def _on_gpus(used: Sequence[tuple[int, str, int]]) -> list[str]:
    """Write what is taken of GPUs, those of one name in one figure."""
    parts = []
    for name in dict.fromkeys(name for _, name, _ in used):
        same = [(size, free) for size, each, free in used if each == name]
        size, free = max(same, key=lambda one: one[0] - one[1])
        where = f"the {name}" if len(same) == 1 else f"each of {len(same)} {name}"
        most = "" if len(same) == 1 else "up to "
        parts.append(f"{most}{_of_the(size, free)} that are free on {where}")
    return parts


def _download(report: Report) -> str:
    """Say what would be downloaded."""
    selection, missing = report.selection, report.missing_bytes
    if selection is None:
        return ""
    if missing:
        return f"{format_share(missing, selection.total)} to download"
    there = "there" if selection.folder is not None else "cached"
    return f"nothing to download, all {format_bytes(selection.total)} are {there}"


def _is_placed(report: Report) -> bool:
    """Say whether the load will do as the plan says: not where the caller's arguments place it."""
    found = next((each.status for each in report.results if each.name == "placement"), None)
    return found in (None, CheckStatus.PASSED, CheckStatus.WARNING)


def _placed(report: Report) -> str:
    if report.fit is None or report.fit.chosen is None:
        return ""
    chosen = report.fit.chosen
    return placement_words(chosen) if _is_placed(report) else "placed by `loader_kwargs`"


def _has_failed(result: CheckResult) -> bool:
    return result.status is CheckStatus.FAILED


def _worst(found: Sequence[CheckStatus]) -> CheckStatus:
    order = (CheckStatus.FAILED, CheckStatus.WARNING)
    return next((status for status in order if status in found), CheckStatus.PASSED)
