"""What reads foreign bytes, given wrong ones."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

import pytest

from tests.hostile.parsers import PARSERS, wrong_inputs


@pytest.mark.parametrize("name", PARSERS)
def test_right_inputs_are_read(name: str) -> None:
    for content in PARSERS[name].corpus():
        with suppress(*PARSERS[name].raises if name == "settings" else ()):
            PARSERS[name].read(content)


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("seed", range(3))
def test_wrong_inputs_end_as_promised(name: str, seed: int) -> None:
    parser = PARSERS[name]
    for content in islice(wrong_inputs(parser.corpus(), seed), 400):
        with suppress(*parser.raises):
            parser.read(content)
