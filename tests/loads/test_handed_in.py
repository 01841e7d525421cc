"""Objects that are handed in as components, of a class that neither diffusers nor nbloader has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

import nbloader
from nbloader.localhub import LocalHub
from nbloader.records import Selected
from tests import packed
from tests.conftest import Publish
from tests.differential.comparison import differences
from tests.loads.test_single_files import files_below, load, picture
from tests.models import save_pipeline, seeded

FILE = "packed.safetensors"


def _read(path: Path) -> Any:
    return packed.NunchakuFluxTransformer2dModel.from_pretrained(path)


def _fetched(selected: Selected) -> set[str]:
    return {each.path for each in selected.selection.files if each.path.endswith(".safetensors")}


def test_a_model_of_a_foreign_class_takes_the_place_of_a_component(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    save_pipeline(plain)
    seeded(lambda: packed.save(plain / FILE))
    repo_id = publish(files_below(plain))
    place: dict[str, Any] = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache"}
    unet = _read(nbloader.download(repo_id, FILE, view="none", **place))
    report = nbloader.preflight(repo_id, components={"unet": unet}, **place)
    ours, selected = load(hub, tmp_path / "cache", repo_id, components={"unet": unet})

    theirs = DiffusionPipeline.from_pretrained(str(plain), unet=_read(plain / FILE))
    assert (report.ok, ours.unet is unet) == (True, True)
    assert _fetched(selected) == {
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    # It takes nothing of what is left: where it lies, it has been counted as taken.
    assert {each.name for each in report.weights} == {"text_encoder", "vae"}
    assert differences(ours, theirs) == []
    assert (picture(ours) == picture(theirs)).all()
