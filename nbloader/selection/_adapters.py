"""Adapters of PEFT: the files that an adapter has, and the model that it adapts.

The rules are those of `find_adapter_config_file` and `PeftAdapterMixin.load_adapter` of
transformers 5 for a repository of the Hub: an `adapter_config.json` beside the model, or instead of
it, names the base model in `base_model_name_or_path`; that model is loaded, with its own tokenizer,
and the adapter put into it. An adapter may name the repository that it lies in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeGuard

from nbloader.errors import NoWeightsError, UnsupportedRepoError
from nbloader.hub_names import is_repo_id, join
from nbloader.quoting import quote
from nbloader.records import Component, Reference
from nbloader.selection._companions import companion
from nbloader.selection._repo import Repo
from nbloader.selection._transformers import select_transformers

__all__ = ["ADAPTER_CONFIG", "BASE", "adapter", "base_of", "select_adapted"]

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


def adapter(repo: Repo, folder: str) -> Component | None:
    """The adapter in a folder; None if there is none.

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
    kind = (repo.read_object(config_path) or {}).get("peft_type")
    if isinstance(kind, str) and kind in _WRAPPING:
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} is an adapter of the kind {quote(kind)}, which transformers "
            "does not load.",
            hint=f'Load it with PEFT: peft.AutoPeftModel.from_pretrained("{repo.repo_id}")',
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
    if not is_repo_id(name):
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
            hint=f'Load that one, then pipe.load_lora_weights("{repo.repo_id}").',
        )
    what = "an adapter itself" if base.existing(base.root, ADAPTER_CONFIG) else "no model"
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
