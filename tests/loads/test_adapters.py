"""Adapters, put in by a load: what comes is what the library's own lines make of the same files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers

import nbloader
from nbloader.errors import (
    InvalidArgumentError,
    NbloaderError,
    NoWeightsError,
    UnsupportedRepoError,
)
from nbloader.localhub import LocalHub
from nbloader.records import (
    AdapterKind,
    Checked,
    CheckStatus,
    Event,
    Selected,
    Stage,
    StageStarted,
)
from nbloader.selection import FIRST_READ_BYTES
from tests import adapters as make
from tests.differential.cases import companions
from tests.differential.comparison import differences, paths_in
from tests.differential.pipeline_parts import parts_of
from tests.models import picture, save_pipeline, seeded

SD, SDXL, FLUX, LLAMA = "adapted/sd", "adapted/sdxl", "adapted/flux", "adapted/llama"
ZOO = "org/zoo-of-adapters"
STYLE, KOHYA, WORDS, IP = "org/style", "org/kohya-style", "org/cat-toy", "org/ip-adapter"


def save_sdxl(folder: Path) -> None:
    cls = diffusers.StableDiffusionXLPipeline
    optional = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    seeded(lambda: cls(**parts_of(cls, optional))).save_pretrained(folder)


def save_flux(folder: Path) -> None:
    cls = diffusers.FluxPipeline
    seeded(lambda: cls(**parts_of(cls))).save_pretrained(folder)


@pytest.fixture(scope="session")
def models(_server: tuple[LocalHub, Path]) -> Mapping[str, Path]:
    """Publish pipelines, and adapters for them; their folders by id."""
    root = _server[1] / "models"
    for repo_id, save in {
        SD: save_pipeline,
        SDXL: save_sdxl,
        FLUX: save_flux,
        LLAMA: companions.save_llama,
    }.items():
        if not (root / repo_id).exists():
            seeded(partial(_made, save, root / repo_id))
    sd = diffusers.StableDiffusionPipeline.from_pretrained(root / SD)
    both = {"unet": sd.unet, "text_encoder": sd.text_encoder}
    make.write(root / STYLE / make.LORA, make.lora(both))
    make.write(root / KOHYA / "style-v1.safetensors", make.kohya_lora(both, seed=7))
    word = torch.randn(64, generator=torch.Generator().manual_seed(3))
    make.write(root / WORDS / "learned_embeds.bin", {"<cat-toy>": word})
    seen = make.ip_adapter(sd.unet)
    make.write(root / IP / "models" / "ip-adapter.bin", make.nested(seen))
    make.write(root / IP / "models" / "ip-adapter.safetensors", seen)
    make.save_image_encoder(root / IP / "models" / "image_encoder")
    sdxl = diffusers.StableDiffusionXLPipeline.from_pretrained(root / SDXL)
    parts = {name: getattr(sdxl, name) for name in ("unet", "text_encoder", "text_encoder_2")}
    make.write(root / ZOO / "sdxl" / "diffusers.safetensors", make.lora(parts))
    make.write(root / ZOO / "sdxl" / "kohya.safetensors", make.kohya_lora(parts, seed=5))
    flux = diffusers.FluxPipeline.from_pretrained(root / FLUX)
    readable = make.lora({"transformer": flux.transformer})
    make.write(root / ZOO / "flux" / "diffusers.safetensors", readable)
    make.write(root / ZOO / "flux" / "xlabs.safetensors", make.xlabs_lora(flux.transformer))
    seeing = make.xlabs_ip_adapter(flux.transformer)
    make.write(root / ZOO / "seeing" / "ip_adapter.safetensors", seeing)
    make.save_image_encoder(root / ZOO / "seeing" / "image_encoder")
    unread = {f"diffusion_model.{name[12:]}": tensor for name, tensor in readable.items()}
    make.write(root / ZOO / "flux" / "unread.safetensors", unread)
    make.write(root / ZOO / "whole" / "model.safetensors", dict(sd.unet.state_dict()))
    (root / ZOO / "text").mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        companions.save_lora(root / ZOO / "text", LLAMA)
    return {path: root / path for path in (SD, SDXL, FLUX, LLAMA, ZOO, STYLE, KOHYA, WORDS, IP)}


def _made(save: Callable[[Path], object], folder: Path) -> None:
    folder.mkdir(parents=True)
    save(folder)


@pytest.fixture
def load(hub: LocalHub, models: Mapping[str, Path], tmp_path: Path) -> Callable[..., Any]:
    del models
    return partial(
        nbloader.load,
        endpoint=hub.endpoint,
        cache_dir=tmp_path,
        device="cpu",
        view="none",
        settings={"route": "http"},
    )


def plain_pipeline(folder: Path) -> Any:
    return diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)


# -- the same as the library's own lines -----------------------------------------------------------

_Lines = Callable[[Any, Mapping[str, Path]], object]


def one_lora(pipe: Any, at: Mapping[str, Path]) -> None:
    pipe.load_lora_weights(str(at[STYLE]))


def two_loras(pipe: Any, at: Mapping[str, Path]) -> None:
    pipe.load_lora_weights(str(at[STYLE]), adapter_name="ink")
    pipe.load_lora_weights(str(at[KOHYA]), weight_name="style-v1.safetensors", adapter_name="oil")
    pipe.set_adapters(["ink", "oil"], [0.7, 1.0])


def words(pipe: Any, at: Mapping[str, Path]) -> None:
    pipe.load_textual_inversion(str(at[WORDS]))


def seeing(pipe: Any, at: Mapping[str, Path], *, name: str = "ip-adapter.safetensors") -> None:
    pipe.load_ip_adapter(str(at[IP]), subfolder="models", weight_name=name)
    pipe.set_ip_adapter_scale(0.5)


def all_of_them(pipe: Any, at: Mapping[str, Path]) -> None:
    words(pipe, at)
    seeing(pipe, at)
    two_loras(pipe, at)


def sdxl_loras(pipe: Any, at: Mapping[str, Path]) -> None:
    folder = str(at[ZOO] / "sdxl")
    pipe.load_lora_weights(folder, weight_name="diffusers.safetensors", adapter_name="default_0")
    pipe.load_lora_weights(folder, weight_name="kohya.safetensors", adapter_name="default_1")
    pipe.set_adapters(["default_0", "default_1"], [1.0, 1.0])


def flux_lora(pipe: Any, at: Mapping[str, Path], *, name: str = "diffusers.safetensors") -> None:
    pipe.load_lora_weights(str(at[ZOO] / "flux"), weight_name=name)


def flux_seeing(pipe: Any, at: Mapping[str, Path], *, encoder: bool) -> None:
    pipe.load_ip_adapter(
        str(at[ZOO]),
        weight_name="ip_adapter.safetensors",
        subfolder="seeing",
        image_encoder_pretrained_model_name_or_path=str(at[ZOO]) if encoder else None,
        image_encoder_subfolder="seeing/image_encoder",
    )


INK = {"repo_id": STYLE, "adapter_name": "ink", "scale": 0.7}
OIL = {"repo_id": KOHYA, "weight_name": "style-v1.safetensors", "adapter_name": "oil"}
SEEING = {
    "repo_id": IP,
    "subfolder": "models",
    "weight_name": "ip-adapter.safetensors",
    "scale": 0.5,
}

CASES: Mapping[str, tuple[str, Any, _Lines]] = {
    "a LoRA": (SD, STYLE, one_lora),
    "two with scales": (SD, [INK, OIL], two_loras),
    "words": (SD, WORDS, words),
    "an IP-Adapter": (SD, SEEING, seeing),
    "a pickled one": (
        SD,
        {**SEEING, "weight_name": "ip-adapter.bin"},
        partial(seeing, name="ip-adapter.bin"),
    ),
    "all of them": (SD, [INK, SEEING, WORDS, OIL], all_of_them),
    "SDXL": (
        SDXL,
        [f"{ZOO}/sdxl/diffusers.safetensors", f"{ZOO}@main/sdxl/kohya.safetensors"],
        sdxl_loras,
    ),
    "FLUX": (FLUX, f"{ZOO}/flux/diffusers.safetensors", flux_lora),
    "an IP-Adapter of XLabs": (
        FLUX,
        f"{ZOO}/seeing/ip_adapter.safetensors",
        partial(flux_seeing, encoder=True),
    ),
    "one without an image encoder": (
        FLUX,
        {"repo_id": f"{ZOO}/seeing/ip_adapter.safetensors", "image_encoder_folder": None},
        partial(flux_seeing, encoder=False),
    ),
    "XLabs": (
        FLUX,
        {"repo_id": ZOO, "subfolder": "flux", "weight_name": "xlabs.safetensors"},
        partial(flux_lora, name="xlabs.safetensors"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_library_makes(
    load: Callable[..., Any], models: Mapping[str, Path], case: str, tmp_path: Path
) -> None:
    repo_id, adapters, lines = CASES[case]
    ours = load(repo_id, adapters=adapters)
    theirs = plain_pipeline(models[repo_id])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines(theirs, models)
    assert differences(ours, theirs) == []
    assert paths_in(ours, tmp_path) == []


def test_a_picture_is_the_same_and_another_one_than_without(
    load: Callable[..., Any], models: Mapping[str, Path]
) -> None:
    ours = load(SD, adapters=[INK, OIL])
    theirs = plain_pipeline(models[SD])
    without = picture(theirs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        two_loras(theirs, models)
    drawn = picture(ours)
    np.testing.assert_array_equal(drawn, picture(theirs))
    assert np.abs(drawn - without).max() > 0
    ours.unload_lora_weights()
    np.testing.assert_array_equal(picture(ours), without)


# -- models of transformers and sentence-transformers ----------------------------------------------


@pytest.mark.parametrize(
    ("repo_id", "arguments", "text"),
    [
        (SD, {"subfolder": "unet"}, "adapters= is for pipelines"),
        (LLAMA, {"cls": "AutoTokenizer"}, "adapters= is for models"),
    ],
)
def test_what_takes_no_adapters(
    load: Callable[..., Any], repo_id: str, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(UnsupportedRepoError, match=text):
        load(repo_id, adapters=STYLE, **arguments)


@pytest.mark.parametrize("arguments", [{}, {"cls": "AutoModelForCausalLM"}])
def test_an_adapter_of_peft(
    load: Callable[..., Any], models: Mapping[str, Path], arguments: dict[str, Any]
) -> None:
    place = {"repo_id": ZOO, "subfolder": "text", "adapter_name": "other"}
    made = load(LLAMA, adapters=place, **arguments)
    ours = getattr(made, "model", made) if not arguments else made
    theirs = transformers.AutoModelForCausalLM.from_pretrained(models[LLAMA], dtype=torch.float32)
    theirs.load_adapter(str(models[ZOO] / "text"), adapter_name="other")
    theirs.eval()
    assert differences(ours, theirs) == []
    words = torch.tensor([[2, 5, 6]])
    assert torch.equal(ours(words).logits, theirs(words).logits)
    assert ours.active_adapters() == ["other"]


# -- which files, and what is told of them ---------------------------------------------------------


def told(load: Callable[..., Any], repo_id: str, **arguments: Any) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    return load(repo_id, on_event=events.append, **arguments), events


def test_only_the_files_that_are_named_are_fetched_and_have_origins(
    load: Callable[..., Any], hub: LocalHub, models: Mapping[str, Path]
) -> None:
    _, events = told(load, SD, adapters=[SEEING, f"{KOHYA}/style-v1.safetensors"])
    (selected,) = (each for each in events if isinstance(each, Selected))
    selection = selected.selection
    assert [(one.name, one.repo_id, one.paths) for one in selection.components if one.repo_id] == [
        (
            "adapter ip-adapter",
            IP,
            (
                f"{IP}:models/image_encoder/config.json",
                f"{IP}:models/image_encoder/model.safetensors",
                f"{IP}:models/ip-adapter.safetensors",
            ),
        ),
        ("adapter style-v1", KOHYA, (f"{KOHYA}:style-v1.safetensors",)),
    ]
    assert {one.repo_id: one.role for one in selection.companions} == dict.fromkeys(
        (IP, KOHYA), "adapter"
    )
    assert all(len(one.commit_hash) == 40 for one in selection.companions)
    served = hub.counters().total.body_bytes
    weights = [path for one in selection.components for path in one.weights]
    assert 0 <= served - selection.total <= len(weights) * FIRST_READ_BYTES + 20_000  # and answers
    lora = selected.adapters[1]
    assert (lora.name, lora.kind, lora.format) == ("style-v1", AdapterKind.LORA, "kohya")
    assert (lora.unmatched, lora.mismatched, lora.ranks) == (0, 0, (make.RANK,))
    (checked,) = (each for each in events if isinstance(each, Checked))
    (result,) = (one for one in checked.results if one.name == "adapters")
    assert result.status is CheckStatus.PASSED
    assert f"style-v1: LoRA in the format of kohya, rank 4, {lora.matched} of" in result.message
    loaded = [each.name for each in selected.weights]
    assert loaded[-2:] == ["adapter ip-adapter", "adapter style-v1"]


def test_without_adapters_the_report_does_not_mention_them(
    hub: LocalHub, models: Mapping[str, Path], tmp_path: Path
) -> None:
    del models
    report = nbloader.preflight(SD, endpoint=hub.endpoint, cache_dir=tmp_path, device="cpu")
    assert "adapters" not in [each.name for each in report.results]


def test_the_cache_is_enough_without_a_network(
    load: Callable[..., Any], models: Mapping[str, Path]
) -> None:
    first = load(SD, adapters=[INK, WORDS])
    again = load(SD, adapters=[INK, WORDS], local_files_only=True)
    assert differences(again, first) == []


def test_files_of_this_machine(load: Callable[..., Any], models: Mapping[str, Path]) -> None:
    ours = load(SD, adapters=[models[STYLE], str(models[KOHYA] / "style-v1.safetensors")])
    theirs = load(SD, adapters=[STYLE, f"{KOHYA}/style-v1.safetensors"])
    assert differences(ours, theirs) == []


def test_the_model_may_be_a_folder_of_this_machine(
    load: Callable[..., Any], models: Mapping[str, Path]
) -> None:
    assert differences(load(models[SD], adapters=[INK, OIL]), load(SD, adapters=[INK, OIL])) == []


def test_download_and_preflight_know_them(
    hub: LocalHub, models: Mapping[str, Path], tmp_path: Path
) -> None:
    where: dict[str, Any] = {"endpoint": hub.endpoint, "cache_dir": tmp_path}
    report = nbloader.preflight(SD, adapters=STYLE, device="cpu", **where)
    assert report.ok
    nbloader.download(SD, adapters=STYLE, view="none", **where)
    found = list(tmp_path.glob(f"models--org--style/snapshots/*/{make.LORA}"))
    assert [path.read_bytes() for path in found] == [(models[STYLE] / make.LORA).read_bytes()]


# -- refused before the first weight ---------------------------------------------------------------

_ONE_OF_MANY = "Name the file, such as 'org/zoo-of-adapters/flux/diffusers.safetensors'."


@pytest.mark.parametrize(
    ("repo_id", "adapters", "error", "text"),
    [
        (SD, f"{ZOO}/whole/model.safetensors", UnsupportedRepoError, "'model' is no adapter"),
        (SD, f"{ZOO}/flux/diffusers.safetensors", UnsupportedRepoError, "does not fit adapted/sd"),
        (
            FLUX,
            f"{ZOO}/sdxl/kohya.safetensors",
            UnsupportedRepoError,
            "made for Stable Diffusion XL",
        ),
        (FLUX, {"repo_id": ZOO, "subfolder": "flux"}, UnsupportedRepoError, _ONE_OF_MANY),
        (FLUX, f"{ZOO}/flux/unread.safetensors", UnsupportedRepoError, "format of ComfyUI"),
        (FLUX, WORDS, UnsupportedRepoError, "'cat-toy' does not fit"),
        (SD, f"{ZOO}/flux/nothing.safetensors", NoWeightsError, "has no file"),
        (SD, ZOO, NoWeightsError, "has no adapter in its root"),
        (
            SD,
            {**SEEING, "image_encoder_folder": "elsewhere"},
            UnsupportedRepoError,
            "has no image encoder in 'models/elsewhere'",
        ),
        # What the library would stumble on, or pass over.
        (
            SD,
            [STYLE, {**OIL, "adapter_name": "default_0"}],
            InvalidArgumentError,
            "two with the name 'default_0'",
        ),
        (
            SD,
            [{**OIL, "adapter_name": "default_1"}, STYLE],
            InvalidArgumentError,
            "two with the name 'default_1'",
        ),
        (SD, {"repo_id": WORDS, "scale": 0.5}, InvalidArgumentError, "brings words"),
        (SD, {"repo_id": STYLE, "token": "<x>"}, InvalidArgumentError, "for a textual inversion"),
        (LLAMA, STYLE, UnsupportedRepoError, "has no adapter_config.json"),
        (SD, "org/not-there", NbloaderError, "org/not-there"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_download(
    load: Callable[..., Any],
    repo_id: str,
    adapters: Any,
    error: type[NbloaderError],
    text: str,
) -> None:
    events: list[Event] = []
    with pytest.raises(error) as caught:
        load(repo_id, adapters=adapters, on_event=events.append)
    assert text in f"{caught.value.message} {caught.value.hint}"
    stages = [each.stage for each in events if isinstance(each, StageStarted)]
    assert Stage.DOWNLOAD not in stages


@pytest.mark.parametrize(
    ("repo_id", "arguments", "text"),
    [
        (
            SD,
            {"adapters": STYLE, "components": {"text_encoder": None, "tokenizer": None}},
            "changes the text_encoder, which this call leaves out",
        ),
        (
            ZOO,
            {
                "adapters": {"repo_id": ZOO, "subfolder": "text"},
                "subfolder": "text",
                "cls": "AutoModelForCausalLM",
            },
            f'nbloader.load("{LLAMA}", adapters=["{ZOO}/text", "{ZOO}/text"])',
        ),
    ],
)
def test_what_has_nothing_to_be_put_into_is_refused_before_the_download(
    load: Callable[..., Any], repo_id: str, arguments: dict[str, Any], text: str
) -> None:
    events: list[Event] = []
    with pytest.raises(UnsupportedRepoError) as caught:
        load(repo_id, **arguments, on_event=events.append)
    assert text in f"{caught.value.message} {caught.value.hint}"
    stages = [each.stage for each in events if isinstance(each, StageStarted)]
    assert Stage.DOWNLOAD not in stages


def test_a_model_that_is_handed_in_takes_them_too(
    load: Callable[..., Any], models: Mapping[str, Path]
) -> None:
    """Nothing is known of its layers before the library has put them in."""
    folder = models[SD] / "unet"
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder)
    ours = load(SD, adapters=STYLE, components={"unet": unet})
    theirs = plain_pipeline(models[SD])
    one_lora(theirs, models)
    assert ours.unet is unet
    assert differences(ours, theirs) == []
