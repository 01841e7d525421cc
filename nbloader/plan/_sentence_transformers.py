"""Repositories of sentence-transformers: the modules that `modules.json` lists.

The rules are those of `BaseModel._load_config_modules` and of each module's `load`
(sentence-transformers 6.2). The model card is read only to be written again on save: left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from nbloader.errors import UnsupportedRepoError
from nbloader.hub_names import join
from nbloader.plan._formats import no_weights
from nbloader.plan._paths import check_safe
from nbloader.plan._repo import Repo, check_name, malformed
from nbloader.plan._transformers import (
    code_files,
    config_files,
    model_type,
    model_weights,
    processing_files,
    untrusted_code,
)
from nbloader.plan._weights import MODULE, TRANSFORMERS, Weights, find_weights
from nbloader.quoting import quote
from nbloader.records import Component

__all__ = ["plan_sentence_transformers"]

MODULES = "modules.json"
_NAMESPACE = "sentence_transformers."

_TRANSFORMERS = frozenset({"Transformer", "CLIPModel", "MLMTransformer"})
_ROUTERS = frozenset({"Router", "Asym"})
# Modules with tensors of their own, in one file, and whether they bring a tokenizer.
_WEIGHTED = {
    "CNN": False,
    "Dense": False,
    "LSTM": False,
    "LayerNorm": False,
    "SparseAutoEncoder": False,
    "SparseStaticEmbedding": True,
    "StaticEmbedding": True,
    "WeightedLayerPooling": False,
    "WordEmbeddings": True,
}

# `Transformer.load_config` tries them in this order.
_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# `config_file_name` of every other module class, and of the tokenizers of WordEmbeddings.
_MODULE_CONFIGS = (
    "config.json",
    "cnn_config.json",
    "lstm_config.json",
    "phrasetokenizer_config.json",
    "router_config.json",
    "whitespacetokenizer_config.json",
    "wordembedding_config.json",
)
_MAX_DEPTH = 4


def plan_sentence_transformers(repo: Repo) -> tuple[None, list[Component]]:
    """The modules, in their order.

    Raises:
        RepoError: of a kind that says why the model cannot be loaded.
    """
    shared = {*repo.existing("", MODULES, "config_sentence_transformers.json")}
    modules = _modules(repo)
    trusted_code = {
        path
        for _, class_ref in modules or ()
        if not class_ref.startswith(_NAMESPACE)
        for path in _module_code(repo, class_ref)
    }
    components: list[Component] = []
    taken = shared | trusted_code
    names: set[str] = set()
    for position, (folder, class_ref) in enumerate(modules or ()):
        files, weights = _module(repo, folder, class_ref, depth=0)
        name = folder or "model"
        if name in names or name == "config":
            name = f"{name}-{position}"
        names.add(name)
        library, _, class_name = class_ref.rpartition(".")
        config = _model_config(repo, folder, class_ref)
        components.append(
            Component(
                name=name,
                library=library or None,
                class_name=class_name,
                paths=tuple(sorted(files - taken)),
                weights=tuple(sorted(weights - taken)),
                model_type=model_type(config),
                code=untrusted_code(repo, folder, config),
            )
        )
        taken |= files
    return None, [*components, Component(name="config", paths=tuple(sorted(shared | trusted_code)))]


def _modules(repo: Repo) -> list[tuple[str, str]] | None:
    """Folder and class of each module; None as long as `modules.json` is not known."""
    if MODULES not in repo.paths:
        # The library then makes a Transformer, and a Pooling without files.
        return [("", "sentence_transformers.models.Transformer")]
    listed = repo.read(MODULES)
    if listed is None:
        return None
    if not isinstance(listed, list) or not listed:
        raise malformed(MODULES, "does not hold a list of modules")
    modules = []
    for entry in listed:
        match entry:
            case {"path": str(folder), "type": str(class_ref), "name": str()} if class_ref:
                check_name(class_ref, MODULES, dotted=True)
                modules.append((_folder(folder, MODULES), class_ref))
            case _:
                raise malformed(MODULES, "has a module without a name, a path and a type")
    return modules


def _folder(folder: str, where: str) -> str:
    folder = folder.removesuffix("/")
    if folder in ("", "."):
        return ""
    check_safe(folder, where=f"The file {quote(where)}")
    return folder


def _module(repo: Repo, folder: str, class_ref: str, depth: int) -> tuple[set[str], set[str]]:
    """All files of a module, and those of them that hold weights."""
    kind = class_ref.rpartition(".")[2]
    own = class_ref.startswith(_NAMESPACE)
    if own and kind in _ROUTERS:
        return _router(repo, folder, depth)
    files = set(repo.existing(folder, *_MODULE_CONFIGS))
    weights: Weights | None = None
    if own and kind in _TRANSFORMERS:
        files, weights = _transformer(repo, folder)
    elif own and kind in _WEIGHTED:
        weights = find_weights(repo, folder, MODULE, None)
        if weights is None:
            raise no_weights(repo, folder)
        if _WEIGHTED[kind]:
            files.update(processing_files(repo, folder))
    elif not own:
        # Most custom modules derive from Transformer; what others open cannot be known.
        files, weights = _custom(repo, folder)
    elif folder:
        # Pooling, Normalize and the like have no tensors; a class that is not known here may.
        weights = find_weights(repo, folder, MODULE, None)
    if weights is not None:
        files.update(weights.paths)
    return files, set(weights.files if weights else ())


def _model_config(repo: Repo, folder: str, class_ref: str) -> Mapping[str, object]:
    """The configuration of a module that is a model of transformers; empty for another module."""
    kind = class_ref.rpartition(".")[2]
    is_model = kind in _TRANSFORMERS if class_ref.startswith(_NAMESPACE) else not folder
    paths = repo.existing(folder, "config.json") if is_model else []
    return (repo.read_object(paths[0]) or {}) if paths else {}


def _transformer(repo: Repo, folder: str) -> tuple[set[str], Weights]:
    if not repo.existing(folder, "config.json"):
        raise malformed(MODULES, f"has a Transformer in {quote(folder)} without a config.json")
    files = {
        *config_files(repo, folder),
        *processing_files(repo, folder),
        *repo.existing(folder, *_TRANSFORMER_CONFIGS),
        *code_files(repo, folder),
    }
    config = repo.read_object(join(folder, "config.json"))
    if config is None:
        # What else will be read is asked for in the same round.
        return files, find_weights(repo, folder, TRANSFORMERS, repo.variant) or Weights(())
    return files, model_weights(repo, folder, config)


def _custom(repo: Repo, folder: str) -> tuple[set[str], Weights | None]:
    if repo.existing(folder, "config.json") and not folder:
        return _transformer(repo, folder)
    names = [name for name in repo.names(folder) if name.endswith((".json", ".txt", ".py"))]
    return set(repo.existing(folder, *names)), find_weights(repo, folder, MODULE, None)


def _module_code(repo: Repo, class_ref: str) -> list[str]:
    """The Python files of the root, for a module class that the repository brings."""
    if not repo.trust_remote_code:
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} has a module with code of its own: {quote(class_ref)}.",
            hint="Read its code on the Hub; if you trust it, pass trust_remote_code=True.",
        )
    return [path for path in repo.existing("", *repo.names("")) if path.endswith(".py")]


def _router(repo: Repo, folder: str, depth: int) -> tuple[set[str], set[str]]:
    """A Router (once Asym): modules in folders of its own."""
    configs = repo.existing(folder, "router_config.json", "config.json")[:1]
    if not configs or depth >= _MAX_DEPTH:
        raise malformed(MODULES, f"has a Router without a configuration in {quote(folder)}")
    config = repo.read_object(configs[0])
    files: set[str] = set(configs)
    weights: set[str] = set()
    if config is None:
        return files, weights
    types = config.get("types")
    if not isinstance(types, dict):
        raise malformed(configs[0], "does not list the types of its modules")
    for name, class_ref in types.items():
        if not isinstance(class_ref, str):
            raise malformed(configs[0], f"has no type for {quote(name)}")
        if not class_ref.startswith(_NAMESPACE):
            files.update(_module_code(repo, class_ref))
        inner = join(folder, _folder(name, configs[0]))
        inner_files, inner_weights = _module(repo, inner, class_ref, depth + 1)
        files |= inner_files
        weights |= inner_weights
    return files, weights
