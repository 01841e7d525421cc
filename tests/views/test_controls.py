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
    FOR_RETRY,
    RESTS,
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
BUILT = (*STALLED, (20.0, StageStarted(stage=Stage.INITIALISE)))

RUNS = Controls(shown=("cancel", "diagnostics", "plan"), options=OPTIONS, chosen="gpu")
FAILED = replace(RUNS, shown=("retry", "diagnostics", "plan"), note=FOR_RETRY)
REFUSED_BY_CHECKS = replace(FAILED, shown=("retry", "download_anyway", "diagnostics", "plan"))
WITHOUT_PLANS = Controls(shown=("cancel", "diagnostics"))


def placed_by(fit: Fit) -> JobState:
    return replace(last_state(STALLED), fit=fit)


CASES = {
    "before the plan": (last_state(DOWNLOADING[:1]), WITHOUT_PLANS),
    "downloading": (last_state(STALLED), RUNS),
    "building": (last_state(BUILT), replace(RUNS, shown=("cancel", "diagnostics"))),
    "ready": (last_state(LOADED), Controls(shown=("diagnostics",))),
    "cancelled": (last_state(CANCELLED), FAILED),
    "refused by a check": (last_state(REFUSED), REFUSED_BY_CHECKS),
    "a cell waits": (
        advance(last_state(STALLED), 20.0, waited_for=True),
        replace(RUNS, shown=(), note=RESTS),
    ),
    "it waits for a cell": (
        advance(last_state(STALLED), 20.0, turn=Turn.DUE),
        replace(RUNS, note=AFTER_CELL, waits=True),
    ),
    "it is being imported": (
        replace(last_state(STALLED), turn=Turn.UNDER_WAY, importing=None),
        replace(RUNS, note=AFTER_IMPORT, waits=True),
    ),
    "it is being loaded": (
        advance(last_state(BUILT), 21.0, turn=Turn.UNDER_WAY),
        replace(RUNS, shown=("cancel", "diagnostics"), note=AFTER_STEP, waits=True),
    ),
    "one plan fits": (
        placed_by(Fit(chosen=ON_THE_GPU, placements=(ON_THE_GPU, ON_SEVERAL))),
        replace(RUNS, shown=("cancel", "diagnostics"), options=OPTIONS[:1]),
    ),
    "no plan fits": (placed_by(Fit(chosen=None, placements=(ON_SEVERAL,))), WITHOUT_PLANS),
    "one that was asked for does not fit, and another does": (
        replace(last_state(REFUSED), fit=Fit(chosen=None, placements=(OFFLOADED, ON_SEVERAL))),
        replace(REFUSED_BY_CHECKS, options=OPTIONS[1:], chosen=None),
    ),
    "it failed before the checks": (
        replace(last_state(REFUSED), fit=None),
        Controls(shown=("retry", "download_anyway", "diagnostics")),
    ),
    "another plan was taken": (
        placed_by(replace(FIT, chosen=OFFLOADED)),
        replace(RUNS, chosen="model-offload"),
    ),
}


@pytest.mark.parametrize(("state", "found"), CASES.values(), ids=CASES.keys())
def test_what_can_act_is_shown_and_nothing_else(state: JobState, found: Controls) -> None:
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
    assert not {"cancel", "retry"} <= set(found.shown)
    assert ("download_anyway" in found.shown) is (
        isinstance(state.failure, Failed) and state.failure.forceable and "retry" in found.shown
    )
    assert found.chosen is None or found.chosen in {value for _, value in found.options}
    assert {value for _, value in found.options} <= set(Method)
    assert set(found.shown) <= {*BUTTONS, "plan"}
    wanted = control_traits(found, report="")
    assert wanted["row"]["names"] == (*found.shown, *(["note"] if found.note else []))
    assert bool(wanted["row"]["classes"]) is found.waits <= bool(found.note)
    assert found.note in str(wanted["note"]["value"])


def test_a_report_is_shown_once_there_is_one() -> None:
    found = controls(last_state(CANCELLED))
    before, after = (control_traits(found, report=text) for text in ("", "nbloader 0.1"))
    assert (before["reports"], after["reports"]) == ({"shown": False}, {"shown": True})
    assert after["report"] == {"value": "nbloader 0.1"}
    working = control_traits(found, report="", working=True)
    assert (before["diagnostics"], working["diagnostics"]) == (
        {"disabled": False},
        {"disabled": True},
    )
