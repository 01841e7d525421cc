"""How many pieces, how large, over which route: all of it from what was measured."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.records import Route
from nbloader.worker.tuning import (
    HTTP_PIECE_BYTES,
    SMALLEST_HTTP_PIECE_BYTES,
    AnswerTime,
    Concurrency,
    RouteChoice,
    XetPace,
    http_piece_bytes,
    most_pieces,
)

MIB = 1 << 20
MB = 1_000_000.0

# -- pieces over HTTP ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "connections", "size"),
    [
        (0, 4, 8 * MIB),
        (8 * MIB, 4, 8 * MIB),
        (64 * MIB, 4, 8 * MIB),
        (64 * MIB + 8, 4, 8 * MIB + 1),
        (128 * MIB, 4, 16 * MIB),
        (512 * MIB, 4, 64 * MIB),
        (10**12, 4, 64 * MIB),
        (128 * MIB, 1, 64 * MIB),
        (128 * MIB, 0, 64 * MIB),
    ],
)
def test_pieces_get_smaller_towards_the_end(rest: int, connections: int, size: int) -> None:
    assert http_piece_bytes(rest, connections) == size


@given(rest=st.integers(0, 10**13), connections=st.integers(0, 64))
def test_a_piece_over_http_has_its_bounds(rest: int, connections: int) -> None:
    size = http_piece_bytes(rest, connections)
    assert SMALLEST_HTTP_PIECE_BYTES <= size <= HTTP_PIECE_BYTES
    # Before the end, no connection takes so much that another is left without work.
    if size > SMALLEST_HTTP_PIECE_BYTES:
        assert size * 2 * max(1, connections) <= rest


@given(rest=st.integers(1, 10**13), connections=st.integers(0, 64))
def test_where_answers_begin_late_a_connection_asks_for_all_of_its_share(
    rest: int, connections: int
) -> None:
    size = http_piece_bytes(rest, connections, late=True)
    assert size >= HTTP_PIECE_BYTES
    assert size * max(1, connections) >= rest


@given(st.lists(st.integers(0, 10**10), max_size=20))
def test_there_are_never_more_threads_than_pieces(sizes: list[int]) -> None:
    assert min(len(sizes), 16) <= most_pieces(sizes) <= 16


# -- how many at once ------------------------------------------------------------------------------


def climb(concurrency: Concurrency, one: float, most: int, periods: int) -> list[int]:
    """Let a link on which each connection has its own limit, up to `most`, be measured."""
    limits = []
    for _ in range(periods):
        concurrency.measured(one * min(concurrency.limit, most))
        limits.append(concurrency.limit)
    return limits


def test_it_climbs_while_that_helps() -> None:
    assert climb(Concurrency(), 50 * MB, 100, 8) == [6, 8, 10, 12, 14, 16, 16, 16]


def test_it_goes_back_where_more_does_not_help_and_tries_less_and_less_often() -> None:
    limits = climb(Concurrency(), 50 * MB, 4, 60)
    tries = [period for period, limit in enumerate(limits) if limit == 6]
    assert set(limits) == {4, 6}
    rests = [after - before for before, after in pairwise(tries)]
    assert rests == sorted(rests)
    assert rests[-1] >= Concurrency.LONGEST_REST


def test_a_server_that_refuses_gets_half_and_a_rest() -> None:
    concurrency = Concurrency()
    climb(concurrency, 50 * MB, 100, 3)
    concurrency.refused()
    assert concurrency.limit == 5
    assert set(climb(concurrency, 50 * MB, 100, Concurrency.LONGEST_REST)) == {5}
    assert climb(concurrency, 50 * MB, 100, 1) == [7]


@given(
    st.lists(
        st.one_of(st.none(), st.floats(0, 1e10, allow_nan=False)),
        max_size=200,
    )
)
def test_the_number_stays_within_its_bounds(speeds: list[float | None]) -> None:
    concurrency = Concurrency()
    for speed in speeds:
        if speed is None:
            concurrency.refused()
        else:
            concurrency.measured(speed)
        assert 1 <= concurrency.limit <= Concurrency.HIGHEST


@given(st.lists(st.floats(0, 1e10, allow_nan=False), max_size=200))
def test_without_a_refusal_it_never_falls_below_its_start(speeds: list[float]) -> None:
    concurrency = Concurrency()
    for speed in speeds:
        concurrency.measured(speed)
        assert concurrency.limit >= Concurrency.START


# -- pieces over Xet -------------------------------------------------------------------------------


def test_pieces_over_xet_begin_small_and_grow_with_the_speed() -> None:
    pace = XetPace()
    assert (pace.size, pace.expected_s(MIB)) == (MIB, 0.0)
    pace.took(MIB, XetPace.TARGET_S / 2.5)
    assert pace.size == 2 * MIB
    assert pace.expected_s(5 * MIB) == pytest.approx(2 * XetPace.TARGET_S)
    for _ in range(20):
        pace.took(pace.size, 0.01)
    assert pace.size == 4 * MIB
    for _ in range(40):
        pace.took(pace.size, 10.0)
    assert pace.size == MIB


@given(st.lists(st.tuples(st.integers(1, 64 * MIB), st.floats(0, 1e4)), max_size=50))
def test_a_piece_over_xet_has_its_bounds(times: list[tuple[int, float]]) -> None:
    pace = XetPace()
    for size, seconds in times:
        pace.took(size, seconds)
        assert XetPace.SMALLEST <= pace.size <= XetPace.LARGEST
        assert pace.size % MIB == 0
        assert pace.expected_s(pace.size) >= 0


# -- which route -----------------------------------------------------------------------------------

LARGE = 10**9


def probe(choice: RouteChoice, speeds: dict[Route, float]) -> None:
    """Let bytes come at these speeds, in MB/s, until the choice is made."""
    now = 0.0
    for _ in range(1000):
        route = choice.route
        choice.arrived(route, int(speeds[route] * MB * 0.1), now)
        now += 0.1


@pytest.mark.parametrize(
    ("http", "xet", "chosen"),
    [
        (100, 50, Route.HTTP),
        (50, 100, Route.XET),
        (100, 100, Route.HTTP),
        (100, 105, Route.HTTP),
        (100, 130, Route.XET),
    ],
)
def test_the_clearly_faster_route_is_taken(http: float, xet: float, chosen: Route) -> None:
    choice = RouteChoice(Route, LARGE)
    probe(choice, {Route.HTTP: http, Route.XET: xet})
    assert choice.route is chosen


def test_http_is_measured_first_on_32_mib() -> None:
    choice = RouteChoice(Route, LARGE)
    routes: list[Route] = []
    for route, count in (
        (Route.HTTP, 100),
        (Route.HTTP, 32 * MIB - 1),
        (Route.XET, 64 * MIB),
        (Route.HTTP, 1),
    ):
        choice.arrived(route, count, float(len(routes)))
        routes.append(choice.route)
    assert routes == [Route.HTTP, Route.HTTP, Route.HTTP, Route.XET]


def test_little_is_fetched_over_http_without_a_comparison() -> None:
    choice = RouteChoice(Route, 64 * MIB - 1)
    probe(choice, {Route.HTTP: 10, Route.XET: 100})
    assert choice.route is Route.HTTP
    assert choice.routes == frozenset(Route)


@pytest.mark.parametrize("only", Route)
def test_only_one_may_be_taken(only: Route) -> None:
    choice = RouteChoice(Route, LARGE, only=only)
    for route in Route:
        choice.failed(route)
        choice.failed(route)
    assert (choice.route, choice.routes) == (only, frozenset({only}))


def test_only_one_that_is_not_there_is_passed_over() -> None:
    assert RouteChoice([Route.HTTP], LARGE, only=Route.XET).routes == {Route.HTTP}


def test_xet_is_given_up_after_two_failures_in_a_row_and_http_never() -> None:
    choice = RouteChoice(Route, LARGE)
    choice.failed(Route.XET)
    choice.succeeded(Route.XET)
    choice.failed(Route.XET)
    assert choice.routes == frozenset(Route)
    choice.failed(Route.XET)
    assert (choice.route, choice.routes) == (Route.HTTP, frozenset({Route.HTTP}))
    for _ in range(10):
        choice.failed(Route.HTTP)
    assert choice.routes == {Route.HTTP}


actions = st.one_of(
    st.tuples(st.just("arrived"), st.sampled_from(Route), st.integers(-10, 10**8)),
    st.tuples(st.just("failed"), st.sampled_from(Route), st.just(0)),
    st.tuples(st.just("succeeded"), st.sampled_from(Route), st.just(0)),
)


@given(
    there=st.sets(st.sampled_from(Route), min_size=1),
    total=st.integers(0, LARGE),
    only=st.one_of(st.none(), st.sampled_from(Route)),
    steps=st.lists(st.tuples(actions, st.floats(0, 10)), max_size=40),
)
def test_there_is_always_a_route_of_those_that_are_there(
    there: set[Route],
    total: int,
    only: Route | None,
    steps: list[tuple[tuple[str, Route, int], float]],
) -> None:
    choice = RouteChoice(there, total, only=only)
    now = 0.0
    for (action, route, count), seconds in steps:
        now += seconds
        if action == "arrived":
            choice.arrived(route, count, now)
        else:
            getattr(choice, action)(route)
        assert choice.route in choice.routes
        assert choice.routes <= there
        if only in there:
            assert choice.route is only


# -- how long answers take to begin ----------------------------------------------------------------


def test_a_late_answer_counts_at_once_and_is_forgotten_by_and_by() -> None:
    answers = AnswerTime()
    assert (answers.is_late, answers.patience_s(5.0)) == (False, 5.0)
    answers.took(0.3)
    assert (answers.is_late, answers.patience_s(5.0)) == (False, 5.0)
    answers.took(16.0)
    assert (answers.is_late, answers.patience_s(5.0)) == (True, 40.0)
    late = []
    for _ in range(4):
        answers.took(0.0)
        late.append(answers.is_late)
    assert late == [True, True, False, False]


def test_pieces_over_xet_are_large_where_answers_begin_late() -> None:
    answers = AnswerTime()
    pace = XetPace(answers)
    assert pace.size == MIB
    answers.took(10.0)
    assert (pace.size, pace.bytes_are_dear) == (16 * MIB, False)
    pace.took(16 * MIB, 20.0)
    assert pace.size == 20 * MIB
    for _ in range(20):
        pace.took(64 * MIB, 20.0)
    assert pace.size == 64 * MIB
