"""The report of a preflight as live widgets, and what stays of it."""

from __future__ import annotations

import builtins
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nbloader.checks import PreflightReport
from nbloader.errors import HubUnreachableError
from nbloader.fit import fit
from nbloader.records import (
    CheckResult,
    CheckStatus,
    ComponentWeights,
    Fit,
    GpuFacts,
    MachineFacts,
    MemoryFacts,
    Method,
    PackageFacts,
    PlacedComponent,
    Placement,
)
from nbloader.views.display import WIDGET_MIME, Bundle
from nbloader.views.report_widget import ReportWidget
from nbloader.views.words import plans
from tests.notebook_fakes import (
    Comms,
    RecordedDisplay,
    open_widgets,
    recorded_comms,
    running_kernel,
)
from tests.samples import MB, SELECTION

GB = 1000 * MB


def placed(method: Method, vram: int, *, fits: bool = True) -> Placement:
    return Placement(
        method=method,
        device="cuda",
        dtype="bfloat16",
        components=(PlacedComponent(name="unet", device="cuda:0", dtype="bfloat16", bytes=vram),),
        vram=(vram,),
        ram_loading=2 * GB,
        ram_after=GB,
        fits=fits,
        reason=f"reason of {method}",
    )


WHOLE, OFFLOAD = placed(Method.GPU, 9 * GB), placed(Method.MODEL_OFFLOAD, 5 * GB)
TOO_LARGE = placed(Method.EIGHT_BIT, 99 * GB, fits=False)
FIT = Fit(chosen=WHOLE, placements=(WHOLE, OFFLOAD, TOO_LARGE), workload="one image")
REPORT = PreflightReport(
    repo_id="org/name",
    results=(CheckResult(name="hub", status=CheckStatus.PASSED, message="it answers"),),
    weights=(ComponentWeights(name="unet", bytes_by_dtype={"BF16": 8 * GB}),),
    fit=FIT,
)
CHANGED = replace(
    REPORT,
    results=(CheckResult(name="hub", status=CheckStatus.FAILED, message="gone", hint="wait"),),
)


def paste(plan: str) -> str:
    return f'nbloader.load("org/name", plan="{plan}")'


@dataclass
class Cells:
    """IPython's events."""

    functions: list[Callable[..., object]] = field(default_factory=list)

    def register(self, event: str, function: Callable[..., object]) -> None:
        assert event == "pre_run_cell"
        self.functions.append(function)

    def unregister(self, event: str, function: Callable[..., object]) -> None:
        assert event == "pre_run_cell"
        self.functions.remove(function)

    def begin(self) -> None:
        for function in self.functions[:]:
            function("info")


@dataclass
class Shown:
    """A report in a notebook, and what its user does."""

    report: PreflightReport = REPORT
    again: Callable[[], PreflightReport] = lambda: CHANGED
    line: Callable[[str], str] = paste

    def __post_init__(self) -> None:
        self.display = RecordedDisplay()
        self.cells = Cells()
        self.widget = ReportWidget(
            self.display,
            self.report,
            again=self.again,
            line=self.line,
            events=self.cells,
            clock=iter(range(100)).__next__,
        )
        self.widget.show()

    @property
    def widgets(self) -> dict[str, Any]:
        return self.widget._widgets

    @property
    def bundle(self) -> Bundle:
        (bundle,) = self.display.outputs
        return bundle

    def press(self) -> None:
        """Press the button, and wait for the checks."""
        before = set(threading.enumerate())
        self.widgets["again"].click()
        for thread in set(threading.enumerate()) - before:
            thread.join()


def static(report: PreflightReport) -> Bundle:
    return {"text/html": report._repr_html_(), "text/plain": str(report)}


class _Seen(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(autouse=True)
def comms() -> Iterator[Comms]:
    with recorded_comms() as recorded:
        yield recorded


@pytest.fixture
def shown() -> Iterator[Shown]:
    found = Shown()
    yield found
    found.widget.close()


def test_the_widgets_show_the_rows_of_the_static_report(shown: Shown) -> None:
    assert {
        name: widget.value for name, widget in shown.widgets.items() if name in {"rows", "plan"}
    } == {"rows": REPORT._repr_html_(), "plan": "gpu"}
    assert shown.widgets["again"].description == "Check again"
    assert shown.widgets["plan"].description == "Plan"
    assert not shown.widgets["again"].disabled
    assert not shown.widgets["plan"].disabled


def test_it_reads_well_if_it_is_never_closed(shown: Shown) -> None:
    assert list(shown.bundle) == [WIDGET_MIME, "text/html", "text/plain"]
    assert shown.bundle[WIDGET_MIME]["model_id"] in open_widgets()
    assert {key: shown.bundle[key] for key in static(REPORT)} == static(REPORT)


def test_the_chooser_has_the_plans_that_fit_in_words_with_their_figures(shown: Shown) -> None:
    assert plans(FIT) == (
        ("all on cuda in bfloat16 · VRAM 9.0 GB · RAM 2.0 GB", "gpu"),
        (
            "one component on the GPU at a time, the others in memory · VRAM 5.0 GB · RAM 2.0 GB",
            "model-offload",
        ),
    )
    assert shown.widgets["plan"].options == plans(FIT)
    assert plans(None) == ()


def test_a_plan_that_is_chosen_shows_its_figures_and_the_line_to_paste(shown: Shown) -> None:
    shown.widgets["plan"].value = "model-offload"
    text = _Seen(shown.widgets["choice"].value).text
    assert "VRAM 5.0 GB" in text
    assert "reason of model-offload" in text
    assert paste("model-offload") in text


def test_what_the_verdict_has_is_not_told_again_of_the_chosen_plan(shown: Shown) -> None:
    text = _Seen(shown.widgets["choice"].value).text
    assert text == f"This loads it as it stands above:{paste('gpu')}"


def test_where_the_plan_that_was_asked_for_does_not_fit_another_is_offered() -> None:
    failed = CheckResult(
        name="placement", status=CheckStatus.FAILED, message="plan=8-bit", hint="pass another"
    )
    fit = Fit(chosen=None, placements=(OFFLOAD, TOO_LARGE), workload="one image")
    shown = Shown(report=replace(REPORT, results=(failed,), fit=fit))
    assert (shown.widgets["plan"].value, shown.widgets["plan"].disabled) == ("model-offload", False)
    assert paste("model-offload") in _Seen(shown.widgets["choice"].value).text
    shown.cells.begin()
    assert shown.bundle == static(shown.report)  # Nobody has chosen it.


def test_checking_again_sets_the_new_rows(shown: Shown) -> None:
    shown.press()
    assert shown.widgets["rows"].value == CHANGED._repr_html_()
    assert "checked again in 1.0 s" in shown.widgets["note"].value
    assert not shown.widgets["again"].disabled
    shown.cells.begin()
    assert shown.bundle == static(CHANGED)


def test_while_it_checks_nothing_can_be_pressed() -> None:
    may_end, calls = threading.Event(), []

    def again() -> PreflightReport:
        calls.append(threading.current_thread())
        may_end.wait()
        return CHANGED

    shown = Shown(again=again)
    before = set(threading.enumerate())
    shown.widgets["again"].click()
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    assert shown.widgets["again"].disabled
    assert shown.widgets["plan"].disabled
    assert "checking…" in shown.widgets["note"].value
    shown.widgets["again"].click()  # a click that was under way
    may_end.set()
    thread.join()
    assert calls == [thread]
    assert not shown.widgets["again"].disabled
    assert not shown.widgets["plan"].disabled
    shown.widget.close()


def test_an_error_of_the_checks_is_shown_as_text() -> None:
    def again() -> PreflightReport:
        raise HubUnreachableError("<script>alert(1)</script> no answer", hint="Try later.")

    shown = Shown(again=again)
    shown.press()
    seen = _Seen(shown.widgets["note"].value)
    assert seen.tags == {"div"}
    assert "HubUnreachableError: <script>alert(1)</script> no answer" in seen.text
    assert "Try later." in seen.text
    assert shown.widgets["rows"].value == REPORT._repr_html_()
    assert not shown.widgets["again"].disabled
    shown.widget.close()
    assert shown.bundle == static(REPORT)


@pytest.mark.parametrize(
    ("placements", "expected"),
    [
        ((WHOLE, OFFLOAD), "model-offload"),
        ((replace(WHOLE), replace(OFFLOAD, fits=False)), "gpu"),
        ((replace(WHOLE, fits=False), replace(OFFLOAD, fits=False)), None),
    ],
    ids=["still fits", "another fits", "none fits"],
)
def test_after_the_checks_the_choice_stays_if_it_can(
    placements: tuple[Placement, ...], expected: str | None
) -> None:
    chosen = next((row for row in placements if row.fits), None)
    new = replace(REPORT, fit=replace(FIT, chosen=chosen, placements=placements))
    shown = Shown(again=lambda: new)
    shown.widgets["plan"].value = "model-offload"
    shown.press()
    plan = shown.widgets["plan"]
    assert (plan.value, plan.options, plan.disabled) == (expected, plans(new.fit), False)
    shown.cells.begin()
    if expected != "model-offload":
        assert shown.bundle == static(new)


def test_a_plan_that_nobody_chose_follows_the_checks() -> None:
    shown = Shown(again=lambda: replace(REPORT, fit=replace(FIT, chosen=OFFLOAD)))
    shown.press()
    assert shown.widgets["plan"].value == "model-offload"
    assert paste("model-offload") in _Seen(shown.widgets["choice"].value).text
    shown.widget.close()


def test_once_another_cell_begins_it_is_static(comms: Comms) -> None:
    shown = Shown()
    shown.cells.begin()
    assert shown.bundle == static(REPORT)
    assert [kind for kind, _ in shown.display.calls] == ["show", "update"]
    assert len(comms.of_kind("comm_open")) == len(comms.of_kind("comm_close")) > 0
    assert shown.cells.functions == []
    shown.widget.close()
    assert len(shown.display.calls) == 2


def test_the_plan_that_was_chosen_stays_with_its_line() -> None:
    shown = Shown()
    shown.widgets["plan"].value = "model-offload"
    shown.cells.begin()
    assert shown.bundle["text/plain"] == f"{REPORT}\n\n{paste('model-offload')}"
    assert shown.bundle["text/html"].startswith(REPORT._repr_html_())
    assert paste("model-offload") in _Seen(shown.bundle["text/html"]).text


def test_checks_that_end_after_the_close_change_nothing(comms: Comms) -> None:
    may_end = threading.Event()

    def again() -> PreflightReport:
        may_end.wait()
        return CHANGED

    shown = Shown(again=again)
    before = set(threading.enumerate())
    shown.widgets["again"].click()
    (thread,) = set(threading.enumerate()) - before
    shown.cells.begin()
    sent = len(comms.sent)
    may_end.set()
    thread.join()
    assert len(comms.sent) == sent
    assert shown.bundle == static(REPORT)


def test_a_report_without_plans_can_be_checked_again() -> None:
    shown = Shown(report=replace(REPORT, fit=None), again=lambda: REPORT)
    assert shown.widgets["plan"] not in shown.widget._root.children
    shown.press()
    assert shown.widgets["plan"] in shown.widget._root.children
    assert (shown.widgets["plan"].value, shown.widgets["plan"].disabled) == ("gpu", False)
    shown.widget.close()


def test_foreign_text_stays_text() -> None:
    evil = "<img src=x onerror=alert(1)>$x$\u202e"
    row = replace(WHOLE, reason=evil, dtype=evil)
    shown = Shown(
        report=replace(REPORT, fit=Fit(chosen=None, placements=(row,))),
        line=lambda plan: f'load({evil!r},\n  "{evil}")',
    )
    shown.widgets["plan"].value = None
    shown.widgets["plan"].value = "gpu"
    choice = shown.widgets["choice"].value
    assert _Seen(choice).tags == {"div", "span", "pre"}
    assert "\u202e" not in choice
    assert "tex2jax_ignore" in choice
    shown.widget.close()
    assert "\u202e" not in shown.bundle["text/plain"]
    assert "img" not in _Seen(shown.bundle["text/html"]).tags


class _NoFrontEnd(RecordedDisplay):
    def show(self, bundle: Bundle, display_id: str) -> None:
        raise OSError("no front end")


def test_what_cannot_be_shown_leaves_no_widget() -> None:
    cells = Cells()
    widget = ReportWidget(_NoFrontEnd(), REPORT, again=lambda: CHANGED, line=paste, events=cells)
    with pytest.raises(OSError, match="no front end"):
        widget.show()
    assert cells.functions == []
    widget.close()


def test_an_interrupt_while_it_is_built_waits_until_it_can_be_closed(comms: Comms) -> None:
    comms.before_message = lambda sent: signal.raise_signal(signal.SIGINT) if sent == 5 else None
    display, cells = RecordedDisplay(), Cells()
    widget = ReportWidget(display, REPORT, again=lambda: CHANGED, line=paste, events=cells)
    with pytest.raises(KeyboardInterrupt):
        widget.show()
    cells.begin()
    assert display.outputs == [static(REPORT)]


# -- the report shows itself -----------------------------------------------------------------------


def test_a_report_that_cannot_check_again_leaves_it_to_the_static_forms() -> None:
    with pytest.raises(NotImplementedError):
        REPORT._ipython_display_()
    with pytest.raises(NotImplementedError):  # no notebook here
        replace(REPORT, _again=lambda: CHANGED, _line=paste)._ipython_display_()


def test_what_the_buttons_do_is_no_part_of_the_report() -> None:
    able = replace(REPORT, _again=lambda: CHANGED, _line=paste)
    assert able == REPORT
    assert repr(able) == repr(REPORT)
    assert able.to_json() == REPORT.to_json()


IN_A_KERNEL = """
import sys
sys.path.insert(0, {root!r})
from dataclasses import replace
from tests.notebook_fakes import open_widgets
from tests.views.test_report_widget import CHANGED, REPORT, paste
able = replace(REPORT, _again=lambda: CHANGED, _line=paste)
"""


def outputs_of(client: Any, code: str, *, allow_stdin: bool = True) -> dict[str, Any]:
    """Run a cell as a front end does; gives its outputs by display id, or by their kind."""
    outputs: dict[str, Any] = {}

    def keep(message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        assert kind != "error", "\n".join(content["traceback"])
        if kind in {"display_data", "update_display_data"}:
            outputs[content["transient"]["display_id"]] = content["data"]
        elif kind == "execute_result":
            outputs[kind] = content["data"]
        elif kind == "stream":
            outputs[kind] = outputs.get(kind, "") + content["text"]

    client.execute_interactive(
        code, allow_stdin=allow_stdin, stdin_hook=print, output_hook=keep, timeout=60
    )
    return outputs


def test_a_real_kernel_shows_widgets_until_the_next_cell(tmp_path: Path) -> None:
    setup = IN_A_KERNEL.format(root=str(Path(__file__).parents[2]))
    with running_kernel(tmp_path) as (client, _):
        assert outputs_of(client, setup) == {}
        live = outputs_of(client, "able")
        ((display_id, bundle),) = live.items()
        assert list(bundle) == [WIDGET_MIME, "text/html", "text/plain"]
        after = outputs_of(client, "print(len(open_widgets()))")
        assert after == {display_id: static(REPORT), "stream": "0\n"}
        assert outputs_of(client, "print(1)") == {"stream": "1\n"}
        for code in ("REPORT", "able"):  # not able to check again; nobody there to press a button
            found = outputs_of(client, code, allow_stdin=False)
            assert found == {"execute_result": static(REPORT)}


def test_ipywidgets_that_are_broken_leave_it_to_the_static_forms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nbloader import views

    real = builtins.__import__

    def imports(name: str, *args: Any, **keywords: Any) -> Any:
        if name == "ipywidgets":
            raise ImportError("broken")
        return real(name, *args, **keywords)

    facts = views.FrontEnd(kernel=True, interactive=True, ipywidgets=(8, 1))
    monkeypatch.setattr(views, "front_end", lambda: facts)
    monkeypatch.setattr("nbloader.views.report_widget.notebook_events", Cells)
    monkeypatch.setattr(builtins, "__import__", imports)
    with pytest.raises(NotImplementedError):
        replace(REPORT, _again=lambda: CHANGED, _line=paste)._ipython_display_()


def test_every_plan_of_a_real_fit_has_words() -> None:
    machine = MachineFacts(
        memory=MemoryFacts(available=60 * GB, total=60 * GB),
        gpus=(GpuFacts(name="L4", free=23 * GB, total=24 * GB, capability=(8, 9)),) * 2,
        packages={
            name: PackageFacts(name=name, installed="1.0")
            for name in ("accelerate", "bitsandbytes", "torch", "diffusers")
        },
    )
    weights = (ComponentWeights(name="transformer", bytes_by_dtype={"BF16": GB}),)
    found = plans(fit(SELECTION, weights, machine))
    assert len(found) >= 3
    assert len({label for label, _ in found}) == len(found)
