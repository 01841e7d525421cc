"""A pipeline with parts and adapters of four other repositories: one plan, download and disk."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

import nbloader
from nbloader.errors import DiskSpaceError
from nbloader.localhub import Fault, LocalHub
from nbloader.records import Event, Selected
from nbloader.state import JobState, apply
from tests.conftest import WriteRepo
from tests.faults.runs import BODY, check_cache
from tests.faults.test_full_disk import Disk, disk
from tests.faults.test_killed import ended

__all__ = ["disk"]

MB = 1_000_000
SIZE = 8 * MB

CALL: dict[str, Any] = {
    "cls": "StableDiffusionControlNetPipeline",
    "components": {
        "vae": "parts/vae",
        "controlnet": "parts/canny",
        "safety_checker": None,
    },
    "adapters": ["parts/style", {"repo_id": "parts/fast", "adapter_name": "fast", "scale": 0.5}],
}
REPO = "parts/base"
ORIGINS = ("parts/vae", "parts/canny", "parts/style", "parts/fast")

PARENT = """
import json, sys
import nbloader

repo_id, endpoint, cache, half, call = sys.argv[1:]
arrived = {}

def listen(event):
    if event.type == "file-progress":
        arrived[event.path] = event.completed
        if sum(arrived.values()) > int(half):
            print("half", flush=True)

nbloader.download(
    repo_id, endpoint=endpoint, cache_dir=cache, view="none", on_event=listen,
    settings={"route": "http"}, **json.loads(call),
)
"""


def weights(seed: str, size: int = SIZE) -> bytes:
    """Weights of safetensors whose numbers are nowhere else."""
    return _file(seed, size, {"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})


def lora(seed: str) -> dict[str, bytes]:
    """A LoRA for one layer, as wide as it takes to be as large as the others."""
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    half, width = SIZE // 2, SIZE // 2 // 4 // 4
    header = {
        f"{layer}.lora_A.weight": {
            "dtype": "F32",
            "shape": [4, width],
            "data_offsets": [0, half],
        },
        f"{layer}.lora_B.weight": {
            "dtype": "F32",
            "shape": [width, 4],
            "data_offsets": [half, SIZE],
        },
    }
    return {"pytorch_lora_weights.safetensors": _file(seed, SIZE, header)}


def _file(seed: str, size: int, header: Mapping[str, object]) -> bytes:
    text = json.dumps(header).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(text)) + text + Random(seed).randbytes(size)


def model(name: str, class_name: str, folder: str = "") -> dict[str, bytes]:
    config = json.dumps({"_class_name": class_name, "_diffusers_version": "0.42.1"}).encode()
    return {
        f"{folder}config.json": config,
        f"{folder}diffusion_pytorch_model.safetensors": weights(name),
    }


def repositories() -> dict[str, dict[str, bytes]]:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    }
    base = {
        "model_index.json": json.dumps(index).encode(),
        "scheduler/scheduler_config.json": b'{"_class_name": "DDIMScheduler"}',
        "text_encoder/config.json": b'{"model_type": "clip_text_model"}',
        "text_encoder/model.safetensors": weights("text"),
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"",
        **model("unet", "UNet2DConditionModel", "unet/"),
        **model("own-vae", "AutoencoderKL", "vae/"),
    }
    return {
        REPO: base,
        "parts/vae": model("vae", "AutoencoderKL"),
        "parts/canny": model("canny", "ControlNetModel"),
        "parts/style": lora("style"),
        "parts/fast": lora("fast"),
    }


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, write_repo: WriteRepo) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("parts")
    for repo_id, files in repositories().items():
        write_repo(root, repo_id, files)
    with LocalHub.start(root, max_seconds=300) as hub:
        yield hub


def download(hub: LocalHub, cache: Path, on_event: Callable[[Event], object]) -> Path:
    folder = nbloader.download(
        REPO,
        endpoint=hub.endpoint,
        cache_dir=cache,
        view="none",
        on_event=on_event,
        settings={"route": "http"},
        **CALL,
    )
    assert isinstance(folder, Path)
    return folder


def total() -> int:
    """Bytes of what is needed: not the part that is left out, nor the one that is elsewhere."""
    files = [
        (path, content)
        for repo_id, found in repositories().items()
        for path, content in found.items()
        if not (repo_id == REPO and path.startswith("vae/"))
    ]
    return sum(len(content) for _, content in files)


def test_it_goes_on_after_a_kill_and_names_its_origins(parts: LocalHub, tmp_path: Path) -> None:
    parts.set_faults([Fault(BODY["http"], total_bytes_per_second=20 * MB)])
    before = parts.counters().file_bytes
    arguments = (REPO, parts.endpoint, str(tmp_path), str(total() // 2), json.dumps(CALL))
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"half\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(signal.SIGKILL)
    while not all(ended(child) for child in children):
        time.sleep(0.02)
    parts.set_faults([])
    state = JobState(repo_id=REPO, started_at=0.0, updated_at=0.0)
    seen: list[Event] = []

    def listen(event: Event) -> None:
        nonlocal state
        seen.append(event)
        state = apply(state, event, 0.0)

    folder = download(parts, tmp_path, listen)
    assert parts.counters().file_bytes - before <= 1.05 * total()
    check_cache(tmp_path)
    (selected,) = (event for event in seen if isinstance(event, Selected))
    assert selected.selection.total == total()
    assert {part.repo_id for part in state.components} == {"", *ORIGINS}
    for repo_id, files in repositories().items():
        name = f"models--{repo_id.replace('/', '--')}"
        (snapshot,) = (tmp_path / name / "snapshots").iterdir()
        assert repo_id != REPO or snapshot == folder
        found = {
            path.relative_to(snapshot).as_posix(): path.read_bytes()
            for path in snapshot.rglob("*")
            if path.is_file()
        }
        wanted = {
            path: content
            for path, content in files.items()
            if not (repo_id == REPO and path.startswith("vae/"))
        }
        assert found == wanted


def test_a_disk_with_room_for_all_but_one_is_told_at_once(parts: LocalHub, disk: Disk) -> None:
    disk.remount(f"size={total() - SIZE // 2}")
    before, began = parts.counters().file_bytes, time.monotonic()
    with pytest.raises(DiskSpaceError):
        download(parts, disk.folder, lambda event: None)
    assert time.monotonic() - began < 3.0
    assert parts.counters().file_bytes - before < MB // 2
