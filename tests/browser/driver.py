"""A driver of NVIDIA's that tells of one GPU, on machines that have none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["build_driver"]

BUILD_TIMEOUT_S = 60


def build_driver(folder: Path) -> str:
    """Compile `driver.c` as the library that NVML is looked for in, and give a search path.

    Nobody sees the GPU while `CUDA_VISIBLE_DEVICES` is empty.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.fail("A C compiler is missing. On Debian and Ubuntu, run: apt-get install gcc")
    folder.mkdir()
    source = Path(__file__).with_name("driver.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(source)],
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    before = os.environ.get("LD_LIBRARY_PATH")
    return os.pathsep.join(filter(None, (str(folder), before)))
