"""Models that are larger than the disk: `keep_files=False`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.errors import (
    CancelledError,
    DiskFullError,
    DiskSpaceError,
    InvalidArgumentError,
    ModelLoadError,
)
from nbloader.hub_cache import PassingFiles
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.records import Event, FileDone, Notice, Selected
from tests.differential.comparison import differences
from tests.faults.runs import BODY
from tests.faults.test_full_disk import Disk, disk
from tests.models import picture, save_classifier, save_embedder, save_pipeline

__all__ = ["disk"]

MB = 1_000_000
MIB = 1 << 20
REPO = "passing/pipeline"
SHARD = "6MB"


def weights_of(folder: Path) -> list[str]:
    """The files of weights below a folder, by their paths."""
    found = (path.relative_to(folder) for path in folder.rglob("*.safetensors"))
    return sorted(path.as_posix() for path in found)


def left_in(cache: Path) -> dict[str, list[str]]:
    """What a cache holds of weights: their names, and large blobs."""
    blobs = [path.name for path in cache.glob("models--*/blobs/*") if len(path.name) == 64]
    return {
        "names": [each.rpartition("snapshots/")[2][41:] for each in weights_of(cache)],
        "blobs": blobs,
    }


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pipeline of 100 MB in many files."""
    from diffusers import (
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    small = tmp_path_factory.mktemp("small")
    save_pipeline(small)
    folder = tmp_path_factory.mktemp("large")
    pipeline = StableDiffusionPipeline.from_pretrained(small, local_files_only=True)
    text = CLIPTextConfig(
        vocab_size=pipeline.text_encoder.config.vocab_size,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=4,
        projection_dim=256,
        max_position_embeddings=pipeline.text_encoder.config.max_position_embeddings,
    )
    unet = UNet2DConditionModel(
        block_out_channels=(96, 192, 288),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=256,
        attention_head_dim=8,
        sample_size=8,
    )
    StableDiffusionPipeline(
        vae=pipeline.vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=pipeline.tokenizer,
        unet=unet,
        scheduler=pipeline.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, max_shard_size=SHARD)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def published(hub_root: Path, large: Path) -> Path:
    folder = hub_root / "models" / REPO
    if not folder.exists():
        shutil.copytree(large, folder)
    return folder


Load = Callable[..., Any]


@pytest.fixture
def load(hub: LocalHub, tmp_path: Path) -> Load:
    def load(repo_id: str, **keywords: Any) -> Any:
        given = {
            "device": "cpu",
            "endpoint": hub.endpoint,
            "cache_dir": tmp_path / "cache",
            "view": "none",
            "keep_files": False,
        }
        return nbloader.load(repo_id, **{**given, **keywords})

    return load


def check_same(pipeline: Any, folder: Path) -> None:
    from diffusers import DiffusionPipeline

    plain = DiffusionPipeline.from_pretrained(folder)
    assert differences(pipeline, plain) == []
    assert (picture(pipeline) == picture(plain)).all()


def test_what_is_loaded_goes(hub: LocalHub, published: Path, load: Load, tmp_path: Path) -> None:
    told: list[Event] = []
    pipeline = load(REPO, on_event=told.append)
    check_same(pipeline, published)
    assert left_in(tmp_path / "cache") == {"names": [], "blobs": []}
    notices = [each.reference for each in told if isinstance(each, Notice)]
    assert notices == ["files-not-kept"]
    names = {each.path for each in told if isinstance(each, FileDone)}
    assert set(weights_of(published)) <= names
    # The next load downloads what is gone, and what it keeps stays.
    hub.reset_counters()
    check_same(load(REPO, keep_files=True), published)
    size = sum((published / path).stat().st_size for path in weights_of(published))
    assert size <= hub.counters().file_bytes <= 1.02 * size
    assert left_in(tmp_path / "cache")["names"] == weights_of(published)
    hub.reset_counters()
    check_same(load(REPO), published)
    assert hub.counters().file_bytes == 0
    assert left_in(tmp_path / "cache")["names"] == weights_of(published)


def test_what_was_there_before_stays(
    hub: LocalHub, published: Path, load: Load, tmp_path: Path
) -> None:
    before = weights_of(published)[:3]
    for path in before:
        nbloader.download(
            REPO, path, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", view="none"
        )
    check_same(load(REPO), published)
    assert left_in(tmp_path / "cache")["names"] == before


def test_what_another_commit_has_too_stays(
    published: Path, load: Load, tmp_path: Path, large: Path
) -> None:
    path = weights_of(published)[0]
    seen: list[Path] = []

    told: list[Event] = []

    def share(event: Event) -> None:
        told.append(event)
        if isinstance(event, FileDone) and event.path == path:
            blob = next((tmp_path / "cache").glob(f"models--*/snapshots/*/{path}")).resolve()
            other = blob.parents[1] / "snapshots" / ("a" * 40) / "other.safetensors"
            other.parent.mkdir(parents=True)
            other.symlink_to(blob)
            seen.append(blob)

    check_same(load(REPO, on_event=share), published)
    assert [blob.exists() for blob in seen] == [True]
    messages = [each.message for each in told if isinstance(each, Notice)]
    assert messages[1] == f"{path} stays in the cache"


@pytest.mark.parametrize("kind", ["transformers", "sentence-transformers"])
def test_models_of_one_piece(hub_root: Path, load: Load, tmp_path: Path, kind: str) -> None:
    import transformers
    from sentence_transformers import SentenceTransformer

    folder = hub_root / "models" / "passing" / kind
    if kind == "transformers":
        save_classifier(folder)
        model = transformers.BertForSequenceClassification.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="60KB")
        ours = load(f"passing/{kind}", kind=kind)
        theirs: Any = transformers.pipeline("text-classification", str(folder), device="cpu")
    else:
        save_embedder(folder)
        ours = load(f"passing/{kind}")
        theirs = SentenceTransformer(str(folder), device="cpu")
    assert differences(ours, theirs) == []
    # A tokenizer that is saved may copy its files.
    assert "nbloader-passing" not in str(vars(ours.tokenizer))
    stays = ["2_Dense/model.safetensors"] if kind == "sentence-transformers" else []
    assert left_in(tmp_path / "cache")["names"] == stays


def disk_with(disk: Disk, free: int) -> Path:
    """Make a disk with so many bytes, and return the cache on it."""
    disk.remount(f"size={free}")
    return disk.folder / "cache"


def test_a_model_that_is_larger_than_the_disk(
    hub: LocalHub, published: Path, load: Load, disk: Disk
) -> None:
    total = sum(path.stat().st_size for path in published.rglob("*") if path.is_file())
    cache = disk_with(disk, total // 3)
    report = nbloader.preflight(REPO, device="cpu", endpoint=hub.endpoint, cache_dir=cache)
    [failed] = [each for each in report.results if each.name == "disk"]
    assert "Or pass `keep_files=False`, which needs" in (failed.hint or "")
    with pytest.raises(DiskSpaceError):
        load(REPO, cache_dir=cache, keep_files=True)
    told: list[Event] = []
    pipeline = load(REPO, cache_dir=cache, on_event=told.append)
    check_same(pipeline, published)
    assert left_in(cache) == {"names": [], "blobs": []}
    assert hub.counters().file_bytes <= 1.05 * total


PARENT = """
import sys
import nbloader

repo_id, endpoint, cache = sys.argv[1:]
nbloader.load(
    repo_id, device="cpu", endpoint=endpoint, cache_dir=cache, view="none", keep_files=False
)
"""


def test_after_a_kill_it_goes_on(hub: LocalHub, published: Path, load: Load, disk: Disk) -> None:
    total = sum(path.stat().st_size for path in published.rglob("*") if path.is_file())
    cache = disk_with(disk, total // 3)
    hub.set_faults([Fault(BODY["http"], total_bytes_per_second=8 * MB)])
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, REPO, hub.endpoint, str(cache)], start_new_session=True
    )
    try:
        while hub.counters().file_bytes < total // 2:
            assert process.poll() is None
            threading.Event().wait(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    hub.clear_faults()
    pipeline = load(REPO, cache_dir=cache)
    check_same(pipeline, published)
    assert left_in(cache) == {"names": [], "blobs": []}


def test_a_load_that_is_stopped_leaves_no_threads(
    hub: LocalHub, published: Path, tmp_path: Path
) -> None:
    hub.set_faults([Fault(RequestClass.CDN_GET, total_bytes_per_second=4 * MB)])
    job = nbloader.start(
        REPO,
        device="cpu",
        endpoint=hub.endpoint,
        cache_dir=tmp_path / "cache",
        view="none",
        keep_files=False,
        on_event=lambda event: job.cancel() if isinstance(event, FileDone) else None,
    )
    with pytest.raises(CancelledError):
        job.result()
    assert not [each.name for each in threading.enumerate() if each.name == "nbloader-read"]


def test_what_cannot_be_is_said(published: Path, load: Load, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"replace=True keeps the old model"):
        load(REPO, replace=True)


def test_shards_that_are_not_asked_for_in_their_order(
    hub: LocalHub, hub_root: Path, load: Load, disk: Disk
) -> None:
    import transformers

    folder = hub_root / "models" / "passing" / "causal"
    save_classifier(folder)
    config = transformers.LlamaConfig(
        vocab_size=32_000,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="9MB")  # its head, asked for first, comes last
    total = sum(path.stat().st_size for path in folder.iterdir())
    cache = disk_with(disk, max(total // 3, 34 * MB + 8 * MIB))
    ours = load("passing/causal", cls="LlamaForCausalLM", cache_dir=cache)
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder)
    assert differences(ours, theirs) == []
    assert left_in(cache) == {"names": [], "blobs": []}


# -- where files are, and whose they are -----------------------------------------------------------


def test_in_a_cache_without_links(
    published: Path, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    check_same(load(REPO), published)
    assert left_in(tmp_path / "cache") == {"names": [], "blobs": []}


def test_a_part_of_another_repository_stays(
    published: Path, hub_root: Path, load: Load, tmp_path: Path
) -> None:
    shutil.copytree(published / "vae", hub_root / "models" / "passing" / "vae")
    check_same(load(REPO, components={"vae": "passing/vae"}), published)
    assert left_in(tmp_path / "cache")["names"] == ["diffusion_pytorch_model.safetensors"]


def test_where_nothing_makes_room_it_does_not_wait(published: Path, load: Load, disk: Disk) -> None:
    total = sum(path.stat().st_size for path in published.rglob("*") if path.is_file())
    cache = disk_with(disk, total // 3)

    def share(event: Event) -> None:
        if isinstance(event, FileDone) and event.path.endswith(".safetensors"):
            blob = next(cache.glob(f"models--*/snapshots/*/{event.path}")).resolve()
            other = blob.parents[1] / "snapshots" / ("a" * 40) / event.path
            other.parent.mkdir(parents=True, exist_ok=True)
            other.symlink_to(blob)

    with pytest.raises(DiskFullError, match="have to have room at a time"):
        load(REPO, cache_dir=cache, on_event=share)


DOWNLOAD = """
import sys
import nbloader

repo_id, endpoint, cache = sys.argv[1:]
nbloader.download(repo_id, endpoint=endpoint, cache_dir=cache, view="none")
"""


def test_what_another_process_downloads_at_the_same_time_stays(
    hub: LocalHub, published: Path, load: Load, tmp_path: Path
) -> None:
    hub.set_faults([Fault(BODY["http"], total_bytes_per_second=30 * MB)])
    others: list[subprocess.Popen[bytes]] = []

    def begin(event: Event) -> None:
        if isinstance(event, FileDone) and event.path.endswith(".safetensors") and not others:
            command = [sys.executable, "-c", DOWNLOAD, REPO, hub.endpoint, str(tmp_path / "cache")]
            others.append(subprocess.Popen(command))

    pipeline = load(REPO, on_event=begin)
    assert others[0].wait() == 0
    check_same(pipeline, published)
    assert left_in(tmp_path / "cache")["names"] == weights_of(published)


def test_what_is_wanted_of_a_killed_load_stays(
    published: Path, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Selected):
            commits.append(event.selection.commit_hash)

    with monkeypatch.context() as killed:
        killed.setattr(PassingFiles, "remove", lambda *_: False)
        load(REPO, on_event=note)
    assert left_in(tmp_path / "cache")["names"] == weights_of(published)
    load(REPO, revision=commits[0], keep_files=True)  # Nobody is asked: all is there.
    check_same(load(REPO), published)
    assert left_in(tmp_path / "cache")["names"] == weights_of(published)


def test_what_a_killed_load_has_left_goes(
    hub: LocalHub, published: Path, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(PassingFiles, "remove", lambda *_: False)
        load(REPO)
    hub.reset_counters()
    check_same(load(REPO), published)
    assert hub.counters().file_bytes == 0
    assert left_in(tmp_path / "cache") == {"names": [], "blobs": []}


# -- what goes wrong meanwhile ---------------------------------------------------------------------


def workers() -> list[int]:
    """The workers of this process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            command = status.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if fields[1] == str(os.getpid()) and b"nbloader.worker" in command:
            found.append(int(status.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_after_the_worker_is_killed_another_goes_on(
    hub: LocalHub, published: Path, load: Load, disk: Disk
) -> None:
    total = sum(path.stat().st_size for path in published.rglob("*") if path.is_file())
    cache = disk_with(disk, total // 3)
    hub.set_faults([Fault(BODY["http"], total_bytes_per_second=40 * MB)])
    done: list[str] = []

    def kill(event: Event) -> None:
        if isinstance(event, FileDone) and event.path.endswith(".safetensors"):
            done.append(event.path)
            if len(done) in {3, 8}:
                for worker in workers():
                    os.kill(worker, signal.SIGKILL)

    check_same(load(REPO, cache_dir=cache, on_event=kill), published)
    assert left_in(cache) == {"names": [], "blobs": []}


def test_a_copy_that_appears_between_two_looks_is_not_read_by_the_library(
    published: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbloader.stages.passing import PassingLoad

    original, looks = PassingLoad.is_ready, []

    def is_ready(self: PassingLoad) -> bool:
        looks.append(original(self))
        return looks[-1] and looks.count(True) != 1  # The next look finds it.

    monkeypatch.setattr(PassingLoad, "is_ready", is_ready)
    check_same(load(REPO), published)


def test_an_error_of_the_library_is_the_one_that_is_told(
    published: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models.modeling_utils import ModelMixin

    original = ModelMixin._load_pretrained_model.__func__

    def fails(cls: type, *arguments: Any, **keywords: Any) -> Any:
        original(cls, *arguments, **keywords)
        raise RuntimeError("the cause")

    monkeypatch.setattr(ModelMixin, "_load_pretrained_model", classmethod(fails))
    with pytest.raises(ModelLoadError, match="RuntimeError: the cause"):
        load(REPO)


def test_shards_that_are_loaded_by_several_threads(
    published: Path, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers.models.modeling_utils as library

    monkeypatch.setattr(library, "HF_ENABLE_PARALLEL_LOADING", True)
    check_same(load(REPO), published)
    assert left_in(tmp_path / "cache") == {"names": [], "blobs": []}


def test_in_a_notebook_it_is_not_for_the_background(published: Path, hub: LocalHub) -> None:
    async def cell() -> None:
        nbloader.start(REPO, device="cpu", endpoint=hub.endpoint, view="none", keep_files=False)

    with pytest.raises(InvalidArgumentError, match="no cell can run beside that"):
        asyncio.run(cell())
