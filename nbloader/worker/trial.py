"""The process of a trial. Run as `python -P -m nbloader.worker.trial PARENT_PID [NICE]`.

Reads from stdin a line with the task, and then one with the folder; writes one line with the answer
to what was stdout when it started: `{}` for a model, an error by its parts, or why there is
neither.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nbloader.trial import Task
from nbloader.worker.process import end_with_parent, run, take_streams

_NO_MEMORY = "DefaultCPUAllocator"
"""What torch says where an allocation fails."""


def main() -> None:
    """Import, build and answer."""
    commands, answers = take_streams()
    end_with_parent(int(sys.argv[1]))
    for more in sys.argv[2:]:
        with suppress(OSError, AttributeError):  # Windows has no such number.
            os.nice(int(more))
    from pydantic import TypeAdapter

    from nbloader.loaders import Import

    task = TypeAdapter(Task).validate_json(commands.readline())
    importing = Import(task.selection)  # while the parent has the headers read
    folder = Path(json.loads(commands.readline()))
    answers.write(json.dumps(answer(task, folder, importing.wait)).encode() + b"\n")
    answers.flush()


def answer(task: Task, folder: Path, imported: Callable[[], object]) -> dict[str, str]:
    """Build a task of a folder, and say what came of it.

    Args:
        imported: waits for the libraries; raises where they cannot be imported.
    """
    from nbloader.errors import NbloaderError
    from nbloader.loaders import Building

    try:
        imported()
        building = Building(
            task.selection, folder, task.placement, task.loader_kwargs, attention=task.attention
        )
        try:
            while building.step():
                pass
        finally:
            building.close(collect=False)
    except NbloaderError as error:
        if isinstance(error.__cause__, MemoryError) or _NO_MEMORY in str(error.__cause__):
            return {"unmade": "memory is short"}
        return {"reference": error.reference, "message": error.message, "hint": error.hint}
    except Exception as error:  # What is wrong here may be right in a load.
        told = traceback.format_exception_only(error)[-1].strip()
        return {"unmade": f"it ended with {told[:200]}"}
    return {}


if __name__ == "__main__":
    run(main)
