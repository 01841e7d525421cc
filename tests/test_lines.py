"""The lines that the pages show: all can be called so, and those of the page of tasks are run."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

import nbloader
from nbloader.__main__ import _parser, main
from nbloader.localhub import LocalHub
from tests.test_readme import FENCE, PAGES, ROOT

HOW_TO = (ROOT / "docs" / "how-to.md").read_text("utf-8")

_INLINE = re.compile(r"`([^`\n]+)`")
_FORMS = re.compile(r"\.\.\.|[|\[<]")
"""A line with one of these shows a form, and is none to type."""


class Line(NamedTuple):
    """A command of a shell: the variables before it, and its arguments."""

    variables: dict[str, str]
    arguments: list[str]


def blocks(text: str, *languages: str) -> list[str]:
    """Return what stands in the fences of these languages."""
    return [content for language, content in FENCE.findall(text) if language in languages]


def commands(text: str) -> Iterator[Line]:
    """Yield the commands of nbloader in a text of a shell."""
    for line in text.splitlines():
        if _FORMS.search(line) or "nbloader " not in line:
            continue
        words = shlex.split(line, comments=True)
        number = next((n for n, word in enumerate(words) if "=" not in word), len(words))
        if words[number : number + 1] == ["nbloader"]:
            variables = dict(word.split("=", 1) for word in words[:number])
            yield Line(variables, words[number + 1 :])


def code(text: str) -> Iterator[ast.Call]:
    """Yield the calls of nbloader in the blocks of a page, and in its running text."""
    inline = _INLINE.findall(FENCE.sub("", text))
    lines = [each for each in inline if each.startswith(("nbloader.", "await nbloader."))]
    for part in (*blocks(text, "python"), *lines):
        try:
            tree = ast.parse(part)
        except SyntaxError:
            assert part in lines, part  # A block is a program; running text may show a part of one.
            continue
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="nbloader"))):
                    yield node


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_call_of_a_page_has_the_arguments_of_its_function(page: Path) -> None:
    like_load = {"aload", "start"}
    for call in code(page.read_text("utf-8")):
        assert isinstance(call.func, ast.Attribute)
        name = call.func.attr
        assert name in nbloader.__all__, name
        parameters = inspect.signature(
            nbloader.load if name in like_load else getattr(nbloader, name)
        ).parameters
        named = {keyword.arg for keyword in call.keywords if keyword.arg}
        assert named <= parameters.keys(), ast.unparse(call)
        assert len(call.args) <= len(parameters), ast.unparse(call)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_can_be_read(page: Path) -> None:
    text = page.read_text("utf-8")
    inline = "\n".join(_INLINE.findall(FENCE.sub("", text)))
    for part in (*blocks(text, "", "sh", "bash"), inline):
        for line in commands(part):
            if len(line.arguments) > 1:
                _parser().parse_args(line.arguments)
            else:  # The command alone is its name.
                with pytest.raises(SystemExit, match=r"^0$"):
                    _parser().parse_args([*line.arguments, "--help"])


SECTIONS = {
    part.partition("\n")[0]: part for part in re.split(r"^## ", HOW_TO, flags=re.MULTILINE)[1:]
}


def test_every_section_of_the_page_of_tasks_has_a_line_to_run() -> None:
    idle = [
        title
        for title, text in SECTIONS.items()
        if not blocks(text, "python") and not any(map(list, map(commands, blocks(text, ""))))
    ]
    assert idle == []


@pytest.mark.parametrize("title", SECTIONS)
def test_the_lines_of_a_task_do_what_they_say(
    title: str, demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ, {"HF_ENDPOINT": demo_hub.endpoint}):
        for block in blocks(SECTIONS[title], "python"):
            exec(compile(block, f"how-to.md, {title}", "exec"), {"__name__": "__main__"})
        for block in blocks(SECTIONS[title], ""):
            for line in commands(block):
                with mock.patch.dict(os.environ, line.variables):
                    assert main(line.arguments) == 0, line
