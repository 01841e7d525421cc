"""Run nbloader in every environment, and write what came of it to docs/compatibility.md.

python -m tests.compat [--check] [-- pytest's arguments]

With arguments of pytest, such as `-- -k kaggle`, not all may be run, and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import pytest

from tests.differential.__main__ import PAGE
from tests.differential.compatibility import PLACES, page, places


def main() -> int:
    """Return the exit status: 0 if all is right, and with --check if the page says the same."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat")
    parser.add_argument("--check", action="store_true", help="write nothing: compare the page")
    parser.add_argument("arguments", nargs="*", help="of pytest")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcomes.json"
        room = "tests/compat/test_environments.py"
        if pytest.main([room, f"--outcomes={file}", *given.arguments]):
            sys.stderr.write("Something is wrong: the page of what was run stays as it is.\n")
            return 1
        rows = json.loads(file.read_text("utf-8"))
    if given.arguments:
        return 0
    old = PAGE.read_text("utf-8")
    new = page(old, PLACES, places(rows))
    if given.check:
        if new != old:
            sys.stderr.write(f"{PAGE.name} is not what was run. Run: make test-compat\n")
        return int(new != old)
    PAGE.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
