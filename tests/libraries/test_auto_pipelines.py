"""The auto classes of diffusers make the pipeline that is read from their tables."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from nbloader.libraries import auto_pipeline


def test_every_row_of_the_tables_gives_what_diffusers_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers
    from diffusers.pipelines import auto_pipeline as library

    # The auto class ends in `from_pretrained` of the pipeline: its class is what is asked for.
    ends = classmethod(lambda cls, *_args, **_kwargs: cls.__name__)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", ends)
    handed: dict[tuple[bool, bool], dict[str, object]] = {
        (False, False): {},
        (True, False): {"controlnet": object()},
        (True, True): {
            "controlnet": diffusers.ControlNetUnionModel.__new__(diffusers.ControlNetUnionModel)
        },
    }
    autos = [name for name in dir(diffusers) if name.startswith("AutoPipelineFor")]
    rows = {each.__name__ for table in library.SUPPORTED_TASKS_MAPPINGS for each in table.values()}
    assert len(autos) >= 4
    assert len(rows) > 100
    told: dict[tuple[Any, ...], str | None] = {}
    made: dict[tuple[Any, ...], str | None] = {}
    for name in sorted({*rows, "StableDiffusionUpscalePipeline", "Gone"}):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
        for auto, (controlnet, union), pag in product(autos, handed, (False, True)):
            key = (auto, name, controlnet, union, pag)
            told[key] = auto_pipeline(auto, name, controlnet=controlnet, union=union, pag=pag)
            arguments = handed[controlnet, union] | ({"enable_pag": True} if pag else {})
            try:
                made[key] = getattr(diffusers, auto).from_pretrained(tmp_path, **arguments)
            except ValueError:
                made[key] = None
    assert told == made
    assert sum(each is not None for each in told.values()) > 300


@pytest.mark.parametrize(
    ("auto", "name", "handed", "made"),
    [
        ("AutoPipelineForImage2Image", "FluxPipeline", {}, "FluxImg2ImgPipeline"),
        ("AutoPipelineForInpainting", "FluxControlPipeline", {}, "FluxControlInpaintPipeline"),
        (
            "AutoPipelineForText2Image",
            "StableDiffusionXLPipeline",
            {"controlnet": True, "pag": True},
            "StableDiffusionXLControlNetPAGPipeline",
        ),
        # Its rows are in the tables only with sentencepiece, which is said of the class.
        ("AutoPipelineForImage2Image", "KolorsPipeline", {}, "KolorsImg2ImgPipeline"),
        ("AutoPipelineForInpainting", "KolorsPipeline", {}, None),
        ("AutoPipelineForText2Image", "WanPipeline", {}, None),
        ("AutoPipelineForNothing", "FluxPipeline", {}, None),
    ],
)
def test_a_pipeline_is_read_from_the_tables(
    auto: str, name: str, handed: dict[str, bool], made: str | None
) -> None:
    assert auto_pipeline(auto, name, **handed) == made  # type: ignore[arg-type]


def test_without_diffusers_there_is_none(tmp_path: Path) -> None:
    asked = ("AutoPipelineForImage2Image", "FluxPipeline")
    assert auto_pipeline(*asked, find=lambda _: None) is None
    assert auto_pipeline(*asked, find=lambda _: tmp_path) is None
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/auto_pipeline.py").write_text("def (")
    assert auto_pipeline(*asked, find=lambda _: tmp_path) is None
