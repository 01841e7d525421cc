"""Colab and Kaggle are not here; their libraries are stood in for by modules of the same names."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nbloader import tokens
from nbloader.errors import InvalidTokenError
from nbloader.machine import how_to_add_token, how_to_connect, place
from nbloader.records import Place

TOKEN = "hf_" + "t" * 34


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    tokens._found.clear()
    yield
    tokens._found.clear()


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], object]], None]:
    def install(get: Callable[[str], object]) -> None:
        google, package, userdata = (
            ModuleType(name) for name in ("google", "google.colab", "google.colab.userdata")
        )
        vars(userdata)["get"] = get
        vars(package)["userdata"] = userdata
        for module in (google, package, userdata):
            monkeypatch.setitem(sys.modules, module.__name__, module)

    return install


def test_colabs_token_is_asked_for_once(colab: Any) -> None:
    asked: list[str] = []

    def get(name: str) -> str:
        asked.append(name)
        return f" {TOKEN}\n"

    colab(get)
    found = [tokens.colab_token(Place.COLAB) for _ in range(3)]
    assert (found, asked) == ([TOKEN] * 3, ["HF_TOKEN"])


def test_a_secret_that_is_added_later_is_found(colab: Any) -> None:
    answers: list[object] = [RuntimeError("no such secret"), TOKEN]

    def get(name: str) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    colab(get)
    assert [tokens.colab_token(Place.COLAB) for _ in range(2)] == [None, TOKEN]


def test_the_wait_for_colab_is_bounded(colab: Any) -> None:
    colab(lambda name: time.sleep(60))
    started = time.monotonic()
    assert tokens.colab_token(Place.COLAB, wait_s=0.1) is None
    assert time.monotonic() - started < 10


def test_colab_is_not_asked_from_another_thread(colab: Any) -> None:
    colab(lambda name: pytest.fail("asked"))
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(tokens.colab_token(Place.COLAB)))
    thread.start()
    thread.join()
    assert found == [None]


@pytest.mark.parametrize("value", ["", "two words", "line\nbreak", None, 3, "x" * 600, "ü"])
def test_what_is_no_token_is_left_out(colab: Any, value: object) -> None:
    colab(lambda name: value)
    assert tokens.colab_token(Place.COLAB) is None


def test_kaggles_token(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("kaggle_secrets")
    monkeypatch.setitem(sys.modules, "kaggle_secrets", module)

    class UserSecretsClient:
        def get_secret(self, name: str) -> str:
            assert name == "HF_TOKEN"
            return TOKEN

    vars(module)["UserSecretsClient"] = UserSecretsClient
    assert tokens.kaggle_token(Place.KAGGLE) == TOKEN
    assert tokens.kaggle_token(Place.OTHER) is None

    def hang(self: object, name: str) -> None:
        time.sleep(5)

    monkeypatch.setattr(UserSecretsClient, "get_secret", hang)
    assert tokens.kaggle_token(Place.KAGGLE, wait_s=0.05) is None
    vars(module).pop("UserSecretsClient")
    assert tokens.kaggle_token(Place.KAGGLE) is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"COLAB_RELEASE_TAG": "x"}, Place.COLAB),
        ({"COLAB_GPU": "1"}, Place.COLAB),
        ({"COLAB_GPU": "1", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}, Place.KAGGLE),
        ({"BINDER_REPO_URL": "x"}, Place.BINDER),
        ({"PATH": "x"}, Place.OTHER),
    ],
)
def test_the_place_is_told_by_its_variables(environ: dict[str, str], expected: Place) -> None:
    assert place(environ) is expected


def test_the_hints_fit_the_place() -> None:
    adds = {how_to_add_token(where) for where in (Place.COLAB, Place.KAGGLE, Place.OTHER)}
    assert len(adds) == 3
    assert "Secrets" in how_to_add_token(Place.COLAB)
    assert "Add-ons > Secrets" in how_to_add_token(Place.KAGGLE)
    assert "Turn on Internet" in how_to_connect(Place.KAGGLE)


@pytest.mark.parametrize("kind", ["fifo", "zero", "huge", "folder"])
def test_a_stored_token_that_never_ends_is_not_read(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "token"
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "zero":
            file.symlink_to("/dev/zero")
        case "huge":
            file.touch()
            os.truncate(file, 1 << 40)
        case _:
            file.mkdir()
    environ = {"HF_HOME": str(tmp_path)}
    with pytest.raises(InvalidTokenError, match=f"the token's file {file} cannot be read"):
        tokens.token_in_worker(None, environ)
    assert tokens.token_in_worker(False, environ) is False
