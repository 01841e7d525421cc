"""Adapters, put in before a pipeline goes where its plan says: over parts, quantized, offloaded."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nbloader.errors import InvalidArgumentError, ModelLoadError
from nbloader.records import AdapterKind, ChosenAdapter, Method, Selection
from tests import adapters as make
from tests.loaders.test_placing import load_selection, on_cpu
from tests.models import picture, save_pipeline, selection_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, and a LoRA and an IP-Adapter for it."""
    from diffusers import StableDiffusionPipeline

    made = tmp_path_factory.mktemp("adapted")
    save_pipeline(made / "pipeline")
    pipe = StableDiffusionPipeline.from_pretrained(made / "pipeline")
    both = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    make.write(made / "lora.safetensors", make.lora(both))
    make.write(made / "unet.safetensors", make.lora({"unet": pipe.unet}))
    make.write(made / "unread.safetensors", {f"x.{name}": t for name, t in make.lora(both).items()})
    return made


def adapted(folder: Path, filename: str = "lora.safetensors") -> Selection:
    one = ChosenAdapter(
        component="",
        kind=AdapterKind.LORA,
        path=str(folder / filename),
        repo_id="",
        folder=str(folder),
        filename=filename,
        name="ink",
        scale=0.7,
    )
    return replace(selection_of(folder / "pipeline"), adapters=(one,))


@pytest.mark.parametrize("method", [Method.GPU, Method.MULTI_GPU, Method.MODEL_OFFLOAD])
def test_a_placed_pipeline_makes_the_same_picture(folder: Path, method: Method) -> None:
    from diffusers import DiffusionPipeline

    selection = adapted(folder)
    pipeline = load_selection(selection, folder / "pipeline", on_cpu(selection, method))
    plain = DiffusionPipeline.from_pretrained(folder / "pipeline")
    without = picture(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain.load_lora_weights(str(folder), weight_name="lora.safetensors", adapter_name="ink")
        plain.set_adapters("ink", 0.7)
    drawn = picture(pipeline)
    assert np.array_equal(drawn, picture(plain))
    assert not np.array_equal(drawn, without)
    pipeline.unload_lora_weights()
    assert np.array_equal(picture(pipeline), without)


@pytest.mark.parametrize("method", [Method.FOUR_BIT, Method.FOUR_BIT_MODEL_OFFLOAD])
def test_it_is_put_beside_quantized_parts(folder: Path, method: Method) -> None:
    pytest.importorskip("bitsandbytes")
    selection = adapted(folder, "unet.safetensors")
    place = on_cpu(selection, method, "text_encoder")
    near = picture(load_selection(selection, folder / "pipeline", place))
    exact = picture(load_selection(selection, folder / "pipeline", on_cpu(selection, Method.CPU)))
    assert 0 < np.abs(near - exact).max() < 0.02


def test_the_library_puts_nothing_into_a_quantized_text_encoder(folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    selection = adapted(folder)
    place = on_cpu(selection, Method.FOUR_BIT, "text_encoder")
    with pytest.raises(ModelLoadError) as caught:
        load_selection(selection, folder / "pipeline", place)
    assert "text_encoder is quantized" in caught.value.message
    assert 'plan="model-offload"' in caught.value.hint


def test_one_of_which_nothing_is_put_in_is_an_error(folder: Path) -> None:
    selection = adapted(folder, "unread.safetensors")
    with pytest.raises(ModelLoadError, match="could be put into"):
        load_selection(selection, folder / "pipeline", on_cpu(selection, Method.CPU))


def test_words_for_two_text_encoders_need_a_name(folder: Path) -> None:
    selection = adapted(folder)
    (one,) = selection.adapters
    words = replace(one, kind=AdapterKind.TEXTUAL_INVERSION, words=("clip_l", "clip_g"))
    with pytest.raises(InvalidArgumentError, match="does not say which word it is for"):
        load_selection(
            replace(selection, adapters=(words,)),
            folder / "pipeline",
            on_cpu(selection, Method.CPU),
        )
