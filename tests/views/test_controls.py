from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from nbloader.notebook import Turn
from nbloader.records import Event, Failed, Fit, Method, Stage, StageStarted
from nbloader.state import JobState, advance
from nbloader.views.controls import (
    AFTER_CELL,
    AFTER_IMPORT,
    AFTER_STEP,
    BUTTONS,
    RESTS,
    Control,
    Controls,
    control_traits,
    controls,
)
from tests import jobs
from tests.jobs import (
    CANCELLED,
    DOWNLOADING,
    FIT,
    LOADED,
    OFFLOADED,
    ON_SEVERAL,
    ON_THE_GPU,
    REFUSED,
    STALLED,
    last_state,
)

OPTIONS = (
    ("all on cuda:0 in bfloat16 · VRAM 12.6 GB · RAM 200 MB", "gpu"),
    (
        "one component on the GPU at a time, the others in memory · VRAM 6.2 GB · RAM 35.7 GB",
        "model-offload",
    ),
)
CAN = Control()


def cannot(why: str) -> Control:
    return Control(why=why)


def later(when: str) -> Control:
    return Control(when=when)


BY_CELL, BY_IMPORT, BY_STEP = map(later, (AFTER_CELL, AFTER_IMPORT, AFTER_STEP))
ENDED = cannot("it has ended")
BUILDING = cannot("the files are there, and the model is built next")
BUILT = (*STALLED, (20.0, StageStarted(stage=Stage.INITIALISE)))

RUNS = Controls(
    cancel=CAN,
    retry=cannot("nothing has failed"),
    download_anyway=cannot("no check has failed"),
    diagnostics=CAN,
    plan=CAN,
    options=OPTIONS,
    chosen="gpu",
)
FAILED = replace(
    RUNS,
    cancel=ENDED,
    retry=CAN,
    download_anyway=cannot("what failed is not a check that can be passed over"),
)
NO_PLAN = replace(RUNS, options=(), chosen=None)
REST = cannot(RESTS)


def placed_by(fit: Fit) -> JobState:
    return replace(last_state(STALLED), fit=fit)


CASES = {
    "before the plan": (
        last_state(DOWNLOADING[:1]),
        replace(NO_PLAN, plan=cannot("the checks have not been made yet")),
    ),
    "downloading": (last_state(STALLED), RUNS),
    "building": (
        last_state(BUILT),
        replace(RUNS, plan=BUILDING),
    ),
    "ready": (last_state(LOADED), replace(NO_PLAN, cancel=ENDED, plan=ENDED)),
    "cancelled": (last_state(CANCELLED), FAILED),
    "refused by a check": (last_state(REFUSED), replace(FAILED, download_anyway=CAN)),
    "a cell waits": (
        advance(last_state(STALLED), 20.0, waited_for=True),
        replace(RUNS, cancel=REST, retry=REST, download_anyway=REST, diagnostics=REST, plan=REST),
    ),
    "it waits for a cell": (
        advance(last_state(STALLED), 20.0, turn=Turn.DUE),
        replace(RUNS, cancel=BY_CELL, diagnostics=BY_CELL, plan=BY_CELL),
    ),
    "it is being imported": (
        replace(last_state(STALLED), turn=Turn.UNDER_WAY, importing=None),
        replace(RUNS, cancel=BY_IMPORT, diagnostics=BY_IMPORT, plan=BY_IMPORT),
    ),
    "it is being loaded": (
        advance(last_state(BUILT), 21.0, turn=Turn.UNDER_WAY),
        replace(RUNS, cancel=BY_STEP, diagnostics=BY_STEP, plan=BUILDING),
    ),
    "one plan fits": (
        placed_by(Fit(chosen=ON_THE_GPU, placements=(ON_THE_GPU, ON_SEVERAL))),
        replace(RUNS, plan=cannot("only one plan fits"), options=OPTIONS[:1]),
    ),
    "no plan fits": (
        placed_by(Fit(chosen=None, placements=(ON_SEVERAL,))),
        replace(NO_PLAN, plan=cannot("no plan fits")),
    ),
    "one that was asked for does not fit, and another does": (
        replace(last_state(REFUSED), fit=Fit(chosen=None, placements=(OFFLOADED, ON_SEVERAL))),
        replace(FAILED, download_anyway=CAN, options=OPTIONS[1:], chosen=None),
    ),
    "it failed before the checks": (
        replace(last_state(REFUSED), fit=None),
        replace(
            FAILED,
            download_anyway=CAN,
            options=(),
            chosen=None,
            plan=cannot("the checks have not been made yet"),
        ),
    ),
    "another plan was taken": (
        placed_by(replace(FIT, chosen=OFFLOADED)),
        replace(RUNS, chosen="model-offload"),
    ),
}


@pytest.mark.parametrize(("state", "found"), CASES.values(), ids=CASES.keys())
def test_which_control_can_act_and_why_not(state: JobState, found: Controls) -> None:
    assert controls(state) == found


def test_a_plan_that_was_asked_for_is_shown_if_it_fits() -> None:
    state = last_state(STALLED)
    assert controls(state, asked="model-offload").chosen == "model-offload"
    assert controls(state, asked="multi-gpu").chosen == "gpu"


@given(jobs.jobs)
def test_a_control_that_acts_is_one_that_the_state_allows(
    events: list[tuple[float, Event]],
) -> None:
    state = last_state(events)
    found = controls(state)
    assert not (found.cancel.enabled and found.retry.enabled)
    assert found.download_anyway.enabled is (
        isinstance(state.failure, Failed) and state.failure.forceable and found.retry.enabled
    )
    assert found.chosen is None or found.chosen in {value for _, value in found.options}
    assert {value for _, value in found.options} <= set(Method)
    wanted = control_traits(found, report="")
    for name in (*BUTTONS, "plan"):
        control: Control = getattr(found, name)
        assert wanted[name]["disabled"] is not control.enabled
        # What cannot act, or only later, says so twice: at the mouse, and in the note.
        if not control.enabled:
            assert wanted[name]["tooltip"] == control.why
            assert found.diagnostics.when or control.why in str(wanted["note"]["value"])
        elif control.when:
            assert wanted[name]["tooltip"] == control.when
            assert control.when in str(wanted["note"]["value"])


def test_a_report_stands_below_the_buttons_and_says_how_to_copy_it() -> None:
    found = controls(last_state(CANCELLED))
    before, after = (control_traits(found, report=text) for text in ("", "nbloader 0.1"))
    assert (before["reports"], after["reports"]) == ({"shown": False}, {"shown": True})
    assert after["report"] == {"value": "nbloader 0.1"}
    assert "Ctrl+C" in str(after["note"]["value"])
    assert "Ctrl+C" not in str(before["note"]["value"])
    working = control_traits(found, report="", working=True)
    assert working["diagnostics"] == {"disabled": True, "tooltip": "being gathered"}
