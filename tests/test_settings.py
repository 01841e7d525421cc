from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbloader.errors import InvalidSettingError
from nbloader.records import TransferPolicy
from nbloader.settings import Settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults() -> None:
    assert Settings().model_dump() == {
        "max_retries": 5,
        "retry_delay_min": 5.0,
        "retry_delay_max": 60.0,
        "timeout": 300.0,
        "large_file_timeout": 1800.0,
        "stall_timeout_s": 30.0,
        "min_speed": 10_000.0,
        "route": "auto",
        "max_workers": 4,
        "check_network": True,
        "check_disk_space": True,
        "required_disk_space_gb": None,
        "show_download_speed": True,
        "show_eta": True,
    }


def test_arguments_beat_environment_beats_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pyproject.toml").write_text(
        "[tool.nbloader]\nmax_retries = 2\ntimeout = 2\nlarge_file_timeout = 2\n"
        "max_workers = 2\nretry_delay_max = 22\n"
    )
    (folder / "config.yaml").write_text(
        "model: x\ndownload: {max_retries: 3, timeout: 3, large_file_timeout: 3, max_workers: 3}"
    )
    (folder / "nbloader.yaml").write_text(
        "download:\n  max_retries: 4\n  timeout: 4\n  large_file_timeout: 4\n"
    )
    monkeypatch.setenv("NBLOADER_MAX_RETRIES", "6")
    monkeypatch.setenv("NBLOADER_TIMEOUT", "6")
    settings = Settings(max_retries=7)
    found = {
        "max_retries": settings.max_retries,
        "timeout": settings.timeout,
        "large_file_timeout": settings.large_file_timeout,
        "max_workers": settings.max_workers,
        "retry_delay_max": settings.retry_delay_max,
    }
    assert found == {
        "max_retries": 7,
        "timeout": 6,
        "large_file_timeout": 4,
        "max_workers": 3,
        "retry_delay_max": 22,
    }


@pytest.mark.parametrize(
    "text",
    [
        "download: {url: x, folder: y}",
        "download: 3",
        "[1, 2]",
        "not: [valid",
        "",
        "download: {max_retries: 3, url: x}",
        "download: {timeout: 5m}",
        "built: 2001-99-99",
        "[" * 5000,
    ],
)
def test_a_config_of_others_is_left_alone(folder: Path, text: str) -> None:
    (folder / "config.yaml").write_text(text)
    assert Settings().timeout == 300


@pytest.mark.parametrize(
    ("name", "text", "message", "hint"),
    [
        (
            "nbloader.yaml",
            "download:\n  max_retrys: 3",
            "nbloader.yaml: unknown key 'max_retrys'",
            "Did you mean max_retries?",
        ),
        (
            "config.yaml",
            "download: {max_retries: 3, timout: 3}",
            "config.yaml: unknown key 'timout'",
            "Did you mean timeout?",
        ),
        (
            "pyproject.toml",
            "[tool.nbloader]\nmax_workers = 0",
            "pyproject.toml: max_workers = 0: Input should be greater than or equal to 1",
            "max_workers: Files downloaded at the same time. Default: 4.",
        ),
        (
            "nbloader.yaml",
            "max_retries: 3",
            "nbloader.yaml may hold only the section `download:`, but has: max_retries",
            "Put the keys under `download:`:\n\n    download:\n      max_retries: 5\n",
        ),
        (
            "nbloader.yaml",
            "download: {endpoint: http://example.com}",
            "nbloader.yaml: unknown key 'endpoint'",
            "Known keys: max_retries, retry_delay_min, retry_delay_max, timeout, "
            "large_file_timeout, stall_timeout_s, min_speed, route, max_workers, check_network, "
            "check_disk_space, required_disk_space_gb, show_download_speed, show_eta.",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_key(
    folder: Path, name: str, text: str, message: str, hint: str
) -> None:
    (folder / name).write_text(text)
    with pytest.raises(InvalidSettingError) as caught:
        Settings()
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "NBLOADER_TIMEOUT",
            "soon",
            "environment variable NBLOADER_TIMEOUT: timeout = 'soon': Input should be a valid "
            "number, unable to parse string as a number",
        ),
        (
            "NBLOADER_MAX_RETRYS",
            "3",
            "environment variable NBLOADER_MAX_RETRYS is not one that nbloader knows",
        ),
    ],
)
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettingError) as caught:
        Settings()
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"retry_delay_min": 90},
            "retry_delay_min (90) is above retry_delay_max (60)",
        ),
        ({"timeout": 0}, "settings: timeout = 0: Input should be greater than 0"),
        ({"token": "x"}, "settings: unknown key 'token'"),
    ],
)
def test_wrong_arguments_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError) as caught:
        Settings(**values)
    assert caught.value.message == message


def test_every_field_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_worker_gets_its_part() -> None:
    settings = Settings(max_retries=2, retry_delay_min=1, retry_delay_max=2, max_workers=3)
    assert settings.policy() == TransferPolicy(
        max_retries=2,
        retry_delay_min_s=1,
        retry_delay_max_s=2,
        timeout_s=300,
        large_file_timeout_s=1800,
        max_workers=3,
    )
