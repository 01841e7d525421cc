from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.state import advance
from nbloader.views.parts import HEIGHT, MAX_POINTS, sparkline, speeds
from tests.jobs import DOWNLOADING, LOADED, STALLED, last_state

histories = st.lists(
    st.tuples(st.floats(0, 5), st.integers(0, 10**9)), min_size=2, max_size=240
).map(
    lambda steps: [
        (sum(pause for pause, _ in steps[: n + 1]), sum(size for _, size in steps[: n + 1]))
        for n in range(len(steps))
    ]
)


@pytest.mark.parametrize(
    ("history", "until", "found"),
    [
        ([], 9.0, []),
        ([(0.0, 0)], 9.0, []),
        ([(0.0, 0), (0.4, 9)], 0.4, []),
        ([(0.0, 0), (2.0, 20)], 0.0, [10, 10, 10, 10]),
        ([(0.0, 0), (0.5, 5), (1.0, 15), (2.0, 15)], 0.0, [10, 20, 0, 0]),
        ([(0.0, 0), (1.0, 10)], 2.0, [10, 10, 0, 0]),
        ([(0.0, 0), (0.5, 5), (0.5, 10), (1.0, 20)], 0.0, [20, 20]),
        ([(0.0, 0), (0.5, 10), (1.0, 0), (1.5, 10)], 0.0, [20, 0, 20]),
    ],
)
def test_the_speed_of_each_stretch(
    history: list[tuple[float, int]], until: float, found: list[float]
) -> None:
    assert speeds(history, until) == pytest.approx(found)


@given(histories, st.floats(0, 100))
def test_all_bytes_are_in_the_line_and_none_besides(
    history: list[tuple[float, int]], more: float
) -> None:
    until = history[-1][0] + more
    found = speeds(history, until)
    assert len(found) <= MAX_POINTS
    assert min(found, default=0) >= 0
    if found:
        seconds = (until - history[0][0]) / len(found)
        merged = list(dict(history).values())
        assert sum(found) * seconds == pytest.approx(merged[-1] - merged[0], rel=1e-6, abs=1)


def points(source: str) -> list[float]:
    """Read the heights of the line, from the ground up."""
    (line,) = re.findall(r'<path d="M([^"Z]*)" ', source)
    return [HEIGHT - 1 - float(point.split(",")[1]) for point in line.split(" L")]


def test_a_stall_is_seen_while_it_lasts() -> None:
    state = last_state(STALLED)
    source = sparkline(advance(state, 30.0))
    found = points(source)
    assert len(found) == int((30 - 2) / 0.5)
    assert found[-20:] == [0.0] * 20
    assert max(found) == HEIGHT - 2
    assert "fastest 5.0 MB/s" in source


def test_after_the_download_the_line_stays_as_it_was() -> None:
    state = last_state(LOADED)
    assert sparkline(advance(state, 500.0)) == sparkline(state)


def test_its_place_is_kept_before_there_is_a_line() -> None:
    empty = sparkline(last_state(DOWNLOADING[:1]))
    assert f"height:{HEIGHT}px" in empty
    assert "<path" not in empty
    assert "fastest" not in empty
