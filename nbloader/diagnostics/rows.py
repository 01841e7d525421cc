"""Facts, settings and environment variables turned into rows. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from urllib.parse import urlsplit

from nbloader.checks import PreflightReport
from nbloader.errors import InvalidTokenError, NbloaderError
from nbloader.fit import gpu_problem
from nbloader.history import JobEntry
from nbloader.hub_cache.report import CacheReport
from nbloader.libraries import changed_since_import
from nbloader.records import (
    CheckStatus,
    DiskFacts,
    GpuFacts,
    MachineFacts,
    PackageFacts,
    TorchFacts,
)
from nbloader.redaction import Redactor
from nbloader.text import format_bytes, format_duration
from nbloader.views import ICONS, Row, counted

MAX_REPOS = 10
MAX_RETRIES = 10
"""Of each job; the newest."""

_SHOWN = re.compile(
    r"(HF|HUGGING_?FACE|NBLOADER|XDG_CACHE|CUDA_(VISIBLE|DEVICE_ORDER)|TRANSFORMERS_OFFLINE"
    r"|PYTORCH_\w*ALLOC|(HTTPS?|ALL|NO)_PROXY)\w*",
    re.IGNORECASE,
)
_HUB = re.compile(r"HF_|HUGGING_?FACE", re.IGNORECASE)
_SECRET = re.compile(r"TOKEN(?!_PATH)|SECRET|PASSWORD|KEY", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"@|\bhf_\w{4,}|bearer|basic ", re.IGNORECASE)
_SET = "(set)"
_HUB_ADDRESS = "https://huggingface.co"


# -- the machine -----------------------------------------------------------------------------------


def machine_rows(machine: MachineFacts, disk: DiskFacts | None) -> Iterable[Row]:
    """Yield the rows of the machine; `disk` is that of the cache, None if it cannot be asked."""
    where, memory, driver = machine.place, machine.memory, machine.driver
    yield Row(
        name="place",
        text=f"{where.place}, {where.interface}" + (f" ({where.source})" if where.source else ""),
        data=asdict(where),
    )
    yield Row(name="processors", text=str(os.cpu_count() or "–"))
    yield Row(
        name="memory",
        text=f"{format_bytes(memory.available)} available of {format_bytes(memory.total)} "
        f"({memory.source})"
        if memory.total
        else "unknown",
        data=asdict(memory),
    )
    if disk is None:
        yield Row(name="disk", text="unknown: the file system of the cache cannot be asked")
    else:
        writable = "" if disk.writable else ", cannot be written"
        yield Row(
            name="disk",
            text=f"{format_bytes(disk.free)} free of {format_bytes(disk.total)} at {disk.folder}"
            f"{writable} ({disk.source})",
            data=asdict(disk),
        )
    for number, gpu in enumerate(machine.gpus):
        yield Row(name=f"gpu {number}", text=_gpu(gpu, machine), data=asdict(gpu))
    if not machine.gpus:
        yield Row(name="gpu", text="Apple's, by MPS" if machine.mps else "none (NVIDIA)")
    if driver is not None:
        yield Row(
            name="driver",
            text=f"{driver.version}, runs CUDA {_version(driver.cuda)}",
            data=asdict(driver),
        )
    if machine.torch is not None:
        yield Row(name="torch build", text=_torch(machine.torch), data=asdict(machine.torch))


def _gpu(gpu: GpuFacts, machine: MachineFacts) -> str:
    text = (
        f"{gpu.name}, {format_bytes(gpu.free)} free of {format_bytes(gpu.total)}, "
        f"compute capability {_version(gpu.capability)}"
    )
    problem = gpu_problem(gpu, machine)
    return f"{text}; {problem}" if problem else text


def _torch(torch: TorchFacts) -> str:
    if torch.version == "?":
        return "unknown: its files cannot be read"
    made_for = "AMD" if torch.hip else f"CUDA {_version(torch.cuda)}" if torch.cuda else "the CPU"
    archs = f", kernels for {' '.join(torch.archs)}" if torch.archs else ""
    return f"{torch.version} for {made_for}{archs}"


def _version(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))


def package_rows(packages: Mapping[str, PackageFacts]) -> Iterable[Row]:
    """Yield installed versions, and the imported ones where they differ."""
    for name, found in packages.items():
        text = found.installed or "missing"
        if changed_since_import(found):
            text += f"; imported is {found.imported}: restart the kernel"
        if not found.compiled:
            text += "; not compiled: its import takes three times as long"
        yield Row(name=name, text=text)


# -- the Hub ---------------------------------------------------------------------------------------


def token_rows(source: str, preflight: PreflightReport | None) -> Iterable[Row]:
    """Say whether there is a token, where it comes from, and what the Hub said to it."""
    yield Row(name="token", text=f"from {source}" if source else "none")
    if source and preflight is not None:
        refused = any(each.reference == InvalidTokenError.reference for each in preflight.results)
        asked = any(
            (each.name, each.status) == ("hub", CheckStatus.PASSED) for each in preflight.results
        )
        if refused or asked:
            text = "the Hub does not accept it" if refused else "the Hub did not refuse it"
            yield Row(name="valid", text=text, data={"refused": refused})


def preflight_rows(report: PreflightReport) -> Iterable[Row]:
    """Yield the results of the checks."""
    yield Row(name="repo_id", text=report.repo_id)
    for result in report.results:
        more = f" {result.hint}" if result.hint else ""
        yield Row(
            name=result.name,
            text=f"{ICONS[result.status]} {result.message}{more}",
            data={**asdict(result), "status": str(result.status)},
        )


# -- the last jobs ---------------------------------------------------------------------------------


def job_line(job: JobEntry) -> str:
    """Write a job in one line."""
    end = job.status if not job.reference else f"{job.status} ({job.reference})"
    kind = f" as {job.kind}" if job.kind else ""
    parts = [
        f"{job.repo_id}{kind}: {end} after {format_duration(job.seconds)}",
        f"{format_bytes(job.fetched)} fetched of {format_bytes(job.total)}",
    ]
    if job.retry_count:
        parts.append(f"{job.retry_count} retries")
    if job.notices:
        parts.append(f"notices: {', '.join(job.notices)}")
    return "; ".join(parts)


def job_rows(jobs: Sequence[JobEntry]) -> Iterable[Row]:
    """Yield the jobs, the newest first, each with its stages and its last retries."""
    for job in reversed(jobs):
        stages = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in job.stages)
        yield Row(
            name=job.started,
            text=job_line(job) + (f"; {stages}" if stages else ""),
            data={name: value for name, value in asdict(job).items() if name != "retries"},
        )
        for retry in job.retries[-MAX_RETRIES:]:
            route = f" over {retry.route}" if retry.route else ""
            yield Row(
                name=f"retry {retry.time}",
                text=f"{retry.path or 'a call'}: {retry.reason}; again after "
                f"{format_duration(retry.wait_s)}{route}",
                data=asdict(retry),
            )


# -- the cache -------------------------------------------------------------------------------------


def cache_rows(report: CacheReport | NbloaderError) -> Iterable[Row]:
    """Yield the sums of the cache and its largest repositories."""
    if isinstance(report, NbloaderError):
        yield Row(name="not read", text=report.message)
        return
    known = {section.key: section.rows for section in report.sections()}
    yield from known["cache"]
    for name, key in (("partial downloads", "partials"), ("orphaned blobs", "orphans")):
        found = [each for repo in report.repos for each in getattr(repo, key)]
        size = sum(each.bytes for each in found)
        yield Row(
            name=name,
            text=f"{len(found)}, {format_bytes(size)}",
            data={"count": len(found), "bytes": size},
        )
    for row in known["can_go"]:
        yield Row(name=f"can go: {row.name}", text=row.text, data=row.data)
    largest = sorted(report.repos, key=lambda repo: -repo.bytes)
    for repo in largest[:MAX_REPOS]:
        refs = sorted({ref for revision in repo.revisions for ref in revision.refs})
        problems = f"; not as it should be: {repo.problems[0]}" if repo.problems else ""
        yield Row(
            name=repo.repo_id,
            text=f"{repo.repo_type}, {format_bytes(repo.bytes)}, "
            + counted(len(repo.revisions), "revision", "revisions")
            + (f" ({', '.join(refs)})" if refs else "")
            + problems,
            data={"type": repo.repo_type, "bytes": repo.bytes, "refs": refs},
        )
    if len(largest) > MAX_REPOS:
        rest = largest[MAX_REPOS:]
        yield Row(name=f"and {len(rest)} more", text=format_bytes(sum(repo.bytes for repo in rest)))


# -- environment variables and the Hub's settings --------------------------------------------------


def redacted(environ: Mapping[str, str], redact: Redactor) -> dict[str, str]:
    """Pick the variables that matter: secrets become `(set)`, addresses lose what they carry."""
    return {name: _value(name, environ[name], redact) for name in sorted(environ) if _shown(name)}


def _shown(name: str) -> bool:
    return _SHOWN.fullmatch(name) is not None


def _value(name: str, value: str, redact: Redactor) -> str:
    if "://" in value and " " not in value and "," not in value:
        try:
            parts = urlsplit(value)
        except ValueError:
            return _SET
        value = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    # What still looks like a secret, or could hold one, is not shown at all.
    if _SECRET.search(name) or _SECRET_VALUE.search(value):
        return _SET
    return redact(value)[:200]


def variable_rows(environ: Mapping[str, str], redact: Redactor) -> Iterable[Row]:
    """Yield the variables that are none of the Hub's."""
    for name, value in redacted(environ, redact).items():
        if not _HUB.match(name):
            yield Row(name=name, text=value)


def hub_rows(
    environ: Mapping[str, str], worker: Mapping[str, str], cache_dir: str, redact: Redactor
) -> Iterable[Row]:
    """Yield the settings of the Hub's library and of Xet as a download process has them.

    Args:
        environ: of this process.
        worker: of the download process that would be started.
        cache_dir: where the cache is, whatever says so.
    """
    unset = {"HF_ENDPOINT": _HUB_ADDRESS, "HF_HUB_CACHE": cache_dir}
    # The worker gets its token in another way, and no variable of that name.
    shown = redacted(unset, redact) | redacted(environ, redact) | redacted(worker, redact)
    for name in sorted(filter(_HUB.match, shown)):
        by, text = "environment", shown[name]
        if name in worker and environ.get(name) != worker[name]:
            by, text = "nbloader", f"{text} (set by nbloader)"
        elif name not in environ:
            by, text = "default", f"{text} (default)"
        yield Row(name=name, text=text, data={"value": shown[name], "set_by": by})
