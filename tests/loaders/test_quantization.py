"""What a call asks its library to quantize with, and what follows where it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nbloader.checks.packages import check_packages
from nbloader.errors import DoesNotFitError, MissingPackageError
from nbloader.loaders import asked_quantizations
from nbloader.records import Component, PackageFacts
from tests.samples import SELECTION

PARTS = (
    Component(name="transformer", library="diffusers", class_name="A", paths=(), weights=("a",)),
    Component(
        name="text_encoder", library="transformers", class_name="B", paths=(), weights=("b",)
    ),
    Component(name="tokenizer", library="transformers", class_name="C", paths=()),
)
PIPELINE = replace(SELECTION, components=PARTS)


def _of_pipeline(**given: Any) -> Any:
    from diffusers import PipelineQuantizationConfig

    return PipelineQuantizationConfig(**given)


def _bits(library: str) -> Any:
    import diffusers
    import transformers

    return {"diffusers": diffusers, "transformers": transformers}[library].BitsAndBytesConfig(
        load_in_4bit=True
    )


def _backend(*names: str) -> Any:
    return _of_pipeline(
        quant_backend="bitsandbytes_4bit",
        quant_kwargs={"load_in_4bit": True},
        components_to_quantize=list(names) or None,
    )


@pytest.mark.parametrize(
    ("make", "asked"),
    [
        (lambda: None, ()),
        (lambda: {"load_in_4bit": True}, ()),
        (lambda: {"quant_method": "gptq"}, (("transformers", "gptq"),)),
        (lambda: _bits("diffusers"), (("diffusers", "bitsandbytes"),)),
        (lambda: _bits("transformers"), (("transformers", "bitsandbytes"),)),
        (lambda: _backend("transformer"), (("diffusers", "bitsandbytes_4bit"),)),
        (lambda: _backend("text_encoder"), (("transformers", "bitsandbytes_4bit"),)),
        (
            lambda: _backend(),
            (("diffusers", "bitsandbytes_4bit"), ("transformers", "bitsandbytes_4bit")),
        ),
        (
            lambda: _of_pipeline(quant_mapping={"transformer": _bits("diffusers")}),
            (("diffusers", "bitsandbytes"),),
        ),
    ],
)
def test_the_methods_that_a_call_asks_for(make: Any, asked: tuple[tuple[str, str], ...]) -> None:
    config = make()
    assert asked_quantizations(PIPELINE, {"quantization_config": config}) == asked
    nested = {"model_kwargs": {"quantization_config": config}}
    assert asked_quantizations(PIPELINE, nested) == asked
    assert asked_quantizations(PIPELINE, {}) == ()


def test_what_it_wants_is_checked_before_the_download() -> None:
    import importlib.metadata

    packages = {
        name: PackageFacts(name=name, installed=importlib.metadata.version(name))
        for name in ("torch", "diffusers", "transformers", "accelerate", "bitsandbytes")
    }
    asked = (("diffusers", "bitsandbytes_4bit"),)
    found = check_packages(PIPELINE, packages, asked=asked, gpu=False)
    assert (found.reference, found.message) == (
        DoesNotFitError.reference,
        "diffusers quantizes with 'bitsandbytes_4bit' only where there is a GPU",
    )
    assert not check_packages(PIPELINE, packages, asked=asked).reference
    without = packages | {"bitsandbytes": PackageFacts(name="bitsandbytes", installed=None)}
    lacking = check_packages(PIPELINE, without, asked=asked)
    assert lacking.reference == MissingPackageError.reference
    # A model of transformers is quantized on a CPU, too.
    other = (("transformers", "bitsandbytes"),)
    assert not check_packages(PIPELINE, packages, asked=other, gpu=False).reference
