"""Hints in the words of the place where they are read: a cell, a script, or the command line.

A hint is written once, as it reads in Python: with the arguments of the calls (`cache_dir=`), with
`settings={...}` for what can be tuned, and with commands of a shell as they stand in one. `worded`
says the same where it is read: the command line has options and variables, a cell marks its shell
commands, and outside of a notebook there is no kernel to restart. Pure, and it changes nothing that
it has worded already.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import PurePath
from types import MappingProxyType

from nbloader.notebook import running_kernel

__all__ = ["ONLY_IN_PYTHON", "OPTIONS", "SWITCHES", "Reader", "reader_here", "worded"]


class Reader(StrEnum):
    """Where a hint is read."""

    CELL = "cell"
    SCRIPT = "script"
    SHELL = "shell"
    """What the command `nbloader` writes."""


OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "adapters": "--adapter",
        "allow_patterns": "--include",
        "attention": "--attention",
        "cache_dir": "--cache-dir",
        "cls": "--cls",
        "components": "--component",
        "device": "--device",
        "dtype": "--dtype",
        "endpoint": "--endpoint",
        "ignore_patterns": "--exclude",
        "kind": "--kind",
        "local_dir": "--local-dir",
        "plan": "--plan",
        "repo_type": "--repo-type",
        "revision": "--revision",
        "subfolder": "--subfolder",
        "task": "--task",
        "variant": "--variant",
    }
)
"""The option of the command line for each argument that takes a value."""

_SWITCHED_ON = ("allow_pickle", "force", "local_files_only", "trust_remote_code", "verify")
SWITCHES: Mapping[str, str] = MappingProxyType(
    {
        "keep_files": "--no-keep-files",
        **{name: f"--{name.replace('_', '-')}" for name in _SWITCHED_ON},
    }
)
"""Those that are given or left out."""

ONLY_IN_PYTHON = frozenset({"loader_kwargs", "on_event", "replace", "view"})
"""Arguments that the command line has nothing for. `token` and `settings` are variables there."""

_COMMANDS = ("load", "download", "preflight", "cache", "doctor")
_NAMED = {
    "adapters": "PLACE",
    "allow_patterns": "PATTERN",
    "cache_dir": "FOLDER",
    "cls": "CLASS",
    "components": "NAME=PLACE",
    "filename": "FILE",
    "ignore_patterns": "PATTERN",
    "local_dir": "FOLDER",
    "repo_id": "REPO",
    "repo_type": "TYPE",
    "subfolder": "FOLDER",
}
"""What stands for a value that is left open, where that is not the name of the argument."""

_BY_VARIABLE = {"": "HF_TOKEN", "False": "HF_HUB_DISABLE_IMPLICIT_TOKEN=1"}


def reader_here() -> Reader:
    """Say who reads what this process writes: it is a kernel, the command, or neither.

    It never raises, as an error that is told may be the last thing that works.
    """
    try:
        in_kernel = running_kernel() is not None
    except Exception:
        in_kernel = True
    if in_kernel:
        return Reader.CELL
    return Reader.SHELL if is_command(sys.argv[:1]) else Reader.SCRIPT


def is_command(argv: list[str]) -> bool:
    """Say whether a process is the command `nbloader`, by the first of its arguments."""
    path = PurePath(argv[0]) if argv else PurePath()
    return path.name in {"nbloader", "nbloader.exe"} or path.parts[-2:] == (
        "nbloader",
        "__main__.py",
    )


def worded(text: str, reader: Reader) -> str:
    """Say a hint, or what happened, in the words of its reader."""
    if reader is not Reader.CELL:  # whose card writes lines as code, apart from the text
        text = _without_stop(text)
    if reader is Reader.SHELL:
        text = text.replace(IN_COLAB, LOG_IN).replace(MODELS_OF_BEFORE, _OTHER_PROGRAMS)
        text = _for_the_command_line(text)
    elif reader is Reader.SCRIPT:
        text = text.replace(IN_COLAB, LOG_IN)
    for pattern, words in _PHRASES[reader]:
        text = re.sub(pattern, words, text)
    return text


LOG_IN = "Pass it as `token=`, or store it with `hf auth login`."
IN_COLAB = (
    "In Colab, open Secrets (the key on the left), add it as HF_TOKEN, and switch on its access "
    "for this notebook."
)
"""Which only the kernel of the notebook can read."""

MODELS_OF_BEFORE = 'Models of before may fill the GPU: `nbloader.unload("all")` frees them.'
_OTHER_PROGRAMS = "Other programs may fill the GPU: `nvidia-smi` lists them."
"""The command line has loaded nothing before."""

GET_GPU: Mapping[str, str] = MappingProxyType(
    {
        "Colab": "Choose a GPU: Runtime > Change runtime type.",
        "Kaggle": "Choose a GPU in the panel on the right: Session options > Accelerator.",
    }
)
"""How a GPU is had, by the name of the place; elsewhere another machine has one."""


# -- what is done about the moment, and outside of Python ------------------------------------------


_SHELL_COMMAND = r"(?:chmod|rm|python -m|hf download) "

# Compiled where they are used: this module is imported with the errors, in the first second of
# every load and by the worker, which together took 10 ms for what one reader needs a third of.
_PHRASES: Mapping[Reader, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        Reader.CELL: (
            (r"(?<![%\w!])pip install ", "%pip install "),
            (r"`hf auth login`", "`import huggingface_hub; huggingface_hub.login()`"),
            (r"`hf auth logout`", "`import huggingface_hub; huggingface_hub.logout()`"),
            (rf"(: |`)({_SHELL_COMMAND})", r"\1!\2"),
            (r"(: |`)unset (\w+)", r'\1import os; os.environ.pop("\2")'),
            (r'os\.environ\["(\w+)"\] = "([^"]*)"', r"%env \1=\2"),
            (r'os\.chdir\("([^"]*)"\)', r"%cd \1"),
            (r"\(os\.getcwd\(\)\)", "(%pwd)"),
        ),
        Reader.SCRIPT: (
            (r"%pip install ", "pip install "),
            (r"%env (\w+)=(\S+)", r'os.environ["\1"] = "\2"'),
            (r",? restart the kernel, and load again", ", and start the program again"),
            (r"\bRestart the kernel, then run the cell again", "Start the program again"),
            (r"\bRestart the kernel\b", "Start the program again"),
            (r"\brestart the kernel\b", "start the program again"),
            (r"\bthe kernel is ended\b", "the process is ended"),
            (r"\b(R|r)un the (?:cell|line) again\b", r"\1un it again"),
            (r", then this cell again\b", ", then this again"),
        ),
        Reader.SHELL: (
            (r"%pip install ", "pip install "),
            (r"%env (\w+)=(\S+)", r"export \1=\2"),
            (r'os\.environ\["(\w+)"\] = "([^"]*)"', r"export \1=\2"),
            (r'os\.chdir\("([^"]*)"\)', r"cd \1"),
            (r"\(os\.getcwd\(\)\)", "(pwd)"),
            (r"\bRestart the kernel to free what is taken\b", "Close what else takes it"),
            (r",? restart the kernel, and load again", ", and run the command again"),
            (r"\bRestart the kernel, then run the cell again", "Run the command again"),
            (r"\bRestart the kernel\b", "Run the command again"),
            (r"\brestart the kernel\b", "run the command again"),
            (r"\bthe kernel is ended\b", "the process is ended"),
            (r"\b(R|r)un the (?:cell|line) again\b", r"\1un the command again"),
            (r", then this cell again\b", ", then the command again"),
        ),
    }
)


# -- the command line ------------------------------------------------------------------------------


def _without_stop(text: str) -> str:
    """Leave out the full stop behind a call that ends a hint: it would be pasted with it."""
    calls = re.finditer(r": nbloader\.\w+\((?!\.\.\.)", text) if text.endswith(").") else ()
    ends = {_closed(text, call.end() - 1) for call in calls}
    return text[:-1] if len(text) - 1 in ends else text


_NAMES = "|".join(sorted({*OPTIONS, *SWITCHES, *ONLY_IN_PYTHON, "token", "settings", "filename"}))
_ARGUMENT = rf"(?<![\w.$?&/'\"\]-])({_NAMES})=(?!=)"
_CALL = r"(?P<before>= )?(?<![\w.])(?P<name>[\w.]*\w)\("
_OURS = "nbloader."
_AS_VARIABLE = r"\b(P|p)ass (?:(?:it as )?(?=`?token=)|(?=`?settings=\{))"


def _for_the_command_line(text: str) -> str:
    """Name options in the place of arguments, and commands in that of calls."""
    text = re.sub(_AS_VARIABLE, lambda found: "Set " if found[1] == "P" else "set ", text)
    done, at = [], 0
    while at < len(text):
        found = _next(text, at)
        if found is None:
            break
        start, end, words = found
        done += [text[at:start], words]
        at = end
    return "".join((*done, text[at:]))


def _next(text: str, at: int) -> tuple[int, int, str] | None:
    """Find the next call or argument: where it begins and ends, and what it is in a shell."""
    # A pattern that looks behind has to see what stands before the place: no slices.
    call, argument = re.compile(_CALL).search(text, at), re.compile(_ARGUMENT).search(text, at)
    if call and (argument is None or call.start() <= argument.start()):
        start, end = call.start("name"), _closed(text, call.end() - 1)
        is_ours = call["name"].startswith(_OURS) and not call["before"]
        line = _command(call["name"].removeprefix(_OURS), text[start:end]) if is_ours else ""
        # What is Python's alone stays as it is, whatever stands in it.
        return start, end, line or text[start:end]
    if argument is None:
        return None
    end = _value_end(text, argument.end())
    words = _option(argument[1], text[argument.end() : end])
    return argument.start(), end, words


def _closed(text: str, at: int) -> int:
    """Return where a bracket that opens at a place closes; the end of the text if it does not."""
    depth, quote = 0, ""
    for number in range(at, len(text)):
        letter = text[number]
        if quote:
            if letter == quote and text[number - 1] != "\\":
                quote = ""
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if not depth:
                return number + 1
    return len(text)


_WORD = r"\.\.\.|[\w.:/-]*\w"


def _value_end(text: str, at: int) -> int:
    """Return where the value of an argument ends that begins at a place; there may be none."""
    if at >= len(text):
        return at
    if text[at] in "\"'":
        end = text.find(text[at], at + 1)
        return at if end < 0 else end + 1
    if text[at] in "([{":
        return _closed(text, at)
    found = re.match(_WORD, text[at:])
    return at + found.end() if found else at


def _option(name: str, given: str) -> str:
    """Write an argument as the command line has it."""
    if name == "token":
        return _BY_VARIABLE.get(given, "HF_TOKEN=" + ("..." if given == "..." else given))
    if name == "filename":
        return _shell_word(_literal(given)) if given else _NAMED["filename"]
    if name in ONLY_IN_PYTHON or (name == "settings" and not given):
        return f"nbloader.load(..., {name}={given or '...'})"
    if name in SWITCHES:
        return SWITCHES[name]
    if not given:
        return OPTIONS[name]
    return _written(name, _literal(given)) or f"nbloader.load(..., {name}={given})"


class _Word(str):
    """A name in the place of a value, as people write it in examples."""

    __slots__ = ()


_OPEN = _Word("...")


def _literal(given: str) -> object:
    """Read a value; what is no literal is a word."""
    try:
        return _value(ast.parse(given, mode="eval").body)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return _Word(given)


def _value(node: ast.expr) -> object:
    match node:
        case ast.Constant():
            return _OPEN if node.value is Ellipsis else node.value
        case ast.Name():
            return _Word(node.id)
        case ast.List() | ast.Tuple():
            return [_value(each) for each in node.elts]
        case ast.Dict(keys=keys, values=values):
            return {
                str(ast.literal_eval(key)): _value(value)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
    raise ValueError(node)


def _written(name: str, value: object) -> str:
    """Write an option with its value; empty for what the command line cannot say."""
    if name == "settings" and isinstance(value, dict):
        return " ".join(f"NBLOADER_{key.upper()}={_setting(each)}" for key, each in value.items())
    if name in SWITCHES:
        return SWITCHES[name] if value is not (name == "keep_files") else ""
    if name not in OPTIONS:
        return ""
    values = _parts(value) if name == "components" else _listed(value)
    if not values or not all(isinstance(each, str) for each in values):
        return ""
    return " ".join(
        f"{OPTIONS[name]} {_named(name) if each is _OPEN else _shell_word(each)}" for each in values
    )


def _named(name: str) -> str:
    return _NAMED.get(name, name.upper())


def _parts(value: object) -> list[object]:
    """Return components as `NAME=PLACE`; what is no place is handed in as an object, in Python."""
    if not isinstance(value, dict):
        return [value] if value is _OPEN else []
    parts: list[object] = []
    for name, given in value.items():
        for each in _listed(given):
            if each is not _OPEN and isinstance(each, _Word):
                return []
            place = "PLACE" if each is _OPEN else "" if each is None else each
            parts.append(f"{name}={place}" if isinstance(place, str) else place)
    return parts


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _setting(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else shlex.quote(str(value))


def _shell_word(value: object) -> str:
    """Quote a value for a shell, which is to see the `~` that it begins with."""
    text = str(value)
    if isinstance(value, _Word):
        return text
    return f"~/{shlex.quote(text[2:])}" if text.startswith("~/") else shlex.quote(text)


def _command(name: str, call: str) -> str:
    """Write a call as a command; empty where the command line has no such thing."""
    if name not in _COMMANDS:
        return ""
    try:
        node = ast.parse(call, mode="eval").body
        words = [*_positions(node), *_keywords(node)] if isinstance(node, ast.Call) else []
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return ""
    return " ".join(("nbloader", name, *words))


def _positions(node: ast.Call) -> Iterator[str]:
    for each in node.args:
        for value in _listed(_value(each)):
            yield _named("repo_id") if value is _OPEN else _shell_word(value)


def _keywords(node: ast.Call) -> Iterator[str]:
    """Raises ValueError for what the command line cannot say."""
    for each in node.keywords:
        value = _value(each.value)
        if each.arg == "filename":
            yield _shell_word(value)
        elif each.arg in (None, "token", "settings"):
            raise ValueError(each.arg)
        elif words := _written(each.arg, value):
            yield words
        elif each.arg not in SWITCHES:
            raise ValueError(each.arg)
