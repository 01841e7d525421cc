"""Repositories of sentence-transformers: their class, and the modules that `modules.json` lists.

The rules are those of sentence-transformers 6.2: for the class, of `_get_model_type` and
`_load_default_modules`; for the modules, of `BaseModel._load_config_modules` and of each module's
`load`. There the caller names the class, and a repository of another one is converted to it, with a
warning in the log: its head is thrown away, or one of random numbers is added. Here the repository
decides, unless the caller names a class. The model card belongs to the model: the library reads it
with the modules, and writes it again when the model is saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nbloader.errors import UnsupportedRepoError
from nbloader.hub_names import join
from nbloader.records import Component
from nbloader.selection.backends import NEEDS, backend_weights
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
from nbloader.text import plain, quote

# -- the class -------------------------------------------------------------------------------------

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"

CROSS_ENCODER = "CrossEncoder"
MULTI_VECTOR_ENCODER = "MultiVectorEncoder"
SENTENCE_TRANSFORMER = "SentenceTransformer"
SPARSE_ENCODER = "SparseEncoder"

STANFORD_COLBERT = "HF_ColBERT"
"""The `architectures` of the ColBERT models of its authors, with the projection among the weights.
"""

_LIBRARY = "sentence-transformers"
_PYLATE = "pylate."

# What PyLate writes into the settings (`pylate_marker_keys` of `MultiVectorEncoder`).
_PYLATE_SETTINGS = frozenset(
    {
        "attend_to_expansion_tokens",
        "attend_to_mask_tokens",
        "do_query_expansion",
        "document_length",
        "document_prefix",
        "query_expansion",
        "query_length",
        "query_prefix",
        "skiplist_words",
    }
)
# What CrossEncoder wrote into config.json, from version 4 and before it.
_CROSS_ENCODER_KEYS = frozenset({"sbert_ce_default_activation_function", "sentence_transformers"})

# The endings of `architectures` whose weights have all that the default modules of a class need.
_HEADS = {
    CROSS_ENCODER: ("ForSequenceClassification", "ForCausalLM"),
    MULTI_VECTOR_ENCODER: (STANFORD_COLBERT, "ForRetrieval"),
    SPARSE_ENCODER: ("ForMaskedLM",),
}


def is_encoder(repo: Repo) -> bool:
    """Say whether a repository with a `config.json` alone is for sentence-transformers.

    So are cross-encoders and ColBERT models as they were saved for years, and whatever the Hub says
    is for this library. False as long as `config.json` is not known.
    """
    if "config.json" not in repo.paths:
        return False  # an adapter alone
    if "adapter_config.json" in repo.paths and repo.library_name != _LIBRARY:
        return False  # whose base may be another model than the one beside it
    config = repo.read_object("config.json") or {}
    architectures = _architectures(config)
    return (
        STANFORD_COLBERT in architectures
        or (not _CROSS_ENCODER_KEYS.isdisjoint(config) and _ends(architectures, CROSS_ENCODER))
        or (bool(architectures) and repo.library_name == _LIBRARY)
    )


def encoder_class(repo: Repo) -> str | None:
    """Name the class; None as long as the files that decide it are not known.

    Raises:
        UnsupportedRepoError: its weights lack a layer that the class would fill at random.
        MalformedFileError: it names no class.
    """
    for target in (group[0] for group in repo.family.request.targets):
        repo.targets = (target,)
        return target.class_name  # The library makes one of another class of it, and tells.
    settings = _read(repo, SETTINGS)
    if settings is None:
        return None
    named = settings.get("model_type")
    if named is not None:
        named = check_name(str(named), SETTINGS)
        named = MULTI_VECTOR_ENCODER if named == "ColBERT" else named
    if MODULES in repo.paths:
        return named or _by_modules(repo, settings)
    config = _read(repo, "config.json")
    if config is None:
        return None
    architectures = _architectures(config)
    chosen = named or _by_architecture(repo, architectures)
    if architectures and chosen in _HEADS and not _ends(architectures, chosen):
        raise _random(repo, chosen, f"its weights are those of {quote(architectures[0])}")
    return chosen


def _by_modules(repo: Repo, settings: Mapping[str, object]) -> str | None:
    """Name the class for modules of a repository that names none; None if not known yet."""
    listed = repo.read(MODULES)
    entries = listed if isinstance(listed, list) else []
    modules = [entry for entry in entries if isinstance(entry, dict)]
    types = [str(entry.get("type")) for entry in modules]
    # The configuration of a module in the root.
    config = _read(repo, "config.json") if any(not entry.get("path") for entry in modules) else {}
    if listed is None or config is None:
        return None
    if STANFORD_COLBERT in _architectures(config):
        return MULTI_VECTOR_ENCODER
    if _PYLATE_SETTINGS.isdisjoint(settings) and not any(
        each.startswith(_PYLATE) for each in types
    ):
        return SENTENCE_TRANSFORMER
    # The library converts what PyLate has saved, and keeps the projection if there is one.
    if not any(each.endswith(".Dense") for each in types):
        raise _random(repo, MULTI_VECTOR_ENCODER, "it has no Dense module")
    return MULTI_VECTOR_ENCODER


def _random(repo: Repo, class_name: str, why: str) -> UnsupportedRepoError:
    return UnsupportedRepoError(
        f"{quote(repo.repo_id)} is for {class_name}, but {why}: it would get a layer of random "
        "numbers.",
        hint="It has to be trained before it is of use: make it with sentence_transformers itself.",
    )


def _read(repo: Repo, path: str) -> Mapping[str, object] | None:
    return repo.read_object(path) if path in repo.paths else {}


def _architectures(config: Mapping[str, object]) -> list[str]:
    names = config.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _by_architecture(repo: Repo, architectures: list[str]) -> str:
    """Name the class for weights without modules: the one that has a use for all of them."""
    if _ends(architectures, MULTI_VECTOR_ENCODER):
        return MULTI_VECTOR_ENCODER
    ranks = repo.pipeline_tag == "text-ranking" and repo.library_name == _LIBRARY
    if ranks or any(name.endswith("ForSequenceClassification") for name in architectures):
        return CROSS_ENCODER
    return SENTENCE_TRANSFORMER


def _ends(architectures: list[str], class_name: str) -> bool:
    return any(name.endswith(_HEADS[class_name]) for name in architectures)


# -- the modules -----------------------------------------------------------------------------------

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
    listed = MODULES in repo.paths and not _makes_anew(repo, class_name)
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
    if MODULES not in repo.paths or _makes_anew(repo, class_name):
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


def _makes_anew(repo: Repo, class_name: str | None) -> bool:
    """Say whether a class that the caller names takes only the model in the root of a repository.

    So it does with modules of another class. Those of a SentenceTransformer are kept where further
    ones are put behind them.

    Raises:
        UnsupportedRepoError: there is no model in the root.
    """
    settings = _read(repo, SETTINGS)
    if not repo.family.request.targets or MODULES not in repo.paths or settings is None:
        return False
    source = str(settings.get("model_type") or SENTENCE_TRANSFORMER)
    if class_name == MULTI_VECTOR_ENCODER and source == "ColBERT":
        source = MULTI_VECTOR_ENCODER
    keeps = source == SENTENCE_TRANSFORMER and class_name in (SPARSE_ENCODER, MULTI_VECTOR_ENCODER)
    if source == class_name or keeps:
        return False
    if not repo.existing("", "config.json"):
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} is for {plain(source)}, and has no model in its root that a "
            f"{class_name} could be made of.",
            hint="Leave cls= out for what its files name.",
        )
    return True


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
