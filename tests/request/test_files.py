"""Files chosen by the arguments of a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.errors import InvalidArgumentError, InvalidRepoIdError
from nbloader.records import FileChoice, RepoType
from nbloader.request import Call, DownloadCall, checked


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, None),
        ({"local_dir": "folder"}, None),
        ({"allow_patterns": "*.json"}, FileChoice(allow=("*.json",))),
        ({"allow_patterns": []}, FileChoice(allow=())),
        ({"allow_patterns": (x for x in ("a", "b/"))}, FileChoice(allow=("a", "b/"))),
        ({"ignore_patterns": ["*.bin"]}, FileChoice(ignore=("*.bin",))),
        ({"ignore_patterns": []}, FileChoice()),
        ({"filename": "a/b.json"}, FileChoice(filename="a/b.json")),
        ({"repo_type": "dataset"}, FileChoice()),
        ({"repo_type": "space", "filename": "app.py"}, FileChoice(filename="app.py")),
        ({"repo_type": None}, None),
        ({"allow_patterns": [Path("a/b.json")]}, FileChoice(allow=("a/b.json",))),
        ({"filename": Path("a/b.json")}, FileChoice(filename="a/b.json")),
    ],
)
def test_without_a_name_or_a_pattern_the_load_chooses(
    arguments: dict[str, Any], expected: FileChoice | None
) -> None:
    assert checked(DownloadCall("org/name", **arguments)).selection.files == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"allow_patterns": 1}, "allow_patterns=1"),
        ({"allow_patterns": b"*"}, "allow_patterns="),
        ({"ignore_patterns": ["a", None]}, "ignore_patterns="),
        ({"ignore_patterns": ""}, "ignore_patterns="),
        ({"filename": ""}, "filename=''"),
        ({"filename": ["a"]}, "filename="),
        ({"filename": "a", "allow_patterns": "b"}, "filename= is one file"),
        ({"filename": "a", "variant": "fp16"}, "variant="),
        ({"repo_type": "dataset", "task": "fill-mask"}, "task="),
        ({"allow_patterns": "*", "kind": "diffusers"}, "kind="),
        ({"repo_type": "kernel"}, "repo_type='kernel'"),
        ({"local_dir": 3}, "local_dir=3"),
        ({"local_dir": "a\udcff"}, "local_dir="),
        ({"filename": "a\udcff"}, "filename="),
        ({"allow_patterns": ["a\udcff"]}, "allow_patterns="),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        checked(DownloadCall("org/name", **arguments))
    assert words in caught.value.message


@pytest.mark.parametrize(
    "given",
    [
        "org/name",
        "datasets/org/name",
        "hf://datasets/org/name",
        "https://huggingface.co/datasets/org/name",
        "huggingface.co/datasets/org/name",
        "https://huggingface.co/api/datasets/org/name",
    ],
)
def test_the_address_of_a_dataset_is_read(given: str) -> None:
    request = checked(DownloadCall(given, repo_type="dataset"))
    assert (request.repo_id, request.repo_type) == ("org/name", RepoType.DATASET)


def test_the_page_of_a_dataset_has_its_revision_and_a_bare_name_stays() -> None:
    page = "https://huggingface.co/datasets/org/name/tree/v1.0"
    assert checked(DownloadCall(page, repo_type="dataset")).revision == "v1.0"
    assert checked(DownloadCall("squad", repo_type="dataset")).repo_id == "squad"


_PAGE = "https://huggingface.co/{}org/name"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("/blob/main/data/a.csv", FileChoice(filename="data/a.csv")),
        ("/resolve/main/a%20b.csv?download=true", FileChoice(filename="a b.csv")),
        ("/raw/refs/pr/1/README.md", FileChoice(filename="README.md")),
        ("/tree/main/data/[x]", FileChoice(allow=("data/[[]x]/",))),
    ],
)
@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_the_page_of_a_file_or_a_folder_names_it(
    repo_type: str, page: str, expected: FileChoice
) -> None:
    address = _PAGE.format("" if repo_type == "model" else f"{repo_type}s/") + page
    assert checked(DownloadCall(address, repo_type=repo_type)).selection.files == expected


def test_the_page_of_weights_is_that_of_a_model_where_there_are_models() -> None:
    page = "/blob/main/model.safetensors"
    assert checked(DownloadCall(_PAGE.format("") + page)).selection.files is None
    named = checked(DownloadCall(_PAGE.format("") + "/blob/main/x.gguf")).selection
    assert (named.files, named.checkpoint) == (None, "x.gguf")
    whole = checked(DownloadCall(_PAGE.format("") + "/blob/main/config.json", cls="AutoModel"))
    assert whole.selection.files is None
    request = checked(DownloadCall(_PAGE.format("datasets/") + page, repo_type="dataset"))
    assert request.selection.files == FileChoice(filename="model.safetensors")


def test_what_is_named_beside_a_page_counts() -> None:
    file = _PAGE.format("") + "/blob/main/config.json"
    folder = _PAGE.format("") + "/tree/main/data"
    chosen = checked(DownloadCall(file, allow_patterns="*.md")).selection.files
    assert chosen == FileChoice(allow=("*.md",))
    beside: list[dict[str, Any]] = [
        {"filename": "a"},
        {"allow_patterns": "*"},
        {"cls": "AutoModel"},
    ]
    for more in beside:
        with pytest.raises(InvalidArgumentError) as caught:
            checked(DownloadCall(folder, **more))
        assert "org/name" in caught.value.hint


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (Call("org/name/unet"), "nbloader.load('org/name', subfolder='unet')"),
        (Call("org/name/config.json"), "nbloader.download('org/name', 'config.json')"),
        (DownloadCall("org/name/a/b"), "nbloader.download('org/name', allow_patterns='a/b/')"),
        (
            DownloadCall("hf://datasets/org/name@v1/a.csv", repo_type="dataset"),
            "nbloader.download('org/name', 'a.csv', revision='v1', repo_type='dataset')",
        ),
        (Call("datasets/org/name"), 'nbloader.download("org/name", repo_type="dataset")'),
    ],
)
def test_a_path_behind_an_id_is_told_its_line(call: Call, line: str) -> None:
    with pytest.raises(InvalidRepoIdError) as caught:
        checked(call)
    assert line in caught.value.hint


def test_a_dataset_in_place_of_a_model_is_told_how_to_be_fetched() -> None:
    with pytest.raises(InvalidRepoIdError) as caught:
        checked(Call("https://huggingface.co/datasets/org/name"))
    line = 'nbloader.download("org/name", repo_type="dataset")'
    assert line in caught.value.hint


def test_the_folder_is_a_path_of_this_machine(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked(DownloadCall("org/name", local_dir="here")).local_dir == str(tmp_path / "here")


@pytest.mark.parametrize(
    "name", ["allow_patterns", "filename", "ignore_patterns", "local_dir", "repo_type"]
)
def test_load_says_who_takes_what_it_does_not(name: str) -> None:
    arguments: Any = {name: "x"}
    with pytest.raises(InvalidArgumentError) as caught:
        nbloader.load("org/name", **arguments)
    assert f'nbloader.download("org/name", {name}=...)' in caught.value.hint
