from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

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
            "pyproject.toml: max_workers = 0 is not a whole number from 1 to 32",
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
            "environment variable NBLOADER_TIMEOUT: timeout = 'soon' is not a number over 0 to "
            "86,400",
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
        ({"timeout": 0}, "settings: timeout = 0 is not a number over 0 to 86,400"),
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


# -- what others have put into the working folder --------------------------------------------------

SECRET = "AKIASECRETSECRET"

LAUGHS = "download:\n  max_workers:\n    a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"    {key}: &{key} [{','.join([f'*{before}'] * 10)}]\n"
    for before, key in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize("kind", ["device", "fifo", "folder", "large", "sparse", "loop"])
@pytest.mark.parametrize("name", ["nbloader.yaml", "config.yaml", "pyproject.toml"])
def test_only_a_small_regular_file_is_read(folder: Path, name: str, kind: str) -> None:
    place = folder / name
    match kind:
        case "device":
            place.symlink_to("/dev/zero")
        case "fifo":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case "large":
            place.write_bytes(b"#" * 300_000 + b"\ndownload: {max_retries: 3}\n")
        case "sparse":
            place.touch()
            os.truncate(place, 1 << 40)
        case "loop":
            place.symlink_to(name)
    if name != "nbloader.yaml":
        assert Settings().max_retries == 5
        return
    with pytest.raises(InvalidSettingError, match=r"nbloader\.yaml cannot be read: ") as caught:
        Settings()
    assert f"Mend or remove {place}." in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "nbloader.yaml has an alias: line 4, column 12"),
        ("download: &a {max_retries: 3}\nmore: *a", "nbloader.yaml has an alias: line 2, column 7"),
        (
            "download: [max_retries",
            "nbloader.yaml is not valid YAML: line ",
        ),
        ("[" * 20 + "]" * 20, "nbloader.yaml is nested too deeply: line 1, column 17"),
        ("a: " + ":".join("1" * 30_000) + ".5", "nbloader.yaml is not valid YAML"),
        ("a: !!bool x", "nbloader.yaml is not valid YAML"),
        (
            f"download: {{max_workers: [{'x,' * 20_000}]}}",
            "nbloader.yaml: max_workers = a list is not a whole number from 1 to 32",
        ),
        (
            f"download: {{max_workers: 0x{'f' * 60_000}}}",
            "nbloader.yaml: max_workers = a number of thousands of digits is not ",
        ),
    ],
)
def test_a_hostile_file_ends_in_a_short_error(folder: Path, text: str, message: str) -> None:
    (folder / "nbloader.yaml").write_text(text)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(InvalidSettingError) as caught:
        Settings()
    assert caught.value.message.startswith(message)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("loader", ["SafeLoader", "CSafeLoader"])
@pytest.mark.parametrize("text", ["[{" * 32_000, "[" * 60_000, "- " * 32_000, "!!map {" * 9_000])
def test_deep_nesting_takes_no_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, loader: str, text: str
) -> None:
    if not hasattr(yaml, loader):
        pytest.skip("PyYAML was built without it")
    monkeypatch.setattr("nbloader.settings._LOADER", getattr(yaml, loader))
    (folder / "nbloader.yaml").write_text(text)
    began = time.thread_time()
    with pytest.raises(InvalidSettingError, match=r"is nested too deeply|is not valid YAML"):
        Settings()
    assert time.thread_time() - began < 5


@pytest.mark.parametrize("name", ["nbloader.yaml", "config.yaml", "pyproject.toml"])
@pytest.mark.parametrize(
    "text",
    [
        f"[default]\naws_access_key_id = {SECRET}\n",
        f"{SECRET}: 1\n",
        f"download: {{{SECRET}: 1, max_retries: 3}}\n",
        f"download: {{max_retries: {SECRET}, max_retrys: {SECRET}}}\n",
        f"download: {{max_retries: [{SECRET}]}}\n",
        f"download: {SECRET}\n",
        f'"{SECRET}\n',
        f"a: *{SECRET}\n",
        f"[tool.nbloader]\nmax_retries = '{SECRET}'\n{SECRET} = 1\n",
        f"\udcff{SECRET}",
    ],
)
def test_nothing_of_what_a_link_leads_to_is_told(folder: Path, name: str, text: str) -> None:
    secret = folder / "credentials"
    secret.write_bytes(text.encode("utf-8", "surrogateescape"))
    (folder / name).symlink_to(secret)
    try:
        Settings()
    except InvalidSettingError as error:
        chain: BaseException | None = error
        while chain is not None:
            assert SECRET not in f"{chain} {chain!r}"
            chain = chain.__cause__


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 100_000) + " = 1",
        "[" + ".".join("a" * 100_000) + "]",
        " . ".join(["'a'"] * 30_000) + " = 1",
        "x = {" + ".".join("a" * 100_000) + " = 1}",
        "a" * 200_000,
        '"' * 200_000,
        "x = " + "[" * 200_000,
    ],
)
def test_a_hostile_project_file_takes_no_time(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.nbloader]\nmax_retries = 3\n{text}\n")
    began = time.thread_time()
    assert Settings().max_retries in (3, 5)
    assert time.thread_time() - began < 5


def test_a_link_to_good_settings_is_followed(folder: Path) -> None:
    (folder / "mine").write_text("\ufeffdownload: {max_retries: 3}", encoding="utf-8")
    (folder / "nbloader.yaml").symlink_to("mine")
    assert Settings().max_retries == 3


def test_the_file_of_another_program_is_not_parsed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*_: object, **__: object) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr("yaml.load", parse)
    monkeypatch.setattr("yaml.parse", parse)
    (folder / "config.yaml").write_text("key: {a: 1, timeout: 3}\n" * 2000)
    assert Settings().timeout == 300


def test_a_working_folder_that_is_gone_has_no_settings(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert Settings().max_retries == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter any folder")
def test_a_working_folder_that_may_not_be_entered_has_no_settings(folder: Path) -> None:
    folder.chmod(0)
    try:
        assert Settings().max_retries == 5
    finally:
        folder.chmod(0o755)
