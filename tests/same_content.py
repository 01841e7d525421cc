"""A report in three forms, each of which has to carry all of it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from nbloader.views import Section

__all__ = ["assert_same_content"]


def assert_same_content(
    sections: tuple[Section, ...], text: str, markup: str, values: Mapping[str, Any]
) -> None:
    """All three forms carry every row of every section."""
    values = json.loads(json.dumps(values))
    assert any(section.rows for section in sections)
    for section in sections:
        found = values[section.key]
        assert isinstance(found, dict)
        texts = [each["text"] if isinstance(each, dict) else each for each in found.values()]
        assert texts == [row.text for row in section.rows]
        for row in section.rows:
            assert row.name in found
            assert row.name in text
            assert row.text in text
            assert html.escape(row.name) in markup
            assert html.escape(row.text) in markup
