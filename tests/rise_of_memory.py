"""Load a folder on the CPU and print how far this process's own memory rises, as a JSON object.

    python -m tests.rise_of_memory FOLDER DTYPE

The figures are bytes of anonymous memory (RssAnon) above what the process had after the imports:
the peak while it loads and tests itself, and what stays.
"""

from __future__ import annotations

import gc
import json
import re
import sys
import threading
from pathlib import Path

from nbloader import loaders
from nbloader.records import Method, Placement
from tests.models import built, selection_of

EVERY_S = 0.002


def anonymous() -> int:
    """Bytes of anonymous memory of this process."""
    status = Path("/proc/self/status").read_text("ascii")
    [size] = re.findall(r"^RssAnon:\s+(\d+) kB$", status, flags=re.MULTILINE)
    return int(size) * 1024


class Peak:
    """The highest value of `anonymous` from here to `stop`."""

    def __init__(self) -> None:
        self._highest = anonymous()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(EVERY_S):
            self._highest = max(self._highest, anonymous())

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return max(self._highest, anonymous())


def main(folder: Path, dtype: str) -> None:
    selection = selection_of(folder)
    placement = Placement(method=Method.CPU, device="cpu", dtype=dtype)
    loaders.Import(selection).wait(threading.Event())
    gc.collect()
    before = anonymous()
    peak = Peak()
    model = built(selection, folder, placement, {})
    loaders.check_modules(loaders.modules_of(model, selection), placement)
    highest = peak.stop()
    gc.collect()
    json.dump({"peak": highest - before, "after": anonymous() - before}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
