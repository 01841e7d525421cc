"""What follows a failed attempt: the table, and what must hold of any run of failures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.limits import MAX_RETRY_AFTER_S
from nbloader.records import Route, TransferPolicy
from nbloader.transfer.policy import (
    DRIP_SPEED,
    LASTING_ATTEMPTS,
    LASTING_WAIT_S,
    RULES,
    Attempts,
    GiveUp,
    GoOn,
    Reason,
    backoff_s,
    decide,
)

BOTH = frozenset(Route)
MB = 1_000_000
POLICY = TransferPolicy()
FRESH = Attempts(route=Route.XET, moved_at=100.0)


def follow(
    reason: Reason,
    attempts: Attempts = FRESH,
    *,
    brought: int = 0,
    began_at: float = 100.0,
    now: float = 110.0,
    policy: TransferPolicy = POLICY,
    limit_s: float = 300.0,
    routes: frozenset[Route] = BOTH,
    chance: float = 0.0,
    retry_after_s: float | None = None,
) -> GoOn | GiveUp:
    return decide(
        reason,
        attempts,
        brought=brought,
        began_at=began_at,
        now=now,
        policy=policy,
        limit_s=limit_s,
        routes=routes,
        chance=chance,
        retry_after_s=retry_after_s,
    )


# -- the table -----------------------------------------------------------------------------------

OTHER, SAME = Route.HTTP, Route.XET

FIRST_AND_SECOND: dict[Reason, tuple[tuple[Route, float], tuple[Route, float] | None]] = {
    # reason: (route, wait) of the attempt after the first failure, and after the second
    Reason.STALLED: ((OTHER, 0.0), (SAME, 0.0)),
    Reason.TOO_SLOW: ((OTHER, 0.0), (SAME, 0.0)),
    Reason.CONNECTION_LOST: ((SAME, 5.0), (OTHER, 0.0)),
    Reason.TIMED_OUT: ((SAME, 5.0), (OTHER, 0.0)),
    Reason.CAME_SHORT: ((SAME, 5.0), (OTHER, 0.0)),
    Reason.BUSY: ((SAME, 5.0), (OTHER, 0.0)),
    Reason.RATE_LIMITED: ((SAME, 5.0), (OTHER, 0.0)),
    Reason.EXPIRED: ((SAME, 0.0), (OTHER, 0.0)),
    Reason.REFUSED: ((OTHER, 0.0), (SAME, 0.0)),
    Reason.REDIRECTS: ((OTHER, 0.0), (SAME, 0.0)),
    Reason.OTHER_VERSION: ((OTHER, 0.0), (SAME, 0.0)),
    Reason.BAD_ANSWER: ((OTHER, 0.0), (SAME, 0.0)),
    Reason.PAGE: ((OTHER, 0.0), (SAME, 0.0)),
    Reason.BLOCKED: ((OTHER, 0.0), (SAME, 0.0)),
    Reason.XET: ((SAME, 5.0), (OTHER, 0.0)),
    Reason.WRONG_BYTES: ((OTHER, 0.0), None),
    Reason.WORKER_DIED: ((SAME, 5.0), (OTHER, 0.0)),
    Reason.WORKER_STUCK: ((OTHER, 0.0), (SAME, 0.0)),
}


def test_every_reason_has_a_rule() -> None:
    # Those that ended with another that stalled have not failed, and ask for no decision.
    assert set(FIRST_AND_SECOND) == set(Reason) - {Reason.CANCELLED}
    assert set(FIRST_AND_SECOND) <= set(RULES)


@pytest.mark.parametrize("reason", FIRST_AND_SECOND)
def test_the_first_and_the_second_failure(reason: Reason) -> None:
    first, second = FIRST_AND_SECOND[reason]
    after = follow(reason)
    assert isinstance(after, GoOn)
    assert (after.attempts.route, after.wait_s) == first
    again = follow(reason, after.attempts, began_at=110.0, now=120.0)
    if second is None:
        assert isinstance(again, GiveUp)
    else:
        assert isinstance(again, GoOn)
        assert (again.attempts.route, again.wait_s) == second


def test_the_whole_record() -> None:
    assert follow(Reason.BUSY) == GoOn(
        attempts=Attempts(
            route=Route.XET, moved_at=100.0, fruitless=1, on_route=1, failed_at=110.0, wrong=0
        ),
        wait_s=5.0,
    )


def test_with_one_route_it_stays_and_waits() -> None:
    after = follow(Reason.STALLED, routes=frozenset({Route.XET}))
    assert isinstance(after, GoOn)
    assert (after.attempts.route, after.wait_s) == (Route.XET, 0.0)
    again = follow(
        Reason.STALLED, after.attempts, began_at=110, now=120, routes=frozenset({Route.XET})
    )
    assert isinstance(again, GoOn)
    assert (again.attempts.route, again.wait_s) == (Route.XET, 10.0)


def test_what_brought_bytes_is_followed_at_once_and_not_counted() -> None:
    tired = replace(FRESH, fruitless=4, moved_at=0.0)
    after = follow(Reason.CONNECTION_LOST, tired, brought=9 * MB)
    assert isinstance(after, GoOn)
    assert (after.wait_s, after.attempts.fruitless, after.attempts.moved_at) == (0.0, 0, 110.0)


def test_what_brought_next_to_nothing_is_not_hammered() -> None:
    after = follow(Reason.CONNECTION_LOST, brought=1000, now=101.0)
    assert isinstance(after, GoOn)
    assert (after.wait_s, after.attempts.fruitless) == (1.0, 0)


def test_what_drips_is_no_gain() -> None:
    for brought, fruitless in ((1000, 1), (1001, 0)):
        after = follow(Reason.CONNECTION_LOST, brought=brought, began_at=100.0, now=110.0)
        assert after.attempts.fruitless == fruitless


def test_wrong_bytes_are_no_gain_however_many() -> None:
    after = follow(Reason.WRONG_BYTES, brought=90 * MB)
    assert isinstance(after, GoOn)
    assert (after.attempts.fruitless, after.attempts.wrong) == (1, 1)


def test_pieces_that_were_under_way_together_count_once() -> None:
    first = follow(Reason.BUSY, began_at=100.0, now=110.0)
    second = follow(Reason.BUSY, first.attempts, began_at=101.0, now=110.5)
    assert isinstance(second, GoOn)
    assert (second.attempts.fruitless, second.attempts.on_route) == (1, 1)


def test_what_waiting_does_not_mend_is_given_up_within_seconds() -> None:
    attempts = FRESH
    waits: list[float] = []
    while True:
        now = 110.0 + sum(waits)
        after = follow(
            Reason.BLOCKED, attempts, began_at=now, now=now, routes=frozenset({Route.XET})
        )
        if isinstance(after, GiveUp):
            break
        attempts = after.attempts
        waits.append(after.wait_s)
    assert (waits, after.timed_out) == ([2.0, 2.0], False)


def test_what_was_busy_before_is_asked_anew_where_its_address_has_expired() -> None:
    busy = replace(FRESH, fruitless=3)
    assert isinstance(follow(Reason.EXPIRED, busy), GoOn)


def test_time_runs_out() -> None:
    late = follow(Reason.BUSY, now=401.0)
    assert late == GiveUp(
        attempts=replace(FRESH, fruitless=1, on_route=1, failed_at=401.0), timed_out=True
    )
    assert isinstance(follow(Reason.BUSY, now=400.0), GoOn)


def test_a_server_may_not_ask_for_a_longer_wait_than_is_allowed() -> None:
    short = replace(POLICY, max_wait_s=2.0)
    given_up = follow(Reason.RATE_LIMITED, policy=short, retry_after_s=2.5)
    assert given_up == GiveUp(
        attempts=replace(FRESH, fruitless=1, on_route=1, failed_at=110.0), timed_out=False
    )
    for asked in (None, 0.0, 2.0):
        assert isinstance(follow(Reason.RATE_LIMITED, policy=short, retry_after_s=asked), GoOn)
    assert isinstance(follow(Reason.RATE_LIMITED, retry_after_s=200.0), GoOn)


# -- what holds of any run of failures -------------------------------------------------------------

policies = st.builds(
    lambda low, more, retries: TransferPolicy(
        retry_delay_min_s=low, retry_delay_max_s=low + more, max_retries=retries
    ),
    low=st.floats(0, 60),
    more=st.floats(0, 600),
    retries=st.integers(1, 12),
)
chances = st.floats(0, 1)
reasons = st.sampled_from(sorted(FIRST_AND_SECOND))
route_sets = st.sampled_from([BOTH, frozenset({Route.HTTP}), frozenset({Route.XET})])


@dataclass(frozen=True)
class Failed:
    """One failed attempt of a run of them."""

    reason: Reason
    brought: int
    chance: float
    retry_after_s: float | None


failures = st.builds(
    Failed,
    reason=reasons,
    brought=st.one_of(st.just(0), st.integers(0, 50 * MB)),
    chance=chances,
    retry_after_s=st.one_of(st.none(), st.floats(0, 1e6)),
)


@given(attempt=st.integers(1, 10_000), policy=policies, chance=chances)
def test_a_wait_stays_within_its_bounds(
    attempt: int, policy: TransferPolicy, chance: float
) -> None:
    wait_s = backoff_s(attempt, policy, chance)
    assert policy.retry_delay_min_s <= wait_s <= policy.retry_delay_max_s


@given(policy=policies, chance=chances)
def test_waits_grow_up_to_the_longest(policy: TransferPolicy, chance: float) -> None:
    waits = [backoff_s(attempt, policy, chance) for attempt in range(1, 40)]
    assert waits == sorted(waits)
    if policy.retry_delay_min_s > 1e-3:
        assert waits[-1] >= 0.75 * policy.retry_delay_max_s


def run(
    failed: list[Failed], policy: TransferPolicy, routes: frozenset[Route]
) -> list[tuple[Failed, Attempts, GoOn | GiveUp]]:
    """Let one attempt follow another until they are given up."""
    attempts = Attempts(route=min(routes), moved_at=0.0)
    now, found = 0.0, []
    for one in failed:
        decision = follow(
            one.reason,
            attempts,
            brought=one.brought,
            began_at=now,
            now=now + 1.0,
            policy=policy,
            limit_s=float("inf"),
            routes=routes,
            chance=one.chance,
            retry_after_s=one.retry_after_s,
        )
        found.append((one, attempts, decision))
        if isinstance(decision, GiveUp):
            break
        attempts, now = decision.attempts, now + 1.0 + decision.wait_s
    return found


@given(failed=st.lists(failures, max_size=30), policy=policies, routes=route_sets)
def test_any_run_of_failures(
    failed: list[Failed], policy: TransferPolicy, routes: frozenset[Route]
) -> None:
    fruitless = wrong = lasting = 0
    for one, before, decision in run(failed, policy, routes):
        after = decision.attempts
        gained = one.brought > DRIP_SPEED * 1.0 and one.reason is not Reason.WRONG_BYTES
        fruitless = 0 if gained else fruitless + 1
        wrong += one.reason is Reason.WRONG_BYTES
        rule = RULES[one.reason]
        lasting = 0 if gained else lasting + rule.lasting
        assert (after.fruitless, after.wrong, after.lasting) == (fruitless, wrong, lasting)
        assert after.route in routes
        # It ends after so many in a row that brought nothing, and never before.
        # Wrong bytes have an allowance of their own: once more, whatever the setting says.
        if one.reason is Reason.WRONG_BYTES:
            assert isinstance(decision, GiveUp) == (wrong >= 2)
        else:
            used_up = fruitless >= policy.max_retries
            used_up = used_up or (rule.lasting and lasting >= LASTING_ATTEMPTS)
            assert isinstance(decision, GiveUp) == (not gained and used_up)
        if isinstance(decision, GiveUp):
            continue
        asked = min(one.retry_after_s or 0.0, MAX_RETRY_AFTER_S)
        if gained:
            assert decision.wait_s <= min(1.0, policy.retry_delay_min_s)
            continue
        assert asked <= decision.wait_s <= max(asked, policy.retry_delay_max_s)
        at_once = after.route is not before.route or fruitless == 1
        least = min(policy.retry_delay_min_s, LASTING_WAIT_S if rule.lasting else 60.0)
        assert at_once or decision.wait_s >= least
        assert not rule.lasting or decision.wait_s <= max(asked, LASTING_WAIT_S)


@given(
    reason=reasons.filter(lambda reason: reason is not Reason.WRONG_BYTES),
    policy=policies,
    offsets=st.lists(st.floats(0, 0.9), min_size=1, max_size=16),
)
def test_pieces_that_fail_one_after_another_are_given_up_as_soon_as_one(
    reason: Reason, policy: TransferPolicy, offsets: list[float]
) -> None:
    """Each piece begins anew when it failed, a second later it fails again."""
    most = RULES[reason].attempts(policy)
    attempts, rounds = FRESH, 0
    while True:
        rounds += 1
        for offset in sorted(offsets):
            decision = follow(
                reason,
                attempts,
                began_at=100.0 + rounds - 1 + offset,
                now=100.0 + rounds + offset,
                policy=policy,
                limit_s=float("inf"),
                routes=frozenset({Route.HTTP}),
            )
            if isinstance(decision, GiveUp):
                assert rounds == most
                return
            attempts = decision.attempts
        assert rounds < most


@given(failed=failures, limit_s=st.floats(0, 1e4), quiet_s=st.floats(0, 1e4))
def test_the_time_limit_is_one_of_progress(failed: Failed, limit_s: float, quiet_s: float) -> None:
    decision = follow(
        failed.reason,
        brought=failed.brought,
        began_at=100.0,
        now=100.0 + quiet_s,
        limit_s=limit_s,
    )
    took_s = 100.0 + quiet_s - 100.0
    gained = failed.brought > DRIP_SPEED * took_s and failed.reason is not Reason.WRONG_BYTES
    assert isinstance(decision, GiveUp) == (not gained and 100.0 + quiet_s - 100.0 > limit_s)
