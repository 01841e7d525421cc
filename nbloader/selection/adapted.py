"""Classes of peft, and the class of the model that each of them puts its adapter on.

The rules are those of `_BaseAutoPeftModel.from_pretrained` of peft 0.15 to 0.21. Those of its
classes that are no auto classes, such as `PeftModel`, take a model that is there already; which
class that is of, nobody but its user says. Here it is the one that the adapter was trained on, as
far as its configuration tells: by its task, by the class that it names, by the base itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from nbloader.errors import UnsupportedRepoError
from nbloader.selection.repo import Repo, is_name
from nbloader.text import quote

_HEADS = {
    "CAUSAL_LM": "ForCausalLM",
    "FEATURE_EXTRACTION": "ForFeatureExtraction",
    "QUESTION_ANS": "ForQuestionAnswering",
    "SEQ_2_SEQ_LM": "ForSeq2SeqLM",
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
}
"""The ends of the names of the classes for each task (a test compares this with peft)."""

_AUTO = "AutoPeftModel"
_LIBRARY = "transformers"


def check_adapted(repo: Repo, config: Mapping[str, object], class_name: str) -> None:
    """Refuse an adapter that an auto class of peft does not take.

    Args:
        config: that of the adapter.

    Raises:
        UnsupportedRepoError: it is for another task, or does not say which class it is for.
    """
    if not class_name.startswith(_AUTO):
        return
    head, asked = _head(config), class_name.removeprefix(_AUTO)
    if head is None:
        if _mapped(config) is None:
            raise UnsupportedRepoError(
                f"{class_name} cannot tell which class {quote(repo.repo_id)} is for: its "
                "configuration names neither a task nor a class.",
                hint='cls="PeftModel" takes the class that the base model names.',
            )
    elif head != asked:
        raise UnsupportedRepoError(
            f"{class_name} does not take {quote(repo.repo_id)}, an adapter for the task "
            f"{quote(config['task_type'])}.",
            hint=f'Load it with cls="{auto_class(config)}".',
        )


def auto_class(config: Mapping[str, object]) -> str:
    """Name the auto class of peft that takes an adapter."""
    head = _head(config)
    if head is None and _mapped(config) is None:
        return "PeftModel"
    return f"{_AUTO}{head or ''}"


def adapted_class(class_name: str, config: Mapping[str, object], architecture: str) -> str:
    """Name the class of transformers for the base model.

    Args:
        class_name: of peft.
        config: that of the adapter.
        architecture: the class that the base model names; empty if it names none.
    """
    head = _head(config)
    if head is None and (named := _mapped(config)):
        return named
    if head is None:
        asked = class_name.removeprefix("Auto").removeprefix("PeftModel")
        head = asked if asked in _HEADS.values() else None
    if head is None:
        return architecture or "AutoModel"
    return "AutoModel" if head == _HEADS["FEATURE_EXTRACTION"] else f"AutoModel{head}"


def _head(config: Mapping[str, object]) -> str | None:
    task = config.get("task_type")
    return _HEADS.get(task) if isinstance(task, str) else None


def _mapped(config: Mapping[str, object]) -> str | None:
    """The class of transformers that an adapter without a task was trained on."""
    match config.get("auto_mapping"):
        case {"parent_library": str(library), "base_model_class": str(name)} if is_name(name):
            return name if library.partition(".")[0] == _LIBRARY else None
    return None
