from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbloader.doctor import doctor, redacted
from nbloader.localhub import LocalHub
from nbloader.localhub.demo import MINILM

TOKEN = "hf_" + "s" * 34


def test_secrets_and_the_home_folder_are_taken_out() -> None:
    environ = {
        "HF_TOKEN": TOKEN,
        "HF_TOKEN_PATH": "/home/me/.token",
        "HF_HOME": "/home/me/hf",
        "HF_ENDPOINT": "https://me:secret@mirror.example/hub?key=secret",
        "HTTPS_PROXY": "http://me:secret@proxy:3128",
        "HTTP_PROXY": "me:secret@proxy:3128",
        "NO_PROXY": "http://a:secret@h1,http://b:secret@h2",
        "HF_OTHER": TOKEN,
        "HF_HEADERS": "Bearer secret",
        "HF_URL": f"https://host/x {TOKEN}",
        "NBLOADER_MAX_RETRIES": "3",
        "SOMETHING": "else",
    }
    assert redacted(environ, "/home/me") == {
        "HF_TOKEN": "(set)",
        "HF_TOKEN_PATH": "~/.token",
        "HF_HOME": "~/hf",
        "HF_ENDPOINT": "https://mirror.example/hub",
        "HTTPS_PROXY": "http://proxy:3128",
        "HTTP_PROXY": "(set)",
        "NO_PROXY": "(set)",
        "HF_OTHER": "(set)",
        "HF_HEADERS": "(set)",
        "HF_URL": "(set)",
        "NBLOADER_MAX_RETRIES": "3",
    }


def test_the_report_is_text_and_json_and_shows_no_token(
    demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", demo_hub.endpoint)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NBLOADER_MAX_RETRIES", "1")
    report = doctor(MINILM)
    found = json.loads(json.dumps(report.to_json()))
    assert (found["packages"]["torch"], found["settings"]) == ("2.13.0", "max_retries=1")
    assert found["disk"]["writable"] is True
    assert found["preflight"]["repo_id"] == MINILM
    assert f"preflight of {MINILM}" in str(report)
    assert TOKEN not in f"{report}{report!r}{found}{report._repr_html_()}"


def test_wrong_settings_are_told_and_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nbloader.yaml").write_text("download: {max_retries: many}")
    assert doctor().settings.startswith("wrong: nbloader.yaml: max_retries = 'many'")
