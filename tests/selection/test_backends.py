"""Which files are fetched for a model that another backend than torch runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nbloader.checks import required_packages
from nbloader.errors import UnsupportedRepoError
from nbloader.records import Backend, Selection, SelectionRequest
from nbloader.selection import pickled
from tests.selection.test_companions import OWN, selected

_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]
_CONFIG = {"model_type": "bert", "architectures": ["BertModel"]}
_FILES: dict[str, object] = {
    "modules.json": _MODULES,
    "config.json": _CONFIG,
    "model.safetensors": ...,
    "tokenizer.json": ...,
    "2_Dense/config.json": ...,
    "2_Dense/pytorch_model.bin": ...,
}
_ONNX: dict[str, object] = {
    "onnx/model.onnx": ...,
    "onnx/model.onnx_data": ...,
    "onnx/model_O3.onnx": ...,
    "onnx/model_O3.onnx.data": ...,
    "onnx/model_O3.onnx_data_1": ...,
}
_OPENVINO: dict[str, object] = {
    "openvino/openvino_model.xml": ...,
    "openvino/openvino_model.bin": ...,
    "openvino/openvino_model_qint8_quantized.xml": ...,
    "openvino/openvino_model_qint8_quantized.bin": ...,
    "openvino/readme.xml": ...,
}


def _selected(files: dict[str, object], name: str, **given: Any) -> Selection:
    return selected({OWN: files}, SelectionRequest(backend=Backend(name=name, **given)))


def _weights(selection: Selection) -> tuple[str, ...]:
    return selection.components[0].weights


@pytest.mark.parametrize(
    ("more", "name", "given", "expected"),
    [
        (_ONNX, "onnx", {}, ("onnx/model.onnx", "onnx/model.onnx_data")),
        (
            _ONNX,
            "onnx",
            {"file_name": "onnx/model_O3.onnx"},
            ("onnx/model_O3.onnx", "onnx/model_O3.onnx.data", "onnx/model_O3.onnx_data_1"),
        ),
        # The folder of the backend may be left out.
        (
            _ONNX,
            "onnx",
            {"file_name": "model_O3.onnx", "export": False},
            ("onnx/model_O3.onnx", "onnx/model_O3.onnx.data", "onnx/model_O3.onnx_data_1"),
        ),
        # One beside the model comes first.
        (_ONNX | {"model.onnx": ...}, "onnx", {}, ("model.onnx",)),
        # Made of the PyTorch weights: where there is none, and where that is asked for.
        ({}, "onnx", {}, ("model.safetensors",)),
        (_ONNX, "onnx", {"export": True}, ("model.safetensors",)),
        (_ONNX, "openvino", {}, ("model.safetensors",)),
        (
            _OPENVINO,
            "openvino",
            {},
            ("openvino/openvino_model.bin", "openvino/openvino_model.xml"),
        ),
        (
            _OPENVINO,
            "openvino",
            {"file_name": "openvino_model_qint8_quantized.xml"},
            (
                "openvino/openvino_model_qint8_quantized.bin",
                "openvino/openvino_model_qint8_quantized.xml",
            ),
        ),
    ],
)
def test_the_file_that_is_opened_is_fetched_and_no_other(
    more: dict[str, object], name: str, given: dict[str, Any], expected: tuple[str, ...]
) -> None:
    selection = _selected(_FILES | more, name, **given)
    assert (_weights(selection), selection.backend) == (expected, name)
    assert selection.components[1].weights == ("2_Dense/pytorch_model.bin",)
    # What torch reads is looked through; what it does not read is no pickle.
    assert pickled(selection) == ["2_Dense/pytorch_model.bin"]


def test_it_may_do_without_weights_for_torch() -> None:
    files = {key: value for key, value in (_FILES | _ONNX).items() if key != "model.safetensors"}
    assert _weights(_selected(files, "onnx")) == ("onnx/model.onnx", "onnx/model.onnx_data")
    with pytest.raises(UnsupportedRepoError, match="no PyTorch weights"):
        _selected(files, "openvino")


@pytest.mark.parametrize(
    ("name", "given", "hint"),
    [
        ("onnx", {"file_name": "model_O4.onnx"}, "'onnx/model_O3.onnx'"),
        ("openvino", {"export": False}, "Leave out file_name and export"),
        # The library looks for others by their names alone.
        ("onnx", {"file_name": "model.safetensors"}, "name one as file_name"),
    ],
)
def test_a_file_that_is_asked_for_and_not_there_is_refused(
    name: str, given: dict[str, Any], hint: str
) -> None:
    with pytest.raises(UnsupportedRepoError) as raised:
        _selected(_FILES | _ONNX, name, **given)
    assert hint in str(raised.value)


def test_an_adapter_and_another_library_are_refused() -> None:
    adapter: dict[str, object] = {
        "adapter_config.json": {"base_model_name_or_path": "org/base"},
        "adapter_model.safetensors": ...,
    }
    with pytest.raises(UnsupportedRepoError, match="is an adapter"):
        _selected(_FILES | adapter, "onnx")
    request = SelectionRequest(backend=Backend(name="onnx"))
    with pytest.raises(UnsupportedRepoError, match="loaded as transformers"):
        selected({OWN: {"config.json": ..., "model.safetensors": ...}}, request)


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("onnx", {"optimum.onnxruntime", "onnxruntime"}),
        ("openvino", {"optimum.intel", "openvino"}),
    ],
)
def test_what_it_needs_is_known_before_the_download(name: str, packages: set[str]) -> None:
    plain = selected({OWN: _FILES}, SelectionRequest())
    needed = set(required_packages(_selected(_FILES, name)))
    assert needed - set(required_packages(plain)) == packages
    assert replace(plain, backend=name).backend == name
