from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest

from nbloader.views.base import NoView, View
from nbloader.views.choose import FrontEnd, ViewName, choose, front_end, make
from nbloader.views.html import HtmlView
from nbloader.views.text import TextView
from nbloader.views.tqdm_view import TqdmView
from nbloader.views.widget import WidgetView
from tests.jobs import BROKEN, LOADED, last_state, states

TERMINAL = FrontEnd()
NOTEBOOK = FrontEnd(kernel=True, interactive=True, ipywidgets=(8, 1, 9))
COLAB = FrontEnd(kernel=True, interactive=True, ipywidgets=(7, 7, 1))
OLD = FrontEnd(kernel=True, interactive=True, ipywidgets=(7, 6, 5))
BARE = FrontEnd(kernel=True, interactive=True)
BATCH = FrontEnd(kernel=True, interactive=False, ipywidgets=(8, 1, 9))


@pytest.mark.parametrize(
    ("requested", "facts", "chosen"),
    [
        ("auto", TERMINAL, "text"),
        ("auto", NOTEBOOK, "widget"),
        ("auto", COLAB, "widget"),
        ("auto", OLD, "html"),
        ("auto", BARE, "html"),
        ("auto", BATCH, "text"),
        ("widget", TERMINAL, "text"),
        ("widget", NOTEBOOK, "widget"),
        ("widget", COLAB, "widget"),
        ("widget", OLD, "html"),
        ("widget", BARE, "html"),
        ("widget", BATCH, "text"),
        ("html", TERMINAL, "text"),
        ("html", NOTEBOOK, "html"),
        ("html", BATCH, "html"),
        *[("text", facts, "text") for facts in (TERMINAL, NOTEBOOK, BATCH)],
        *[("tqdm", facts, "tqdm") for facts in (TERMINAL, NOTEBOOK, BATCH)],
        *[("none", facts, "none") for facts in (TERMINAL, NOTEBOOK, BATCH)],
    ],
)
def test_which_view_is_shown_where(requested: str, facts: FrontEnd, chosen: str) -> None:
    assert choose(ViewName(requested), facts) is ViewName(chosen)


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
    assert choose(ViewName.AUTO, front_end({})) is ViewName.TEXT


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["no shell", "IPython terminal"])
def test_ipython_without_a_kernel_is_a_terminal(
    shell: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert front_end({}) == TERMINAL


def test_looking_around_imports_nothing() -> None:
    code = (
        "import sys; from nbloader.views.choose import front_end; print(front_end()); "
        "print(sorted({'IPython', 'ipywidgets', 'tqdm', 'ipykernel'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == [repr(FrontEnd()), "[]"]


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
    assert type(make(ViewName(name), stream=io.StringIO())) is kind


def test_broken_ipywidgets_give_way_to_html(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert type(make(ViewName.WIDGET, stream=io.StringIO())) is HtmlView


def test_a_tqdm_bar_shows_bytes_and_stage_and_keeps_the_news() -> None:
    out = io.StringIO()
    view = make(ViewName.TQDM, stream=out, speed=False, eta=False)
    for state in states(LOADED):
        view.update(state)
    view.close(last_state(LOADED))
    frames = out.getvalue().replace("\n", "\r").split("\r")
    assert "org/name, connect" in [frame.strip() for frame in frames]
    assert [line for line in frames if line.startswith(("1 of 3", "note:", "retry:"))] == [
        "1 of 3 checks passed, 1 skipped",
        "retry: transformer/model.safetensors: timed out; attempt 1 of 5 failed, the next in 5.0 s",
        "note: the token is old. Make a new one.",
    ]
    end, bar = out.getvalue().splitlines()[-1], frames[-3]
    assert end == "[100 %] ready in 24 s: SomePipeline on cpu, float32"
    assert bar.startswith("org/name: 100%|")
    assert "100MB of 100MB [00:" in bar
    assert bar.endswith(", initialise")


def test_a_tqdm_bar_of_a_broken_job_stays_where_it_was() -> None:
    out = io.StringIO()
    view = make(ViewName.TQDM, stream=out)
    view.close(last_state(BROKEN))
    lines = out.getvalue().splitlines()
    assert "60.0MB of 100MB" in lines[-2]
    assert lines[-1] == "        failed after 13 s: the disk is full [disk-full]"
