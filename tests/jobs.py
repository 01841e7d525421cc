"""Jobs to show: events with their times, some of them hostile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hypothesis import strategies as st

from nbloader.records import (
    Checked,
    CheckResult,
    CheckStatus,
    ComponentLoaded,
    Event,
    Failed,
    FileDone,
    FileProgress,
    Fit,
    LibrariesImported,
    Method,
    Notice,
    PlacedComponent,
    Placement,
    Planned,
    Ready,
    Retry,
    Route,
    Stage,
    StageStarted,
)
from nbloader.state import JobState, apply
from tests.samples import MB, PLAN

WEIGHTS = "transformer/model.safetensors"

CHECKS = (
    CheckResult(name="hub", status=CheckStatus.PASSED, message="the Hub answered in 0.2 s"),
    CheckResult(name="disk", status=CheckStatus.WARNING, message="12 GB free", hint="Free some."),
    CheckResult(name="gpu", status=CheckStatus.SKIPPED, message="no GPU here"),
)

DOWNLOADING: tuple[tuple[float, Event], ...] = (
    (0.0, StageStarted(stage=Stage.CONNECT)),
    (1.0, StageStarted(stage=Stage.SET_UP)),
    (2.0, Planned(plan=PLAN, cached=("model_index.json", "vae/model.safetensors"))),
    (2.0, Checked(results=CHECKS)),
    (2.0, StageStarted(stage=Stage.DOWNLOAD)),
    (3.0, FileProgress(path=WEIGHTS, completed=20 * MB)),
    (4.0, Retry(time=60, path=WEIGHTS, reason="timed out", wait_s=5, attempt=1, max_attempts=5)),
    (4.0, Notice(reference="invalid-token", message="the token is old", hint="Make a new one.")),
    (12.0, FileProgress(path=WEIGHTS, completed=40 * MB)),
)

LOADED: tuple[tuple[float, Event], ...] = (
    *DOWNLOADING,
    (22.0, FileDone(path="transformer/config.json")),
    (22.0, FileDone(path=WEIGHTS)),
    (23.0, StageStarted(stage=Stage.INITIALISE)),
    (23.5, ComponentLoaded(name="vae", seconds=0.4)),
    (24.0, Ready(summary="SomePipeline on cpu, float32")),
)

BROKEN: tuple[tuple[float, Event], ...] = (
    *DOWNLOADING,
    (13.0, Failed(reference="disk-full", message="the disk is full", hint="Free 40 MB.")),
)

ON_THE_GPU = Placement(
    method=Method.GPU,
    device="cuda:0",
    dtype="bfloat16",
    components=(
        PlacedComponent(name="transformer", device="cuda:0", dtype="bfloat16", bytes=80 * MB),
    ),
    vram=(12_600 * MB,),
    ram_loading=200 * MB,
    reason="the fastest that fits",
)
OFFLOADED = Placement(
    method=Method.MODEL_OFFLOAD,
    device="cuda:0",
    dtype="bfloat16",
    vram=(6_200 * MB,),
    ram_loading=35_700 * MB,
    ram_after=35_700 * MB,
    reason="fits, slower than gpu",
)
ON_SEVERAL = Placement(
    method=Method.MULTI_GPU, device="", dtype="", fits=False, reason="there is one GPU"
)
FIT = Fit(chosen=ON_THE_GPU, placements=(ON_THE_GPU, ON_SEVERAL, OFFLOADED))

STALLED: tuple[tuple[float, Event], ...] = (
    *DOWNLOADING[:3],
    (2.0, Checked(results=CHECKS, fit=FIT)),
    (2.0, StageStarted(stage=Stage.DOWNLOAD)),
    *((3.0 + n, FileProgress(path=WEIGHTS, completed=(n + 1) * 5 * MB)) for n in range(6)),
    (8.0, LibrariesImported(seconds=7.5)),
    (
        13.0,
        Retry(
            time=1_800_000_000,
            path=WEIGHTS,
            reason="no bytes for 5 s",
            wait_s=5,
            attempt=1,
            max_attempts=5,
            route=Route.HTTP,
        ),
    ),
    (18.0, FileProgress(path=WEIGHTS, completed=31 * MB)),
    (19.0, FileProgress(path=WEIGHTS, completed=40 * MB)),
)
"""It knows where the model goes, has stalled for 10 s, and has gone on over another route."""

CANCELLED: tuple[tuple[float, Event], ...] = (
    *STALLED,
    (20.0, Failed(reference="cancelled", message="the job was cancelled", hint="Run it again.")),
)

REFUSED: tuple[tuple[float, Event], ...] = (
    *STALLED[:3],
    (2.0, Checked(results=CHECKS, fit=FIT)),
    (2.1, Failed(reference="disk-full", message="no room", hint="Free some.", forceable=True)),
)
"""Only checks that can be passed over have failed."""


def states(events: Iterable[tuple[float, Event]], repo_id: str = "org/name") -> Iterator[JobState]:
    """Give the state after each event."""
    state = JobState(repo_id=repo_id, started_at=0.0, updated_at=0.0)
    for now, event in events:
        state = apply(state, event, now)
        yield state


def last_state(events: Iterable[tuple[float, Event]], repo_id: str = "org/name") -> JobState:
    """Give the state after all events."""
    return list(states(events, repo_id))[-1]


_HOSTILE = ('<script>alert("x")</script>', "' onload='x", "&lt;b&gt;", "\x1b[2J", "\ud800", "$x$")
texts = st.one_of(st.sampled_from(_HOSTILE), st.text(st.characters(), max_size=400))
"""Anything that a server or a repository can put into a string."""

_seconds = st.floats(allow_nan=True, allow_infinity=True)

events = st.one_of(
    st.builds(StageStarted, stage=st.sampled_from(Stage)),
    st.builds(
        FileProgress,
        path=st.sampled_from([file.path for file in PLAN.files]),
        completed=st.integers(0, 100 * MB),
    ),
    st.builds(FileDone, path=st.sampled_from([file.path for file in PLAN.files])),
    st.builds(
        Checked,
        results=st.lists(
            st.builds(
                CheckResult,
                name=texts,
                status=st.sampled_from(CheckStatus),
                message=texts,
                hint=texts,
            ),
            max_size=4,
        ).map(tuple),
        fit=st.sampled_from([None, FIT]),
    ),
    st.builds(
        Retry,
        time=_seconds,
        path=st.one_of(st.none(), texts),
        reason=texts,
        wait_s=_seconds,
        attempt=st.integers(1, 99),
        max_attempts=st.integers(1, 99),
        route=st.sampled_from([None, *Route]),
    ),
    st.builds(Notice, reference=texts, message=texts, hint=texts),
    st.builds(
        ComponentLoaded,
        name=st.sampled_from([part.name for part in PLAN.components]),
        seconds=st.floats(0, 100),
    ),
    st.builds(Ready, summary=texts),
    st.builds(
        Failed,
        reference=st.one_of(texts, st.sampled_from(["interrupted", "cancelled"])),
        message=texts,
        hint=texts,
        forceable=st.booleans(),
    ),
    st.just(Planned(plan=PLAN, cached=("vae/model.safetensors",))),
)
"""Any event, in any order."""

jobs = st.lists(st.tuples(st.floats(0, 3), events), min_size=1, max_size=40).map(
    lambda steps: [
        (sum(pause for pause, _ in steps[: number + 1]), event)
        for number, (_, event) in enumerate(steps)
    ]
)
"""Events with growing times."""
