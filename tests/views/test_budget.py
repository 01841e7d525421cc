from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nbloader.views.budget import Budget
from tests.notebook_fakes import Clock

RANKS = {"head": 0, "bar": 1, "rows": 1, "log": 2, "pane 1": 2, "pane 2": 2}
LIMIT, SPARE = 10, 4


def budget(clock: Clock) -> Budget:
    return Budget(RANKS, clock, limit=LIMIT, per_s=1.0)


def send(spent: Budget, waiting: set[str]) -> list[str]:
    sent = []
    while (name := spent.next(waiting, spare=SPARE)) is not None:
        waiting.remove(name)
        sent.append(name)
    return sent


steps = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 2), st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        st.sets(st.sampled_from(sorted(RANKS))),
    ),
    max_size=100,
)


@given(steps)
def test_no_second_sees_more_messages_than_the_limit(steps: list[tuple[float, set[str]]]) -> None:
    clock = Clock()
    spent = budget(clock)
    sent: list[tuple[float, str]] = []
    for pause, waiting in steps:
        clock.now += pause
        left = set(waiting)
        before = len(sent)
        sent += [(clock.now, name) for name in send(spent, left)]
        names = [name for _, name in sent[before:]]
        # The most important come first, and what is left is no more important than what went.
        assert [RANKS[name] for name in names] == sorted(RANKS[name] for name in names)
        if left:
            assert min(RANKS[name] for name in left) >= max(
                (RANKS[name] for name in names), default=0
            )
    for start, _ in sent:
        window = [name for time, name in sent if start <= time <= start + 1.0]
        assert len(window) <= LIMIT
        assert sum(RANKS[name] > 0 for name in window) <= LIMIT - SPARE


@given(steps)
def test_the_head_has_room_that_no_other_takes(steps: list[tuple[float, set[str]]]) -> None:
    clock = Clock()
    spent = budget(clock)
    heads: list[float] = []
    for pause, waiting in steps:
        clock.now += pause
        send(spent, set(waiting) - {"head"})
        if "head" in waiting and sum(time + 1.0 >= clock.now for time in heads) < SPARE:
            assert send(spent, {"head"}) == ["head"]
            heads.append(clock.now)


def test_equals_take_turns_and_the_unimportant_delays_nothing() -> None:
    clock = Clock()
    spent = budget(clock)
    counts: Counter[str] = Counter()
    ticks = 600
    for tick in range(ticks):
        clock.now = 0.51 * tick
        counts.update(send(spent, set(RANKS)))
    assert counts["head"] == ticks
    assert counts["bar"] + counts["rows"] >= 2 * ticks - 2
    panes = [counts[name] for name, rank in RANKS.items() if rank == 2]
    assert max(panes) - min(panes) <= 1
    assert sum(panes) >= ticks / 2 - 2


def test_nothing_waits_for_nothing() -> None:
    assert budget(Clock()).next((), spare=SPARE) is None
