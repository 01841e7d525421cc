from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.records import (
    ComponentDownloaded,
    ComponentLoaded,
    Event,
    Failed,
    FileDone,
    FileProgress,
    Notice,
    Planned,
    Ready,
    Retry,
    Stage,
    StageStarted,
)
from nbloader.state import (
    SPEED_WINDOW_S,
    STAGE_SPANS,
    ComponentState,
    JobState,
    StageState,
    Status,
    advance,
    apply,
)
from tests.samples import MB, PLAN

WEIGHTS = "transformer/model.safetensors"


def fold(events: Iterable[tuple[float, Event]], state: JobState | None = None) -> JobState:
    state = state or JobState(repo_id="org/name", started_at=100.0, updated_at=100.0)
    for now, event in events:
        state = apply(state, event, now)
    return state


DOWNLOADING = (
    (100.0, StageStarted(stage=Stage.CONNECT)),
    (101.0, StageStarted(stage=Stage.SET_UP)),
    (102.0, Planned(plan=PLAN, cached=("model_index.json", "vae/model.safetensors"))),
    (102.0, StageStarted(stage=Stage.DOWNLOAD)),
)


def test_a_whole_job_folds_into_one_record() -> None:
    retry = Retry(time=1.0, path=WEIGHTS, reason="timed out", wait_s=5.0, attempt=1, max_attempts=5)
    notice = Notice(reference="invalid-token", message="m", hint="h")
    loaded = ComponentLoaded(name="vae", seconds=0.5)
    state = fold(
        (
            *DOWNLOADING,
            (103.0, FileProgress(path=WEIGHTS, completed=10 * MB)),
            (104.0, retry),
            (104.0, FileProgress(path=WEIGHTS, completed=0)),
            (105.0, notice),
            (110.0, FileDone(path=WEIGHTS)),
            (110.0, FileDone(path="transformer/config.json")),
            (110.0, ComponentDownloaded(name="transformer")),
            (110.0, FileDone(path="model_index.json")),
            (111.0, StageStarted(stage=Stage.INITIALISE)),
            (112.0, loaded),
            (113.0, Ready(summary="done")),
        )
    )
    assert state == JobState(
        repo_id="org/name",
        started_at=100.0,
        updated_at=113.0,
        status=Status.READY,
        stages=(
            StageState(stage=Stage.CONNECT, started_at=100.0, ended_at=101.0),
            StageState(stage=Stage.SET_UP, started_at=101.0, ended_at=102.0),
            StageState(stage=Stage.DOWNLOAD, started_at=102.0, ended_at=111.0),
            StageState(stage=Stage.INITIALISE, started_at=111.0, ended_at=113.0),
        ),
        plan=PLAN,
        cached=frozenset({"model_index.json", "vae/model.safetensors"}),
        completed=MappingProxyType({file.path: file.size for file in PLAN.files}),
        done=frozenset(file.path for file in PLAN.files),
        fetched=80 * MB + 1_000,
        kept=20 * MB + 1_000,
        downloaded=frozenset({"transformer"}),
        loaded=(loaded,),
        retries=(retry,),
        notices=(notice,),
        samples=(
            (102.0, 0),
            (103.0, 10 * MB),
            (104.0, 0),
            (110.0, 80 * MB),
            (110.0, 80 * MB + 1_000),
        ),
        summary="done",
    )
    assert (state.total, state.cached_bytes, state.to_fetch) == (
        100 * MB + 2_000,
        20 * MB + 1_000,
        80 * MB + 1_000,
    )
    assert state.percent == 100
    assert state.average_speed == pytest.approx((80 * MB + 1_000) / 9)
    assert state.components == (
        ComponentState(name="config", total=1_000, completed=1_000, downloaded=False, loaded=False),
        ComponentState(
            name="transformer",
            total=80 * MB + 1_000,
            completed=80 * MB + 1_000,
            downloaded=True,
            loaded=False,
        ),
        ComponentState(name="vae", total=20 * MB, completed=20 * MB, downloaded=False, loaded=True),
    )


def test_speed_and_time_left_follow_the_last_seconds() -> None:
    steps = [(102.0 + s, FileProgress(path=WEIGHTS, completed=s * MB)) for s in range(1, 31)]
    state = fold((*DOWNLOADING, *steps))
    assert state.speed == pytest.approx(MB)
    assert state.time_remaining == pytest.approx(50, rel=0.01)


def test_a_stalled_download_slows_down_to_nothing() -> None:
    state = fold((*DOWNLOADING, (103.0, FileProgress(path=WEIGHTS, completed=10 * MB))))
    speeds = [advance(state, 103.0 + seconds).speed for seconds in (0, 4, 14, 15, 16, 600)]
    assert speeds == [10 * MB, 2 * MB, pytest.approx(10 * MB / 15), pytest.approx(0), 0, 0]
    assert advance(state, 600.0).time_remaining is None


def test_nothing_is_known_before_the_plan() -> None:
    state = fold(DOWNLOADING[:2])
    found = (state.speed, state.time_remaining, state.total, state.components, state.percent)
    assert found == (None, None, 0, (), 10)


def test_a_failure_ends_the_running_stage() -> None:
    failed = Failed(reference="disk-full", message="m", hint="h")
    state = fold((*DOWNLOADING, (105.0, failed)))
    assert (state.status, state.failure, state.stages[-1].ended_at) == (
        Status.FAILED,
        failed,
        105.0,
    )


def test_the_spans_of_the_stages_meet_and_reach_from_0_to_100() -> None:
    spans = [STAGE_SPANS[stage] for stage in Stage]
    assert [low for low, _ in spans] == [0, *(high for _, high in spans[:-1])]
    assert spans[-1][1] == 100


EVENTS = st.one_of(
    st.builds(
        FileProgress,
        path=st.sampled_from([file.path for file in PLAN.files]),
        completed=st.integers(0, 20 * MB),
    ),
    st.builds(FileDone, path=st.sampled_from([file.path for file in PLAN.files])),
)


@given(st.lists(st.tuples(st.floats(0, 2), EVENTS), max_size=60))
def test_the_sums_hold_whatever_arrives(steps: list[tuple[float, Event]]) -> None:
    state = fold(DOWNLOADING)
    now = 102.0
    for pause, event in steps:
        now += pause
        state = apply(state, event, now)
        assert state.fetched == sum(state.completed.values()) - state.cached_bytes
        assert 20 <= state.percent <= 80
        assert state.speed is None or state.speed >= 0
        assert len(state.samples) <= 2 * SPEED_WINDOW_S + 3
