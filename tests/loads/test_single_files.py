"""Checkpoints of one file and GGUF, against what the plain libraries load of the same files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import nbloader
from nbloader.errors import NbloaderError, UnsupportedClassError, UnsupportedRepoError
from nbloader.localhub import LocalHub, RequestClass
from nbloader.records import Event, Selected
from tests import adapters, checkpoints
from tests.checkpoints import SD, WAN
from tests.conftest import WriteRepo
from tests.differential.comparison import differences
from tests.differential.harness import seeded
from tests.differential.pipeline_parts import parts_of
from tests.gguf_files import gguf_file
from tests.pickled import HARM, archive

FILE = "org/single-files"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files on the disk: `base` and `wan` as the libraries save them, and the checkpoints."""
    folder = tmp_path_factory.mktemp("made")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seeded(lambda: _make(folder))
    return folder


def _make(folder: Path) -> None:
    pipeline = checkpoints.save_sd(folder / "base")
    state = checkpoints.sd_checkpoint(pipeline)
    checkpoints.safetensors_of(state, folder / "sd.safetensors")
    torch.save({"state_dict": state}, folder / "sd.ckpt")
    checkpoints.safetensors_of(checkpoints.ldm_vae(pipeline.vae), folder / "vae.safetensors")
    model = checkpoints.wan()
    model.save_pretrained(folder / "wan" / "transformer")
    state = checkpoints.wan_checkpoint(model)
    checkpoints.safetensors_of(state, folder / "wan.safetensors")
    (folder / "wan.gguf").write_bytes(checkpoints.gguf_of(state, "wan"))
    (folder / "llama.gguf").write_bytes(checkpoints.llama_gguf())


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def hub_of_files(hub: LocalHub, hub_root: Path, write_repo: WriteRepo, made: Path) -> LocalHub:
    """Publish the checkpoints, and the repositories of their configurations."""
    files = {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()}
    for repo_id, content in (
        (SD, files_below(made / "base")),
        (WAN, files_below(made / "wan")),
        (FILE, {"readme.md": b"", **files, "models/sd.safetensors": files["sd.safetensors"]}),
    ):
        if not (hub_root / "models" / repo_id).exists():
            write_repo(hub_root, repo_id, content)
    return hub


def load(hub: LocalHub, cache: Path, place: str | Path, **arguments: Any) -> tuple[Any, Selected]:
    events: list[Event] = []
    built = nbloader.load(
        place,
        device="cpu",
        endpoint=hub.endpoint,
        cache_dir=cache,
        view="none",
        on_event=events.append,
        **{"dtype": "float32", **arguments},
    )
    return built, next(event for event in events if isinstance(event, Selected))


def same(ours: Any, theirs: Any) -> None:
    """Two models are of one class, with the same tensors and configuration."""
    assert type(ours) is type(theirs)
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name
    assert settings(ours) == settings(theirs)


def settings(model: Any) -> dict[str, Any]:
    """The configuration, without what says where it was found."""
    config = model.config if isinstance(model.config, dict) else model.config.to_dict()
    return {name: value for name, value in config.items() if not name.startswith("_")}


def picture(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        "a b",
        num_inference_steps=2,
        height=16,
        width=16,
        output_type="np",
        generator=torch.Generator("cpu").manual_seed(3),
    ).images


@pytest.mark.parametrize("place", ["sd.safetensors", "models/sd.safetensors", "sd.ckpt"])
def test_a_checkpoint_is_the_pipeline_of_the_library(
    hub_of_files: LocalHub, tmp_path: Path, made: Path, place: str
) -> None:
    from diffusers import StableDiffusionPipeline

    ours, selected = load(hub_of_files, tmp_path, f"{FILE}/{place}")
    served = hub_of_files.counters().total.body_bytes
    theirs = StableDiffusionPipeline.from_single_file(
        str(made / Path(place).name), config=str(made / "base"), dtype=torch.float32
    )
    assert type(ours) is type(theirs)
    assert ours.components.keys() == theirs.components.keys()
    for name in ("unet", "vae", "text_encoder"):
        same(getattr(ours, name), getattr(theirs, name))
    assert (picture(ours) == picture(theirs)).all()
    assert [(file.path, file.repo_id) for file in selected.selection.files] == [
        (place, ""),
        *(
            (f"{SD}:{path}", SD)
            for path in (
                "model_index.json",
                "scheduler/scheduler_config.json",
                "text_encoder/config.json",
                "tokenizer/tokenizer.json",
                "tokenizer/tokenizer_config.json",
                "unet/config.json",
                "vae/config.json",
            )
        ),
    ]
    total = selected.selection.total
    # What a pickle says of its tensors is read before the file, and in a tiny one it is much.
    assert total <= served <= (1.03 if place.endswith(".ckpt") else 1.01) * total
    assert json.dumps(ours.tokenizer.name_or_path) == json.dumps(SD)
    assert {part.name: part.total for part in selected.weights} == {
        name: sum(each.nbytes for each in getattr(ours, name).state_dict().values())
        for name in ("text_encoder", "unet", "vae")
    }


def test_a_model_alone_is_loaded_as_that(
    hub_of_files: LocalHub, tmp_path: Path, made: Path
) -> None:
    from diffusers import AutoencoderKL, WanTransformer3DModel

    address = f"{hub_of_files.endpoint}/{FILE}/blob/main"
    for name, cls, base, folder in (
        ("vae", AutoencoderKL, "base", "vae"),
        ("wan", WanTransformer3DModel, "wan", "transformer"),
    ):
        ours, selected = load(hub_of_files, tmp_path, f"{address}/{name}.safetensors")
        theirs = cls.from_single_file(
            str(made / f"{name}.safetensors"),
            config=str(made / base),
            subfolder=folder,
            dtype=torch.float32,
        )
        same(ours, theirs)
        repo_id = SD if base == "base" else WAN
        assert {file.path for file in selected.selection.files} == {
            f"{name}.safetensors",
            f"{repo_id}:{folder}/config.json",
        }


def test_a_file_of_this_machine_is_loaded_where_it_is(
    hub_of_files: LocalHub, tmp_path: Path, made: Path
) -> None:
    from diffusers import AutoencoderKL

    ours, selected = load(hub_of_files, tmp_path, made / "vae.safetensors")
    theirs = AutoencoderKL.from_single_file(
        str(made / "vae.safetensors"),
        config=str(made / "base"),
        subfolder="vae",
        dtype=torch.float32,
    )
    same(ours, theirs)
    assert selected.selection.folder == str(made)
    assert hub_of_files.counters().total.body_bytes < 10_000
    whole, _ = load(hub_of_files, tmp_path, str(made / "sd.safetensors"))
    same(whole.vae, theirs)


def test_a_class_may_be_named(hub_of_files: LocalHub, tmp_path: Path, made: Path) -> None:
    from diffusers import AutoencoderKL, StableDiffusionImg2ImgPipeline

    place = f"{FILE}/sd.safetensors"
    ours, _ = load(hub_of_files, tmp_path, place, cls="StableDiffusionImg2ImgPipeline")
    theirs = StableDiffusionImg2ImgPipeline.from_single_file(
        str(made / "sd.safetensors"), config=str(made / "base"), dtype=torch.float32
    )
    assert type(ours) is type(theirs)
    same(ours.unet, theirs.unet)
    one, selected = load(hub_of_files, tmp_path, place, cls=AutoencoderKL)
    same(one, theirs.vae)
    assert {file.path for file in selected.selection.files} == {
        "sd.safetensors",
        f"{SD}:vae/config.json",
    }


def test_a_configuration_may_be_named(
    hub_of_files: LocalHub, tmp_path: Path, made: Path, publish: Any
) -> None:
    """A second repository of the same pipeline, whose scheduler is another one."""
    files = files_below(made / "base")
    settings = json.loads(files["scheduler/scheduler_config.json"])
    files["scheduler/scheduler_config.json"] = json.dumps(settings | {"beta_end": 0.5}).encode()
    base = publish(files)
    ours, selected = load(
        hub_of_files, tmp_path, f"{FILE}/sd.safetensors", loader_kwargs={"config": base}
    )
    assert ours.scheduler.config.beta_end == 0.5
    assert {file.repo_id for file in selected.selection.files} == {"", base}


def test_parts_are_handed_in_or_left_out(hub_of_files: LocalHub, tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    mine = DDIMScheduler()
    ours, selected = load(
        hub_of_files, tmp_path, f"{FILE}/sd.safetensors", components={"scheduler": mine}
    )
    assert ours.scheduler is mine
    assert not any("scheduler" in file.path for file in selected.selection.files)


def test_nothing_is_fetched_twice(hub_of_files: LocalHub, tmp_path: Path) -> None:
    load(hub_of_files, tmp_path, f"{FILE}/sd.safetensors")
    hub_of_files.reset_counters()
    ours, _ = load(hub_of_files, tmp_path, f"{FILE}/sd.safetensors", local_files_only=True)
    assert type(ours).__name__ == "StableDiffusionPipeline"
    assert hub_of_files.counters().total.requests == 0


# -- parts of a pipeline ---------------------------------------------------------------------------


def test_a_part_of_a_checkpoint_comes_from_another_file(
    hub_of_files: LocalHub, tmp_path: Path, made: Path
) -> None:
    from diffusers import AutoencoderKL, StableDiffusionPipeline

    ours, selected = load(
        hub_of_files,
        tmp_path,
        f"{FILE}/sd.safetensors",
        components={"vae": f"{FILE}/vae.safetensors"},
    )
    base = str(made / "base")
    vae = AutoencoderKL.from_single_file(
        str(made / "vae.safetensors"), config=base, subfolder="vae", dtype=torch.float32
    )
    theirs = StableDiffusionPipeline.from_single_file(
        str(made / "sd.safetensors"), config=base, dtype=torch.float32, vae=vae
    )
    for name in ("unet", "vae", "text_encoder"):
        same(getattr(ours, name), getattr(theirs, name))
    weights = {file.path for file in selected.selection.files if file.path.endswith("tensors")}
    assert weights == {"sd.safetensors", "vae.safetensors"}


def test_a_part_comes_from_the_page_of_a_file_or_from_one_of_this_machine(
    hub_of_files: LocalHub, tmp_path: Path, made: Path
) -> None:
    """Under either name of the Hub, and from the disk, it is the same part."""
    vae, page = f"{FILE}/vae.safetensors", f"{FILE}/blob/main/vae.safetensors"
    first, _ = load(hub_of_files, tmp_path, SD, components={"vae": vae})
    for place in (f"hf.co/{page}", f"'{hub_of_files.endpoint}/{page}'", made / "vae.safetensors"):
        ours, selected = load(hub_of_files, tmp_path, SD, components={"vae": place})
        assert differences(ours.vae, first.vae) == []
        assert not any(
            file.path.startswith("vae/") and file.path.endswith("tensors")
            for file in selected.selection.files
        )


def test_a_part_comes_from_a_file(hub_of_files: LocalHub, tmp_path: Path, made: Path) -> None:
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    ours, selected = load(
        hub_of_files,
        tmp_path,
        SD,
        components={"vae": f"{FILE}/vae.safetensors", "unet": f"{FILE}/models/sd.safetensors"},
    )
    parts = {
        name: cls.from_single_file(
            str(made / file), config=str(made / "base"), subfolder=name, dtype=torch.float32
        )
        for name, cls, file in (
            ("vae", AutoencoderKL, "vae.safetensors"),
            ("unet", UNet2DConditionModel, "sd.safetensors"),
        )
    }
    theirs = StableDiffusionPipeline.from_pretrained(
        str(made / "base"), dtype=torch.float32, **parts
    )
    for name in ("unet", "vae", "text_encoder"):
        same(getattr(ours, name), getattr(theirs, name))
    assert (picture(ours) == picture(theirs)).all()
    weights = {file.path for file in selected.selection.files if file.path.endswith("tensors")}
    assert weights == {
        f"{FILE}:models/sd.safetensors",
        f"{FILE}:vae.safetensors",
        "text_encoder/model.safetensors",
    }


def test_a_transformer_of_a_pipeline_comes_from_a_gguf(
    hub_of_files: LocalHub, tmp_path: Path, made: Path, publish: Any
) -> None:
    pytest.importorskip("gguf")
    from diffusers import GGUFQuantizationConfig, WanPipeline, WanTransformer3DModel

    folder = tmp_path / "pipeline"
    parts = parts_of(
        WanPipeline,
        transformer=WanTransformer3DModel.from_pretrained(str(made / "wan" / "transformer")),
    )
    WanPipeline(**parts).save_pretrained(folder)
    repo_id = publish(files_below(folder))
    ours, selected = load(
        hub_of_files,
        tmp_path / "cache",
        repo_id,
        dtype="bfloat16",
        components={"transformer": f"{FILE}/wan.gguf"},
    )
    theirs = WanTransformer3DModel.from_single_file(
        str(made / "wan.gguf"),
        config=str(folder),
        subfolder="transformer",
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16),
        dtype=torch.bfloat16,
    )
    same(ours.transformer, theirs)
    assert f"{FILE}:wan.gguf" in {file.path for file in selected.selection.files}
    assert not any(
        file.path.startswith("transformer/diffusion") for file in selected.selection.files
    )
    weights = {part.name: part for part in selected.weights}
    assert weights["transformer"].quantization == "gguf"


# -- what is refused before a byte of weights ------------------------------------------------------


def of(*names: str) -> bytes:
    """A small file of tensors."""
    return save({name: torch.zeros(4, 4) for name in names})


@pytest.mark.parametrize(
    ("place", "arguments", "error", "message"),
    [
        ("sd.safetensor.ckpt", {}, UnsupportedRepoError, "has no file 'sd.safetensor.ckpt'"),
        ("lora.safetensors", {}, UnsupportedRepoError, "It seems to be a LoRA"),
        ("rwkv.gguf", {}, UnsupportedRepoError, "of the architecture 'rwkv6'"),
        ("vae.sft", {}, UnsupportedRepoError, "files that end with '.safetensors'"),
        ("vae.SAFETENSORS", {}, UnsupportedRepoError, "files that end with '.safetensors'"),
        ("harmful.ckpt", {}, UnsupportedRepoError, "cannot be told without running it"),
        (
            "sd.safetensors",
            {"cls": "AutoPipelineForText2Image"},
            UnsupportedClassError,
            "has no from_single_file",
        ),
    ],
)
def test_what_cannot_be_loaded_is_named_before_a_byte_of_weights(
    hub_of_files: LocalHub,
    hub_root: Path,
    write_repo: WriteRepo,
    tmp_path: Path,
    made: Path,
    place: str,
    arguments: dict[str, Any],
    error: type[NbloaderError],
    message: str,
) -> None:
    wrong = "org/wrong-files"
    if not (hub_root / "models" / wrong).exists():
        files = {
            "lora.safetensors": of("unet.a.lora_A.weight", "unet.a.lora_B.weight"),
            "rwkv.gguf": gguf_file({"general.architecture": "rwkv6"}, {"w": ("F32", (2,), None)}),
            "harmful.ckpt": archive(HARM["GLOBAL"][0]),
            "vae.sft": (made / "vae.safetensors").read_bytes(),
            "vae.SAFETENSORS": (made / "vae.safetensors").read_bytes(),
        }
        write_repo(hub_root, wrong, files)
    repo_id = FILE if place.startswith(("sd.", "wan.", "llama.")) else wrong
    with pytest.raises(error) as caught:
        load(hub_of_files, tmp_path, f"{repo_id}/{place}", **arguments)
    assert message in caught.value.message
    assert caught.value.hint
    assert hub_of_files.counters().total.body_bytes < 300_000


@pytest.mark.parametrize(
    ("part", "file", "message", "hint"),
    [
        ("vae", "lora.safetensors", "It seems to be a LoRA", 'adapters="org/wrong-parts/lora.s'),
        ("unet", "wan.gguf", "weights of WanTransformer3DModel, and not of UNet2DC", "same model"),
        ("vae", "llama.gguf", "It seems to be a GGUF of 'llama'", "the class AutoencoderKL"),
        ("vae", "wan.safetensors", "WanTransformer3DModel, and not of AutoencoderKL", "Wan-AI/"),
        ("unet", "vae.safetensors", "of AutoencoderKL, and not of UNet2DConditionModel", ""),
    ],
)
def test_a_file_of_another_kind_is_no_part(
    hub_of_files: LocalHub,
    hub_root: Path,
    write_repo: WriteRepo,
    tmp_path: Path,
    made: Path,
    part: str,
    file: str,
    message: str,
    hint: str,
) -> None:
    wrong = "org/wrong-parts"
    if not (hub_root / "models" / wrong).exists():
        files = {each.name: each.read_bytes() for each in made.iterdir() if each.is_file()}
        files["lora.safetensors"] = of("unet.a.lora_A.weight", "unet.a.lora_B.weight")
        write_repo(hub_root, wrong, files)
    with pytest.raises(UnsupportedRepoError) as caught:
        load(hub_of_files, tmp_path, SD, components={part: f"{wrong}/{file}"})
    assert message in caught.value.message
    assert hint in str(caught.value.hint)
    assert hub_of_files.counters().of(RequestClass.CDN_GET).body_bytes < 300_000


# -- GGUF ------------------------------------------------------------------------------------------


def test_a_model_of_diffusers_stays_quantized(
    hub_of_files: LocalHub, tmp_path: Path, made: Path
) -> None:
    pytest.importorskip("gguf")
    from diffusers import GGUFQuantizationConfig, WanTransformer3DModel

    ours, selected = load(hub_of_files, tmp_path, f"{FILE}/wan.gguf", dtype="bfloat16")
    theirs = WanTransformer3DModel.from_single_file(
        str(made / "wan.gguf"),
        config=str(made / "wan"),
        subfolder="transformer",
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16),
        dtype=torch.bfloat16,
    )
    same(ours, theirs)
    assert ours.blocks[0].attn1.to_q.weight.quant_type.name == "Q8_0"
    (weights,) = selected.weights
    assert weights.quantization == "gguf"
    assert weights.bytes_by_dtype.keys() == {"F32", "Q8_0"}
    assert weights.total == pytest.approx((made / "wan.gguf").stat().st_size, rel=0.05)


def test_a_language_model_is_the_pipeline_for_text(
    hub_of_files: LocalHub, tmp_path: Path, made: Path
) -> None:
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"gguf_file": "llama.gguf"}
    theirs = AutoModelForCausalLM.from_pretrained(str(made), dtype=torch.float32, **source)
    tokenizer = AutoTokenizer.from_pretrained(str(made), **source)
    ours, selected = load(hub_of_files, tmp_path, f"{FILE}/llama.gguf")
    same(ours.model, theirs)
    assert ours.task == "text-generation"
    assert ours.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert [file.path for file in selected.selection.files] == ["llama.gguf"]
    model, own = load(
        hub_of_files,
        tmp_path,
        FILE,
        cls=("AutoModelForCausalLM", "AutoTokenizer"),
        loader_kwargs=source,
    )[0]
    same(model, theirs)
    assert own.encode("ab") == tokenizer.encode("ab")


def test_a_lora_in_a_checkpoint(hub_of_files: LocalHub, made: Path, tmp_path: Path) -> None:
    import diffusers

    base = diffusers.StableDiffusionPipeline.from_pretrained(made / "base")
    file = tmp_path / "lora.safetensors"
    adapters.write(file, adapters.lora({"unet": base.unet}))
    ours, told = load(hub_of_files, tmp_path / "cache", f"{FILE}/sd.safetensors", adapters=file)
    theirs, _ = load(hub_of_files, tmp_path / "cache", f"{FILE}/sd.safetensors")
    assert told.adapters[0].unknown > 0  # The file has the names of its authors.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.load_lora_weights(str(tmp_path), weight_name=file.name)
    assert differences(ours, theirs) == []
