"""Every hint, in the words of each place where it can be read: nobody has to guess.

The sentences are read from the sources: all text that a hint, a message or an advice may be made
of, with every branch of every expression, and a sample in each of its gaps.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from argparse import ArgumentParser
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbloader
from nbloader.__main__ import _parser
from nbloader.errors import NbloaderError
from nbloader.settings import Settings
from nbloader.wording import (
    IN_COLAB,
    MODELS_OF_BEFORE,
    ONLY_IN_PYTHON,
    OPTIONS,
    SWITCHES,
    Reader,
    is_command,
    reader_here,
    worded,
)

SOURCES = Path(nbloader.__file__).parent
CALLS = ("load", "start", "download", "preflight")
PARAMETERS = {
    name for call in CALLS for name in inspect.signature(getattr(nbloader, call)).parameters
} | {"cache_dir"}

MOST_ALTERNATIVES = 64
QUOTED = {"quote", "literal", "dumps", "repr", "_line"}


# -- the sentences ---------------------------------------------------------------------------------


def alternatives(node: ast.expr) -> list[str]:
    """Return what an expression may come to; a gap for what the source does not tell."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return _joined([alternatives(part) for part in parts])
        case ast.FormattedValue(value=value, conversion=conversion):
            inner = alternatives(value)
            return ["'x'" if conversion == ord("r") and text == "x" else text for text in inner]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined([alternatives(left), alternatives(right)])
        case ast.IfExp(body=body, orelse=orelse):
            return [*alternatives(body), *alternatives(orelse)]
        case ast.BoolOp(values=values):
            return [text for value in values for text in alternatives(value)]
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in QUOTED:
            return ["'x'"]
    return ["x"]


def _joined(parts: list[list[str]]) -> list[str]:
    every = itertools.islice(itertools.product(*parts), MOST_ALTERNATIVES)
    return ["".join(each) for each in every]


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Walk the largest expressions that are text; documentation is none."""
    documents = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if id(node) in documents:
            continue
        if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp, ast.IfExp)):
            found = [text for text in alternatives(node) if text not in ("x", "'x'")]
            yield from ((node.lineno, text) for text in found)
            if found:
                continue
        waiting += ast.iter_child_nodes(node)


@cache
def sentences() -> dict[str, str]:
    """Return all that may be said to a user of arguments, settings or commands, by its place."""
    telling = re.compile(
        r"(?<![\w.])(" + "|".join(sorted(PARAMETERS)) + r")=|NBLOADER_|\bnbloader[. ]|--[a-z]"
        r"|%env|%pip|pip install|\b(kernel|cell)\b|`hf |\bunset\b|os\."
    )
    found: dict[str, str] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        inside = path.relative_to(SOURCES)
        if inside.parts[0] in ("localhub", "wording.py", "__main__.py", "demo.py"):
            continue
        for line, text in _texts(ast.parse(path.read_text("utf-8"))):
            text = re.sub(r"(?<!\{)\{\w+\}", "'x'", text)  # of a template
            if telling.search(text) and " " in text and "style=" not in text:
                found.setdefault(text, f"{inside}:{line}")
    return found


def test_the_sources_are_read() -> None:
    found = sentences()
    assert len(found) > 250
    assert any("On Kaggle" in text or "hf auth login" in text for text in found)


# -- what stands in them ---------------------------------------------------------------------------

NAMED = re.compile(r"(?<![\w.$?&/'\"\]-])([a-z_]+)=(?!=)")
CALLED = re.compile(r"(?<![\w.])([\w.]*\w)\(")

OF_OTHERS = {
    "adapter_name": "of an adapter",
    "file_name": "of model_kwargs",
    "export": "of model_kwargs",
    "x": "a gap",
}
"""Names before an equals sign that are arguments of something else, which the sentence names."""


def apart(text: str) -> tuple[str, list[str]]:
    """Part a text into its prose and the calls of Python in it."""
    prose, calls, at = "", [], 0
    while found := CALLED.search(text, at):
        depth, end = 0, found.end() - 1
        while end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
            if not depth:
                break
        prose += text[at : found.start()]
        calls.append(text[found.start() : end])
        at = end
    return prose + text[at:], calls


def test_prose_and_calls_are_told_apart() -> None:
    assert apart('Name it (cls=...): nbloader.load("a", cls=f("x")), or x.y().') == (
        "Name it (cls=...): , or .",
        ['nbloader.load("a", cls=f("x"))', "x.y()"],
    )


PYTHON = (Reader.CELL, Reader.SCRIPT)


@pytest.mark.parametrize("reader", PYTHON)
def test_in_python_every_argument_that_is_named_is_one_of_a_call(reader: Reader) -> None:
    for text, place in sentences().items():
        prose, _ = apart(worded(text, reader))
        unknown = set(NAMED.findall(prose)) - PARAMETERS - OF_OTHERS.keys()
        assert not unknown, f"{place}: {text}"


@pytest.mark.parametrize("reader", PYTHON)
def test_in_python_every_call_that_is_shown_is_one_that_can_be_made(reader: Reader) -> None:
    seen = 0
    for text, place in sentences().items():
        for call in apart(worded(text, reader))[1]:
            name = call.partition("(")[0].removeprefix("nbloader.")
            if not call.startswith("nbloader.") or name == "x":
                continue
            node = ast.parse(call, mode="eval").body
            assert isinstance(node, ast.Call), f"{place}: {text}"
            signature = inspect.signature(getattr(nbloader, name))
            open_ended = any(
                isinstance(each, ast.Constant) and each.value is ... for each in node.args
            )
            named = [str(each.arg).removeprefix("x") for each in node.keywords]  # after a gap
            keywords = dict.fromkeys(filter(None, named))
            positions = [None] * len(node.args)
            (signature.bind_partial if open_ended else signature.bind)(*positions, **keywords)
            seen += 1
    assert seen > 30


def test_every_setting_that_is_named_is_one() -> None:
    seen = 0
    for text, place in sentences().items():
        for variable in re.findall(r"NBLOADER_(\w+)", worded(text, Reader.SHELL)):
            assert variable.lower() in Settings.model_fields, f"{place}: {text}"
        for shown in re.findall(r"settings=(\{[^}]*\})", text):
            sample = re.sub(r"\bx\b", "1", shown)
            Settings(**ast.literal_eval(sample))
            seen += 1
    assert seen >= 4


@cache
def options() -> dict[str, frozenset[str]]:
    """Return the options of each command."""
    return {
        name: frozenset(option for each in command._actions for option in each.option_strings)
        for name, command in _commands().items()
    }


NO_COMMAND = re.compile("|".join(ONLY_IN_PYTHON) + r"|adapters=\{|components=|cls=\(\)|=\[\]|\bx=")
"""What of a call the command line cannot say: objects, and what is nothing at all."""


def test_on_the_command_line_no_argument_of_python_is_named() -> None:
    for text, place in sentences().items():
        prose, calls = apart(worded(text, Reader.SHELL))
        assert not set(NAMED.findall(prose)) & PARAMETERS, f"{place}: {text}"
        for call in calls:  # What stays a call is one that no command can be.
            is_ours = call.startswith("nbloader.") and f"= {call}" not in worded(text, Reader.SHELL)
            name = call.removeprefix("nbloader.").partition("(")[0]
            if is_ours and name in ("load", "download", "preflight", "cache"):
                assert NO_COMMAND.search(call), f"{place}: {call}"


def test_on_the_command_line_every_option_and_every_command_is_one() -> None:
    known = frozenset().union(*options().values())
    seen = 0
    for text, place in sentences().items():
        told = worded(text, Reader.SHELL)
        elsewhere = re.sub(r"(pip|llama-gguf-split|python) [^:]*", "", told)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", elsewhere):
            assert option in known, f"{place}: {told}"
        for command, rest in re.findall(
            r"\bnbloader (load|download|preflight|cache)\b([^,;:(`]*)", told
        ):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)) <= options()[command], told
            seen += 1
    assert seen > 20


OF_NOTEBOOKS = re.compile(r"\b(kernel|cell)\b|%pip|%env|`hf |!pip")


def test_outside_of_a_notebook_nothing_is_said_of_one() -> None:
    about_a_kernel = ("a kernel of the Hub", "no kernel", "kernel without stdin")
    for reader in (Reader.SCRIPT, Reader.SHELL):
        for text, place in sentences().items():
            if place.startswith(("views/", "state/", "api.py", "libraries/pip.py")):
                continue  # said in a notebook alone, or the choice itself
            told = worded(text, reader)
            if not any(each in told for each in about_a_kernel):
                assert not re.search(r"\b(kernel|cell)\b|%pip|%env", told), f"{place}: {told}"


def test_in_a_cell_every_command_of_a_shell_is_marked() -> None:
    for text, place in sentences().items():
        told = worded(text, Reader.CELL)
        assert not re.search(r"`hf auth|(?<![%!\w])pip install |: (chmod|rm|unset) ", told), (
            f"{place}: {told}"
        )


# -- what becomes of one ---------------------------------------------------------------------------

ASKS = "Pass it as `token=`, or store it with `hf auth login`."

WORDS: dict[str, tuple[str, str, str]] = {
    # As it is written: in a cell, in a script, on the command line.
    ASKS: (
        "Pass it as `token=`, or store it with `import huggingface_hub; huggingface_hub.login()`.",
        ASKS,
        "Set `HF_TOKEN`, or store it with `hf auth login`.",
    ),
    # Colab's secrets are read by the kernel of the notebook alone.
    f"It needs a token. {IN_COLAB}": (
        f"It needs a token. {IN_COLAB}",
        f"It needs a token. {ASKS}",
        "It needs a token. Set `HF_TOKEN`, or store it with `hf auth login`.",
    ),
    f"It is full. {MODELS_OF_BEFORE}": (
        f"It is full. {MODELS_OF_BEFORE}",
        f"It is full. {MODELS_OF_BEFORE}",
        "It is full. Other programs may fill the GPU: `nvidia-smi` lists them.",
    ),
    'On a bad link, pass settings={"max_retries": 20}.': (
        'On a bad link, pass settings={"max_retries": 20}.',
        'On a bad link, pass settings={"max_retries": 20}.',
        "On a bad link, set NBLOADER_MAX_RETRIES=20.",
    ),
    'Pass settings={"check_network": False, "route": "http"}.': (
        'Pass settings={"check_network": False, "route": "http"}.',
        'Pass settings={"check_network": False, "route": "http"}.',
        "Set NBLOADER_CHECK_NETWORK=false NBLOADER_ROUTE=http.",
    ),
    "Mend it, or pass `token=`; `token=False` goes without one.": (
        "Mend it, or pass `token=`; `token=False` goes without one.",
        "Mend it, or pass `token=`; `token=False` goes without one.",
        "Mend it, or set `HF_TOKEN`; `HF_HUB_DISABLE_IMPLICIT_TOKEN=1` goes without one.",
    ),
    "or pass `cache_dir='~/my models'`, where 5 GB are free": (
        "or pass `cache_dir='~/my models'`, where 5 GB are free",
        "or pass `cache_dir='~/my models'`, where 5 GB are free",
        "or pass `--cache-dir ~/'my models'`, where 5 GB are free",
    ),
    'Pass plan="cpu", which fits, or leave plan= out.': (
        'Pass plan="cpu", which fits, or leave plan= out.',
        'Pass plan="cpu", which fits, or leave plan= out.',
        "Pass --plan cpu, which fits, or leave --plan out.",
    ),
    "Read it; if you trust it, pass trust_remote_code=True.": (
        "Read it; if you trust it, pass trust_remote_code=True.",
        "Read it; if you trust it, pass trust_remote_code=True.",
        "Read it; if you trust it, pass --trust-remote-code.",
    ),
    'nbloader.load("org/name", adapters=["a/b", "c/d"], components={"vae": "a/b", "t": None})': (
        'nbloader.load("org/name", adapters=["a/b", "c/d"], components={"vae": "a/b", "t": None})',
        'nbloader.load("org/name", adapters=["a/b", "c/d"], components={"vae": "a/b", "t": None})',
        "nbloader load org/name --adapter a/b --adapter c/d --component vae=a/b --component t=",
    ),
    'For all: nbloader.download("org/name", allow_patterns="*", repo_type="dataset").': (
        'For all: nbloader.download("org/name", allow_patterns="*", repo_type="dataset").',
        'For all: nbloader.download("org/name", allow_patterns="*", repo_type="dataset")',
        "For all: nbloader download org/name --include '*' --repo-type dataset",
    ),
    'Hand it in: loader_kwargs={"vae": part}': (
        'Hand it in: loader_kwargs={"vae": part}',
        'Hand it in: loader_kwargs={"vae": part}',
        'Hand it in: nbloader.load(..., loader_kwargs={"vae": part})',
    ),
    'pipe = nbloader.load("a/b", cls="C"); pipe.f(subfolder="x")': (
        'pipe = nbloader.load("a/b", cls="C"); pipe.f(subfolder="x")',
        'pipe = nbloader.load("a/b", cls="C"); pipe.f(subfolder="x")',
        'pipe = nbloader.load("a/b", cls="C"); pipe.f(subfolder="x")',
    ),
    "Restart the kernel, then run the cell again.": (
        "Restart the kernel, then run the cell again.",
        "Start the program again.",
        "Run the command again.",
    ),
    "Run the line again: what has arrived is kept.": (
        "Run the line again: what has arrived is kept.",
        "Run it again: what has arrived is kept.",
        "Run the command again: what has arrived is kept.",
    ),
    "Upgrade it: %pip install -U x": (
        "Upgrade it: %pip install -U x",
        "Upgrade it: pip install -U x",
        "Upgrade it: pip install -U x",
    ),
    "Set it: %env A_B=30": (
        "Set it: %env A_B=30",
        'Set it: os.environ["A_B"] = "30"',
        "Set it: export A_B=30",
    ),
    "remove the variable: unset HF_HOME": (
        'remove the variable: import os; os.environ.pop("HF_HOME")',
        "remove the variable: unset HF_HOME",
        "remove the variable: unset HF_HOME",
    ),
    "device='tpu' is not known": (
        "device='tpu' is not known",
        "device='tpu' is not known",
        "--device tpu is not known",
    ),
}


@pytest.mark.parametrize("text", WORDS)
def test_what_is_said_where(text: str) -> None:
    assert (
        worded(text, Reader.CELL),
        worded(text, Reader.SCRIPT),
        worded(text, Reader.SHELL),
    ) == WORDS[text]


def test_what_is_worded_once_stays_so() -> None:
    for text in (*sentences(), *WORDS):
        for reader in Reader:
            told = worded(text, reader)
            assert worded(told, reader) == told, text


@given(st.text(), st.sampled_from(Reader))
def test_whatever_is_said_can_be_worded(text: str, reader: Reader) -> None:
    worded(f"plan={text} cls='{text}' nbloader.load({text}) components={{{text}", reader)


def test_the_options_are_those_of_the_command_line() -> None:
    known = {
        action.dest: action.option_strings[-1]
        for command in ("load", "download")
        for action in _commands()[command]._actions
        if action.option_strings and action.dest not in ("help", "json")
    }
    named = {"include": "allow_patterns", "exclude": "ignore_patterns"}
    assert {named.get(name, name): option for name, option in known.items()} == {
        **OPTIONS,
        **SWITCHES,
    }
    rest = {"repo_id", "filename", "token", "settings"}
    assert {*OPTIONS, *SWITCHES, *ONLY_IN_PYTHON} | rest == PARAMETERS


def _commands() -> dict[str, ArgumentParser]:
    (found,) = (each.choices for each in _parser()._actions if isinstance(each.choices, dict))
    return found


def test_who_reads_is_told_by_the_process() -> None:
    assert is_command(["/usr/local/bin/nbloader"])
    assert is_command(["C:/Python/Scripts/nbloader.exe"])
    assert is_command(["/site-packages/nbloader/__main__.py"])
    assert not is_command(["train.py"])
    assert not is_command(["/usr/lib/ipykernel_launcher.py"])
    assert not is_command([""])
    assert not is_command([])
    assert reader_here() is Reader.SCRIPT  # these tests


def test_an_error_is_told_in_the_words_of_its_reader() -> None:
    error = NbloaderError("plan=gpu does not fit", hint='Pass plan="cpu".')
    assert str(error) == 'plan=gpu does not fit\n  Hint: Pass plan="cpu".\n  [nbloader-error]'
    assert error.told(Reader.SHELL) == (
        "--plan gpu does not fit\n  Hint: Pass --plan cpu.\n  [nbloader-error]"
    )
