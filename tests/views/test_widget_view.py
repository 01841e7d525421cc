from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbloader.errors import InvalidArgumentError
from nbloader.notebook import Turn
from nbloader.records import (
    Component,
    Event,
    Failed,
    FileDone,
    FileProgress,
    Notice,
    RepoFile,
    Retry,
    Selected,
    Stage,
    StageStarted,
)
from nbloader.reporter import Reporter
from nbloader.state import JobState, advance, apply
from nbloader.views import View, html
from nbloader.views.controls import BUTTONS, RESTS
from nbloader.views.display import WAITING_CLASS, WIDGET_MIME, Form
from nbloader.views.markup import box
from nbloader.views.widget import FOLDS, WidgetView, traits
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
from tests.notebook_fakes import (
    Clock,
    Comms,
    RecordedDisplay,
    open_widgets,
    recorded_comms,
    running_kernel,
)
from tests.samples import MB, SELECTION


@pytest.fixture(autouse=True)
def comms() -> Iterator[Comms]:
    with recorded_comms() as recorded:
        yield recorded


class RecordedActions:
    """Actions that are written down."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.report = "nbloader 0.1"
        self.is_late = False

    def cancel(self) -> None:
        self.calls.append("cancel")

    def retry(self) -> None:
        self.calls.append("retry")

    def download_anyway(self) -> None:
        self.calls.append("download anyway")

    def choose(self, plan: str) -> None:
        self.calls.append(f"choose {plan}")
        if self.is_late:
            raise InvalidArgumentError("too late", hint="Load it anew.")

    def diagnostics(self) -> str:
        self.calls.append("diagnostics")
        if not self.report:
            raise OSError("no room")
        return self.report


def read(widget: Any, *traits: str) -> dict[str, object]:
    return {trait: getattr(widget, trait) for trait in traits}


def titles(accordion: Any) -> tuple[str, ...]:
    """Read the titles of an accordion, which ipywidgets 7 keeps in another form."""
    if hasattr(accordion, "titles"):
        return tuple(accordion.titles)
    return tuple(accordion.get_title(number) for number in range(len(accordion.children)))


def shown(view: WidgetView) -> dict[str, dict[str, object]]:
    """Read back from the real widgets what they show, in the form of `traits`."""
    found: dict[str, dict[str, object]] = {}
    for name, widget in view._widgets.items():
        match name:
            case "file list":
                assert len(widget.children) == len(titles(widget))
                found[name] = {"titles": titles(widget)}
            case "files" | "retries":
                assert widget.children == (view._widgets[FOLDS[name]],)
                found[name] = {"titles": titles(widget), "opened": widget.selected_index == 0}
            case "row":
                names = names_of(view, widget.children)
                found[name] = {"names": names, "classes": tuple(widget._dom_classes)}
            case "shown":
                found[name] = {"names": names_of(view, widget.children)}
            case "reports":
                found[name] = {"shown": widget.children != ()}
            case "plan":
                found[name] = read(widget, "options", "value")
            case "diagnostics":
                found[name] = read(widget, "disabled")
            case _ if name in BUTTONS:
                pass
            case _:
                found[name] = read(widget, "value")
    return found


def names_of(view: WidgetView, children: Iterable[Any]) -> tuple[str, ...]:
    names = {id(widget): name for name, widget in view._widgets.items()}
    found = tuple(names[id(child)] for child in children)
    return tuple(name for name in found if name not in ("row", "reports"))


def wanted(state: JobState) -> dict[str, dict[str, object]]:
    return traits(state, Form())


def settle(view: WidgetView, state: JobState, clock: Clock) -> None:
    """Let the view send all that the budget has held back."""
    for _ in range(20):
        clock.now += 0.6
        view.update(state)
    join("nbloader-view")


def update_all(view: View, all_states: Iterable[JobState]) -> None:
    for state in all_states:
        view.update(state)


def play(view: View, events: list[tuple[float, Event]], clock: Clock) -> JobState:
    state = JobState(repo_id="org/name", started_at=0.0, updated_at=0.0)
    for clock.now, event in events:
        state = apply(state, event, clock.now)
        view.update(state)
    return state


def test_the_widgets_hold_what_the_state_says() -> None:
    view = WidgetView(RecordedDisplay())
    state = advance(last_state(STALLED), 22.0)
    view.update(state)
    assert shown(view) == wanted(state)
    values = {name: str(trait.get("value")) for name, trait in shown(view).items()}
    for said in (
        *("all on cuda:0 in bfloat16", "● download 20 s", "60 %", "60.0 of 100 MB"),
        *("no bytes for 3 s", "width:60.0%", "<path", ">downloading</span>", "--jp-warn-color0"),
    ):
        assert said in values["job"]
    assert "B/s" not in values["job"].partition("<svg")[0]  # no speed beside a silence
    assert titles(view._widgets["file list"]) == (
        "config: 1 file",
        "transformer: 2 files",
        "vae: 1 file",
    )
    panes = [pane.value for pane in view._widgets["file list"].children]
    assert [">model.safetensors</td>" in pane for pane in panes] == [False, True, True]
    assert [">config.json</td>" in pane for pane in panes] == [False, True, False]
    assert "12 GB free" in values["checks"]
    assert titles(view._widgets["retries"]) == ("1 attempt failed: no bytes for 5 s",)
    assert "no bytes for 5 s" in values["retry table"]
    view.close(state)


def test_what_holds_nothing_is_not_shown() -> None:
    view = WidgetView(RecordedDisplay(), actions=RecordedActions())
    begun = last_state(DOWNLOADING[:1])
    view.update(begun)
    assert shown(view)["shown"] == {"names": ("status", "job", "checks")}
    assert shown(view)["row"]["names"] == ("cancel", "diagnostics")
    view.close(begun)
    view = WidgetView(RecordedDisplay())
    view.update(last_state(STALLED))
    assert shown(view)["shown"] == {"names": ("status", "job", "checks", "files", "retries")}
    view.close(last_state(STALLED))


def test_the_table_of_retries_opens_while_one_waits_and_closes_once_it_healed(
    background: Background,
) -> None:
    view, _, _, clock = background
    retries = view._widgets["retries"]
    assert [retries.selected_index] == [None]
    again = Retry(
        time=60, path=WEIGHTS, reason="the server is busy", wait_s=8, attempt=2, max_attempts=5
    )
    waits = apply(last_state(STALLED), again, 20.0)
    settle(view, waits, clock)
    assert [retries.selected_index] == [0]
    assert titles(retries)[0].endswith("the next attempt in 8 s")
    settle(view, apply(waits, FileProgress(path=WEIGHTS, completed=60 * MB), 29.0), clock)
    assert [retries.selected_index] == [None]


def test_what_its_user_has_opened_stays_open(background: Background) -> None:
    view, _, _, clock = background
    retries = view._widgets["retries"]
    retries.set_state({"selected_index": 0})
    again = Retry(time=60, path=WEIGHTS, reason="x", wait_s=0, attempt=0, max_attempts=5)
    settle(view, apply(last_state(STALLED), again, 20.0), clock)
    assert "2 attempts failed" in titles(retries)[0]
    assert retries.selected_index == 0


def test_what_is_true_when_a_thread_blocks_is_on_the_screen() -> None:
    """However busy the second before was, as when the last files come and the model is built."""
    clock = Clock()
    view = WidgetView(RecordedDisplay(), clock=clock)
    state = last_state(STALLED)
    for step in range(20):
        clock.now += 0.1
        state = apply(state, FileProgress(path=WEIGHTS, completed=(41 + step) * MB), 20 + step / 10)
        view.update(state)
    for event in (
        FileDone(path="transformer/config.json"),
        FileDone(path=WEIGHTS),
        StageStarted(stage=Stage.INITIALISE),
    ):
        state = apply(state, event, 22.0)
        view.update(state)
    assert view._widgets["job"].value == box([html.live(state, Form(), state.components)])
    for said in ("100 %", "building", ">loading</span>", "● initialise 0 s"):
        assert said in view._widgets["job"].value
    assert "left<" not in view._widgets["job"].value
    view.close(state)


def test_a_job_that_blocks_its_cell_has_no_controls() -> None:
    view = WidgetView(RecordedDisplay())
    view.update(last_state(STALLED))
    kinds = {type(widget).__name__ for widget in view._widgets.values()}
    assert kinds == {"HTML", "Accordion", "VBox"}
    view.close(last_state(LOADED))


def test_speed_and_time_left_can_be_hidden() -> None:
    display = RecordedDisplay()
    view = WidgetView(display, form=Form(speed=False, eta=False))
    view.update(last_state(DOWNLOADING))
    job = view._widgets["job"].value
    assert "60.0 of 100 MB" in job
    assert not any(word in job for word in ("MB/s", "left<", "<svg"))
    view.close(last_state(LOADED))
    assert "MB/s" not in display.outputs[0]["text/html"]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
@given(jobs.jobs, st.booleans())
def test_an_updated_view_equals_a_fresh_one(
    events: list[tuple[float, Event]], background: bool
) -> None:
    clock = Clock()
    actions = RecordedActions() if background else None
    updated, fresh = (WidgetView(RecordedDisplay(), clock=clock, actions=actions) for _ in range(2))
    try:
        state = play(updated, events, clock)
        settle(updated, state, clock)
        fresh.update(state)
        assert shown(updated) == shown(fresh)
        assert shown(updated).items() >= wanted(state).items()
    finally:
        updated.close(last_state(LOADED))
        fresh.close(last_state(LOADED))


def test_many_components_share_a_row_and_a_pane() -> None:
    names = [f"part_{number:02d}" for number in range(20)]
    selection = replace(
        SELECTION,
        components=tuple(Component(name=name, paths=(name,)) for name in names),
        files=tuple(
            RepoFile(path=name, size=(number + 1) * MB, etag="0" * 40)
            for number, name in enumerate(names)
        ),
    )
    view = WidgetView(RecordedDisplay())
    view.update(last_state([(0.0, Selected(selection=selection))]))
    assert titles(view._widgets["file list"]) == (
        *(f"{name}: 1 file" for name in names[8:]),
        "8 others: 8 files",
    )
    assert view._widgets["job"].value.count("<tr ") == 13
    view.close(last_state(LOADED))


def test_only_what_changed_is_sent(comms: Comms) -> None:
    clock = Clock()
    view = WidgetView(RecordedDisplay(), clock=clock)
    state = last_state(DOWNLOADING)
    view.update(state)
    assert {kind for _, kind, _ in comms.sent} == {"comm_open"}
    built = len(comms.sent)
    settle(view, state, clock)
    assert len(comms.sent) == built
    settle(view, apply(state, FileProgress(path=WEIGHTS, completed=50 * MB), 13.0), clock)
    changed = [data["state"].keys() for _, _, data in comms.sent[built:]]
    assert changed == [{"value"}] * 2  # the job, and the pane of the transformer
    view.close(state)


def test_the_selection_opens_the_files_in_one_message(comms: Comms) -> None:
    clock = Clock()
    view = WidgetView(RecordedDisplay(), clock=clock)
    view.update(last_state(DOWNLOADING[:2]))
    built = len(comms.sent)
    settle(view, last_state(DOWNLOADING), clock)
    keys = [set(data["state"]) for _, _, data in comms.sent[built:]]
    named = "titles" if hasattr(view._widgets["retries"], "titles") else "_titles"  # ipywidgets 7
    assert keys.count({"children", named}) == 1
    assert keys.count({"children"}) == 1  # what is shown of the view
    assert keys.count({"value"}) == len(keys) - 3
    assert keys.count({named}) == 1  # of the retries
    view.close(last_state(LOADED))


def test_as_many_stages_as_begin_in_a_moment_are_shown_at_once() -> None:
    clock = Clock()
    view = WidgetView(RecordedDisplay(), clock=clock)
    for state in states(LOADED):  # All at the same time.
        view.update(state)
        if state.stage is Stage.INITIALISE:
            break
    assert "initialise" in view._widgets["job"].value
    view.close(last_state(LOADED))


@pytest.mark.timed
def test_a_storm_in_a_large_job_costs_little() -> None:
    # Whatever else the machine does only adds to it.
    assert min(large_storm(seconds=10) for _ in range(3)) / 10 < 0.02


def large_storm(*, seconds: int) -> float:
    """Load components with many files each, of which one is under way; give the CPU's seconds."""
    records = 10_000
    folders = [f"part_{number:02d}" for number in range(20)]
    paths = {name: tuple(f"{name}/{n:02d}.safetensors" for n in range(25)) for name in folders}
    files = tuple(
        RepoFile(path=path, size=10 * MB, etag="0" * 40) for name in folders for path in paths[name]
    )
    parts = tuple(Component(name=name, paths=paths[name]) for name in folders)
    clock = Clock()
    view = WidgetView(RecordedDisplay(), actions=RecordedActions(), clock=clock)
    reporter = Reporter("org/name", view, None, clock=clock)
    reporter.publish(Selected(selection=replace(SELECTION, components=parts, files=files)))
    reporter.publish(StageStarted(stage=Stage.DOWNLOAD))
    cpu = time.process_time()
    for number in range(records):
        clock.now = seconds * (number + 1) / records
        place, share = divmod(number * len(files) / records, 1)
        path = files[int(place)].path
        reporter.publish(FileProgress(path=path, completed=int(share * 10 * MB)))
    cpu = time.process_time() - cpu
    written = view._pane.cache_info()
    view.close(reporter.state)
    # Most files rest, and what has not changed is not written again.
    assert 0 < written.misses < written.hits / 4
    return cpu


def test_those_who_hear_the_page_learn_how_a_job_ended() -> None:
    ends = ((CANCELLED, "stopped"), (BROKEN, "failed: the disk is full"))
    for events, said in ends:
        assert f">org/name: {said}<" in str(wanted(last_state(events))["status"]["value"])


@pytest.mark.timed
@pytest.mark.parametrize("seconds", [10, 100])
def test_a_storm_of_progress_costs_little(seconds: int, comms: Comms) -> None:
    """All that happens between the arrival of a record and the message to the front end."""
    records = 10_000
    clock = Clock()
    comms.clock = clock
    view = WidgetView(RecordedDisplay(), clock=clock)
    reporter = Reporter("org/name", view, None, clock=clock)
    for clock.now, event in DOWNLOADING[:5]:
        reporter.publish(event)
    begun, cpu = clock.now, time.process_time()
    for number in range(records):
        clock.now = begun + seconds * number / records
        arrived = (number + 1) * 80 * MB // records
        reporter.publish(FileProgress(path=WEIGHTS, completed=arrived))
    cpu = time.process_time() - cpu
    sent = [at - begun for at in comms.of_kind("comm_msg") if at > begun]
    view.close(reporter.state)
    assert cpu / seconds < 0.02
    assert len(sent) <= 10 * seconds
    assert max(sum(start <= other <= start + 1 for other in sent) for start in sent) <= 10
    # It is alive, too: the bar has moved in every second.
    assert {int(at) for at in sent} == set(range(seconds))


def test_what_remains_is_static(comms: Comms) -> None:
    display = RecordedDisplay()
    view = WidgetView(display)
    view.update(last_state(DOWNLOADING))
    live = display.outputs[0]
    assert list(live) == [WIDGET_MIME, "text/html", "text/plain"]
    assert live[WIDGET_MIME]["model_id"] in open_widgets()
    state = last_state(LOADED)
    view.close(state)
    view.close(state)
    view.update(state)
    assert display.outputs == [html.static_bundle(state)]
    assert [kind for kind, _ in display.calls] == ["show", "update"]
    assert len(comms.of_kind("comm_open")) == len(comms.of_kind("comm_close"))


def test_a_job_that_ends_before_it_is_shown_leaves_its_end() -> None:
    display = RecordedDisplay()
    WidgetView(display).close(last_state(BROKEN))
    assert display.outputs == [html.static_bundle(last_state(BROKEN))]


@pytest.mark.parametrize("number", range(34))
def test_an_interrupt_at_any_message_leaves_no_widget_and_the_end(
    number: int, comms: Comms
) -> None:
    comms.before_message = lambda sent: (
        signal.raise_signal(signal.SIGINT) if sent == number else None
    )
    display = RecordedDisplay()
    view = WidgetView(display, clock=iter(range(1000)).__next__)
    with pytest.raises(KeyboardInterrupt):
        update_all(view, states(DOWNLOADING))
    comms.before_message = lambda message: None
    end = last_state(BROKEN)
    view.close(end)
    assert display.outputs == [html.static_bundle(end)]


def test_a_view_of_a_background_job_is_closed_whole(comms: Comms) -> None:
    actions = RecordedActions()
    clock = Clock()
    display = RecordedDisplay()
    view = WidgetView(display, actions=actions, clock=clock)
    view.update(last_state(STALLED))
    press(view, "diagnostics")
    settle(view, last_state(STALLED), clock)
    view.close(last_state(CANCELLED))
    assert display.outputs == [html.static_bundle(last_state(CANCELLED))]
    assert len(comms.of_kind("comm_open")) == len(comms.of_kind("comm_close"))


def busy_second(view: WidgetView, state: JobState) -> None:
    """Have so much to show within a moment that the messages of a second are used up."""
    view.update(state)
    for number in range(10):
        told = Notice(reference="r", message=f"note {number}", hint="")
        state = apply(state, told, state.updated_at)
        view.update(state)


def press(view: WidgetView, name: str) -> None:
    """Click a button as a front end does, and wait for what it has begun."""
    view._widgets[name]._handle_custom_msg({"event": "click"}, [])
    join("nbloader-diagnostics")


def join(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join()


def pick(view: WidgetView, index: int) -> None:
    """Choose a plan as a front end does."""
    view._widgets["plan"].set_state({"index": index})


@pytest.fixture
def background() -> Iterator[tuple[WidgetView, RecordedActions, RecordedDisplay, Clock]]:
    clock, actions, display = Clock(), RecordedActions(), RecordedDisplay()
    view = WidgetView(display, actions=actions, clock=clock, sleep=clock.sleep)
    view.update(last_state(STALLED))
    yield view, actions, display, clock
    view.close(last_state(LOADED))


Background = tuple[WidgetView, RecordedActions, RecordedDisplay, Clock]


def test_a_button_calls_its_action(background: Background) -> None:
    view, actions, _, _ = background
    for name in BUTTONS:
        press(view, name)
    assert actions.calls == ["cancel", "retry", "download anyway", "diagnostics"]
    assert [view._widgets[name].description for name in BUTTONS] == list(BUTTONS.values())


@pytest.mark.parametrize(
    ("report", "text"),
    [("nbloader 0.1", "nbloader 0.1"), ("", "The diagnostics failed: OSError: no room")],
)
def test_diagnostics_are_drawn_with_the_next_state(
    report: str, text: str, background: Background
) -> None:
    view, actions, _, clock = background
    actions.report = report
    press(view, "diagnostics")
    assert view._widgets["reports"].children == ()
    settle(view, last_state(STALLED), clock)
    assert view._widgets["reports"].children[-1] is view._widgets["report"]
    assert view._widgets["report"].value == text
    assert view._widgets["diagnostics"].disabled is False


def test_diagnostics_are_gathered_anew_once_the_job_has_failed(background: Background) -> None:
    view, actions, _, clock = background
    press(view, "diagnostics")
    settle(view, last_state(STALLED), clock)
    actions.report = "it has failed"
    settle(view, last_state(REFUSED), clock)
    join("nbloader-diagnostics")
    join("nbloader-view")
    assert view._widgets["report"].value == "it has failed"
    assert actions.calls == ["diagnostics"] * 2


def test_a_plan_that_was_chosen_after_a_failure_stands_until_the_retry(
    background: Background,
) -> None:
    view, actions, _, clock = background
    settle(view, last_state(REFUSED), clock)
    pick(view, 1)
    clock.now += 60
    press(view, "diagnostics")
    join("nbloader-view")
    assert view._widgets["plan"].value == "model-offload"
    assert actions.calls == ["choose model-offload", "diagnostics"]
    assert "Retry takes the one that is chosen" in view._widgets["note"].value


def test_the_end_of_a_job_is_drawn_in_one_moment(background: Background) -> None:
    """However busy the last second was: no title says it failed above a button that cancels it."""
    view, _, _, clock = background
    state = last_state(STALLED)
    for step in range(8):
        clock.now += 0.51
        grown = FileProgress(path=WEIGHTS, completed=(41 + step) * MB)
        state = apply(state, grown, 20.0 + step)
        view.update(state)
    clock.now += 0.1
    drawn: dict[str, float] = {}
    names = ("job", "row", "retries")
    for name in names:
        view._widgets[name].observe(lambda _, name=name: drawn.update({name: clock.now}))
    view.update(apply(state, Failed(reference="x", message="m", hint="h"), 29.0))
    join("nbloader-view")
    assert drawn.keys() == set(names)
    assert len(set(drawn.values())) == 1
    assert shown(view)["row"]["names"] == ("retry", "diagnostics", "plan", "note")


def test_a_plan_that_is_chosen_stays_until_the_job_takes_it_over(background: Background) -> None:
    view, actions, _, clock = background
    plan = view._widgets["plan"]
    state = last_state(STALLED)
    pick(view, 1)
    assert (plan.value, actions.calls) == ("model-offload", ["choose model-offload"])
    for _ in range(5):
        clock.now += 0.6
        view.update(state)
        assert plan.value == "model-offload"
    settle(view, replace(state, fit=replace(FIT, chosen=OFFLOADED)), clock)
    assert plan.value == "model-offload"
    # What the job shows calls no action.
    settle(view, state, clock)
    assert (plan.value, actions.calls) == ("gpu", ["choose model-offload"])


def test_a_plan_that_the_job_does_not_take_over_is_taken_back(background: Background) -> None:
    view, _, _, clock = background
    pick(view, 1)
    settle(view, last_state(STALLED), clock)
    assert view._widgets["plan"].value == "gpu"


def test_a_plan_that_comes_too_late_is_taken_back_at_once(background: Background) -> None:
    view, actions, _, clock = background
    actions.is_late = True
    pick(view, 1)
    assert (view._widgets["plan"].value, actions.calls) == ("gpu", ["choose model-offload"])
    settle(view, last_state(STALLED), clock)
    assert view._widgets["plan"].value == "gpu"
    pick(view, 1)
    assert actions.calls == ["choose model-offload"] * 2


def test_the_controls_rest_while_a_cell_waits(background: Background) -> None:
    view, _, _, clock = background
    state = advance(last_state(STALLED), 20.0, waited_for=True)
    settle(view, state, clock)
    assert shown(view)["row"]["names"] == ("note",)
    assert RESTS in view._widgets["note"].value
    settle(view, advance(state, 21.0), clock)
    assert shown(view)["row"]["names"] == ("cancel", "diagnostics", "plan")


def test_buttons_whose_clicks_wait_look_so_and_can_be_pressed(background: Background) -> None:
    view, actions, _, clock = background
    state = last_state((*STALLED, (20.0, StageStarted(stage=Stage.INITIALISE))))
    settle(view, advance(state, 21.0, turn=Turn.UNDER_WAY), clock)
    assert shown(view)["row"] == {
        "names": ("cancel", "diagnostics", "note"),
        "classes": (WAITING_CLASS,),
    }
    press(view, "cancel")
    assert actions.calls == ["cancel"]
    settle(view, advance(state, 22.0), clock)
    assert shown(view)["row"] == {"names": ("cancel", "diagnostics"), "classes": ()}


def test_the_end_of_a_job_is_shown_whole_without_another_state(
    background: Background, comms: Comms
) -> None:
    view, actions, _, clock = background
    comms.clock = clock
    failed = last_state(REFUSED)
    view.update(failed)
    view.update(failed)
    join("nbloader-view")
    assert shown(view).items() >= wanted(failed).items()
    assert shown(view)["row"]["names"] == (
        "retry",
        "download_anyway",
        "diagnostics",
        "plan",
        "note",
    )
    press(view, "diagnostics")
    join("nbloader-view")
    assert view._widgets["report"].value == actions.report
    assert view._widgets["reports"].children[-1] is view._widgets["report"]
    sent = comms.of_kind("comm_msg")
    assert max(sum(start <= other <= start + 1 for other in sent) for start in sent) <= 10


def test_a_view_that_is_closed_draws_no_more(comms: Comms) -> None:
    clock = Clock()
    begun, closed = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        begun.set()
        closed.wait()

    view = WidgetView(RecordedDisplay(), actions=RecordedActions(), clock=clock, sleep=sleep)
    busy_second(view, last_state(STALLED))
    view.update(last_state(REFUSED))
    assert begun.wait(10)
    view.close(last_state(REFUSED))
    sent = len(comms.sent)
    closed.set()
    join("nbloader-view")
    assert len(comms.sent) == sent


def test_after_a_failure_the_view_stays_and_what_is_behind_it_is_true(
    background: Background,
) -> None:
    view, _, display, clock = background
    state = last_state(STALLED)
    (live,) = display.outputs
    assert live == {WIDGET_MIME: live[WIDGET_MIME], **html.interrupted_bundle(state)}
    failed = last_state(CANCELLED)
    settle(view, failed, clock)
    (behind,) = display.outputs
    assert behind == {WIDGET_MIME: live[WIDGET_MIME], **html.static_bundle(failed)}
    assert [kind for kind, _ in display.calls] == ["show", "update"]
    assert shown(view).items() >= wanted(failed).items()
    # A retry begins anew.
    begun = last_state(DOWNLOADING[:1])
    settle(view, begun, clock)
    assert display.outputs == [{WIDGET_MIME: live[WIDGET_MIME], **html.interrupted_bundle(begun)}]
    assert view._widgets["file list"].children == ()
    settle(view, state, clock)
    assert shown(view).items() >= wanted(state).items()


def test_an_interrupt_while_closing_waits_until_all_is_closed(comms: Comms) -> None:
    display = RecordedDisplay()
    view = WidgetView(display)
    view.update(last_state(DOWNLOADING))
    comms.before_message = lambda _: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        view.close(last_state(BROKEN))
    assert display.outputs == [html.static_bundle(last_state(BROKEN))]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_works_off_the_main_thread() -> None:
    display = RecordedDisplay()
    view = WidgetView(display)

    def work() -> None:
        for state in states(LOADED):
            view.update(state)
        view.close(last_state(LOADED))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert display.outputs == [html.static_bundle(last_state(LOADED))]


IN_A_KERNEL = """
import sys, time
sys.path.insert(0, {root!r})
from nbloader.views import ViewName, choose_view, front_end, make_view
from nbloader.state import advance
from tests.jobs import BROKEN, DOWNLOADING, LOADED, last_state, states
from tests.notebook_fakes import open_widgets

chosen = choose_view(ViewName.AUTO, front_end())
view = make_view(chosen, stream=sys.stdout)
"""

A_WHOLE_JOB = """
for state in states(LOADED):
    view.update(state)
view.close(state)
print(chosen, len(open_widgets()))
"""

AN_INTERRUPTED_JOB = """
state = last_state(DOWNLOADING)
try:
    print("begun")
    while True:
        state = advance(state, state.updated_at + 0.1)
        view.update(state)
except KeyboardInterrupt:
    view.close(last_state(BROKEN))
    print(chosen, len(open_widgets()))
"""


def run_cell(
    kernel: tuple[Any, Any], code: str, *, allow_stdin: bool
) -> tuple[dict[str, Any], str, set[str]]:
    """Run a cell as a front end does: outputs by display id, the text, the kinds of messages."""
    client, manager = kernel
    outputs: dict[str, Any] = {}
    text = []
    kinds = set()

    def keep(message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        kinds.add(kind)
        if kind in {"display_data", "update_display_data"}:
            outputs[content["transient"]["display_id"]] = content["data"]
        elif kind == "stream":
            text.append(content["text"])
            if "begun" in content["text"]:
                manager.interrupt_kernel()

    client.execute_interactive(
        code, allow_stdin=allow_stdin, stdin_hook=print, output_hook=keep, timeout=60
    )
    return outputs, "".join(text), kinds


def test_a_real_kernel_shows_widgets_and_keeps_static_html(tmp_path: Path) -> None:
    setup = IN_A_KERNEL.format(root=str(Path(__file__).parents[2]))
    with running_kernel(tmp_path) as kernel:
        outputs, text, kinds = run_cell(kernel, setup + A_WHOLE_JOB, allow_stdin=True)
        assert text == "widget 0\n"
        assert list(outputs.values()) == [html.static_bundle(last_state(LOADED))]
        assert {"comm_open", "comm_close", "display_data", "update_display_data"} <= kinds

        outputs, text, _ = run_cell(kernel, setup + AN_INTERRUPTED_JOB, allow_stdin=True)
        assert text == "begun\nwidget 0\n"
        assert list(outputs.values()) == [html.static_bundle(last_state(BROKEN), Form(raised=True))]

        outputs, text, kinds = run_cell(kernel, setup + A_WHOLE_JOB, allow_stdin=False)
        assert text.splitlines()[0] == "connect: org/name"
        assert text.splitlines()[-1] == "text 0"
        assert (outputs, "comm_open" in kinds) == ({}, False)
