"""All that this process, or a process of its own, runs beside nbloader itself: a list to be read.

A line of code that imports by a name, starts a process, unpickles, or says what a library may run
is one of these. What it may be given is said beside it; no name of a repository is among that,
unless the caller has passed `trust_remote_code=True`.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nbloader

ROOT = Path(nbloader.__file__).parent

RUNS = {
    # The package itself.
    ("__init__.py", "import_module"): 2,
    ("notebook/background.py", "import_module"): 1,
    # Processes of our own Python: the worker and the trial; a question to torch, written there.
    ("transfer/child.py", "Popen"): 1,
    ("loaders/device.py", "run"): 1,
    # The C library of this system.
    ("loaders/device.py", "CDLL"): 1,
    # The client of the Hub's library, and the modules in which weights are handed over: constants.
    ("worker/wire.py", "import_module"): 2,
    ("loaders/handing.py", "import_module"): 1,
    # The libraries, by names of ours; of a component only what `module_of` gives.
    ("stages/warm.py", "import_module"): 1,
    ("loaders/arguments.py", "import_module"): 1,
    ("loaders/classes.py", "import_module"): 1,
    ("loaders/diffusers.py", "import_module"): 1,
    ("loaders/imports.py", "import_module"): 3,
    ("loaders/model_files.py", "import_module"): 1,
    # A module of transformers that its own table of tasks names.
    ("loaders/transformers.py", "import_module"): 1,
    # An adapter that was looked through, by the restricted unpickler.
    ("loaders/folders.py", "load"): 1,
}

TRUSTS = {
    # By `Selection.custom_code`, which `selection/files.py` makes of the caller's word alone.
    "selection.custom_code": 4,
    "True": 1,  # for diffusers, under `if selection.custom_code`
    # The same, handed on.
    "trusted": 2,
    "todo.arguments.get('trust_remote_code', False)": 1,
    # The arguments of the calls.
    "trust_remote_code": 3,
    "check_flag('trust_remote_code', call.trust_remote_code)": 1,
    "('trust_remote_code', partial(check_flag, 'trust_remote_code'))": 1,
}

_CALLS = frozenset(
    {"CDLL", "Popen", "__import__", "check_output", "exec_module", "execv", "execve", "execvp"}
    | {"import_module", "popen", "posix_spawn", "run_module", "run_path", "spawnv", "system"}
)
_BARE = frozenset({"compile", "eval", "exec"})
_OF_MODULES = {
    "call": {"subprocess"},
    "check_call": {"subprocess"},
    "load": {"marshal", "pickle", "torch"},
    "loads": {"marshal", "pickle"},
    "run": {"subprocess"},
}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(ROOT.rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        if not path.startswith("localhub/"):  # a server of its own, which loads nothing
            yield path, ast.parse(file.read_text("utf-8"))


def called(node: ast.Call) -> str:
    """Name what a call runs; empty for one that runs nothing else."""
    if isinstance(node.func, ast.Name):
        return node.func.id if node.func.id in _CALLS | _BARE else ""
    if not isinstance(node.func, ast.Attribute):
        return ""
    name, owner = node.func.attr, node.func.value
    of_module = isinstance(owner, ast.Name) and owner.id in _OF_MODULES.get(name, ())
    return name if name in _CALLS or of_module else ""


def test_what_is_run_is_this_list() -> None:
    found = Counter(
        (path, name)
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (name := called(node))
    )
    assert dict(found) == RUNS


def test_what_a_library_may_run_is_decided_by_the_caller_alone() -> None:
    found: Counter[str] = Counter()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                found[ast.unparse(node.value)] += 1
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "trust_remote_code":
                        found[ast.unparse(value)] += 1
            if isinstance(node, ast.Assign) and "['trust_remote_code']" in ast.unparse(node):
                found[ast.unparse(node.value)] += 1
    assert dict(found) == TRUSTS


def test_custom_code_is_made_in_one_place() -> None:
    made = [
        (path, ast.unparse(node.value))
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "custom_code"
    ]
    assert len(made) == 1
    assert made[0][0] == "selection/files.py"
    assert made[0][1].startswith("request.trust_remote_code and ")
