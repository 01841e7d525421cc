"""Tiny repositories under the ids that stand on the page of idioms."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nbloader.localhub import LocalHub
from tests import adapters, checkpoints
from tests.differential.cases import companions, embedders
from tests.differential.harness import seeded
from tests.differential.pipeline_parts import make, parts_of
from tests.models import save_classifier, save_embedder, save_pipeline

__all__ = ["GATED", "publish"]

Save = Callable[[Path], object]

GATED = frozenset({"meta-llama/Llama-3.2-1B-Instruct"})
"""Those that only the token of the idioms may read."""


def publish(lines: str, root: Path, here: Path, hub: LocalHub) -> None:
    """Write what lines of the page name, unless it is there: repositories, folders of `here`."""
    named = [
        repo_id
        for repo_id in REPOS
        if f'"{repo_id}' in lines
        or f'"{repo_id.partition("/")[2]}"' in lines
        or f"huggingface.co/{repo_id}/" in lines
    ]
    if "custom_pipeline" in lines:
        named.append(_COMMUNITY)
    folders = [name for name in FOLDERS if f'"./{name}' in lines]
    beside = [other for name in (*folders, *named) for other in BESIDE.get(name, ())]
    for repo_id in dict.fromkeys((*beside, *named)):
        kind = "datasets" if repo_id in _DATASETS else "models"
        if _write(root / kind / repo_id, REPOS[repo_id]):
            if repo_id in GATED:
                hub.set_access(repo_id, gated="manual")
            for name in REFS.get(repo_id, ()):
                hub.set_ref(repo_id, name)
    for name in folders:
        _write(here / name, FOLDERS[name])


def _write(folder: Path, save: Save) -> bool:
    if folder.exists():
        return False
    folder.mkdir(parents=True)
    seeded(lambda: save(folder))
    # Of what is beside it: makers of embedders leave the model that they were made of.
    for other in folder.parent.glob(f"{folder.name}-*"):
        if other.name.endswith(("-transformer", "-parts")):
            shutil.rmtree(other)
    return True


# -- diffusers -------------------------------------------------------------------------------------


def _pipeline(
    name: str, folder: Path, *also: str, variant: str | None = None, **given: Any
) -> None:
    import diffusers

    pipeline_class = getattr(diffusers, name)
    made = pipeline_class(**parts_of(pipeline_class, also, **given))
    made.save_pretrained(folder)
    if variant:
        made.to(dtype=_half()).save_pretrained(folder, variant=variant)


def _half() -> Any:
    import torch

    return torch.float16


def _of(name: str, *also: str, variant: str | None = None) -> Save:
    return lambda folder: _pipeline(name, folder, *also, variant=variant)


def _model(name: str) -> Save:
    return lambda folder: make(name).save_pretrained(folder)


def _checked(folder: Path) -> None:
    """A Stable Diffusion with its safety checker."""
    import diffusers
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    save_pipeline(folder)
    plain = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    eyes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    words = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 4}
    parts = plain.components | {
        "safety_checker": StableDiffusionSafetyChecker(
            CLIPConfig(vision_config=eyes, text_config=words, projection_dim=32)
        ),
        "feature_extractor": CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
    }
    shutil.rmtree(folder)
    diffusers.StableDiffusionPipeline(**parts).save_pretrained(folder)


def _edit(folder: Path) -> None:
    import transformers

    _pipeline("QwenImageEditPlusPipeline", folder, processor=_processor(transformers))


def _processor(transformers: Any) -> Any:
    return transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(),
        tokenizer=make("Qwen2Tokenizer"),
        video_processor=transformers.Qwen2VLVideoProcessor(),
    )


def _quantized(save: Save, **config: Any) -> Save:
    """Let a pipeline's transformer say that it is stored quantized."""

    def write(folder: Path) -> None:
        save(folder)
        path = folder / "transformer" / "config.json"
        told = json.loads(path.read_text("utf-8")) | {"quantization_config": config}
        path.write_text(json.dumps(told), "utf-8")

    return write


def _decoder(folder: Path) -> None:
    _pipeline("KandinskyV22Pipeline", folder)
    (folder / "README.md").write_text(
        "---\nprior:\n- kandinsky-community/kandinsky-2-2-prior\n---\n", "utf-8"
    )


def _checkpoint(file: str, folder: Path, *, part: str | None = None) -> None:
    """Write a Stable Diffusion, or a part of one, as a file of its authors."""
    import diffusers

    with tempfile.TemporaryDirectory() as place:
        save_pipeline(Path(place))
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(place)
        state = (
            checkpoints.sd_checkpoint(pipeline)
            if part is None
            else checkpoints.ldm_vae(pipeline.components[part])
        )
    checkpoints.safetensors_of(state, folder / file)


def _packed(folder: Path) -> None:
    from tests import packed

    packed.save(folder / "svdq-int4_r32-flux.1-dev.safetensors")


def _wan(folder: Path) -> None:
    _pipeline("WanPipeline", folder, transformer=checkpoints.wan())


def _wan_gguf(folder: Path) -> None:
    state = checkpoints.wan_checkpoint(checkpoints.wan())
    file = folder / "wan2.1-t2v-14b-Q4_K_S.gguf"
    file.write_bytes(checkpoints.gguf_of(state, "wan"))


def _llama_gguf(folder: Path) -> None:
    (folder / "Llama-3.2-1B-Instruct-Q4_K_M.gguf").write_bytes(checkpoints.llama_gguf())


# -- transformers, sentence-transformers -----------------------------------------------------------


def _carded(save: Save, **card: str) -> Save:
    def write(folder: Path) -> None:
        save(folder)
        lines = "".join(f"{key}: {value}\n" for key, value in card.items())
        (folder / "README.md").write_text(f"---\n{lines}---\n", "utf-8")

    return write


def _masked(folder: Path) -> None:
    import transformers

    companions.save_bert(folder)
    config = transformers.BertConfig.from_pretrained(folder)
    transformers.BertForMaskedLM(config).save_pretrained(folder)


def _wide_llama(folder: Path) -> None:
    """A language model that bitsandbytes computes in four bits on a CPU: of blocks of 64."""
    import transformers

    companions.save_llama(folder)
    sizes = companions.SIZES | {"hidden_size": 64, "intermediate_size": 64}
    config = transformers.LlamaConfig(**sizes, num_key_value_heads=2, pad_token_id=0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def _with_code(folder: Path) -> None:
    companions.save_coded(folder, "Alibaba-NLP/new-impl")


def _embedder(case: str) -> Save:
    (save,) = (each.save for each in embedders.CASES if each.name == case)
    return save


def _community(folder: Path) -> None:
    """The pipelines of the community, as the Hub has them for the installed version."""
    import diffusers

    code = "from diffusers import StableDiffusionPipeline\n\n\n"
    code += "class LongPromptPipeline(StableDiffusionPipeline):\n    longest = 3\n"
    _files({f"v{diffusers.__version__}/lpw_stable_diffusion.py": code}, folder)


# -- adapters --------------------------------------------------------------------------------------


def _sdxl_lora(filename: str, seed: int, kohya: bool, folder: Path) -> None:
    import diffusers

    pipe = diffusers.StableDiffusionXLPipeline(
        **parts_of(diffusers.StableDiffusionXLPipeline, _TEXT)
    )
    parts = {name: getattr(pipe, name) for name in ("unet", "text_encoder", "text_encoder_2")}
    made = adapters.kohya_lora(parts, seed=seed) if kohya else adapters.lora(parts, seed=seed)
    adapters.write(folder / filename, made)


def _lightning(folder: Path) -> None:
    """With the names of diffusers, without the component, and with alphas."""
    import torch

    made = adapters.lora({"transformer": make("QwenImageTransformer2DModel")})
    sides = {"lora_A": "lora_down", "lora_B": "lora_up"}
    tensors: dict[str, Any] = {}
    for name, tensor in made.items():
        layer, side, end = name.removeprefix("transformer.").rsplit(".", 2)
        tensors[f"{layer}.{sides[side]}.{end}"] = tensor
    alphas = {f"{name[: -len('.lora_down.weight')]}.alpha" for name in tensors if "down" in name}
    tensors |= {name: torch.tensor(8.0) for name in alphas}
    adapters.write(folder / "Qwen-Image-Lightning-8steps-V1.0.safetensors", tensors)
    adapters.write(folder / "Qwen-Image-Lightning-4steps-V1.0.safetensors", tensors)


def _seeing(folder: Path) -> None:
    """An IP-Adapter for the small Stable Diffusion, with its image encoder."""
    import diffusers

    base = folder.with_name(f"{folder.name}-parts")
    save_pipeline(base)
    unet = diffusers.StableDiffusionPipeline.from_pretrained(base).unet
    adapters.write(
        folder / "models" / "ip-adapter_sd15.bin", adapters.nested(adapters.ip_adapter(unet))
    )
    adapters.save_image_encoder(folder / "models" / "image_encoder")


def _word(folder: Path) -> None:
    import torch

    adapters.write(folder / "learned_embeds.bin", {"<cat-toy>": torch.randn(64)})


# -- other files -----------------------------------------------------------------------------------


def _files(files: Mapping[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")


_SD, _SDXL = (
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-xl-base-1.0",
)
_SENTIMENT = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
_COMMUNITY = "diffusers/community-pipelines-mirror"
_TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")

REPOS: Mapping[str, Save] = {
    "Qwen/Qwen-Image": _of("QwenImagePipeline"),
    "Qwen/Qwen-Image-Edit-2509": _edit,
    _SD: _checked,
    _SDXL: _of("StableDiffusionXLPipeline", *_TEXT, variant="fp16"),
    "black-forest-labs/FLUX.1-dev": _of("FluxPipeline", *_TEXT),
    "nunchaku-tech/nunchaku-flux.1-dev": _packed,
    "Disty0/Z-Image-Turbo-SDNQ-uint4-svd-r32": _quantized(
        _of("ZImagePipeline"), quant_method="sdnq", weights_dtype="uint4"
    ),
    "diffusers/FLUX.1-dev-bnb-4bit": _quantized(
        _of("FluxPipeline", *_TEXT), quant_method="bitsandbytes", load_in_4bit=True
    ),
    "stabilityai/stable-diffusion-3-medium-diffusers": _of("StableDiffusion3Pipeline"),
    "Lykon/DreamShaper": partial(_checkpoint, "DreamShaper_8_pruned.safetensors"),
    "stabilityai/sd-vae-ft-mse-original": partial(
        _checkpoint, "vae-ft-mse-840000-ema-pruned.safetensors", part="vae"
    ),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": _wan,
    "city96/Wan2.1-T2V-14B-gguf": _wan_gguf,
    "bartowski/Llama-3.2-1B-Instruct-GGUF": _llama_gguf,
    "madebyollin/sdxl-vae-fp16-fix": _model("AutoencoderKL"),
    "diffusers/controlnet-canny-sdxl-1.0": _model("ControlNetModel"),
    "diffusers/controlnet-depth-sdxl-1.0": _model("ControlNetModel"),
    "guoyww/animatediff-motion-adapter-v1-5-2": _model("MotionAdapter"),
    "TencentARC/t2i-adapter-canny-sdxl-1.0": _model("T2IAdapter"),
    "kandinsky-community/kandinsky-2-2-decoder": _decoder,
    "kandinsky-community/kandinsky-2-2-prior": _of("KandinskyV22PriorPipeline"),
    "jbilcke-hf/sdxl-cinematic-1": partial(_sdxl_lora, adapters.LORA, 0, False),
    "nerijs/pixel-art-xl": partial(_sdxl_lora, "pixel-art-xl.safetensors", 5, True),
    "lightx2v/Qwen-Image-Lightning": _lightning,
    "h94/IP-Adapter": _seeing,
    "sd-concepts-library/cat-toy": _word,
    _SENTIMENT: _carded(save_classifier, pipeline_tag="text-classification"),
    "google-bert/bert-base-uncased": _masked,
    "facebook/opt-350m": companions.save_llama,
    "Qwen/Qwen3-0.6B": _wide_llama,
    "meta-llama/Llama-3.2-1B-Instruct": companions.save_llama,
    "ybelkada/opt-350m-lora": partial(companions.save_lora, base_id="facebook/opt-350m"),
    "Alibaba-NLP/gte-multilingual-reranker-base": _with_code,
    "Alibaba-NLP/new-impl": companions.save_code,
    "sentence-transformers/all-MiniLM-L6-v2": save_embedder,
    "cross-encoder/ms-marco-MiniLM-L6-v2": _embedder("ranker"),
    "naver/splade-v3": _embedder("splade"),
    "lightonai/GTE-ModernColBERT-v1": _embedder("late"),
    _COMMUNITY: _community,
    "rajpurkar/squad": partial(
        _files, {"README.md": "# Squad\n", "plain_text/train.csv": "a\n1\n"}
    ),
}
"""What writes a repository, by the ids of the page."""

_DATASETS = frozenset({"rajpurkar/squad", _COMMUNITY})

BESIDE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("Lykon/DreamShaper", "stabilityai/sd-vae-ft-mse-original"), (_SD,)),
    "my-model": (_SD,),
    "city96/Wan2.1-T2V-14B-gguf": ("Wan-AI/Wan2.1-T2V-14B-Diffusers",),
    "kandinsky-community/kandinsky-2-2-decoder": ("kandinsky-community/kandinsky-2-2-prior",),
    "Alibaba-NLP/gte-multilingual-reranker-base": ("Alibaba-NLP/new-impl",),
    "ybelkada/opt-350m-lora": ("facebook/opt-350m",),
}
"""Repositories that another one names, and the lines do not."""

REFS: Mapping[str, tuple[str, ...]] = {
    _SDXL: ("refs/pr/18",),
    _SENTIMENT: ("714eb0f",),
}
"""Names of the newest commit."""

FOLDERS: Mapping[str, Save] = {
    "my-pipeline": save_pipeline,
    "my-model": partial(_checkpoint, "model.safetensors"),
}
"""Folders of this machine."""
