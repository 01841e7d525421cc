from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from nbloader.machine.gpus import NvmlDevice, NvmlSnapshot, driver_facts, gpu_facts, read_nvml
from nbloader.records import DriverFacts, GpuFacts, MemoryFacts
from tests.machine.machines import GIB, P100, SECOND_T4, T4, device

MEMORY = MemoryFacts(available=100 * GIB, total=120 * GIB)

A100 = device("A100", "GPU-aaaa-1", (8, 0), 40 * GIB)
H100 = device("H100", "GPU-aaab-2", (9, 0), 80 * GIB)
L40 = device("L40", "GPU-cccc-3", (8, 9), 48 * GIB)
SMALL_A100 = device("A100 20 GB", "GPU-dddd-4", (8, 0), 20 * GIB)
BOX = (SMALL_A100, L40, A100, H100)

PARTS = (
    device("A100 MIG 3g.20gb", "MIG-1111", (8, 0), 20 * GIB, instance=(1, 0)),
    device("A100 MIG 1g.5gb", "MIG-2222", (8, 0), 5 * GIB, instance=(9, 0)),
)
PARTED = device("A100", "GPU-eeee-5", (8, 0), 40 * GIB, mig=True, parts=PARTS)
UNPARTED = device("A100", "GPU-ffff-6", (8, 0), 40 * GIB, mig=True)

ORDERED = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def names(devices: Sequence[NvmlDevice], environ: dict[str, str]) -> list[str]:
    snapshot = NvmlSnapshot(driver="1", cuda=13000, devices=tuple(devices))
    return [gpu.name for gpu in gpu_facts(snapshot, environ, MEMORY)]


@pytest.mark.parametrize(
    ("devices", "environ", "expected"),
    [
        ((), {}, []),
        (BOX, ORDERED, ["A100 20 GB", "L40", "A100", "H100"]),
        # CUDA's own order begins with the fastest.
        (BOX, {}, ["H100", "L40", "A100", "A100 20 GB"]),
        (BOX, {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, ["H100", "L40", "A100", "A100 20 GB"]),
    ],
)
def test_the_order(
    devices: Sequence[NvmlDevice], environ: dict[str, str], expected: list[str]
) -> None:
    assert names(devices, environ) == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("none", []),
        (",0", []),
        ("0", ["A100 20 GB"]),
        ("3,0", ["H100", "A100 20 GB"]),
        (" 1 , 2", ["L40", "A100"]),
        ("+1", ["L40"]),
        ("1gpu,2ampere", ["L40", "A100"]),
        ("0,2,-1,1", ["A100 20 GB", "A100"]),
        ("0,4,1", ["A100 20 GB"]),
        ("99999999999999999999", []),
        ("1,1", []),
        ("0,GPU-cccc-3", ["A100 20 GB"]),
        ("GPU-cccc-3,GPU-aaaa-1", ["L40", "A100"]),
        ("GPU-cc,GPU-d", ["L40", "A100 20 GB"]),
        ("GPU-aaa", []),  # may be either
        ("GPU-aaab,GPU-unknown,GPU-cccc-3", ["H100"]),
        ("GPU-aaab,0", ["H100"]),
        ("GPU-aaab,GPU-aaab-2", []),
        ("MIG-1111", []),
    ],
)
def test_the_visible_ones(visible: str, expected: list[str]) -> None:
    assert names(BOX, ORDERED | {"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_an_index_counts_in_the_order_of_cuda() -> None:
    assert names(BOX, {"CUDA_VISIBLE_DEVICES": "0"}) == ["H100"]


def test_two_of_a_kind_are_two() -> None:
    first, second = (replace(T4, uuid="") for _ in range(2))
    assert names((first, second), {"CUDA_VISIBLE_DEVICES": "0,1"}) == ["Tesla T4"] * 2


@pytest.mark.parametrize(
    ("devices", "visible", "expected"),
    [
        ((PARTED,), None, ["A100 MIG 3g.20gb"]),
        ((UNPARTED,), None, []),
        ((PARTED, L40), None, ["L40"]),
        ((PARTED,), "0", ["A100 MIG 3g.20gb"]),
        ((PARTED,), "1", []),
        ((PARTED,), "MIG-2222", ["A100 MIG 1g.5gb"]),
        ((PARTED,), "MIG-2222,MIG-1111", ["A100 MIG 1g.5gb"]),
        ((PARTED,), "MIG-3", []),
        ((PARTED, L40), "MIG-GPU-eeee-5/9/0", ["A100 MIG 1g.5gb"]),
        ((PARTED, L40), "MIG-GPU-eeee-5/2/0", []),
        ((PARTED, L40), "GPU-eeee", ["A100 MIG 3g.20gb"]),
        ((UNPARTED, L40), "GPU-ffff", []),
    ],
)
def test_gpus_in_parts(
    devices: Sequence[NvmlDevice], visible: str | None, expected: list[str]
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert names(devices, environ) == expected


def test_a_part_and_a_gpu_without_memory_of_its_own_say_so() -> None:
    parted = NvmlSnapshot(driver="570.1", cuda=12080, devices=(PARTED,))
    assert gpu_facts(parted, {}, MEMORY) == (
        GpuFacts(
            name="A100 MIG 3g.20gb",
            free=20 * GIB,
            total=20 * GIB,
            capability=(8, 0),
            source="NVML, part of a GPU in MIG mode",
        ),
    )
    spark = NvmlDevice(name="GB10", uuid="GPU-1", capability=(12, 1), memory=None)
    snapshot = NvmlSnapshot(driver="580.95.05", cuda=13000, devices=(spark,))
    assert gpu_facts(snapshot, {}, MEMORY) == (
        GpuFacts(
            name="GB10",
            free=100 * GIB,
            total=120 * GIB,
            capability=(12, 1),
            source="NVML, memory of the machine",
            unified=True,
        ),
    )
    assert driver_facts(snapshot) == DriverFacts(version="580.95.05", cuda=(13, 0))
    assert driver_facts(parted) == DriverFacts(version="570.1", cuda=(12, 8))


def test_no_driver() -> None:
    assert gpu_facts(None, {}, MEMORY) == ()
    assert driver_facts(None) is None


def fail(error: int) -> Callable[..., Any]:
    def function(*_: object) -> object:
        raise pynvml.NVMLError(error)

    return function


@dataclass
class FakeDriver:
    """Answers in place of the driver's library, behind the functions of pynvml."""

    devices: tuple[NvmlDevice, ...]
    lost: int | None = None

    def handle(self, index: int) -> NvmlDevice:
        if index == self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return self.devices[index]

    def memory(self, handle: NvmlDevice) -> Any:
        if handle.memory is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(free=handle.memory[0], total=handle.memory[1])

    def mig_mode(self, handle: NvmlDevice) -> list[int]:
        if handle.capability < (8, 0):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(handle.mig), 0]

    def part(self, handle: NvmlDevice, index: int) -> NvmlDevice:
        # Numbers are not given out one after the other.
        if index % 2 == 0 or index // 2 >= len(handle.parts):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return handle.parts[index // 2]

    def uuid(self, handle: NvmlDevice) -> str:
        if not handle.uuid:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return handle.uuid

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, function in {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlSystemGetDriverVersion": lambda: b"560.35.03",  # bytes in old versions
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 12060,
            "nvmlDeviceGetCount": lambda: len(self.devices),
            "nvmlDeviceGetHandleByIndex": self.handle,
            "nvmlDeviceGetName": lambda handle: handle.name,
            "nvmlDeviceGetUUID": self.uuid,
            "nvmlDeviceGetCudaComputeCapability": lambda handle: list(handle.capability),
            "nvmlDeviceGetMemoryInfo": self.memory,
            "nvmlDeviceGetMigMode": self.mig_mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": self.part,
            "nvmlDeviceGetGpuInstanceId": lambda handle: handle.instance[0],
            "nvmlDeviceGetComputeInstanceId": lambda handle: handle.instance[1],
        }.items():
            assert hasattr(pynvml, name)
            monkeypatch.setattr(pynvml, name, function)


DEVICES = (
    T4,
    SECOND_T4,
    P100,
    PARTED,
    UNPARTED,
    NvmlDevice(name="GB10", uuid="", capability=(12, 1), memory=None),
)


def test_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDriver(DEVICES).install(monkeypatch)
    assert read_nvml() == NvmlSnapshot(driver="560.35.03", cuda=12060, devices=DEVICES)


def test_a_lost_gpu_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDriver((T4, P100, SECOND_T4), lost=1).install(monkeypatch)
    snapshot = read_nvml()
    assert snapshot is not None
    assert snapshot.devices == (T4, SECOND_T4)


@pytest.mark.parametrize(
    "name",
    [
        "nvmlInit",
        "nvmlSystemGetDriverVersion",
        "nvmlSystemGetCudaDriverVersion_v2",
        "nvmlDeviceGetCount",
    ],
)
def test_errors_of_the_driver_give_no_gpus(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    FakeDriver(DEVICES).install(monkeypatch)
    assert read_nvml() is not None
    monkeypatch.setattr(pynvml, name, fail(pynvml.NVML_ERROR_UNKNOWN))
    assert read_nvml() is None
    monkeypatch.setattr(pynvml, name, lambda: 1 / 0)
    assert read_nvml() is None


def test_an_error_at_the_end_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDriver((T4,)).install(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlShutdown", fail(pynvml.NVML_ERROR_UNKNOWN))
    snapshot = read_nvml()
    assert snapshot is not None
    assert snapshot.devices == (T4,)


def test_a_machine_without_a_driver() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert read_nvml() is None
    else:
        pynvml.nvmlShutdown()
        pytest.skip("this machine has an NVIDIA driver")


@pytest.mark.parametrize("error", [TypeError("odd"), AttributeError("old"), UnicodeError()])
def test_errors_that_are_none_of_the_library_leave_out_one_gpu(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def odd(handle: NvmlDevice) -> Any:
        if handle is P100:
            raise error
        return handle.name

    FakeDriver((T4, P100, SECOND_T4)).install(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", odd)
    snapshot = read_nvml()
    assert snapshot is not None
    assert snapshot.devices == (T4, SECOND_T4)


@pytest.mark.parametrize("name", ["nvmlDeviceGetUUID", "nvmlDeviceGetMigMode", "nvmlShutdown"])
def test_errors_that_are_none_of_the_library_cost_no_gpu(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    FakeDriver((T4,)).install(monkeypatch)
    monkeypatch.setattr(pynvml, name, lambda *_: 1 / 0)
    snapshot = read_nvml()
    assert snapshot is not None
    assert [device.name for device in snapshot.devices] == [T4.name]
