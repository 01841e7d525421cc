"""A cell that is run twice: the first copy goes before the second is placed."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbloader
from nbloader import assess, loaders
from nbloader.localhub import LocalHub
from nbloader.records import Event, GpuFacts, LoadedModel, MachineFacts, MemoryFacts, Notice
from tests.models import save_embedder

GB = 10**9


def test_what_was_loaded_before_is_unloaded(hub: LocalHub, hub_root: Path, tmp_path: Path) -> None:
    save_embedder(hub_root / "models" / "org" / "twice")
    told: list[Event] = []

    def load(**more: bool) -> object:
        return nbloader.load(
            "org/twice",
            device="cpu",
            endpoint=hub.endpoint,
            cache_dir=tmp_path,
            view="none",
            on_event=told.append,
            **more,  # type: ignore[arg-type]
        )

    first = load(replace=True)
    assert [each for each in told if isinstance(each, Notice)] == []
    size = loaders.bytes_of([first])
    second = load(replace=True)
    (notice,) = (each for each in told if isinstance(each, Notice))
    assert notice.reference == "replaced"
    assert "freed" in notice.message
    assert (loaders.bytes_of([first]), loaders.bytes_of([second])) == (0, size)
    assert len(second.encode("good"))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("device", "own", "gpu", "memory"),
    [
        ("cuda", 9 * GB, 20 * GB, 8 * GB),
        ("cuda:1", 9 * GB, 14 * GB, 8 * GB),  # There is one.
        ("cpu", 9 * GB, 14 * GB, 14 * GB),
        ("cpu", 2 * GB, 14 * GB, 10 * GB),  # The rest is mapped from files.
        ("cpu", 0, 14 * GB, 8 * GB),
    ],
)
def test_the_fit_counts_what_will_be_given_back(
    device: str, own: int, gpu: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assess, "own_bytes", lambda: own)
    machine = MachineFacts(
        gpus=(GpuFacts(name="NVIDIA L4", free=14 * GB, total=24 * GB, capability=(8, 9)),),
        memory=MemoryFacts(available=8 * GB, total=16 * GB),
    )
    going = LoadedModel(repo_id="a", device=device, bytes=6 * GB)
    after = assess._without(machine, [going])
    assert (after.gpus[0].free, after.memory.available) == (gpu, memory)
