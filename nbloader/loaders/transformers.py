"""Models of transformers with what they need to be called, built from one folder."""

from __future__ import annotations

import difflib
import gc
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nbloader.errors import InvalidArgumentError, ModelLoadError
from nbloader.loaders.adapters import put_into_model
from nbloader.loaders.arguments import DTYPES, places_itself, with_model_kwargs
from nbloader.loaders.folders import (
    Places,
    adapted,
    code_arguments,
    read_object,
    replaced_modules,
)
from nbloader.loaders.placing import WHOLE, BuildSteps, Steps
from nbloader.loaders.reports import Reports, lacking
from nbloader.loaders.tasks import Choice, Offer, Wanted, decide, processors_of
from nbloader.notebook import clear_frames
from nbloader.records import Notice, Placement, Selection
from nbloader.text import quote

_PROCESSORS = ("tokenizer", "image_processor", "video_processor", "feature_extractor", "processor")
_OF_PIPELINES = frozenset(
    {*_PROCESSORS, "batch_size", "binary_output", "num_workers", "pipeline_class", "use_fast"}
)
"""Arguments of pipelines that a model alone has no use for."""

_FURTHER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "image-segmentation": (
            "MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING_NAMES",
            "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES",
        ),
        "object-detection": ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",),
        "table-question-answering": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",),
    }
)
"""The tables of classes that a pipeline's own check lets pass beyond those of its auto classes."""

_READ_PAGES = "VisionEncoderDecoderModel"
"""Donut, to which the pipeline of questions about documents has a way of its own."""


def build(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
) -> BuildSteps:
    """Build the pipeline of a task, or the model alone where no pipeline is for it.

    The task is the caller's, else what `decide` makes of the Hub's and of the files. Everything is
    read from the folder, so that the library has nothing to ask the Hub for, and bears the
    repository's name afterwards.

    Raises:
        InvalidArgumentError: the library has no task of the name that the caller gives.
        ModelLoadError: the model's class is neither in the library nor in the repository's code.
    """
    del placement
    yield from ()
    arguments = with_model_kwargs(todo.arguments, loader_kwargs)
    given = arguments.pop("task", None)
    asked = given or (selection.task if selection.task_asked else None)
    code = code_arguments(selection, folder)
    with adapted(selection, folder) as places:
        builder = _Builder(selection, places, arguments, code)
        if asked is not None:
            built = builder.pipeline(builder.known(asked))
        else:
            built, notice = builder.chosen()
            if notice is not None:
                yield notice
    places.rename(built)
    if not places_itself(loader_kwargs):
        _forget_place(built)
    put_into_model(getattr(built, "model", built), selection, folder)
    return built


class _Builder:
    """One model, and the library's own calls on its folder.

    Args:
        code: the arguments for code that is named with its repository.
    """

    def __init__(
        self, selection: Selection, places: Places, arguments: dict[str, Any], code: dict[str, Any]
    ) -> None:
        import transformers

        self._library: Any = transformers
        self._selection = selection
        self._places = places
        self._folder = folder = places.base
        if any(key in arguments["model_kwargs"] for key in DTYPES):
            arguments = {key: value for key, value in arguments.items() if key not in DTYPES}
        self._arguments = {**arguments, "model_kwargs": {**code, **arguments["model_kwargs"]}}
        self._code = code
        self._raw = read_object(folder / "config.json")
        trusted = bool(arguments.get("trust_remote_code"))
        self._auto_map = _references(self._raw.get("auto_map")) if trusted else {}
        custom = self._raw.get("custom_pipelines")
        self._custom = tuple(custom) if trusted and isinstance(custom, dict) else ()
        self._reports = Reports()
        self._tag: str | None = None

    # -- which ---------------------------------------------------------------------------------

    def known(self, task: str) -> str:
        """Return the name of a task that the caller asks for, once it is seen to be one.

        Raises:
            InvalidArgumentError: it is none.
        """
        if task in self._custom or self._task_of(task) is not None:
            return task
        names = [*self._custom, *self._library.pipelines.get_supported_tasks()]
        near = difflib.get_close_matches(task, names, n=3, cutoff=0.5) or names
        raise InvalidArgumentError(
            f"transformers {self._library.__version__} has no pipeline for the task {quote(task)}",
            hint=f"Tasks that it has: {', '.join(near)}. Without task=, what the files name comes.",
        )

    def chosen(self) -> tuple[Any, Notice | None]:
        """Build what the Hub's tag and the files say, and tell if that is not what they name.

        Where a pipeline cannot be made of them, such as for want of a word of its tokenizer, the
        next best comes: what is there of the model is not lost for it.
        """
        choice: Choice | None = self._choice()
        failed: Exception | None = None
        while choice is not None and choice.task is not None:
            try:
                built = self.pipeline(self._spelt(choice.task))
            except Exception as error:
                if _stops(error):
                    raise
                failed = failed or error
                clear_frames(error)
                following = choice.instead or Choice(task=None, builds=choice.builds)
            else:
                if choice.instead is None or not self._lacks(built):
                    told = self._of_other_class(choice, built.model)
                    return built, told if failed is None else self._comes_instead(built, failed)
                following = choice.instead
                del built
            gc.collect()
            choice = following
        assert choice is not None
        try:
            model = self._alone(choice.builds)
        except Exception as error:
            if failed is None or _stops(error):
                raise
            raise failed from None
        return model, self._comes_alone(model, failed)

    def _choice(self) -> Choice:
        # The library takes a single one of the repository's own before it asks the Hub.
        if len(self._custom) == 1 or self._selection.task in self._custom:
            task = self._selection.task if self._selection.task in self._custom else self._custom[0]
            return Choice(task=task, builds=None)
        self._tag = self._task_of(self._selection.task) if self._selection.task else None
        named = self._named()
        if named is not None and not self._names_family():
            return Choice(task=None, builds=named)
        config = self._config()
        cls = self._class(named) if named else None
        modalities = getattr(cls, "input_modalities", "text")
        names = [path.name for path in self._folder.iterdir()]
        handed = {name for name in _PROCESSORS if name in self._arguments}
        wanted = Wanted(
            named=named,
            tag=self._tag,
            processors=processors_of(names, self._raw) | handed,
            modalities=frozenset((modalities,) if isinstance(modalities, str) else modalities),
            own=any(_class_name(reference) == named for reference in self._auto_map.values()),
        )
        return decide(wanted, tuple(self._offers(config, named)))

    def _task_of(self, name: str) -> str | None:
        """Return the library's own spelling of a task; None if it has none of that name."""
        try:
            return str(self._library.pipelines.check_task(name)[0])
        except Exception:  # KeyError by its word, but it is the library's to say
            return None

    def _names_family(self) -> bool:
        """Say whether the auto classes can make a configuration, which every pipeline asks for.

        Where a family is not named, a class that is can still read the configuration by itself.
        """
        keys = {"model_type", "pretrained_cfg"}  # of transformers, of timm
        given = "config" in self._arguments or "AutoConfig" in self._auto_map
        return given or not keys.isdisjoint(self._raw)

    def _spelt(self, task: str) -> str:
        """Return the Hub's name of a task where that is meant: the pipeline keeps it."""
        return self._selection.task if self._selection.task and task == self._tag else task

    def _config(self) -> Any:
        given = self._arguments.get("config")
        if given is not None and not isinstance(given, str):
            return given
        trusted = self._arguments.get("trust_remote_code")
        return self._library.AutoConfig.from_pretrained(
            given or str(self._folder), trust_remote_code=trusted, **self._code
        )

    def _named(self) -> str | None:
        """Return the first class of `architectures` that there is."""
        given = self._raw.get("architectures")
        names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
        own = {_class_name(reference) for reference in self._auto_map.values()}
        return next((name for name in names if name in own or self._class(name)), None)

    def _class(self, name: str) -> Any:
        """Return a class of models of the library; None if it has none of that name."""
        found = getattr(self._library, name, None) if name.isidentifier() else None
        fits = isinstance(found, type) and issubclass(found, self._library.PreTrainedModel)
        return found if fits else None

    def _offers(self, config: Any, named: str | None) -> Iterator[Offer]:
        from transformers.models.auto import modeling_auto
        from transformers.pipelines import SUPPORTED_TASKS

        for task, facts in SUPPORTED_TASKS.items():
            builds = next(
                filter(None, (self._built_by(auto, config) for auto in facts["pt"])), None
            )
            tables = (getattr(modeling_auto, name, {}) for name in _FURTHER.get(task, ()))
            accepts = {
                name for table in tables for entry in table.values() for name in _flat(entry)
            }
            if task == "document-question-answering":
                accepts.add(_READ_PAGES)
            if task == self._tag or (builds is not None and builds == named):
                needs = _needs_of(facts["impl"])
                yield Offer(task=task, builds=builds, accepts=frozenset(accepts), needs=needs)

    def _built_by(self, auto: Any, config: Any) -> str | None:
        """Name the class that an auto class builds of a configuration (`from_pretrained`)."""
        if reference := self._auto_map.get(auto.__name__):
            return _class_name(reference)
        try:
            found = getattr(auto, "_model_mapping", {})[type(config)]
        except Exception:  # It is not in the table, or its module cannot be imported.
            return None
        classes = [each.__name__ for each in _flat(found)]
        named = getattr(config, "architectures", None) or ()
        return next((name for name in named if name in classes), classes[0] if classes else None)

    # -- building ------------------------------------------------------------------------------

    def pipeline(self, task: str) -> Any:
        """Build the pipeline of a task."""
        # The library writes into the arguments of the model.
        own = {"model_kwargs": dict(self._arguments["model_kwargs"])}
        arguments = {"model": str(self._places.model), **self._arguments, **own}
        if self._code and self._places.model == self._places.base:
            # Up to transformers 5.21 a pipeline reads a configuration with one revision of the code
            # alone, and all else with another.
            arguments.setdefault("config", self._config())
        with _reporting(self._reports):
            built = self._library.pipeline(task, **arguments)
        _make_saveable(built)
        return built

    def _lacks(self, built: Any) -> bool:
        """Say whether tensors of a model that was just built were in no file."""
        classes = {type(module).__name__ for module in built.model.modules()}
        replaced = replaced_modules(built.model)
        return bool(lacking(self._reports.found, classes, pooled=False, replaced=replaced))

    def _alone(self, name: str | None) -> Any:
        """Build the model of a class that is named, in the mode in which it is called.

        Raises:
            ModelLoadError: there is no such class.
        """
        rest = {key: value for key, value in self._arguments.items() if key not in _OF_PIPELINES}
        nested = dict(rest.pop("model_kwargs"))
        device = rest.pop("device", None)
        revisions = [given.pop("code_revision", None) for given in (rest, nested)]
        cls, auto = self._builder_of(name)
        for code_revision in filter(None, revisions if auto else ()):
            rest.setdefault("code_revision", code_revision)
        model = cls.from_pretrained(str(self._places.model), **rest, **nested).eval()
        placed = "device_map" in nested or "device_map" in rest
        return model if placed or device is None else model.to(device)

    def _builder_of(self, name: str | None) -> tuple[Any, bool]:
        """Return what builds a class, and whether that is an auto class, which knows its code."""
        own = {key: _class_name(reference) for key, reference in self._auto_map.items()}
        keys = [key for key in own if key.startswith("AutoModel") and hasattr(self._library, key)]
        named = [key for key in keys if own[key] == name]
        if named:
            return getattr(self._library, named[0]), True
        if name is not None and (found := self._class(name)):
            return found, False
        if not self._raw.get("architectures") or keys:
            return getattr(self._library, keys[0] if keys else "AutoModel"), True
        names = ", ".join(quote(each) for each in list(self._raw["architectures"])[:3])
        raise ModelLoadError(
            f"transformers {self._library.__version__} has no {names}, which the config.json of "
            f"{self._selection.repo_id} names",
            hint="Upgrade transformers, or name a task, for which the library takes the class that "
            'it has for this family: nbloader.load(..., task="feature-extraction").',
        )

    # -- what is told --------------------------------------------------------------------------

    def _of_other_class(self, choice: Choice, model: Any) -> Notice | None:
        """Say where a task has given another class than the files name."""
        given = self._raw.get("architectures")
        named = given[0] if isinstance(given, list) and given else None
        name = type(model).__name__
        if choice.builds is None or not isinstance(named, str) or name == named:
            return None
        return Notice(
            reference="class-by-task",
            message=f"{self._selection.repo_id} comes as {name}, which is what the task "
            f"{quote(choice.task)} takes; its files name {quote(named)}",
            hint="With another task comes another class: nbloader.load(..., task=...).",
        )

    def _comes_instead(self, built: Any, failed: Exception) -> Notice:
        """Say that another pipeline comes than the Hub's tag means."""
        text = " ".join(str(failed).split())[:200]
        return Notice(
            reference="class-by-task",
            message=f"{self._selection.repo_id} comes as {type(built).__name__} of "
            f"{type(built.model).__name__}: the pipeline for {quote(self._selection.task)}, which "
            f"the Hub names, could not be made: {type(failed).__name__}: {text}",
            hint="With another task comes another pipeline: nbloader.load(..., task=...).",
        )

    def _comes_alone(self, model: Any, failed: Exception | None) -> Notice:
        """Say that a model comes without a pipeline, and how to go on."""
        tag = f" ({quote(self._selection.task)} on the Hub)" if self._selection.task else ""
        why = f"transformers {self._library.__version__} has no pipeline for it"
        if failed is not None:
            text = " ".join(str(failed).split())[:200]
            why = f"its pipeline could not be made: {type(failed).__name__}: {text}"
        return Notice(
            reference="no-pipeline",
            message=f"{self._selection.repo_id}{tag} comes as the model itself, "
            f"{type(model).__name__}: {why}",
            hint=self._line(),
        )

    def _line(self) -> str:
        """Return the line that loads what a model alone has to be called with."""
        names = [path.name for path in self._folder.iterdir()]
        found = processors_of(names, self._raw)
        if "processor" in found:
            cls = "AutoProcessor"
        elif "tokenizer" in found:
            cls = "AutoTokenizer"
        elif "image_processor" in found:
            settings = read_object(self._folder / "preprocessor_config.json")
            audio = "feature_extractor_type" in settings
            cls = "AutoFeatureExtractor" if audio else "AutoImageProcessor"
        else:
            return "Its repository has no tokenizer or processor: call it with tensors."
        revision = self._places.revision
        more = "" if revision == "main" else f', revision="{revision}"'
        more += ", trust_remote_code=True" if self._auto_map else ""
        what = "tokenizer" if cls == "AutoTokenizer" else "processor"
        return (
            f"Its {what}: transformers.{cls}.from_pretrained({json.dumps(self._places.base_id)}"
            f"{more})"
        )


def _make_saveable(pipe: Any) -> None:
    """Take the number format out of the tokenizer of a processor, where it is of no use.

    The library hands all arguments of the model on to the processor. A tokenizer writes what it was
    made with when it is saved, and cannot write an object of torch; "auto" is what the library
    leaves there where no format is asked for.
    """
    import torch

    tokenizer = getattr(getattr(pipe, "processor", None), "tokenizer", None)
    made_with = getattr(tokenizer, "init_kwargs", {})
    for name in DTYPES:
        if isinstance(made_with.get(name), torch.dtype):
            made_with[name] = "auto"


def _forget_place(built: Any) -> None:
    """Take the device that we have chosen for a model out of its tokenizers.

    The library hands it to them with all else, and they would write it down when they are saved.
    """
    for holder in (built, getattr(built, "processor", None)):
        made_with = getattr(getattr(holder, "tokenizer", None), "init_kwargs", {})
        made_with.pop("device_map", None)


def _stops(error: Exception) -> bool:
    """Say whether another pipeline would fail as well: a package is missing, or memory is full.

    The library puts the errors of all classes that it tried into the text of one.
    """
    text = f"{type(error).__name__} {error}"
    full = "OutOfMemoryError" in text or "DefaultCPUAllocator" in text
    return full or isinstance(error, (ImportError, MemoryError))


@contextmanager
def _reporting(reports: Reports) -> Iterator[None]:
    """Read what the library reports of a load, beside whoever else does."""
    from transformers.utils import logging

    reports.found.clear()
    logger = logging.get_logger("transformers")
    logger.addHandler(reports)
    try:
        yield
    finally:
        logger.removeHandler(reports)


def _needs_of(impl: Any) -> frozenset[str]:
    """Name the processors that a pipeline cannot be made without."""
    from importlib import import_module

    if isinstance(impl, str):  # from 5.10 on, so that only the one that is used is imported
        module, _, name = impl.rpartition(".")
        impl = getattr(import_module(module), name)
    needs = {name for name in _PROCESSORS if getattr(impl, f"_load_{name}", None)}
    if impl.__name__ == "VideoClassificationPipeline":
        needs.add("video_processor")  # this one or one of images, which it takes from there
    return frozenset(needs)


def _references(auto_map: object) -> dict[str, str]:
    """Return the classes of a repository's code by the auto classes that they stand for."""
    items = auto_map.items() if isinstance(auto_map, dict) else ()
    return {key: value for key, value in items if isinstance(value, str)}


def _class_name(reference: str) -> str:
    return reference.rpartition(".")[2]


def _flat(entry: Any) -> Collection[Any]:
    return entry if isinstance(entry, (tuple, list)) else (entry,)


def modules_of(built: Any) -> dict[str, Any]:
    """Return the model, of a pipeline or as it is."""
    import torch

    return {WHOLE: built if isinstance(built, torch.nn.Module) else built.model}
