"""The page of what was compared: what stands there, and that each part leaves the other alone."""

from __future__ import annotations

import pytest

from tests.differential.compatibility import PARTS, PLACES, compared, page, places
from tests.differential.harness import Outcome

VERSIONS = {"newest": {"torch": "2.13.0"}, "oldest": {"torch": "2.6.0", "timm": "not installed"}}


def outcome(kind: str, made: str | None, group: str, called: bool = False) -> dict[str, object]:
    refused = None if made else "missing-tensors"
    return {"kind": kind, "made": made, "group": group, "called": called, "refused": refused}


OUTCOMES = [
    outcome("transformers", "TextGenerationPipeline", "text-generation", called=True),
    outcome("transformers", None, "missing-tensors"),
    outcome("transformers", "TextGenerationPipeline", "text-generation"),
    outcome("diffusers", "FluxPipeline", "FluxPipeline", called=True),
]


def test_it_says_what_was_compared() -> None:
    assert set(OUTCOMES[0]) < set(Outcome.__slots__)
    text = page("", "newest", compared(VERSIONS["newest"], OUTCOMES))
    assert text.partition("\n\n## ")[2] == (
        "The versions of constraints.txt\n\n"
        "torch 2.13.0.\n\n"
        "| Library | Loaded and compared | With a call | Classes | Refused, as it has to be | "
        "Differences |\n|---|---|---|---|---|---|\n"
        "| diffusers | 1 | 1 | 1 | 0 | none |\n"
        "| transformers | 2 | 1 | 1 | 1 | none |\n\n"
        "**diffusers**: FluxPipeline.\n\n"
        "**transformers**: missing-tensors, text-generation (2).\n"
    )


ROW = {
    "name": "Colab",
    "versions": {
        "python": "3.12.1",
        "ipywidgets": "7.7.1",
        "huggingface-hub": "1.27.0",
        "hf-xet": "1.6.0",
        "transformers": "5.15.0",
        "diffusers": "0.39.0",
        "sentence-transformers": "5.7.0",
        "torch": "2.13.0+cu130",
    },
    "changed": [],
    "tutorials": 2,
    "models": 8,
    "refused": 19,
}


def test_it_says_what_was_run_where() -> None:
    kaggle = ROW | {"name": "Kaggle", "changed": ["hf-xet"]}
    assert places([ROW, kaggle]).partition("\n\n")[2] == (
        "|  | Colab | Kaggle |\n"
        "| --- | --- | --- |\n"
        "| Python | 3.12 | 3.12 |\n"
        "| ipywidgets | 7.7.1 | 7.7.1 |\n"
        "| huggingface_hub | 1.27.0 | 1.27.0 |\n"
        "| hf-xet | 1.6.0 | 1.6.0 |\n"
        "| transformers | 5.15.0 | 5.15.0 |\n"
        "| diffusers | 0.39.0 | 0.39.0 |\n"
        "| sentence-transformers | 5.7.0 | 5.7.0 |\n"
        "| torch | 2.13.0 | 2.13.0 |\n"
        "| Changed by installing nbloader | nothing | hf-xet |\n"
        "| Demo | runs | runs |\n"
        "| Tutorials | 2 run | 2 run |\n"
        "| Models | 8 the same, 19 refused | 8 the same, 19 refused |\n"
        "| Views, front ends | pass | pass |\n"
    )


TEXTS = {part: compared(VERSIONS[part], OUTCOMES) for part in PARTS} | {PLACES: places([ROW])}


@pytest.mark.parametrize("parts", [[*TEXTS], [*TEXTS][::-1]])
def test_each_part_is_written_by_itself(parts: list[str]) -> None:
    text = ""
    for part in (*parts, *parts):
        text = page(text, part, TEXTS[part])
    whole = ""
    for part in TEXTS:
        whole = page(whole, part, TEXTS[part])
    assert text == whole
    assert text.count("timm not installed") == text.count("torch 2.13.0") == 1
    assert text.count("| Colab |") == 1
    assert [text.count(line) for line in ("# What was compared", "**diffusers**")] == [1, 2]
