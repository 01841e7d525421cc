from __future__ import annotations

import pytest

from nbloader.fit.gpus import can_run, driver_runs
from nbloader.records import DriverFacts, TorchFacts
from tests.machine.machines import ARCHS_2_6, ARCHS_2_13


def built_for(*archs: str) -> TorchFacts:
    return TorchFacts(version="2", cuda=(12, 4), archs=archs)


@pytest.mark.parametrize(
    ("torch", "capability", "expected"),
    [
        (built_for(*ARCHS_2_13.split()), (6, 0), False),  # P100
        (built_for(*ARCHS_2_13.split()), (7, 0), False),  # V100
        (built_for(*ARCHS_2_13.split()), (7, 5), True),  # T4
        (built_for(*ARCHS_2_13.split()), (8, 9), True),  # L4
        (built_for(*ARCHS_2_13.split()), (9, 0), True),  # H100
        (built_for(*ARCHS_2_13.split()), (10, 3), True),  # B300
        (built_for(*ARCHS_2_13.split()), (11, 0), False),
        (built_for(*ARCHS_2_13.split()), (12, 1), True),  # GB10
        (built_for(*ARCHS_2_6.split()), (6, 0), True),
        (built_for(*ARCHS_2_6.split()), (6, 1), True),
        (built_for(*ARCHS_2_6.split()), (12, 0), False),
        (built_for("sm_86"), (8, 0), False),
        (built_for("sm_80"), (8, 7), False),  # Orin
        (built_for("sm_87"), (8, 7), True),
        (built_for("sm_87"), (8, 9), False),
        (built_for("sm_80", "compute_80"), (8, 7), True),
        (built_for("sm_90a"), (9, 0), True),
        (built_for("sm_90a"), (10, 0), False),
        (built_for("compute_90a"), (10, 0), False),
        (built_for("sm_100f"), (10, 3), True),
        (built_for("sm_100f"), (12, 0), False),
        (built_for("compute_70"), (12, 0), True),
        (built_for("compute_70"), (6, 0), False),
        (built_for("gfx942", "sm_", "sm_x"), (7, 5), False),
        (TorchFacts(version="2", cuda=(12, 4)), (7, 5), None),
        (TorchFacts(version="2"), (7, 5), False),
        (TorchFacts(version="2", hip=True), (7, 5), False),
    ],
)
def test_which_gpus_a_build_has_kernels_for(
    torch: TorchFacts, capability: tuple[int, int], expected: bool | None
) -> None:
    assert can_run(torch, capability) is expected


@pytest.mark.parametrize(
    ("driver", "cuda", "expected"),
    [
        ((12, 0), (12, 8), True),
        ((12, 8), (11, 8), True),
        ((12, 8), (13, 0), False),
        ((13, 0), (13, 2), True),
        ((11, 4), (12, 1), False),
        ((10, 1), (10, 2), False),
        ((10, 2), (10, 1), True),
        ((12, 0), None, True),
    ],
)
def test_which_builds_a_driver_runs(
    driver: tuple[int, int], cuda: tuple[int, int] | None, expected: bool
) -> None:
    facts = DriverFacts(version="1", cuda=driver)
    assert driver_runs(facts, TorchFacts(version="2", cuda=cuda)) is expected
