"""Classes that the caller names: one model, one part, another pipeline of the same files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nbloader.records import Kind
from tests.differential.cases import companions
from tests.differential.harness import Case
from tests.differential.pipeline_parts import make, parts_of
from tests.models import picture, save_classifier, save_pipeline

_ELSEWHERE = "parts"


def _of(name: str) -> Any:
    """A class by its dotted name."""
    from importlib import import_module

    library, _, cls = name.rpartition(".")
    return getattr(import_module(library), cls)


def _dtype(library: str) -> dict[str, Any]:
    import torch

    return {} if library == "sentence_transformers" else {"dtype": torch.float32}


def _plain(name: str, given: Mapping[str, Any], folder: Path) -> Any:
    return _of(name).from_pretrained(str(folder), **given)


def _with_dtype(name: str, given: Mapping[str, Any], folder: Path) -> Any:
    return _plain(name, {**_dtype(name.partition(".")[0]), **given}, folder)


def _class(
    case: str,
    name: str,
    save: Callable[[Path], object],
    *,
    kind: Kind = Kind.CLASSES,
    weights: bool = True,
    subfolder: str | None = None,
    given: Mapping[str, Any] | None = None,
    by_files: bool = False,
    **more: Any,
) -> Case:
    """Make a case of one class.

    Args:
        name: of the class, with its library.
        weights: whether it has any, and takes a dtype.
        given: further arguments of the library, which are in `loader_kwargs` here.
        by_files: whether the class is left to the files.
    """
    plain = _with_dtype if weights else _plain
    theirs = {**(given or {}), **({"subfolder": subfolder} if subfolder else {})}
    arguments: dict[str, Any] = {} if by_files else {"cls": name.rpartition(".")[2]}
    if subfolder:
        arguments["subfolder"] = subfolder
    if given:
        arguments["loader_kwargs"] = dict(given)
    return Case(
        name=f"class-{case}",
        kind=kind,
        save=save,
        plain=partial(plain, name, theirs),
        arguments=arguments,
        group=name,
        **more,
    )


# -- repositories ----------------------------------------------------------------------------------


def _one(name: str, folder: Path) -> None:
    """One model of diffusers."""
    make(name).save_pretrained(folder)


def _saved(name: str, folder: Path) -> None:
    """A whole pipeline."""
    pipeline_class = _of(f"diffusers.{name}")
    pipeline_class(**parts_of(pipeline_class)).save_pretrained(folder)


_CHECKER = "diffusers.pipelines.stable_diffusion.safety_checker.StableDiffusionSafetyChecker"
"""A class of transformers' making that belongs to some pipelines of diffusers."""


def _checker(folder: Path) -> None:
    from transformers import CLIPConfig

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    eyes = sizes | {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(
        vision_config=eyes, text_config=sizes | {"vocab_size": 4}, projection_dim=32
    )
    _of(_CHECKER)(config).save_pretrained(folder)


def _checker_inside(folder: Path) -> None:
    _checker(folder / "safety_checker")


def _tuple(folder: Path) -> Any:
    import torch
    import transformers

    return (
        transformers.AutoModelForSequenceClassification.from_pretrained(
            str(folder), dtype=torch.float32
        ),
        transformers.AutoTokenizer.from_pretrained(str(folder)),
    )


def _tokens(made: Any) -> Any:
    return made("a good b")["input_ids"]


def _logits(made: Any) -> Any:
    import torch

    with torch.no_grad():
        return made(input_ids=torch.tensor([[5, 6, 7]])).logits


def _tuple_call(made: Any) -> Any:
    import torch

    model, tokenizer = made
    with torch.no_grad():
        return model(**tokenizer("a good b", return_tensors="pt")).logits


_NEW_HEAD = {"num_labels": 3, "id2label": {0: "x", 1: "y", 2: "z"}, "ignore_mismatched_sizes": True}

_CLASSES = (
    _class("sequence-classification", "transformers.AutoModelForSequenceClassification",
           save_classifier, call=_logits),
    _class("exact", "transformers.BertForSequenceClassification", save_classifier, call=_logits),
    _class("body", "transformers.AutoModel", save_classifier),
    _class("other-head", "transformers.AutoModelForTokenClassification", companions.save_bert,
           notices=frozenset({"new-head"}), call=_logits),
    _class("new-labels", "transformers.AutoModelForSequenceClassification", save_classifier,
           given=_NEW_HEAD, call=_logits),
    _class("tokenizer", "transformers.AutoTokenizer", save_classifier, weights=False, call=_tokens),
    _class("config", "transformers.AutoConfig", save_classifier, weights=False),
    _class("causal", "transformers.AutoModelForCausalLM", companions.save_llama, call=_logits),
    Case(
        name="class-tuple",
        kind=Kind.CLASSES,
        save=save_classifier,
        plain=_tuple,
        call=_tuple_call,
        arguments={"cls": ("AutoModelForSequenceClassification", "AutoTokenizer")},
        group="tuple",
    ),
    *(
        _class(name.lower(), f"diffusers.{name}", partial(_one, name))
        for name in ("ControlNetModel", "AutoencoderKL", "MotionAdapter", "T2IAdapter",
                     "FluxTransformer2DModel", "AutoencoderTiny")
    ),
    _class("diffusers-auto", "diffusers.AutoModel", partial(_one, "ControlNetModel")),
    _class("by-files", "diffusers.ControlNetModel", partial(_one, "ControlNetModel"),
           by_files=True),
    _class("unet", "diffusers.UNet2DConditionModel", save_pipeline, subfolder="unet"),
    _class("unet-by-files", "diffusers.UNet2DConditionModel", save_pipeline, subfolder="unet",
           by_files=True),
    _class("unet-auto", "diffusers.AutoModel", save_pipeline, subfolder="unet"),
    _class("text-encoder", "transformers.CLIPTextModel", save_pipeline, subfolder="text_encoder"),
    _class("text-encoder-by-files", "transformers.CLIPTextModel", save_pipeline,
           subfolder="text_encoder", by_files=True),
    _class("clip-tokenizer", "transformers.CLIPTokenizer", save_pipeline, subfolder="tokenizer",
           weights=False, call=_tokens),
    _class("safety-checker", _CHECKER, _checker, by_files=True),
    _class("safety-checker-in-a-folder", _CHECKER, _checker_inside, subfolder="safety_checker",
           by_files=True),
    _class("scheduler", "diffusers.EulerDiscreteScheduler", save_pipeline, subfolder="scheduler",
           weights=False),
    _class("scheduler-by-files", "diffusers.DDIMScheduler", save_pipeline, subfolder="scheduler",
           weights=False, by_files=True),
    *(
        _class(name.lower(), f"diffusers.{name}", save_pipeline, kind=Kind.DIFFUSERS)
        for name in ("AutoPipelineForText2Image", "AutoPipelineForImage2Image",
                     "AutoPipelineForInpainting", "StableDiffusionImg2ImgPipeline",
                     "DiffusionPipeline")
    ),
)  # fmt: skip


# -- components from other places ------------------------------------------------------------------


def _loaded(name: str, folder: Path, subfolder: str = "") -> Any:
    inner = {"subfolder": subfolder} if subfolder else {}
    return _of(name).from_pretrained(str(folder), **inner, **_dtype(""))


def _part(folder: Path, name: str) -> Path:
    return folder.parents[1] / _ELSEWHERE / name


def _sd(folder: Path, cls: str = "DiffusionPipeline", **parts: Any) -> Any:
    return _of(f"diffusers.{cls}").from_pretrained(str(folder), **_dtype(""), **parts)


def _controlnet(folder: Path, *, seed: int = 0) -> None:
    import torch
    from diffusers import ControlNetModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ControlNetModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            cross_attention_dim=64,
            norm_num_groups=2,
            attention_head_dim=2,
            conditioning_embedding_out_channels=(8, 16),
        ).save_pretrained(folder)


def _vae(folder: Path) -> None:
    from diffusers import AutoencoderKL

    AutoencoderKL(
        block_out_channels=[4, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=2,
        scaling_factor=0.5,
    ).save_pretrained(folder)


def _in_a_folder(save: Callable[[Path], object], folder: Path) -> None:
    save(folder / "inner" / "place")


def _of_other_pipeline(folder: Path) -> None:
    save_pipeline(folder)
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(config | {"_class_name": "EulerDiscreteScheduler"}), "utf-8")


def _checked(folder: Path, *, declared: bool) -> None:
    """A pipeline that may declare a safety checker, and has none in its folders."""
    from transformers import CLIPImageProcessor

    save_pipeline(folder)
    CLIPImageProcessor().save_pretrained(folder / "feature_extractor")
    path = folder / "model_index.json"
    named: dict[str, object] = {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
    if declared:
        named["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | named), "utf-8")


def _other(name: str) -> str:
    return f"{_ELSEWHERE}/{name}"


_COMPONENTS = (
    Case(
        name="vae-from-elsewhere",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        companions={_other("vae"): _vae},
        plain=lambda f: _sd(f, vae=_loaded("diffusers.AutoencoderKL", _part(f, "vae"))),
        call=picture,
        arguments={"components": {"vae": _other("vae")}},
    ),
    Case(
        name="vae-in-a-folder-of-another",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        companions={_other("inner-vae"): partial(_in_a_folder, _vae)},
        plain=lambda f: _sd(
            f, vae=_loaded("diffusers.AutoencoderKL", _part(f, "inner-vae"), "inner/place")
        ),
        call=picture,
        arguments={"components": {"vae": f"{_other('inner-vae')}@main/inner/place"}},
    ),
    Case(
        name="parts-of-another-pipeline",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        companions={_other("sd"): _of_other_pipeline},
        plain=lambda f: _sd(
            f,
            unet=_loaded("diffusers.UNet2DConditionModel", _part(f, "sd"), "unet"),
            text_encoder=_loaded("transformers.CLIPTextModel", _part(f, "sd"), "text_encoder"),
            tokenizer=_of("transformers.CLIPTokenizer").from_pretrained(
                str(_part(f, "sd")), subfolder="tokenizer"
            ),
            scheduler=_of("diffusers.EulerDiscreteScheduler").from_pretrained(
                str(_part(f, "sd")), subfolder="scheduler"
            ),
        ),
        call=picture,
        arguments={
            "components": dict.fromkeys(
                ("unet", "text_encoder", "tokenizer", "scheduler"), _other("sd")
            )
        },
    ),
    Case(
        name="left-out-by-components",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        plain=lambda f: _sd(f, text_encoder=None, tokenizer=None),
        arguments={"components": {"text_encoder": None, "tokenizer": None}},
    ),
    Case(
        name="controlnet-from-elsewhere",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        companions={_other("canny"): _controlnet},
        plain=lambda f: _sd(
            f,
            "StableDiffusionControlNetPipeline",
            controlnet=_loaded("diffusers.ControlNetModel", _part(f, "canny")),
        ),
        arguments={
            "cls": "StableDiffusionControlNetPipeline",
            "components": {"controlnet": _other("canny")},
        },
    ),
    Case(
        name="several-controlnets-from-elsewhere",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        companions={_other("one"): _controlnet, _other("two"): partial(_controlnet, seed=1)},
        plain=lambda f: _sd(
            f,
            "StableDiffusionControlNetPipeline",
            controlnet=[
                _loaded("diffusers.ControlNetModel", _part(f, name)) for name in ("one", "two")
            ],
        ),
        arguments={
            "cls": "StableDiffusionControlNetPipeline",
            "components": {"controlnet": [_other("one"), _other("two")]},
        },
    ),
    *(
        Case(
            name=f"safety-checker-{case}",
            kind=Kind.DIFFUSERS,
            save=partial(_checked, declared=declared),
            companions={_other("checker"): _checker},
            plain=lambda f: _sd(f, safety_checker=_loaded(_CHECKER, _part(f, "checker"))),
            arguments={"components": {"safety_checker": _other("checker")}},
        )
        for case, declared in (("from-elsewhere", True), ("that-is-not-declared", False))
    ),
    Case(
        name="list-of-one-controlnet",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        companions={_other("one"): _controlnet},
        plain=lambda f: _sd(
            f,
            "StableDiffusionControlNetPipeline",
            controlnet=[_loaded("diffusers.ControlNetModel", _part(f, "one"))],
        ),
        arguments={
            "cls": "StableDiffusionControlNetPipeline",
            "components": {"controlnet": [_other("one")]},
        },
    ),
    Case(
        name="auto-with-controlnet",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        companions={_other("canny"): _controlnet},
        plain=lambda f: _sd(
            f,
            "AutoPipelineForText2Image",
            controlnet=_loaded("diffusers.ControlNetModel", _part(f, "canny")),
        ),
        arguments={
            "cls": "AutoPipelineForText2Image",
            "components": {"controlnet": _other("canny")},
        },
    ),
    Case(
        name="controlnet-pipeline-without-one",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        refused="missing-component",
        arguments={"cls": "StableDiffusionControlNetPipeline"},
    ),
)


def _refused(case: str, save: Callable[[Path], object], refused: str, **arguments: Any) -> Case:
    return Case(
        name=f"class-not-{case}",
        kind=Kind.CLASSES,
        save=save,
        refused=refused,
        arguments=arguments,
    )


_REFUSED = (
    _refused("of-this-family", companions.save_bert, "unsupported-repo",
             cls="AutoModelForSpeechSeq2Seq"),
    Case(
        name="class-not-of-this-pipeline",
        kind=Kind.DIFFUSERS,
        save=partial(_saved, "DDPMPipeline"),
        refused="unsupported-repo",
        arguments={"cls": "AutoPipelineForInpainting"},
    ),
    Case(
        name="component-that-is-not-taken",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        companions={_other("canny"): _controlnet},
        refused="invalid-argument",
        arguments={"components": {"controlnet": _other("canny")}},
    ),
    *(
        Case(
            name=f"component-{case}",
            kind=Kind.DIFFUSERS,
            save=save_pipeline,
            companions=made,
            refused="invalid-argument",
            arguments={"components": components},
        )
        for case, made, components in (
            ("of-no-name", {}, {"vea": None}),
            ("of-another-kind", {_other("canny"): _controlnet}, {"vae": _other("canny")}),
            ("of-another-library", {_other("bert"): save_classifier}, {"vae": _other("bert")}),
            ("of-another-folder", {_other("sd"): _of_other_pipeline},
             {"unet": f"{_other('sd')}/vae"}),
        )
    ),
    Case(
        name="task-of-a-folder",
        kind=Kind.CLASSES,
        save=save_pipeline,
        refused="unsupported-repo",
        arguments={"subfolder": "text_encoder", "task": "fill-mask"},
    ),
    _refused("with-what-it-leaves-out", save_classifier, "unsupported-repo",
             components={"vae": None}),
    _refused("a-pipeline", save_classifier, "unsupported-repo", cls="AutoPipelineForText2Image"),
    _refused("there", save_pipeline, "unsupported-repo", cls="AutoModel", subfolder="prior"),
    _refused("in-root", save_pipeline, "unsupported-repo", cls="UNet2DConditionModel"),
    _refused(
        "of-this-model", partial(_one, "ControlNetModel"), "unsupported-repo", cls="AutoencoderKL"
    ),
    _refused("of-transformers", save_classifier, "unsupported-repo", cls="AutoencoderKL"),
    _refused("with-components", save_classifier, "unsupported-repo",
             cls="AutoModel", components={"vae": "org/vae"}),
    _refused("with-a-tokenizer", partial(_one, "ControlNetModel"), "no-weights",
             cls="AutoTokenizer"),
)  # fmt: skip

CASES = (*_CLASSES, *_COMPONENTS, *_REFUSED)
