"""Sets of byte ranges, against a set of the bytes themselves."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbloader.hub_cache.ranges import Span, Spans

SIZE = 40
"""Small, so that ranges meet."""

BYTE_RANGES = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(
    lambda pair: (min(pair), max(pair))
)


def runs(held: set[int], size: int) -> list[Span]:
    """Return the longest ranges below `size` that `held` fills."""
    found: list[Span] = []
    for byte in sorted(held & set(range(size))):
        if found and found[-1][1] == byte:
            found[-1] = (found[-1][0], byte + 1)
        else:
            found.append((byte, byte + 1))
    return found


@given(
    steps=st.lists(st.tuples(st.sampled_from(["add", "remove"]), BYTE_RANGES), max_size=30),
    size=st.integers(0, SIZE + 5),
    part=BYTE_RANGES,
)
@example(steps=[("add", (0, 2))], size=0, part=(1, 1))
def test_spans_are_the_set_of_their_bytes(
    steps: list[tuple[str, Span]], size: int, part: Span
) -> None:
    spans, held = Spans(), set[int]()
    for step, (start, stop) in steps:
        if step == "add":
            spans.add(start, stop)
            held |= set(range(start, stop))
        else:
            before = spans.copy()
            spans.remove(start, stop)
            assert list(before) == runs(held, SIZE)
            held -= set(range(start, stop))
        assert list(spans) == runs(held, SIZE)
        assert (spans.total, len(spans)) == (len(held), len(runs(held, SIZE)))
        assert spans.prefix == next(byte for byte in range(SIZE + 1) if byte not in held)
    assert spans.missing(size) == runs(set(range(size)) - held, size)
    asked = set(range(*part))
    assert spans.within(*part) == runs(held & asked, SIZE)
    assert spans.first_gap(*part) == next(iter(runs(asked - held, SIZE)), None)
    assert (spans == Spans(reversed(list(spans))), spans == Spans([(SIZE, SIZE + 1)])) == (
        True,
        False,
    )


def test_many_ranges_that_do_not_touch_stay_apart() -> None:
    spans = Spans((start, start + 1) for start in range(0, 20_000, 2))
    assert (len(spans), spans.total, spans.prefix) == (10_000, 10_000, 1)
    spans.add(0, 20_000)
    assert list(spans) == [(0, 20_000)]


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (2, 1)])
def test_what_is_no_range_is_refused(start: int, stop: int) -> None:
    spans = Spans([(0, 3)])
    for change in (spans.add, spans.remove):
        with pytest.raises(ValueError, match="no byte range"):
            change(start, stop)
    assert list(spans) == [(0, 3)]
