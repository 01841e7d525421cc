"""Run the whole suite in a few processes, and write what was compared to docs/compatibility.md.

python -m tests.differential [--check] [--processes N] [--part oldest] [-- pytest's arguments]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.differential.compatibility import PARTS, compared, page, versions

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"

MAX_PROCESSES = 4
"""Each holds all libraries, which is a gigabyte."""


def main() -> int:
    """Return the exit status: 0 if nothing differs, and with --check if the page says the same."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("--check", action="store_true", help="write nothing: compare the page")
    parser.add_argument("--part", choices=PARTS, default=PARTS[0], help="of the page")
    parser.add_argument(
        "--processes", type=int, default=min(MAX_PROCESSES, os.cpu_count() or 1), help="at once"
    )
    parser.add_argument(
        "--straight", action="store_true", help="read weights straight, too: twice as long"
    )
    parser.add_argument("arguments", nargs="*", help="of pytest")
    given = parser.parse_args()
    oldest = given.part == "oldest"
    parts = 1 if oldest else given.processes
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.json" for number in range(1, parts + 1)]
        running = [
            subprocess.Popen(
                [
                    sys.executable,
                    *(
                        "-m",
                        "pytest",
                        "--quiet",
                        "-p",
                        "no:cacheprovider",
                        "tests/differential/test_models.py",
                        *(["tests/differential/test_straight.py"] if given.straight else []),
                        *([] if oldest else ["tests/differential/test_idioms.py"]),
                    ),
                    f"--models={'oldest' if oldest else f'{number}/{parts}'}",
                    f"--outcomes={file}",
                    *given.arguments,
                ]
            )
            for number, file in enumerate(files, 1)
        ]
        failed = [process.args for process in running if process.wait()]
        if failed:
            sys.stderr.write("Something differs: the page of what was compared stays as it is.\n")
            return 1
        outcomes = [entry for file in files for entry in json.loads(file.read_text("utf-8"))]
    old = PAGE.read_text("utf-8") if PAGE.exists() else ""
    new = page(old, given.part, compared(versions(), outcomes))
    if given.check:
        if new != old:
            sys.stderr.write(f"{PAGE.name} is not what was compared. Run: make test-models\n")
        return int(new != old)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
