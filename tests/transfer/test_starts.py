"""How a call begins where the machine is not as it should be: it works, or says what is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbloader.errors import InvalidSettingError, InvalidTokenError, WorkerDiedError
from nbloader.localhub import LocalHub
from nbloader.paths import absolute, with_absolute_folders, working_folder
from nbloader.request.variables import check_variables
from nbloader.tokens import token_in_worker
from nbloader.transfer.child import Child, environment, worker_path
from tests.conftest import Publish

DOWNLOAD = (
    "import nbloader; print(nbloader.download({repo_id!r}, view='none', settings={settings}))"
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(hub: LocalHub, publish: Publish, tmp_path: Path) -> Run:
    """Download the repository of this test in a process of its own."""
    repo_id = publish({"config.json": b"{}", "what?.json": b"{}"})

    def run(
        before: str = "pass",
        settings: dict[str, object] | None = None,
        cwd: Path | None = None,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        download = DOWNLOAD.format(repo_id=repo_id, settings=settings or {})
        download = download.replace("view=", "allow_patterns='*.json', view=")
        return subprocess.run(
            [sys.executable, "-c", f"import os, sys, nbloader; {before}; {download}"],
            env={
                **os.environ,
                "HF_ENDPOINT": hub.endpoint,
                "HF_HOME": str(tmp_path / "home"),
                **env,
            },
            cwd=cwd or tmp_path,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )

    return run


def works(done: subprocess.CompletedProcess[str]) -> Path:
    assert done.returncode == 0, done.stderr[-2000:]
    place = Path(done.stdout.strip())
    assert (place / "config.json").read_text() == "{}"
    return place


@pytest.mark.parametrize(
    "prints",
    [
        "print('hello')",
        "print('hello', end='', flush=True)",
        "import os; os.write(1, bytes(range(256)) * 100)",
        "import os; os.system('echo from another process')",
        'import sys; print(\'{"type": "hello", "version": 1}\', flush=True)',
    ],
)
def test_what_is_printed_before_a_worker_has_its_streams_is_passed_over(
    run: Run, tmp_path: Path, prints: str
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    here = "import sys\nif '-P' in sys.orig_argv:\n"
    (site / "sitecustomize.py").write_text(f"{here}    {prints}\n")
    path = os.pathsep.join((str(site), os.environ.get("PYTHONPATH", "")))
    works(run(PYTHONPATH=path))


def test_what_was_printed_is_told_where_the_worker_then_dies(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nprint('no licence', flush=True)\nos._exit(3)"
    )
    env = environment(os.environ, endpoint=None, cache_dir=None)
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"
    with Child("nbloader.worker", env, kill_limit_s=5) as child:
        assert child.read(30) == b""
        assert child.ended() == 3
        assert "no licence" in child.stderr_tail()


def test_a_working_folder_that_was_removed_is_none(run: Run, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    works(run("os.rmdir(os.getcwd())", cwd=gone))


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may enter it")
def test_a_working_folder_that_may_not_be_entered_is_none(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish({"config.json": b"{}"})
    closed = tmp_path / "closed"
    closed.mkdir()
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    download = DOWNLOAD.format(repo_id=repo_id, settings={})
    download = download.replace("view=", "allow_patterns='*.json', view=")
    done = subprocess.run(
        [*drop, sys.executable, "-c", f"import os, nbloader; os.chmod('.', 0); {download}"],
        env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")},
        cwd=closed,
        capture_output=True,
        text=True,
        timeout=120,
    )
    closed.chmod(0o755)
    works(done)


@pytest.mark.parametrize("given", ["cache_dir='models'", "local_dir='models'"])
def test_a_relative_folder_is_named_where_the_working_folder_is_gone(
    run: Run, tmp_path: Path, given: str
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = run(
        f"os.rmdir(os.getcwd()); nbloader.download('org/name', {given}, view='none')", cwd=gone
    )
    assert f"{given.replace(chr(39), chr(34))} is relative" in done.stderr.replace("'", '"')
    assert "[invalid-argument]" in done.stderr


def test_paths_where_the_working_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert working_folder() is None
    assert absolute(Path("x")) == Path("x")
    assert worker_path(["", "src", "/lib"], None)[-1] == "/lib"
    assert "src" not in worker_path(["", "src", "/lib"], None)


def test_a_relative_home_means_the_folder_of_the_call(run: Run, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    place = works(run(f"os.chdir({str(work)!r})", HF_HOME="rel/home"))
    assert place.is_relative_to(work / "rel/home/hub")


def test_only_relative_folders_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"HF_HOME": "home", "HF_HUB_CACHE": "/a/../b", "OTHER": ""}
    assert with_absolute_folders({**given, "XDG_CACHE_HOME": ""}) == {
        **given,
        "HF_HOME": str(tmp_path / "home"),
    }


def test_an_empty_home_is_none(run: Run, tmp_path: Path) -> None:
    place = works(run(HF_HOME="", HF_HUB_CACHE="", XDG_CACHE_HOME=str(tmp_path / "cache")))
    assert place.is_relative_to(tmp_path / "cache/huggingface/hub")


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_a_folder_whose_name_is_no_text_is_named(name: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"{name} names a folder") as caught:
        check_variables({name: os.fsdecode(b"/tmp/h\xff")})
    assert f"%env {name}=" in caught.value.hint


@pytest.mark.parametrize("name", ["HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"])
@pytest.mark.parametrize("value", ["30s", "", "1.5", "auto"])
def test_a_timeout_that_is_no_number_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidSettingError, match=name) as caught:
        check_variables({name: value})
    assert f"%env {name}=30" in caught.value.hint
    check_variables({name: "30"})


def test_a_timeout_that_is_no_number_ends_a_call_by_its_name(run: Run) -> None:
    done = run(HF_HUB_DOWNLOAD_TIMEOUT="30s")
    assert "environment variable HF_HUB_DOWNLOAD_TIMEOUT is '30s'" in done.stderr.replace('"', "'")


def test_blanks_around_the_endpoint_are_passed_over(run: Run, hub: LocalHub) -> None:
    works(run(HF_ENDPOINT=f" {hub.endpoint}\n"))


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_empty_endpoint_is_none(value: str) -> None:
    parent = {"HF_ENDPOINT": value}
    assert "HF_ENDPOINT" not in environment(parent, endpoint=None, cache_dir=None)
    given = environment(parent, endpoint="https://mirror", cache_dir=None)
    assert given["HF_ENDPOINT"] == "https://mirror"


@pytest.mark.parametrize("value", ["", None])
def test_a_python_that_is_not_known_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", value)
    with pytest.raises(WorkerDiedError, match=r"sys\.executable") as caught:
        Child("nbloader.worker", {}, kill_limit_s=1)
    assert "sys.executable = " in caught.value.hint


def test_a_python_that_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerDiedError, match="/nowhere/python: No such file") as caught:
        Child("nbloader.worker", {}, kill_limit_s=1)
    assert "sys.executable" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffhf_abcdefghij\r\n".encode(),
        "hf_abcdefghij\r\n".encode("utf-16"),
        b"\xfe\xff" + "hf_abcdefghij".encode("utf-16-be"),
    ],
)
@pytest.mark.parametrize("sent", [None, True])
def test_a_stored_token_with_the_mark_of_an_editor_is_taken(
    tmp_path: Path, content: bytes, sent: bool | None
) -> None:
    (tmp_path / "token").write_bytes(content)
    assert token_in_worker(sent, {"HF_HOME": str(tmp_path)}) == "hf_abcdefghij"


@pytest.mark.parametrize("content", ["hf_äöü".encode(), b"\xff\xfe\x00", b"\x89PNG\r\n"])
def test_a_stored_file_without_a_token_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(InvalidTokenError, match="token is stored"):
        token_in_worker(None, {"HF_TOKEN_PATH": str(tmp_path / "token")})
    assert token_in_worker("hf_given", {"HF_TOKEN_PATH": str(tmp_path / "token")}) == "hf_given"
    assert token_in_worker(False, {"HF_TOKEN_PATH": str(tmp_path / "token")}) is False


@pytest.mark.parametrize("content", [b"", b"hf_abcdefghij\n", None])
def test_any_other_stored_token_is_left_to_the_library(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    assert token_in_worker(None, {"HF_HOME": str(tmp_path)}) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows holds no such name")
def test_a_name_that_only_windows_cannot_hold_is_fetched(run: Run) -> None:
    assert (works(run()) / "what?.json").read_text() == "{}"
