"""Files chosen by their names."""

from __future__ import annotations

import pytest
from huggingface_hub.utils import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import UnsafePathError, UnsupportedRepoError
from nbloader.records import (
    Component,
    FileChoice,
    Kind,
    Listing,
    RepoFile,
    Selection,
    SelectionRequest,
)
from nbloader.selection import Needed, needed, select

COMMIT = "c" * 40
ALL = FileChoice()


def listing(*paths: str) -> Listing:
    files = tuple(RepoFile(path=path, size=len(path), etag="1" * 40) for path in paths)
    return Listing(repo_id="org/name", revision="main", commit_hash=COMMIT, files=files)


def chosen(found: Listing, choice: FileChoice) -> Selection:
    request = SelectionRequest(files=choice)
    assert needed(found, request, {}) == Needed()
    return select(found, request, {})


def paths_of(selection: Selection) -> list[str]:
    return [file.path for file in selection.files]


def test_a_selection_of_files_is_of_no_kind_of_model() -> None:
    found = listing("model_index.json", "data/b.csv", "data/a.csv", "config.json", "aux.txt:1")
    assert chosen(found, ALL) == Selection(
        repo_id="org/name",
        revision="main",
        commit_hash=COMMIT,
        kind=Kind.FILES,
        class_name=None,
        components=(
            Component(name="data/", paths=("data/a.csv", "data/b.csv")),
            Component(name="files", paths=("aux.txt:1", "config.json", "model_index.json")),
        ),
        files=tuple(sorted(found.files, key=lambda file: file.path)),
    )


def test_many_folders_are_one_part() -> None:
    found = listing(*(f"folder{number}/a" for number in range(20)))
    (part,) = chosen(found, ALL).components
    assert (part.name, set(part.paths)) == ("files", {file.path for file in found.files})


_SEGMENT = st.text(st.sampled_from("abAB.*?[]!"), min_size=1, max_size=4)
_PATH = st.lists(_SEGMENT, min_size=1, max_size=3).map("/".join)
_PATTERN = st.one_of(_PATH, _PATH.map(lambda path: f"{path}/"), _PATH.map(lambda path: f"*{path}"))
_PATTERNS = st.none() | st.lists(_PATTERN, max_size=3).map(tuple)


@given(paths=st.sets(_PATH, min_size=1, max_size=8), allow=_PATTERNS, ignore=_PATTERNS)
def test_patterns_choose_what_the_hubs_library_chooses(
    paths: set[str], allow: tuple[str, ...] | None, ignore: tuple[str, ...] | None
) -> None:
    paths = {path for path in paths if {".", "..", ""}.isdisjoint(path.split("/"))}
    expected = sorted(
        filter_repo_objects(
            sorted(paths),
            allow_patterns=None if allow is None else list(allow),
            ignore_patterns=None if ignore is None else list(ignore),
        )
    )
    choice = FileChoice(allow=allow, ignore=ignore or ())
    if expected:
        assert paths_of(chosen(listing(*paths), choice)) == expected
    else:
        with pytest.raises(UnsupportedRepoError):
            chosen(listing(*paths), choice)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (FileChoice(allow=("data/",)), ["data/a.csv", "data/deep/b.csv"]),
        (FileChoice(allow=("data/*.csv",)), ["data/a.csv", "data/deep/b.csv"]),
        (FileChoice(allow=("data\\*.csv",), ignore=("data/deep/",)), ["data/a.csv"]),
        (FileChoice(allow=("*.CSV",)), ["UPPER.CSV"]),
        (FileChoice(filename="data/a.csv"), ["data/a.csv"]),
        (FileChoice(filename="[ab].txt"), ["[ab].txt"]),
    ],
)
def test_a_folder_is_all_that_is_in_it_and_letters_count(
    choice: FileChoice, expected: list[str]
) -> None:
    found = listing("data/a.csv", "data/deep/b.csv", "UPPER.CSV", "[ab].txt", "a.txt")
    assert paths_of(chosen(found, choice)) == expected


@pytest.mark.parametrize(
    ("choice", "message", "hint"),
    [
        (FileChoice(filename="Config.json"), "no file 'Config.json'", "Is 'config.json' meant?"),
        (FileChoice(filename="b.csv"), "no file 'b.csv'", "Is 'data/b.csv' meant?"),
        (FileChoice(filename="zzz"), "no file 'zzz'", "It has 'config.json', 'data/b.csv'."),
        (FileChoice(allow=("*.zip",)), "matches allow_patterns=['*.zip']", "It has 'config.json'"),
        (FileChoice(ignore=("*",)), "matches ignore_patterns=['*']", "It has 'config.json'"),
    ],
)
def test_nothing_to_fetch_is_an_error_that_says_what_there_is(
    choice: FileChoice, message: str, hint: str
) -> None:
    with pytest.raises(UnsupportedRepoError) as caught:
        chosen(listing("config.json", "data/b.csv"), choice)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_an_empty_repository_says_so() -> None:
    with pytest.raises(UnsupportedRepoError) as caught:
        chosen(listing(), ALL)
    assert caught.value.hint == "It has no files at all."


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a\x00b", "C:/x"])
def test_a_name_that_leaves_its_folder_is_refused(path: str) -> None:
    with pytest.raises(UnsafePathError):
        chosen(listing("config.json", path), FileChoice(filename="config.json"))
