"""The command line: `nbloader demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nbloader._version import __version__
from nbloader.errors import NbloaderError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status: 0 done, 1 failed, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="nbloader", description="Download a model and load it, in one line."
    )
    parser.add_argument("--version", action="version", version=f"nbloader {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="load two models from a local Hub, without internet")
    demo.add_argument(
        "--folder",
        type=Path,
        default=Path("demo"),
        help="where the edited image and the served repositories go (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    try:
        from nbloader.demo import run

        run(options.folder, sys.stdout)
    except NbloaderError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
