"""The page of what was compared: what stands there, and that each part leaves the other alone."""

from __future__ import annotations

import pytest

from tests.differential.compatibility import PARTS, page
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
    text = page("", "newest", VERSIONS["newest"], OUTCOMES)
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


@pytest.mark.parametrize("parts", [PARTS, PARTS[::-1]])
def test_each_part_is_written_by_itself(parts: tuple[str, ...]) -> None:
    text = ""
    for part in (*parts, *parts):
        text = page(text, part, VERSIONS[part], OUTCOMES)
    whole = page(
        page("", "newest", VERSIONS["newest"], OUTCOMES), "oldest", VERSIONS["oldest"], OUTCOMES
    )
    assert text == whole
    assert text.count("timm not installed") == text.count("torch 2.13.0") == 1
    assert [text.count(line) for line in ("# What was compared", "**diffusers**")] == [1, 2]
