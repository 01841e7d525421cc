"""The libraries' reports of missing tensors, read from real loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from nbloader.loaders import quiet
from nbloader.loaders.reports import LoadReport, lacking, missing_tensors, parse_report
from tests.models import save_classifier, save_pipeline

pytestmark = pytest.mark.filterwarnings("ignore")


def change(file: Path, how: Any) -> None:
    """Write a safetensors file anew with what `how` makes of its tensors."""
    save_file(how(load_file(file)), file.with_name("new"), metadata={"format": "pt"})
    file.with_name("new").replace(file)


def test_what_transformers_reports_is_read_and_not_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForSequenceClassification

    save_classifier(tmp_path)
    change(
        tmp_path / "model.safetensors",
        lambda tensors: {
            **{key: value for key, value in tensors.items() if "classifier" not in key},
            "head.weight": tensors["classifier.weight"],
        },
    )
    capfd.readouterr()
    with quiet() as reports:
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert reports.found == [
        LoadReport(
            model="BertForSequenceClassification",
            source=str(tmp_path),
            missing=("classifier.bias", "classifier.weight"),
            unexpected=("head.weight",),
        )
    ]
    assert capfd.readouterr() == ("", "")


def test_what_diffusers_reports_is_read(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    save_pipeline(tmp_path)
    unet = tmp_path / "unet"
    change(
        unet / "diffusion_pytorch_model.safetensors",
        lambda tensors: {key: value for key, value in tensors.items() if "conv_out" not in key},
    )
    with quiet() as reports:
        UNet2DConditionModel.from_pretrained(unet)
    assert reports.found == [
        LoadReport(
            model="UNet2DConditionModel",
            source=str(unet),
            missing=("conv_out.bias", "conv_out.weight"),
        )
    ]


def test_the_last_report_of_a_class_that_came_out_counts() -> None:
    tried = LoadReport(model="A", source="/m", missing=("x",))
    first = LoadReport(model="B", source="/m", missing=("x", "encoder.pooler.dense.weight"))
    last = LoadReport(model="B", source="/m", missing=("encoder.pooler.dense.weight",))
    assert lacking([tried, first, last], {"B"}) == [last]
    assert lacking([tried, first, last], {"B"}, pooled=False) == []
    assert lacking([LoadReport(model="B", source="/m", unexpected=("x",))], {"B"}) == []


@pytest.mark.parametrize(
    ("key", "needed"),
    [
        ("wav2vec2.masked_spec_embed", False),
        ("masked_spec_embed", False),
        ("encoder.stages.{0, 1}.normalization.num_batches_tracked", False),
        ("encoder.stages.{0, 1}.normalization.running_mean", True),
        ("masked_spec_embed.weight", True),
        ("unmasked_spec_embed", True),
        ("neck.fusion_stage.layers.0.residual_layer1.convolution1.bias", False),
        ("neck.fusion_stage.layers.{0, 1}.residual_layer1.convolution1.bias", True),
        ("neck.fusion_stage.layers.1.residual_layer1.convolution1.bias", True),
        ("neck.fusion_stage.layers.0.residual_layer2.convolution1.bias", True),
    ],
)
def test_what_no_call_reads_may_be_missing(key: str, needed: bool) -> None:
    report = LoadReport(model="BForCTC", source="/m", missing=(key,))
    assert bool(lacking([report], {"BForCTC"})) is needed


def test_the_error_names_the_first_and_counts_the_rest() -> None:
    report = LoadReport(
        model="CLIPTextModel",
        source="/cache/unet",
        missing=("a", "b", "c", "d", "e"),
        mismatched=("f",),
        unexpected=("module.a",),
    )
    error = missing_tensors("org/name", [report], Path("/cache"), forceable=True)
    assert error.message == (
        "'unet' of org/name (CLIPTextModel): no file has the tensors 'a', 'b', 'c' and 2 more, "
        "of another shape are 'f'; the files have 'module.a' in their place"
    )
    assert "force=True" not in error.hint
    one = replace(report, mismatched=())
    assert "force=True" in missing_tensors("o/n", [one], Path(), forceable=True).hint
    assert "force=True" not in missing_tensors("o/n", [one], Path(), forceable=False).hint


def test_what_torch_says_of_a_layer_is_read() -> None:
    import torch

    kept = {"weight": torch.zeros(3, 2), "module.bias": torch.zeros(2)}
    with pytest.raises(RuntimeError) as caught:
        torch.nn.Linear(2, 2).load_state_dict(kept)
    assert parse_report(str(caught.value)) == LoadReport(
        model="Linear",
        source="",
        missing=("bias",),
        mismatched=("weight",),
        unexpected=("module.bias",),
    )


def test_what_diffusers_says_of_a_shape_is_read(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    save_pipeline(tmp_path)
    unet = tmp_path / "unet"
    change(
        unet / "diffusion_pytorch_model.safetensors",
        lambda tensors: {**tensors, "conv_out.bias": tensors["conv_out.bias"][:1].clone()},
    )
    with pytest.raises(ValueError, match="expected shape") as caught:
        UNet2DConditionModel.from_pretrained(unet)
    report = parse_report(str(caught.value))
    assert report == LoadReport(model="", source="", mismatched=("conv_out.bias",))
    told = missing_tensors("org/name", [report], tmp_path, forceable=False).message
    assert told == "org/name: of another shape are 'conv_out.bias'"


@pytest.mark.parametrize("text", ["", "LOAD REPORT", "Some weights", "x LOAD REPORT from: \n|||"])
def test_other_messages_are_no_reports(text: str) -> None:
    report = parse_report(text)
    assert report is None or not (report.missing or report.mismatched or report.unexpected)


def test_what_a_pipeline_lacks_is_made_up_if_that_is_forced(tmp_path: Path) -> None:
    from contextlib import closing

    import torch

    from nbloader import loaders
    from nbloader.errors import MissingTensorsError
    from nbloader.records import Method, Notice, Placement
    from tests.models import picture, selection_of

    save_pipeline(tmp_path)
    change(
        tmp_path / "unet" / "diffusion_pytorch_model.safetensors",
        lambda tensors: {key: value for key, value in tensors.items() if "conv_out" not in key},
    )
    selection = selection_of(tmp_path)
    placement = Placement(method=Method.CPU, device="cpu", dtype="float32")
    with (
        closing(loaders.Building(selection, tmp_path, placement, {})) as building,
        pytest.raises(MissingTensorsError, match="conv_out") as caught,
    ):
        list(iter(building.step, None))
    assert "force=True" in caught.value.hint
    with closing(loaders.Building(selection, tmp_path, placement, {}, forced=True)) as building:
        told = [each for each in iter(building.step, None) if isinstance(each, Notice)]
        pipeline = building.model()
    assert [each.reference for each in told] == ["missing-tensors"]
    assert torch.equal(pipeline.unet.conv_out.bias, torch.zeros(4))
    assert picture(pipeline).shape == (16, 16, 3)


def test_a_head_of_another_size_is_told_where_it_is_meant(tmp_path: Path) -> None:
    from contextlib import closing

    from nbloader import loaders
    from nbloader.errors import MissingTensorsError
    from nbloader.records import Method, Notice, Placement
    from tests.models import selection_of

    save_classifier(tmp_path)
    selection = selection_of(tmp_path)
    placement = Placement(method=Method.CPU, device="cpu", dtype="float32")
    head = {"num_labels": 3}
    with (
        closing(
            loaders.Building(selection, tmp_path, placement, {"model_kwargs": head})
        ) as building,
        pytest.raises(MissingTensorsError, match="another shape"),
    ):
        building.step()
    given = {"model_kwargs": {**head, "ignore_mismatched_sizes": True}}
    with closing(loaders.Building(selection, tmp_path, placement, given)) as building:
        told = [each for each in iter(building.step, None) if isinstance(each, Notice)]
        built = building.model()
    assert built.model.classifier.out_features == 3
    assert [(each.reference, "ignore_mismatched_sizes" in each.hint) for each in told] == [
        ("missing-tensors", True)
    ]
