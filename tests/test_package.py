from __future__ import annotations

import ast
import inspect
import pkgutil
import pydoc
import re
import statistics
import subprocess
import sys
import types

import pytest

import nbloader

HEAVY = (
    "torch",
    "diffusers",
    "transformers",
    "sentence_transformers",
    "huggingface_hub",
    "ipywidgets",
    "matplotlib",
    "pydantic",
    "tenacity",
    "asyncio",
)


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@pytest.mark.timed
def test_import_takes_under_a_tenth_of_a_second() -> None:
    code = "import time; t = time.perf_counter(); import nbloader; print(time.perf_counter() - t)"
    seconds = [float(python(code)) for _ in range(10)]
    assert statistics.median(seconds) < 0.1


def test_import_brings_in_nothing_heavy() -> None:
    code = f"import sys, nbloader; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert python(code).strip() == "[]"


def test_public_names() -> None:
    assert nbloader.__all__ == [
        "CacheReport",
        "CheckResult",
        "Deletion",
        "DoctorReport",
        "Event",
        "Freed",
        "Job",
        "JobReport",
        "JobState",
        "JointReport",
        "PreflightReport",
        "Settings",
        "__version__",
        "aload",
        "cache",
        "doctor",
        "download",
        "errors",
        "load",
        "preflight",
        "records",
        "start",
        "unload",
    ]
    assert dir(nbloader) == sorted(nbloader.__all__)
    assert all(getattr(nbloader, name) is not None for name in nbloader.__all__)


def test_functions_stay_functions_whatever_is_imported_first() -> None:
    names = [name for name in nbloader.__all__ if callable(getattr(nbloader, name))]
    assert len(names) == len(nbloader.__all__) - len(("Event", "__version__", "errors", "records"))
    modules = "import nbloader, " + ", ".join(f"nbloader.{name}" for name in SUBMODULES)
    code = (
        f"{modules}; print([name for name in {names!r} if not callable(getattr(nbloader, name))])"
    )
    assert python(code).strip() == "[]"


def test_types_can_be_named_in_annotations_and_bring_in_nothing_heavy() -> None:
    """A user's code names them where it defines functions, before anything is loaded."""
    names = [name for name in nbloader.__all__ if name[0].isupper()]
    libraries = [name for name in HEAVY if name not in ("pydantic", "tenacity", "asyncio")]
    code = f"""
import sys
import nbloader
assert [getattr(nbloader, name) for name in {names!r}]
def wait(job: nbloader.Job, told: list[nbloader.Event]) -> nbloader.PreflightReport: ...
print([name for name in {libraries!r} if name in sys.modules])
"""
    assert python(code).strip() == "[]"


def test_help_begins_with_every_call_as_a_line_that_can_be_pasted() -> None:
    plain = pydoc.plaintext  # type: ignore[attr-defined]
    told = pydoc.render_doc(nbloader, renderer=plain).partition("PACKAGE CONTENTS")[0]
    lines = [line.strip().partition("  ")[0] for line in told.splitlines()]
    shown = [line for line in lines if re.match(r"(\w+ = )?(await )?nbloader\.\w+\(", line)]
    assert [line for line in told.splitlines()[4:] if len(line) > 80] == []
    calls = {
        name for name in nbloader.__all__ if isinstance(getattr(nbloader, name), types.FunctionType)
    }
    assert {re.search(r"nbloader\.(\w+)", line)[1] for line in shown} == calls  # type: ignore[index]
    model = object()
    for line in shown:
        tree = ast.parse(line)
        (call,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        function = getattr(nbloader, call.func.attr)  # type: ignore[attr-defined]
        inspect.signature(function).bind(
            *(model if isinstance(each, ast.Name) else ast.literal_eval(each) for each in call.args)
        )


SUBMODULES = sorted(
    each.name
    for each in pkgutil.iter_modules(nbloader.__path__)
    if each.name not in ("__main__", "localhub")
)


def test_a_load_starts_its_worker_before_it_imports_what_it_needs_itself() -> None:
    code = """
import subprocess, sys
import nbloader

def started(*arguments, **options):
    print(sorted({"nbloader.stages", "nbloader.request", "pydantic"} & sys.modules.keys()))
    raise SystemExit

subprocess.Popen = started
nbloader.load("org/name", view="none")
"""
    assert python(code).strip() == "[]"


def test_the_worker_is_asked_before_checks_and_loaders_are_imported() -> None:
    code = """
import sys
import nbloader
from nbloader.transfer.child import Standby

def asked(self, start):
    later = ("nbloader.checks", "nbloader.loaders", "nbloader.stages")
    print(start.repo_id, [name for name in later if name in sys.modules])
    raise SystemExit

Standby.ask = asked
nbloader.load("org/name", view="none")
"""
    assert python(code).strip() == "org/name []"
