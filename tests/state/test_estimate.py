"""How fast bytes come, and how long the rest will take."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.estimates import LOOKS_PER_S, PAGE, Result, looks, measured, written
from benchmarks.traces import Trace, from_json, made, recorded, to_json
from nbloader.state import Pace
from nbloader.state.estimate import MAX_POINTS
from tests.samples import MB

TRACES = (*made(), *recorded())
BY_NAME = {trace.name: trace for trace in TRACES}

BEYOND_ANYBODY = {"rising late", "waves", "a dip"}
"""Traces in which the link changes after the first tenth, by a factor of three or more."""


def of(result: Result) -> str:
    return (
        f"{result.trace.name}: nbloader {result.nbloader}, who knows the link {result.oracle}, "
        f"told {result.told:.2f}"
    )


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return {trace.name: measured(trace) for trace in TRACES}


# -- the time left ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [trace.name for trace in TRACES if trace.name not in BEYOND_ANYBODY]
)
def test_the_time_left_is_right_within_a_fifth(results: dict[str, Result], name: str) -> None:
    """How it is measured is said in `benchmarks.estimates.measured`."""
    result = results[name]
    assert result.nbloader.mean <= 0.20, of(result)
    # Among large lumps one who knows the link is as far off: nobody knows how much of a lump is on
    # its way.
    assert result.nbloader.worst is not None
    assert result.oracle.worst is not None
    bound = 0.60 if result.oracle.worst <= 0.60 else result.oracle.worst + 0.06
    assert result.nbloader.worst <= bound, of(result)


@pytest.mark.parametrize("name", sorted(BEYOND_ANYBODY))
def test_where_nobody_could_know_it_is_little_worse_than_who_knows_the_link(
    results: dict[str, Result], name: str
) -> None:
    """One who is told at each moment how fast the link is at it, free of noise and at once, but not
    what will come, is out of bounds: no estimate from what has come so far can be within them."""
    result = results[name]
    assert result.oracle.mean > 0.40, of(result)
    assert result.nbloader.mean <= result.oracle.mean + 0.25, of(result)


def test_it_is_more_right_than_the_others(results: dict[str, Result]) -> None:
    """Over all traces that can be foretold."""
    within = [one for name, one in results.items() if name not in BEYOND_ANYBODY]

    def mean(errors: Sequence[float]) -> float:
        return sum(errors) / len(errors)

    own = mean([one.nbloader.mean for one in within])
    assert own < mean([one.average.mean for one in within]) / 2
    assert own < mean([one.tqdm.mean for one in within]) / 1.5


def test_the_time_is_told_nearly_always(results: dict[str, Result]) -> None:
    silent = {"stall": 10.0, "recorded, stall": 8.0, "recorded, Xet, late answers": 20.0}
    for name, result in results.items():
        least = 0.92 - silent.get(name, 0.0) / (0.9 * result.trace.end)
        assert result.told >= least, of(result)


def test_the_table_on_the_page_is_what_is_measured(results: dict[str, Result]) -> None:
    page = PAGE.read_text("utf-8")
    # To write it anew: python -m benchmarks.estimates --write
    assert page == written(page, list(results.values()))


def test_a_trace_is_read_as_it_was_written() -> None:
    for trace in TRACES:
        again = from_json(to_json(trace))
        assert (again.name, again.sizes, again.total) == (trace.name, trace.sizes, trace.total)
        assert again.end == pytest.approx(trace.end, abs=0.01)
        assert to_json(again) == to_json(trace)


def test_what_is_kept_of_downloads_is_little() -> None:
    assert len(recorded()) >= 8
    for trace in recorded():
        assert len(to_json(trace)) < 100_000, trace.name


# -- the speed -------------------------------------------------------------------------------------


def speeds(trace: Trace) -> dict[float, float | None]:
    return {look.at: look.speed for look in looks(trace)}


def arrived_by(trace: Trace, at: float) -> int:
    return sum({step.path: step.completed for step in trace.steps if step.at <= at}.values())


def test_a_link_that_fell_shows_its_speed_within_five_seconds() -> None:
    found = speeds(BY_NAME["falling"])
    assert found[6.75] == pytest.approx(60 * MB, rel=0.2)
    assert found[12.0] == pytest.approx(15 * MB, rel=0.1)


def test_the_speed_is_that_of_the_last_five_seconds() -> None:
    for name in ("steady", "falling", "rising", "sawtooth", "waves"):
        trace = BY_NAME[name]
        for at, speed in speeds(trace).items():
            if at > 6:
                truth = (arrived_by(trace, at) - arrived_by(trace, at - 5)) / 5
                assert speed == pytest.approx(truth, rel=0.2), (name, at)


def test_the_speed_is_calm_where_bytes_come_in_lumps() -> None:
    trace = BY_NAME["lumps"]
    late = [speed for at, speed in speeds(trace).items() if at > 6 and speed]
    assert all(speed == pytest.approx(trace.rate(0.0), rel=0.3) for speed in late)


def stream(pace: Pace, rate: float, seconds: float, *, every_s: float = 0.1) -> Pace:
    """Let bytes come at a steady speed."""
    begun = pace.heard_at
    for number in range(1, round(seconds / every_s) + 1):
        pace = pace.arrived(begun + number * every_s, round(rate * every_s))
    return pace


def test_nothing_is_said_in_the_first_second() -> None:
    begun = Pace.beginning(10.0)
    assert (begun.speed(10.0), begun.seconds_left(10.0, MB)) == (None, None)
    soon = stream(begun, MB, 1.0)
    assert (soon.speed(11.0), soon.seconds_left(11.0, MB)) == (None, None)
    # How long the first bytes took is another matter.
    for wait in (0.0, 8.0):
        then = stream(begun.arrived(10.0 + wait, MB // 10), MB, 1.5)
        assert then.speed(11.5 + wait) == pytest.approx(MB)
        assert then.seconds_left(11.5 + wait, 30 * MB) == pytest.approx(30, rel=0.05)
    # But for a piece that came whole.
    piece = stream(begun.arrived(18.0, 8 * MB), MB, 1.5)
    assert piece.seconds_left(19.5, 30 * MB) == pytest.approx(30, rel=0.15)


def test_between_two_arrivals_the_time_counts_down() -> None:
    pace = stream(Pace.beginning(0.0), MB, 30, every_s=2.0)
    left = [pace.seconds_left(30 + waited, 20 * MB) for waited in (0.0, 1.0, 1.5, 60.0)]
    assert left == [pytest.approx(20), pytest.approx(19), pytest.approx(18.5), 0.0]
    assert [pace.speed(30 + waited) for waited in (0.0, 1.0, 2.9)] == [pytest.approx(MB)] * 3


def test_a_pause_is_usual_once_it_has_come_twice() -> None:
    pace = stream(Pace.beginning(0.0), MB, 5)
    once = pace.arrived(15.0, 10 * MB)
    assert once.usual_gap_s < 1
    again = stream(once, MB, 1).arrived(26.0, 10 * MB)
    assert again.usual_gap_s == pytest.approx(10)


def test_of_a_silence_that_is_an_accident_little_counts() -> None:
    steady = stream(Pace.beginning(0.0), MB, 20)
    after = stream(steady.arrived(80.0, MB // 10), MB, 1)
    assert after.seconds_left(81.0, 60 * MB) == pytest.approx(60, rel=0.15)
    again = stream(stream(after, MB, 5).arrived(126.0, MB // 10), MB, 5)
    assert (left := again.seconds_left(131.0, 60 * MB)) is not None
    assert left > 120
    # What was under way all the time was slow.
    lump = steady.arrived(80.0, 60 * MB)
    assert lump.seconds_left(80.0, 60 * MB) == pytest.approx(60, rel=0.1)


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(0, 1 << 40), st.integers(0, 3), st.booleans()),
        max_size=400,
    ),
    st.floats(0, 1000),
    st.integers(0, 1 << 45),
    st.integers(0, 10_000),
)
def test_whatever_comes_what_is_said_is_a_number(
    arrivals: list[tuple[float, int, int, bool]], waited: float, rest: int, files: int
) -> None:
    now = 0.0
    pace = Pace.beginning(now)
    for pause, count, done, small in arrivals:
        now += pause
        pace = pace.arrived(now, count, files=done, small=small)
        for said in (pace.speed(now + waited), pace.seconds_left(now + waited, rest, files)):
            assert said is None or (math.isfinite(said) and said >= 0)
    assert len(pace.points) <= MAX_POINTS
    assert [point.at for point in pace.points] == sorted(point.at for point in pace.points)
    assert not pace.points or pace.points[-1].at <= now


def test_looks_are_as_often_as_is_said() -> None:
    found = list(looks(BY_NAME["steady"]))
    assert found[1].at - found[0].at == 1 / LOOKS_PER_S
    assert found[-1].truth <= 2 / LOOKS_PER_S
