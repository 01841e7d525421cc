from __future__ import annotations

from dataclasses import replace
from string import Formatter

import pytest

from nbloader.notebook import Turn
from nbloader.records import (
    NO_BYTES,
    Failed,
    Method,
    PlacedComponent,
    Placement,
    Retry,
    Selected,
    Stage,
    StageStarted,
)
from nbloader.state import Status, Step, advance, apply
from nbloader.views.words import (
    PLACEMENT_WORDS,
    ended,
    kept,
    placement_figures,
    placement_words,
    retried,
    step_words,
    time_left,
    waiting,
)
from tests.jobs import CANCELLED, DOWNLOADING, LOADED, OFFLOADED, ON_THE_GPU, STALLED, last_state
from tests.samples import MB, SELECTION


def placed(method: Method) -> Placement:
    return Placement(method=method, device="cuda:0", dtype="float16")


def test_every_method_has_its_words() -> None:
    assert set(PLACEMENT_WORDS) == set(Method)
    known = {"device", "dtype", "devices"}
    for words in PLACEMENT_WORDS.values():
        assert {name for _, name, _, _ in Formatter().parse(words) if name} <= known
    said = [placement_words(placed(method)) for method in Method]
    assert len(set(said)) == len(said)


def test_a_placement_in_words_with_its_figures() -> None:
    assert placement_words(ON_THE_GPU) == "all on cuda:0 in bfloat16"
    assert placement_figures(ON_THE_GPU) == "VRAM 12.6 GB · RAM 200 MB"
    several = replace(
        ON_THE_GPU,
        method=Method.MULTI_GPU,
        components=tuple(
            PlacedComponent(
                name=f"part {number}", device=f"cuda:{number}", dtype="float16", bytes=1
            )
            for number in (1, 0, 1)
        ),
        vram=(9_800 * MB, 0, 9_700 * MB),
    )
    assert placement_words(several) == "spread over cuda:0 and cuda:1 in bfloat16"
    assert placement_figures(several) == "VRAM 9.8 GB + 9.7 GB · RAM 200 MB"
    cpu = replace(OFFLOADED, method=Method.CPU, vram=(0,), mapped=300 * MB)
    assert placement_words(cpu) == "all on the CPU in bfloat16"
    assert placement_figures(cpu) == "RAM 36.0 GB"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, ""),
        (0.9, ""),
        (1.9, ""),
        (2.0, "no bytes for 2 s"),
        (3.2, "no bytes for 3 s"),
        (59.9, "no bytes for 59 s"),
        (75.9, "no bytes for 1:15"),
    ],
)
def test_a_silence_is_told_of_in_whole_seconds(seconds: float, said: str) -> None:
    state = last_state(STALLED)
    assert waiting(advance(state, state.updated_at + seconds)) == said


def test_there_is_no_silence_where_no_byte_is_waited_for() -> None:
    assert waiting(advance(last_state(DOWNLOADING[:2]), 60.0)) == ""
    assert waiting(advance(last_state(CANCELLED), 60.0)) == ""


@pytest.mark.parametrize("reference", ["interrupted", "cancelled"])
def test_what_is_kept_is_told_of_to_who_has_ended_it(reference: str) -> None:
    failed = Failed(reference=reference, message="", hint="")
    state = apply(last_state(STALLED), failed, 20.0)
    assert kept(state) == "60.0 of 100 MB are kept; run the cell again to go on"
    assert kept(apply(last_state(DOWNLOADING[:1]), failed, 20.0)) == (
        "the download had not begun; run the cell again to begin it"
    )
    begun = ((0.0, Selected(selection=SELECTION)), (1.0, StageStarted(stage=Stage.DOWNLOAD)))
    assert kept(apply(last_state(begun), failed, 20.0)) == (
        "nothing had arrived yet; run the cell again to go on"
    )
    whole = apply(last_state(LOADED[:-1]), failed, 25.0)
    assert kept(whole) == "all 100 MB are kept; run the cell again to go on"
    other = Failed(reference="disk-full", message="", hint="")
    assert kept(apply(last_state(STALLED), other, 20.0)) == ""


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("interrupted", "stopped after 20 s"),
        ("cancelled", "stopped after 20 s"),
        ("disk-full", "failed after 20 s"),
    ],
)
def test_an_end_is_a_failure_unless_its_user_asked_for_it(reference: str, said: str) -> None:
    failed = Failed(reference=reference, message="", hint="")
    assert ended(apply(last_state(STALLED), failed, 20.0)) == said
    assert ended(last_state(LOADED)) == "ready in 24 s"
    assert ended(last_state(STALLED)) == "running for 19 s"


def test_nothing_moves_in_a_job_that_has_failed() -> None:
    said = {status: [step_words(step, status) for step in Step] for status in Status}
    assert said[Status.RUNNING] == said[Status.READY] == [str(step) for step in Step]
    assert said[Status.FAILED] == [
        "waiting",
        "stopped",
        "stopped",
        "downloaded",
        "stopped",
        "ready",
    ]


def test_in_a_silence_nobody_knows_how_long_it_will_take() -> None:
    state = last_state(STALLED)
    assert time_left(state) == "download 7.9 s left"
    assert time_left(advance(state, 21.0)) == ""
    assert time_left(last_state(LOADED)) == ""
    assert time_left(last_state(DOWNLOADING[:1])) == ""


def test_what_waits_for_a_cell_says_so() -> None:
    built = apply(last_state(STALLED), StageStarted(stage=Stage.INITIALISE), 20.0)
    assert waiting(built) == ""
    assert waiting(advance(built, 25.0, turn=Turn.DUE)) == "waits for the running cell"
    assert waiting(advance(built, 25.0, turn=Turn.UNDER_WAY)) == ""
    # While the files arrive, nobody waits for the cell but the import.
    assert waiting(advance(last_state(STALLED), 19.5, turn=Turn.DUE)) == ""


def test_a_job_that_has_ended_waits_for_nothing() -> None:
    built = apply(last_state(STALLED), StageStarted(stage=Stage.INITIALISE), 20.0)
    failed = apply(
        advance(built, 25.0, turn=Turn.DUE), Failed(reference="x", message="", hint=""), 26.0
    )
    assert (waiting(failed), time_left(last_state(CANCELLED))) == ("", "")


def retry(reason: str, attempt: int = 0) -> Retry:
    return Retry(time=0, path="a", reason=reason, wait_s=attempt, attempt=attempt, max_attempts=5)


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        ([], ""),
        (["no bytes came"], "1 piece fell silent and was asked again"),
        (
            [NO_BYTES, "ended together with another that stalled", f"{NO_BYTES}; asking again"],
            "3 pieces fell silent and were asked again",
        ),
        (["connection lost"], "1 attempt failed: connection lost"),
        (
            ["connection lost", "no bytes came", "connection lost"],
            "1 piece fell silent and was asked again; 2 attempts failed: connection lost",
        ),
        (["e"] * 9, "9 attempts failed: e"),
        (
            ["a", "a", "b", "b", "c", "c", "d"],
            "7 attempts failed: a (2), b (2), c (2), and others",
        ),
    ],
)
def test_what_was_asked_again_is_told_in_a_few_words(reasons: list[str], said: str) -> None:
    assert retried([retry(reason) for reason in reasons]) == said


def test_what_is_waited_for_says_what_comes_next() -> None:
    again = (13.5, retry("the server is busy", 4))
    state = advance(last_state((*STALLED[:-3], again)), 15.2)
    assert waiting(state) == "no bytes for 7 s, the next attempt in 2 s"
