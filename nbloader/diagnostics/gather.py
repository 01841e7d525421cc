"""What `doctor` gathers, and its report as text, HTML and JSON with the same content."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbloader._version import __version__
from nbloader.checks import PreflightReport
from nbloader.diagnostics.rows import (
    cache_rows,
    hub_rows,
    job_line,
    job_rows,
    machine_rows,
    package_rows,
    preflight_rows,
    token_rows,
    variable_rows,
)
from nbloader.errors import (
    CacheNotWritableError,
    InvalidRepoIdError,
    InvalidSettingError,
    NbloaderError,
)
from nbloader.history import History, JobEntry
from nbloader.hub_cache.report import CacheReport, cache
from nbloader.libraries import package_facts
from nbloader.machine import disk_facts_or_none, folder_of_environment, machine_facts
from nbloader.records import CheckStatus
from nbloader.redaction import Redactor
from nbloader.state import JobState
from nbloader.text import format_duration, plain
from nbloader.tokens import token_origin
from nbloader.views import (
    ICONS,
    Row,
    Section,
    ShownReport,
    pasted,
    sections_html,
    sections_json,
    sections_text,
)

if TYPE_CHECKING:
    from nbloader.request import Request

PASTE = "To paste into a report of a problem:"

PACKAGES = (
    "huggingface_hub",
    "hf_xet",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "sentence_transformers",
    "accelerate",
    "bitsandbytes",
    "peft",
    "safetensors",
    "tokenizers",
    "ipywidgets",
    "ipykernel",
    "IPython",
    "jupyterlab",
    "tenacity",
    "pydantic",
)

_ISSUE_JOBS = 3
_ISSUE_RETRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport(ShownReport):
    """Versions, facts, checks and the last jobs. `str` of it ends with a block to paste.

    Attributes:
        sections: the findings, without secrets.
        issue: the same, shorter, in fenced Markdown.
        seconds: how long it took to gather them.
    """

    sections: tuple[Section, ...]
    issue: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values for `json.dumps`."""
        return {
            **sections_json(self.sections),
            "issue": self.issue,
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        took = f"Gathered in {format_duration(self.seconds)}."
        return f"{sections_text(self.sections)}\n\n{took} {PASTE}\n\n{self.issue}"

    def _repr_html_(self) -> str:
        took = f"Gathered in {format_duration(self.seconds)}. {PASTE}"
        return sections_html(self.sections, after=f"<div>{took}</div>{pasted(self.issue)}")


def doctor(repo_id: str | None = None) -> DoctorReport:
    """Gather what a report of a problem needs. Imports none of the heavy libraries.

    Tokens, passwords, the queries of addresses and the names of home folders are left out.

    Args:
        repo_id: also make the checks for this repository; otherwise nothing goes over the network.

    Raises:
        InvalidRepoIdError: `repo_id` is no id.
    """
    return _doctor(repo_id, None)


def _doctor(repo_id: str | None, cache_dir: str | None) -> DoctorReport:
    """Gather it for a cache folder; for None where every library looks."""
    begun = time.monotonic()
    preflight = None if repo_id is None else _preflight(repo_id)
    jobs = History.of_environment(os.environ).entries()
    sections = redacted_sections(_sections(preflight, jobs, cache_dir), Redactor.here())
    return DoctorReport(
        sections=sections,
        issue=fenced(list(_issue(sections, jobs, Redactor.here()))),
        seconds=time.monotonic() - begun,
    )


def issue_of_job(request: Request, state: JobState) -> str:
    """Return the block to paste for a job of this process: what it was asked for and how it stands,
    before what `doctor` finds, of the cache folder that the job was given."""
    at = f" at {request.revision}" if request.folder is None else ", a folder"
    lines = [f"job: {request.repo_id}{at}, {state.status}"]
    if state.stage is not None:
        lines[0] += f" in {state.stage} after {state.elapsed:.0f} s"
    if state.failure is not None:
        lines.append(f"{state.failure.reference}: {state.failure.message}")
    lines.append(f"token {'passed' if isinstance(request.token, str) else 'not passed'}")
    changed = request.settings.model_dump(exclude_defaults=True)
    asked = {
        "endpoint": request.endpoint,
        "cache_dir": request.cache_dir,
        **changed,
        "force": request.force or None,
    }
    lines += [f"{name}={value}" for name, value in asked.items() if value is not None]
    lines += [
        f"retry: {retry.path or 'a call'}: {retry.reason}"
        for retry in state.retries[-_ISSUE_RETRIES:]
    ]
    redact = Redactor.here()
    return fenced([*map(redact, lines), *_doctor(None, request.cache_dir).issue.splitlines()[1:-1]])


def _preflight(repo_id: str) -> PreflightReport | NbloaderError:
    from nbloader.request import Call, checked
    from nbloader.stages import check

    try:
        return check(checked(Call(repo_id)), tries=False)
    except InvalidRepoIdError:
        raise
    except NbloaderError as error:  # A wrong setting, or a worker that cannot be started.
        return error


def _sections(
    preflight: PreflightReport | NbloaderError | None,
    jobs: tuple[JobEntry, ...],
    cache_dir: str | None,
) -> Iterable[Section]:
    redact = Redactor.here()
    usual = folder_of_environment(os.environ)
    disk = disk_facts_or_none(Path(cache_dir) if cache_dir else usual)
    report = preflight if isinstance(preflight, PreflightReport) else None
    yield Section(
        key="nbloader",
        title=f"nbloader {__version__}",
        rows=(
            Row(name="version", text=__version__),
            Row(name="python", text=sys.version.split()[0]),
            Row(name="platform", text=platform.platform()),
            Row(name="settings", text=_settings()),
        ),
    )
    yield Section(
        key="machine",
        title="Machine",
        rows=tuple(machine_rows(machine_facts(), disk)),
    )
    yield Section(
        key="packages", title="Packages", rows=tuple(package_rows(package_facts(PACKAGES)))
    )
    if preflight is not None:
        yield _checks(preflight)
    yield Section(key="token", title="Token", rows=tuple(token_rows(token_origin().source, report)))
    yield Section(
        key="hub",
        title="Settings of the Hub's library and of Xet in a download",
        rows=tuple(hub_rows(os.environ, _worker_environment(cache_dir), str(usual), redact)),
    )
    yield Section(
        key="variables",
        title="Other environment variables",
        rows=tuple(variable_rows(os.environ, redact)),
    )
    yield Section(key="jobs", title="Last jobs, the newest first", rows=tuple(job_rows(jobs)))
    yield Section(key="cache", title="Cache", rows=tuple(cache_rows(_cache(cache_dir))))


def _checks(preflight: PreflightReport | NbloaderError) -> Section:
    if isinstance(preflight, PreflightReport):
        title, rows = f"Preflight of {preflight.repo_id}", tuple(preflight_rows(preflight))
    else:
        title = "Preflight"
        rows = (Row(name="not made", text=f"{preflight.message} {preflight.hint}"),)
    return Section(key="preflight", title=title, rows=rows)


def _cache(cache_dir: str | None) -> CacheReport | NbloaderError:
    try:
        return cache(cache_dir)
    except NbloaderError as error:
        return error
    except (OSError, RuntimeError, ValueError) as error:  # A dead mount, links in a circle.
        return CacheNotWritableError(
            f"the cache folder cannot be asked: {type(error).__name__}",
            hint="Pass a folder of your own as `cache_dir=`, or set HF_HOME.",
        )


def _settings() -> str:
    from nbloader.settings import Settings

    try:
        changed = Settings().model_dump(exclude_defaults=True)
    except InvalidSettingError as error:
        return f"wrong: {error.message}"
    return ", ".join(f"{key}={value}" for key, value in changed.items()) or "defaults"


def _worker_environment(cache_dir: str | None) -> Mapping[str, str]:
    from nbloader.settings import Settings
    from nbloader.transfer.child import environment

    try:
        stall_timeout_s = Settings().stall_timeout_s
    except InvalidSettingError:
        return environment(os.environ, endpoint=None, cache_dir=cache_dir)
    return environment(
        os.environ, endpoint=None, cache_dir=cache_dir, stall_timeout_s=stall_timeout_s
    )


def _issue(
    sections: tuple[Section, ...], jobs: tuple[JobEntry, ...], redact: Redactor
) -> Iterable[str]:
    """Choose the lines that a reader of a problem asks for first."""
    rows = {section.key: {row.name: row.text for row in section.rows} for section in sections}
    about, machine = rows["nbloader"], rows["machine"]
    yield f"nbloader {about['version']}, Python {about['python']}, {about['platform']}"
    for name in machine:
        yield f"{name}: {machine[name]}"
    yield "packages: " + ", ".join(
        f"{name} {text}" for name, text in rows["packages"].items() if text != "missing"
    )
    yield f"settings: {about['settings']}; token {rows['token']['token']}"
    set_here = {
        name: text
        for key in ("hub", "variables")
        for name, text in rows[key].items()
        if name in os.environ
    }
    if set_here:
        yield "environment: " + ", ".join(f"{name}={text}" for name, text in set_here.items())
    loud = (ICONS[CheckStatus.FAILED], ICONS[CheckStatus.WARNING])
    for name, text in rows.get("preflight", {}).items():
        if name in ("repo_id", "not made") or text.startswith(loud):
            yield f"preflight: {text}" if name == "repo_id" else f"  {name}: {text}"
    for job in reversed(jobs[-_ISSUE_JOBS:]):
        yield redact(f"job {job.started}: {job_line(job)}")
        for retry in job.retries[-_ISSUE_RETRIES:]:
            yield redact(f"  retry: {retry.path or 'a call'}: {retry.reason}")
    cached = rows["cache"]
    yield "cache: " + "; ".join(
        f"{name.removesuffix(' all')} {cached[name]}"
        for name in ("folder", "repositories", "partial downloads", "can go: all", "not read")
        if name in cached
    )


def redacted_sections(sections: Iterable[Section], redact: Redactor) -> tuple[Section, ...]:
    """Take secrets and names out of all that sections hold."""
    return tuple(
        replace(
            section,
            title=redact(section.title),
            total=redact(section.total),
            rows=tuple(
                Row(
                    name=redact(row.name),
                    text=redact(row.text),
                    data=None if row.data is None else _redacted(row.data, redact),
                )
                for row in section.rows
            ),
        )
        for section in sections
    )


def _redacted(value: Any, redact: Redactor) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(key)): _redacted(each, redact) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(each, redact) for each in value]
    return value


def fenced(lines: Sequence[str]) -> str:
    """Put lines into a block of Markdown that no line of them can end."""
    text = "\n".join(plain(line, 400) for line in lines)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
