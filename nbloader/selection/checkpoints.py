"""Which files a checkpoint of one file is loaded from: itself, and what is beside it elsewhere.

What the library fetches in the middle of `from_single_file` is a companion here: of the repository
of the configuration only the small files, and the weights of models that the checkpoint lacks.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from nbloader.errors import InvalidArgumentError, UnsupportedClassError, UnsupportedRepoError
from nbloader.hub_names import join
from nbloader.records import Component, Form, Kind, Reference, Target
from nbloader.selection.classes import CONFIG, INDEX, MODEL
from nbloader.selection.described import GGUF, Described, described, format_of
from nbloader.selection.diffusers import contents, declared, from_elsewhere, takes
from nbloader.selection.gguf_models import (
    CAUSAL,
    GgufModel,
    check_parts,
    check_vocabulary,
    gguf_model,
)
from nbloader.selection.lines import literal
from nbloader.selection.model_files import (
    GGUF_NEEDS,
    READERS,
    configuration_of,
    model_from_file,
)
from nbloader.selection.repo import CONFIGURATION, Repo, check_name, companion, malformed
from nbloader.selection.single_files import Checkpoint, check_ending, checkpoint_of
from nbloader.text import quote

NEVER = frozenset({"safety_checker"})
"""What `from_single_file` leaves out unless it is handed in (`SINGLE_FILE_OPTIONAL_COMPONENTS`)."""


def select_checkpoint(repo: Repo) -> tuple[Kind, str | None, list[Component]]:
    """The kind of what is loaded, its class, and its components.

    Raises:
        RepoError: of a kind that says why the file cannot be loaded.
        InvalidArgumentError: it is not loaded as the call asks.
    """
    path = _path(repo)
    found = described(repo, path)
    if found is None:
        return Kind.DIFFUSERS, None, [Component(name="config", paths=(path,))]
    if found.format == GGUF:
        check_parts(path, found.metadata)
        model = gguf_model(found.metadata)
        if model is not None:
            return _language_model(repo, path, model, found)
    target = _target(repo)
    if target is not None and target.form is Form.MODEL:
        return _model(repo, path, found, target)
    checkpoint = checkpoint_of(repo.repo_id, path, found)
    check_ending(repo.repo_id, path, found.format)
    if target is None and checkpoint.alone:
        name = checkpoint.type.class_name
        return _model(
            repo, path, found, Target(library="diffusers", class_name=name, form=Form.MODEL)
        )
    return _pipeline(repo, path, checkpoint, target)


def _path(repo: Repo) -> str:
    """The file that is asked for. Raises UnsupportedRepoError: it is not there, or of no format."""
    request = repo.family.request
    path = join(repo.root, request.checkpoint)
    if path not in repo.paths:
        weights = sorted(each for each in repo.paths if format_of(each))
        near = difflib.get_close_matches(path, weights, n=3, cutoff=0.4) or weights[:5]
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} has no file {quote(request.checkpoint)}.",
            hint=f"It has {', '.join(map(quote, near))}." if near else "It has no weights.",
        )
    if format_of(path) is None:
        raise UnsupportedRepoError(
            f"{quote(request.checkpoint)} is no file of weights that a library reads by itself.",
            hint=f"Load the whole repository: nbloader.load({literal(repo.repo_id)}).",
        )
    return path


def _target(repo: Repo) -> Target | None:
    """The class that was asked for, once it is seen to read checkpoints."""
    asked = repo.family.request.targets
    if not asked:
        return None
    target = next((each for each in asked[0] if each.library == "diffusers"), asked[0][0])
    if len(asked) > 1 or target.form not in (Form.MODEL, Form.PIPELINE):
        raise InvalidArgumentError(
            f"{target.class_name} cannot be made of one checkpoint",
            hint="Name one class: that of a pipeline, or of a model of diffusers. The rest is in "
            "the repository that the checkpoint was made of.",
        )
    automatic = target.class_name.startswith("AutoPipeline") or (
        target.class_name == "DiffusionPipeline"
    )
    if automatic or target.library != "diffusers":
        raise UnsupportedClassError(
            f"{target.class_name} has no from_single_file, which reads checkpoints",
            hint="Leave cls= out for what the checkpoint is, or name the class of diffusers.",
        )
    return target


# -- one model -------------------------------------------------------------------------------------


def _model(
    repo: Repo, path: str, found: Described, target: Target
) -> tuple[Kind, str | None, list[Component]]:
    """A model of diffusers, taken from the file."""
    name = target.class_name
    if name not in READERS:
        raise UnsupportedClassError(
            f"{name} has no from_single_file, which reads checkpoints",
            hint=f"Load it from the folder of its repository: nbloader.load(..., cls={name!r}).",
        )
    repo.targets = (target,)
    part = model_from_file(repo, path, found, name)
    return Kind.CLASSES, name, [] if part is None else [part]


# -- a pipeline ------------------------------------------------------------------------------------


def _pipeline(
    repo: Repo, path: str, checkpoint: Checkpoint, target: Target | None
) -> tuple[Kind, str | None, list[Component]]:
    """A pipeline, whose models come from the file as far as that has them."""
    repo.targets = (target,) if target else ()
    asked = repo.family.request.config or configuration_of(checkpoint.type)
    base = companion(repo, Reference(repo_id=asked, role=CONFIGURATION), where=path)
    own = Component(name="config", paths=(path,))
    if base is None:
        return Kind.DIFFUSERS, None, [own]
    (index_path,) = base.existing(base.root, INDEX) or [""]
    if not index_path:
        raise UnsupportedRepoError(
            f"{quote(base.repo_id)}, whose configuration {quote(path)} is loaded with, is no "
            "pipeline of diffusers.",
            hint='Name another repository of it: loader_kwargs={"config": "org/name"}.',
        )
    index = base.read_object(index_path)
    if index is None:
        return Kind.DIFFUSERS, None, [own]
    class_name = index.get("_class_name")
    if not isinstance(class_name, str):
        raise malformed(index_path, "names no pipeline class (_class_name)")
    texts = list(checkpoint.texts)
    components: list[Component] = []
    taken = {index_path}
    for name, library, part_class in declared(index):
        sources = repo.family.request.components.get(name, ())
        if (
            name in repo.handed_in
            or name in NEVER
            or sources
            or not takes(target, class_name, name)
        ):
            continue
        part = _part(base, path, checkpoint, texts, name, library, part_class)
        taken.update(part.paths)
        components.append(part)
    components += from_elsewhere(repo, index, home=base)
    components = _with_file(components, path, checkpoint)
    return (
        Kind.DIFFUSERS,
        check_name(class_name, index_path),
        [*components, Component(name="config", paths=(index_path,))],
    )


def _part(
    base: Repo,
    path: str,
    checkpoint: Checkpoint,
    texts: list[str],
    name: str,
    library: str,
    class_name: str,
) -> Component:
    folder = join(base.root, name)
    if library not in ("diffusers", "transformers") or not checkpoint.holds(class_name):
        weights, files = contents(base, folder, library, class_name)
        return Component(
            name=name,
            library=library,
            class_name=class_name,
            paths=tuple(sorted({*files, *(weights.paths if weights else ())})),
            weights=tuple(weights.files) if weights else (),
            repo_id=base.repo_id if weights else "",
            folder=name,
        )
    config = base.existing(folder, CONFIG)
    if not config:
        raise malformed(join(base.root, INDEX), f"declares {quote(name)}, which has no {CONFIG}")
    if library == "transformers":
        prefix = texts.pop(0) if texts else ""
    elif class_name == checkpoint.type.class_name:
        prefix = checkpoint.main
    else:
        prefix = checkpoint.vae or ""
    return Component(
        name=name,
        library=library,
        class_name=class_name,
        paths=tuple(config),
        folder=name,
        checkpoint=path,
        config=base.repo_id,
        tensors=prefix,
    )


def _with_file(
    components: Sequence[Component], path: str, checkpoint: Checkpoint
) -> list[Component]:
    """Let the file stand with the main one of the models that are taken from it."""
    taken = [part.name for part in components if part.checkpoint == path]
    main = [part.name for part in components if part.class_name == checkpoint.type.class_name]
    if not taken:
        raise UnsupportedRepoError(
            f"No component would be taken from {quote(path)}.",
            hint="Leave out what is handed in, or load the repository of its configuration.",
        )
    first = next((name for name in main if name in taken), taken[0])
    return [
        replace(part, paths=tuple(sorted((*part.paths, path))), weights=(path,))
        if part.name == first
        else part
        for part in components
    ]


# -- language models -------------------------------------------------------------------------------


def _language_model(
    repo: Repo, path: str, model: GgufModel, found: Described
) -> tuple[Kind, str | None, list[Component]]:
    """A model of transformers in a GGUF, which has its configuration and vocabulary inside."""
    asked = repo.family.request.targets
    targets = [
        next((each for each in group if each.library == "transformers"), group[0])
        for group in asked
    ]
    for target in targets:
        if target.library != "transformers":
            raise UnsupportedClassError(
                f"{target.class_name} does not read {quote(path)}, a GGUF of the architecture "
                f"{quote(model.architecture)}, which is for transformers",
                hint=f"Leave cls= out, or name a class of transformers, such as {CAUSAL!r}.",
            )
    class_name = next(
        (each.class_name for each in targets if each.form is not Form.PART), model.class_name
    )
    alone = not targets and not model.writes_text
    if alone:
        targets = [Target(library="transformers", class_name=class_name, form=Form.MODEL)]
    repo.targets = tuple(targets)
    if not targets or any(each.form is Form.PART for each in targets):
        check_vocabulary(path, found.metadata)
    parts = [
        Component(
            name=each.class_name,
            library="transformers",
            class_name=each.class_name,
            paths=(),
            checkpoint=path,
        )
        for each in targets
        if each.form is Form.PART
    ]
    whole = Component(
        name=MODEL,
        library="transformers",
        class_name=class_name,
        paths=(path,),
        weights=(path,),
        model_type=model.family,
        needs=GGUF_NEEDS,
        checkpoint=path,
    )
    kind = Kind.CLASSES if targets else Kind.TRANSFORMERS
    return kind, class_name, [whole, *parts]
