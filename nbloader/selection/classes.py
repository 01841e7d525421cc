"""Objects of classes that the caller names, or that the files of one folder name.

The rules are those of the classes' own `from_pretrained`: one model with its configuration, or the
small files that a tokenizer, a processor, a scheduler or a configuration is made of.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from nbloader.errors import InvalidArgumentError, NoWeightsError, UnsupportedRepoError
from nbloader.hub_names import join
from nbloader.records import Component, Form, Target
from nbloader.selection.adapted import adapted_class, check_adapted
from nbloader.selection.formats import no_weights, refuse_other_libraries
from nbloader.selection.lines import literal
from nbloader.selection.repo import Repo, is_name
from nbloader.selection.transformers import (
    ADAPTER_CONFIG,
    adapter,
    base_of,
    code_files,
    config_files,
    model_type,
    model_weights,
    processing_files,
    untrusted_code,
)
from nbloader.selection.weights import (
    DIFFUSERS,
    TRANSFORMERS,
    find_weights,
    variant_not_found,
)
from nbloader.text import quote

MODEL = "model"
"""The name of a component that is the one model of a call."""

INDEX = "model_index.json"
CONFIG = "config.json"
SCHEDULER = "scheduler_config.json"
_GENERATION = "generation_config.json"
_PROCESSOR = "processor_config.json"
_PREPROCESSOR = "preprocessor_config.json"

# Classes without weights, by the end of their names (a test compares this with the libraries).
PROCESSING = (
    "Backend",
    "FeatureExtractor",
    "Processor",
    "ProcessorFast",
    "ProcessorPil",
    "Tokenizer",
    "TokenizerFast",
)

_OF_PICTURES_AND_SOUND = (
    "FeatureExtractor",
    "ImageProcessor",
    "ImageProcessorFast",
    "ImageProcessorPil",
    "VideoProcessor",
)
"""The ends of the names of those of `PROCESSING` that cannot do without a configuration."""

_CONFIGURED_BY = (_PREPROCESSOR, _PROCESSOR, "video_preprocessor_config.json")

_AUTO = "AutoModel"
_PIPELINES = "diffusers.pipelines."

OF_PIPELINES: Mapping[str, str] = {
    "IFSafetyChecker": "deepfloyd_if",
    "MultilingualCLIP": "kandinsky",
    "StableDiffusionSafetyChecker": "stable_diffusion",
}
"""Models that diffusers makes of classes of transformers, each with the folder of pipelines that it
belongs to: the library that `model_index.json` names (a test looks for them)."""


def select_classes(repo: Repo) -> tuple[str | None, list[Component]]:
    """A component for each class that is asked for, in their order.

    Raises:
        RepoError: of a kind that says why one of them cannot be made of the files.
    """
    folder = _folder(repo)
    targets = _targets(repo, folder)
    if targets is None:
        return None, []
    _check_one_model(repo, targets)
    repo.targets = targets
    components: list[Component] = []
    taken: set[str] = set()
    for target in targets:
        for part in _components(repo, folder, target):
            components.append(
                replace(
                    part,
                    paths=tuple(path for path in part.paths if path not in taken),
                    weights=tuple(path for path in part.weights if path not in taken),
                )
            )
            taken.update(part.paths)
    return targets[0].class_name, components


def is_one_model(config: Mapping[str, object]) -> bool:
    """Say whether a `config.json` is that of one model of diffusers."""
    return "model_type" not in config and is_name(config.get("_class_name"))


def part_of_pipelines(config: Mapping[str, object]) -> Target | None:
    """Return the class of a `config.json` that belongs to pipelines of diffusers, or None."""
    given = config.get("architectures")
    first = given[0] if isinstance(given, list) and given else None
    if not isinstance(first, str) or first not in OF_PIPELINES:
        return None
    return Target(library=f"{_PIPELINES}{OF_PIPELINES[first]}", class_name=first, form=Form.MODEL)


# -- what is asked for -----------------------------------------------------------------------------


def _folder(repo: Repo) -> str:
    """The folder that the classes are given. Raises UnsupportedRepoError: it is not there."""
    inner = repo.family.request.subfolder
    folder = join(repo.root, inner) if inner else repo.root
    if not inner or repo.names(folder):
        return folder
    folders = sorted({path.rpartition("/")[0] for path in repo.paths} - {""})
    near = difflib.get_close_matches(inner, folders, n=3, cutoff=0.4) or folders[:5]
    names = ", ".join(map(quote, near))
    raise UnsupportedRepoError(
        f"{quote(repo.repo_id)} has no folder {quote(inner)}.",
        hint=f"It has {names}: pass one of them as subfolder=." if near else "It has no folders.",
    )


def _targets(repo: Repo, folder: str) -> tuple[Target, ...] | None:
    """The classes; None as long as the files that decide between some are not known."""
    asked = repo.family.request.targets
    if not asked:
        target = _of_files(repo, folder)
        return None if target is None else (target,)
    chosen = [_choose(repo, folder, group) for group in asked]
    found = tuple(target for target in chosen if target is not None)
    return found if len(found) == len(chosen) else None


def _choose(repo: Repo, folder: str, group: Sequence[Target]) -> Target | None:
    """The class of a name that several libraries have; None as long as that is not known."""
    if len(group) == 1 or not repo.existing(folder, CONFIG):
        return group[0]
    config = repo.read_object(join(folder, CONFIG))
    if config is None:
        return None
    library = "diffusers" if is_one_model(config) else "transformers"
    return next((target for target in group if target.library == library), group[0])


def _check_one_model(repo: Repo, targets: Sequence[Target]) -> None:
    models = [target.class_name for target in targets if target.form is not Form.PART]
    if len(models) > 1:
        raise InvalidArgumentError(
            f"{' and '.join(models)} are two models of one folder of {quote(repo.repo_id)}",
            hint="Load them one after the other: the second call fetches nothing.",
        )


def _of_files(repo: Repo, folder: str) -> Target | None:
    """The class that the files of a folder name; None as long as they are not known.

    Raises:
        UnsupportedRepoError: they name none.
    """
    if repo.existing(folder, CONFIG):
        config = repo.read_object(join(folder, CONFIG))
        if config is None:
            return None
        if is_one_model(config):
            return Target(
                library="diffusers", class_name=str(config["_class_name"]), form=Form.MODEL
            )
        if (target := part_of_pipelines(config)) is not None:
            return target
        given = config.get("architectures")
        first = given[0] if isinstance(given, list) and given else None
        name = first if is_name(first) else _AUTO
        return Target(library="transformers", class_name=name, form=Form.MODEL)
    if repo.existing(folder, SCHEDULER):
        config = repo.read_object(join(folder, SCHEDULER))
        if config is None:
            return None
        own = config.get("_class_name")
        if is_name(own):
            return Target(library="diffusers", class_name=own, form=Form.PART)
    for found, name in (
        (repo.existing(folder, _PROCESSOR), "AutoProcessor"),
        (repo.existing(folder, _PREPROCESSOR), "AutoImageProcessor"),
        (processing_files(repo, folder), "AutoTokenizer"),
    ):
        if found:
            return Target(library="transformers", class_name=name, form=Form.PART)
    raise UnsupportedRepoError(
        f"The files in {quote(repo.family.request.subfolder)} of {quote(repo.repo_id)} name no "
        "class.",
        hint='Name it: nbloader.load(..., subfolder=..., cls="AutoModel").',
    )


# -- the files of one class ------------------------------------------------------------------------


def _components(repo: Repo, folder: str, target: Target) -> list[Component]:
    if target.form is Form.PART:
        return [_part(repo, folder, target)]
    if target.library == "diffusers":
        return [_diffusers_model(repo, folder, target)]
    return _transformers_model(repo, folder, target)


def _inner(repo: Repo, folder: str) -> str:
    """A folder as the library is given it: inside its repository."""
    return folder.removeprefix(repo.root)


def _diffusers_model(repo: Repo, folder: str, target: Target) -> Component:
    """One model of diffusers (`ModelMixin.from_pretrained`)."""
    if not repo.existing(folder, CONFIG):
        return _unknown_yet(repo) or _no_config(repo, folder, target)
    path = join(folder, CONFIG)
    weights = find_weights(repo, folder, DIFFUSERS, repo.variant)
    config = repo.read_object(path)
    if config is None:
        return Component(name=MODEL, paths=(path,))
    if weights is None and repo.variant and find_weights(repo, folder, DIFFUSERS, None):
        raise variant_not_found(repo, [folder])
    named = config.get("_class_name")
    if isinstance(named, str) and target.class_name not in (_AUTO, named):
        raise _other_class(repo, target, named)
    if named is None and "model_type" in config:
        raise _other_class(repo, target, f"a model of transformers ({quote(config['model_type'])})")
    if weights is None:
        raise no_weights(repo, folder)
    return Component(
        name=MODEL,
        library="diffusers",
        class_name=named if isinstance(named, str) and is_name(named) else target.class_name,
        paths=tuple(sorted({path, *weights.paths})),
        weights=weights.files,
        repo_id=repo.repo_id if repo.depth else "",
        folder=_inner(repo, folder),
    )


def _transformers_model(repo: Repo, folder: str, target: Target) -> list[Component]:
    """One model of transformers (`PreTrainedModel.from_pretrained`), with the adapter beside it.

    Of peft's classes the model that is adapted, and the tokenizer that may have grown with it.
    """
    wraps = target.form is Form.ADAPTED
    own = adapter(repo, folder, wraps=wraps)
    if own is None:
        if wraps:
            raise UnsupportedRepoError(
                f"{target.class_name} is for adapters, and {quote(repo.repo_id)} has no "
                f"{ADAPTER_CONFIG}.",
                hint='A whole model is loaded by its own class, such as cls="AutoModel".',
            )
        return [_plain_model(repo, folder, target)]
    config = repo.read_object(join(folder, ADAPTER_CONFIG))
    if wraps and config is not None:
        check_adapted(repo, config, target.class_name)
    base = base_of(repo, folder)
    if base is None:
        return []
    place = folder if base is repo else base.root
    if wraps and repo.existing(folder, "tokenizer_config.json"):
        own = replace(own, paths=tuple(sorted({*own.paths, *processing_files(repo, folder)})))
    model = _plain_model(base, place, target)
    name = MODEL if base is repo else base.repo_id
    if wraps:
        body = adapted_class(target.class_name, config or {}, _architecture(base, place))
        model = replace(model, class_name=body)
    return [replace(model, name=name), own]


def _architecture(repo: Repo, folder: str) -> str:
    """The class that a `config.json` names first; empty if it names none, or is not known yet."""
    paths = repo.existing(folder, CONFIG)
    given = ((repo.read_object(paths[0]) or {}) if paths else {}).get("architectures")
    first = given[0] if isinstance(given, list) and given else None
    return first if is_name(first) else ""


def _plain_model(repo: Repo, folder: str, target: Target) -> Component:
    if not repo.existing(folder, CONFIG):
        return _unknown_yet(repo) or _no_config(repo, folder, target)
    config = repo.read_object(join(folder, CONFIG))
    if config is None:
        # What else will be read is asked for in the same round.
        find_weights(repo, folder, TRANSFORMERS, repo.variant)
        code_files(repo, folder)
        return Component(name=MODEL, paths=(join(folder, CONFIG),))
    if is_one_model(config):
        raise _other_class(repo, target, str(config["_class_name"]))
    refuse_other_libraries(repo, config)
    weights = model_weights(repo, folder, config)
    code = code_files(repo, folder)
    own = target.library.removeprefix(_PIPELINES)
    return Component(
        name=MODEL,
        library=own if own != target.library else "transformers",
        class_name=target.class_name,
        paths=tuple(sorted({*config_files(repo, folder), *weights.paths, *code})),
        weights=weights.files,
        model_type=model_type(config),
        code=untrusted_code(repo, folder, config),
        folder=_inner(repo, folder),
    )


def _part(repo: Repo, folder: str, target: Target) -> Component:
    """What has no weights."""
    files = _part_files(repo, folder, target)
    if not files and repo.existing(folder, ADAPTER_CONFIG):
        base = base_of(repo, folder)
        files = _part_files(base, base.root, target) if base is not None else [ADAPTER_CONFIG]
    if not files and (unknown := _unknown_yet(repo)):
        return unknown
    if not files:
        raise NoWeightsError(
            f"{quote(repo.repo_id)} has no files of which a {target.class_name} could be made"
            f"{_where(repo, folder)}.",
            hint=_hint_for_folder(repo, target)
            or "Look at the files on the Hub: they may be in a folder (subfolder=), or in the "
            "repository that this one was made from.",
        )
    return Component(
        name=target.class_name,
        library=target.library,
        class_name=target.class_name,
        paths=tuple(sorted(files)),
        folder=_inner(repo, folder),
    )


def _part_files(repo: Repo, folder: str, target: Target) -> list[str]:
    name = target.class_name
    if target.library == "peft":
        return repo.existing(folder, ADAPTER_CONFIG)
    if target.library == "diffusers":
        return repo.existing(folder, SCHEDULER if "Scheduler" in name else CONFIG)
    if name.endswith("Config"):
        return (
            repo.existing(folder, _GENERATION)
            if name == "GenerationConfig"
            else [*config_files(repo, folder), *code_files(repo, folder)]
        )
    if name.endswith(_OF_PICTURES_AND_SOUND) and not repo.existing(folder, *_CONFIGURED_BY):
        return []
    found = processing_files(repo, folder)
    if not found:
        return []
    return [*dict.fromkeys((*found, *repo.existing(folder, CONFIG), *code_files(repo, folder)))]


# -- what is wrong ---------------------------------------------------------------------------------


def _where(repo: Repo, folder: str) -> str:
    return f" in {quote(_inner(repo, folder))}" if _inner(repo, folder) else ""


def _hint_for_folder(repo: Repo, target: Target) -> str:
    """The line with the component of a pipeline that is of the class; empty if there is none."""
    if INDEX not in repo.paths or repo.family.request.subfolder:
        return ""
    index = repo.read_object(INDEX) or {}
    generic = {"AutoTokenizer": "Tokenizer", "AutoModel": "Model"}.get(target.class_name)
    for name, value in index.items():
        match value:
            case [str(), str(named)] if named == target.class_name or (
                generic is not None and generic in named and repo.names(join(repo.root, name))
            ):
                return f"It is in a folder: pass subfolder={literal(name)}, too."
    return ""


def _unknown_yet(repo: Repo) -> Component | None:
    """Stand for a component as long as it is not known where else in the repository it may be."""
    if INDEX in repo.paths and repo.read_object(INDEX) is None:
        return Component(name=MODEL, paths=(INDEX,))
    return None


def _no_config(repo: Repo, folder: str, target: Target) -> NoReturn:
    """Refuse a folder without a configuration. Raises UnsupportedRepoError."""
    hint = _hint_for_folder(repo, target)
    if not hint and INDEX in repo.paths:
        hint = f"It is a pipeline of diffusers: nbloader.load({literal(repo.repo_id)})."
    raise UnsupportedRepoError(
        f"{target.class_name} takes a folder with a config.json, and {quote(repo.repo_id)} has "
        f"none{_where(repo, folder)}.",
        hint=hint or "Name the folder with it: subfolder=...",
    )


def _other_class(repo: Repo, target: Target, named: str) -> UnsupportedRepoError:
    own = f'cls="{named}"' if is_name(named) else "the class that its card names"
    return UnsupportedRepoError(
        f"{target.class_name} does not take {quote(repo.repo_id)}, whose files are for {named}.",
        hint=f"Load it with {own}, or leave cls= out for what the files name.",
    )
