"""Models of sentence-transformers, built from one folder."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nbloader.errors import InvalidArgumentError, MissingTensorsError
from nbloader.loaders.adapters import put_into_model
from nbloader.loaders.arguments import with_model_kwargs
from nbloader.loaders.folders import code_arguments, rename, snapshot_of, whole_folder
from nbloader.loaders.placing import WHOLE, BuildSteps, Steps
from nbloader.loaders.reports import LoadReport, told_of
from nbloader.records import Companion, Notice, Placement, Selection
from nbloader.text import plain, quote

_INSTRUCTOR = frozenset(f"hkunlp/instructor-{size}" for size in ("base", "large", "xl"))
"""The models whose prompts the library keeps out of the pooling, by their ids alone
(`SentenceTransformer.__init__`)."""

_TAKEN = frozenset(
    {
        "backend",
        "config_kwargs",
        "default_prompt_name",
        "device",
        "device_map",
        "dtype",
        "local_files_only",
        "model_card_data",
        "model_kwargs",
        "processor_kwargs",
        "prompts",
        "quantization_config",
        "tokenizer_kwargs",
        "torch_dtype",
        "trust_remote_code",
    }
)
_TAKEN_BY: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "CrossEncoder": frozenset(
            {"activation_fn", "keep_in_fp32_modules", "max_length", "num_labels"}
        ),
        "MultiVectorEncoder": frozenset({"similarity_fn_name"}),
        "SentenceTransformer": frozenset({"similarity_fn_name", "truncate_dim"}),
        "SparseEncoder": frozenset({"max_active_dims", "similarity_fn_name"}),
    }
)
"""Arguments of the classes, of versions 5.2 to 6.2, and those that are handed on to the model."""

_OLD_NAMES = frozenset({"classifier_dropout", "default_activation_function"})
"""Older names of arguments, which `CrossEncoder` still takes with a warning
(`cross_encoder_init_args_decorator`)."""

_UNHEARD = re.compile(r"\bdeprecated\b|^Default prompt name is set to ")
"""What the library warns of and the reader of a load can do nothing about."""

_MOST_TOLD = 3

# `Module.load_state_dict` of torch, and `Module.load_torch_weights` in its words.
_STATE = re.compile(r"Error\(s\) in loading state_dict for (?P<model>\w+):")
_MISSING = re.compile(r"Missing key\(s\) in state_dict: (?P<keys>[^\n]*)")
_SURPLUS = re.compile(r"Unexpected key\(s\) in state_dict: (?P<keys>[^\n]*)")
_MISSHAPEN = re.compile(r"size mismatch for (?P<key>[\w.]+):")
_KEY = re.compile(r'"([^"]+)"')

_BY_NAME = re.compile(r"\.weight$|^embeddings$")
"""What WordEmbeddings, StaticEmbedding and the projection of ColBERT take out of their files."""


def check_arguments(selection: Selection, loader_kwargs: Mapping[str, Any]) -> None:
    """See that the class of a selection takes the arguments, before anything is fetched for it.

    Raises:
        InvalidArgumentError: names the first that it does not take.
    """
    own = _TAKEN_BY.get(selection.class_name or "")
    if own is None:
        return
    for name in loader_kwargs:
        old = name in _OLD_NAMES and selection.class_name == "CrossEncoder"
        if name not in _TAKEN | own and not old:
            near = difflib.get_close_matches(name, sorted(_TAKEN | own), n=1)
            raise InvalidArgumentError(
                f"{selection.class_name} takes no argument {quote(name)}",
                hint=f"Do you mean {near[0]}?"
                if near
                else f"Beside those for the model it takes {', '.join(sorted(own))}.",
            )


def build(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
) -> BuildSteps:
    """Build a model of the class that the repository is for."""
    import sentence_transformers

    model_class = getattr(sentence_transformers, selection.class_name or "SentenceTransformer")
    # The library writes into the mappings that it is given.
    given = {
        key: dict(each) if isinstance(each, dict) else each for key, each in loader_kwargs.items()
    }
    arguments = with_model_kwargs(todo.arguments, given)
    if selection.backend == "onnx" and placement.device == "cpu":
        # Else the library takes the first that onnxruntime was built with.
        arguments["model_kwargs"].setdefault("provider", "CPUExecutionProvider")
    # A configuration of the repository may say something else, which would count as the caller's.
    for name in _safe_reading(selection):
        arguments["model_kwargs"].setdefault(name, True)
    if code := code_arguments(selection, folder):
        arguments["cache_folder"] = code["cache_dir"]
        for key in ("model_kwargs", "config_kwargs"):
            arguments[key] = {"code_revision": code["code_revision"], **(arguments.get(key) or {})}
    with _told() as told, whole_folder(selection, folder) as place:
        try:
            model = model_class(str(place), **arguments)
        except (RuntimeError, KeyError) as error:
            raise _lack(selection, place, error) or error from None
    _align_routes(model)
    if selection.repo_id in _INSTRUCTOR:
        model.set_pooling_include_prompt(include_prompt=False)
    rename(model, place, selection.repo_id, own=selection.folder is not None)
    for other in selection.companions:
        _name_base(model, snapshot_of(selection, folder, other.repo_id), other)
    if place != folder:
        _move_files(model, place, folder)
    asked = loader_kwargs.get("model_card_data")
    if asked is None or not asked.local_files_only:
        _fill_card(model, selection)
    put_into_model(model, selection, folder)
    heard = [message.replace(str(place), selection.repo_id) for message in told]
    yield from _notices(selection, model, folder, heard)
    return model


def _safe_reading(selection: Selection) -> tuple[str, ...]:
    """Name the arguments by which transformers reads the planned weights, and runs nothing."""
    if selection.backend or selection.custom_code or selection.companions:
        return ()
    files = [path for part in selection.components for path in part.weights]
    if files and all(path.endswith(".safetensors") for path in files):
        return ("use_safetensors",)
    return ("weights_only",) if files else ()


def modules_of(model: Any) -> dict[str, Any]:
    """Return the one module that a model is."""
    return {WHOLE: model}


def uses_pooler(model: Any) -> bool:
    """Say whether what a model gives comes through the layer over the first token."""
    for part in model.modules():
        for way in (getattr(part, "modality_config", None) or {}).values():
            if isinstance(way, Mapping) and way.get("method_output_name") == "pooler_output":
                return True
    return False


def _align_routes(model: Any) -> None:
    """Cast the modules of each route of a Router to the number format of the first.

    The library does so for the modules of a model (`BaseModel.__init__`), and a layer in another
    format than its input cannot compute.
    """
    for router in model.modules():
        if type(router).__name__ != "Router":
            continue
        for first, *others in router.sub_modules.values():
            weight = next(first.parameters(), None)
            if weight is not None and weight.is_floating_point():
                for other in others:
                    other.to(weight.dtype)


def _name_base(model: Any, base: Path, other: Companion) -> None:
    """Name the base model of an adapter after its repository."""
    rename(model, base, other.repo_id, own=other.folder is not None)
    for part in model.modules():
        configs = getattr(part, "peft_config", None)
        for config in configs.values() if isinstance(configs, dict) else ():
            if getattr(config, "base_model_name_or_path", None) == str(base):
                config.base_model_name_or_path = other.repo_id


def _move_files(model: Any, place: Path, folder: Path) -> None:
    """Let tokenizers find the files that they read in a folder that is gone."""
    holders = [vars(part) for part in model.modules()]
    holders += [vars(each) for held in holders for each in held.values() if _has_files(each)]
    holders += [vars(held["tokenizer"]) for held in holders if _has_files(held.get("tokenizer"))]
    holders += [
        held["init_kwargs"] for held in holders if isinstance(held.get("init_kwargs"), dict)
    ]
    for held in holders:
        for key, value in held.items():
            if isinstance(value, str) and value.startswith(f"{place}/"):
                held[key] = f"{folder}{value[len(str(place)) :]}"


def _has_files(value: Any) -> bool:
    return hasattr(value, "save_pretrained") and hasattr(value, "__dict__")


def _fill_card(model: Any, selection: Selection) -> None:
    """Say in the data of the model card what the model was made from, as after a download.

    The library asks the Hub for it, which is not done here; the answer is in the selection.
    """
    card = model.model_card_data
    card.local_files_only = False
    if selection.folder is not None:
        return
    card.base_model = selection.repo_id
    card.base_model_revision = (
        selection.commit_hash if selection.revision == "main" else selection.revision
    )


# -- what is told of it ----------------------------------------------------------------------------


class _Told(logging.Handler):
    """Collects the warnings of the library."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a message of a log."""
        try:
            message = " ".join(record.getMessage().split())
        except Exception:  # A message that cannot be formatted has nothing to tell.
            return
        if not _UNHEARD.search(message) and message not in self.messages:
            self.messages.append(message)


@contextmanager
def _told() -> Iterator[list[str]]:
    """Hear what the library warns of; nobody else does meanwhile."""
    logger = logging.getLogger("sentence_transformers")
    level, propagates, heard = logger.level, logger.propagate, _Told()
    logger.addHandler(heard)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield heard.messages
    finally:
        logger.removeHandler(heard)
        logger.setLevel(level)
        logger.propagate = propagates


def _notices(
    selection: Selection, model: Any, folder: Path, told: Sequence[str]
) -> Iterator[Notice]:
    """Yield what the library chose itself, and where it could not do as the repository says."""
    known = {part.class_name for part in selection.components}
    modes = {
        type(part).__name__: mode for part in model.children() if (mode := _pooling_mode(part))
    }
    listed = (folder / "modules.json").exists() and modes.keys() <= known
    if selection.class_name == "SentenceTransformer" and not listed:
        yield Notice(
            reference="default-pooling",
            message=f"{selection.repo_id} does not say how the embedding of a text is made of "
            "those of its tokens: by the library's default"
            f"{''.join(f', {mode}' for mode in modes.values())}",
            hint="If its card says otherwise, build it of modules: "
            "sentence_transformers.SentenceTransformer(modules=[...]).",
        )
    if new := [name for name in _layers(model) if name in _MADE_ANEW and name not in known]:
        yield Notice(
            reference="new-head",
            message=f"{selection.repo_id} has no {' and no '.join(new)}: the "
            f"{selection.class_name} gets one of random numbers",
            hint="The class that was asked for has a part of its own: train it before use.",
        )
    for message in told[:_MOST_TOLD]:
        yield Notice(
            reference="library-warning",
            message="sentence-transformers warns: " + plain(message, 400),
            hint="The model is as the library makes it.",
        )


_MADE_ANEW = frozenset({"Dense", "SparseAutoEncoder"})
"""The modules with tensors that a class puts behind a model that comes without them."""


def _layers(model: Any) -> list[str]:
    """Name the classes of the modules that a class may have made anew.

    The projection of the first ColBERT models is among the weights of the model.
    """
    config = getattr(model, "config", None)
    if "HF_ColBERT" in (getattr(config, "architectures", None) or ()):
        return []
    return [type(module).__name__ for module in model.children()]


def _pooling_mode(module: Any) -> str | None:
    mode = getattr(module, "pooling_mode", None)
    if mode is None and hasattr(module, "get_pooling_mode_str"):  # before version 6
        mode = module.get_pooling_mode_str()
    return None if mode is None else str(mode)


def _lack(selection: Selection, folder: Path, error: Exception) -> MissingTensorsError | None:
    """Return the error that names what a file lacks, if that is why a module was refused."""
    text = str(error)
    if isinstance(error, KeyError):
        key = error.args[0] if error.args else None
        if not isinstance(key, str) or not _BY_NAME.search(key):
            return None
        report = LoadReport(model=selection.class_name or "", source=str(folder), missing=(key,))
        return _missing(selection, report, folder)
    state = _STATE.search(text)
    if state is None:
        return None
    missing, surplus = (
        tuple(_KEY.findall(found["keys"])) if (found := pattern.search(text)) else ()
        for pattern in (_MISSING, _SURPLUS)
    )
    misshapen = tuple(_MISSHAPEN.findall(text))
    if not missing and not misshapen:
        return None
    report = LoadReport(
        model=state["model"],
        source=str(folder),
        missing=missing,
        mismatched=misshapen,
        unexpected=surplus,
    )
    return _missing(selection, report, folder)


def _missing(selection: Selection, report: LoadReport, folder: Path) -> MissingTensorsError:
    return MissingTensorsError(
        told_of(selection.repo_id, [report], folder),
        hint="The files do not fit this module, and the library takes no other: look for another "
        "revision (revision=...) or repository, or tell its author.",
    )
