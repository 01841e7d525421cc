"""Heavy imports in the background, one after the other.

Two rules, both measured: importing diffusers or transformers in two threads at once breaks them,
and an interrupt in the middle of `import torch` on the main thread ruins the process for good. So
all imports of a process go through one lock on threads of their own, and whoever needs a library
waits for them in short steps.
"""

from __future__ import annotations

import gc
import importlib
import threading

from nbloader.checks import install_hint, required_packages
from nbloader.environment import package_versions
from nbloader.errors import LoadError, MissingPackageError, UnsupportedClassError
from nbloader.records import Kind, Plan

__all__ = ["Import", "targets"]

WAIT_STEP_S = 0.05

_LOCK = threading.Lock()

_COMPONENT_LIBRARIES = frozenset({"diffusers", "transformers"})


def targets(plan: Plan) -> tuple[tuple[str, str], ...]:
    """Name what has to be imported for a plan, as (module, attribute).

    The libraries resolve their names lazily, so the classes themselves are named: that is where
    the time goes.
    """
    match plan.kind:
        case Kind.DIFFUSERS:
            pipeline = plan.class_name or "DiffusionPipeline"
            parts = (
                (part.library, part.class_name)
                for part in plan.components
                if part.library in _COMPONENT_LIBRARIES and part.class_name
            )
            own = () if plan.custom_code else (("diffusers", pipeline),)
            named = [(str(library), str(name)) for library, name in parts]
            return (("diffusers", "DiffusionPipeline"), *own, *dict.fromkeys(named))
        case Kind.SENTENCE_TRANSFORMERS:
            return (("sentence_transformers", "SentenceTransformer"),)
        case Kind.TRANSFORMERS:
            return (("transformers", "pipeline"), ("transformers", "AutoModel"))


class Import:
    """A running import of everything that a plan needs."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._error: Exception | None = None
        self._done = threading.Event()
        # A daemon: the end of the process must not wait for torch.
        threading.Thread(target=self._run, name="nbloader-import", daemon=True).start()

    def _run(self) -> None:
        try:
            with _LOCK:
                _import_all(self._plan)
        except Exception as error:
            self._error = error
        finally:
            self._done.set()

    def check(self) -> None:
        """Raise at once what the import has failed with so far.

        Raises:
            MissingPackageError: a package is not installed.
            UnsupportedClassError: the installed version lacks a class.
            LoadError: the import of a library failed in another way.
        """
        if self._done.is_set() and self._error is not None:
            raise self._error

    def wait(self, cancelled: threading.Event) -> bool:
        """Wait for the end of the import; False if `cancelled` was set before it.

        Raises as `check` does. The import itself cannot be ended; it goes on in the background.
        """
        while not self._done.wait(WAIT_STEP_S):
            if cancelled.is_set():
                return False
        self.check()
        return True


def _import_all(plan: Plan) -> None:
    versions = package_versions(required_packages(plan))
    if missing := [name for name, version in versions.items() if version is None]:
        raise _missing(plan.kind, missing)
    collecting = gc.isenabled()
    gc.disable()  # A third of the time of these imports is the garbage collector's.
    try:
        for module, name in targets(plan):
            _import(plan, module, name)
    finally:
        if collecting:
            gc.enable()


def _import(plan: Plan, module: str, name: str) -> None:
    try:
        getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise _missing(plan.kind, [str(error.name)]) from error
    except AttributeError as error:
        version = getattr(importlib.import_module(module), "__version__", "?")
        raise UnsupportedClassError(
            f"{plan.repo_id} needs {module}.{name}, which {module} {version} does not have",
            hint=f'Install a newer version and restart the kernel: %pip install -U "{module}"',
        ) from error
    except Exception as error:
        raise LoadError(
            f"{module} cannot be imported: {type(error).__name__}: {str(error)[:300]}",
            hint=f"Check that `import {module}` works by itself; packages may not fit together.",
        ) from error


def _missing(kind: Kind, names: list[str]) -> MissingPackageError:
    return MissingPackageError(f"not installed: {', '.join(names)}", hint=install_hint(names, kind))
