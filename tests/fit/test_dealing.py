"""What is reckoned for layers in memory, against what accelerate makes of it; no GPU is needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import infer_auto_device_map
from accelerate.utils import compute_module_sizes, get_balanced_memory

from benchmarks.architectures import ARCHITECTURES
from nbloader.fit import fit
from nbloader.records import Method, Placement
from tests.fit.machines import gpu, machine
from tests.fit.models import MODELS

GB = 1_000_000_000
NAME = "Qwen2.5-7B"


@pytest.fixture(scope="module")
def model() -> Any:
    (architecture,) = [found for found in ARCHITECTURES if NAME in found.repo_id]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return architecture.parts[0].build(False)
    finally:
        torch.set_default_dtype(before)


def placed(*free_mib: int) -> Placement:
    (known,) = [model for model in MODELS if model.name == NAME]
    cards = (gpu("GPU", 24_000, free, (8, 0)) for free in free_mib)
    facts = machine(64 * GB, 60 * GB, *cards)
    found = fit(known.selection, known.weights, facts, method=Method.CPU_OFFLOAD).chosen
    assert found is not None
    return found


@pytest.mark.parametrize(
    "free_mib",
    [
        (5_000,),
        (8_000,),
        (11_900,),
        (15_000,),
        (20_000,),
        (6_000, 6_000),
        (9_000, 5_000),
        (15_000, 1_000),
    ],
    ids=str,
)
def test_each_device_gets_what_was_reckoned_for_it(model: Any, free_mib: tuple[int, ...]) -> None:
    row = placed(*free_mib)
    keys = {
        int(name.removeprefix("cuda:")) if name != "cpu" else name: size
        for name, size in row.max_memory.items()
    }
    classes = sorted(model._no_split_modules)
    most = get_balanced_memory(model, max_memory=dict(keys), no_split_module_classes=classes)
    where = infer_auto_device_map(model, max_memory=most, no_split_module_classes=classes)

    sizes = compute_module_sizes(model)
    there = {
        device: sum(sizes[name] for name, put in where.items() if put == device)
        for device in {*where.values()}
    }
    assert there.keys() <= keys.keys()  # nothing goes to the disk
    assert next(iter(where.values())) == 0
    for device, size in there.items():
        assert size <= keys[device]
    assert there.get("cpu", 0) <= row.ram_after + row.mapped
    assert sum(there.values()) == pytest.approx(
        sum(part.bytes for part in row.components), rel=1e-6
    )
