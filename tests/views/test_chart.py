"""The charts: what they draw, and that nothing foreign can break them."""

from __future__ import annotations

import builtins
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbloader.checks import PreflightReport
from nbloader.errors import MissingPackageError
from nbloader.fit import fit
from nbloader.records import (
    Component,
    ComponentWeights,
    DiskFacts,
    Event,
    Failed,
    FileDone,
    FileProgress,
    Fit,
    GpuFacts,
    LibrariesImported,
    MachineFacts,
    MemoryFacts,
    Method,
    PackageFacts,
    PlacedComponent,
    Placement,
    Ready,
    RepoFile,
    Retry,
    Route,
    Selected,
    Selection,
    Stage,
    StageStarted,
)
from nbloader.state import JobState
from nbloader.text import format_bytes
from nbloader.views import timeline
from nbloader.views.chart import plot_job, time_texts, time_ticks, took
from nbloader.views.figure import nice_step
from nbloader.views.fit_chart import Need, needs
from nbloader.views.timeline import Bar, Lane, Mark, RouteChange
from tests import jobs
from tests.jobs import BROKEN, DOWNLOADING, LOADED, WEIGHTS, last_state, texts
from tests.notebook_fakes import running_kernel
from tests.samples import MB, SELECTION

GB = 1000 * MB


def retry(
    reason: str,
    route: Route | None,
    path: str | None = WEIGHTS,
    failed_route: Route | None = Route.XET,
) -> Retry:
    return Retry(
        time=0,
        path=path,
        reason=reason,
        wait_s=0,
        attempt=1,
        max_attempts=5,
        route=route,
        failed_route=failed_route,
    )


FALLEN_SILENT: tuple[tuple[float, Event], ...] = (
    (0.0, StageStarted(stage=Stage.CONNECT)),
    (1.0, Selected(selection=SELECTION, cached=("model_index.json", "vae/model.safetensors"))),
    (2.0, StageStarted(stage=Stage.DOWNLOAD)),
    (3.0, FileProgress(path=WEIGHTS, completed=20 * MB)),
    (9.0, retry("timed out", Route.XET)),
    (9.5, LibrariesImported(seconds=8.0)),
    (13.0, FileProgress(path=WEIGHTS, completed=40 * MB)),
    (20.0, retry("timed out", Route.HTTP)),
    (20.1, retry("reset", None, None)),
    (24.0, FileProgress(path=WEIGHTS, completed=60 * MB)),
)
READY: tuple[tuple[float, Event], ...] = (
    *FALLEN_SILENT,
    (25.0, FileDone(path="transformer/config.json")),
    (25.0, FileDone(path=WEIGHTS)),
    (25.0, StageStarted(stage=Stage.INITIALISE)),
    (30.0, Ready(summary="SomePipeline on cpu, float32")),
)
SILENT_TO_THE_END: tuple[tuple[float, Event], ...] = (
    *FALLEN_SILENT,
    (40.0, Failed(reference="download-failed", message="no", hint="no")),
)


def of_kind(axes: Any, gid: str) -> list[Any]:
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def extents(axes: Any, gid: str) -> list[tuple[float, float]]:
    """From where to where rectangles reach on the axis of x."""
    boxes = [
        artist.get_path().get_extents(artist.get_patch_transform()) for artist in of_kind(axes, gid)
    ]
    return [(box.x0, box.x1) for box in boxes]


def written(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def many_components(number: int, name: str = "part") -> JobState:
    selection = replace(
        SELECTION,
        components=tuple(
            Component(name=f"{name}{each}", paths=(f"{each}/model",)) for each in range(number)
        ),
        files=tuple(
            RepoFile(path=f"{each}/model", size=(each + 1) * MB, etag="1" * 40)
            for each in range(number)
        ),
    )
    events: list[tuple[float, Event]] = [
        (0.0, Selected(selection=selection)),
        (0.0, StageStarted(stage=Stage.DOWNLOAD)),
    ]
    for each in range(number):
        events.append((1.0 + each, FileProgress(path=f"{each}/model", completed=1)))
        events.append((2.0 + each, FileDone(path=f"{each}/model")))
    for at, stage in enumerate(Stage):
        events.append((number + 2.0 + at, StageStarted(stage=stage)))
    return last_state(events)


# -- a job -----------------------------------------------------------------------------------------


def test_the_bars_are_what_ran_from_when_to_when() -> None:
    state = last_state(READY)
    assert timeline.bars(state) == [
        Bar(lane=Lane.STAGE, name="connect", start=0.0, end=2.0, ended=True),
        Bar(lane=Lane.STAGE, name="download", start=2.0, end=25.0, ended=True),
        Bar(lane=Lane.STAGE, name="initialise", start=25.0, end=30.0, ended=True),
        Bar(lane=Lane.IMPORT, name="imports", start=1.5, end=9.5, ended=True),
        Bar(lane=Lane.DOWNLOAD, name="transformer", start=3.0, end=25.0, ended=True),
    ]
    axes = plot_job(state).axes[1]
    assert extents(axes, "bar") == [(row.start, row.end) for row in timeline.bars(state)]


def test_what_has_not_ended_reaches_to_the_end_of_the_job() -> None:
    assert timeline.bars(last_state(SILENT_TO_THE_END))[-1] == Bar(
        lane=Lane.DOWNLOAD, name="transformer", start=3.0, end=40.0, ended=False
    )
    figure = plot_job(last_state(SILENT_TO_THE_END))
    assert [bool(bar.get_hatch()) for bar in of_kind(figure.axes[1], "bar")] == [False] * 3 + [True]
    assert "not ended" in written(figure)
    assert "not ended" not in written(plot_job(last_state(READY)))


def test_the_smallest_components_are_summed_up() -> None:
    whole = timeline.bars(many_components(12))[len(Stage) + 1 :]
    assert [row.name for row in whole] == [f"part{number}" for number in range(12)]
    summed = timeline.bars(many_components(14))[len(Stage) + 1 :]
    assert [row.name for row in summed[:-1]] == [f"part{number}" for number in range(3, 14)]
    assert summed[-1] == Bar(
        lane=Lane.DOWNLOAD, name="3 smaller ones", start=1.0, end=4.0, ended=True
    )


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (READY, [(3.0, 13.0), (13.0, 24.0)]),
        (SILENT_TO_THE_END, [(3.0, 13.0), (13.0, 24.0), (24.0, 40.0)]),
        ((*FALLEN_SILENT, (29.0, retry("slow", None))), [(3.0, 13.0), (13.0, 24.0), (24.0, 29.0)]),
        (DOWNLOADING[:5], []),
    ],
    ids=["ready", "silent to the end", "silent now", "no byte yet"],
)
def test_times_without_a_byte_are_shaded(
    events: tuple[tuple[float, Event], ...], expected: list[tuple[float, float]]
) -> None:
    state = last_state(events)
    assert timeline.stalls(state) == expected
    assert extents(plot_job(state).axes[0], "stall") == expected


def test_retries_are_marked_on_the_line_when_they_were_told_of() -> None:
    state = last_state(READY)
    assert timeline.marks(state) == [
        Mark(at=9.0, retries=(state.retries[0],)),
        Mark(at=20.0, retries=state.retries[1:]),
    ]
    figure = plot_job(state)
    places = [mark.get_xydata()[0].tolist() for mark in of_kind(figure.axes[0], "retry")]
    assert places == [[9.0, 32.0 * MB], [20.0, pytest.approx((40 + 20 * 7 / 11) * MB)]]
    (line,) = of_kind(figure.axes[0], "bytes")
    points = [*state.history, (25.0, 80 * MB + 1000)]
    assert line.get_xydata().tolist() == [list(point) for point in points]
    text = written(figure)
    assert f"timed out · {WEIGHTS} · then over Xet" in text
    assert "2 attempts failed: timed out, reset · then over HTTP" in text


def test_a_change_of_the_route_is_marked() -> None:
    state = last_state(READY)
    assert timeline.route_changes(state) == [RouteChange(at=20.0, route="http")]
    figure = plot_job(state)
    assert [line.get_xdata() for line in of_kind(figure.axes[0], "route")] == [[20.0, 20.0]]
    assert " to HTTP" in written(figure)
    assert timeline.route_changes(last_state(LOADED)) == []
    first = (*DOWNLOADING, (20.0, retry("timed out", Route.HTTP)))
    assert timeline.route_changes(last_state(first)) == [RouteChange(at=20.0, route="http")]


def test_pieces_that_were_on_the_route_before_do_not_change_it_again() -> None:
    change = (20.0, retry("timed out", Route.HTTP))
    late = (21.0, retry("reset", Route.HTTP))
    back = (22.0, retry("reset", Route.XET, failed_route=Route.HTTP))
    other = (23.0, retry("reset", Route.HTTP, "vae/model.safetensors"))
    state = last_state((*DOWNLOADING, change, late, back, other))
    assert timeline.route_changes(state) == [
        RouteChange(at=20.0, route="http"),
        RouteChange(at=22.0, route="xet"),
        RouteChange(at=23.0, route="http"),
    ]


def test_marks_are_bounded_and_told_of_in_a_few_lines() -> None:
    routes = (Route.HTTP, Route.XET)
    events = [
        (number / 10, retry("reset", routes[number % 2], failed_route=routes[number % 2 - 1]))
        for number in range(2000)
    ]
    state = last_state([*DOWNLOADING[:6], *((3.0 + at, event) for at, event in events)])
    figure = plot_job(state)
    assert len(of_kind(figure.axes[0], "retry")) <= 40
    assert len(of_kind(figure.axes[0], "route")) <= 10
    lines = list(timeline.told(timeline.marks(state)))
    assert len(lines) == timeline.MAX_LISTED + 1
    assert lines[-1][1].startswith("and ")
    counts = [mark.retries for mark in timeline.marks(state)]
    assert sum(map(len, counts)) == 2000


@given(st.floats(1e-6, 1e18), st.integers(1, 9))
def test_steps_are_even_numbers_and_not_too_many(extent: float, parts: int) -> None:
    step = nice_step(extent, parts)
    assert extent <= step * parts <= 10.001 * extent
    assert f"{step:.0e}"[0] in "125"


@pytest.mark.parametrize("seconds", [0.1, 0.5, 3, 9, 59, 61, 599, 3599, 7300, 1e6, 1e9])
def test_times_are_written_at_a_few_even_steps(seconds: float) -> None:
    ticks = time_ticks(seconds)
    assert 2 <= len(ticks) <= 9
    assert ticks[0] == 0
    assert ticks[-1] <= seconds
    assert len({round(after - before, 6) for before, after in pairwise(ticks)}) == 1


@pytest.mark.parametrize(
    ("seconds", "texts", "unit"),
    [
        (0.75, ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"], "s"),
        (3, ["0", "0.5", "1", "1.5", "2", "2.5", "3"], "s"),
        (59, ["0", "10", "20", "30", "40", "50"], "s"),
        (75, ["0:00", "0:10", "0:20", "0:30", "0:40", "0:50", "1:00", "1:10"], "min:s"),
        (
            3700,
            ["0:00:00", "0:10:00", "0:20:00", "0:30:00", "0:40:00", "0:50:00", "1:00:00"],
            "h:min:s",
        ),
    ],
)
def test_the_times_of_an_axis_are_all_written_in_its_unit(
    seconds: float, texts: list[str], unit: str
) -> None:
    assert time_texts(time_ticks(seconds), seconds) == (texts, unit)


def test_what_took_no_time_to_speak_of_is_told_as_less_than_the_least_figure() -> None:
    assert [took(seconds) for seconds in (0.0, 0.049, 0.05, 12.0)] == [
        "< 0.1 s",
        "< 0.1 s",
        "0.1 s",
        "12 s",
    ]


def test_both_parts_have_the_same_axis_of_time() -> None:
    upper, lower = plot_job(last_state(READY)).axes[:2]
    assert upper.get_xlim() == lower.get_xlim() == (0.0, 30.0)
    assert upper.get_position().x0 == lower.get_position().x0
    assert upper.get_position().x1 == lower.get_position().x1


@pytest.mark.parametrize("number", [7, 12, 40])
def test_no_labels_overlap_and_all_stand_within_the_figure(number: int) -> None:
    figure = plot_job(many_components(number, "a_component_with_a_very_long_name_"))
    png(figure)  # lays out
    from matplotlib.text import Text

    texts = [
        text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()
    ]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    width, height = figure.bbox.size
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for index, (text, box) in enumerate(boxes):
        for other, its in boxes[index + 1 :]:
            wide = min(box.x1, its.x1) - max(box.x0, its.x0)
            high = min(box.y1, its.y1) - max(box.y0, its.y0)
            assert wide <= 0 or high <= 1, (text, other)
    assert width == 900


@settings(max_examples=25, deadline=None)
@given(jobs.jobs, texts)
def test_no_job_breaks_the_chart(events: list[tuple[float, Event]], repo_id: str) -> None:
    png(plot_job(last_state(events, repo_id)))


HOSTILE = ("$\\frac{", "$x$", "\\$ $$", "\u6f22\u5b57 \U0001f600", "\u202eabc", "\ud800", "W" * 500)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_drawn_as_they_are(text: str) -> None:
    selection = replace(
        SELECTION,
        components=(replace(SELECTION.components[1], name=text),),
        files=SELECTION.files[1:3],
    )
    events: list[tuple[float, Event]] = [
        (0.0, Selected(selection=selection)),
        (0.0, StageStarted(stage=Stage.DOWNLOAD)),
        (1.0, FileProgress(path=WEIGHTS, completed=10 * MB)),
        (2.0, retry(text, Route.HTTP, text)),
        (3.0, Failed(reference=text, message=text, hint=text)),
    ]
    figure = plot_job(last_state(events, text))
    assert png(figure)
    if text == "$x$":
        assert written(figure).count("$x$") == 2  # the title and the component
        assert "$x$ · $x$ · then over HTTP" in written(figure)
    assert all(not shown or shown.isprintable() or "\n" in shown for shown in written(figure))


def test_the_user_s_own_style_is_left_alone_and_is_not_used() -> None:
    import matplotlib

    own = {
        "text.usetex": True,
        "text.color": "white",
        "figure.facecolor": "black",
        "savefig.facecolor": "black",
        "xtick.color": "white",
    }
    with matplotlib.rc_context(own):
        before = dict(matplotlib.rcParams)
        figure = plot_job(last_state(READY))
        assert dict(matplotlib.rcParams) == before
        drawn = png(figure)
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert drawn == png(plot_job(last_state(READY)))


# -- a fit -----------------------------------------------------------------------------------------

L4 = GpuFacts(name="NVIDIA L4", free=23 * GB, total=24 * GB, capability=(8, 9))
DISK = DiskFacts(folder="/cache", free=50 * GB, total=100 * GB, writable=True)
MACHINE = MachineFacts(
    memory=MemoryFacts(available=20 * GB, total=24 * GB),
    gpus=(L4,),
    packages={"accelerate": PackageFacts(name="accelerate", installed="1.0")},
)
STORED = (
    ComponentWeights(name="transformer", bytes_by_dtype={"F32": 80 * MB}),
    ComponentWeights(name="vae", bytes_by_dtype={"F32": 20 * MB}),
)


def placed(*parts: tuple[str, str, int], **figures: Any) -> Placement:
    return Placement(
        method=Method.GPU,
        device="cuda",
        dtype="bfloat16",
        components=tuple(
            PlacedComponent(name=name, device=device, dtype="bfloat16", bytes=size)
            for name, device, size in parts
        ),
        **figures,
    )


def fit_of(placement: Placement) -> Fit:
    return Fit(chosen=placement, placements=(placement,), workload="one image")


ON_BOTH = placed(
    ("transformer", "cuda:0", 9 * GB),
    ("vae", "cpu", 2 * GB),
    vram=(12 * GB,),
    ram_loading=5 * GB,
    ram_after=1 * GB,
    mapped=GB,
)
WHOLE = (("config", 1_000), ("transformer", 80 * MB + 1_000), ("vae", 20 * MB))


def report(placement: Placement | None = None, **more: Any) -> PreflightReport:
    given: dict[str, Any] = {
        "repo_id": "org/name",
        "results": (),
        "selection": SELECTION,
        "weights": STORED,
        "fit": fit_of(placement) if placement else None,
        "machine": MACHINE,
        "disk": DISK,
        "missing_bytes": SELECTION.total,
    }
    return PreflightReport(**given | more)


def needs_of(found: PreflightReport) -> list[Need]:
    return needs(
        selection=found.selection,
        fit=found.fit,
        machine=found.machine,
        disk=found.disk,
        missing_bytes=found.missing_bytes,
    )


def test_each_place_has_what_goes_there_and_what_is_free() -> None:
    assert needs_of(report(ON_BOTH)) == [
        Need(where="NVIDIA L4", parts=(("transformer", 9 * GB),), more=3 * GB, free=23 * GB),
        Need(where="RAM", parts=(("vae", 2 * GB),), more=4 * GB, free=20 * GB, word="available"),
        Need(where="disk", parts=WHOLE, free=50 * GB),
    ]
    axes = report(ON_BOTH).plot().axes[0]
    assert extents(axes, "part") == [
        (0, 9 * GB),
        (0, 2 * GB),
        (0, 80 * MB + 1_000),
        (80 * MB + 1_000, 100 * MB + 1_000),
        (100 * MB + 1_000, SELECTION.total),
    ]
    assert extents(axes, "more") == [(9 * GB, 12 * GB), (2 * GB, 6 * GB)]
    assert extents(axes, "room")[:2] == [(0, 23 * GB), (0, 20 * GB)]
    figures = {"12.0 GB of 23.0 GB free", "6.0 GB of 20.0 GB available", "100 MB of 50.0 GB free"}
    assert figures <= set(written(report(ON_BOTH).plot()))


def test_what_is_on_the_disk_already_needs_no_free_bytes() -> None:
    need = needs_of(report(missing_bytes=30 * MB))[-1]
    assert (need.there, need.needed, need.lacking) == (SELECTION.total - 30 * MB, 30 * MB, 0)
    assert str(need) == f"30.0 MB of 50.0 GB free, {format_bytes(need.there)} cached"


def test_two_files_of_one_content_take_the_disk_once() -> None:
    same = tuple(replace(file, etag=f"{min(n, 2)}" * 40) for n, file in enumerate(SELECTION.files))
    assert same[2].etag == same[3].etag
    selection = replace(SELECTION, files=same)
    missing = SELECTION.total - SELECTION.files[3].size
    *_, need = needs(selection=selection, fit=None, machine=None, disk=DISK, missing_bytes=missing)
    assert need.parts == (*WHOLE[:2], ("vae", 0))
    assert (need.there, need.needed) == (0, missing)


def test_a_bar_that_is_longer_than_the_axis_is_broken_and_the_legend_says_why() -> None:
    roomy = report(ON_BOTH, disk=replace(DISK, free=900 * GB))
    figure = roomy.plot()
    axes, legend = figure.axes
    needed = max(need.end for need in needs_of(roomy))
    end = axes.get_xlim()[1]
    assert end > 2 * needed  # It does not look full.
    (gap,) = extents(axes, "break")
    assert needed < gap[0] < gap[1] < end
    assert len(of_kind(legend, "break")) == 1
    assert "free, more than is drawn" in written(figure)
    near = report(ON_BOTH, disk=replace(DISK, free=25 * GB)).plot()
    assert [of_kind(each, "break") for each in near.axes] == [[], []]
    assert "free, more than is drawn" not in written(near)


def test_what_is_lacking_is_said() -> None:
    found = report(replace(ON_BOTH, vram=(30 * GB,)))
    assert "30.0 GB of 23.0 GB, lacks 7.0 GB" in written(found.plot())


def test_memory_that_a_gpu_shares_holds_what_both_need() -> None:
    machine = replace(MACHINE, gpus=(replace(L4, unified=True),))
    assert needs_of(report(ON_BOTH, machine=machine))[1].needed == 6 * GB + 12 * GB


def test_memory_of_which_nothing_is_known_has_no_limit() -> None:
    machine = replace(MACHINE, memory=MemoryFacts(available=0, total=0))
    need = needs_of(report(ON_BOTH, machine=machine))[1]
    assert (need.free, need.limit, str(need)) == (None, None, "6.0 GB")
    assert png(report(ON_BOTH, machine=machine).plot())


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (MACHINE, "plan gpu in bfloat16"),
        (
            replace(MACHINE, memory=MemoryFacts(available=GB, total=GB), gpus=()),
            "no plan fits; the one that lacks the least is cpu in float32",
        ),
    ],
    ids=["fits", "does not fit"],
)
def test_the_plan_is_named(machine: MachineFacts, said: str) -> None:
    weights = (replace(STORED[0], bytes_by_dtype={"F32": 8 * GB}, largest_tensor=MB),)
    found = report(weights=weights, machine=machine, fit=fit(SELECTION, weights, machine))
    assert any(text.startswith(said) for text in written(found.plot()))


def test_a_report_that_knows_nothing_says_so() -> None:
    figure = PreflightReport(repo_id="a/b", results=()).plot()
    assert "the checks did not come so far that anything is known" in written(figure)
    assert png(figure)


_sizes = st.integers(0, 10**13)


@settings(max_examples=20, deadline=None)
@given(
    names=st.lists(texts, min_size=1, max_size=9),
    sizes=st.lists(_sizes, min_size=9, max_size=9),
    vram=st.lists(_sizes, max_size=9),
    free=_sizes,
    device=st.sampled_from(["cpu", "cuda:0", "cuda:1", "mps"]),
    missing=_sizes,
)
def test_no_fit_breaks_the_chart(
    names: list[str], sizes: list[int], vram: list[int], free: int, device: str, missing: int
) -> None:
    parts = [(name, device, size) for name, size in zip(names, sizes, strict=False)]
    placement = placed(*parts, vram=tuple(vram), ram_loading=free)
    machine = MachineFacts(
        memory=MemoryFacts(available=free, total=free),
        gpus=tuple(replace(L4, name=names[0], free=free) for _ in vram),
    )
    weights = tuple(
        ComponentWeights(name=name, bytes_by_dtype={"F32": size})
        for name, size in zip(names, sizes, strict=False)
    )
    disk = replace(DISK, free=free)
    found = report(placement, machine=machine, weights=weights, disk=disk, missing_bytes=missing)
    for place in needs_of(found):
        assert place.needed >= 0
        assert place.end == place.more + sum(size for _, size in place.parts)
    png(found.plot())


def test_what_the_report_tells_as_text_and_json_is_as_before() -> None:
    bare = report(machine=None, disk=None)
    assert repr(bare) == repr(report())
    assert bare.to_json() == report().to_json()
    assert str(bare) == str(report())


# -- where it is drawn -----------------------------------------------------------------------------


def test_matplotlib_is_loaded_only_to_draw_and_pyplot_never() -> None:
    code = (
        "import sys, nbloader.views.chart, nbloader.views.fit_chart\n"
        "from tests.jobs import LOADED, last_state\n"
        "assert 'matplotlib' not in sys.modules\n"
        "nbloader.views.chart.plot_job(last_state(LOADED))._repr_png_()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = builtins.__import__

    def imports(name: str, *args: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", imports)
    yield
    monkeypatch.undo()


def test_without_matplotlib_the_error_says_how_to_get_it(without_matplotlib: None) -> None:
    plots: tuple[Callable[[], object], ...] = (lambda: plot_job(last_state(BROKEN)), report().plot)
    for plot in plots:
        with pytest.raises(MissingPackageError, match="pip install matplotlib"):
            plot()


IN_A_KERNEL = """
import sys
sys.path.insert(0, {root!r})
from nbloader.views.chart import plot_job
from tests.jobs import LOADED, last_state
figure = plot_job(last_state(LOADED))
"""


def test_a_notebook_shows_the_figure_once_with_and_without_pyplot(tmp_path: Path) -> None:
    def images(code: str) -> list[tuple[str, ...]]:
        shown: list[tuple[str, ...]] = []

        def keep(message: dict[str, Any]) -> None:
            content = message["content"]
            assert message["msg_type"] != "error", content
            if data := content.get("data"):
                shown.append(tuple(sorted(data)))

        client.execute_interactive(code, output_hook=keep, timeout=60)
        return shown

    both = ("image/png", "text/plain")
    with running_kernel(tmp_path) as (client, _):
        assert images(IN_A_KERNEL.format(root=str(Path(__file__).parents[2]))) == []
        assert images("figure") == [both]
        assert images("%matplotlib inline\nimport matplotlib.pyplot\nfigure") == [both]
        assert images("plot_job(last_state(LOADED))") == [both]
        assert images("other = plot_job(last_state(LOADED)); figure.savefig('chart.png')") == []
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_of_two_gpus_has_a_row_for_each() -> None:
    machine = replace(MACHINE, gpus=(L4, L4))
    found = needs_of(
        report(placed(("a", "cuda:0", GB), ("b", "cuda:1", GB), vram=(GB, GB)), machine=machine)
    )
    assert [(row.where, row.parts) for row in found[:2]] == [
        ("0: NVIDIA L4", (("a", GB),)),
        ("1: NVIDIA L4", (("b", GB),)),
    ]


def test_a_selection_without_files_is_no_problem() -> None:
    selection: Selection = replace(SELECTION, components=(), files=())
    assert png(report(selection=selection, missing_bytes=0).plot())
