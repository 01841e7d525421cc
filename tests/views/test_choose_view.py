from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, TextIO

import pytest

from nbloader.views import FrontEnd, NoView, View, ViewName, choose_view, front_end, make_view
from nbloader.views.html import HtmlView
from nbloader.views.text import TextView, TqdmView
from nbloader.views.view import Guarded
from nbloader.views.widget import WidgetView
from tests.jobs import LOADED, last_state, states

PIPE = FrontEnd()
TERMINAL = FrontEnd(interactive=True)
NOTEBOOK = FrontEnd(kernel=True, interactive=True, ipywidgets=(8, 1, 9))
COLAB = FrontEnd(kernel=True, interactive=True, ipywidgets=(7, 7, 1))
OLD = FrontEnd(kernel=True, interactive=True, ipywidgets=(7, 6, 5))
BARE = FrontEnd(kernel=True, interactive=True)
BATCH = FrontEnd(kernel=True, interactive=False, ipywidgets=(8, 1, 9))


@pytest.mark.parametrize(
    ("requested", "facts", "chosen"),
    [
        ("auto", PIPE, "text"),
        ("auto", TERMINAL, "tqdm"),
        ("auto", NOTEBOOK, "widget"),
        ("auto", COLAB, "widget"),
        ("auto", OLD, "html"),
        ("auto", BARE, "html"),
        ("auto", BATCH, "text"),
        ("widget", PIPE, "text"),
        ("widget", TERMINAL, "tqdm"),
        ("widget", NOTEBOOK, "widget"),
        ("widget", COLAB, "widget"),
        ("widget", OLD, "html"),
        ("widget", BARE, "html"),
        ("widget", BATCH, "text"),
        ("html", PIPE, "text"),
        ("html", TERMINAL, "tqdm"),
        ("html", NOTEBOOK, "html"),
        ("html", BATCH, "html"),
        *[("text", facts, "text") for facts in (PIPE, TERMINAL, NOTEBOOK, BATCH)],
        *[("tqdm", facts, "tqdm") for facts in (PIPE, TERMINAL, NOTEBOOK, BATCH)],
        *[("none", facts, "none") for facts in (PIPE, TERMINAL, NOTEBOOK, BATCH)],
    ],
)
def test_which_view_is_shown_where(requested: str, facts: FrontEnd, chosen: str) -> None:
    assert choose_view(ViewName(requested), facts) is ViewName(chosen)


def in_kernel(monkeypatch: pytest.MonkeyPatch, **kernel: object) -> None:
    shell = SimpleNamespace(kernel=SimpleNamespace(**kernel))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


@pytest.mark.parametrize(
    ("allow_stdin", "environ", "interactive"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, True),
        (True, {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, False),
        (None, {}, False),
    ],
)
def test_a_kernel_knows_whether_someone_looks(
    allow_stdin: bool | None,
    environ: dict[str, str],
    interactive: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_kernel(monkeypatch, _allow_stdin=allow_stdin)
    facts = front_end(environ)
    assert (facts.kernel, facts.interactive) == (True, interactive)
    assert facts.ipywidgets is not None
    assert facts.ipywidgets >= (7, 7)


def test_a_kernel_of_another_kind_gets_text(monkeypatch: pytest.MonkeyPatch) -> None:
    in_kernel(monkeypatch)
    assert choose_view(ViewName.AUTO, front_end({})) is ViewName.TEXT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["no shell", "IPython terminal"])
@pytest.mark.parametrize(
    ("stream", "environ", "facts"),
    [
        (Terminal(), {}, TERMINAL),
        (io.StringIO(), {}, PIPE),
        (Terminal(), {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, PIPE),
        (Terminal(), {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, TERMINAL),
    ],
    ids=["terminal", "pipe", "batch", "Kaggle's terminal"],
)
def test_without_a_kernel_it_is_a_terminal_or_a_pipe(
    shell: object,
    stream: io.StringIO,
    environ: dict[str, str],
    facts: FrontEnd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert front_end(environ, stream=stream) == facts


@pytest.mark.parametrize("stream", [None, "closed", SimpleNamespace(write=len)])
def test_an_output_that_is_no_stream_is_no_terminal(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    assert front_end({}) == PIPE


def test_looking_around_imports_nothing() -> None:
    code = (
        "import sys; from nbloader.views import front_end; print(front_end()); "
        "print(sorted({'IPython', 'ipywidgets', 'tqdm', 'ipykernel'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == [repr(FrontEnd()), "[]"]


def made(name: ViewName, stream: TextIO | None) -> View:
    view = make_view(name, stream=stream)
    return view.view if isinstance(view, Guarded) else view


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("widget", WidgetView),
        ("html", HtmlView),
        ("text", TextView),
        ("tqdm", TqdmView),
        ("none", NoView),
    ],
)
def test_every_view_can_be_made(name: str, kind: type[View]) -> None:
    assert type(made(ViewName(name), io.StringIO())) is kind


@pytest.mark.parametrize("name", ["text", "tqdm", "none"])
def test_without_a_console_nothing_is_shown(name: str) -> None:
    assert type(made(ViewName(name), None)) is NoView


def test_broken_ipywidgets_give_way_to_html(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert type(made(ViewName.WIDGET, io.StringIO())) is HtmlView


@pytest.mark.parametrize("name", ["text", "tqdm"])
def test_a_stream_that_is_closed_already_breaks_nothing(name: str) -> None:
    stream = io.StringIO()
    stream.close()
    view = make_view(ViewName(name), stream=stream)
    for state in states(LOADED):
        view.update(state)
    view.close(last_state(LOADED))
    assert isinstance(view, Guarded)
    assert type(view.error) is ValueError
