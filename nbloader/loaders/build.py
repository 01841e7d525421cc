"""From a folder of files to a model that works, with the library that the selection names."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from nbloader.errors import InvalidArgumentError, MissingTensorsError, ModelLoadError, NbloaderError
from nbloader.loaders import (
    classes,
    diffusers,
    sentence_transformers,
    single_files,
    transformers,
)
from nbloader.loaders.ahead import Arrivals
from nbloader.loaders.attention import attend, with_attention
from nbloader.loaders.collector import collector_off
from nbloader.loaders.direct import Direct
from nbloader.loaders.folders import replaced_modules
from nbloader.loaders.offline import is_offline_error, offline
from nbloader.loaders.placing import BuildSteps, Built, Waiting, steps
from nbloader.loaders.reports import (
    LoadReport,
    is_full,
    is_full_memory,
    lacking,
    missing_tensors,
    parse_report,
    quiet,
    told_of,
)
from nbloader.loaders.self_test import check_finite, check_part
from nbloader.loaders.versions import versions
from nbloader.notebook import clear_frames
from nbloader.records import ComponentLoaded, Kind, Method, Notice, Placement, Selection
from nbloader.wording import MODELS_OF_BEFORE

_BUILDERS: Mapping[Kind, ModuleType] = MappingProxyType(
    {
        Kind.DIFFUSERS: diffusers,
        Kind.SENTENCE_TRANSFORMERS: sentence_transformers,
        Kind.TRANSFORMERS: transformers,
        Kind.CLASSES: classes,
    }
)

_BUILDING = threading.Lock()
"""Both libraries patch globals while they build: two models at once come out wrong."""


class Building:
    """The model that `selection` describes, built of its complete folder where `placement` says.

    It is built in steps, between which others may build and the work can be left. To be closed.

    Args:
        loader_kwargs: passed on to the library, over our own choices.
        attention: how attention is computed, by a name of `libraries.ATTENTIONS`; None for the
            library's own choice.
        forced: whether to go on with a model whose files lack tensors.
        next_method: the one to name should a GPU be full; None if no other fits.
        arrivals: the files that are there, while others still arrive; None for all.
        direct: what reads weights for it already, which it closes; None to begin now.
        cancelled: a build that waits for weights stops when it is set.

    Attributes:
        tested: the components that were built by themselves, and whose weights are finite.
        called: those that were called, too.
    """

    def __init__(
        self,
        selection: Selection,
        folder: Path,
        placement: Placement,
        loader_kwargs: Mapping[str, Any],
        *,
        attention: str | None = None,
        forced: bool = False,
        next_method: Method | None = None,
        arrivals: Arrivals | None = None,
        direct: Direct | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.tested: set[str] = set()
        self.called: set[str] = set()
        self._attention = attention
        self._selection = selection
        self._folder = folder
        self._forced = forced
        self._reports: list[LoadReport] = []
        self._placement = placement
        self._next_method = next_method
        nested = loader_kwargs.get("model_kwargs") or {}
        self._ignores_shapes = any(
            given.get("ignore_mismatched_sizes") is True for given in (loader_kwargs, nested)
        )
        self._arrivals = arrivals or Arrivals(selection)
        self._begin = partial(
            build,
            selection,
            folder,
            placement,
            loader_kwargs,
            attention=attention,
            fills=forced,
            arrivals=self._arrivals,
        )
        self._steps = self._begin()
        self._direct = direct or Direct(
            selection, folder, placement, loader_kwargs, cancelled=cancelled
        )
        self._given = tuple(loader_kwargs)
        self._built: list[Any] = []
        self._left: list[Notice] = []
        self._holds = True

    def step(self) -> ComponentLoaded | Notice | Waiting | None:
        """Load the next component; None once the model is complete.

        A component that is built by itself is tested by itself. `Waiting` is for more files.

        Raises:
            MissingTensorsError: the files lack tensors of the model.
            ModelLoadError: the library could not build it.
        """
        with (
            _BUILDING,
            collector_off(),
            quiet() as reports,
            _globals_kept(),
            offline(),
            current(self._placement.device),
            self._direct.handed(),
        ):
            try:
                self._direct.begin(self._arrivals.has_file)
                if self._left:
                    return self._left.pop(0)
                if self._built:
                    return None
                try:
                    while isinstance(made := next(self._steps), LoadReport):
                        self._reports.append(made)
                finally:
                    self._reports += reports.found
                return self._tested(made) if isinstance(made, Built) else made
            except StopIteration as end:
                self._built.append(end.value)
                self._check_asked()
                self._direct.close()
                judged = self._judged(end.value)
                self._left += [told for told in (judged, self._direct.notice()) if told]
                self._left += self._ignored(reports.ignored, end.value)
                return self._left.pop(0) if self._left else None
            except BaseException as error:
                lack = self._lack(error)
                if lack is None and self._goes_on_without(error):
                    return self._direct.notice()
                told = lack or _told(error, self._selection, self._placement, self._next_method)
                self._holds = False
                self._direct.close()
                _release(error)
                if told is None:
                    raise
                raise told from error

    def _check_asked(self) -> None:
        """See that the library has taken what only we have. Raises ModelLoadError."""
        try:
            self._direct.check_asked()
        except ModelLoadError:
            self.close()
            raise

    def _tested(self, built: Built) -> ComponentLoaded:
        """Test a component by itself, as far as that can be done before it is where it will be.

        Raises:
            MissingTensorsError: the files lack tensors of it.
            SelfTestError: it holds numbers that are not finite.
        """
        found = [each for each in self._lacking({built.name: built.component}) if each.missing]
        if found and not (self._forced or self._selection.targets):
            raise missing_tensors(self._selection.repo_id, found, self._folder, forceable=True)
        check_finite(built.name, built.component)
        self.tested.add(built.name)
        if self._selection.kind is Kind.DIFFUSERS and not self._attention:
            called = check_part(built.name, built.component, self._placement)
            if called is not None:
                self.called.add(built.name)
                self._left += called
        return ComponentLoaded(name=built.name, seconds=built.seconds)

    def _goes_on_without(self, error: BaseException) -> bool:
        """Begin anew, and let the library read all weights itself, where that may help."""
        if not isinstance(error, Exception) or isinstance(error, (NbloaderError, ImportError)):
            return False
        if not self._direct.give_up(error):
            return False
        for found in (self._reports, self._left, self.tested, self.called):
            found.clear()
        _release(error)
        self._steps = self._begin()
        return True

    def _ignored(self, told: list[str], model: Any) -> list[Notice]:
        """Tell of the arguments that the library says it passes over."""
        names = [name for name in self._given if any(f"{name!r}: " in message for message in told)]
        if not names:
            return []
        return [
            Notice(
                reference=InvalidArgumentError.reference,
                message=f"{type(model).__name__} takes no {', '.join(map(repr, names))}: "
                "the library has ignored it",
                hint="Leave it out of loader_kwargs, or load the class that takes it.",
            )
        ]

    def _judged(self, model: Any) -> Notice | None:
        """Refuse a model that lacks tensors, or tell of them. Call it once more if it tells."""
        modules = modules_of(model, self._selection)
        pooled = uses_pooler(model, self._selection)
        found = self._lacking(modules, pooled=pooled)
        if self._selection.targets and found:
            self._reports, new = classes.without_new_heads(self._reports, model), found
            found = self._lacking(modules, pooled=pooled)
            if not found:
                return self._new_head(new)
        self._reports.clear()
        # A new head, of another size than the one in the files, is what that argument is for.
        meant = self._ignores_shapes and not any(report.missing for report in found)
        if found and not (self._forced or meant):
            del model, modules
            self.close()
            raise missing_tensors(self._selection.repo_id, found, self._folder, forceable=True)
        if not found:
            return None
        return Notice(
            reference=MissingTensorsError.reference,
            message=told_of(self._selection.repo_id, found, self._folder),
            hint="You have allowed it with "
            f"`{'ignore_mismatched_sizes=True' if meant else 'force=True'}`: that part is random.",
        )

    def _lacking(self, modules: Mapping[str, Any], *, pooled: bool = True) -> list[LoadReport]:
        """Return what was reported of modules, and counts."""
        names = {
            type(part).__name__
            for module in modules.values()
            for part in (module.modules() if hasattr(module, "modules") else (module,))
        }
        replaced = {name for module in modules.values() for name in replaced_modules(module)}
        return lacking(self._reports, names, pooled=pooled, replaced=replaced)

    def _new_head(self, new: Sequence[LoadReport]) -> Notice:
        """Tell of a head that the files have none of."""
        self._reports.clear()
        return Notice(
            reference="new-head",
            message=told_of(self._selection.repo_id, new, self._folder),
            hint="The class that was asked for has a part of its own, which is random now: train "
            "it before use.",
        )

    def _lack(self, error: BaseException) -> MissingTensorsError | None:
        """Return the error to raise if the library stumbled over missing tensors, else None."""
        if not isinstance(error, Exception) or isinstance(error, (NbloaderError, ImportError)):
            return None
        if is_full(error):
            return None
        last = parse_report(str(error))
        reports = [*self._reports, last] if last else self._reports
        found = lacking(reports, {report.model for report in reports})
        if not found:
            return None
        # What diffusers leaves empty it stumbles over; filled, it would go on.
        forceable = self._selection.kind is Kind.DIFFUSERS and not self._forced
        return missing_tensors(self._selection.repo_id, found, self._folder, forceable=forceable)

    def model(self) -> Any:
        """Hand over the model that is complete; nothing of it is kept."""
        self._holds = False
        return self._built.pop()

    def close(self, *, collect: bool = True) -> None:
        """Free what was loaded of a model that nobody has taken.

        Args:
            collect: garbage as well. It takes a third of a second, and is for nothing in a process
                that ends.
        """
        if self._holds:
            self._holds = False
            self._steps.close()
            self._direct.close()
            self._built.clear()
            if collect:
                _free()


def _told(
    error: BaseException, selection: Selection, placement: Placement, next_method: Method | None
) -> ModelLoadError | None:
    """Say what an error of a library means; None where it is none, or says so itself."""
    if isinstance(error, NbloaderError) or not isinstance(error, Exception):
        return None
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    message = f"{selection.repo_id} could not be built from its files: {text}"
    if type(error).__name__ == "OutOfMemoryError":
        message = f"{selection.repo_id} does not fit on {placement.device} with {placement.method}"
        hint = (
            f'Load with plan="{next_method}".'
            if next_method
            else "No slower plan fits here: take a larger GPU or a smaller model."
        )
        hint += f" {MODELS_OF_BEFORE}"
    elif is_full_memory(error):
        message = f"{selection.repo_id} does not fit into the memory of this machine"
        hint = "Restart the kernel to free what is taken, or use a machine with more memory."
        if placement.method is Method.CPU and placement.dtype == "float32":
            hint += ' dtype="bfloat16" takes half.'
    elif isinstance(error, ImportError):
        hint = "Install what is missing, restart the kernel, and load again."
    elif is_offline_error(error):
        hint = (
            "A file of it, or an argument, names another repository, which the library does not "
            "fetch in the middle of a load. Fetch it before, if you trust it: "
            "nbloader.download(...) with its id."
        )
    else:
        hint = (
            f"The model may need newer libraries: run `pip install -U {_libraries(selection)}`, "
            "restart the kernel, and load again."
        )
    return ModelLoadError(message, hint=hint)


def _libraries(selection: Selection) -> str:
    """Name the packages that build a selection, which have to fit each other."""
    named = [target.library.partition(".")[0].replace("_", "-") for target in selection.targets]
    named = named or [str(selection.kind)]
    return " ".join(dict.fromkeys((*named, "transformers")))


def _release(error: BaseException) -> None:
    """Free what a failed load holds.

    A notebook keeps the last error, and with it the tensors in the frames of its traceback.
    """
    clear_frames(error)
    _free()


def _free() -> None:
    """Free memory that nothing uses, that of a GPU too."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # It does nothing where no GPU is in use.


@contextmanager
def _globals_kept() -> Iterator[None]:
    """Restore what a failed construction can leave changed: both libraries patch it meanwhile."""
    import torch

    dtype = torch.get_default_dtype()
    register = torch.nn.Module.register_parameter
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]


# -- by the library of the selection
# --------------------------------------------------------------------


def build(
    selection: Selection,
    folder: Path,
    placement: Placement,
    loader_kwargs: Mapping[str, Any],
    *,
    attention: str | None = None,
    fills: bool = False,
    arrivals: Arrivals,
) -> BuildSteps:
    """Build the model that `selection` describes from `folder`, without the network.

    Args:
        attention: how attention is computed, by a name of `libraries.ATTENTIONS`; None for the
            library's own choice.
        fills: whether tensors that no file has are made up, so that the model can be used.
        arrivals: the files that are there.

    Yields:
        Each component that is loaded by itself, once it is where it belongs, notices, and reports
        of what models lack.

    Returns:
        The model.

    Raises:
        ModelLoadError: the libraries cannot place it so.
    """
    todo = replace(steps(selection, placement, versions()), fills=fills)
    todo = with_attention(todo, selection, attention)
    if selection.kind is Kind.DIFFUSERS and not selection.checkpoint:
        built = yield from diffusers.build(
            selection, folder, placement, todo, loader_kwargs, arrivals
        )
    else:
        while not arrivals.all_there:
            yield Waiting()
        builder = single_files if selection.checkpoint else _BUILDERS[selection.kind]
        built = yield from builder.build(selection, folder, placement, todo, loader_kwargs)
    if attention is not None:
        yield from attend(holders(built, selection), selection, attention)
    return built


def modules_of(model: Any, selection: Selection) -> dict[str, Any]:
    """Return the parts of a built model that may hold tensors, by name."""
    found: dict[str, Any] = _BUILDERS[selection.kind].modules_of(model)
    return found


def holders(model: Any, selection: Selection) -> tuple[Any, ...]:
    """Return what holds the tensors of a built model: the model, or the one of several objects."""
    if selection.kind is not Kind.CLASSES:
        return (model,)
    return tuple(classes.modules_of(model).values())


def check_arguments(selection: Selection, loader_kwargs: Mapping[str, Any]) -> None:
    """See that what a selection is built with takes the caller's arguments.

    Raises:
        InvalidArgumentError: it does not.
    """
    if selection.kind is Kind.SENTENCE_TRANSFORMERS:
        sentence_transformers.check_arguments(selection, loader_kwargs)


def uses_pooler(model: Any, selection: Selection) -> bool:
    """Say whether a built model computes with the layer over the first token of an encoder."""
    if selection.kind is Kind.SENTENCE_TRANSFORMERS:
        return sentence_transformers.uses_pooler(model)
    return selection.kind is Kind.DIFFUSERS


def current(device: str) -> AbstractContextManager[None]:
    """Make a GPU the one that `cuda` means; the libraries quantize there unless told otherwise."""
    return _on_gpu(device) if device.startswith("cuda:") else nullcontext()


@contextmanager
def _on_gpu(device: str) -> Iterator[None]:
    import torch

    with torch.cuda.device(device):
        yield
