from __future__ import annotations

import pkgutil
import statistics
import subprocess
import sys

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


def test_import_takes_under_a_tenth_of_a_second() -> None:
    code = "import time; t = time.perf_counter(); import nbloader; print(time.perf_counter() - t)"
    seconds = [float(python(code)) for _ in range(10)]
    assert statistics.median(seconds) < 0.1


def test_import_brings_in_nothing_heavy() -> None:
    code = f"import sys, nbloader; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert python(code).strip() == "[]"


def test_public_names() -> None:
    assert nbloader.__all__ == [
        "Settings",
        "__version__",
        "aload",
        "cache",
        "doctor",
        "download",
        "errors",
        "load",
        "preflight",
        "start",
        "unload",
    ]
    assert dir(nbloader) == sorted(nbloader.__all__)
    assert all(getattr(nbloader, name) is not None for name in nbloader.__all__)


def test_functions_stay_functions_whatever_is_imported_first() -> None:
    names = [name for name in nbloader.__all__ if name not in ("Settings", "__version__", "errors")]
    modules = "import nbloader, " + ", ".join(f"nbloader.{name}" for name in SUBMODULES)
    code = (
        f"{modules}; print([name for name in {names!r} if not callable(getattr(nbloader, name))])"
    )
    assert python(code).strip() == "[]"


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
