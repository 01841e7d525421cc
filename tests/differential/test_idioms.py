"""Each line of docs/idioms.md gives what the library's lines beside it give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.differential.idioms import Idiom, idioms

TIMEOUT_S = 900
"""Of all rows together; they take less than three minutes on two cores."""

FORESEEN = {"does-not-fit", "missing-package", "no torchao"}
"""What has to be said of a line that cannot run here."""


@pytest.fixture(scope="session")
def came_of_idioms(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Mapping[str, Any]]:
    """What came of the rows that are asked for, by their ids, and `stderr`."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [call.params["idiom"].id for call in calls if call and "idiom" in call.params]
    folder = tmp_path_factory.mktemp("idioms")
    done = subprocess.run(
        [sys.executable, "-m", "tests.differential.idioms", folder / "all", *chosen],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=Path(__file__).parents[2],
        env=os.environ,
        check=False,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    return {outcome["id"]: outcome for outcome in outcomes} | {"": {"stderr": done.stderr}}


def test_it_is_what_the_library_makes_of_it(
    idiom: Idiom, came_of_idioms: Mapping[str, Mapping[str, Any]]
) -> None:
    outcome = came_of_idioms.get(idiom.id)
    assert outcome is not None, came_of_idioms[""]["stderr"][-3000:]
    if found := outcome["differences"]:
        pytest.fail("\n".join(found), pytrace=False)
    if not outcome["made"]:
        assert idiom.needs
        assert set(outcome["refused"]) & FORESEEN
    else:
        assert outcome["served"] <= 1.01 * outcome["wanted"]


def test_every_row_is_told_apart() -> None:
    rows = idioms()
    assert [name for name, count in Counter(row.id for row in rows).items() if count > 1] == []
    assert [row.what for row in rows if not (row.theirs and row.ours)] == []


def test_what_a_row_says() -> None:
    page = """
| To load | The library's lines | nbloader's line |
|---|---|---|
| A `pair` (needs a GPU) | `a, b = C.f("x")`<br>`a.to("cuda")` | `a, b = nbloader.load("x")` |

| Not this | one | `a = 1` |
|---|---|---|
| A row | `of` | `another` |
"""
    (row,) = idioms(page)
    assert row == Idiom(
        what="A pair (needs a GPU)",
        theirs='a, b = C.f("x")\na.to("cuda")',
        ours='a, b = nbloader.load("x")',
        needs="a GPU",
    )
    assert (row.id, row.names) == ("a-pair-needs-a-gpu", ("a", "b"))
