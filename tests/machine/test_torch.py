from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nbloader.machine import torch_facts
from nbloader.records import TorchFacts
from tests.machine.machines import (
    ARCHS_2_6,
    ARCHS_2_13,
    VERSION_2_6,
    VERSION_2_13,
    VERSION_CPU,
    VERSION_ROCM,
    write,
    write_torch,
)


def test_the_installed_build_is_read_as_it_tells_itself() -> None:
    code = (
        "import json, torch;"
        "flags = getattr(torch._C, '_cuda_getArchFlags', lambda: None)() or '';"
        "print(json.dumps([torch.__version__, torch.version.cuda, torch.version.hip, flags]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, cuda, hip, flags = json.loads(done.stdout)
    assert torch_facts() == TorchFacts(
        version=version,
        cuda=(int(cuda.split(".")[0]), int(cuda.split(".")[1])) if cuda else None,
        archs=tuple(flags.split()) or None,
        hip=hip is not None,
    )


@pytest.mark.parametrize(
    ("version", "archs", "expected"),
    [
        (
            VERSION_2_13,
            ARCHS_2_13,
            TorchFacts(
                version="2.13.0+cu130", cuda=(13, 0), archs=tuple(ARCHS_2_13.split()), hip=False
            ),
        ),
        (
            VERSION_2_6,
            ARCHS_2_6,
            TorchFacts(version="2.6.0+cu124", cuda=(12, 4), archs=tuple(ARCHS_2_6.split())),
        ),
        (VERSION_2_6, "sm_87", TorchFacts(version="2.6.0+cu124", cuda=(12, 4), archs=("sm_87",))),
        (
            VERSION_2_6,
            "compute_52 sm_90a compute_120",
            TorchFacts(
                version="2.6.0+cu124", cuda=(12, 4), archs=("compute_52", "sm_90a", "compute_120")
            ),
        ),
        # A name that stands alone elsewhere is not the list.
        (
            VERSION_2_6,
            "sm_80 sm_90\0sm_50",
            TorchFacts(version="2.6.0+cu124", cuda=(12, 4), archs=("sm_80", "sm_90")),
        ),
        (VERSION_2_6, "nothing", TorchFacts(version="2.6.0+cu124", cuda=(12, 4))),
        (VERSION_2_6, "", TorchFacts(version="2.6.0+cu124", cuda=(12, 4))),
        (VERSION_CPU, ARCHS_2_13, TorchFacts(version="2.13.0+cpu")),
        (VERSION_ROCM, "", TorchFacts(version="2.13.0+rocm6.4", hip=True)),
        ("__version__ = 'unclosed", "", TorchFacts(version="?")),
        ("import os; os._exit(1)", "", TorchFacts(version="?")),
        ("(" * 50_000, "", TorchFacts(version="?")),
        ("__version__ = 3\ncuda = 'x'\na.b = c[0] = 'y'\n\0", "", TorchFacts(version="?")),
        ("__version__ = 3\ncuda = 'x'\na.b = c[0] = 'y'\n", "", TorchFacts(version="?")),
    ],
)
def test_builds(version: str, archs: str, expected: TorchFacts, tmp_path: Path) -> None:
    assert torch_facts(write_torch(tmp_path, version, archs)) == expected


def test_no_torch(tmp_path: Path) -> None:
    assert torch_facts(tmp_path / "torch") is None


def test_an_empty_library(tmp_path: Path) -> None:
    write(tmp_path, {"version.py": VERSION_2_6, "lib/libtorch_python.so": b""})
    assert torch_facts(tmp_path) == TorchFacts(version="2.6.0+cu124", cuda=(12, 4))
