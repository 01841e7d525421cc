"""Pipelines of diffusers: a folder for each component that `model_index.json` declares.

The rules are those of `DiffusionPipeline.download` and of the classes' `from_pretrained` on a local
folder (diffusers 0.42), with less fetched where the first takes what the second does not open.
"""

from __future__ import annotations

from dataclasses import replace

from nbloader.errors import UnsupportedRepoError
from nbloader.hub_names import join
from nbloader.records import Component, Reference, Source, Target
from nbloader.selection.classes import PROCESSING, SCHEDULER, is_one_model, part_of_pipelines
from nbloader.selection.formats import has_foreign_weights, no_weights
from nbloader.selection.model_files import part_from_file
from nbloader.selection.pipeline_code import check_custom_pipeline, code_at, code_elsewhere
from nbloader.selection.repo import (
    COMPONENT,
    Repo,
    check_name,
    check_safe,
    companion,
    is_name,
    malformed,
)
from nbloader.selection.transformers import processing_files
from nbloader.selection.weights import (
    DIFFUSERS,
    TRANSFORMERS,
    Weights,
    find_weights,
    variant_not_found,
)
from nbloader.text import quote

INDEX = "model_index.json"

# Classes with one small file, by the end of their names (a test compares this with the libraries).
_ONE_FILE = {"Scheduler": "scheduler_config.json", "Guidance": "guider_config.json"}
# What a class without weights opens. A file without an ending, such as LICENSE, must stay out:
# with a variant, diffusers looks for the second part of every name in a component's folder.
_DATA = (".json", ".txt", ".model", ".jinja", ".codes", ".tokenizer", ".tiktoken", ".spm", ".bpe")

# Lists of models in folders of their own: `controlnet`, `controlnet_1`, ... to the first that is
# not there (their own `from_pretrained`). A test compares both with the library.
_LISTS = frozenset({"MultiAdapter", "MultiControlNetModel", "MultiControlNetUnionModel"})
# Those that diffusers makes of models at hand, and can neither save nor load.
_LISTS_AT_HAND = frozenset(
    {
        "FluxMultiControlNetModel",
        "HunyuanDiT2DMultiControlNetModel",
        "QwenImageMultiControlNetModel",
        "SD3MultiControlNetModel",
    }
)


def select_diffusers(repo: Repo) -> tuple[str | None, list[Component]]:
    """The class of the pipeline, and its components in the order of `model_index.json`.

    Raises:
        RepoError: of a kind that says why the pipeline cannot be loaded.
    """
    check_custom_pipeline(repo)
    index = repo.read_object(INDEX)
    if index is None:
        return None, [Component(name="config", paths=(INDEX,))]
    ignored = index.get("_ignore_files")
    repo.leave_out(ignored if isinstance(ignored, list) else ())
    version = index.get("_diffusers_version")
    repo.written_with = version if isinstance(version, str) else None
    class_name, code = _pipeline_class(repo, index)
    target = next((group[0] for group in repo.family.request.targets), None)
    repo.targets = (target,) if target else ()
    components: list[Component] = []
    taken = {INDEX, *code}
    for name, library, part_class in declared(index):
        sources = repo.family.request.components.get(name, ())
        if name in repo.handed_in or sources or not takes(target, class_name, name):
            continue
        component = _component(repo, name, library, part_class)
        if not taken.isdisjoint(component.paths):
            # Components in the root share its files; each file is listed once.
            component = Component(
                name=name,
                library=library,
                class_name=part_class,
                paths=tuple(path for path in component.paths if path not in taken),
                weights=tuple(path for path in component.weights if path not in taken),
            )
        taken.update(component.paths)
        components.append(component)
    components += from_elsewhere(repo, index)
    if repo.variant is not None and not _has_variant(repo, components):
        raise variant_not_found(repo, [component.name for component in components])
    return class_name, [*components, Component(name="config", paths=tuple(sorted((INDEX, *code))))]


def _pipeline_class(repo: Repo, index: dict[str, object]) -> tuple[str, list[str]]:
    """The pipeline's class, and the file with its code where it comes with the repository."""
    named = index.get("_class_name")
    if isinstance(named, str):
        class_name, module = named, ""
    else:
        match named:
            case [str(module), str(class_name)] if module:
                pass
            case _:
                class_name = module = ""
    if not class_name:
        raise malformed(INDEX, "names no pipeline class (_class_name)")
    check_name(class_name, INDEX)
    custom = repo.custom_pipeline
    if custom is not None and f"{custom}.py" in repo.paths:
        return class_name, code_at(repo, f"{custom}.py")
    if custom is not None and not module:
        # The code of another place, whatever the class is here.
        return class_name, code_elsewhere(repo, custom)
    if class_name.startswith(("Onnx", "Flax")):
        raise _other_framework(repo, f"{quote(repo.repo_id)} is a pipeline", class_name)
    if not module and class_name.endswith("CombinedPipeline"):
        raise UnsupportedRepoError(
            f"{quote(class_name)} is put together from more than one repository.",
            hint="Load the prior and the decoder, each from its own repository.",
        )
    if not module:
        return class_name, []
    path = f"{check_name(module, INDEX, dotted=True)}.py"
    if path not in repo.paths:
        raise malformed(INDEX, f"names the pipeline code {quote(path)}, which is not there")
    return class_name, code_at(repo, path)


def declared(index: dict[str, object]) -> list[tuple[str, str, str]]:
    """Name, library and class of the components that are not null."""
    declared = []
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or len(value) != 2:
            continue
        match value:
            case [str(library), str(class_name)]:
                check_safe(name, where=f"The file {quote(INDEX)}")
                if "/" in name or name == "config":
                    raise malformed(INDEX, f"has a component with the name {quote(name)}")
                check_name(library, INDEX, dotted=True)
                declared.append((name, library, check_name(class_name, INDEX)))
            case [str(), _]:
                raise malformed(INDEX, f"declares the component {quote(name)} wrongly")
            case _:  # null, or a pair of settings
                pass
    if not declared:
        raise malformed(INDEX, "declares no components")
    return declared


def takes(target: Target | None, own: str | None, name: str) -> bool:
    """Say whether the class that was asked for has a component, as far as that is known.

    Args:
        own: the class that the repository names.
    """
    if target is None or target.takes is None or target.class_name == own:
        return True
    return name in target.takes


def _component(repo: Repo, name: str, library: str, class_name: str) -> Component:
    in_folder = name in repo.top_folders
    # diffusers looks into the root for a component without a folder, and never for a variant there.
    folder = name if in_folder else ""
    if class_name == "OnnxRuntimeModel" or class_name.startswith("Flax"):
        raise _other_framework(repo, f"The component {quote(name)} is", class_name)
    code = [
        path
        for named in (repo.existing(folder, f"{library}.py") if in_folder else ())
        for path in code_at(repo, named)
    ]
    weights, files = contents(repo, folder, library, class_name)
    held = list(weights.files) if weights else []
    paths = {*code, *files, *(weights.paths if weights else ())}
    if library == "diffusers" and class_name in _LISTS:
        for more in _others_of_list(repo, name):
            weights, files = _next_of_list(repo, name, more)
            held += weights.files
            paths.update(files, weights.paths)
    if not paths:
        raise malformed(INDEX, f"declares the component {quote(name)}, which has no files")
    return Component(
        name=name,
        library=library,
        class_name=class_name,
        paths=tuple(sorted(paths)),
        weights=tuple(held),
    )


def _others_of_list(repo: Repo, name: str) -> list[str]:
    """Name the folders of a list behind its first."""
    folders: list[str] = []
    while (folder := f"{name}_{len(folders) + 1}") in repo.top_folders:
        folders.append(folder)
    return folders


def _next_of_list(repo: Repo, first: str, folder: str) -> tuple[Weights, list[str]]:
    """The weights and the configuration of a model of a list that begins in the folder `first`."""
    variant = repo.variant
    if variant is not None and _find(repo, first, "diffusers", variant) is None:
        variant = None  # All of the list come as its first does.
    weights = _find(repo, folder, "diffusers", variant)
    if weights is None and variant is not None:
        raise variant_not_found(repo, [folder])
    if weights is None:
        raise no_weights(repo, folder)
    config = repo.existing(folder, "config.json")
    if not config:
        raise malformed(INDEX, f"declares a list of models; {quote(folder)} has no config.json")
    return weights, config


# -- components from other places ------------------------------------------------------------------


def from_elsewhere(
    repo: Repo, index: dict[str, object], *, home: Repo | None = None
) -> list[Component]:
    """The components that the caller has named the places of.

    Args:
        home: where the configurations of the pipeline are, if not in `repo`.
    """
    components = []
    for name, sources in repo.family.request.components.items():
        declared = index.get(name)
        for position, source in enumerate(sources):
            part = _sourced(repo, name, source, declared, home or repo)
            listed = len(sources) > 1 or name in repo.family.request.component_lists
            if part is not None and listed:
                part = replace(part, name=f"{name}_{position}" if position else name, argument=name)
            if part is not None:
                components.append(part)
    return components


def _sourced(
    repo: Repo, name: str, source: Source, declared: object, home: Repo
) -> Component | None:
    """A component from another place; None as long as its repository is not listed.

    Its class is the one that its own configuration names, or for models of transformers, whose
    files often name another than is meant, the one that the pipeline declares.

    Args:
        declared: what `model_index.json` says of the component.
        home: where the configurations of the pipeline are.
    """
    reference = Reference(repo_id=source.repo_id, role=COMPONENT, revision=source.revision)
    other = companion(repo, reference, where=f"components[{name!r}]")
    if other is None:
        return None
    if source.filename:
        inside = join(source.subfolder, source.filename)
        return part_from_file(home, other, join(other.root, inside), name, declared)
    inner = source.subfolder
    if not inner and other.existing(other.root, INDEX) and name in other.top_folders:
        inner = name
    folder = join(other.root, inner) if inner else other.root
    found = _class_elsewhere(other, folder, name, declared)
    if found is None:
        return None
    library, class_name = found
    weights, files = contents(other, folder, library, class_name)
    paths = {*files, *(weights.paths if weights else ())}
    if not paths:
        raise _nothing_there(other, name, inner)
    return Component(
        name=name,
        library=library,
        class_name=class_name,
        paths=tuple(sorted(paths)),
        weights=tuple(weights.files) if weights else (),
        repo_id=source.repo_id,
        folder=inner,
    )


def _class_elsewhere(
    repo: Repo, folder: str, name: str, declared: object
) -> tuple[str, str] | None:
    """Library and class of what is in a folder; None as long as they are not known."""
    match declared:
        case ["transformers", str(meant)] if is_name(meant):
            pass
        case _:
            meant = ""
    for file in (SCHEDULER, "config.json"):
        for path in repo.existing(folder, file):
            config = repo.read_object(path)
            if config is None:
                return None
            if file == SCHEDULER or is_one_model(config):
                return "diffusers", check_name(str(config.get("_class_name", "AutoModel")), path)
            if (of_pipelines := part_of_pipelines(config)) is not None:
                return of_pipelines.library.rpartition(".")[2], of_pipelines.class_name
            named = config.get("architectures")
            own = named[0] if isinstance(named, list) and named else "AutoModel"
            if not (meant and meant.endswith(PROCESSING)):
                return "transformers", meant or check_name(str(own), path)
    if not processing_files(repo, folder):
        raise _nothing_there(repo, name, folder.removeprefix(repo.root))
    auto = "AutoTokenizer" if "tokenizer" in name else "AutoImageProcessor"
    return "transformers", meant or auto


def _nothing_there(repo: Repo, name: str, inner: str) -> UnsupportedRepoError:
    folders = ", ".join(map(quote, sorted(repo.top_folders)[:5]))
    return UnsupportedRepoError(
        f"components[{name!r}]: {quote(repo.repo_id)} has no model, tokenizer or scheduler"
        f"{f' in {quote(inner)}' if inner else ' in its root'}.",
        hint=f'Name the folder behind the id, such as "{repo.repo_id}/{name}".'
        + (f" It has {folders}." if folders else ""),
    )


def contents(
    repo: Repo, folder: str, library: str, class_name: str
) -> tuple[Weights | None, list[str]]:
    """The weights of a component, and the files beside them that its class opens."""
    if library == "diffusers":
        for end, name in _ONE_FILE.items():
            if class_name.endswith(end):
                return None, repo.existing(folder, name)
    if library == "transformers" and class_name.endswith(PROCESSING):
        return None, _data_files(repo, folder)
    if library == "diffusers" and class_name in _LISTS_AT_HAND:
        raise UnsupportedRepoError(
            f"diffusers cannot load a {quote(class_name)}, as {quote(INDEX)} names one.",
            hint="Load the pipeline without it, and make it of its single models.",
        )
    # A variant is looked for in a component's folder only, and mixes with plain weights elsewhere.
    variant = repo.variant if folder else None  # That of another place has a name of its own.
    weights = _find(repo, folder, library, variant) or _find(repo, folder, library, None)
    if weights is not None:
        config = repo.existing(folder, "config.json")
        if library != "diffusers":
            # What generates text reads it, though diffusers does not fetch it.
            config += repo.existing(folder, "generation_config.json")
        if not config and library in ("diffusers", "transformers"):
            raise malformed(INDEX, f"declares {quote(class_name)}, which has no config.json")
        if library in ("diffusers", "transformers") and config:
            repo.read_object(config[0])  # It tells what the weights are quantized with.
        return weights, config
    if not folder:
        raise malformed(INDEX, f"declares a {quote(class_name)}, which has no folder")
    # Classes that belong to one pipeline, or come as code, may do without weights.
    if library in ("diffusers", "transformers") or has_foreign_weights(repo, folder):
        raise no_weights(repo, folder)
    return None, _data_files(repo, folder)


def _find(repo: Repo, folder: str, library: str, variant: str | None) -> Weights | None:
    if library != "transformers" and (weights := find_weights(repo, folder, DIFFUSERS, variant)):
        return weights
    return None if library == "diffusers" else find_weights(repo, folder, TRANSFORMERS, variant)


def _data_files(repo: Repo, folder: str) -> list[str]:
    if folder == repo.root:
        return processing_files(repo, folder)
    files = [
        path
        for path in repo.existing(folder, *repo.names(folder))
        if path.endswith(_DATA) and ".index." not in path
    ]
    # With a variant, diffusers cannot have folders in a component's folder (see _DATA).
    templates = f"{folder}/additional_chat_templates"
    if repo.variant is None:
        jinja = [name for name in repo.names(templates) if name.endswith(".jinja")]
        files += repo.existing(templates, *jinja)
    return files


def _has_variant(repo: Repo, components: list[Component]) -> bool:
    return any(
        component.name in repo.top_folders
        and _find(repo, component.name, component.library or "", repo.variant) is not None
        for component in components
    )


def _other_framework(repo: Repo, subject: str, class_name: str) -> UnsupportedRepoError:
    hint = "Try revision='main', or the repository that it was made from."
    if class_name.startswith("Onnx"):
        hint = (
            "Load it with optimum: optimum.onnxruntime.ORTDiffusionPipeline.from_pretrained("
            f"{quote(repo.repo_id)})."
        )
    return UnsupportedRepoError(
        f"{subject} for another framework than PyTorch: {quote(class_name)}.", hint=hint
    )
