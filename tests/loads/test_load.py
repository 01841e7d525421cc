"""The main job on real models: from the local Hub to the same numbers as the plain libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import nbloader
from nbloader.errors import InvalidArgumentError, NotCachedError
from nbloader.localhub import LocalHub
from nbloader.localhub.demo import MINILM, QWEN_IMAGE_EDIT, example_image, repo_folder
from nbloader.records import (
    Event,
    FileDone,
    FileProgress,
    Kind,
    Ready,
    Selected,
    Stage,
    StageStarted,
)

SENTENCES = ["A cat sits on the mat.", "Ein Satz.", "", "long " * 300]


def edit(pipe: object) -> np.ndarray:
    import torch

    image = example_image((64, 64))
    pipe.set_progress_bar_config(disable=True)  # type: ignore[attr-defined]
    result = pipe(  # type: ignore[operator]
        image=[image],
        prompt="Make it blue",
        height=64,
        width=64,
        num_inference_steps=2,
        true_cfg_scale=1.0,
        generator=torch.Generator("cpu").manual_seed(3),
    )
    return np.asarray(result.images[0])


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_minilm_gives_the_same_embeddings_as_the_plain_library(
    demo_hub: LocalHub, demo_root: Path, cache: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    events: list[Event] = []
    model = nbloader.load(
        MINILM,
        device="cpu",
        endpoint=demo_hub.endpoint,
        cache_dir=cache,
        view="none",
        on_event=events.append,
    )
    selection = next(event.selection for event in events if isinstance(event, Selected))
    plain = SentenceTransformer(str(repo_folder(demo_root, MINILM)), device="cpu")
    assert np.array_equal(model.encode(SENTENCES), plain.encode(SENTENCES))

    assert (selection.kind, {Path(file.path).suffix for file in selection.files}) == (
        Kind.SENTENCE_TRANSFORMERS,
        {".json", ".md", ".safetensors", ".txt"},
    )
    served = demo_hub.counters().total.body_bytes
    assert selection.total <= served <= 1.01 * selection.total
    stages = [event.stage for event in events if isinstance(event, StageStarted)]
    assert stages == list(Stage)
    assert {event.path for event in events if isinstance(event, FileDone)} == {
        file.path for file in selection.files
    }
    assert events[-1] == Ready(summary="SentenceTransformer on cpu, float32")


def test_the_edit_pipeline_gives_the_same_picture_as_the_plain_library(
    demo_hub: LocalHub, demo_root: Path, cache: Path
) -> None:
    import torch
    from diffusers import DiffusionPipeline

    events: list[Event] = []
    pipe = nbloader.load(
        QWEN_IMAGE_EDIT,
        device="cpu",
        dtype=torch.bfloat16,
        endpoint=demo_hub.endpoint,
        cache_dir=cache,
        view="none",
        on_event=events.append,
    )
    served = demo_hub.counters().total.body_bytes
    total = next(event.selection.total for event in events if isinstance(event, Selected))
    assert total <= served <= 1.01 * total

    plain = DiffusionPipeline.from_pretrained(
        repo_folder(demo_root, QWEN_IMAGE_EDIT), dtype=torch.bfloat16
    )
    assert type(pipe) is type(plain)
    for name in ("text_encoder", "transformer", "vae"):
        tensors, others = (
            dict(chain(part.named_parameters(), part.named_buffers()))
            for part in (getattr(pipe, name), getattr(plain, name))
        )
        assert {key: tensor.dtype for key, tensor in tensors.items()} == {
            key: tensor.dtype for key, tensor in others.items()
        }
        assert all(torch.equal(tensor, others[key]) for key, tensor in tensors.items())
    # In float32, ten times as fast where a processor has no bfloat16.
    assert np.array_equal(edit(pipe.to(torch.float32)), edit(plain.to(torch.float32)))
    assert events[-1] == Ready(summary="QwenImageEditPlusPipeline on cpu, bfloat16")


def test_what_the_cache_holds_is_not_fetched_again(demo_hub: LocalHub, cache: Path) -> None:
    first = nbloader.download(MINILM, endpoint=demo_hub.endpoint, cache_dir=cache, view="none")
    demo_hub.reset_counters()
    events: list[Event] = []
    second = nbloader.download(
        MINILM,
        endpoint=demo_hub.endpoint,
        cache_dir=cache,
        view="none",
        on_event=events.append,
    )
    assert second == first
    # The Hub's library asks for a registry of its own once a day; that is not ours.
    asked = [request.request_class for request in demo_hub.requests()]
    assert [name for name in asked if name != "other"] == ["model-info"]
    assert not any(isinstance(event, FileProgress) for event in events)


def test_the_cache_is_enough_without_a_network(cache: Path, demo_hub: LocalHub) -> None:
    online = nbloader.download(MINILM, endpoint=demo_hub.endpoint, cache_dir=cache, view="none")
    nowhere = "http://127.0.0.1:9"
    offline = nbloader.download(
        MINILM, endpoint=nowhere, cache_dir=cache, view="none", local_files_only=True
    )
    assert offline == online
    with pytest.raises(NotCachedError):
        nbloader.download(
            "org/other", endpoint=nowhere, cache_dir=cache, view="none", local_files_only=True
        )


def test_wrong_arguments_are_refused_before_anything_is_started(cache: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="kind='onnx' is not allowed"):
        nbloader.load(MINILM, kind="onnx")
    with pytest.raises(InvalidArgumentError, match="device='tpu' is not known"):
        nbloader.load(MINILM, device="tpu")
    with pytest.raises(InvalidArgumentError, match="dtype='int3' is not known"):
        nbloader.load(MINILM, dtype="int3")
    with pytest.raises(InvalidArgumentError, match="load has no argument 'colour'"):
        nbloader.load(MINILM, colour="red")  # type: ignore[call-arg]


NO_SOCKETS = """
import json
import sys
import nbloader

seen = []

def hook(name, args):
    if not name.startswith("socket."):
        return
    frame = sys._getframe()
    while frame is not None:
        # urllib3 tries once, when it is imported, whether this machine can bind ::1.
        if (frame.f_code.co_name, frame.f_globals["__name__"]) == (
            "_has_ipv6", "urllib3.util.connection"
        ):
            return
        frame = frame.f_back
    seen.append(name)

sys.addaudithook(hook)
for repo_id, arguments in json.loads(sys.argv[3]).items():
    nbloader.load(
        repo_id,
        endpoint=sys.argv[1],
        cache_dir=sys.argv[2],
        device="cpu",
        view="none",
        **arguments,
    )
print(seen)
import socket
socket.socket().close()
print(seen)
"""


def test_the_parent_opens_no_socket(demo_hub: LocalHub, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", NO_SOCKETS),
            *(demo_hub.endpoint, str(tmp_path), json.dumps({MINILM: {}, QWEN_IMAGE_EDIT: {}})),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "[]\n['socket.__new__']\n",
        "",
    )


HEAVY = """
import sys
import nbloader

nbloader.download(sys.argv[3], endpoint=sys.argv[1], cache_dir=sys.argv[2], view="none")
heavy = ["torch", "diffusers", "transformers", "sentence_transformers", "huggingface_hub"]
print([name for name in heavy if name in sys.modules])
"""


def test_download_imports_nothing_heavy(demo_hub: LocalHub, cache: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, demo_hub.endpoint, str(cache), MINILM],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
