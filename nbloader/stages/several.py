"""Several repositories in one call: one look at each, one check over all, then one after another.

What two of them have is told by the hash of its content, which is its name in the cache. It is
counted once and fetched once: the second gets a link to the same bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from nbloader.assess import Survey, gather, gather_joint, judge
from nbloader.checks import Facts, JointReport, disk, in_words_of
from nbloader.errors import NbloaderError
from nbloader.hub_names import repo_folder
from nbloader.limits import WAIT_STEP_S
from nbloader.records import (
    Checked,
    CheckResult,
    Component,
    Event,
    FileDone,
    FileProgress,
    Kind,
    Notice,
    Retry,
    Selected,
    Selection,
    Silence,
    Stage,
)
from nbloader.redaction import short_path
from nbloader.stages.asking import run_worker
from nbloader.stages.preflight import seen, with_trial
from nbloader.stages.run import Run

if TYPE_CHECKING:
    from nbloader.checks import PreflightReport
    from nbloader.request import Request

LOOKS = 4
"""Repositories that are looked at at once: each takes a process, and a second of a core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look at one of several repositories has found.

    Attributes:
        label: what it is called among the others.
        selected: None if it ended with `problem`.
    """

    request: Request
    label: str
    selected: Selected | None = None
    problem: NbloaderError | None = None


def labels(requests: Sequence[Request]) -> list[str]:
    """Name each request: by its id, and by what tells it from those of the same id."""
    revisions: dict[str, set[str]] = {}
    inside: dict[str, set[str]] = {}
    for request in requests:
        revisions.setdefault(request.repo_id, set()).add(request.revision)
        inside.setdefault(request.repo_id, set()).add(request.named)

    def label(request: Request) -> str:
        at = f"@{request.revision}" if len(revisions[request.repo_id]) > 1 else ""
        path = f"/{request.named}" if len(inside[request.repo_id]) > 1 and request.named else ""
        return f"{request.repo_id}{at}{path}"

    return [label(request) for request in requests]


# -- all as one ------------------------------------------------------------------------------------


def joined(found: Iterable[Found]) -> Selected | None:
    """Put the selections together, each as one part. None if there is none.

    A path begins with the label of its repository and a colon. What another of the repositories
    has in the cache, or will have fetched by then, need not be fetched.
    """
    every = [(one.label, one.selected) for one in found if one.selected is not None]
    if not every:
        return None
    there = {
        file.etag
        for _, selected in every
        for file in selected.selection.files
        if file.path in selected.cached
    }
    files, parts, cached, partial, copied = [], [], [], {}, {}
    for label, selected in every:
        selection = selected.selection
        own = {file.etag for file in selection.files}
        for file in selection.files:
            path = f"{label}:{file.path}"
            repo_id = f"{label}:{file.repo_id}" if file.repo_id else label
            files.append(replace(file, path=path, repo_id=repo_id))
            if file.path in selected.cached:
                cached.append(path)
            elif file.etag and file.etag in there:
                copied[path] = 0
            elif file.path in selected.copied:
                copied[path] = selected.copied[file.path]
            elif file.path in selected.partial:
                partial[path] = selected.partial[file.path]
        there |= own
        parts.append(
            Component(
                name=label,
                paths=tuple(f"{label}:{file.path}" for file in selection.files),
                weights=tuple(
                    f"{label}:{path}" for part in selection.components for path in part.weights
                ),
            )
        )
    first = every[0][1]
    kinds = {selected.selection.kind for _, selected in every}
    return Selected(
        selection=Selection(
            repo_id=", ".join(label for label, _ in every),
            revision=first.selection.revision,
            commit_hash=first.selection.commit_hash,
            kind=kinds.pop() if len(kinds) == 1 else Kind.FILES,
            class_name=None,
            components=tuple(parts),
            files=tuple(sorted(files, key=lambda file: file.path)),
        ),
        cached=tuple(sorted(cached)),
        partial=partial,
        copied=copied,
        hub=first.hub,
    )


def joint_report(
    every: Sequence[Facts],
    joint: Selected | None,
    finish: Callable[[int, PreflightReport], PreflightReport] = lambda index, report: report,  # noqa: ARG005
) -> JointReport:
    """Judge each repository for itself, and the disk for all of them together.

    Args:
        finish: completes the report of a repository, by its number.
    """
    reports = [judge(facts) for facts in every]
    known = [facts for facts in every if facts.selection is not None]
    together = known[0] if known else None
    missing = shared = 0
    if joint is not None and together is not None:
        facts = gather_joint(known, joint)
        result = in_words_of(facts.reader, disk(facts))
        reports = [
            replace(report, results=_with_disk(report, result)) if report.selection else report
            for report in reports
        ]
        missing = facts.missing_bytes
        shared = sum(each.missing_bytes for each in every) - missing
    return JointReport(
        reports=tuple(finish(index, report) for index, report in enumerate(reports)),
        missing_bytes=missing,
        shared_bytes=shared,
        disk=together.disk if together else None,
    )


def _with_disk(report: PreflightReport, result: CheckResult) -> tuple[CheckResult, ...]:
    return tuple(result if each.name == result.name else each for each in report.results)


# -- the calls -------------------------------------------------------------------------------------


def check_several(requests: Sequence[Request]) -> JointReport:
    """Make the checks of several loads and nothing more.

    Raises:
        InputError: the device that was asked for is not there.
        WorkerDiedError, ProtocolError: the checks could not be made.
    """
    survey = Survey()
    found = _look_at_all(requests, publish=None)
    facts = [
        gather(one.request, survey=survey, selected=one.selected, problem=one.problem)
        for one in found
    ]

    def finish(index: int, report: PreflightReport) -> PreflightReport:
        return replace(report, results=partial(with_trial, requests[index], report))

    return joint_report(facts, joined(found), finish)


def download_several(run: Run, requests: Sequence[Request]) -> tuple[list[Path], str]:
    """Check all, then bring the files of one repository after the other into the cache."""
    reporter = run.reporter
    reporter.begin(Stage.CONNECT)
    found = _look_at_all(
        requests, publish=reporter.publish, tick=reporter.tick, cancelled=run.cancelled
    )
    reporter.begin(Stage.SET_UP)
    facts = [
        gather(one.request, survey=None, selected=one.selected, problem=one.problem)
        for one in found
    ]
    joint = joined(found)
    report = joint_report(facts, joint)
    if joint is not None:
        reporter.publish(joint)
    reporter.publish(Checked(results=report.results))
    report.raise_for_failures(force=run.request.force)
    reporter.begin(Stage.DOWNLOAD)
    donors = _donors(found)
    places = [_fetch(run, one, one.selected, donors) for one in found if one.selected is not None]
    reporter.begin(Stage.FINISH)
    cache = short_path(joint.hub.cache_dir) if joint is not None and joint.hub else ""
    return places, f"{len(places)} repositories in {cache}"


def _fetch(run: Run, one: Found, selected: Selected, donors: Sequence[str]) -> Path:
    """Bring the files of one of the repositories, as they were looked at."""
    request, reporter = one.request, run.reporter

    def tell(event: Event) -> None:
        match event:
            case FileProgress() | FileDone() | Silence():
                reporter.publish(replace(event, path=f"{one.label}:{event.path}"))
            case Retry():
                path = None if event.path is None else f"{one.label}:{event.path}"
                reporter.publish(replace(event, path=path))
            case Notice():
                reporter.publish(event)

    place = run_worker(
        request,
        request.settings.policy(),
        publish=tell,
        approve=lambda selected: None,  # noqa: ARG005 - it was approved with the others
        check=reporter.tick,
        cancelled=run.cancelled,
        loads=False,
        commit_hash=selected.selection.commit_hash,
        companions=selected.selection.companions,
        donors=donors,
    )
    return request.place_in(place)


def _donors(found: Iterable[Found]) -> list[str]:
    """Return the folders of blobs of all repositories that files come from."""
    folders = []
    for one in found:
        if one.selected is None or one.selected.hub is None:
            continue
        cache, selection = Path(one.selected.hub.cache_dir), one.selected.selection
        names = [repo_folder(one.request.repo_id, one.request.repo_type)]
        names += [repo_folder(other.repo_id, other.repo_type) for other in selection.companions]
        folders += [str(cache / name / "blobs") for name in names]
    return list(dict.fromkeys(folders))


def _look_at_all(
    requests: Sequence[Request],
    *,
    publish: Callable[[Event], object] | None,
    tick: Callable[[], object] = lambda: None,
    cancelled: threading.Event | None = None,
) -> list[Found]:
    """Look at each repository, several at once, and make the calls in this thread meanwhile.

    Args:
        publish: told of retries and notices; None for checks, which nobody watches.

    Raises:
        WorkerDiedError, ProtocolError: that cannot be done.
    """
    stopped = threading.Event()
    told: SimpleQueue[Event] = SimpleQueue()

    def look(request: Request) -> Selected | NbloaderError:
        return seen(request, publish=told.put if publish is not None else None, cancelled=stopped)

    with ThreadPoolExecutor(LOOKS, thread_name_prefix="nbloader-look") as pool:
        looks: list[Future[Selected | NbloaderError]] = [
            pool.submit(look, request) for request in requests
        ]
        try:
            while True:
                _, left = wait(looks, WAIT_STEP_S)
                _tell(told, publish)
                tick()
                if cancelled is not None and cancelled.is_set():
                    stopped.set()
                if not left:
                    break
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
    found = []
    for request, label, one in zip(requests, labels(requests), looks, strict=True):
        answer = one.result()
        found.append(
            Found(request=request, label=label, selected=answer)
            if isinstance(answer, Selected)
            else Found(request=request, label=label, problem=answer)
        )
    return found


def _tell(
    told: SimpleQueue[Event],
    publish: Callable[[Event], object] | None,
) -> None:
    """Pass on what the looks have told, but for what they find: that is told for all of them."""
    while publish is not None:
        try:
            event = told.get_nowait()
        except Empty:
            return
        if isinstance(event, (Retry, Notice)):
            publish(event)
