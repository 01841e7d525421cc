from __future__ import annotations

import itertools

import pytest
from hypothesis import given

from nbloader.records import Event, FileDone, FileProgress, Ready
from nbloader.reporter import FOLD_EVERY_S, Reporter
from nbloader.state import JobState
from tests import jobs
from tests.jobs import DOWNLOADING, LOADED, WEIGHTS, states
from tests.notebook_fakes import Clock
from tests.samples import MB, SELECTION


class Shown:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.states: list[JobState] = []
        self.closed: JobState | None = None

    def update(self, state: JobState) -> None:
        self.states.append(state)

    def close(self, state: JobState) -> None:
        self.closed = state


def play(events: list[tuple[float, Event]]) -> tuple[Reporter, Shown, list[Event]]:
    clock, view, told = Clock(), Shown(), list[Event]()
    reporter = Reporter("org/name", view, told.append, clock=clock)
    for clock.now, event in events:
        reporter.publish(event)
    return reporter, view, told


def test_events_are_folded_shown_and_told() -> None:
    events = list(LOADED)
    reporter, view, told = play(events)
    assert reporter.state == list(states(events))[-1]
    assert told == [event for _, event in events]
    assert view.states == list(states(events))


def test_a_storm_of_progress_is_folded_a_few_times_a_second() -> None:
    storm = [
        (3 + number / 1000, FileProgress(path=file.path, completed=number * 1000))
        for number in range(2000)
        for file in SELECTION.files[1:3]
    ]
    reporter, view, told = play([*DOWNLOADING[:5], *storm])
    assert len(told) == 5 + len(storm)
    assert len(view.states) == pytest.approx(5 + 2 / FOLD_EVERY_S, abs=2)
    reporter.tick()
    assert reporter.state.completed[WEIGHTS] == 1999 * 1000
    assert reporter.state.fetched == 2 * 1999 * 1000


def test_the_last_bytes_are_folded_before_what_follows() -> None:
    reporter, view, _ = play(
        [
            *DOWNLOADING[:5],
            (3.0, FileProgress(path=WEIGHTS, completed=MB)),
            (3.01, FileProgress(path=WEIGHTS, completed=2 * MB)),
            (3.02, FileProgress(path=WEIGHTS, completed=80 * MB)),
            (3.02, FileDone(path=WEIGHTS)),
        ]
    )
    assert reporter.state.fetched == 80 * MB
    reporter.finish(Ready(summary="done"))
    assert view.closed is reporter.state


@given(jobs.jobs)
def test_nothing_is_lost_on_the_way(events: list[tuple[float, Event]]) -> None:
    reporter, _, _ = play(events)
    reporter.tick()
    state = list(states(events))[-1]
    assert reporter.state.completed == state.completed
    assert (reporter.state.fetched, reporter.state.done) == (state.fetched, state.done)


def test_on_event_is_not_called_again_once_it_has_failed() -> None:
    calls = itertools.count()

    def fail(event: Event) -> None:
        next(calls)
        raise ValueError(event)

    reporter = Reporter("org/name", Shown(), fail)
    with pytest.raises(ValueError, match="Ready"):
        reporter.publish(Ready(summary="done"))
    reporter.publish(Ready(summary="done"))
    assert next(calls) == 1


def test_what_is_read_late_is_folded_at_the_time_at_which_it_came() -> None:
    """The interpreter was held for four seconds; bytes came all the time."""
    clock, view = Clock(), Shown()
    reporter = Reporter("org/name", view, None, clock=clock)
    for clock.now, event in DOWNLOADING[:5]:
        reporter.publish(event)
    for clock.now in (2.0, 2.05, 6.0):
        reporter.tick()
    for number in range(1, 40):
        clock.now += 0.001
        reporter.publish(FileProgress(path=WEIGHTS, completed=number * MB, at=2 + number / 10))
        reporter.tick()
    for _ in range(20):
        clock.now += 0.05
        reporter.tick()
    assert max(state.quiet_s or 0 for state in view.states) == pytest.approx(clock.now - 5.9)
    assert reporter.state.stalls == ()
    assert reporter.state.history[-1] == (5.9, 39 * MB)
    assert len(reporter.state.history) > 39 / 5


def test_a_silence_is_seen_by_one_who_is_not_held() -> None:
    clock, view = Clock(), Shown()
    reporter = Reporter("org/name", view, None, clock=clock)
    for clock.now, event in DOWNLOADING[:5]:
        reporter.publish(event)
    for number in range(60):
        clock.now = 2 + number / 20
        reporter.tick()
    assert reporter.state.quiet_s == pytest.approx(59 / 20)


def test_a_time_that_is_still_to_come_counts_as_now() -> None:
    reporter, _, _ = play(
        [*DOWNLOADING[:5], (3.0, FileProgress(path=WEIGHTS, completed=MB, at=1e9))]
    )
    assert reporter.state.byte_at == 3.0


def test_whether_a_cell_waits_is_asked_with_the_last_event_too() -> None:
    view, waits = Shown(), iter([True, False, False])
    reporter = Reporter("org/name", view, None, waited_for=lambda: next(waits))
    reporter.tick()
    assert reporter.state.waited_for
    reporter.finish(Ready(summary="done"))
    assert not reporter.state.waited_for
