from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import comm
import pytest
from hypothesis import HealthCheck, given, settings

from nbloader.records import Event, FileProgress
from nbloader.state import JobState, apply
from nbloader.views import html
from nbloader.views.base import View
from nbloader.views.widget import REFRESH_EVERY_S, WIDGET_MIME, WidgetView, traits
from tests import jobs
from tests.jobs import BROKEN, DOWNLOADING, LOADED, WEIGHTS, last_state, states
from tests.notebook import Comms, RecordedDisplay, open_widgets, running_kernel
from tests.samples import MB


class Clock:
    """A time that only the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def comms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Comms]:
    """Real widgets, whose messages are written down; none may be left over."""
    recorded = Comms()
    monkeypatch.setattr(comm, "create_comm", recorded.create)
    before = open_widgets()
    yield recorded
    assert open_widgets() == before


def shown(view: WidgetView) -> dict[str, dict[str, object]]:
    """Read the traits back from the real widgets."""
    names = {"bar": ("value", "bar_style")}
    return {
        name: {trait: getattr(widget, trait) for trait in names.get(name, ("value",))}
        for name, widget in view._widgets.items()
    }


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
    state = last_state(DOWNLOADING)
    view.update(state)
    assert shown(view) == traits(state, speed=True, eta=True)
    bar = view._widgets["bar"]
    assert (bar.min, bar.max, bar.value, bar.bar_style) == (0.0, 100.0, 56.0, "")
    head = view._widgets["head"].value
    assert "56 %, download" in head
    assert "60.0 MB of 100 MB · 20.0 MB from the cache · 4.0 MB/s · 10 s left" in head
    view.close(state)


def test_speed_and_time_left_can_be_hidden() -> None:
    display = RecordedDisplay()
    view = WidgetView(display, speed=False, eta=False)
    view.update(last_state(DOWNLOADING))
    assert "60.0 MB of 100 MB · 20.0 MB from the cache</div>" in view._widgets["head"].value
    view.close(last_state(LOADED))
    assert "MB/s" not in display.outputs[0]["text/html"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(jobs.jobs)
def test_an_updated_view_equals_a_fresh_one(events: list[tuple[float, Event]]) -> None:
    clock = Clock()
    updated, fresh = (WidgetView(RecordedDisplay(), clock=clock) for _ in range(2))
    try:
        state = play(updated, events, clock)
        clock.now += 2 * REFRESH_EVERY_S
        updated.update(state)
        fresh.update(state)
        assert shown(updated) == shown(fresh) == traits(state, speed=True, eta=True)
    finally:
        updated.close(last_state(LOADED))
        fresh.close(last_state(LOADED))


def test_only_what_changed_is_sent(comms: Comms) -> None:
    clock = Clock()
    view = WidgetView(RecordedDisplay(), clock=clock)
    state = last_state(DOWNLOADING)
    view.update(state)
    assert {kind for _, kind, _ in comms.sent} == {"comm_open"}
    built = len(comms.sent)
    clock.now += 1
    view.update(state)
    assert len(comms.sent) == built
    clock.now += 1
    view.update(apply(state, FileProgress(path=WEIGHTS, completed=50 * MB), 13.0))
    changed = [data["state"].keys() for _, _, data in comms.sent[built:]]
    assert changed == [{"value"}] * 3  # head, bar, components
    view.close(state)


@pytest.mark.parametrize("seconds", [10, 100])
def test_a_storm_of_progress_costs_little(seconds: int, comms: Comms) -> None:
    records = 10_000
    clock = Clock()
    comms.clock = clock
    view = WidgetView(RecordedDisplay(), clock=clock)
    state = last_state(DOWNLOADING[:5])
    view.update(state)
    cpu = 0.0
    for number in range(records):
        clock.now = seconds * number / records
        event = FileProgress(path=WEIGHTS, completed=(number + 1) * 80 * MB // records)
        state = apply(state, event, 2.0 + clock.now)
        before = time.process_time()
        view.update(state)
        cpu += time.process_time() - before
    sent = comms.of_kind("comm_msg")
    view.close(state)
    assert cpu / seconds < 0.02
    assert len(sent) <= 10 * seconds
    assert max(sum(start <= other <= start + 1 for other in sent) for start in sent) <= 10
    # It is alive, too: the bar has moved in every second.
    assert {int(time_of) for time_of in sent} == set(range(seconds))


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


@pytest.mark.parametrize("number", range(22))
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
from nbloader.views.choose import ViewName, choose, front_end, make
from nbloader.state import advance
from tests.jobs import BROKEN, DOWNLOADING, LOADED, last_state, states
from tests.notebook import open_widgets

chosen = choose(ViewName.AUTO, front_end())
view = make(chosen, stream=sys.stdout)
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
    setup = IN_A_KERNEL.format(root=str(Path(__file__).parents[1]))
    with running_kernel(tmp_path) as kernel:
        outputs, text, kinds = run_cell(kernel, setup + A_WHOLE_JOB, allow_stdin=True)
        assert text == "widget 0\n"
        assert list(outputs.values()) == [html.static_bundle(last_state(LOADED))]
        assert {"comm_open", "comm_close", "display_data", "update_display_data"} <= kinds

        outputs, text, _ = run_cell(kernel, setup + AN_INTERRUPTED_JOB, allow_stdin=True)
        assert text == "begun\nwidget 0\n"
        assert list(outputs.values()) == [html.static_bundle(last_state(BROKEN))]

        outputs, text, kinds = run_cell(kernel, setup + A_WHOLE_JOB, allow_stdin=False)
        assert text.splitlines()[0] == "[  0 %] connect: org/name"
        assert text.splitlines()[-1] == "text 0"
        assert (outputs, "comm_open" in kinds) == ({}, False)
