"""Uploads with the real client, in a process of its own (`__main__`).

The client reads its settings once a process, keeps the memory that it has taken, and has a folder
of known shards, which would belong to one server only.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

from nbloader.localhub.child import child_environment, module_command

__all__ = ["upload"]

_SETTINGS = {
    "HF_XET_TELEMETRY_ENABLED": "false",
    # The default of 8 takes more than 1 GB of memory, and is no faster on two cores.
    "HF_XET_DATA_MAX_CONCURRENT_FILE_INGESTION": "2",
}


def upload(plan: Mapping[str, Any], timeout_s: float) -> None:
    """Upload the files of a plan: what the control route for uploads answers.

    Raises:
        subprocess.CalledProcessError: the client failed; `stderr` has its words.
        subprocess.TimeoutExpired: it took longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="localhub-xet-") as home:
        inherited = {name: os.environ[name] for name in os.environ if not name.startswith("HF_")}
        subprocess.run(
            module_command("nbloader.localhub.xet"),
            input=json.dumps(plan).encode(),
            capture_output=True,
            env=child_environment(inherited | _SETTINGS | {"HF_HOME": home}),
            timeout=timeout_s,
            check=True,
        )
