"""Tasks as the files of transformers tell them, against what the library itself says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbloader.libraries import class_facts
from nbloader.libraries.sources import Sources
from nbloader.libraries.transformers import Task, tasks
from nbloader.loaders import quiet
from nbloader.records import ClassFacts, Component, Kind, RepoFile, Selection


@pytest.fixture(scope="module")
def known() -> dict[str, Task]:
    import transformers

    found = tasks(Sources(Path(transformers.__file__).parent))
    assert found is not None
    return found


def test_the_tasks_are_those_of_the_library(known: dict[str, Task]) -> None:
    from transformers.pipelines import check_task, get_supported_tasks

    assert set(get_supported_tasks()) <= set(known)
    with quiet():  # It warns of names that it has replaced.
        named = {name: check_task(name)[0] for name in known}
    assert {name: task.name for name, task in known.items()} == named


def test_the_classes_of_a_task_are_those_that_its_auto_classes_build(
    known: dict[str, Task],
) -> None:
    from transformers.pipelines import SUPPORTED_TASKS

    def names(auto: Any) -> set[str]:
        entries = auto._model_mapping._model_mapping.values()
        return {
            name
            for entry in entries
            for name in (entry if isinstance(entry, (tuple, list)) else (entry,))
        }

    for name, facts in SUPPORTED_TASKS.items():
        built = {each for auto in facts["pt"] for each in names(auto)}
        families = {each for auto in facts["pt"] for each in auto._model_mapping._model_mapping}
        assert {each for each in built if not known[name].builds(each)} == set(), name
        assert {each for each in families if not known[name].takes(each)} == set(), name
    assert not known["fill-mask"].builds("BertForSequenceClassification")
    assert not known["fill-mask"].takes("vit")


def selection(
    class_name: str | None, family: str | None, *, files: tuple[str, ...] = (), **changes: Any
) -> Selection:
    names = ("config.json", "model.safetensors", *files)
    return Selection(
        repo_id="org/name",
        revision="main",
        commit_hash="0" * 40,
        kind=Kind.TRANSFORMERS,
        class_name=class_name,
        components=(
            Component(
                name="model",
                library="transformers",
                class_name=class_name,
                model_type=family,
                paths=names,
            ),
        ),
        files=tuple(RepoFile(path=name, size=1, etag="0" * 40) for name in names),
        **changes,
    )


def fact(name: str, found: bool | None, *needs: str) -> ClassFacts:
    return ClassFacts(library="transformers", name=name, found=found, needs=needs)


BERT = fact("bert", True)
VIDEO = fact("the pipeline video-classification", True, "av")


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (selection("BertModel", "bert"), [BERT]),
        (
            selection("BertForQuestionAnswering", "bert"),
            [BERT, fact("BertForQuestionAnswering", True)],
        ),
        (selection("OfTomorrow", "bert"), [BERT, fact("OfTomorrow", False)]),
        (selection("OfTomorrow", "bert", custom_code=True), [BERT, fact("OfTomorrow", None)]),
        # The library builds what it has for the family, if a task says so.
        (selection("OfTomorrow", "bert", task="fill-mask"), [BERT]),
        (selection("OfTomorrow", "bert", task="summarization"), [BERT, fact("OfTomorrow", False)]),
        (selection("BertModel", "bert", task="summarization"), [BERT]),
        (
            selection("BertModel", "bert", task="summarization", task_asked=True),
            [BERT, fact("summarization", False)],
        ),
        (selection("BertModel", "bert", task="ner", task_asked=True), [BERT, fact("ner", True)]),
        (
            selection(
                "VideoMAEForVideoClassification", "videomae", files=("preprocessor_config.json",)
            ),
            [fact("videomae", True), VIDEO],
        ),
        (selection("VideoMAEForVideoClassification", "videomae"), [fact("videomae", True)]),
    ],
)
def test_a_selection_names_what_its_task_needs(of: Selection, expected: list[ClassFacts]) -> None:
    assert list(class_facts(of)) == expected


def test_without_the_library_nothing_is_known_of_a_task() -> None:
    facts = class_facts(selection("BertModel", "bert", task="ner"), find=lambda _name: None)
    assert facts == (fact("bert", None),)
