from __future__ import annotations

import pytest

from nbloader.errors import InvalidArgumentError
from nbloader.fit import DeviceFacts, Placement, choose_placement

NOTHING = DeviceFacts()
T4 = DeviceFacts(cuda_capabilities=((7, 5),))
A100 = DeviceFacts(cuda_capabilities=((8, 0),))
MIXED = DeviceFacts(cuda_capabilities=((7, 5), (9, 0)))
MAC = DeviceFacts(mps=True)


@pytest.mark.parametrize(
    ("device", "dtype", "facts", "expected"),
    [
        ("auto", "auto", NOTHING, ("cpu", "float32")),
        ("auto", "auto", T4, ("cuda", "float16")),
        ("auto", "auto", A100, ("cuda", "bfloat16")),
        ("auto", "auto", MAC, ("mps", "float16")),
        ("cuda:1", "auto", MIXED, ("cuda:1", "bfloat16")),
        ("cpu", "auto", A100, ("cpu", "float32")),
        ("auto", "float32", T4, ("cuda", "float32")),
        ("cpu", "bfloat16", NOTHING, ("cpu", "bfloat16")),
    ],
)
def test_device_and_dtype(
    device: str, dtype: str, facts: DeviceFacts, expected: tuple[str, str]
) -> None:
    placement = Placement(device=expected[0], dtype=expected[1])
    assert choose_placement(device, dtype, facts) == placement


@pytest.mark.parametrize(
    ("device", "facts"), [("cuda", NOTHING), ("cuda:1", T4), ("mps", A100), ("cuda:2", MIXED)]
)
def test_a_device_that_is_not_there_is_an_error(device: str, facts: DeviceFacts) -> None:
    with pytest.raises(InvalidArgumentError, match=r"torch finds .*cpu here"):
        choose_placement(device, "auto", facts)
