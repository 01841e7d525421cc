from __future__ import annotations

import base64
import csv
import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given

from nbloader.records import (
    CheckStatus,
    Component,
    Event,
    Failed,
    Notice,
    Ready,
    RepoFile,
    Retry,
    Selected,
)
from nbloader.state import JobState, Status, Step, advance
from nbloader.views import ICONS, html, pasted, text
from nbloader.views.display import STYLE, Form
from nbloader.views.parts import grouped
from nbloader.views.widget import traits
from tests import jobs
from tests.jobs import (
    BROKEN,
    CANCELLED,
    DOWNLOADING,
    FIT,
    LOADED,
    OFFLOADED,
    REFUSED,
    STALLED,
    WEIGHTS,
    last_state,
    states,
)
from tests.notebook_fakes import RecordedDisplay
from tests.samples import MB, SELECTION

WHOLE = tuple(file.path for file in SELECTION.files)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Read times of day off a clock that is the same everywhere."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


BLOCKS = {"div", "tr", "summary", "table", "details"}
TAGS = BLOCKS | {"span", "b", "code", "thead", "tbody", "td", "th", "a", "svg", "path"}
ATTRIBUTES = {
    *("style", "class", "title", "open", "scope", "role", "href", "download", "target", "rel"),
    *(
        "aria-live",
        "aria-label",
        "aria-valuemin",
        "aria-valuemax",
        "aria-valuenow",
        "aria-valuetext",
    ),
    *("viewbox", "preserveaspectratio", "d", "vector-effect"),
}


class Reader(HTMLParser):
    """Reads HTML as GitHub leaves it: no styles, only plain elements and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes.update(attrs)
        self.open.append(tag)
        self.text += "\n" if tag in BLOCKS else " | " if tag in {"td", "th"} else ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += "\n" if tag in BLOCKS else ""

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def lines(self) -> list[str]:
        cells = ([cell.strip() for cell in line.split(" | ")] for line in self.text.splitlines())
        return [" | ".join(filter(None, row)) for row in cells if any(row)]


def attributes(state: JobState) -> set[tuple[str, str | None]]:
    return Reader(html.render(state)).attributes


def test_the_final_form_reads_without_any_style() -> None:
    assert Reader(html.render(last_state(LOADED))).lines == [
        "✓ org/name · ready in 24 s",
        "SomePipeline on cpu, float32 · 80.0 MB downloaded · 20.0 MB from the cache",
        "⚠\ufe0e the token is old",
        "Make a new one.",
        "Details 3 components · 2 checks · 1 retry",
        "revision main (cccccccc) · 3.8 MB/s on average",
        "✓ connect 1.0 s · ✓ set up 1.0 s · ✓ download 21 s · ✓ initialise 1.0 s",
        "fastest 3.2 MB/s",
        "config | ready, 1.0 kB in 1 file",
        "transformer | ready, 80.0 MB in 2 files",
        "vae | ready · 0.4 s, 20.0 MB in 1 file",
        "⚠\ufe0e disk: 12 GB free",
        "Free some.",
        "✓ 1 check passed",
        "✓ hub: the Hub answered in 0.2 s",
        "– not checked: gpu (no GPU here)",
        "1 attempt failed: timed out",
        "Time | File | Reason | Next",
        "00:01:00 | transformer/model.safetensors | timed out | in 5.0 s, 1 of 5",
        "retries.csv",
    ]


def test_a_folder_is_named_by_its_end_and_once_but_for_the_details() -> None:
    folder = f"/data/{'models/' * 10}all-MiniLM-L6-v2"
    selected = Selected(selection=replace(SELECTION, folder=folder), cached=WHOLE)
    events = ((0.0, selected), (13.0, Ready(summary="SentenceTransformer on cpu, float32")))
    lines = Reader(html.render(last_state(events, folder))).lines
    assert lines[:4] == [
        "✓ /data/models/mod…models/all-MiniLM-L6-v2 · ready in 13 s",
        "SentenceTransformer on cpu, float32 · 100 MB there already",
        "Details 3 components",
        folder,
    ]
    begun = html.live(last_state(events[:1], folder), Form(), ())
    assert Reader(begun).lines[:2] == [
        "● /data/models/mod…models/all-MiniLM-L6-v2",
        "4 files, 100 MB",
    ]


def test_where_a_model_is_stands_in_its_summary_or_below_it() -> None:
    ready = last_state((*STALLED, (24.0, Ready(summary="SomePipeline on cuda:0, bfloat16"))))
    assert "all on cuda:0" not in html.render(ready)
    offloaded = replace(ready, fit=replace(FIT, chosen=OFFLOADED))
    assert "one component on the GPU at a time" in Reader(html.render(offloaded)).lines[1]


def test_a_running_job_shows_how_far_it_is() -> None:
    lines = Reader(html.render(advance(last_state(STALLED), 22.4))).lines
    assert lines[:8] == [
        "● org/name",
        "4 files, 100 MB · all on cuda:0 in bfloat16 · main (cccccccc)",
        "60 %60.0 of 100 MB⚠\ufe0e no bytes for 3 s",
        "✓ connect 1.0 s · ✓ set up 1.0 s · ● download 20 s",
        "fastest 5.0 MB/s",
        "config",
        "downloaded, 1.0 kB",
        "transformer",
    ]


def test_a_failed_job_shows_why_and_what_to_do() -> None:
    lines = Reader(html.render(last_state(BROKEN))).lines
    assert lines[:7] == [
        "✗ org/name · failed after 13 s [disk-full]",
        "the disk is full",
        "Free 40 MB.",
        "40.0 MB downloaded in 11 s, 3.6 MB/s · 20.0 MB from the cache",
        "⚠\ufe0e the token is old",
        "Make a new one.",
        "Details 3 components · 2 checks · 1 retry",
    ]
    assert lines[lines.index("transformer") + 1] == "stopped, 40.0 of 80.0 MB"


def test_where_the_cell_shows_the_error_the_view_points_at_it() -> None:
    lines = Reader(html.render(last_state(BROKEN), Form(raised=True))).lines
    assert lines[0] == "✗ org/name · failed after 13 s [disk-full] · the error below says why"
    assert not any("the disk is full" in line for line in lines)


def test_after_a_failed_check_there_is_no_row_of_no_bytes() -> None:
    lines = Reader(html.render(last_state(REFUSED))).lines
    assert lines[:4] == [
        "✗ org/name · failed after 2.1 s [disk-full]",
        "no room",
        "Free some.",
        "20.0 MB from the cache · all on cuda:0 in bfloat16",
    ]


def test_code_and_links_of_a_hint_are_code_and_links() -> None:
    hint = 'Pass `plan="cpu"`; see https://hf.co/docs. Or:\n%pip install "a<b"\nThen go on.'
    failed = Failed(reference="x", message="m", hint=hint)
    source = html.render(last_state(((0.0, failed),)))
    assert "<code>plan=&quot;cpu&quot;</code>" in source
    assert '<a href="https://hf.co/docs" target="_blank"' in source
    assert "<div><code>%pip install &quot;a&lt;b&quot;</code></div><div>Then go on.</div>" in source


def test_what_is_to_be_pasted_keeps_its_spaces_and_fits_the_page() -> None:
    source = pasted('a  <b>="c"\n  d')
    assert source.endswith('">a  &lt;b&gt;=&quot;c&quot;\n  d</pre>')
    assert "white-space:pre-wrap;overflow-wrap:anywhere" in source


def test_small_parts_of_a_job_that_runs_share_a_row() -> None:
    small = tuple(
        Component(name=name, paths=(f"{name}.json",)) for name in ("tokenizer", "scheduler")
    )
    files = tuple(RepoFile(path=f"{part.name}.json", size=999_999, etag="") for part in small)
    selection = replace(
        SELECTION,
        components=(*small, *SELECTION.components),
        files=(*SELECTION.files, *files),
    )
    state = last_state([(0.0, Selected(selection=selection, cached=("tokenizer.json",)))])
    rows = [part.name for part in grouped(state.components)]
    assert rows == ["transformer", "vae", "3 small parts"]
    (summed,) = grouped(state.components)[2:]
    assert (summed.step, summed.completed, summed.total) == (Step.WAITING, 999_999, 2_000_998)


@pytest.mark.parametrize("reference", ["interrupted", "cancelled"])
def test_who_ends_a_job_reads_once_that_it_stopped_and_what_is_kept(reference: str) -> None:
    ended = Failed(reference=reference, message="it was stopped", hint="Run it again.")
    state = last_state((*STALLED, (20.0, ended)))
    kept = "60.0 of 100 MB are kept"
    lines = Reader(html.render(state)).lines
    assert lines[:5] == [
        "■ org/name · Stopped after 20 s",
        f"{kept}; run the cell again to go on",
        "Details 3 components · 2 checks · 1 retry",
        "revision main (cccccccc)",
        "✓ connect 1.0 s · ✓ set up 1.0 s · ■ download 18 s",
    ]
    assert text.render(state).splitlines()[-2:] == [
        "  downloaded 40.0 MB in 18 s, 2.2 MB/s",
        f"stopped after 20 s; {kept}; run it again to go on",
    ]
    begun = last_state((*STALLED[:1], (1.0, ended)))
    assert Reader(html.render(begun)).lines[:2] == [
        "■ org/name · Stopped after 1.0 s",
        "the download had not begun; run the cell again to begin it",
    ]
    assert "error-color" not in html.render(state)


def test_what_stands_behind_the_widgets_is_true_once_the_kernel_is_dead() -> None:
    bundle = html.interrupted_bundle(last_state(STALLED, "org/<b>"))
    said = (
        "running when this was saved; if the kernel has stopped since, it was interrupted; "
        "run again to continue: what has arrived is kept"
    )
    assert Reader(bundle["text/html"]).lines == [f"● org/<b> · {said}"]
    assert bundle["text/plain"] == f"● org/<b>: {said}"


def test_the_retries_can_be_taken_along_as_csv() -> None:
    hostile = Retry(
        time=float("nan"), path='=1+1,"a"', reason="@x\n", wait_s=0, attempt=0, max_attempts=5
    )
    state = last_state((*STALLED, (20.0, hostile)))
    (link,) = [value or "" for name, value in attributes(state) if name == "href"]
    kind, _, content = link.partition(",")
    assert kind == "data:text/csv;base64"
    assert list(csv.reader(io.StringIO(base64.b64decode(content).decode()))) == [
        ["time", "file", "reason", "wait_s", "attempt", "max_attempts", "route", "failed_route"],
        ["", '\'=1+1,"a"', "'@x", "0", "0", "5", "", ""],
        ["2027-01-15T08:00:00+00:00", WEIGHTS, "no bytes for 5 s", "5", "1", "5", "http", "xet"],
    ]
    assert ("download", "retries.csv") in attributes(state)


def test_those_who_hear_the_page_learn_what_each_bar_measures() -> None:
    source = html.render(advance(last_state(STALLED), 22.4))
    bars = re.findall(
        r'role="progressbar" aria-label="([^"]*)" aria-valuemin="0" aria-valuemax="100" '
        r'aria-valuenow="(\d+)" aria-valuetext="([^"]*)".*?width:([\d.]+)%',
        source,
    )
    assert bars == [
        ("bytes", "60", "60 %, 60.0 of 100 MB, ⚠\ufe0e no bytes for 3 s", "60.0"),
        ("config", "100", "downloaded, 1.0 kB", "100.0"),
        ("transformer", "50", "downloading, 40.0 of 80.0 MB", "50.0"),
        ("vae", "100", "downloaded, 20.0 MB", "100.0"),
    ]


def test_no_text_has_a_colour_of_its_own() -> None:
    for events in (LOADED, STALLED, CANCELLED):
        for style in re.findall(r'style="([^"]*)"', html.render(last_state(events))):
            for rule in style.split(";"):
                name, _, value = rule.partition(":")
                assert name != "color" or value == "inherit" or value.endswith(",inherit)")


def test_the_text_form_holds_the_same() -> None:
    assert text.render(last_state(LOADED)).splitlines() == [
        "connect: org/name",
        "set up",
        "  ⚠\ufe0e disk: 12 GB free",
        "    Free some.",
        "  ✓ 1 check passed",
        "download: 4 files, 100 MB, 20.0 MB of it cached",
        "  retry: transformer/model.safetensors: timed out; attempt 1 of 5 failed, the next in "
        "5.0 s",
        "  downloaded 80.0 MB in 21 s, 3.8 MB/s",
        "initialise",
        "  note: the token is old. Make a new one.",
        "ready in 24 s: SomePipeline on cpu, float32",
    ]
    assert text.render(last_state(BROKEN)).splitlines()[-4:] == [
        "  downloaded 40.0 MB in 11 s, 3.6 MB/s",
        "  60.0 of 100 MB are on the disk",
        "failed after 13 s: the disk is full [disk-full]",
        "  Free 40 MB.",
    ]
    assert text.render(last_state(DOWNLOADING)).splitlines()[-1] == (
        "  [ 60 %] 60.0 of 100 MB, 2.2 MB/s, download 13 s left"
    )


def check_markup(state: JobState) -> None:
    """Hold all HTML of a state, live and static, against what the views write themselves."""
    values = [str(values.get("value", "")) for values in traits(state, Form()).values()]
    (styled,) = (number for number, value in enumerate(values) if value.startswith(STYLE))
    values[styled] = values[styled].removeprefix(STYLE)
    for source in filter(None, (*values, *forms(state))):
        page = Reader(source)
        assert page.seen <= TAGS
        assert {name for name, _ in page.attributes} <= ATTRIBUTES
        for name, value in page.attributes:
            if name == "style":
                assert "url" not in (value or "")
            if name == "href":
                assert (value or "").startswith(("https://", "data:text/csv;base64,"))
        assert source.isprintable()
        # A formula stays text, too.
        assert source.startswith('<div class="tex2jax_ignore mathjax_ignore"')


def forms(state: JobState) -> tuple[str, ...]:
    bundles = (html.static_bundle(state), html.interrupted_bundle(state))
    return tuple(bundle["text/html"] for bundle in bundles)


@pytest.mark.parametrize("foreign", jobs.HOSTILE)
def test_nothing_foreign_becomes_markup_at_any_time(foreign: str) -> None:
    events = jobs.hostile_job(foreign)
    failed = Failed(reference=foreign, message=foreign, hint=foreign)
    for number, state in enumerate(states(events, foreign), 1):
        check_markup(state)
        ended = last_state((*events[:number], (9.0, failed)), foreign)
        check_markup(ended)
        for form in (text.render(state), text.render(ended)):
            assert all(line.isprintable() for line in form.split("\n"))


@given(jobs.jobs, jobs.texts)
def test_nothing_foreign_becomes_markup(events: list[tuple[float, Event]], repo_id: str) -> None:
    state = last_state(events, repo_id)
    check_markup(state)
    # What is stored in a notebook has to be UTF-8, whatever the Hub's JSON held.
    for form in html.static_bundle(state).values():
        assert json.loads(json.dumps(form).encode()) == form
        form.encode()
        assert len(form) < 300_000


def many(count: int) -> JobState:
    """Build a state with `count` components, retries and notices."""
    names = [f"part_{number:04d}" for number in range(count)]
    selection = replace(
        SELECTION,
        components=tuple(Component(name=name, paths=(name,)) for name in names),
        files=tuple(
            RepoFile(path=name, size=(number + 1) * MB, etag="0" * 40)
            for number, name in enumerate(names)
        ),
    )
    retry = Retry(time=0, path=None, reason="reset", wait_s=1, attempt=1, max_attempts=5)
    return replace(
        last_state([(0.0, Selected(selection=selection))]),
        retries=(retry,) * count,
        retried_at=(0.0,) * count,
        notices=tuple(Notice(reference="r", message=name, hint="") for name in names),
    )


def test_long_lists_are_cut_and_say_so() -> None:
    lines = Reader(html.render(many(100))).lines
    # The 12 largest of 100, in the selection's order; 1 MB + 2 MB + ... + 88 MB for the rest.
    assert [line for line in lines if line.startswith("part_")] == [
        f"part_{number:04d}" for number in range(88, 100)
    ]
    assert lines[lines.index("88 others") + 1] == "waiting, 3.9 GB"
    assert "100 attempts failed: reset" in lines
    assert sum("| the Hub | reset |" in line for line in lines) == 50
    assert "50 earlier ones · retries.csv" in lines
    assert "80 earlier notes" in lines
    assert len(html.render(many(10_000))) < len(html.render(many(200))) * 1.1


@pytest.mark.parametrize("count", [1, 5, 200])
def test_retries_are_folded_behind_what_they_come_to(count: int) -> None:
    assert "details" in Reader(html.render(many(count))).seen


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1e300, 1e300])
def test_a_time_that_no_calendar_knows_is_a_dash(seconds: float) -> None:
    retry = Retry(time=seconds, path="a", reason="b", wait_s=1, attempt=1, max_attempts=2)
    lines = Reader(html.render(replace(many(0), retries=(retry,)))).lines
    assert lines[-2] == "– | a | b | in 1.0 s, 1 of 2"


def test_times_of_retries_are_those_of_the_clock_on_the_wall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retry = Retry(time=60, path="a", reason="b", wait_s=0, attempt=0, max_attempts=2)
    monkeypatch.setenv("TZ", "UTC-5:30")
    time.tzset()
    try:
        lines = Reader(html.render(replace(many(0), retries=(retry,)))).lines
    finally:
        monkeypatch.undo()
        time.tzset()
    assert lines[-2] == "05:31:00 | a | b | at once"


def test_a_route_is_told_of_where_it_has_changed() -> None:
    lines = Reader(html.render(last_state(STALLED))).lines
    assert lines[-3:-1] == [
        "Time | File | Reason | Next | Over",
        f"08:00:00 | {WEIGHTS} | no bytes for 5 s | in 5.0 s, 1 of 5 | http",
    ]
    assert not any("Over" in line for line in Reader(html.render(last_state(LOADED))).lines)


def test_every_status_has_its_mark() -> None:
    assert set(ICONS) == {*Status, *CheckStatus}


def test_the_view_is_replaced_once_a_second_and_ends_in_the_final_form() -> None:
    display = RecordedDisplay()
    now = 0.0
    view = html.HtmlView(display, clock=lambda: now)
    drawn = state = last_state(DOWNLOADING)
    for tick in range(100):
        now = tick / 10
        shown = advance(state, 100.0 + now)  # later, so that the elapsed time differs
        calls = len(display.calls)
        view.update(shown)
        drawn = shown if len(display.calls) > calls else drawn
    assert [kind for kind, _ in display.calls] == ["show", *["update"] * 9]
    assert display.outputs == [html.static_bundle(drawn)]
    end = last_state(LOADED)
    view.close(end)
    view.close(end)
    view.update(state)
    assert display.outputs == [html.static_bundle(end)]
    assert len(display.calls) == 11


def test_a_state_that_is_drawn_already_is_not_sent_again() -> None:
    display = RecordedDisplay()
    view = html.HtmlView(display, clock=lambda: 0.0)
    end = last_state(LOADED)
    view.update(end)
    view.close(end)
    assert [kind for kind, _ in display.calls] == ["show"]


def test_a_new_stage_is_shown_at_once() -> None:
    display = RecordedDisplay()
    view = html.HtmlView(display, clock=lambda: 0.0)
    for state in states(LOADED):
        view.update(state)
        assert str(state.stage) in display.outputs[0]["text/html"]
    assert len(display.calls) == 8
