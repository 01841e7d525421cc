"""Repositories of sentence-transformers: the modules that `modules.json` lists.

The rules are those of sentence-transformers 6.2: of `BaseModel._load_config_modules`, and of each
module's `load`. The model card belongs to the model: the library reads it with the modules, and
writes it again when the model is saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nbloader.errors import UnsupportedRepoError
from nbloader.hub_names import join
from nbloader.records import Component
from nbloader.selection.backends import NEEDS, backend_weights
from nbloader.selection.encoder_classes import (
    CROSS_ENCODER,
    MODULES,
    MULTI_VECTOR_ENCODER,
    SETTINGS,
    encoder_class,
    makes_anew,
)
from nbloader.selection.formats import no_weights
from nbloader.selection.repo import (
    Repo,
    check_name,
    check_safe,
    code_of,
    malformed,
    split_reference,
)
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
from nbloader.selection.weights import MODULE, TRANSFORMERS, Weights, find_weights
from nbloader.text import quote

_NAMESPACE = "sentence_transformers."

_TRANSFORMERS = frozenset({"Transformer", "CLIPModel", "MLMTransformer"})
_ROUTERS = frozenset({"Router", "Asym"})
_ROUTER_CONFIGS = ("router_config.json", "config.json")  # the first that is there
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
# Written by the authors of ColBERT: the lengths and markers of their models.
_COLBERT_SETTINGS = "artifact.metadata"

# Modules of the library that cannot be made without one, and have no weights to be missed first.
_CONFIGURED = frozenset({"BoW", "CNN", "LSTM", "LayerNorm", "Pooling", "WeightedLayerPooling"})
# `_CLASS_REF_ALIASES` of MultiVectorEncoder: what it takes for modules of the package pylate.
_OF_PYLATE = {"pylate.models.Dense.Dense": "sentence_transformers.base.modules.dense.Dense"}
# Packages that modules of the library import only when they are made.
_NEEDS = {"PhraseTokenizer": ("nltk",)}

_MAX_DEPTH = 4


def select_sentence_transformers(repo: Repo) -> tuple[str | None, list[Component]]:
    """The class that the repository is for, and its modules in their order.

    Raises:
        RepoError: of a kind that says why the model cannot be loaded.
    """
    class_name = encoder_class(repo)
    listed = MODULES in repo.paths and not makes_anew(repo, class_name)
    card = ["README.md"] if listed else []
    shared = {*repo.existing("", MODULES, SETTINGS, *card)}
    if class_name == CROSS_ENCODER:
        where = SETTINGS if listed else "config.json"
        _activation(repo, *repo.existing("", where))
    if class_name == MULTI_VECTOR_ENCODER:
        shared.update(repo.existing("", _COLBERT_SETTINGS))
    components: list[Component] = []
    taken = set(shared)
    names: set[str] = set()
    for position, (folder, class_ref) in enumerate(_all_modules(repo, class_name)):
        files, weights = _module(repo, folder, class_ref)
        own = adapter(repo, folder) if _is_own(class_ref, _TRANSFORMERS) else None
        if own is not None:
            components.append(own)
            taken.update(own.paths)
        code, needs = _outside(repo, folder, class_ref)
        shared.update(code)
        taken.update(code)
        if (backend := repo.family.request.backend) and _is_own(class_ref, _TRANSFORMERS):
            needs += NEEDS[backend.name]
        name = folder or "model"
        if name in names or name == "config":
            name = f"{name}-{position}"
        names.add(name)
        library, _, module_class = class_ref.rpartition(".")
        config = _model_config(repo, folder, class_ref)
        components.append(
            Component(
                name=name,
                library=library,
                class_name=module_class,
                paths=tuple(sorted(files - taken)),
                weights=tuple(sorted(weights - taken)),
                model_type=model_type(config),
                code=untrusted_code(repo, folder, config),
                needs=needs,
            )
        )
        taken |= files
    return class_name, [*components, Component(name="config", paths=tuple(sorted(shared)))]


def _all_modules(repo: Repo, class_name: str | None) -> Iterator[tuple[str, str]]:
    """Folder and class of each module, those inside of a Router after it."""
    for folder, class_ref in _modules(repo, class_name):
        if class_name is None and not class_ref.startswith(_NAMESPACE):
            continue  # The class may have a way of its own with it.
        yield folder, class_ref
        yield from _routed(repo, folder, class_ref)


def _modules(repo: Repo, class_name: str | None) -> list[tuple[str, str]]:
    """Folder and class of each module; empty as long as `modules.json` is not known."""
    if MODULES not in repo.paths or makes_anew(repo, class_name):
        # The library then makes a Transformer, and further modules without files.
        return [("", "sentence_transformers.models.Transformer")]
    listed = repo.read(MODULES)
    if listed is None:
        return []
    if not isinstance(listed, list) or not listed:
        raise malformed(MODULES, "does not hold a list of modules")
    modules = []
    for entry in listed:
        match entry:
            case {"path": str(folder), "type": str(class_ref), "name": str()} if class_ref:
                check_name(class_ref.rpartition("--")[2], MODULES, dotted=True)
                if class_name == MULTI_VECTOR_ENCODER:
                    class_ref = _OF_PYLATE.get(class_ref, class_ref)
                if "." not in class_ref:
                    raise malformed(MODULES, f"names {quote(class_ref)} without its module")
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


def _module(repo: Repo, folder: str, class_ref: str) -> tuple[set[str], set[str]]:
    """All files of a module, and those of them that hold weights."""
    kind = class_ref.rpartition(".")[2]
    own = class_ref.startswith(_NAMESPACE)
    if own and kind in _ROUTERS:
        return set(repo.existing(folder, *_ROUTER_CONFIGS)[:1]), set()
    files = set(repo.existing(folder, *_MODULE_CONFIGS))
    if own and kind in _CONFIGURED and not files:
        raise malformed(MODULES, f"has a {kind} in {quote(folder)} without a configuration")
    weights: Weights | None = None
    if own and kind in _TRANSFORMERS:
        files, weights = _transformer(repo, folder)
    elif own and kind in _WEIGHTED:
        weights = find_weights(repo, folder, MODULE, None)
        if weights is None:
            raise no_weights(repo, folder)
        if _WEIGHTED[kind]:
            files.update(processing_files(repo, folder))
        if kind == "Dense":
            _activation(repo, *repo.existing(folder, "config.json"))
    elif not own:
        # Most custom modules derive from Transformer; what others open cannot be known.
        files, weights = _custom(repo, folder)
    elif folder:
        # Pooling, Normalize and the like have no tensors; a class that is not known here may.
        weights = find_weights(repo, folder, MODULE, None)
    if weights is not None:
        files.update(weights.paths)
    return files, set(weights.files if weights else ())


def _is_own(class_ref: str, names: frozenset[str]) -> bool:
    return class_ref.startswith(_NAMESPACE) and class_ref.rpartition(".")[2] in names


def _model_config(repo: Repo, folder: str, class_ref: str) -> Mapping[str, object]:
    """The configuration of a module that is a model of transformers; empty for another module."""
    own = class_ref.startswith(_NAMESPACE)
    is_model = _is_own(class_ref, _TRANSFORMERS) if own else not folder
    home, place = _home(repo, folder) if is_model else (None, folder)
    paths = home.existing(place, "config.json") if home is not None else []
    return (home.read_object(paths[0]) or {}) if home is not None and paths else {}


def _transformer(repo: Repo, folder: str) -> tuple[set[str], Weights]:
    backend = repo.family.request.backend
    if backend is not None and repo.existing(folder, ADAPTER_CONFIG):
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} is an adapter, which backend={quote(backend.name)} does not "
            "take.",
            hint="Leave out backend=: adapters are loaded with torch.",
        )
    home, place = _home(repo, folder)
    files = {*processing_files(repo, folder), *repo.existing(folder, *_TRANSFORMER_CONFIGS)}
    if home is None:
        return files, Weights(())
    if not home.existing(place, "config.json"):
        raise malformed(MODULES, f"has a Transformer in {quote(folder)} without a config.json")
    files.update(config_files(home, place), code_files(home, place))
    if backend is not None and (graph := backend_weights(repo, folder, backend)) is not None:
        return files, graph
    config = home.read_object(join(place, "config.json"))
    if config is None:
        # What else will be read is asked for in the same round.
        return files, find_weights(home, place, TRANSFORMERS, repo.variant) or Weights(())
    return files, model_weights(home, place, config)


def _home(repo: Repo, folder: str) -> tuple[Repo | None, str]:
    """The repository and the folder of the model of a Transformer: those of an adapter's base.

    The tokenizer, and what the module says of itself, are the adapter's own. None as long as the
    base is not known.
    """
    if not repo.existing(folder, ADAPTER_CONFIG):
        return repo, folder
    base = base_of(repo, folder)
    return base, folder if base in (repo, None) else base.root


def _custom(repo: Repo, folder: str) -> tuple[set[str], Weights | None]:
    if repo.existing(folder, "config.json") and not folder:
        return _transformer(repo, folder)
    names = [name for name in repo.names(folder) if name.endswith((".json", ".txt", ".py"))]
    return set(repo.existing(folder, *names)), find_weights(repo, folder, MODULE, None)


def _foreign(repo: Repo, class_ref: str) -> tuple[list[str], tuple[str, ...]]:
    """Code of the repository for a class that is not the library's, or the package that it is in.

    The library looks for the module beside the weights (`get_class_from_dynamic_module`, which
    knows no folders), and then among what is installed.

    Raises:
        UnsupportedRepoError: neither may be run.
    """
    place, module, _ = split_reference(class_ref)
    own = "." not in module and f"{module}.py" in repo.paths
    package = module.partition(".")[0]
    if not repo.trust_remote_code:
        what = "code of its own" if own else f"code of the package {quote(package)}"
        where = "its code on the Hub" if own else "what the package does"
        if place:
            what, where = f"code of {quote(place)}", "that code on the Hub"
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} has a module with {what}: {quote(class_ref)}.",
            hint=f"Read {where}; if you trust it, pass trust_remote_code=True.",
        )
    if place:
        return code_of(repo, place, module, where=MODULES), ()
    repo.runs_code = True
    if not own:
        return [], (package,)
    return [path for path in repo.existing("", *repo.names("")) if path.endswith(".py")], ()


def _activation(repo: Repo, *configs: str) -> None:
    """Note whether configurations name an activation function that only a trusted load takes."""
    for path in configs if repo.trust_remote_code else ():
        config = repo.read_object(path) or {}
        own = config.get("sentence_transformers")
        named = (
            config.get("activation_function"),
            config.get("activation_fn"),
            config.get("sbert_ce_default_activation_function"),
            own.get("activation_fn") if isinstance(own, dict) else None,
        )
        if any(isinstance(name, str) and not name.startswith("torch.") for name in named):
            repo.runs_code = True


def _outside(repo: Repo, folder: str, class_ref: str) -> tuple[list[str], tuple[str, ...]]:
    """Code of the repository that a module runs, and packages that it needs.

    Raises:
        UnsupportedRepoError: it names code that is not trusted.
    """
    if not class_ref.startswith(_NAMESPACE):
        return _foreign(repo, class_ref)
    if class_ref.endswith(".WordEmbeddings"):
        for path in repo.existing(folder, "wordembedding_config.json"):
            tokenizer = (repo.read_object(path) or {}).get("tokenizer_class")
            if isinstance(tokenizer, str) and "." in tokenizer:
                check_name(tokenizer, path, dotted=True)
                if not tokenizer.startswith(_NAMESPACE):
                    return _foreign(repo, tokenizer)
                return [], _NEEDS.get(tokenizer.rpartition(".")[2], ())
    return [], ()


def _routed(repo: Repo, folder: str, class_ref: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Folder and class of the modules inside of a Router (once Asym); none for another module."""
    if not _is_own(class_ref, _ROUTERS):
        return
    configs = repo.existing(folder, *_ROUTER_CONFIGS)[:1]
    if not configs or depth >= _MAX_DEPTH:
        raise malformed(MODULES, f"has a Router without a configuration in {quote(folder)}")
    types = (repo.read_object(configs[0]) or {"types": {}}).get("types")
    if not isinstance(types, dict):
        raise malformed(configs[0], "does not list the types of its modules")
    for name, inner_ref in types.items():
        if not isinstance(inner_ref, str) or "." not in inner_ref:
            raise malformed(configs[0], f"has no type for {quote(name)}")
        check_name(inner_ref.rpartition("--")[2], configs[0], dotted=True)
        inner = join(folder, _folder(name, configs[0]))
        yield inner, inner_ref
        yield from _routed(repo, inner, inner_ref, depth + 1)
