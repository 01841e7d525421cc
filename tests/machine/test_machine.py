"""Whole machines: what is read on each, and what must come out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbloader.machine import facts, machine_facts, memory, memory_facts, torch_facts
from nbloader.machine.gpus import NvmlSnapshot
from nbloader.notebook.kernel import Kernel
from nbloader.records import (
    DriverFacts,
    GpuFacts,
    Interface,
    MachineFacts,
    MemoryFacts,
    PackageFacts,
    Place,
    PlaceFacts,
    TorchFacts,
)
from tests.machine.machines import (
    ARCHS_2_6,
    ARCHS_2_13,
    GIB,
    P100,
    SECOND_T4,
    T4,
    VERSION_2_6,
    VERSION_2_13,
    VERSION_CPU,
    Machine,
    facts_of,
    v1,
    v2,
)

T4_FACTS = GpuFacts(
    name="Tesla T4", free=15_642_329_088, total=16_106_127_360, capability=(7, 5), source="NVML"
)
SECOND_T4_FACTS = GpuFacts(
    name="Tesla T4", free=16_106_127_360, total=16_106_127_360, capability=(7, 5), source="NVML"
)
TORCH_2_13 = TorchFacts(
    version="2.13.0+cu130", cuda=(13, 0), archs=tuple(ARCHS_2_13.split()), hip=False
)
TORCH_2_6 = TorchFacts(
    version="2.6.0+cu124", cuda=(12, 4), archs=tuple(ARCHS_2_6.split()), hip=False
)
KAGGLE_MEMORY = MemoryFacts(available=30 * GIB, total=33_669_922_816)

MACHINES = {
    "Colab, T4": (
        Machine(
            environ={"COLAB_RELEASE_TAG": "release", "COLAB_GPU": "1", "VSCODE_CWD": "/"},
            kernel=Kernel(names=["In", "Out"]),
            memory=MemoryFacts(available=12 * GIB, total=13_609_431_040),
            nvml=NvmlSnapshot(driver="550.54.15", cuda=12040, devices=(T4,)),
            torch=(VERSION_2_6, ARCHS_2_6),
        ),
        MachineFacts(
            place=PlaceFacts(
                place=Place.COLAB, interface=Interface.JUPYTER, source="COLAB_RELEASE_TAG, kernel"
            ),
            memory=MemoryFacts(available=12 * GIB, total=13_609_431_040, source="psutil"),
            gpus=(T4_FACTS,),
            driver=DriverFacts(version="550.54.15", cuda=(12, 4)),
            torch=TORCH_2_6,
        ),
    ),
    "Kaggle, two T4, someone at it": (
        Machine(
            environ={"COLAB_GPU": "", "KAGGLE_KERNEL_RUN_TYPE": "Interactive"},
            kernel=Kernel(),
            memory=KAGGLE_MEMORY,
            nvml=NvmlSnapshot(driver="560.35.03", cuda=12060, devices=(T4, SECOND_T4)),
            torch=(VERSION_2_6, ARCHS_2_6),
        ),
        MachineFacts(
            place=PlaceFacts(
                place=Place.KAGGLE,
                interface=Interface.JUPYTER,
                source="KAGGLE_KERNEL_RUN_TYPE, kernel",
            ),
            memory=KAGGLE_MEMORY,
            gpus=(T4_FACTS, SECOND_T4_FACTS),
            driver=DriverFacts(version="560.35.03", cuda=(12, 6)),
            torch=TORCH_2_6,
        ),
    ),
    "Kaggle, two T4, Save & Run All": (
        Machine(
            environ={"KAGGLE_KERNEL_RUN_TYPE": "Batch", "CUDA_VISIBLE_DEVICES": "1"},
            kernel=Kernel(asks=False),
            memory=KAGGLE_MEMORY,
            nvml=NvmlSnapshot(driver="560.35.03", cuda=12060, devices=(T4, SECOND_T4)),
        ),
        MachineFacts(
            place=PlaceFacts(
                place=Place.KAGGLE, interface=Interface.BATCH, source="KAGGLE_KERNEL_RUN_TYPE"
            ),
            memory=KAGGLE_MEMORY,
            gpus=(SECOND_T4_FACTS,),
            driver=DriverFacts(version="560.35.03", cuda=(12, 6)),
        ),
    ),
    "Kaggle, P100": (
        Machine(
            environ={"KAGGLE_URL_BASE": "https://www.kaggle.com"},
            kernel=Kernel(),
            memory=KAGGLE_MEMORY,
            nvml=NvmlSnapshot(driver="580.65.06", cuda=13000, devices=(P100,)),
            torch=(VERSION_2_13, ARCHS_2_13),
        ),
        MachineFacts(
            place=PlaceFacts(
                place=Place.KAGGLE, interface=Interface.JUPYTER, source="KAGGLE_URL_BASE, kernel"
            ),
            memory=KAGGLE_MEMORY,
            gpus=(
                GpuFacts(
                    name="Tesla P100-PCIE-16GB",
                    free=17_179_869_184,
                    total=17_179_869_184,
                    capability=(6, 0),
                ),
            ),
            driver=DriverFacts(version="580.65.06", cuda=(13, 0)),
            torch=TORCH_2_13,
        ),
    ),
    "Binder with 2 GB": (
        Machine(
            environ={"BINDER_REPO_URL": "x", "BINDER_LAUNCH_HOST": "x"},
            kernel=Kernel(),
            files=v2(
                "/",
                {"/": (str(2 * GIB), 700_000_000, "anon 3\ninactive_file 100\nactive_file 50\n")},
            ),
            memory=MemoryFacts(available=100 * GIB, total=128 * GIB),
            torch=(VERSION_CPU, ""),
        ),
        MachineFacts(
            place=PlaceFacts(
                place=Place.BINDER,
                interface=Interface.JUPYTER,
                source="BINDER_LAUNCH_HOST, kernel",
            ),
            memory=MemoryFacts(
                available=2 * GIB - 700_000_000 + 150,
                total=2 * GIB,
                source="cgroup v2, limit of /",
            ),
            torch=TorchFacts(version="2.13.0+cpu"),
        ),
    ),
    "VS Code, with its variable": (
        Machine(
            environ={"VSCODE_PID": "17", "TERM_PROGRAM": "vscode"},
            kernel=Kernel(),
            memory=MemoryFacts(available=5 * GIB, total=8 * GIB),
        ),
        MachineFacts(
            place=PlaceFacts(interface=Interface.VS_CODE, source="VSCODE_PID"),
            memory=MemoryFacts(available=5 * GIB, total=8 * GIB),
        ),
    ),
    "a terminal": (
        Machine(
            environ={"TERM_PROGRAM": "vscode", "TERM": "xterm"},
            memory=MemoryFacts(available=5 * GIB, total=8 * GIB),
        ),
        MachineFacts(
            place=PlaceFacts(interface=Interface.TERMINAL, source="no kernel"),
            memory=MemoryFacts(available=5 * GIB, total=8 * GIB),
        ),
    ),
    "a container of Docker with cgroup v1, and papermill": (
        Machine(
            kernel=Kernel(asks=False),
            files=v1(
                "/docker/abc",
                {"/": (str(4 * GIB), 3 * GIB, f"cache 9\ntotal_active_file {2 * GIB}\n")},
                inside="/docker/abc",
            ),
            memory=MemoryFacts(available=60 * GIB, total=64 * GIB),
        ),
        MachineFacts(
            place=PlaceFacts(interface=Interface.BATCH, source="kernel without stdin"),
            memory=MemoryFacts(available=3 * GIB, total=4 * GIB, source="cgroup v1, limit of /"),
        ),
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_and_its_facts(name: str, tmp_path: Path) -> None:
    machine, expected = MACHINES[name]
    assert facts_of(machine, tmp_path) == expected


def test_this_machine() -> None:
    packages = {"torch": PackageFacts(name="torch", installed="1")}
    found = machine_facts({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, packages)
    assert found.place == PlaceFacts(
        place=Place.KAGGLE, interface=Interface.BATCH, source="KAGGLE_KERNEL_RUN_TYPE"
    )
    assert 0 < found.memory.available <= found.memory.total <= psutil.virtual_memory().total
    assert found.torch == torch_facts()
    assert found.torch is not None
    assert found.packages == packages
    assert found.mps is (sys.platform == "darwin" and found.mps)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from nbloader.machine import machine_facts; machine_facts();"
        "heavy = {'torch', 'diffusers', 'transformers', 'accelerate', 'huggingface_hub', 'numpy'};"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def fail(*_: object, **__: object) -> Any:
    raise TypeError("foreign")


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("memory_facts", {"memory": MemoryFacts(available=0, total=0, source="unknown")}),
        ("read_nvml", {"gpus": (), "driver": None}),
        ("gpu_facts", {"gpus": ()}),
        ("driver_facts", {"driver": None}),
        ("place_facts", {"place": PlaceFacts(source="unknown")}),
        ("torch_facts", {"torch": None}),
    ],
)
def test_a_fact_that_cannot_be_had_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, name: str, unknown: dict[str, Any]
) -> None:
    snapshot = NvmlSnapshot(driver="560.35.03", cuda=12060, devices=(T4,))
    memory = MemoryFacts(available=1, total=2)
    monkeypatch.setattr(facts, "read_nvml", lambda: snapshot)
    monkeypatch.setattr(facts, "memory_facts", lambda: memory)
    whole = machine_facts({})
    assert (whole.gpus, whole.memory) == ((T4_FACTS,), memory)
    monkeypatch.setattr(facts, name, fail)
    assert machine_facts({}) == replace(whole, **unknown)


def test_memory_that_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = MemoryFacts(available=0, total=0, source="unknown")
    for error in (OSError("no /proc"), RuntimeError(), NotImplementedError(), ValueError()):

        def broken(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(psutil, "virtual_memory", broken)
        assert memory_facts() == unknown
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert memory_facts() == unknown


def test_limits_in_an_unknown_form_leave_the_memory_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "within_cgroups", fail)
    found = memory_facts()
    assert (found.total, found.source) == (psutil.virtual_memory().total, "psutil")
