from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import PlainTextFormatter

from nbloader.notebook import Turn
from nbloader.records import (
    ComponentLoaded,
    Event,
    Failed,
    FileDone,
    FileProgress,
    LibrariesImported,
    Notice,
    Ready,
    Retry,
    Selected,
    Silence,
    Stage,
    StageStarted,
)
from nbloader.state import (
    MAX_HISTORY,
    FileState,
    JobState,
    Pace,
    Span,
    StageState,
    Status,
    Step,
    advance,
    apply,
)
from tests import jobs
from tests.samples import MB, SELECTION

WEIGHTS = "transformer/model.safetensors"


def fold(events: Iterable[tuple[float, Event]], state: JobState | None = None) -> JobState:
    state = state or JobState(repo_id="org/name", started_at=100.0, updated_at=100.0)
    for now, event in events:
        state = apply(state, event, now)
    return state


DOWNLOADING = (
    (100.0, StageStarted(stage=Stage.CONNECT)),
    (101.0, StageStarted(stage=Stage.SET_UP)),
    (102.0, Selected(selection=SELECTION, cached=("model_index.json", "vae/model.safetensors"))),
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
            (110.0, FileDone(path="model_index.json")),
            (111.0, LibrariesImported(seconds=8.5)),
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
        selection=SELECTION,
        total=100 * MB + 2_000,
        sizes={file.path: file.size for file in SELECTION.files},
        cached=frozenset({"model_index.json", "vae/model.safetensors"}),
        completed=MappingProxyType({file.path: file.size for file in SELECTION.files}),
        done=frozenset(file.path for file in SELECTION.files),
        fetched=80 * MB + 1_000,
        share=1.0,
        kept=20 * MB + 1_000,
        moving=frozenset({WEIGHTS, "transformer/config.json"}),
        loaded=(loaded,),
        retries=(retry,),
        retried_at=(104.0,),
        due={},
        notices=(notice,),
        pace=Pace.beginning(102.0)
        .arrived(103.0, 10 * MB)
        .arrived(110.0, 80 * MB)
        .arrived(110.0, 1_000, small=True),
        fastest=(80 * MB + 1_000) / 7,
        history=(
            (102.0, 0),
            (103.0, 10 * MB),
            (104.0, 0),
            (110.0, 80 * MB),
            (110.0, 80 * MB + 1_000),
        ),
        byte_at=110.0,
        stalls=(Span(started_at=103.0, ended_at=110.0),),
        downloads={"transformer": Span(started_at=103.0, ended_at=110.0)},
        importing=Span(started_at=102.5, ended_at=111.0),
        summary="done",
    )
    assert (state.total, state.cached_bytes, state.to_fetch) == (
        100 * MB + 2_000,
        20 * MB + 1_000,
        80 * MB + 1_000,
    )
    assert state.percent == 100
    assert state.average_speed == pytest.approx((80 * MB + 1_000) / 9)
    assert [(part.name, part.step, part.total, part.completed) for part in state.components] == [
        ("config", Step.READY, 1_000, 1_000),
        ("transformer", Step.READY, 80 * MB + 1_000, 80 * MB + 1_000),
        ("vae", Step.READY, 20 * MB, 20 * MB),
    ]


def steps_of(state: JobState) -> dict[str, str]:
    return {part.name: str(part.step) for part in state.components}


def test_components_go_from_waiting_to_ready() -> None:
    seen = []
    state = fold(DOWNLOADING)
    for event in (
        FileProgress(path=WEIGHTS, completed=10 * MB),
        FileProgress(path=WEIGHTS, completed=80 * MB),
        FileDone(path=WEIGHTS),
        FileDone(path="transformer/config.json"),
        StageStarted(stage=Stage.INITIALISE),
        LibrariesImported(seconds=1.0),
        Ready(summary="done"),
    ):
        seen.append(steps_of(state)["transformer"])
        state = apply(state, event, 110.0)
    seen.append(steps_of(state)["transformer"])
    assert seen == [
        "waiting",
        "downloading",
        "verifying",
        "waiting",  # for the last of its files, of which nothing has come
        "downloaded",
        "downloaded",  # The libraries are not there yet.
        "loading",
        "ready",
    ]
    assert state.components[1].files == (
        FileState(
            path="transformer/config.json", total=1_000, completed=1_000, step=Step.DOWNLOADED
        ),
        FileState(path=WEIGHTS, total=80 * MB, completed=80 * MB, step=Step.DOWNLOADED),
    )


def test_a_component_is_not_being_loaded_while_the_work_waits_for_a_cell() -> None:
    events = [FileDone(path=file.path) for file in SELECTION.files]
    state = fold((*DOWNLOADING, *((110.0, event) for event in events)))
    libraries = (110.0, LibrariesImported(seconds=1.0))
    state = fold((libraries, (110.0, StageStarted(stage=Stage.INITIALISE))), state)
    seen = {turn: steps_of(advance(state, 111.0, turn=turn))["vae"] for turn in (None, *Turn)}
    assert seen == {None: "loading", Turn.DUE: "downloaded", Turn.UNDER_WAY: "loading"}


def test_a_component_begins_to_arrive_with_its_weights() -> None:
    config = "transformer/config.json"
    state = fold((*DOWNLOADING, (104.0, FileProgress(path=config, completed=1_000))))
    assert state.downloads == {}
    state = fold(((109.0, FileProgress(path=WEIGHTS, completed=MB)),), state)
    assert state.downloads == {"transformer": Span(started_at=109.0)}


def test_a_notebook_shows_a_state_in_one_line() -> None:
    state = fold((*DOWNLOADING, (103.0, FileProgress(path=WEIGHTS, completed=30 * MB))))
    shown = PlainTextFormatter()
    assert shown(state) == "<JobState 'org/name': running, download, 50 %, 50.0 MB of 100 MB>"
    assert shown(JobState(repo_id="a", started_at=0, updated_at=0)) == (
        "<JobState 'a': running, 0 %, 0 B of 0 B>"
    )


def test_what_is_only_downloaded_is_not_ready_to_use() -> None:
    events = [FileDone(path=file.path) for file in SELECTION.files]
    state = fold((*DOWNLOADING, *((110.0, event) for event in events)))
    state = fold(((111.0, StageStarted(stage=Stage.FINISH)), (111.0, Ready(summary="x"))), state)
    assert set(steps_of(state).values()) == {"downloaded"}


def test_parts_of_an_earlier_job_wait_until_they_grow() -> None:
    selected = Selected(selection=SELECTION, partial={WEIGHTS: 30 * MB})
    state = fold(((100.0, selected), (101.0, StageStarted(stage=Stage.DOWNLOAD))))
    assert steps_of(state)["transformer"] == "waiting"
    assert (state.there, state.to_fetch) == (30 * MB, 70 * MB + 2_000)
    state = apply(state, FileProgress(path=WEIGHTS, completed=31 * MB), 102.0)
    assert steps_of(state)["transformer"] == "downloading"


def test_seconds_without_a_byte_are_counted_while_one_is_waited_for() -> None:
    before = fold(DOWNLOADING[:3])
    assert before.quiet_s is None
    state = fold(DOWNLOADING)
    assert [advance(state, 102.0 + seconds).quiet_s for seconds in (0, 3)] == [0, 3]
    state = apply(state, FileProgress(path=WEIGHTS, completed=MB), 106.0)
    assert advance(state, 106.5).quiet_s == 0.5
    # A retry that takes bytes back brings none.
    state = apply(state, FileProgress(path=WEIGHTS, completed=0), 109.0)
    assert state.quiet_s == 3
    state = fold(((110.0, FileDone(path=file.path)) for file in SELECTION.files), state)
    assert advance(state, 120.0).quiet_s is None  # Hashing goes on; nothing is waited for.


def test_a_longer_silence_is_kept_as_a_stall() -> None:
    arrivals = [(103.0, 1), (104.9, 2), (107.0, 3), (107.5, 4), (120.0, 5)]
    state = fold(
        (*DOWNLOADING, *((at, FileProgress(path=WEIGHTS, completed=n * MB)) for at, n in arrivals))
    )
    assert state.stalls == (
        Span(started_at=104.9, ended_at=107.0),
        Span(started_at=107.5, ended_at=120.0),
    )
    failed = apply(state, Failed(reference="r", message="m", hint="h"), 150.0)
    assert failed.stalls[-1] == Span(started_at=120.0, ended_at=150.0)


@given(st.lists(st.floats(0.01, 20), min_size=1, max_size=600))
def test_the_history_is_bounded_and_keeps_its_ends(pauses: list[float]) -> None:
    state = fold(DOWNLOADING)
    now = 102.0
    for number, pause in enumerate(pauses, 1):
        now += pause
        state = apply(state, FileProgress(path=WEIGHTS, completed=number), now)
    assert len(state.history) <= MAX_HISTORY
    assert state.history[0] == (102.0, 0)
    assert state.history[-1] == (now, len(pauses))
    assert list(state.history) == sorted(state.history)


def test_a_long_history_keeps_its_shape() -> None:
    state = fold(DOWNLOADING)
    for second in range(1, 5001):
        state = apply(state, FileProgress(path=WEIGHTS, completed=second * 1000), 102.0 + second)
    times = [at for at, _ in state.history]
    steps = [later - earlier for earlier, later in pairwise(times)]
    assert MAX_HISTORY / 4 < len(times) <= MAX_HISTORY
    assert max(steps) <= 4 * 5000 / MAX_HISTORY
    assert all(fetched == (at - 102.0) * 1000 for at, fetched in state.history)


def test_that_a_cell_waits_lasts_until_the_next_look() -> None:
    state = advance(fold(DOWNLOADING), 103.0, waited_for=True)
    state = apply(state, FileProgress(path=WEIGHTS, completed=MB), 103.5)
    assert state.waited_for
    assert not advance(state, 104.0).waited_for


def test_speed_and_time_left_follow_the_last_seconds() -> None:
    steps = [(102.0 + s, FileProgress(path=WEIGHTS, completed=s * MB)) for s in range(1, 31)]
    state = fold((*DOWNLOADING, *steps))
    assert state.speed == pytest.approx(MB)
    assert state.time_remaining == pytest.approx(50, rel=0.01)


def test_a_silent_download_has_no_speed_and_no_time_left() -> None:
    steps = [(103.0 + s, FileProgress(path=WEIGHTS, completed=s * 10 * MB)) for s in range(4)]
    state = fold((*DOWNLOADING, *steps))
    later = [advance(state, 106.0 + seconds) for seconds in (0, 1.4, 1.9, 2.0, 600)]
    # A pause of a second was usual so far.
    assert [each.speed for each in later] == [
        10 * MB,
        10 * MB,
        pytest.approx(20 * MB / 2.4),
        None,
        None,
    ]
    assert [each.time_remaining is None for each in later] == [False] * 3 + [True] * 2
    assert [each.fastest for each in later] == [10 * MB] * 5


def test_where_nothing_is_awaited_there_is_no_speed_and_no_time_left() -> None:
    steps = [(103.0 + s, FileProgress(path=WEIGHTS, completed=s * 10 * MB)) for s in range(4)]
    state = fold((*DOWNLOADING, *steps))
    assert None not in (state.speed, state.time_remaining)
    for end in (Failed(reference="interrupted", message="m", hint="h"), Ready(summary="done")):
        ended = apply(state, end, 106.0)
        assert (ended.speed, ended.time_remaining, ended.fastest) == (None, None, 10 * MB)
    there = fold(((107.0, FileDone(path=file.path)) for file in SELECTION.files), state)
    assert (there.speed, there.time_remaining) == (None, None)


def test_what_another_process_brought_is_no_speed() -> None:
    config = "transformer/config.json"
    steps = [(103.0 + s / 10, FileProgress(path=config, completed=s * 10)) for s in range(30)]
    state = apply(fold((*DOWNLOADING, *steps)), FileDone(path=WEIGHTS), 106.0)
    assert state.there == 100 * MB + 1_290
    assert state.fastest == pytest.approx(100, rel=0.2)


def test_the_time_left_is_told_of_large_files_once_one_of_them_comes() -> None:
    config = "transformer/config.json"
    steps = [(103.0 + s / 10, FileProgress(path=config, completed=s * 10)) for s in range(20)]
    state = fold((*DOWNLOADING, *steps))
    assert state.speed == pytest.approx(100)
    assert state.time_remaining is None
    steps = [(105.0 + s / 10, FileProgress(path=WEIGHTS, completed=s * MB)) for s in range(1, 20)]
    state = fold(steps, state)
    assert state.time_remaining == pytest.approx(6.1, abs=0.1)


def test_a_silence_says_when_bytes_are_asked_for_again() -> None:
    state = apply(fold(DOWNLOADING), FileProgress(path=WEIGHTS, completed=MB), 103.0)
    silent = apply(state, Silence(path=WEIGHTS, asked_again_in_s=29.0), 104.0)
    left = [advance(silent, now).asked_again_in for now in (103.9, 104.0, 132.5, 133.0, 140.0)]
    assert left == [29.0, 29.0, 0.5, None, None]
    late = apply(state, Silence(path=WEIGHTS, asked_again_in_s=29.0, at=104.0), 107.0)
    assert late.asked_again_in == 26.0
    for event in (
        FileProgress(path=WEIGHTS, completed=2 * MB),
        waiting(WEIGHTS, 0.0),
        Failed(reference="r", message="m", hint="h"),
        Silence(path=WEIGHTS, asked_again_in_s=float("nan")),
    ):
        assert apply(silent, event, 106.0).asked_again_in is None


def test_percent_is_the_share_of_the_bytes_and_never_goes_back() -> None:
    state = fold(DOWNLOADING[:2])
    assert state.percent == 0
    state = fold(DOWNLOADING[2:], state)
    assert state.percent == pytest.approx(20, abs=0.01)  # What was there before counts.
    seen = []
    for completed in (30, 60, 0, 10, 70):
        state = apply(state, FileProgress(path=WEIGHTS, completed=completed * MB), 103.0)
        seen.append(round(state.percent))
    assert seen == [50, 80, 80, 80, 90]
    failed = apply(state, Failed(reference="r", message="m", hint="h"), 104.0)
    assert round(failed.percent) == 90
    assert apply(state, Ready(summary="done"), 104.0).percent == 100


@given(jobs.jobs)
def test_figures_stay_within_their_bounds_whatever_happens(
    events: list[tuple[float, Event]],
) -> None:
    seen, ready = list(jobs.states(events)), False
    for before, state in pairwise(seen):
        ready = ready or before.status is Status.READY
        assert ready or before.percent <= state.percent
        assert before.fastest <= state.fastest
    for state in seen:
        assert 0 <= state.percent <= 100
        for told in (
            state.speed,
            state.time_remaining,
            state.next_attempt_in,
            state.asked_again_in,
            state.fastest,
        ):
            assert told is None or (told >= 0 and math.isfinite(told))


def waiting(path: str | None, wait_s: float, *, attempt: int = 1) -> Retry:
    return Retry(time=1.0, path=path, reason="r", wait_s=wait_s, attempt=attempt, max_attempts=5)


def test_the_next_attempt_is_counted_down_until_it_comes() -> None:
    state = apply(fold(DOWNLOADING), waiting(WEIGHTS, 8.0), 103.0)
    left = [advance(state, now).next_attempt_in for now in (103.0, 106.5, 110.9, 111.0, 112.0)]
    assert left == [8.0, 4.5, pytest.approx(0.1), None, None]
    assert fold(DOWNLOADING).next_attempt_in is None


def test_of_several_attempts_the_soonest_is_waited_for() -> None:
    config = "transformer/config.json"
    state = fold(
        ((103.0, waiting(WEIGHTS, 30.0)), (104.0, waiting(config, 9.0))), fold(DOWNLOADING)
    )
    assert state.next_attempt_in == 9.0
    assert advance(state, 113.5).next_attempt_in == 19.5
    # A file is asked for no sooner than was said before.
    assert apply(state, waiting(WEIGHTS, 1.0), 114.0).next_attempt_in == 19.0


def test_nobody_waits_for_a_file_that_has_got_bytes_meanwhile() -> None:
    config = "transformer/config.json"
    both = ((103.0, waiting(WEIGHTS, 30.0)), (103.0, waiting(config, 9.0)))
    state = fold(both, fold(DOWNLOADING))
    state = apply(state, FileDone(path=config), 104.0)
    assert state.next_attempt_in == 29.0
    # An attempt that starts over has brought nothing.
    state = fold(
        (
            (105.0, FileProgress(path=WEIGHTS, completed=MB)),
            (105.0, waiting(WEIGHTS, 9.0)),
            (106.0, FileProgress(path=WEIGHTS, completed=0)),
        ),
        state,
    )
    assert state.next_attempt_in == 8.0
    assert apply(state, FileProgress(path=WEIGHTS, completed=1), 107.0).next_attempt_in is None


def test_a_call_about_no_file_is_waited_for_until_bytes_come_or_the_job_ends() -> None:
    state = apply(fold(DOWNLOADING), waiting(None, 30.0), 103.0)
    assert state.next_attempt_in == 30.0
    assert apply(state, FileProgress(path=WEIGHTS, completed=1), 104.0).next_attempt_in is None
    ended = apply(state, Failed(reference="r", message="m", hint="h"), 104.0)
    assert ended.next_attempt_in is None


@pytest.mark.parametrize("wait_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_wait_that_is_none_is_not_counted_down(wait_s: float) -> None:
    assert apply(fold(DOWNLOADING), waiting(WEIGHTS, wait_s), 103.0).next_attempt_in is None


def test_the_history_reaches_to_now_while_bytes_are_awaited_and_keeps_a_silence_at_the_end() -> (
    None
):
    state = fold(DOWNLOADING[:3])
    assert state.history_until is None
    state = fold((DOWNLOADING[3], (103.0, FileProgress(path=WEIGHTS, completed=MB))), state)
    assert advance(state, 109.0).history_until == 109.0
    failed = apply(state, Failed(reference="interrupted", message="m", hint="h"), 119.0)
    assert failed.history_until == 119.0
    assert advance(failed, 150.0).history_until == 119.0
    whole = fold(((110.0, FileDone(path=file.path)) for file in SELECTION.files), state)
    assert advance(whole, 120.0).history_until == 110.0  # Hashing and building bring no bytes.


def test_nothing_is_known_before_the_selection() -> None:
    state = fold(DOWNLOADING[:2])
    found = (state.speed, state.time_remaining, state.total, state.components, state.percent)
    assert found == (None, None, 0, (), 0)


def test_a_failure_ends_the_running_stage() -> None:
    failed = Failed(reference="disk-full", message="m", hint="h")
    state = fold((*DOWNLOADING, (105.0, failed)))
    assert (state.status, state.failure, state.stages[-1].ended_at) == (
        Status.FAILED,
        failed,
        105.0,
    )


EVENTS = st.one_of(
    st.builds(
        FileProgress,
        path=st.sampled_from([file.path for file in SELECTION.files]),
        completed=st.integers(0, 20 * MB),
    ),
    st.builds(FileDone, path=st.sampled_from([file.path for file in SELECTION.files])),
)


@given(st.lists(st.tuples(st.floats(0, 2), EVENTS), max_size=60))
def test_the_sums_hold_whatever_arrives(steps: list[tuple[float, Event]]) -> None:
    state = fold(DOWNLOADING)
    now, before = 102.0, state.percent
    for pause, event in steps:
        now += pause
        state = apply(state, event, now)
        assert state.fetched == sum(state.completed.values()) - state.cached_bytes
        assert 0 <= before <= state.percent <= 100
        before = state.percent
        assert state.speed is None or state.speed >= 0


def test_what_is_copied_on_this_machine_is_not_fetched() -> None:
    state = fold(
        [
            (101.0, Selected(selection=SELECTION, copied={WEIGHTS: 0})),
            (102.0, StageStarted(stage=Stage.DOWNLOAD)),
        ]
    )
    size = next(file.size for file in SELECTION.files if file.path == WEIGHTS)
    assert (state.copied, state.kept, state.done) == (frozenset({WEIGHTS}), size, frozenset())
    assert state.to_fetch == SELECTION.total - size
    done = fold([(103.0, FileDone(path=WEIGHTS))], state)
    assert (done.fetched, done.done) == (0, frozenset({WEIGHTS}))
    assert done.to_fetch == state.to_fetch
