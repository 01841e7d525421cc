"""What a GPU does for the first time, on the CPU, where it is the same and quick."""

from __future__ import annotations

import pytest
import torch

from nbloader.loaders import first_use, use_first
from nbloader.records import Method, PlacedComponent, Placement


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Note what is used; nothing was before."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(first_use, "_USED", set())
    monkeypatch.setattr(first_use, "_use", lambda *use: found.append(use))
    return found


def placed(*components: tuple[str, str], device: str = "cuda:0") -> Placement:
    return Placement(
        method=Method.GPU,
        device=device,
        dtype="bfloat16",
        components=tuple(
            PlacedComponent(name=str(number), device=where, dtype=dtype, bytes=1)
            for number, (where, dtype) in enumerate(components)
        ),
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_it_can_be_computed_and_draws_no_random_numbers(dtype: str) -> None:
    before = torch.random.get_rng_state()
    first_use._use("cpu", dtype)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_each_gpu_is_used_once_with_each_format(used: list[tuple[str, str]]) -> None:
    spread = placed(("cuda:1", "float32"), ("cuda:0,cpu", "bfloat16"))
    for placement in (spread, spread, placed(("cpu", "float16"))):
        use_first(placement)
    assert sorted(used[:3]) == [
        ("cuda:0", "bfloat16"),
        ("cuda:0", "float32"),
        ("cuda:1", "float32"),
    ]
    assert used[3:] == [("cuda:0", "float16")]  # its layers wait in memory, and are computed there


def test_on_a_cpu_nothing_is_done(used: list[tuple[str, str]]) -> None:
    use_first(placed(("cpu", "float32"), device="cpu"))
    assert used == []


def test_what_fails_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*use: str) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(first_use, "_USED", set())
    monkeypatch.setattr(first_use, "_use", full)
    use_first(placed(("cuda:0", "float32")))
