"""How long imports and build will take, from the last jobs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.notebook import Turn
from nbloader.records import (
    Checked,
    Event,
    Failed,
    FileDone,
    FileProgress,
    LibrariesImported,
    Ready,
    Selected,
    Stage,
    StageStarted,
)
from nbloader.state import Expected, JobState, PastJob, advance, apply, recall
from nbloader.state.forecast import expected
from tests.jobs import FIT, WEIGHTS, jobs, states
from tests.samples import MB, SELECTION

JOB = PastJob(
    repo_id="org/name", kind="diffusers", device="cuda:0", plan="gpu", total=1000 * MB, fetched=True
)
LAST = replace(JOB, import_s=7.0, build_s=6.0)


@pytest.mark.parametrize(
    ("past", "found"),
    [
        pytest.param([], Expected(), id="nothing"),
        pytest.param([LAST], Expected(import_s=7.0, build_s=6.0, same=True), id="the same"),
        pytest.param(
            [LAST, replace(LAST, build_s=8.0)],
            Expected(import_s=7.0, build_s=8.0, same=True),
            id="the last one",
        ),
        pytest.param(
            [LAST, replace(LAST, build_s=1.0, repo_id="org/other")],
            Expected(import_s=7.0, build_s=6.0, same=True),
            id="not another repository",
        ),
        pytest.param(
            [replace(LAST, build_s=1.0), replace(LAST, build_s=4.0, fetched=False)],
            Expected(import_s=7.0, build_s=1.0, same=True),
            id="beside a download as well",
        ),
        pytest.param(
            [replace(LAST, repo_id="org/other", total=500 * MB)],
            Expected(import_s=7.0, build_s=12.0),
            id="scaled by bytes",
        ),
        pytest.param(
            [
                replace(LAST, repo_id="org/other", build_s=3.0),
                replace(LAST, plan="4-bit", build_s=20.0),
            ],
            Expected(import_s=7.0, build_s=3.0),
            id="the same plan before the same repository",
        ),
        pytest.param(
            [replace(LAST, plan="4-bit")], Expected(import_s=7.0, build_s=6.0), id="another plan"
        ),
        pytest.param([replace(LAST, device="cpu")], Expected(import_s=7.0), id="another device"),
        pytest.param([replace(LAST, kind="transformers")], Expected(), id="another kind"),
        pytest.param(
            [replace(LAST, total=100 * MB), replace(LAST, total=9000 * MB), replace(LAST, total=0)],
            Expected(import_s=7.0),
            id="of another size",
        ),
        pytest.param(
            [LAST, replace(LAST, import_s=0.01), replace(LAST, import_s=None)],
            Expected(import_s=7.0, build_s=6.0, same=True),
            id="libraries that were there already",
        ),
        pytest.param([replace(LAST, build_s=None)], Expected(import_s=7.0), id="no build"),
    ],
)
def test_the_job_that_is_most_alike_tells(past: Sequence[PastJob], found: Expected) -> None:
    assert expected(past, JOB) == found


amounts = st.one_of(st.none(), st.floats(0, 86_400))
past_jobs = st.lists(
    st.builds(
        PastJob,
        repo_id=st.sampled_from(["org/name", "org/other"]),
        kind=st.sampled_from(["diffusers", ""]),
        device=st.sampled_from(["cuda:0", "cpu"]),
        plan=st.sampled_from(["gpu", "4-bit", ""]),
        total=st.integers(0, 1 << 62),
        fetched=st.booleans(),
        import_s=amounts,
        build_s=amounts,
    ),
    max_size=20,
)


@given(past_jobs, st.integers(0, 1 << 62))
def test_whatever_is_remembered_what_is_told_is_a_number(past: list[PastJob], total: int) -> None:
    found = expected(past, replace(JOB, total=total))
    for seconds in (found.import_s, found.build_s):
        assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


# -- in a job --------------------------------------------------------------------------------------

BEGUN: tuple[tuple[float, Event], ...] = (
    (0.0, StageStarted(stage=Stage.CONNECT)),
    (1.0, Selected(selection=SELECTION)),
    (1.0, Checked(results=(), fit=FIT)),
    (1.0, StageStarted(stage=Stage.DOWNLOAD)),
    *((2.0 + n, FileProgress(path=WEIGHTS, completed=(n + 1) * 5 * MB)) for n in range(9)),
)
"""55 MB of 100 are still to come after 10 s, at 5 MB/s."""

THERE: tuple[tuple[float, Event], ...] = (
    *((20.0, FileDone(path=file.path)) for file in SELECTION.files),
    (21.0, StageStarted(stage=Stage.INITIALISE)),
)
BEFORE = replace(LAST, total=SELECTION.total)


def job(*events: tuple[float, Event], past: Sequence[PastJob] = (BEFORE,)) -> JobState:
    state = recall(JobState(repo_id="org/name", started_at=0.0, updated_at=0.0), past)
    for now, event in events:
        state = apply(state, event, now)
    return state


def test_ready_comes_when_both_are_there_and_the_model_is_built() -> None:
    state = job(*BEGUN)
    assert state.expected == Expected(import_s=7.0, build_s=6.0, same=True)
    assert state.time_remaining == pytest.approx(11.0, abs=0.01)
    assert state.time_to_ready == pytest.approx(17.0, abs=0.01)
    # Imports that take longer than the download decide.
    slow = job(*BEGUN, past=[replace(BEFORE, import_s=60.0)])
    assert slow.time_to_ready == pytest.approx(57.0)
    imported = apply(slow, LibrariesImported(seconds=9.0), 10.0)
    assert imported.time_to_ready == pytest.approx(17.0, abs=0.01)


def test_the_build_counts_down_and_is_not_told_of_once_it_takes_longer() -> None:
    state = job(*BEGUN, *THERE)
    assert (state.building_since, state.building_s, state.time_to_ready) == (None, None, None)
    state = apply(state, LibrariesImported(seconds=9.0), 22.0)
    later = [advance(state, 22.0 + seconds) for seconds in (0, 3.5, 5.9, 6.5)]
    assert [each.building_s for each in later] == [0.0, 3.5, pytest.approx(5.9), 6.5]
    assert [each.time_to_ready for each in later] == [
        pytest.approx(6.0),
        pytest.approx(2.5),
        pytest.approx(0.1),
        None,
    ]
    ready = apply(state, Ready(summary="done"), 27.0)
    assert (ready.building_s, ready.time_to_ready) == (None, None)
    assert ready.outline == replace(BEFORE, import_s=9.0, build_s=5.0)


def test_the_build_begins_with_the_last_byte_where_the_libraries_were_there_before() -> None:
    state = job(*BEGUN[:4], (9.0, LibrariesImported(seconds=8.0)), *BEGUN[4:], *THERE)
    assert (state.building_since, state.building_s) == (20.0, 1.0)


def test_what_is_in_the_cache_waits_for_imports_alone() -> None:
    cached = Selected(selection=SELECTION, cached=tuple(file.path for file in SELECTION.files))
    begun = ((1.0, cached), (1.0, Checked(results=(), fit=FIT)))
    state = job(*begun, (1.0, StageStarted(stage=Stage.INITIALISE)))
    assert advance(state, 3.0).time_to_ready == pytest.approx(10.0)
    # They take longer than the last time: nobody knows how long.
    assert advance(state, 7.5).time_to_ready is None
    imported = apply(state, LibrariesImported(seconds=8.0), 9.0)
    assert imported.time_to_ready == pytest.approx(6.0)


def test_where_nobody_can_know_nothing_is_told() -> None:
    state = job(*BEGUN)
    assert job(*BEGUN, past=()).time_to_ready is None
    assert advance(state, 30.0).time_to_ready is None  # in a silence
    assert advance(state, 10.0, turn=Turn.DUE).time_to_ready is None
    assert apply(state, Failed(reference="r", message="m", hint="h"), 10.0).time_to_ready is None
    assert job(*BEGUN, past=[replace(BEFORE, import_s=None)]).time_to_ready is None
    downloads = job(*(event for event in BEGUN if not isinstance(event[1], Checked)))
    assert (downloads.outline, downloads.time_to_ready) == (None, None)


@given(jobs, past_jobs)
def test_whatever_happens_what_is_told_is_a_number(
    events: list[tuple[float, Event]], past: list[PastJob]
) -> None:
    for state in states(events):
        known = recall(state, past)
        for seconds in (known.time_to_ready, known.building_s):
            assert seconds is None or (seconds >= 0 and math.isfinite(seconds))
