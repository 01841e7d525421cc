"""Repositories that transformers loads: one model, with its tokenizer or processor.

Adapters of PEFT are among them. Their rules are those of `find_adapter_config_file` and
`PeftAdapterMixin.load_adapter` of transformers 5 for a repository of the Hub: an
`adapter_config.json` beside the model, or instead of it, names the base model in
`base_model_name_or_path`; that model is loaded, with its own tokenizer, and the adapter put into
it. An adapter may name the repository that it lies in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeGuard

from nbloader.errors import NoWeightsError, UnsupportedRepoError
from nbloader.hub_names import is_path, is_repo_id, join
from nbloader.records import Component, Reference
from nbloader.selection.adapted import auto_class
from nbloader.selection.formats import no_weights, refuse_other_libraries
from nbloader.selection.repo import (
    Repo,
    check_safe,
    code_of,
    companion,
    is_name,
    malformed,
    split_reference,
)
from nbloader.selection.weights import (
    TRANSFORMERS,
    Weights,
    find_weights,
    from_index,
    variant_not_found,
)
from nbloader.text import quote

# Names that the tokenizer, processor and feature extractor classes of transformers 4 and 5 open:
# the constants of `transformers.utils` and `tokenization_utils_base`, and every
# `vocab_files_names` (a test compares them with the installed version).
_PROCESSING = frozenset(
    {
        "added_tokens.json",
        "audio_tokenizer_config.json",
        "bpe.codes",
        "byte_maps.json",
        "chat_template.jinja",
        "chat_template.json",
        "dict.txt",
        "emoji.json",
        "entity_vocab.json",
        "merges.txt",
        "normalizer.json",
        "preprocessor_config.json",
        "processor_config.json",
        "prophetnet.tokenizer",
        "sentencepiece.bpe.model",
        "sentencepiece.model",
        "source.spm",
        "special_tokens_map.json",
        "spiece.model",
        "spm.model",
        "spm_char.model",
        "target.spm",
        "target_vocab.json",
        "tekken.json",
        "tiktoken.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
        "vocab-src.json",
        "vocab-tgt.json",
        "vocab.bpe",
        "vocab.json",
        "vocab.txt",
        "word_pronunciation.json",
        "word_shape.json",
    }
)
# `configuration_files` and `fast_tokenizer_files`: copies for later versions of the library.
_VERSIONED_CONFIG = re.compile(r"config\.\d+(\.\d+)*\.json")
_VERSIONED_TOKENIZER = re.compile(r"tokenizer\.\d+(\.\d+)*\.json")
_MODEL_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_CODE_MAPS = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
# What custom code may open beside the weights; which of it cannot be known without running it.
_CODE_DATA = (".py", ".json", ".txt", ".model", ".tiktoken", ".jinja", ".spm", ".bpe")


def select_transformers(repo: Repo) -> tuple[str | None, list[Component]]:
    """The class that the repository names, and the files of the model in its root.

    Raises:
        RepoError: of a kind that says why the model cannot be loaded.
    """
    root = repo.root
    config = repo.read_object(join(root, "config.json"))
    if config is None:
        # What else will be read is asked for in the same round.
        find_weights(repo, root, TRANSFORMERS, repo.variant)
        code_files(repo, root)
        return None, []
    refuse_other_libraries(repo, config)
    weights = model_weights(repo, root, config)
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    class_name = first if is_name(first) else None
    code = code_files(repo, root)
    model_files = {*config_files(repo, root), *weights.paths}
    shared = {*processing_files(repo, root), *code} - model_files
    return class_name, [
        Component(
            name="model",
            library="transformers",
            class_name=class_name,
            paths=tuple(sorted(model_files)),
            weights=weights.files,
            model_type=model_type(config),
            code=untrusted_code(repo, root, config),
        ),
        Component(name="config", paths=tuple(sorted(shared))),
    ]


def model_type(config: Mapping[str, object]) -> str | None:
    """The family of the model that a `config.json` names; None if it names none."""
    name = config.get("model_type")
    return name if isinstance(name, str) and _MODEL_TYPE.fullmatch(name) else None


def model_weights(repo: Repo, folder: str, config: dict[str, object]) -> Weights:
    """The weights that `PreTrainedModel.from_pretrained` loads from `folder`.

    Args:
        config: the content of its `config.json`, as far as it is known.

    Raises:
        RepoError: of a kind that says what is there instead.
    """
    explicit = config.get("transformers_weights")
    if explicit is not None:
        return _explicit_weights(repo, folder, explicit)
    variant = repo.variant
    weights = find_weights(repo, folder, TRANSFORMERS, variant)
    if weights is None and variant is not None and find_weights(repo, folder, TRANSFORMERS, None):
        raise variant_not_found(repo, [folder])
    if weights is None:
        raise no_weights(repo, folder)
    return weights


def _explicit_weights(repo: Repo, folder: str, name: object) -> Weights:
    config_path = join(folder, "config.json")
    if not isinstance(name, str) or not name.endswith((".safetensors", ".safetensors.index.json")):
        raise malformed(config_path, "has a transformers_weights that is not a safetensors file")
    check_safe(name, where=f"The file {quote(config_path)}")
    paths = repo.existing(folder, name)
    if not paths:
        raise malformed(config_path, f"names the weights {quote(name)}, which are not there")
    if name.endswith(".json"):
        return from_index(repo, paths[0], nested=True)
    return Weights((paths[0],))


def config_files(repo: Repo, folder: str) -> list[str]:
    """The configuration of the model in `folder`."""
    names = [name for name in repo.names(folder) if _VERSIONED_CONFIG.fullmatch(name)]
    return repo.existing(folder, "config.json", "generation_config.json", *names)


_OPENED_BESIDES = frozenset({"spk_dict.pt"})
"""What a class opens in its `from_pretrained` beside its weights: the voices of Qwen2.5-Omni, read
with torch's restricted unpickler, without which it cannot be built."""


def processing_files(repo: Repo, folder: str) -> list[str]:
    """Everything in `folder` that a tokenizer, processor or feature extractor opens."""
    names = [
        name
        for name in repo.names(folder)
        if name in _PROCESSING | _OPENED_BESIDES or _VERSIONED_TOKENIZER.fullmatch(name)
    ]
    templates = join(folder, "additional_chat_templates")
    jinja = [name for name in repo.names(templates) if name.endswith(".jinja")]
    return repo.existing(folder, *names) + repo.existing(templates, *jinja)


def code_files(repo: Repo, folder: str) -> list[str]:
    """Python files that the configurations in `folder` name, and what they may open.

    Without trust_remote_code none: the library then takes its own class, or says what is missing.

    Raises:
        RepoError: what they name is not there, or in a repository that cannot be taken.
    """
    if not repo.trust_remote_code:
        return []
    uses_code = False
    elsewhere: list[str] = []
    for path in repo.existing(folder, *_CODE_MAPS):
        content = repo.read_object(path) or {}
        for reference in (*_strings(content.get("auto_map")), *_own_pipelines(content)):
            place, module, _ = split_reference(reference)
            uses_code = uses_code or place in ("", repo.repo_id)
            if place:
                elsewhere += code_of(repo, place, module, where=path)
    custom = join(repo.root, "custom_generate")
    found = [*repo.existing(custom, "generate.py", "requirements.txt"), *dict.fromkeys(elsewhere)]
    if not uses_code:
        return found
    names = [
        name for name in repo.names(folder) if name.endswith(_CODE_DATA) and ".index." not in name
    ]
    return repo.existing(folder, *names) + found


def untrusted_code(repo: Repo, folder: str, config: Mapping[str, object]) -> tuple[str, ...]:
    """Python files that a configuration names and that only trust_remote_code would fetch, sorted.

    Args:
        folder: of the configuration.
        config: the content of a `config.json`.
    """
    if repo.trust_remote_code:
        return ()
    paths: set[str] = set()
    for reference in _strings(config.get("auto_map")):
        place, other, name = reference.rpartition("--")
        module = name.rpartition(".")[0]
        if module and other:
            paths.add(f"{place}--{module}.py")
        elif module:
            paths.update(repo.existing(folder, f"{module}.py"))
    return tuple(sorted(paths))


def _own_pipelines(config: Mapping[str, object]) -> list[str]:
    """The classes of pipelines for tasks of its own that a `config.json` names."""
    custom = config.get("custom_pipelines")
    entries = custom.values() if isinstance(custom, dict) else ()
    named = [entry.get("impl") for entry in entries if isinstance(entry, dict)]
    return [name for name in named if isinstance(name, str)]


def _strings(value: object) -> list[str]:
    """The class references in an `auto_map`: strings, or pairs of a slow and a fast tokenizer."""
    values = value.values() if isinstance(value, dict) else []
    flat = [item for entry in values for item in (entry if isinstance(entry, list) else [entry])]
    return [item for item in flat if isinstance(item, str)]


# -- adapters --------------------------------------------------------------------------------------

ADAPTER_CONFIG = "adapter_config.json"

BASE = "base-model"
"""The role of a repository whose model is adapted."""

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")  # the first that is there

# `inject_adapter_in_model` of PEFT 0.15 to 0.20 refuses them: they wrap the whole model.
_WRAPPING = frozenset(
    {
        "ADAPTION_PROMPT",
        "CARTRIDGE",
        "CPT",
        "MULTITASK_PROMPT_TUNING",
        "PREFIX_TUNING",
        "PROMPT_TUNING",
        "P_TUNING",
        "SHADOW",
    }
)

# Heads that an adapter trains itself: the base model's own task is another one.
_TASKS = {"SEQ_CLS": "text-classification", "TOKEN_CLS": "token-classification"}


def adapter(repo: Repo, folder: str, *, wraps: bool = False) -> Component | None:
    """The adapter in a folder; None if there is none.

    Args:
        wraps: whether one is taken that wraps its model, as peft's own classes do.

    Raises:
        NoWeightsError: there is its configuration alone.
        UnsupportedRepoError: transformers does not load adapters of its kind.
    """
    config_path = join(folder, ADAPTER_CONFIG)
    if config_path not in repo.paths:
        return None
    weights = repo.existing(folder, *_WEIGHTS)[:1]
    if not weights:
        raise NoWeightsError(
            f"{quote(repo.repo_id)} has the configuration of an adapter, but none of its weights.",
            hint="Try another revision (revision=...).",
        )
    config = repo.read_object(config_path) or {}
    kind = config.get("peft_type")
    if isinstance(kind, str) and kind in _WRAPPING and not wraps:
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} is an adapter of the kind {quote(kind)}, which transformers "
            "does not load.",
            hint=f'Load it with PEFT: nbloader.load("{repo.repo_id}", cls="{auto_class(config)}")',
        )
    return Component(
        name="adapter",
        library="peft",
        paths=tuple(sorted([config_path, *weights])),
        weights=tuple(weights),
        needs=("peft",),
    )


def base_of(repo: Repo, folder: str) -> Repo | None:
    """The repository with the model that the adapter in a folder adapts; perhaps `repo` itself.

    None as long as that is not known, or it is not listed.

    Raises:
        RepoError: it names none, or one that holds no model of transformers.
    """
    where = join(folder, ADAPTER_CONFIG)
    config = repo.read_object(where)
    if config is None:
        return None
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if repo.existing(folder, "config.json") and not _is_other(name, repo):
        # As it was saved: beside the whole model, with the name of the folder it was saved in.
        return repo
    if not (is_repo_id(name) or (repo.folder and is_path(name))):
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} is an adapter, and its base model is named by no repository: "
            f"{quote(name)}.",
            hint="Load the base model that its card names, then model.load_adapter("
            f'"{repo.repo_id}").',
        )
    if name == repo.repo_id:
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} is an adapter that names itself as its base model.",
            hint="Tell the repository's author.",
        )
    reference = Reference(
        repo_id=name,
        role=BASE,
        revision=revision if isinstance(revision, str) and revision else None,
    )
    base = companion(repo, reference, where=where)
    if base is not None:
        _check_base(repo, base)
    return base


def _is_other(name: object, repo: Repo) -> TypeGuard[str]:
    return is_repo_id(name) and name != repo.repo_id


def _check_base(repo: Repo, base: Repo) -> None:
    """Refuse a base that has no model of transformers."""
    if base.existing(base.root, "config.json"):
        return
    if base.existing(base.root, "model_index.json"):
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} is an adapter for {quote(base.repo_id)}, a pipeline of "
            "diffusers.",
            hint=f'Load that one with it: nbloader.load("{base.repo_id}", '
            f'adapters="{repo.repo_id}").',
        )
    what = "an adapter itself" if base.existing(base.root, ADAPTER_CONFIG) else "not a model"
    raise UnsupportedRepoError(
        f"{quote(repo.repo_id)} is an adapter for {quote(base.repo_id)}, which is {what}.",
        hint=f'Load the base model that its card names, then model.load_adapter("{repo.repo_id}").',
    )


def select_adapted(repo: Repo) -> tuple[str | None, list[Component]]:
    """The files of a model of transformers, with the adapter that lies beside it or names it.

    Raises:
        RepoError: of a kind that says why it cannot be loaded.
    """
    own = adapter(repo, repo.root)
    if own is None:
        return select_transformers(repo)
    base = base_of(repo, repo.root)
    if base is None:
        return None, []
    class_name, components = select_transformers(base)
    if base is not repo:
        components = [
            replace(part, name=base.repo_id) if part.name == "model" else part
            for part in components
        ]
        repo.task = _task(repo, base)
    taken = set(own.paths)
    others = [
        replace(part, paths=tuple(path for path in part.paths if path not in taken))
        for part in components
    ]
    return class_name, [*others[:1], own, *others[1:]]


def _task(repo: Repo, base: Repo) -> str | None:
    """What an adapted model is for: what is said of the adapter, else of the base model."""
    config = repo.read_object(join(repo.root, ADAPTER_CONFIG)) or {}
    trained = config.get("task_type")
    return repo.task or (_TASKS.get(trained) if isinstance(trained, str) else None) or base.task
