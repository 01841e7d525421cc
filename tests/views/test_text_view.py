from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace

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
from nbloader.views.text import TextView, progress_line, render
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
        "connect: org/name\n"
        "set up\n"
        "download: 4 files, 100 MB, 20.0 MB of it cached\n"
        "  retry: transformer/model.safetensors: timed out; attempt 1 of 5 failed, the next in "
        "5.0 s\n"
        "  note: the token is old. Make a new one.\n"
        "  [ 60 %] 60.0 of 100 MB, 3.5 MB/s, download 11 s left\n"
        "  downloaded 80.0 MB in 21 s, 3.8 MB/s\n"
        "initialise\n"
        "ready in 24 s: SomePipeline on cpu, float32\n"
    )


def test_a_terminal_rewrites_the_running_line_and_leaves_none_of_it() -> None:
    out = show(JOB, interactive=True)
    assert "\r  [ 60 %] 60.0 of 100 MB, 3.5 MB/s, download 11 s left\x1b[K" in out
    left = [line.rpartition("\x1b[K")[2] for line in out.split("\n")]
    lines = show(JOB, interactive=False).split("\n")
    assert left == [line for line in lines if "left" not in line]


def test_speed_and_time_left_can_be_hidden() -> None:
    assert "  [ 60 %] 60.0 of 100 MB\n" in show(JOB, interactive=False, speed=False)


def test_a_failure_is_the_last_line() -> None:
    failed = Failed(reference="disk-full", message="the disk is full", hint="Free some.")
    out = show([*JOB[:4], (5.0, failed)], interactive=False)
    assert out.splitlines()[-1] == "failed after 5.0 s: the disk is full [disk-full]"


@pytest.mark.parametrize("reference", ["interrupted", "cancelled"])
def test_what_its_user_stopped_has_not_failed(reference: str) -> None:
    failed = Failed(reference=reference, message="stopped", hint="Run it again.")
    out = show([*JOB[:4], (5.0, failed)], interactive=False)
    assert out.splitlines()[-1] == (
        "stopped after 5.0 s; 20.0 of 100 MB are kept; run it again to go on"
    )


def test_what_was_asked_again_stands_under_its_stage_in_one_line() -> None:
    state = JobState(repo_id="org/name", started_at=0.0, updated_at=0.0)
    again = Retry(time=0, path=None, reason="reset", wait_s=1, attempt=1, max_attempts=5)
    events: list[tuple[float, Event]] = [
        *JOB[:1],
        (0.5, again),
        *JOB[1:4],
        *[(3.0, replace(again, path=WEIGHTS, reason="no bytes came", attempt=0))] * 200,
        *JOB[-2:],
    ]
    for now, event in events:
        state = apply(state, event, now)
    assert render(state).splitlines()[:5] == [
        "connect: org/name",
        "  retry: the Hub: reset; attempt 1 of 5 failed, the next in 1.0 s",
        "set up",
        "download: 4 files, 100 MB, 20.0 MB of it cached",
        "  retry: 200 pieces fell silent and were asked again",
    ]


def test_attempts_that_fail_soon_after_one_another_are_told_of_together() -> None:
    again = Retry(time=0, path=WEIGHTS, reason="no bytes came", wait_s=0, attempt=0, max_attempts=5)
    waits = replace(again, reason="the server is busy", wait_s=4, attempt=2)
    job = [
        *JOB[:5],
        *[(4.0 + step / 10, again) for step in range(50)],
        (12.0, waits),
        (12.1, waits),
        (13.0, waits),
        (13.5, again),
        *JOB[-3:],
    ]
    lines = [line for line in show(job, interactive=False).splitlines() if "retry" in line]
    assert lines == [
        f"  retry: {WEIGHTS}: no bytes came; going on",
        "  retry: 49 pieces fell silent and were asked again; 1 attempt failed: the server is "
        "busy; attempt 2 of 5 failed, the next in 4.0 s",
        "  retry: 2 attempts failed: the server is busy; attempt 2 of 5 failed, the next in 4.0 s",
        f"  retry: {WEIGHTS}: no bytes came; going on",
    ]


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
    assert lines[0] == "connect: org/name"
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


def test_a_silence_is_told_of() -> None:
    state = JobState(repo_id="org/name", started_at=0.0, updated_at=0.0)
    for now, event in JOB[:5]:
        state = apply(state, event, now)
    assert progress_line(advance(state, 13.0)) == ("  [ 25 %] 25.0 of 100 MB, no bytes for 10 s")
