"""What a call says of another backend than torch."""

from __future__ import annotations

from typing import Any

import pytest

from nbloader.records import Backend
from nbloader.request import Call, checked


@pytest.mark.parametrize(
    ("given", "expected", "device"),
    [
        ({}, None, "auto"),
        ({"backend": None}, None, "auto"),
        ({"backend": "torch"}, None, "auto"),
        ({"backend": "onnx"}, Backend(name="onnx"), "cpu"),
        (
            {"backend": "onnx", "model_kwargs": {"file_name": "onnx/model_O3.onnx"}},
            Backend(name="onnx", file_name="onnx/model_O3.onnx"),
            "cpu",
        ),
        (
            {"backend": "openvino", "model_kwargs": {"export": True}},
            Backend(name="openvino", export=True),
            "cpu",
        ),
        (
            {"backend": "onnx", "model_kwargs": {"provider": "CUDAExecutionProvider"}},
            Backend(name="onnx"),
            "auto",
        ),
    ],
)
def test_it_is_read_with_its_file_and_computes_on_the_cpu(
    given: dict[str, Any], expected: Backend | None, device: str
) -> None:
    request = checked(Call(repo_id="org/name", loader_kwargs=given))
    assert (request.selection.backend, request.device) == (expected, device)


def test_a_device_that_is_named_stays() -> None:
    given = {"backend": "onnx"}
    request = checked(Call(repo_id="org/name", device="cuda", loader_kwargs=given))
    assert request.device == "cuda"
