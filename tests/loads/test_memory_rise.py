"""What a load takes of memory, measured on models of a gigabyte, against what is predicted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbloader.fit import fit
from nbloader.records import MachineFacts, MemoryFacts, Method
from tests.models import save_embedder, save_pipeline, selected

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="anonymous memory is read from /proc"
)

MB = 1_000_000
GB = 1000 * MB
TOLERANCE = 0.15
ALMOST_NOTHING = 64 * MB
"""What tokenizers and configurations may take where no weight has to be cast."""

MACHINE = MachineFacts(memory=MemoryFacts(available=64 * GB, total=64 * GB))


def filled(make: Callable[[], Any]) -> Any:
    """Make a model in bfloat16 with small random weights, in a fraction of the usual time."""
    import torch

    block = torch.empty(1 << 22, dtype=torch.bfloat16)
    block.uniform_(-0.02, 0.02, generator=torch.Generator().manual_seed(0))
    with torch.device("meta"):
        model = make()
    model = torch.nn.Module.to(model, dtype=torch.bfloat16).to_empty(device="cpu")
    for tensor in model.state_dict().values():
        flat = tensor.view(-1)
        if not tensor.is_floating_point():
            flat.zero_()
            continue
        for start in range(0, len(flat), len(block)):
            piece = flat[start : start + len(block)]
            piece.copy_(block[: len(piece)])
    return model


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pipeline of 1 GB in bfloat16 whose large components are in several files."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("pipeline")
    save_pipeline(folder)
    text = CLIPTextConfig(
        vocab_size=30_000,
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=8,
        num_attention_heads=20,
    )
    blocks = [160, 320, 640, 640]
    models = {
        "text_encoder": lambda: CLIPTextModel(text),
        "unet": lambda: UNet2DConditionModel(block_out_channels=blocks, cross_attention_dim=1280),
        "vae": lambda: AutoencoderKL(
            block_out_channels=[128, 256, 512, 512],
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            layers_per_block=2,
        ),
    }
    for name, make in models.items():
        for old in (folder / name).iterdir():
            old.unlink()
        filled(make).save_pretrained(folder / name, max_shard_size="150MB")
    yield folder
    for file in folder.rglob("*.safetensors"):
        file.unlink()


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An embedding model of 1 GB in bfloat16."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("embedder") / "model"
    save_embedder(folder)
    config = BertConfig(
        vocab_size=30_000,
        hidden_size=1536,
        num_hidden_layers=16,
        num_attention_heads=12,
        intermediate_size=6144,
    )
    filled(lambda: BertModel(config)).save_pretrained(folder)
    modules = folder / "modules.json"
    modules.write_text(json.dumps(json.loads(modules.read_text())[:2]))  # without the Dense layer
    pooling = folder / "1_Pooling" / "config.json"
    settings = json.loads(pooling.read_text())
    wider = {key: 1536 if value == 64 else value for key, value in settings.items()}
    pooling.write_text(json.dumps(wider))
    yield folder
    for file in folder.rglob("*.safetensors"):
        file.unlink()


def rise(folder: Path, dtype: str) -> dict[str, int]:
    """Load in a process of its own and measure."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.rise_of_memory", str(folder), dtype],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, int] = json.loads(done.stdout)
    return figures


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("model", ["pipeline", "embedder"])
def test_the_rise_of_memory_is_as_predicted(
    model: str, dtype: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(model)
    selection, weights = selected(folder)
    assert 0.9 * GB < sum(part.total for part in weights) < 1.1 * GB
    predicted = fit(
        selection, weights, MACHINE, device="cpu", dtype=dtype, method=Method.CPU
    ).chosen
    assert predicted is not None
    measured = rise(folder, dtype)
    allowed = max(TOLERANCE * predicted.ram_loading, ALMOST_NOTHING)
    assert abs(measured["peak"] - predicted.ram_loading) <= allowed, (measured, predicted)
