from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nbloader.__main__ import main
from nbloader.localhub import LocalHub
from nbloader.localhub.demo import MINILM


class Run:
    """One call of the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *argv: str) -> None:
        self.status = main(argv)
        self.out, self.err = capsys.readouterr()

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def test_load_tells_its_stages(
    demo_hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--endpoint", demo_hub.endpoint, "--cache-dir", str(tmp_path))
    run = Run(capsys, "load", MINILM, "--device", "cpu", *where)
    lines = run.out.splitlines()
    assert (run.status, lines[0]) == (0, f"[  0 %] connect: {MINILM}")
    assert lines[-1].endswith(": SentenceTransformer on cpu, float32")


def test_download_in_json(
    demo_hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--endpoint", demo_hub.endpoint, "--cache-dir", str(tmp_path))
    run = Run(capsys, "download", MINILM, "--json", *where)
    found = run.json
    assert found.pop("seconds") > 0
    folder = Path(found.pop("folder"))
    assert found.pop("summary").endswith(folder.name)
    assert (folder / "model.safetensors").is_file()
    assert (run.status, found) == (
        0,
        {
            "ok": True,
            "repo_id": MINILM,
            "commit_hash": folder.name,
            "kind": "sentence-transformers",
            "total_bytes": found["total_bytes"],
            "fetched_bytes": found["total_bytes"],
            "retries": 0,
            "notices": [],
        },
    )


def test_a_failure_in_json(
    demo_hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--endpoint", demo_hub.endpoint, "--cache-dir", str(tmp_path))
    run = Run(capsys, "download", "org/nothing", "--json", *where)
    assert (run.status, run.json) == (
        1,
        {
            "ok": False,
            "error": {
                "reference": "repo-not-found",
                "message": "org/nothing does not exist, or is private",
                "hint": "Check the spelling. A private repository needs a token. Pass it as "
                "`token=`, or store it with `hf auth login`.",
            },
        },
    )


@pytest.mark.parametrize(("repo_id", "status"), [(MINILM, 0), ("org/nothing", 1)])
def test_preflight_tells_by_its_status(
    demo_hub: LocalHub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    repo_id: str,
    status: int,
) -> None:
    where = ("--endpoint", demo_hub.endpoint, "--cache-dir", str(tmp_path))
    run = Run(capsys, "preflight", repo_id, "--json", *where)
    assert (run.status, run.json["ok"]) == (status, status == 0)
    text = Run(capsys, "preflight", repo_id, *where)
    assert (text.status, len(text.out.splitlines()) >= 6) == (status, True)


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(capsys, "download", "not an id")
    assert (run.status, run.out) == (2, "")
    assert run.err.startswith("'not an id' is no repository id\n  Hint: ")
    with pytest.raises(SystemExit, match="2"):
        main(["fly"])


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert Run(capsys, "doctor", "--json").json["packages"]["torch"] == "2.13.0"
    assert Run(capsys, "doctor").out.startswith("nbloader ")


def test_the_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nbloader", "--version"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "nbloader 0.1.0\n", "")
