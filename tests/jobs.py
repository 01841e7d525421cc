"""Jobs to show: events with their times, some of them hostile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hypothesis import strategies as st

from nbloader.records import (
    Checked,
    CheckResult,
    CheckStatus,
    Component,
    ComponentLoaded,
    Event,
    Failed,
    FileDone,
    FileProgress,
    Fit,
    Kind,
    LibrariesImported,
    Method,
    Notice,
    PlacedComponent,
    Placement,
    Ready,
    RepoFile,
    Retry,
    Route,
    Selected,
    Selection,
    Silence,
    Stage,
    StageStarted,
)
from nbloader.state import JobState, apply
from tests.samples import MB, SELECTION

WEIGHTS = "transformer/model.safetensors"

CHECKS = (
    CheckResult(name="hub", status=CheckStatus.PASSED, message="the Hub answered in 0.2 s"),
    CheckResult(name="disk", status=CheckStatus.WARNING, message="12 GB free", hint="Free some."),
    CheckResult(name="gpu", status=CheckStatus.SKIPPED, message="no GPU here"),
)

DOWNLOADING: tuple[tuple[float, Event], ...] = (
    (0.0, StageStarted(stage=Stage.CONNECT)),
    (1.0, StageStarted(stage=Stage.SET_UP)),
    (2.0, Selected(selection=SELECTION, cached=("model_index.json", "vae/model.safetensors"))),
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
    reason="fits, slower",
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
            failed_route=Route.XET,
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
    """Yield the state after each event."""
    state = JobState(repo_id=repo_id, started_at=0.0, updated_at=0.0)
    for now, event in events:
        state = apply(state, event, now)
        yield state


def last_state(events: Iterable[tuple[float, Event]], repo_id: str = "org/name") -> JobState:
    """Return the state after all events."""
    return list(states(events, repo_id))[-1]


HOSTILE = (
    '<script>alert("x")</script>',
    "<img src=x>",  # short enough for every field that is cut
    "' onload='x",
    '" onload="x',
    "&lt;b&gt;",
    "\x1b[2J",
    "a\u202eb",
    "\ud800",
    "$x$",
)


def hostile_selection(text: str) -> Selection:
    """Build a selection in which all that a repository names holds the text."""
    folder = f"{text}2"
    paths = (f"{folder}/{text}.json", f"{folder}/{text}.safetensors")
    return Selection(
        repo_id="org/name",
        revision=text,
        commit_hash="c" * 40,
        kind=Kind.DIFFUSERS,
        class_name=text,
        components=(
            Component(name=f"{text}1", library=text, class_name=text, paths=(text,)),
            Component(
                name=folder,
                library=text,
                class_name=text,
                paths=paths,
                weights=paths[1:],
                model_type=text,
                code=(text,),
            ),
        ),
        files=tuple(
            RepoFile(path=path, size=size * MB, etag="1" * 40)
            for size, path in enumerate(sorted((text, *paths)), 1)
        ),
        variant=text,
    )


def hostile_fit(text: str) -> Fit:
    """Build a fit in which every string that may come from elsewhere is the text."""
    part = PlacedComponent(name=text, device=text, dtype=text, bytes=MB)
    spread, whole = (
        Placement(
            method=method,
            device=text,
            dtype=text,
            components=(part,),
            vram=(MB,),
            reason=text,
        )
        for method in (Method.MULTI_GPU, Method.GPU)
    )
    return Fit(
        chosen=whole,
        placements=(spread, whole),
        nearest=spread,
        workload=text,
        caution=text,
        problem=text,
        hint=text,
    )


def hostile_job(text: str) -> tuple[tuple[float, Event], ...]:
    """Build a job that loads; every string in it is the text."""
    selection = hostile_selection(text)
    paths = [file.path for file in selection.files]
    result = CheckResult(
        name=text,
        status=CheckStatus.WARNING,
        message=text,
        hint=text,
        reference=text,
        link=f"https://{text}",
    )
    retry = Retry(time=60, path=text, reason=text, wait_s=5, attempt=1, max_attempts=5)
    return (
        (0.0, StageStarted(stage=Stage.CONNECT)),
        (1.0, Selected(selection=selection, cached=(paths[0],))),
        (1.0, Checked(results=(result, *CHECKS), fit=hostile_fit(text))),
        (2.0, StageStarted(stage=Stage.DOWNLOAD)),
        (3.0, FileProgress(path=paths[1], completed=MB)),
        (4.0, retry),
        (4.0, Notice(reference=text, message=text, hint=text)),
        (5.0, FileDone(path=paths[1])),
        (5.0, FileDone(path=paths[2])),
        (6.0, StageStarted(stage=Stage.INITIALISE)),
        (7.0, ComponentLoaded(name=selection.components[0].name, seconds=0.5)),
        (8.0, Ready(summary=text)),
    )


texts = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(), max_size=400))
"""Anything that a server or a repository can put into a string."""

_seconds = st.floats(allow_nan=True, allow_infinity=True)
_selections = (SELECTION, *map(hostile_selection, HOSTILE))
_paths = st.sampled_from([file.path for selection in _selections for file in selection.files])
_names = st.sampled_from([part.name for selection in _selections for part in selection.components])

events = st.one_of(
    st.builds(StageStarted, stage=st.sampled_from(Stage)),
    st.builds(
        FileProgress,
        path=_paths,
        completed=st.integers(0, 100 * MB),
    ),
    st.builds(FileDone, path=_paths),
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
        fit=st.sampled_from([None, FIT, *map(hostile_fit, HOSTILE)]),
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
        failed_route=st.sampled_from([None, *Route]),
    ),
    st.builds(Silence, path=_paths, asked_again_in_s=_seconds),
    st.builds(Notice, reference=texts, message=texts, hint=texts),
    st.builds(
        ComponentLoaded,
        name=_names,
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
    st.sampled_from(_selections).map(
        lambda selection: Selected(
            selection=selection, cached=(selection.components[-1].paths[-1],)
        )
    ),
)
"""Any event, in any order."""

jobs = st.lists(st.tuples(st.floats(0, 3), events), min_size=1, max_size=40).map(
    lambda steps: [
        (sum(pause for pause, _ in steps[: number + 1]), event)
        for number, (_, event) in enumerate(steps)
    ]
)
"""Events with growing times."""
