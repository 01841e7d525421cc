"""Write what pages take from the code into them, or what is named to a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generate import PARTS, STORED, filled

PAGES = Path(__file__).parents[1]


def main() -> int:
    """Write the parts that are named; without a name, those that the pages hold."""
    names = sys.argv[1:]
    if set(names) - set(PARTS):
        sys.stderr.write(f"usage: python -m docs.generate [{' | '.join(PARTS)}]\n")
        return 2
    if not names:
        for page in PAGES.glob("*.md"):
            page.write_text(filled(page.read_text("utf-8"), STORED), "utf-8")
    sys.stdout.writelines(PARTS[name]() + "\n" for name in names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
