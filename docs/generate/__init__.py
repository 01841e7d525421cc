"""What pages of the documentation take from the code, so that it cannot go stale.

A page holds a mark, `<!-- generated: settings -->`, where the site has the table of that name.
`python -m docs.generate settings` writes the same to a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from docs.generate import api, errors, events, limits, settings

__all__ = ["PARTS", "filled"]

PARTS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "calls": api.calls,
        "errors": errors.markdown,
        "events": events.markdown,
        "limits": limits.markdown,
        "results": api.results,
        "settings": settings.markdown,
    }
)
"""What can be generated, by the name that a mark has; each gives Markdown."""

_MARK = re.compile(r"<!-- generated: ([a-z-]+) -->")


def filled(markdown: str) -> str:
    """Return a page with its marks replaced.

    Raises:
        KeyError: a mark names nothing that can be generated.
    """
    return _MARK.sub(lambda mark: PARTS[mark[1]](), markdown)
