"""What has to be imported for a plan, imported in the background while its files arrive."""

from __future__ import annotations

import gc
import importlib

from nbloader.background import Background
from nbloader.checks._packages import inspected_packages, install_hint, required_packages
from nbloader.checks._pip import pip_hint
from nbloader.environment import package_facts
from nbloader.errors import LoadError, MissingPackageError, UnsupportedClassError
from nbloader.loaders.quiet import quiet_loggers
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
                if part.library in _COMPONENT_LIBRARIES
                and part.class_name
                # transformers 5 has none; diffusers then takes an image processor in its place.
                and not part.class_name.endswith("FeatureExtractor")
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
    facts = package_facts(inspected_packages(plan))
    if missing := [name for name in required_packages(plan) if facts[name].installed is None]:
        raise _missing(plan, missing)
    collecting = gc.isenabled()
    gc.disable()  # A third of the time of these imports is the garbage collector's.
    try:
        with quiet_loggers():
            for module, name in targets(plan):
                _import(plan, module, name)
    finally:
        if collecting:
            gc.enable()


def _import(plan: Plan, module: str, name: str) -> None:
    try:
        getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise _missing(plan, [str(error.name)]) from error
    except AttributeError as error:
        version = getattr(importlib.import_module(module), "__version__", "?")
        raise UnsupportedClassError(
            f"{plan.repo_id} needs {quote(name)}, which {module} {version} does not have",
            hint=pip_hint({module: f">{version}"}, package_facts(inspected_packages(plan))),
        ) from error
    except Exception as error:
        raise LoadError(
            f"{module} cannot be imported: {type(error).__name__}: {str(error)[:300]}",
            hint=f"Check that `import {module}` works by itself; packages may not fit together.",
        ) from error


def _missing(plan: Plan, names: list[str]) -> MissingPackageError:
    facts = package_facts(inspected_packages(plan))
    return MissingPackageError(
        f"not installed: {', '.join(names)}", hint=install_hint(names, facts)
    )
