"""Run the tutorials in one environment: `python -m tests.compat.client ROOT`.

The last line on stdout is JSON: the kinds of outputs by notebook.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.notebook_runs import NOTEBOOKS, execute, serving

__all__ = ["tutorials"]


def tutorials(root: Path) -> dict[str, list[str]]:
    """Run every notebook as a batch run does, against the demo repositories below a folder.

    Returns:
        By notebook the kinds of its outputs: the name of a stream, or the type.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    found = {}
    with serving(root) as environment:
        for path in NOTEBOOKS:
            cells = execute(path, environment).cells
            outputs = [output for cell in cells for output in cell.get("outputs", ())]
            found[path.stem] = sorted({each.get("name", each.output_type) for each in outputs})
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(tutorials(Path(sys.argv[1]))) + "\n")
