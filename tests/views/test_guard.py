from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest

from nbloader.state import JobState
from nbloader.views import NoView, View, ViewName, make_view
from nbloader.views.html import HtmlView
from nbloader.views.text import TextView
from nbloader.views.view import Guarded
from nbloader.views.widget import WidgetView
from tests.jobs import BROKEN, LOADED, last_state, states
from tests.notebook_fakes import Comms, RecordedDisplay, open_widgets


def text_view(out: io.StringIO) -> TextView:
    return TextView(out, interactive=False)


def show(view: View) -> None:
    for state in states(LOADED):
        view.update(state)
    view.close(last_state(LOADED))


def as_text() -> list[str]:
    out = io.StringIO()
    show(text_view(out))
    return out.getvalue().splitlines()


class BrokenDisplay(RecordedDisplay):
    """Shows the first outputs, and refuses every one after them."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.first = first

    def _refuse(self) -> None:
        if len(self.calls) >= self.first:
            raise ConnectionError("\x1b[2J gone")

    def show(self, bundle: Mapping[str, Any], display_id: str) -> None:
        self._refuse()
        super().show(bundle, display_id)

    def update(self, bundle: Mapping[str, Any], display_id: str) -> None:
        self._refuse()
        super().update(bundle, display_id)


NOTE = "  note: {view} broke with ConnectionError. The job goes on."


@pytest.mark.parametrize("kind", [WidgetView, HtmlView])
@pytest.mark.parametrize("first", [0, 1])
def test_a_display_that_refuses_gives_way_to_text(
    kind: type[WidgetView | HtmlView], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Comms().stand_in(monkeypatch)
    before, out = open_widgets(), io.StringIO()
    view = Guarded(kind(BrokenDisplay(first)), lambda: text_view(out))
    show(view)
    lines = out.getvalue().splitlines()
    note = NOTE.format(view=kind.__name__)
    assert lines.count(note) == 1
    # A view that takes over late tells at once what was there by then, so the order may differ.
    assert sorted(line for line in lines if line != note) == sorted(as_text())
    assert type(view.error) is ConnectionError
    assert open_widgets() == before


@pytest.mark.parametrize("number", [0, 3, 20])
def test_a_comm_that_fails_gives_way_to_text(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(at: int) -> None:
        if at >= number:
            raise ConnectionError("gone")

    Comms(before_message=fail).stand_in(monkeypatch)
    out = io.StringIO()
    view = Guarded(
        WidgetView(RecordedDisplay(), clock=iter(range(1000)).__next__), lambda: text_view(out)
    )
    show(view)
    assert type(view.error) is ConnectionError
    assert NOTE.format(view="WidgetView") in out.getvalue().splitlines()
    assert out.getvalue().splitlines()[-1] == as_text()[-1]


def test_a_view_that_breaks_at_its_end_gives_way_to_text() -> None:
    out = io.StringIO()
    display = BrokenDisplay()
    view = Guarded(HtmlView(display), lambda: text_view(out))
    view.close(last_state(BROKEN))
    lines = out.getvalue().splitlines()
    assert NOTE.format(view="HtmlView") in lines
    assert lines[-1] == "failed after 13 s: the disk is full [disk-full]"


class Closing(io.StringIO):
    """A stream that is closed after some writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.writes = writes

    def write(self, text: str) -> int:
        self.writes -= 1
        if not self.writes:
            self.close()
        return super().write(text)


@pytest.mark.parametrize("name", [ViewName.TEXT, ViewName.TQDM])
@pytest.mark.parametrize("writes", [1, 2, 5, 9])
def test_a_stream_that_closes_is_left_alone(name: ViewName, writes: int) -> None:
    view = make_view(name, stream=Closing(writes))
    show(view)
    assert isinstance(view, Guarded)
    assert type(view.error) is ValueError
    assert type(view.view) is NoView


class Counted(NoView):
    def __init__(self) -> None:
        self.states: list[JobState] = []
        self.closed = 0

    def update(self, state: JobState) -> None:
        self.states.append(state)

    def close(self, state: JobState) -> None:
        self.closed += 1


def test_a_view_that_works_sees_what_happens_and_nothing_else() -> None:
    counted = Counted()
    view = Guarded(counted, NoView)
    show(view)
    assert counted.states == list(states(LOADED))
    assert (counted.closed, view.error, view.view) == (1, None, counted)


def test_the_first_error_is_kept() -> None:
    def fail() -> View:
        raise KeyError("the other one")

    view = Guarded(HtmlView(BrokenDisplay()), fail)
    show(view)
    assert type(view.error) is ConnectionError
    assert type(view.view) is NoView


class Interrupting(NoView):
    def update(self, state: JobState) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_goes_on_to_the_caller() -> None:
    inner = Interrupting()
    view = Guarded(inner, NoView)
    with pytest.raises(KeyboardInterrupt):
        view.update(last_state(BROKEN))
    assert (view.error, view.view) == (None, inner)
