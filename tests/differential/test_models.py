"""What nbloader loads is what the library's own call makes of the same files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.differential.conftest import all_cases
from tests.differential.harness import Case, Outcome


def test_it_is_what_the_library_makes_of_it(case: Case, checked: Callable[[Case], Outcome]) -> None:
    if found := checked(case).differences:
        pytest.fail("\n".join(found), pytrace=False)  # all of them, not the first line of a diff


def test_every_case_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(c.id for c in all_cases()).items() if count > 1] == []
