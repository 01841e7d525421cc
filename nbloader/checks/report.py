"""All checks in their order, and the report of them: shows itself as text, HTML and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from nbloader.checks import adapters, attention, files, hub, memory, packages, safety
from nbloader.checks.facts import Facts, skipped
from nbloader.errors import InvalidArgumentError, PreflightError, error_from_parts
from nbloader.records import (
    CheckResult,
    CheckStatus,
    ComponentWeights,
    DiskFacts,
    Fit,
    MachineFacts,
    Selection,
)
from nbloader.text import quote
from nbloader.views import ShownReport
from nbloader.wording import Reader, worded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Given: TypeAlias = "tuple[CheckResult, ...] | Callable[[], tuple[CheckResult, ...]]"


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: short and stable.
        requires: names of checks that must not have failed.
        run: looks at the facts.
        asked: whether it is made at all, for what only some calls ask for.
    """

    name: str
    requires: tuple[str, ...]
    run: Callable[[Facts], CheckResult]
    asked: Callable[[Facts], bool] = lambda _: True


def run_checks(facts: Facts) -> tuple[CheckResult, ...]:
    """Make all checks, in their order."""
    results: dict[str, CheckResult] = {}
    for check in CHECKS:
        if not check.asked(facts):
            continue
        unmet = [name for name in check.requires if _unmet(results[name])]
        results[check.name] = (
            skipped(check.name, _cause(results[unmet[0]])) if unmet else check.run(facts)
        )
    return tuple(in_words_of(facts.reader, each) for each in results.values())


def in_words_of(reader: Reader, result: CheckResult) -> CheckResult:
    """Return a result in the words of who reads it."""
    return replace(result, message=worded(result.message, reader), hint=worded(result.hint, reader))


def _cause(unmet: CheckResult) -> str:
    """Say why a check is skipped that requires another: what that was skipped for, if it was."""
    return unmet.message if unmet.status is CheckStatus.SKIPPED else f"{unmet.name} did not pass"


def _unmet(result: CheckResult) -> bool:
    """Say whether a check that requires this one has to be skipped."""
    if result.status is CheckStatus.SKIPPED:
        return result.name != "hub"  # Then the cache answers in its place.
    return result.status is CheckStatus.FAILED


CHECKS: tuple[Check, ...] = (
    Check("hub", (), hub.hub),
    Check("access", ("hub",), hub.access),
    Check("license", ("access",), hub.license_),
    Check("rate-limit", ("access",), hub.rate_limit),
    Check("files", ("access",), files.files),
    Check("safety", ("files",), safety.safety),
    Check("adapters", ("files",), adapters.adapters, adapters.there_are_any),
    Check("xet", ("files",), hub.xet),
    Check("cache", ("access",), files.cache),
    Check("disk", ("access",), files.disk),
    Check("packages", ("files",), packages.packages),
    Check("placement", ("files",), memory.placement),
    Check("attention", ("files",), attention.attention, attention.is_asked),
    Check("vram", ("placement",), memory.vram),
    Check("ram", ("placement",), memory.ram),
)


def raise_for(failures: Sequence[CheckResult]) -> None:
    """Raise the error that the one failure names; PreflightError for several, nothing for none."""
    if len(failures) == 1:
        failure = failures[0]
        raise error_from_parts(failure.reference, failure.message, failure.hint)
    if failures:
        raise PreflightError(
            "; ".join(f"{failure.name}: {failure.message}" for failure in failures),
            hint=" ".join(dict.fromkeys(failure.hint for failure in failures)),
        )


class _Results:
    """A tuple of results, or what gives it: asked when they are first looked at, and once."""

    def __get__(
        self, report: PreflightReport | None, owner: type[PreflightReport]
    ) -> tuple[CheckResult, ...]:
        if report is None:
            raise AttributeError("results")  # So that the field has no default.
        found: _Given = report.__dict__["results"]
        if not isinstance(found, tuple):
            found = report.__dict__["results"] = found()
        return found

    def __set__(self, report: PreflightReport, given: _Given) -> None:
        report.__dict__["results"] = given


@dataclass(frozen=True, kw_only=True)
class PreflightReport(ShownReport):
    """What the checks found. Shows itself in a notebook, and as text by `str`.

    The last check, `trial`, has the library build the model once without its weights. That takes
    as long as the imports do, 5 to 20 seconds in a process of its own, so it is made when `results`
    or what follows from them is first looked at; all else is known before.

    Attributes:
        results: of all checks, in their order.
        selection: what would be loaded; None if it did not come so far.
        weights: what the tensors of each component take, as they are stored.
        fit: the ways to place the model, and the one that would be taken.
        machine: what this machine has; None if nothing would be loaded, or it did not come so far.
        disk: that of the cache; None if it did not come so far.
        missing_bytes: what would be downloaded.
    """

    repo_id: str
    results: _Results = _Results()
    selection: Selection | None = None
    weights: tuple[ComponentWeights, ...] = ()
    fit: Fit | None = None
    machine: MachineFacts | None = field(default=None, repr=False)
    disk: DiskFacts | None = field(default=None, repr=False)
    missing_bytes: int = 0
    # What a notebook's buttons do: make the checks anew, and give the line that loads with a plan,
    # by its `records.Method` value.
    _again: Callable[[], PreflightReport] | None = field(default=None, repr=False, compare=False)
    _line: Callable[[str], str] | None = field(default=None, repr=False, compare=False)
    _on: Callable[[MachineFacts, DiskFacts | None], PreflightReport] | None = field(
        default=None, repr=False, compare=False
    )

    def __reduce__(self) -> tuple[Callable[[], PreflightReport], tuple[()]]:
        """Leave out what makes further reports: it holds a token."""
        kept = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if not each.name.startswith("_")
        }
        return partial(PreflightReport, **kept), ()

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The results that failed."""
        return tuple(item for item in self.results if item.status is CheckStatus.FAILED)

    def raise_for_failures(self, *, force: bool = False) -> None:
        """Raise if a check failed.

        Args:
            force: pass over those that are `forceable`, as `load(..., force=True)` does.

        Raises:
            NbloaderError: the error that the one failure names, such as `DiskSpaceError`.
            PreflightError: several checks failed.
        """
        raise_for([each for each in self.failures if not (force and each.forceable)])

    def on(self, machine: MachineFacts, *, disk: DiskFacts | None = None) -> PreflightReport:
        """Judge the same model for another machine, by facts about it. Nobody is asked again.

        Nothing is in a cache there, and no trial is made. Packages that `machine` does not name are
        taken to be those that are installed here.

        Args:
            machine: such as `records.MachineFacts(memory=..., gpus=(...), driver=..., torch=...)`.
            disk: the disk of the cache there; None for this machine's.

        Raises:
            InvalidArgumentError: it is not known what would be loaded, as in a report whose checks
                ended before that, or one that was pickled; the device that was asked for is not
                there.
        """
        if self._on is None or self.selection is None:
            raise InvalidArgumentError(
                f"what would be loaded of {quote(self.repo_id)} is not known to this report",
                hint="Make the checks anew: nbloader.preflight(...)",
            )
        return replace(self._on(machine, disk), _on=self._on)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values for `json.dumps`."""
        from nbloader.views.verdict import verdict

        found = verdict(self)
        return {
            "repo_id": self.repo_id,
            "ok": self.ok,
            "verdict": f"{found.subject} {found.says}",
            "commit_hash": (self.selection.commit_hash or None) if self.selection else None,
            "kind": str(self.selection.kind) if self.selection else None,
            "total_bytes": self.selection.total if self.selection else None,
            "missing_bytes": self.missing_bytes,
            "checks": [{**asdict(item), "status": str(item.status)} for item in self.results],
            "components": [
                {**asdict(part), "bytes_by_dtype": dict(part.bytes_by_dtype)}
                for part in self.weights
            ],
            "plan": str(self.fit.chosen.method) if self.fit and self.fit.chosen else None,
            "workload": self.fit.workload if self.fit else None,
            "placements": [asdict(row) for row in self.fit.placements] if self.fit else [],
        }

    def plot(self) -> Figure:
        """Draw the bytes of the components against what the GPUs, the memory and the disk have.

        The figure shows itself in a notebook; its `savefig` writes it to a file.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        from nbloader.views.fit_chart import plot_fit

        return plot_fit(
            self.repo_id,
            selection=self.selection,
            weights=self.weights,
            fit=self.fit,
            machine=self.machine,
            disk=self.disk,
            missing_bytes=self.missing_bytes,
        )

    def __str__(self) -> str:
        from nbloader.views.checks import report_text

        return report_text(self)

    def _ipython_display_(self) -> None:
        """Show it with a button and a chooser where they can act; else as `_repr_html_` does."""
        from nbloader.views import ViewName, choose_view, front_end

        if self._again is None or self._line is None:
            raise NotImplementedError
        if choose_view(ViewName.AUTO, front_end()) is not ViewName.WIDGET:
            raise NotImplementedError
        _ = self.results  # The trial takes seconds: here it can be interrupted.
        from nbloader.views.display import NotebookDisplay
        from nbloader.views.report_widget import ReportWidget, notebook_events

        try:
            shown = ReportWidget(
                NotebookDisplay(),
                self,
                again=self._again,
                line=self._line,
                events=notebook_events(),
            )
        except ImportError as error:  # installed, and broken
            raise NotImplementedError from error
        shown.show()

    def _repr_html_(self) -> str:
        from nbloader.views.checks import report_html

        return report_html(self)
