"""What notebooks show of a call: its own arguments, each said once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

import pytest
from IPython.core.completer import IPCompleter, provisionalcompleter

import nbloader
from nbloader.request import Call, DownloadCall
from nbloader.request.call import OF_DOWNLOAD


def parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    return dict(inspect.signature(function).parameters)


def test_a_call_is_recorded_with_every_argument_of_load() -> None:
    found = parameters(Call)
    assert found == parameters(nbloader.load)
    assert [each.kind for each in found.values()] == [
        Parameter.POSITIONAL_OR_KEYWORD,
        *[Parameter.KEYWORD_ONLY] * (len(found) - 1),
    ]


@pytest.mark.parametrize("function", [nbloader.aload, nbloader.start])
def test_the_others_that_load_show_the_arguments_of_load(function: Callable[..., Any]) -> None:
    assert list(parameters(function).items()) == list(parameters(nbloader.load).items())
    assert inspect.signature(function).return_annotation == (
        "Job" if function is nbloader.start else "Any"
    )
    assert inspect.iscoroutinefunction(function) is (function is nbloader.aload)


def test_calls_that_build_no_model_have_some_of_them() -> None:
    assert parameters(nbloader.preflight).items() < parameters(nbloader.load).items()
    found = parameters(nbloader.download)
    assert found.pop("filename").kind is Parameter.POSITIONAL_OR_KEYWORD
    assert found.items() < parameters(DownloadCall).items()
    own = OF_DOWNLOAD - {"filename"}
    shared = {name: each for name, each in found.items() if name not in own}
    assert own < found.keys()
    assert shared.items() < parameters(nbloader.load).items()


@pytest.mark.parametrize(
    "function",
    [nbloader.load, nbloader.aload, nbloader.start, nbloader.download, nbloader.preflight],
)
def test_a_notebook_shows_and_completes_the_arguments(function: Callable[..., Any]) -> None:
    shown = str(inspect.signature(function))
    assert "trust_remote_code: 'bool' = False" in shown
    assert "unknown" not in shown
    completer = IPCompleter(namespace={"call": function})  # type: ignore[no-untyped-call]
    line = "call('org/name', local_f"
    with provisionalcompleter():
        for jedi in (True, False):
            completer.use_jedi = jedi
            found = [each.text for each in completer.completions(line, len(line))]
            assert found == ["local_files_only="]
