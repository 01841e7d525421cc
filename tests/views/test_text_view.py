from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from nbloader.records import (
    Event,
    Failed,
    FileDone,
    FileProgress,
    Notice,
    Ready,
    Retry,
    Selected,
    Stage,
    StageStarted,
)
from nbloader.state import JobState, advance, apply
from nbloader.text import plain
from nbloader.views.text import MAX_RETRIES, TextView, progress_line, render
from tests.samples import MB, SELECTION

WEIGHTS = "transformer/model.safetensors"


def show(events: Iterable[tuple[float, Event]], *, interactive: bool, speed: bool = True) -> str:
    out = io.StringIO()
    now = 0.0
    view = TextView(out, interactive=interactive, speed=speed, eta=speed, clock=lambda: now)
    state = JobState(repo_id="org/name", started_at=0.0, updated_at=0.0)
    for now, event in events:
        state = apply(state, event, now)
        view.update(state)
    view.close(state)
    return out.getvalue()


JOB: tuple[tuple[float, Event], ...] = (
    (0.0, StageStarted(stage=Stage.CONNECT)),
    (1.0, StageStarted(stage=Stage.SET_UP)),
    (2.0, Selected(selection=SELECTION, cached=("vae/model.safetensors",))),
    (2.0, StageStarted(stage=Stage.DOWNLOAD)),
    (3.0, FileProgress(path=WEIGHTS, completed=5 * MB)),
    (
        4.0,
        Retry(time=0, path=WEIGHTS, reason="timed out", wait_s=5, attempt=1, max_attempts=5),
    ),
    (4.0, Notice(reference="invalid-token", message="the token is old", hint="Make a new one.")),
    (13.0, FileProgress(path=WEIGHTS, completed=40 * MB)),
    (14.0, FileProgress(path=WEIGHTS, completed=60 * MB)),
    (22.0, FileDone(path=WEIGHTS)),
    (23.0, StageStarted(stage=Stage.INITIALISE)),
    (24.0, Ready(summary="SomePipeline on cpu, float32")),
)


def test_a_log_gets_sparse_plain_lines() -> None:
    assert show(JOB, interactive=False) == (
        "[  0 %] connect: org/name\n"
        "[ 10 %] set up\n"
        "[ 20 %] download: 4 files, 100 MB, 20.0 MB of it cached\n"
        "        retry: transformer/model.safetensors: timed out; attempt 1 of 5 failed, the next "
        "in 5.0 s\n"
        "        note: the token is old. Make a new one.\n"
        "[ 60 %] 60.0 MB of 100 MB, 3.6 MB/s, 11 s left\n"
        "        downloaded 80.0 MB in 21 s, 3.8 MB/s\n"
        "[ 80 %] initialise\n"
        "[100 %] ready in 24 s: SomePipeline on cpu, float32\n"
    )


def test_a_terminal_rewrites_the_running_line_and_leaves_none_of_it() -> None:
    out = show(JOB, interactive=True)
    assert "\r[ 25 %] 25.0 MB of 100 MB, 5.0 MB/s, 15 s left\x1b[K" in out
    left = [line.rpartition("\x1b[K")[2] for line in out.split("\n")]
    lines = show(JOB, interactive=False).split("\n")
    assert left == [line for line in lines if "left" not in line]


def test_speed_and_time_left_can_be_hidden() -> None:
    assert "[ 60 %] 60.0 MB of 100 MB\n" in show(JOB, interactive=False, speed=False)


def test_a_failure_is_the_last_line() -> None:
    failed = Failed(reference="disk-full", message="the disk is full", hint="Free some.")
    out = show([*JOB[:4], (5.0, failed)], interactive=False)
    assert out.splitlines()[-1] == "        failed after 5.0 s: the disk is full [disk-full]"


@pytest.mark.parametrize("reference", ["interrupted", "cancelled"])
def test_what_its_user_stopped_has_not_failed(reference: str) -> None:
    failed = Failed(reference=reference, message="stopped", hint="Run it again.")
    out = show([*JOB[:4], (5.0, failed)], interactive=False)
    assert out.splitlines()[-1] == f"        stopped after 5.0 s [{reference}]"


def test_each_retry_stands_under_its_stage_and_the_oldest_are_counted() -> None:
    state = JobState(repo_id="org/name", started_at=0.0, updated_at=0.0)
    retry = Retry(time=0, path=None, reason="reset", wait_s=1, attempt=1, max_attempts=5)
    early, late = 20, MAX_RETRIES - 10
    events: list[tuple[float, Event]] = [
        *JOB[:1],
        *[(0.5, replace(retry, reason=f"early {number}")) for number in range(early)],
        *JOB[1:4],
        *[(3.0, replace(retry, reason=f"late {number}")) for number in range(late)],
        *JOB[-2:],
    ]
    for now, event in events:
        state = apply(state, event, now)
    lines = render(state).splitlines()
    assert lines[:3] == [
        "[  0 %] connect: org/name",
        "        10 earlier retries",
        "        retry: the Hub: early 10; attempt 1 of 5 failed, the next in 1.0 s",
    ]
    stages = [number for number, line in enumerate(lines) if line.startswith("[")]
    assert [end - begin - 1 for begin, end in pairwise(stages)] == [11, 0, late, 0]


def test_foreign_text_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[2Jb\r\nc\u202ed\x00") == "a [2Jb c d"
    assert plain("x" * 500) == "x" * 299 + "…"


def test_a_job_that_is_begun_again_is_told_of_from_its_start() -> None:
    out = io.StringIO()
    view = TextView(out, interactive=False, clock=lambda: 0.0)
    for _ in range(2):
        state = JobState(repo_id="org/name", started_at=0.0, updated_at=0.0)
        for now, event in JOB[:6]:
            state = apply(state, event, now)
            view.update(state)
    lines = out.getvalue().splitlines()
    assert lines[0] == "[  0 %] connect: org/name"
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


def test_a_silence_is_told_of() -> None:
    state = JobState(repo_id="org/name", started_at=0.0, updated_at=0.0)
    for now, event in JOB[:5]:
        state = apply(state, event, now)
    assert progress_line(advance(state, 13.0)) == (
        "[ 25 %] 25.0 MB of 100 MB, 455 kB/s, no bytes for 10 s"
    )
