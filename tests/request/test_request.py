from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbloader.errors import InvalidArgumentError
from nbloader.records import Method
from nbloader.request import Call, checked


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "auto"),
        ({"dtype": "float16"}, "float16"),
        ({"loader_kwargs": {"torch_dtype": "torch.bfloat16"}}, "bfloat16"),
        ({"loader_kwargs": {"model_kwargs": {"dtype": "float16"}}}, "float16"),
        (
            {"dtype": "float32", "loader_kwargs": {"model_kwargs": {"dtype": "float16"}}},
            "float32",
        ),
        ({"loader_kwargs": {"dtype": {"transformer": "bfloat16"}}}, "auto"),
        ({"loader_kwargs": {"dtype": None}}, "auto"),
    ],
)
def test_the_number_format_of_the_call(arguments: dict[str, Any], expected: str) -> None:
    assert checked(Call(repo_id="org/name", **arguments)).dtype == expected


def test_what_is_passed_on_may_be_a_component() -> None:
    request = checked(
        Call(repo_id="org/name", loader_kwargs={"vae": None, "device_map": "balanced"})
    )
    assert request.selection.handed_in == ("device_map", "vae")


def test_the_method_of_the_call() -> None:
    assert checked(Call(repo_id="org/name")).method is None
    assert checked(Call(repo_id="org/name", plan="model-offload")).method is Method.MODEL_OFFLOAD
    with pytest.raises(InvalidArgumentError, match="plan='fast' is not allowed"):
        checked(Call(repo_id="org/name", plan="fast"))


def test_arguments_for_the_model_are_a_mapping() -> None:
    with pytest.raises(InvalidArgumentError, match="must be a mapping"):
        checked(Call(repo_id="org/name", loader_kwargs={"model_kwargs": 3}))


def test_code_of_this_machine_is_named_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    for file in ("own/pipeline.py", "x.py"):
        (tmp_path / file).touch()

    def place(given: object) -> str | None:
        request = checked(Call(repo_id="org/name", loader_kwargs={"custom_pipeline": given}))
        # The library takes a text alone.
        assert request.loader_kwargs["custom_pipeline"] == request.selection.custom_pipeline
        return request.selection.custom_pipeline

    assert [place(given) for given in ("own", Path("own"), "x.py", "x", "org/own", None)] == [
        str(tmp_path / "own"),
        str(tmp_path / "own"),
        str(tmp_path / "x.py"),
        "x",
        "org/own",
        None,
    ]
    for given in ("y.py", "./x", str(tmp_path), 3):
        with pytest.raises(InvalidArgumentError, match="custom_pipeline"):
            place(given)


@pytest.mark.parametrize(
    ("arguments", "revision"),
    [
        ({"repo_id": "https://huggingface.co/org/name/tree/v1"}, "v1"),
        ({"repo_id": "org/name@v1", "revision": "v1"}, "v1"),
        ({"repo_id": "hf://org/name@v1", "loader_kwargs": {"revision": "v1"}}, "v1"),
        ({"repo_id": "https://huggingface.co/org/name"}, "main"),
        ({"repo_id": "https://huggingface.co/org/name", "revision": "v2"}, "v2"),
    ],
)
def test_the_revision_of_an_address_counts(arguments: dict[str, Any], revision: str) -> None:
    request = checked(Call(**arguments))
    assert (request.repo_id, request.revision) == ("org/name", revision)


def test_two_revisions_are_refused() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        checked(Call(repo_id="https://huggingface.co/org/name/tree/v1", revision="v2"))
    assert caught.value.message == "revision='v2' is not the one of the address, which is 'v1'"


def test_an_address_is_one_of_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "http://hub.example/org/name/tree/v1"
    assert checked(Call(repo_id=text, endpoint="http://hub.example/")).revision == "v1"
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    assert checked(Call(repo_id=text)).revision == "v1"
