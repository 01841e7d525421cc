"""The class of sentence-transformers that a repository is for.

The rules are those of `_get_model_type` and `_load_default_modules` of sentence-transformers 6.2.
There the caller names the class, and a repository of another one is converted to it, with a warning
in the log: its head is thrown away, or one of random numbers is added. Here the repository decides,
unless the caller names a class.
"""

from __future__ import annotations

from collections.abc import Mapping

from nbloader.errors import UnsupportedRepoError
from nbloader.selection.repo import Repo, check_name
from nbloader.text import plain, quote

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


def makes_anew(repo: Repo, class_name: str | None) -> bool:
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
