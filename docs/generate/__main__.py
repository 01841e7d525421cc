"""Write what pages take from the code: `python -m docs.generate settings`."""

from __future__ import annotations

import sys

from docs.generate import PARTS


def main() -> int:
    """Write the parts that are named, or say which there are."""
    names = sys.argv[1:]
    if not names or set(names) - set(PARTS):
        sys.stderr.write(f"usage: python -m docs.generate {' | '.join(PARTS)}\n")
        return 2
    sys.stdout.writelines(PARTS[name]() + "\n" for name in names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
