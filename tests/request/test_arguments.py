from __future__ import annotations

from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import InvalidArgumentError, InvalidRepoIdError
from nbloader.request import values as arguments


@pytest.mark.parametrize(
    "repo_id", ["gpt2", "Qwen/Qwen-Image-Edit-2509", "a/b.c_d-e", "sentence-transformers/all_x"]
)
def test_ids_of_the_hub_pass(repo_id: str) -> None:
    assert arguments.check_repo_id(repo_id) == repo_id


@pytest.mark.parametrize(
    ("repo_id", "hint"),
    [
        ("", 'Ids look like "Qwen/Qwen-Image-Edit-2509".'),
        ("a/b/c", 'Ids look like "Qwen/Qwen-Image-Edit-2509".'),
        ("a--b", 'Ids look like "Qwen/Qwen-Image-Edit-2509".'),
        ("a/..", 'Ids look like "Qwen/Qwen-Image-Edit-2509".'),
        ("a/b.git", 'Ids look like "Qwen/Qwen-Image-Edit-2509".'),
        ("a/ü", 'Ids look like "Qwen/Qwen-Image-Edit-2509".'),
        ("x" * 97, 'Ids look like "Qwen/Qwen-Image-Edit-2509".'),
        (None, 'Ids look like "Qwen/Qwen-Image-Edit-2509".'),
        ("https://huggingface.co/org/name/tree/main", 'Pass the id alone: "org/name".'),
        (
            "./model",
            'It is a path, and not an id. Ids look like "Qwen/Qwen-Image-Edit-2509".',
        ),
    ],
)
def test_what_is_no_id_is_refused_with_a_hint(repo_id: object, hint: str) -> None:
    with pytest.raises(InvalidRepoIdError) as caught:
        arguments.check_repo_id(repo_id)
    assert caught.value.hint == hint
    assert len(caught.value.message) < 130


@given(st.text(max_size=120))
def test_an_id_that_passes_stays_inside_the_cache_folder(text: str) -> None:
    try:
        repo_id = arguments.check_repo_id(text)
    except InvalidRepoIdError:
        return
    assert repo_id.count("/") <= 1
    assert not {"", ".", ".."} & set(repo_id.split("/"))
    assert "--" not in repo_id


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "a" * 40, "feature/x_y"])
def test_revisions_pass(revision: str) -> None:
    assert arguments.check_revision(revision) == revision


def test_no_revision_is_main() -> None:
    assert arguments.check_revision(None) == "main"


@pytest.mark.parametrize(
    "revision", ["", "..", "a/../b", "/a", "a/", "a b", "a\n", "-x", ".x", "a/.x", "a:b", "a\\b", 3]
)
def test_bad_revisions_are_refused(revision: object) -> None:
    with pytest.raises(InvalidArgumentError, match="is not the name of a branch, tag or commit"):
        arguments.check_revision(revision)


@pytest.mark.parametrize(
    ("endpoint", "kept"),
    [
        (None, None),
        ("https://huggingface.co", "https://huggingface.co"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
    ],
)
def test_endpoints_pass(endpoint: str | None, kept: str | None) -> None:
    assert arguments.check_endpoint(endpoint) == kept


@pytest.mark.parametrize(
    "endpoint", ["", "huggingface.co", "ftp://x", "https://", "https://u:p@x", "http://x:y", 3]
)
def test_bad_endpoints_are_refused(endpoint: object) -> None:
    with pytest.raises(InvalidArgumentError, match="is not the address of a Hub"):
        arguments.check_endpoint(endpoint)


@pytest.mark.parametrize("variant", [None, "fp16", "bf16", "non_ema"])
def test_variants_pass(variant: str | None) -> None:
    assert arguments.check_variant(variant) == variant


@pytest.mark.parametrize("variant", ["", "a/b", "..", "a.b", 16])
def test_bad_variants_are_refused(variant: object) -> None:
    with pytest.raises(InvalidArgumentError, match="is not the name of a variant"):
        arguments.check_variant(variant)


def test_a_choice_names_what_is_allowed() -> None:
    class Colour(StrEnum):
        RED = "red"
        BLUE = "blue"

    assert arguments.one_of("colour", "red", Colour) is Colour.RED
    with pytest.raises(InvalidArgumentError) as caught:
        arguments.one_of("colour", "green", Colour)
    assert str(caught.value) == (
        "colour='green' is not allowed\n  Hint: Choose one of 'red', 'blue'.\n  [invalid-argument]"
    )


@pytest.mark.parametrize(
    ("device", "name"),
    [("cuda", "cuda"), ("cuda:1", "cuda:1"), ("auto", "auto"), (0, "cuda:0"), (-1, "cpu")],
)
def test_devices_pass_as_names_and_as_pipeline_counts_them(device: object, name: str) -> None:
    assert arguments.check_device(device) == name


@pytest.mark.parametrize("device", ["gpu", "cuda:x", -2, True, None, ""])
def test_bad_devices_are_refused(device: object) -> None:
    with pytest.raises(InvalidArgumentError, match="is not known"):
        arguments.check_device(device)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("auto", "auto"),
        ("bfloat16", "bfloat16"),
        ("bf16", "bfloat16"),
        ("torch.bfloat16", "bfloat16"),
        ("float16", "float16"),
        ("fp16", "float16"),
        ("FP16", "float16"),
        ("half", "float16"),
        ("torch.half", "float16"),
        ("float32", "float32"),
        ("fp32", "float32"),
        ("float", "float32"),
    ],
)
def test_dtypes_pass_under_their_usual_names(dtype: str, name: str) -> None:
    assert arguments.check_dtype(dtype) == name


@pytest.mark.parametrize("dtype", ["int8", "float64", "fp8", None, 16, "4bit"])
def test_dtypes_that_nothing_is_loaded_in_are_refused(dtype: object) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        arguments.check_dtype(dtype)
    assert caught.value.hint == (
        'Choose "bfloat16" (or "bf16"), "float16" ("fp16", "half"), "float32" ("fp32", "float"), '
        "or leave it out."
    )


@pytest.mark.parametrize(
    "task", [None, "text-generation", "ner", "translation_en_to_fr", "zero-shot-classification"]
)
def test_tasks_pass(task: str | None) -> None:
    assert arguments.check_task(task) == task


@pytest.mark.parametrize("task", ["", "a b", "../x", "x" * 65, 3, "text\n"])
def test_what_is_no_name_of_a_task_is_refused(task: object) -> None:
    with pytest.raises(InvalidArgumentError, match="is not the name of a task"):
        arguments.check_task(task)
