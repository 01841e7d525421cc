from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbloader import tokens
from nbloader.records import Place, TokenFacts

TOKEN = "hf_" + "t" * 34


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    tokens._found.clear()
    yield
    tokens._found.clear()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "blank").write_text(" \n\n")
    return tmp_path


@pytest.mark.parametrize(
    ("environ", "given", "secret", "source"),
    [
        ({}, True, "Colab", "argument"),
        ({"HF_TOKEN": TOKEN}, True, "", "argument"),
        ({"HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN}, None, "Colab", "HF_TOKEN"),
        ({"HF_TOKEN": " ", "HUGGING_FACE_HUB_TOKEN": TOKEN}, None, "", "HUGGING_FACE_HUB_TOKEN"),
        ({"HF_TOKEN": TOKEN}, False, "Colab", ""),
        ({"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None, "", ""),
        ({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "yes"}, True, "", "argument"),
        ({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}, None, "", "stored file"),
        ({}, None, "Colab", "Colab secret"),
        ({}, None, "Kaggle", "Kaggle secret"),
        ({"HF_OIDC_RESOURCE": "x"}, None, "", "HF_OIDC_RESOURCE"),
        ({}, None, "", "stored file"),
        ({"HF_TOKEN_PATH": "{home}/token", "HF_HOME": "/nowhere"}, None, "", "stored file"),
        ({"HF_TOKEN_PATH": "{home}/blank"}, None, "", ""),
        ({"HF_TOKEN_PATH": "{home}"}, None, "", ""),
        ({"HF_HOME": "/nowhere"}, None, "", ""),
    ],
)
def test_where_the_token_comes_from(
    environ: dict[str, str], given: bool | None, secret: str, source: str, home: Path
) -> None:
    there = {"HF_HOME": str(home)} | {
        name: value.replace("{home}", str(home)) for name, value in environ.items()
    }
    if secret:
        tokens._found[Place(secret)] = TOKEN
    found = tokens.token_origin(TOKEN if given else given, there)
    assert found == TokenFacts(source=source)
    assert TOKEN not in repr(found)


def test_the_stored_file_is_found_where_the_hubs_library_looks(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "token").write_text(TOKEN)
    monkeypatch.setenv("ROOT_OF_CACHES", str(home))
    for environ in ({"HF_HOME": "$ROOT_OF_CACHES"}, {"XDG_CACHE_HOME": str(tmp_path)}):
        assert tokens.token_origin(None, environ) == TokenFacts(source="stored file")


def test_a_secret_counts_once_it_was_read() -> None:
    environ = {"HF_HOME": "/nowhere"}
    assert tokens.token_origin(None, environ) == TokenFacts()
    tokens._found[Place.COLAB] = TOKEN
    assert tokens.token_origin(None, environ) == TokenFacts(source="Colab secret")
    assert tokens.token_origin(TOKEN, environ) == TokenFacts(source="argument")
    assert tokens.token_origin(False, environ) == TokenFacts()
    assert tokens.token_origin(True, environ) == TokenFacts(source="Colab secret")


def test_true_looks_on_where_no_token_is_sent_by_default() -> None:
    environ = {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    assert tokens.find_token(True, environ) == tokens.Token("HF_TOKEN", TOKEN)
    assert tokens.find_token(None, environ) == tokens.Token("", value=False)
    assert TOKEN not in repr(tokens.find_token(TOKEN, environ))
