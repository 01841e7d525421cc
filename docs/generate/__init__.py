"""What pages of the documentation take from the code, so that it cannot go stale.

A page holds two marks, `<!-- generated: settings -->` and `<!-- end -->`; the site has the table of
that name between them. What is Markdown alone stands in the pages, too, for those who read them on
a code host: `python -m docs.generate` writes it there, `python -m docs.generate settings` to a
terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from docs.generate import api, errors, events, limits, settings

__all__ = ["PARTS", "STORED", "filled"]

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

STORED = frozenset({"errors", "events", "settings"})
"""What the pages hold. The others need what only the site has: its styles, its signatures."""

_MARKED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(markdown: str, names: Collection[str] = tuple(PARTS)) -> str:
    """Return a page with what stands between its marks replaced.

    Args:
        names: of the parts that are replaced.

    Raises:
        KeyError: a mark names nothing that can be generated.
    """

    def replaced(marked: re.Match[str]) -> str:
        begin, name, end = marked.groups()
        written = PARTS[name]
        return f"{begin}\n{written().strip()}\n\n{end}" if name in names else marked[0]

    return _MARKED.sub(replaced, markdown)
