"""The reports of several repositories as one: shows itself as text, HTML and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nbloader.checks.report import PreflightReport, raise_for
from nbloader.records import CheckResult, CheckStatus, DiskFacts
from nbloader.views import ShownReport

_BY_WEIGHT = (
    CheckStatus.SKIPPED,
    CheckStatus.PASSED,
    CheckStatus.WARNING,
    CheckStatus.FAILED,
)


@dataclass(frozen=True, kw_only=True)
class JointReport(ShownReport):
    """What the checks found of several repositories. Shows itself, as a `PreflightReport` does.

    The disk is checked for all of them together. Whether there is memory, each is asked for itself.

    Attributes:
        reports: of each, in the order of the call.
        missing_bytes: what would be downloaded; what several have comes once.
        shared_bytes: what that spares.
        disk: that of the cache; None if it did not come so far.
    """

    reports: tuple[PreflightReport, ...]
    missing_bytes: int
    shared_bytes: int = 0
    disk: DiskFacts | None = field(default=None, repr=False)

    def __iter__(self) -> Iterator[PreflightReport]:
        return iter(self.reports)

    def __len__(self) -> int:
        return len(self.reports)

    def __getitem__(self, index: int) -> PreflightReport:
        return self.reports[index]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The results that failed; one that is the same for several repositories comes once."""
        return tuple(dict.fromkeys(each for report in self.reports for each in report.failures))

    @property
    def results(self) -> tuple[CheckResult, ...]:
        """One result for each check: what asks for most, with the repositories that ask for it."""
        every = [(report.repo_id, report.results) for report in self.reports]
        names = dict.fromkeys(each.name for _, results in every for each in results)
        return tuple(
            _merged(
                [(repo_id, each) for repo_id, found in every for each in found if each.name == name]
            )
            for name in names
        )

    def raise_for_failures(self, *, force: bool = False) -> None:
        """Raise if a check failed.

        Args:
            force: pass over those that are `forceable`, as `download(..., force=True)` does.

        Raises:
            NbloaderError: the error that the one failure names, such as `DiskSpaceError`.
            PreflightError: several checks failed, or one for several repositories.
        """
        failures: dict[CheckResult, str] = {}
        for report in self.reports:
            for each in report.failures:
                if not (force and each.forceable):
                    failures.setdefault(each, report.repo_id)
        raise_for([_of(repo_id, each) for each, repo_id in failures.items()])

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values for `json.dumps`."""
        from nbloader.views.verdict import joint_verdict

        found = joint_verdict(
            self.reports, missing_bytes=self.missing_bytes, shared_bytes=self.shared_bytes
        )
        return {
            "ok": self.ok,
            "verdict": f"{found.subject} {found.says}",
            "missing_bytes": self.missing_bytes,
            "shared_bytes": self.shared_bytes,
            "repositories": [report.to_json() for report in self.reports],
        }

    def __str__(self) -> str:
        from nbloader.views.checks import joint_text

        return joint_text(
            self.reports, missing_bytes=self.missing_bytes, shared_bytes=self.shared_bytes
        )

    def _repr_html_(self) -> str:
        from nbloader.views.checks import joint_html

        return joint_html(
            self.reports, missing_bytes=self.missing_bytes, shared_bytes=self.shared_bytes
        )


def _merged(found: Sequence[tuple[str, CheckResult]]) -> CheckResult:
    """Return the result of a check that asks for most; of several such, all in one."""
    worst = max((each.status for _, each in found), key=_BY_WEIGHT.index)
    loud = {each: repo_id for repo_id, each in reversed(found) if each.status is worst}
    results = list(reversed(loud))
    if len(results) == 1:
        return results[0]
    return replace(
        results[0],
        message="; ".join(_of(loud[each], each).message for each in results),
        hint=" ".join(dict.fromkeys(each.hint for each in results if each.hint)),
    )


def _of(repo_id: str, result: CheckResult) -> CheckResult:
    """Say of which repository a result is, if it does not say so itself."""
    if repo_id in result.message or result.name in ("disk", "cache", "hub"):
        return result
    return replace(result, message=f"{repo_id}: {result.message}")
