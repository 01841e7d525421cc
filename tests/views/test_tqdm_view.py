from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import termios
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.records import Event, Failed, Stage, StageStarted
from nbloader.state import JobState, advance
from nbloader.views.text import TqdmView, write
from tests.jobs import BROKEN, DOWNLOADING, LOADED, events, last_state, states


def drawn(text: str) -> list[str]:
    """Return everything that was drawn, in order, each without the blanks that cover the last."""
    return [frame.rstrip() for frame in re.split(r"[\r\n]", text) if frame.strip()]


def screen(text: str) -> list[str]:
    """Return the lines that remain of what was written."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines[:-1] if not lines[-1] else lines


def shown(
    view: TqdmView, job: Iterable[tuple[float, Event]], out: io.StringIO
) -> tuple[list[str], list[str]]:
    """Show a job; gives what was drawn, and what remains."""
    for state in states(job):
        view.update(state)
    view.close(last_state(job))
    return drawn(out.getvalue()), screen(out.getvalue())


def every_time() -> Callable[[], float]:
    """Make a clock that lets every state be drawn."""
    return itertools.count(0.0).__next__


def test_a_bar_shows_stage_and_bytes_and_what_happens_stands_above_it() -> None:
    out = io.StringIO()
    frames, remains = shown(TqdmView(out, clock=every_time()), LOADED, out)
    assert [frame for frame in frames if "|" not in frame][:3] == ["org/name", "connect", "set up"]
    bars = [frame for frame in frames if frame.startswith("download:")]
    assert any("60.0MB of 100MB, 2.2 MB/s, download 13 s left [" in bar for bar in bars)
    assert remains[:-2] == [
        "org/name",
        "⚠\ufe0e disk: 12 GB free",
        "Free some.",
        "✓ 1 check passed",
        "retry: transformer/model.safetensors: timed out; attempt 1 of 5 failed, the next in 5.0 s",
        "note: the token is old. Make a new one.",
    ]
    assert re.fullmatch(r"initialise: 100%\|.{1,200}\| 100MB of 100MB \[00:0\d\]", remains[-2])
    assert remains[-1] == "ready in 24 s: SomePipeline on cpu, float32"


def test_speed_and_time_left_can_be_left_out() -> None:
    out = io.StringIO()
    frames, _ = shown(TqdmView(out, speed=False, eta=False, clock=every_time()), LOADED, out)
    assert any("40.0MB of 100MB [" in frame for frame in frames)
    assert not any("left" in frame or "/s" in frame for frame in frames)


def test_a_bar_of_a_broken_job_stays_where_it_was() -> None:
    out = io.StringIO()
    _, remains = shown(TqdmView(out), BROKEN, out)
    assert "60.0MB of 100MB [" in remains[-2]
    assert remains[-1] == "failed after 13 s: the disk is full [disk-full]"


def test_no_bar_is_left_of_a_job_without_bytes() -> None:
    job: tuple[tuple[float, Event], ...] = (
        (0.0, StageStarted(stage=Stage.CONNECT)),
        (1.0, Failed(reference="gated-repo", message="org/name is gated", hint="Ask.")),
    )
    out = io.StringIO()
    _, remains = shown(TqdmView(out), job, out)
    assert remains == ["org/name", "failed after 1.0 s: org/name is gated [gated-repo]"]


def test_a_stall_shows_in_place_of_the_time_left() -> None:
    out = io.StringIO()
    view = TqdmView(out, clock=every_time())
    state = JobState(repo_id="org/name", started_at=0.0, updated_at=0.0)
    for state in states(DOWNLOADING):
        view.update(state)
    assert not re.search("left.*no bytes", out.getvalue())
    for now in (14.0, 15.0):
        view.update(advance(state, now))
    frames = drawn(out.getvalue())
    assert ["no bytes for 2 s" in frames[-2], "no bytes for 3 s" in frames[-1]] == [True, True]
    assert not any("left" in frame or "/s" in frame for frame in frames[-2:])
    view.close(state)


def test_bytes_are_drawn_ten_times_a_second_at_most() -> None:
    out, now = io.StringIO(), 0.0
    view = TqdmView(out, clock=lambda: now)
    state = last_state(DOWNLOADING)
    view.update(state)
    written = len(drawn(out.getvalue()))
    for step in range(1000):
        now = step / 1000
        view.update(advance(state, state.updated_at + now))
    assert 8 <= len(drawn(out.getvalue())) - written <= 10
    view.close(state)


@given(job=st.lists(events, max_size=20), repo_id=st.sampled_from(["org/name", "\x1b[2Jx\u202e"]))
def test_nothing_foreign_steers_the_terminal(job: list[Event], repo_id: str) -> None:
    out = io.StringIO()
    view = TqdmView(out, clock=every_time())
    found = list(states(((float(now), event) for now, event in enumerate(job)), repo_id))
    for state in found:
        view.update(state)
    if found:
        view.close(found[-1])
    text = out.getvalue()
    assert all(character.isprintable() or character in "\r\n\ufe0e" for character in text), ascii(
        text
    )


def test_a_stream_with_few_characters_gets_those() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    view = TqdmView(out, clock=every_time())
    for state in states(LOADED):
        view.update(state)
    view.close(last_state(LOADED))
    assert b"? disk: 12 GB free" in raw.getvalue().replace(b"??", b"?")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_bar_keeps_to_one_line_of_a_real_terminal(columns: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(theirs, "w", encoding="utf-8") as out:
        view = TqdmView(out, clock=every_time())
        for state in states(DOWNLOADING):
            view.update(state)
        view.close(state)
        write(out, "END")
        written = b""
        while not written.endswith(b"END"):
            written += os.read(ours, 1 << 16)
    os.close(ours)
    bars = [frame for frame in drawn(written.decode()) if frame.startswith("download:")]
    assert len(bars) > 3
    assert [bar for bar in bars if len(bar) > columns] == []
    assert max(map(len, bars)) > columns // 2
