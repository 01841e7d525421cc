"""What `force=True` passes over, and what would fail all the same: said before, and then done.

Each case is refused by one check. Whether the check says that force helps is compared with what a
forced load really does, and with one that passes over every check there is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import nbloader
from nbloader.checks import PreflightReport
from nbloader.errors import NbloaderError
from nbloader.localhub import LocalHub
from nbloader.records import (
    Checked,
    CheckStatus,
    Event,
    Failed,
    MemoryFacts,
    Stage,
    StageStarted,
)
from tests.loads.test_refusals import on
from tests.models import save_classifier, save_pipeline
from tests.samples import MB, safetensors

Save = Callable[[Path], object]

HOLDS = "it holds"
"""With the check passed over, the load ends otherwise: well, or in the library's own words."""

FAILS = "it fails all the same"
PROTECTS = "it protects, and has an argument of its own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A load that one check refuses.

    Attributes:
        save: writes the repository.
        change: what is wrong with it.
        arguments: of the load.
        memory: of the machine; None for what there is.
        check: the name of the check.
        outcome: what force does about it.
    """

    save: Save
    change: Callable[[Path], object] = lambda folder: None
    arguments: dict[str, Any] = field(default_factory=dict)
    memory: MemoryFacts | None = None
    check: str
    outcome: str


def _json(folder: Path, name: str, **changes: object) -> None:
    file = folder / name
    told = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in told.items() if value is not None}))


def _pickled(folder: Path) -> None:
    import torch

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**tensors, "odd": print}, folder / "pytorch_model.bin")


def _no_adapter(folder: Path) -> None:
    (folder / "odd").mkdir()
    one = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}
    (folder / "odd/odd.safetensors").write_bytes(safetensors({"odd.weight": one}, bytes(4)))


def _of_other_widths(folder: Path) -> None:
    import torch

    (folder / "wide").mkdir()
    tensors = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    name = next(key for key in tensors if key.endswith("attn1.to_q.weight"))
    layer = f"unet.{name.removesuffix('.weight')}"
    wide = {
        f"{layer}.lora_A.weight": torch.zeros(2, 999),
        f"{layer}.lora_B.weight": torch.ones(999, 2),
    }
    save_file(wide, folder / "wide/wide.safetensors")


CASES = {
    "the disk is too small": Case(
        save=save_classifier,
        arguments={"settings": {"required_disk_space_gb": 1_000_000}},
        check="disk",
        outcome=HOLDS,
    ),
    "the memory is too small": Case(
        save=save_classifier,
        memory=MemoryFacts(available=500 * MB, total=2000 * MB),
        check="placement",
        outcome=HOLDS,
    ),
    "a plan for a GPU where there is none": Case(
        save=save_classifier, arguments={"plan": "gpu"}, check="placement", outcome=FAILS
    ),
    "a class that the library lacks": Case(
        save=save_pipeline,
        change=lambda folder: _json(folder, "model_index.json", _class_name="PipelineOfTomorrow"),
        check="packages",
        outcome=FAILS,
    ),
    "a part whose class the library lacks": Case(
        save=save_pipeline,
        change=lambda folder: _json(
            folder, "model_index.json", vae=["diffusers", "AutoencoderOfTomorrow"]
        ),
        check="packages",
        outcome=FAILS,
    ),
    "a family that the library lacks": Case(
        save=save_classifier,
        change=lambda folder: _json(
            folder,
            "config.json",
            model_type="bert_of_tomorrow",
            architectures=["BertOfTomorrowModel"],
        ),
        check="packages",
        outcome=FAILS,
    ),
    "a part that is missing": Case(
        save=save_pipeline,
        change=lambda folder: _json(folder, "model_index.json", unet=None),
        check="packages",
        outcome=FAILS,
    ),
    "a part that the class has no place for": Case(
        save=save_pipeline,
        arguments={"components": {"transformer": None, "image_encoder_2": None}},
        check="packages",
        outcome=HOLDS,
    ),
    "an adapter that is none": Case(
        save=save_pipeline,
        change=_no_adapter,
        arguments={"adapters": "{repo_id}/odd/odd.safetensors"},
        check="adapters",
        outcome=HOLDS,
    ),
    "an adapter of other widths": Case(
        save=save_pipeline,
        change=_of_other_widths,
        arguments={"adapters": "{repo_id}/wide/wide.safetensors"},
        check="adapters",
        outcome=FAILS,
    ),
    "weights that can run code": Case(
        save=save_classifier, change=_pickled, check="safety", outcome=PROTECTS
    ),
    "attention on a GPU where there is none": Case(
        save=save_classifier,
        arguments={"attention": "flash_attention_2"},
        check="attention",
        outcome=PROTECTS,
    ),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a load."""

    error: NbloaderError | None
    events: list[Event]

    @property
    def told(self) -> tuple[str, str] | None:
        return (self.error.reference, self.error.message) if self.error else None

    @property
    def has_begun(self) -> bool:
        begun = {each.stage for each in self.events if isinstance(each, StageStarted)}
        return Stage.DOWNLOAD in begun

    @property
    def failed(self) -> dict[str, bool]:
        checked = [each.results for each in self.events if isinstance(each, Checked)]
        return {
            each.name: each.forceable for each in checked[0] if each.status is CheckStatus.FAILED
        }

    @property
    def offers_force(self) -> bool:
        (failed,) = (each for each in self.events if isinstance(each, Failed))
        return failed.forceable


@pytest.mark.parametrize("name", CASES)
def test_what_a_check_says_of_force_is_what_a_forced_load_does(
    name: str, hub: LocalHub, hub_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    repo_id = f"org/forced-{name.replace(' ', '-')}"
    folder = hub_root / "models" / repo_id
    folder.mkdir(parents=True)
    case.save(folder)
    case.change(folder)
    if case.memory is not None:
        on(monkeypatch, memory=case.memory, gpus=())

    def load(cache: str, *, force: bool) -> Outcome:
        events: list[Event] = []
        given: dict[str, Any] = {
            key: value.format(repo_id=repo_id) if isinstance(value, str) else value
            for key, value in case.arguments.items()
        }
        try:
            nbloader.load(
                repo_id,
                endpoint=hub.endpoint,
                cache_dir=tmp_path / cache,
                view="none",
                force=force,
                on_event=events.append,
                **given,
            )
        except NbloaderError as error:
            return Outcome(error, events)
        return Outcome(None, events)

    refused = load("refused", force=False)
    assert refused.error is not None
    assert not refused.has_begun
    assert refused.failed == {case.check: case.outcome is HOLDS}
    assert refused.offers_force is (case.outcome is HOLDS)

    forced = load("forced", force=True)
    if case.outcome is HOLDS:
        assert forced.has_begun
        assert forced.told != refused.told
    else:
        assert not forced.has_begun
        assert forced.told == refused.told

    if case.outcome is FAILS:  # and not because a check says so
        monkeypatch.setattr(PreflightReport, "raise_for_failures", lambda report, **_: None)
        assert load("anyway", force=True).error is not None


def test_tensors_that_are_missing_can_be_forced_where_the_library_fills_them(
    hub: LocalHub, hub_root: Path, tmp_path: Path
) -> None:
    repo_id = "org/forced-tensors"
    folder = hub_root / "models" / repo_id
    save_classifier(folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    events: list[Event] = []
    keywords: dict[str, Any] = {
        "endpoint": hub.endpoint,
        "cache_dir": tmp_path,
        "view": "none",
        "device": "cpu",
    }
    with pytest.raises(NbloaderError, match=r"classifier\.weight"):
        nbloader.load(repo_id, on_event=events.append, **keywords)
    (failed,) = (each for each in events if isinstance(each, Failed))
    assert failed.forceable
    report = nbloader.preflight(repo_id, endpoint=hub.endpoint, cache_dir=tmp_path, device="cpu")
    assert [(each.name, each.forceable) for each in report.failures] == [("trial", True)]
    assert nbloader.load(repo_id, force=True, **keywords)("word")
