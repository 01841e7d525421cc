from __future__ import annotations

import gc
import re
import traceback
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

import pytest

from nbloader.localhub import LocalHub
from nbloader.localhub.demo import MINILM
from nbloader.notebook.error_cards import clear_frames
from tests.notebook_fakes import running_kernel


class Model:
    """Something large."""


def build(made: list[weakref.ref[Model]], error: BaseException) -> None:
    model = Model()
    made.append(weakref.ref(model))
    raise error


def hold(made: list[weakref.ref[Model]], error: BaseException) -> BaseException:
    """Return an error whose traceback holds a model."""
    try:
        build(made, error)
    except BaseException as caught:
        return caught
    raise AssertionError


def alive(made: list[weakref.ref[Model]]) -> int:
    gc.collect()
    return sum(reference() is not None for reference in made)


def test_the_frames_of_causes_contexts_and_groups_are_cleared() -> None:
    made: list[weakref.ref[Model]] = []
    cause, context, part = (hold(made, kind()) for kind in (OSError, KeyboardInterrupt, KeyError))
    deep = hold(made, ValueError())
    cause.__context__ = deep
    group = hold(made, BaseExceptionGroup("several", [part]))
    error = hold(made, RuntimeError("what"))
    error.__cause__, error.__context__ = cause, context
    context.__cause__ = group
    assert alive(made) == 6
    clear_frames(error)
    assert alive(made) == 0
    assert "made.append(weakref.ref(model))\n    raise error\nRuntimeError: what" not in "".join(
        traceback.format_exception(error)
    )
    assert "in build\n    raise error" in "".join(traceback.format_exception(error))


def test_a_context_that_is_not_shown_is_cleared_as_well() -> None:
    made: list[weakref.ref[Model]] = []
    try:
        try:
            build(made, KeyboardInterrupt())
        except KeyboardInterrupt:
            raise RuntimeError from None
    except RuntimeError as error:
        kept = error
    assert alive(made) == 1
    clear_frames(kept)
    assert alive(made) == 0


def test_errors_that_name_each_other_in_a_circle_come_to_an_end() -> None:
    made: list[weakref.ref[Model]] = []
    first, second = (hold(made, kind()) for kind in (OSError, ValueError))
    first.__cause__, second.__cause__ = second, first
    clear_frames(first)
    assert alive(made) == 0


def test_an_error_that_was_handled_before_keeps_its_frames() -> None:
    def fail(mine: str) -> None:
        raise ValueError(mine)

    def fail_while_handling(handled: Exception) -> None:
        try:
            raise handled
        except ValueError:
            fail("ours")

    with pytest.raises(ValueError, match="theirs") as theirs:
        fail("theirs")
    with pytest.raises(ValueError, match="ours") as ours:
        fail_while_handling(theirs.value)
    assert ours.value.__context__ is theirs.value
    clear_frames(ours.value, handled=theirs.value)
    assert {"mine": "theirs"} in [frame.f_locals for frame, _ in walk_tb(theirs.tb)]
    assert {"mine": "ours"} not in [frame.f_locals for frame, _ in walk_tb(ours.tb)]


def test_what_still_runs_keeps_its_variables() -> None:
    made: list[weakref.ref[Model]] = []
    model = Model()
    try:
        build(made, ValueError())
    except ValueError as error:
        clear_frames(error)
    assert alive(made) == 0
    assert isinstance(model, Model)


# -- a load that fails in a notebook ---------------------------------------------------------------

SET_UP = """
import gc, signal, sys, weakref
import nbloader, sentence_transformers, torch
from torch.nn.modules import module as hooks

made = []  # weak references to every module and weight that is put into a module

def note(module, name, part):
    if part is not None:
        made.append(weakref.ref(part))

hooks.register_module_module_registration_hook(note)
hooks.register_module_parameter_registration_hook(note)

def left():
    gc.collect()
    return [type(part).__name__ for part in (reference() for reference in made) if part is not None]

seen = []

def at_stage(stage, action):
    def watch(event):
        if event.type == "stage-started" and event.stage == stage:
            seen.append(left())
            action()
    return watch

def fail(*_):
    seen.append(left())
    raise ValueError("shapes do not fit")

def interrupt(*_):
    seen.append(left())
    signal.raise_signal(signal.SIGINT)

class Patched:
    # Replaces the forward pass, without the hooks of torch, which close over the module.
    def __init__(self, action):
        self.forward = sentence_transformers.SentenceTransformer.forward
        sentence_transformers.SentenceTransformer.forward = action

    def remove(self):
        sentence_transformers.SentenceTransformer.forward = self.forward

def load(on_event=None):
    return nbloader.load({repo!r}, endpoint={endpoint!r}, cache_dir="cache", device="cpu",
                         token=False, on_event=on_event, view={view!r})

def while_building(action):
    # Late in it, so that there is something to free.
    def watch(module, name, submodule):
        if name == "pooler":
            action()
    return hooks.register_module_module_registration_hook(watch)

assert load() is not None
assert not left(), left()

plain = sentence_transformers.SentenceTransformer(nbloader.download(
    {repo!r}, endpoint={endpoint!r}, cache_dir="cache", token=False, view="none"
).as_posix(), device="cpu")
reference = weakref.ref(plain)
del plain
gc.collect()
# Before 3.13.4 some circles of objects whose `__dict__` was looked at stay for ever.
library_keeps = reference() is not None and sys.version_info[:2] == (3, 13)
made.clear()
"""


@dataclass
class Notebook:
    """A notebook of a real kernel in which a model has been loaded, and let go of."""

    client: Any

    def run(self, cell: str) -> str:
        """Run a cell; gives its output, or the error that it shows, without colours."""
        shown: list[str] = []

        def note(message: Any) -> None:
            content = message["content"]
            shown.extend(content.get("traceback", ()))
            shown.extend(filter(None, [content.get("data", {}).get("text/plain")]))
            if message["msg_type"] == "stream":
                shown.append(content["text"])

        self.client.execute_interactive(cell, timeout=120, allow_stdin=True, output_hook=note)
        return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(shown))


@pytest.fixture(scope="module")
def notebook(
    tmp_path_factory: pytest.TempPathFactory, _demo_server: LocalHub
) -> Iterator[Notebook]:
    folder = tmp_path_factory.mktemp("notebook")
    with running_kernel(folder) as (client, _):
        notebook = Notebook(client)
        values = {"repo": MINILM, "endpoint": _demo_server.endpoint, "view": "widget"}
        set_up = SET_UP
        for name, value in values.items():
            set_up = set_up.replace(f"{{{name}!r}}", repr(value))
        shown = notebook.run(set_up)
        assert "Error" not in shown, shown
        yield notebook


FAILURES = [
    ("hook = while_building(fail)", "load()", "ModelLoadError"),
    ("hook = while_building(interrupt)", "load()", "KeyboardInterrupt"),
    ("hook = Patched(fail)", "load()", "SelfTestError"),
    ("hook = Patched(interrupt)", "load()", "KeyboardInterrupt"),
    ("hook = None", "load(at_stage('self-test', interrupt))", "KeyboardInterrupt"),
    ("hook = None", "load(at_stage('self-test', fail))", "ValueError"),
]


@pytest.mark.parametrize(
    ("arrange", "call", "error"),
    FAILURES,
    ids=[
        "the build fails",
        "an interrupt in the build",
        "the self-test fails",
        "an interrupt in the forward pass",
        "an interrupt before the self-test",
        "on_event fails",
    ],
)
def test_no_frame_of_a_failed_load_keeps_tensors(
    notebook: Notebook, arrange: str, call: str, error: str
) -> None:
    if notebook.run("library_keeps") == "True":
        pytest.skip("this Python does not free what the library loads: cpython issue 133543")
    assert notebook.run(f"seen.clear()\n{arrange}") == ""
    # A stop is no error, and the view says that it came.
    assert {"KeyboardInterrupt": "stopped after"}.get(error, error) in notebook.run(call)
    notebook.run("if hook is not None: hook.remove()")
    assert notebook.run("len(max(seen)) > 5") == "True"  # there was something to free
    assert notebook.run("left()") == "[]"
    assert error in notebook.run("type(sys.last_value).__mro__")
    whole = notebook.run("%tb")
    assert error == "KeyboardInterrupt" or "nbloader/stages/" in whole
