"""What has to be imported for a selection, imported in the background while its files arrive."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial

from nbloader.checks import inspected_packages, install_hint
from nbloader.errors import LoadError, MissingPackageError, UnsupportedClassError
from nbloader.libraries import NOT_RELEASED, package_facts, pip_hint
from nbloader.loaders.collector import collector_off
from nbloader.loaders.reports import quiet_loggers
from nbloader.notebook import IMPORTING, Background
from nbloader.records import Kind, PackageFacts, Selection
from nbloader.text import quote

COMPONENT_LIBRARIES = frozenset({"diffusers", "transformers"})


def module_of(library: str) -> str:
    """Return the module that has the classes of a component's library.

    What belongs to pipelines of diffusers is named by their folder, as in `model_index.json`.
    """
    return library if library in COMPONENT_LIBRARIES else f"diffusers.pipelines.{library}"


def targets(selection: Selection) -> tuple[tuple[str, str], ...]:
    """Name what has to be imported for a selection, as (module, attribute).

    The libraries resolve their names lazily, so the classes themselves are named: that is where
    the time goes.
    """
    match selection.kind:
        case Kind.DIFFUSERS:
            pipeline = selection.built_class or "DiffusionPipeline"
            parts = (
                (part.library, part.class_name)
                for part in selection.components
                if part.library in COMPONENT_LIBRARIES
                and part.class_name
                # transformers 5 has none; diffusers then takes an image processor in its place.
                and not part.class_name.endswith("FeatureExtractor")
            )
            own = () if selection.custom_code else (("diffusers", pipeline),)
            named = [(str(library), str(name)) for library, name in parts]
            return (("diffusers", "DiffusionPipeline"), *own, *dict.fromkeys(named))
        case Kind.SENTENCE_TRANSFORMERS:
            return (("sentence_transformers", selection.class_name or "SentenceTransformer"),)
        case Kind.TRANSFORMERS:
            return (("transformers", "pipeline"), ("transformers", "AutoModel"))
        case Kind.FILES:
            return ()
        case Kind.CLASSES:
            return tuple((target.library, target.class_name) for target in selection.targets)


_TORCH = threading.Event()


def import_torch() -> None:
    """Import torch before the libraries that need it: with it alone, weights can be read."""
    with suppress(ImportError):  # Whoever needs it says so.
        importlib.import_module("torch")
        _TORCH.set()


def torch_is_imported() -> bool:
    """Say whether torch is imported to its end, by whoever does it here."""
    return _TORCH.is_set()


class Import(Background):
    """A running import of everything that a selection needs.

    `check` and `wait` raise MissingPackageError where a package is not installed,
    UnsupportedClassError where the installed version lacks a class, and LoadError where an import
    fails in another way.

    Args:
        forced: whether to pass over the classes that cannot be imported: the library may load the
            model without them, or says itself what is wrong. Without the library nothing goes on.
        notebook: whether hints are for a cell, and not for a terminal.
        take: does one step of the import when it may be done; at once by default.

    Attributes:
        begun_at: when its first step began, in seconds of the monotonic clock; None before.
    """

    def __init__(
        self,
        selection: Selection,
        forced: bool = False,
        notebook: bool = True,
        take: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self.begun_at: float | None = None
        self._steps = _steps(selection, forced, notebook)
        self._take = take
        # Where a step has to wait for its turn, the lock is held in the step alone: whoever has the
        # turn may itself wait for the lock.
        super().__init__(self._import, imports=take is None)

    def _import(self) -> None:
        for step in self._steps:
            if self._take is None:
                self._do(step)
            else:
                self._take(partial(self._do_locked, step))

    def _do_locked(self, step: Callable[[], None]) -> None:
        with IMPORTING:
            self._do(step)

    def _do(self, step: Callable[[], None]) -> None:
        if self.begun_at is None:
            self.begun_at = time.monotonic()
        step()


def _steps(selection: Selection, forced: bool, notebook: bool) -> list[Callable[[], None]]:
    """Cut the import into pieces of some seconds, so that others get their turn between them."""
    library, *classes = targets(selection)
    return [
        import_torch,
        partial(_step, selection, library, False, notebook),
        *(partial(_step, selection, target, forced, notebook) for target in classes),
    ]


def _step(selection: Selection, target: tuple[str, str], forced: bool, notebook: bool) -> None:
    with collector_off(), quiet_loggers(), suppress(LoadError) if forced else nullcontext():
        _import(selection, *target, notebook)


def _import(selection: Selection, module: str, name: str, notebook: bool) -> None:
    try:
        getattr(importlib.import_module(module), name)
    except AttributeError as error:
        version = getattr(importlib.import_module(module), "__version__", "?")
        line = pip_hint({module: f">{version}"}, _packages(selection), notebook=notebook)
        raise UnsupportedClassError(
            f"{selection.repo_id} needs {quote(name)}, which {module} {version} does not have",
            hint=f"{line}\n{NOT_RELEASED}",
        ) from error
    except (Exception, SystemExit) as error:
        first = _first(error)
        missing = first.name if isinstance(first, ModuleNotFoundError) else None
        # A module may also lack in a package that is there: in another version of it.
        if missing and package_facts([missing])[missing].installed is None:
            raise MissingPackageError(
                f"not installed: {missing}",
                hint=install_hint([missing], _packages(selection), notebook=notebook),
            ) from error
        raise LoadError(
            f"{module} cannot be imported: {type(first).__name__}: {str(first)[:300]}",
            hint=f"Check that `import {module}` works by itself; packages may not fit together.",
        ) from error


def _first(error: BaseException) -> BaseException:
    """Return the error that began it: transformers raises others of its own over it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _packages(selection: Selection) -> dict[str, PackageFacts]:
    return package_facts(inspected_packages(selection))
