"""Pipelines of diffusers that are more than a folder for each component."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nbloader.records import Kind
from nbloader.selection.pipeline_code import COMMUNITY
from tests.differential.harness import Case
from tests.models import picture, save_pipeline

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"

Change = Callable[[Path], object]


def _plain(folder: Path, **arguments: Any) -> Any:
    import diffusers
    import torch

    # Under the name that the oldest version knows, too.
    return diffusers.DiffusionPipeline.from_pretrained(
        str(folder), torch_dtype=torch.float32, **arguments
    )


def _with(*changes: Change) -> Change:
    """Write a Stable Diffusion, and change its folder."""

    def save(folder: Path) -> None:
        save_pipeline(folder)
        for change in changes:
            change(folder)

    return save


def _index(folder: Path, **entries: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def _rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


# -- lists, code, what is handed in ----------------------------------------------------------------


def _save_two_nets(folder: Path) -> None:
    import diffusers

    save_pipeline(folder)
    pipeline = _plain(folder)
    nets = [
        diffusers.ControlNetModel.from_unet(
            pipeline.unet, conditioning_embedding_out_channels=(4, 8), load_weights_from_unet=copied
        )
        for copied in (True, False)
    ]
    diffusers.StableDiffusionControlNetPipeline(
        **pipeline.components,
        controlnet=diffusers.MultiControlNetModel(nets),
        requires_safety_checker=False,
    ).save_pretrained(folder)


def _save_two_adapters(folder: Path) -> None:
    import diffusers

    save_pipeline(folder)
    pipeline = _plain(folder)
    adapters = [
        diffusers.T2IAdapter(channels=[8, 16], num_res_blocks=number, downscale_factor=2)
        for number in (1, 2)
    ]
    diffusers.StableDiffusionAdapterPipeline(
        **{name: part for name, part in pipeline.components.items() if name != "image_encoder"},
        adapter=diffusers.MultiAdapter(adapters),
        requires_safety_checker=False,
    ).save_pretrained(folder)


_CODE = """
from diffusers import StableDiffusionPipeline
{imports}

class OwnPipeline(StableDiffusionPipeline):
    answer = 42
"""


def _bring_code(folder: Path) -> None:
    (folder / "own.py").write_text(_CODE.format(imports="from .beside import NUMBER"))
    (folder / "beside.py").write_text("NUMBER = 1\n")


def _name_code(folder: Path) -> None:
    _bring_code(folder)
    _index(folder, _class_name=["own", "OwnPipeline"])


def _own_unet(folder: Path) -> None:
    (folder / "unet/own_unet.py").write_text(
        "from diffusers import UNet2DConditionModel\n\n\n"
        "class OwnUNet(UNet2DConditionModel):\n    answer = 42\n"
    )
    _index(folder, unet=["own_unet", "OwnUNet"])


TRUSTED = {"trust_remote_code": True}
NAMED = {"loader_kwargs": {"custom_pipeline": "own"}}


def _null(name: str) -> Change:
    return lambda folder: _index(folder, **{name: [None, None]})


# -- files -----------------------------------------------------------------------------------------


def _half(folder: Path) -> None:
    pipeline = _plain(folder)
    for name in ("unet", "text_encoder"):
        getattr(pipeline, name).half().save_pretrained(folder / name, variant="fp16")


def _shards(folder: Path) -> None:
    pipeline = _plain(folder)
    for name, file in (("unet", UNET), ("text_encoder", TEXT_ENCODER)):
        (folder / file).unlink()
        getattr(pipeline, name).save_pretrained(folder / name, max_shard_size="40KB")


def _shard_without_a_tensor(folder: Path) -> None:
    _shards(folder)
    first, *_ = sorted((folder / "unet").glob("*.safetensors"))
    _rewrite(first, lambda tensors: dict(sorted(tensors.items())[1:]))


def _bin(folder: Path) -> None:
    unet = _plain(folder).unet
    (folder / UNET).unlink()
    unet.save_pretrained(folder / "unet", safe_serialization=False)


def _surplus(path: str) -> Change:
    import torch

    return lambda folder: _rewrite(folder / path, lambda all_: all_ | {"of.another": torch.ones(2)})


def _folder_of(version: str) -> str:
    import diffusers

    number = diffusers.__version__ if version == "installed" else version
    return number if number == "main" else f"v{number}"


def save_community(folder: Path) -> None:
    """Write the pipelines of the community as the Hub has them: a folder for each version."""
    for number, version in enumerate(("installed", "0.30.0", "main")):
        place = folder / _folder_of(version)
        place.mkdir()
        (place / "tiny_prompt.py").write_text(
            "from diffusers import StableDiffusionPipeline\n\n\n"
            f"class TinyPromptPipeline(StableDiffusionPipeline):\n    number = {number}\n"
        )
        (place / "another.py").write_text("import nothing_that_is_there\n")


def _of_the_community(folder: Path, version: str) -> str:
    place = folder.parents[2] / f"datasets/{COMMUNITY}" / _folder_of(version)
    return str(place / "tiny_prompt.py")


_COMMUNITY = {f"datasets/{COMMUNITY}": save_community}


def _case(name: str, *changes: Change, call: Any = picture, **more: Any) -> Case:
    refused = "refused" in more
    return Case(
        name=f"stable-diffusion-{name}",
        kind=Kind.DIFFUSERS,
        save=more.pop("save", None) or _with(*changes),
        plain=None if refused else more.pop("plain", _plain),
        call=None if refused else call,
        **more,
    )


CASES = (
    _case("two-controlnets", save=_save_two_nets, call=None),
    _case("two-adapters", save=_save_two_adapters, call=None),
    _case("own-code", _name_code, plain=lambda f: _plain(f, **TRUSTED), arguments=TRUSTED),
    _case("own-code-untrusted", _name_code, refused="unsupported-repo"),
    _case(
        "named-code",
        _bring_code,
        plain=lambda f: _plain(f, custom_pipeline="own", **TRUSTED),
        arguments={**NAMED, **TRUSTED},
    ),
    _case("named-code-untrusted", _bring_code, arguments=NAMED, refused="unsupported-repo"),
    _case("own-unet", _own_unet, plain=lambda f: _plain(f, **TRUSTED), arguments=TRUSTED),
    *(
        _case(
            f"community-{name}",
            plain=lambda f, v=version: _plain(
                f, custom_pipeline=_of_the_community(f, v), **TRUSTED
            ),
            companions=_COMMUNITY,
            arguments={"loader_kwargs": {"custom_pipeline": "tiny_prompt", **given}, **TRUSTED},
        )
        for name, version, given in (
            ("installed", "installed", {}),
            ("old", "0.30.0", {"custom_revision": "0.30.0"}),
            ("newest", "main", {"custom_revision": "main"}),
        )
    ),
    _case(
        "community-untrusted",
        companions=_COMMUNITY,
        arguments={"loader_kwargs": {"custom_pipeline": "tiny_prompt"}},
        refused="unsupported-repo",
    ),
    _case(
        "community-without-it",
        companions=_COMMUNITY,
        arguments={"loader_kwargs": {"custom_pipeline": "tiny_promt"}, **TRUSTED},
        refused="unsupported-repo",
    ),
    _case(
        "variant",
        _half,
        plain=lambda f: _plain(f, variant="fp16"),
        arguments={"variant": "fp16", "dtype": "float32"},
    ),
    _case("shards", _shards),
    # The library itself sees only what the index says.
    _case("shard-without-a-tensor", _shard_without_a_tensor, refused="missing-tensors"),
    _case("bin", _bin, arguments={"allow_pickle": True}),
    _case("surplus", _surplus(UNET), _surplus(TEXT_ENCODER)),
    _case(
        "left-out",
        plain=lambda f: _plain(f, text_encoder=None, tokenizer=None),
        arguments={"loader_kwargs": {"text_encoder": None, "tokenizer": None}},
        call=None,
    ),
    _case(
        "not-taken",
        arguments={"loader_kwargs": {"nothing": 1}},
        notices=frozenset({"invalid-argument"}),
    ),
    _case("lacking-a-part", _null("tokenizer"), refused="missing-component"),
    _case(
        "gone-class",
        partial(_index, _class_name="LuminaText2ImgPipeline"),
        refused="unsupported-class",
    ),
    _case(
        "foreign-library", partial(_index, vae=["os", "AutoencoderKL"]), refused="unsupported-class"
    ),
)
