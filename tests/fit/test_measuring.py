"""The measurement of memory runs, and its counter counts."""

from __future__ import annotations

import pytest
import torch

from benchmarks import workloads
from benchmarks.architectures import ARCHITECTURES
from benchmarks.memory import Row, main, measure
from benchmarks.workloads import PASSES, Pass
from nbloader.fit.families import activation_bytes, pipelines


def test_tiny_models_run_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--tiny", "FLUX"])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| model | component | weights | predicted | activations |")
    assert [line.split(" | ")[1] for line in lines[2:]] == [
        *("text_encoder", "text_encoder_2", "transformer", "vae", "**all**")
    ]


@pytest.mark.parametrize("name", ["stable-diffusion-v1-5", "MiniLM-L6"])
def test_counted_activations_are_within_the_predicted(name: str) -> None:
    assert all(0 < row.activations[0] <= row.activations[1] for row in count(name).values())


def test_counted_activations_of_flux() -> None:
    """A figure that the table of families starts from: 0.46 GiB for a step."""
    rows = count("FLUX.1-dev")
    family = next(family for family in pipelines() if family.name == "FLUX")

    counted, predicted = rows["transformer"].activations
    assert counted == pytest.approx(0.457 * 1024**3, rel=0.01)
    assert predicted == family.by_component["transformer"]
    assert all(0 < row.activations[0] <= row.activations[1] for row in rows.values())


@pytest.mark.parametrize("wanted", PASSES, ids=lambda wanted: wanted.name)
def test_counted_passes_are_within_the_predicted(wanted: Pass) -> None:
    model_type, counted = workloads.count(wanted)
    found = workloads.family(model_type, wanted.class_name)

    assert 0 < counted < activation_bytes(found, "bfloat16")
    assert not found.name.startswith("unknown")


def count(name: str) -> dict[str, Row]:
    (architecture,) = [found for found in ARCHITECTURES if name in found.repo_id]
    rows = measure(architecture, device="meta", dtype=torch.bfloat16, tiny=False)
    return {row.part: row for row in rows}
