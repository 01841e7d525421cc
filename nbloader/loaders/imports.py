"""What has to be imported for a plan, imported in the background while its files arrive."""

from __future__ import annotations

import gc
import importlib

from nbloader.background import Background
from nbloader.checks import install_hint, required_packages
from nbloader.environment import package_versions
from nbloader.errors import LoadError, MissingPackageError, UnsupportedClassError
from nbloader.quoting import quote
from nbloader.records import Kind, Plan

__all__ = ["Import", "targets"]

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


class Import(Background):
    """A running import of everything that a plan needs.

    `check` and `wait` raise MissingPackageError where a package is not installed,
    UnsupportedClassError where the installed version lacks a class, and LoadError where an import
    fails in another way.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(lambda: _import_all(plan))


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
            f"{plan.repo_id} needs {quote(name)}, which {module} {version} does not have",
            hint=f'Install a newer version and restart the kernel: %pip install -U "{module}"',
        ) from error
    except Exception as error:
        raise LoadError(
            f"{module} cannot be imported: {type(error).__name__}: {str(error)[:300]}",
            hint=f"Check that `import {module}` works by itself; packages may not fit together.",
        ) from error


def _missing(kind: Kind, names: list[str]) -> MissingPackageError:
    return MissingPackageError(f"not installed: {', '.join(names)}", hint=install_hint(names, kind))
