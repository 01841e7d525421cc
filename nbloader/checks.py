"""Can this work here? Facts and a plan turned into a report, before the first weight is fetched.

Each check is a small object that looks at facts and says what it found. A check whose
requirements did not pass is skipped. Pure: the facts are gathered elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nbloader.errors import (
    CacheNotWritableError,
    DiskFullError,
    DiskSpaceError,
    GatedRepoError,
    HubUnreachableError,
    InvalidTokenError,
    MissingPackageError,
    NbloaderError,
    PreflightError,
    RepoNotFoundError,
    RevisionNotFoundError,
    UnsupportedClassError,
    error_from_parts,
)
from nbloader.records import CheckResult, CheckStatus, DiskFacts, HubFacts, Kind, Plan
from nbloader.units import format_bytes, format_duration

__all__ = [
    "CHECKS",
    "Check",
    "Facts",
    "PreflightReport",
    "install_hint",
    "required_packages",
    "run_checks",
]

LOW_DISK_BYTES = 1_000_000_000
"""With less than this left after the download, a notebook's machine soon runs into trouble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the checks look at; a part that is not known is None.

    Attributes:
        problem: the error that ended the worker before there was a plan.
        cached: paths of the plan that the cache holds already.
        partial: bytes that an earlier download left of others, by path.
        packages: version of each package that the plan needs; None where it is missing.
        pipelines: the classes of pipelines that the installed diffusers has.
        required_disk_bytes: free space to ask for; None for the exact missing bytes.
    """

    repo_id: str
    hub: HubFacts | None = None
    plan: Plan | None = None
    cached: frozenset[str] = frozenset()
    partial: Mapping[str, int] = field(default_factory=dict)
    problem: NbloaderError | None = None
    disk: DiskFacts | None = None
    packages: Mapping[str, str | None] = field(default_factory=dict)
    pipelines: frozenset[str] | None = None
    check_network: bool = True
    check_disk_space: bool = True
    required_disk_bytes: int | None = None

    @property
    def missing_bytes(self) -> int:
        """Bytes that have to be downloaded."""
        files = self.plan.files if self.plan else ()
        return sum(
            file.size - self.partial.get(file.path, 0)
            for file in files
            if file.path not in self.cached
        )


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: short and stable.
        requires: names of checks that must not have failed.
        run: looks at the facts.
    """

    name: str
    requires: tuple[str, ...]
    run: Callable[[Facts], CheckResult]


def run_checks(facts: Facts) -> tuple[CheckResult, ...]:
    """Make all checks, in their order."""
    results: dict[str, CheckResult] = {}
    for check in CHECKS:
        unmet = [name for name in check.requires if _unmet(results[name])]
        results[check.name] = (
            _skipped(check.name, f"not checked: {unmet[0]} did not pass")
            if unmet
            else check.run(facts)
        )
    return tuple(results.values())


def _unmet(result: CheckResult) -> bool:
    """Tell whether a check that requires this one has to be skipped."""
    if result.status is CheckStatus.SKIPPED:
        return result.name != "hub"  # Then the cache answers in its place.
    return result.status is CheckStatus.FAILED


# -- the checks ------------------------------------------------------------------------------------


def _hub(facts: Facts) -> CheckResult:
    if isinstance(facts.problem, HubUnreachableError):
        return _failed("hub", facts.problem)
    if not facts.check_network:
        return _skipped("hub", "not checked: check_network is off")
    if facts.hub is None:
        return _passed("hub", "the Hub answers")
    if facts.hub.answer_s is None:
        return _skipped("hub", "not asked: the files of the cache are used")
    return _passed("hub", f"{facts.hub.endpoint} answers in {format_duration(facts.hub.answer_s)}")


_ACCESS_ERRORS = (RepoNotFoundError, RevisionNotFoundError, GatedRepoError, InvalidTokenError)


def _access(facts: Facts) -> CheckResult:
    if isinstance(facts.problem, _ACCESS_ERRORS):
        return _failed("access", facts.problem)
    if facts.hub is None:
        return _passed("access", f"{facts.repo_id} can be read")
    if facts.hub.token_refused:
        return CheckResult(
            name="access",
            status=CheckStatus.WARNING,
            message=f"{facts.repo_id} is public; the Hub does not accept the token",
            hint="Make a new token at https://huggingface.co/settings/tokens, or remove the old "
            "one with `hf auth logout`.",
            reference=InvalidTokenError.reference,
        )
    kind = "private" if facts.hub.private else "gated" if facts.hub.gated else "public"
    token = ", with a token" if facts.hub.token_sent else ""
    return _passed("access", f"{facts.repo_id} is {kind} and can be read{token}")


_CACHE_ERRORS = (CacheNotWritableError, DiskFullError)  # told by the checks of cache and disk


def _files(facts: Facts) -> CheckResult:
    if facts.problem is not None and not isinstance(facts.problem, _CACHE_ERRORS):
        return _failed("files", facts.problem)
    if facts.plan is None:
        return _skipped("files", "not checked: there is no plan")
    plan = facts.plan
    what = f"{plan.class_name} of {plan.kind}" if plan.class_name else str(plan.kind)
    return _passed(
        "files",
        f"{what}: {len(plan.files)} files, {format_bytes(plan.total)}, "
        f"{format_bytes(facts.missing_bytes)} to download",
    )


def _cache(facts: Facts) -> CheckResult:
    if isinstance(facts.problem, CacheNotWritableError):
        return _failed("cache", facts.problem)
    if facts.disk is None:
        return _skipped("cache", "not checked")
    if not facts.missing_bytes or facts.disk.writable:
        return _passed("cache", facts.disk.folder)
    return CheckResult(
        name="cache",
        status=CheckStatus.FAILED,
        message=f"the cache folder {facts.disk.folder} cannot be written",
        hint="Pass a folder of your own as `cache_dir=`, or set HF_HOME.",
        reference=CacheNotWritableError.reference,
    )


def _disk(facts: Facts) -> CheckResult:
    if isinstance(facts.problem, DiskFullError):
        return _failed("disk", facts.problem)
    if not facts.check_disk_space:
        return _skipped("disk", "not checked: check_disk_space is off")
    if facts.disk is None:
        return _skipped("disk", "not checked")
    required = facts.missing_bytes
    if required and facts.required_disk_bytes is not None:
        required = facts.required_disk_bytes
    figures = (
        f"{format_bytes(required)} required, {format_bytes(facts.disk.free)} available "
        f"at {facts.disk.folder}"
    )
    if facts.disk.free < required:
        return CheckResult(
            name="disk",
            status=CheckStatus.FAILED,
            message=f"not enough disk space: {figures}",
            hint=f"Free {format_bytes(required - facts.disk.free)} there, or pass a folder on "
            "another disk as `cache_dir=`.",
            reference=DiskSpaceError.reference,
        )
    if required and facts.disk.free - required < LOW_DISK_BYTES:
        return CheckResult(
            name="disk",
            status=CheckStatus.WARNING,
            message=f"the disk will be almost full: {figures}",
            hint="Free some space there, or pass a folder on another disk as `cache_dir=`.",
        )
    return _passed("disk", figures)


def _packages(facts: Facts) -> CheckResult:
    if facts.plan is None or not facts.packages:
        return _skipped("packages", "not checked: nothing is loaded")
    missing = [name for name, version in facts.packages.items() if version is None]
    if missing:
        return CheckResult(
            name="packages",
            status=CheckStatus.FAILED,
            message=f"not installed: {', '.join(missing)}",
            hint=install_hint(missing, facts.plan.kind),
            reference=MissingPackageError.reference,
        )
    name = facts.plan.class_name
    if (
        facts.plan.kind is Kind.DIFFUSERS
        and not facts.plan.custom_code
        and name
        and facts.pipelines is not None
        and name.endswith("Pipeline")
        and name not in facts.pipelines
    ):
        return CheckResult(
            name="packages",
            status=CheckStatus.FAILED,
            message=f"diffusers {facts.packages.get('diffusers')} has no {name}",
            hint="Install a newer version and restart the kernel: "
            "%pip install -U diffusers transformers accelerate",
            reference=UnsupportedClassError.reference,
        )
    versions = ", ".join(f"{name} {version}" for name, version in facts.packages.items())
    return _passed("packages", versions)


CHECKS: tuple[Check, ...] = (
    Check("hub", (), _hub),
    Check("access", ("hub",), _access),
    Check("files", ("access",), _files),
    Check("cache", ("access",), _cache),
    Check("disk", ("access",), _disk),
    Check("packages", ("files",), _packages),
)

# -- what a plan needs -----------------------------------------------------------------------------

_BY_KIND: Mapping[Kind, tuple[str, ...]] = {
    Kind.DIFFUSERS: ("torch", "diffusers", "transformers", "accelerate"),
    Kind.SENTENCE_TRANSFORMERS: ("torch", "sentence_transformers"),
    Kind.TRANSFORMERS: ("torch", "transformers"),
}

# Components that need more than their library, which says so only after the download, and not
# plainly: without torchvision the error speaks of VIDEO_PROCESSOR_MAPPING.
_BY_CLASS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\w*VLProcessor|\w*VideoProcessor", ("torchvision", "PIL")),
    (r"\w*(ImageProcessor(Fast)?|FeatureExtractor)", ("PIL",)),
)

_EXTRAS = {
    Kind.DIFFUSERS: "diffusers",
    Kind.SENTENCE_TRANSFORMERS: "embeddings",
    Kind.TRANSFORMERS: "embeddings",
}


def required_packages(plan: Plan) -> tuple[str, ...]:
    """Name the packages, as they are imported, that the load of a plan needs."""
    more: list[str] = []
    for component in plan.components:
        for pattern, packages in _BY_CLASS:
            if re.fullmatch(pattern, component.class_name or ""):
                more.extend(packages)
        names = {path.rpartition("/")[2] for path in component.paths}
        if names & {"spiece.model", "sentencepiece.bpe.model"} and "tokenizer.json" not in names:
            more.append("sentencepiece")
    return tuple(dict.fromkeys((*_BY_KIND[plan.kind], *more)))


def install_hint(missing: list[str], kind: Kind) -> str:
    """Give the one line to paste that installs what is missing.

    One line for all, so that pip finds versions that fit together.
    """
    own = set(_BY_KIND[kind]) | {"torchvision"}
    extra = [f'"nbloader-hub[{_EXTRAS[kind]}]"'] if own & set(missing) else []
    others = [{"PIL": "pillow"}.get(name, name) for name in missing if name not in own]
    return f"Run this and restart the kernel: %pip install {' '.join([*extra, *others])}"


# -- the report ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightReport:
    """What the checks found. Shows itself in a notebook, and as text by `str`.

    Attributes:
        results: of all checks, in their order.
        plan: what would be loaded; None if it did not come so far.
        missing_bytes: what would be downloaded.
    """

    repo_id: str
    results: tuple[CheckResult, ...]
    plan: Plan | None = None
    missing_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The results that failed."""
        return tuple(item for item in self.results if item.status is CheckStatus.FAILED)

    def raise_for_failures(self) -> None:
        """Raise if a check failed.

        Raises:
            NbloaderError: the error that the one failure names, such as `DiskSpaceError`.
            PreflightError: several checks failed.
        """
        if len(self.failures) == 1:
            failure = self.failures[0]
            raise error_from_parts(failure.reference, failure.message, failure.hint)
        if self.failures:
            raise PreflightError(
                "; ".join(f"{failure.name}: {failure.message}" for failure in self.failures),
                hint="\n        ".join(failure.hint for failure in self.failures),
            )

    def to_json(self) -> dict[str, Any]:
        """Give the report as plain values for `json.dumps`."""
        return {
            "repo_id": self.repo_id,
            "ok": self.ok,
            "commit_hash": self.plan.commit_hash if self.plan else None,
            "kind": str(self.plan.kind) if self.plan else None,
            "total_bytes": self.plan.total if self.plan else None,
            "missing_bytes": self.missing_bytes,
            "checks": [{**asdict(item), "status": str(item.status)} for item in self.results],
        }

    def __str__(self) -> str:
        from nbloader.views.checks import render_text

        return render_text(self.results)

    def _repr_html_(self) -> str:
        from nbloader.views.checks import render_html

        return render_html(self.results)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("PreflightReport(...)" if cycle else str(self))


def _passed(name: str, message: str) -> CheckResult:
    return CheckResult(name=name, status=CheckStatus.PASSED, message=message)


def _skipped(name: str, message: str) -> CheckResult:
    return CheckResult(name=name, status=CheckStatus.SKIPPED, message=message)


def _failed(name: str, error: NbloaderError) -> CheckResult:
    return CheckResult(
        name=name,
        status=CheckStatus.FAILED,
        message=error.message,
        hint=error.hint,
        reference=error.reference,
    )
