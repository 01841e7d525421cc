from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nbloader.__main__ import ATTENTIONS, DTYPES, KINDS, _parser, main
from nbloader.libraries import near_attentions
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from nbloader.records import Kind, Method, RepoType
from nbloader.request import Call, checked
from nbloader.request.values import check_dtype
from nbloader.wording import Reader, worded
from tests.conftest import WriteRepo


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
    assert (run.status, lines[0]) == (0, f"connect: {MINILM}")
    assert lines[-1].endswith(": SentenceTransformer on cpu, float32")


@pytest.mark.parametrize("command", ["load", "download", "preflight"])
def test_a_task_and_an_address_are_taken_as_in_a_call(
    command: str, demo_hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"{demo_hub.endpoint}/{MINILM}/tree/main"
    where = ("--endpoint", demo_hub.endpoint, "--cache-dir", str(tmp_path), "--json")
    run = Run(capsys, command, address, "--task", "fill-mask", *where)
    assert run.status == 1
    assert "--task is for models of transformers" in worded(run.out, Reader.SHELL)
    wrong = Run(capsys, command, address, "--task", "no task", *where)
    assert (wrong.status, wrong.json["error"]["reference"]) == (2, "invalid-argument")


def test_weights_that_are_not_kept(
    demo_hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--endpoint", demo_hub.endpoint, "--cache-dir", str(tmp_path), "--device", "cpu")
    report = Run(capsys, "preflight", MINILM, "--no-keep-files", "--json", *where)
    assert (report.status, "as weights are not kept" in report.out) == (0, True)
    run = Run(capsys, "load", MINILM, "--no-keep-files", "--json", *where)
    assert (run.status, run.json["notices"]) == (0, ["files-not-kept"])
    assert list(tmp_path.rglob("*.safetensors")) == []


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
                "hint": "Check the spelling. A private repository needs a token. Set `HF_TOKEN`, "
                "or store it with `hf auth login`.",
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
    first, *more = text.out.splitlines()
    can = f"✗ {repo_id} cannot be loaded here: " if status else "✓ "
    assert (text.status, first.startswith(can), bool(more)) == (status, True, True)
    assert status or f"{repo_id} (SentenceTransformer of sentence-transformers) can be" in first


COMMANDS = ("load", "download", "preflight", "doctor", "cache", "demo")


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [(), *((each,) for each in COMMANDS)])
def test_help_shows_examples_that_are_taken_and_what_each_status_says(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    told = help_of(capsys, *command)
    _, _, more = told.partition("\nexample")
    examples = [line.split() for line in more.splitlines() if line.startswith("  nbloader ")]
    assert examples
    for _, *argv in examples:
        if argv[-1] == "--help":
            continue
        options = _parser().parse_args([each.strip("'") for each in argv])
        assert not command or options.command == command[0]
    statuses = re.findall(r"^  (\d+) +\w", told.partition("exit status:\n")[2], re.MULTILINE)
    assert statuses == ["0", "1", "2", "130", "141"]


@pytest.mark.parametrize("command", ["load", "download", "preflight"])
def test_help_names_every_choice(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = set(re.findall(r"[\w:.-]+", help_of(capsys, command)))
    assert words >= {
        "auto",
        *(str(kind) for kind in Kind if kind not in (Kind.FILES, Kind.CLASSES)),
    }
    if command == "download":
        assert words >= set(map(str, RepoType))
        return
    assert words >= {"auto", "cuda", "cuda:1", "mps", "cpu", *map(str, Method)}
    assert words >= {*DTYPES, *ATTENTIONS}


def test_the_choices_are_those_of_the_calls() -> None:
    assert [check_dtype(name) for name in DTYPES] == list(DTYPES)
    assert tuple(near_attentions("")) == ATTENTIONS
    for kind in KINDS:
        checked(Call("org/name", kind=kind))
    assert {*KINDS} == {"auto", *map(str, {*Kind} - {Kind.FILES, Kind.CLASSES})}


def test_what_helps_is_said_in_options_where_the_command_is_run(
    demo_hub: LocalHub, tmp_path: Path
) -> None:
    """In a process of its own, with all that it writes: checks, the end of a job, the error."""
    command = [sys.executable, "-m", "nbloader", "load", MINILM, "--endpoint", demo_hub.endpoint]
    command += ["--cache-dir", str(tmp_path), "--plan", "gpu"]
    environ = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    for told in (run.stdout, run.stderr):
        assert "--plan gpu does not work here: no NVIDIA GPU" in told
        assert "plan=" not in told
    assert "Pass --plan cpu, which fits, or leave --plan out." in run.stderr


def test_an_error_is_told_once(demo_hub: LocalHub, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(capsys, "download", "org/nothing-here", "--endpoint", demo_hub.endpoint)
    message, *_ = run.err.splitlines()
    assert (run.status, "org/nothing-here" in message) == (1, True)
    assert message not in run.out
    assert re.fullmatch(r"failed after .* s \[repo-not-found\]", run.out.splitlines()[-1])


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(capsys, "download", "not an id")
    assert (run.status, run.out) == (2, "")
    assert run.err.startswith("'not an id' is not a repository id\n  Hint: ")
    with pytest.raises(SystemExit, match="2"):
        main(["fly"])


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert Run(capsys, "doctor", "--json").json["packages"]["torch"] == "2.13.0"
    assert Run(capsys, "doctor").out.startswith("nbloader ")


# -- the cache -------------------------------------------------------------------------------------


@pytest.fixture
def orphan(tmp_path: Path) -> Path:
    """An orphaned blob in a cache that holds nothing else."""
    blobs = tmp_path / "cache" / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    orphan = blobs / ("b" * 40)
    orphan.write_bytes(b"orphan")
    return orphan


def cache_dir(orphan: Path) -> str:
    return str(orphan.parents[2])


def test_the_cache_is_listed(orphan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(capsys, "cache", "--cache-dir", cache_dir(orphan))
    assert (run.status, run.err) == (0, "")
    assert run.out.endswith("What can go\n  orphaned blobs  1, 6 B\n  all             1, 6 B\n")
    found = Run(capsys, "cache", "--cache-dir", cache_dir(orphan), "--json").json
    assert found["can_go"]["all"] == {"text": "1, 6 B", "count": 1, "bytes": 6}
    assert orphan.exists()


def test_a_repository_that_is_not_there(orphan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Run(capsys, "cache", "--cache-dir", cache_dir(orphan), "org/name").status == 0
    run = Run(capsys, "cache", "--cache-dir", cache_dir(orphan), "org/none", "--json")
    assert (run.status, run.json["error"]["reference"]) == (1, "not-cached")


def test_without_a_terminal_a_deletion_needs_a_yes(
    orphan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--cache-dir", cache_dir(orphan))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    run = Run(capsys, "cache", "--delete", *where)
    assert (run.status, run.out) == (2, "")
    assert run.err.startswith("--delete asks before it deletes")
    assert Run(capsys, "cache", "--yes", *where).status == 2
    assert orphan.exists()
    found = Run(capsys, "cache", "--delete", "--yes", "--json", *where).json
    assert (found["bytes"], found["dry_run"], found["deleted"]["all"]["count"]) == (6, False, 1)
    assert not orphan.exists()
    run = Run(capsys, "cache", "--delete", "--yes", *where)
    assert (run.status, run.out.endswith("\nDeleted\n  all  nothing\n")) == (0, True)


def on_a_terminal(answer: bytes, *argv: str) -> tuple[int, str, str]:
    """Run the command line with a terminal as its input; give status, output and errors."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            [sys.executable, "-m", "nbloader", *argv],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("answer", [b"\n", b"n\n", b"yess\n", b"\x04"])
def test_what_is_not_a_yes_deletes_nothing(orphan: Path, answer: bytes) -> None:
    status, out, err = on_a_terminal(answer, "cache", "--delete", "--cache-dir", cache_dir(orphan))
    assert (status, err) == (0, "Delete these 1 and free 6 B? [y/N] ")
    assert out.endswith("\nDeleted\n  all  nothing\n")
    assert orphan.exists()


def test_a_yes_on_a_terminal_deletes(orphan: Path) -> None:
    where = ("--cache-dir", cache_dir(orphan))
    status, out, err = on_a_terminal(b"Y\n", "cache", "--delete", "--json", *where)
    # What is asked about is shown, too, and the output stays one JSON object.
    assert (status, json.loads(out)["bytes"]) == (0, 6)
    assert err.endswith("1, 6 B\nDelete these 1 and free 6 B? [y/N] ")
    assert not orphan.exists()


def test_what_could_not_be_deleted_shows_in_the_status(
    orphan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = orphan.parents[2] / ".locks" / "models--org--name"
    lock.parent.mkdir()
    lock.write_text("in the way")
    run = Run(capsys, "cache", "--delete", "--yes", "--cache-dir", cache_dir(orphan))
    assert (run.status, orphan.exists()) == (1, True)
    assert "org/name: bbbbbbbbbbbb" in run.out


@dataclass
class Terminal:
    """A command whose output is a terminal.

    Attributes:
        shown: what it has written so far.
    """

    process: subprocess.Popen[bytes]
    descriptor: int
    shown: str = ""

    def read(self, *, until: str | None = None) -> str:
        """Read to the end, or until a text has come."""
        while until is None or until not in self.shown:
            try:
                new = os.read(self.descriptor, 1 << 16)
            except OSError:  # Linux says so at the end of a terminal.
                break
            if not new:
                break
            self.shown += new.decode(errors="replace")
        return self.shown


# What is started in the background of a shell script ignores interrupts; a terminal's own does not.
ON_A_TERMINAL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from nbloader.__main__ import main
sys.exit(main())
"""


@contextmanager
def output_on_a_terminal(*argv: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, *argv],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_terminal_shows_a_bar(demo_hub: LocalHub, tmp_path: Path) -> None:
    where = ("--endpoint", demo_hub.endpoint, "--cache-dir", str(tmp_path))
    with output_on_a_terminal("download", MINILM, *where) as terminal:
        shown = terminal.read()
        assert terminal.process.wait() == 0
    frames = [frame.strip() for frame in re.split(r"[\r\n]+", shown) if frame.strip()]
    assert frames[0] == MINILM
    assert any(re.match(r"download: +\d+%\|", frame) for frame in frames)
    assert re.fullmatch(r"finish: 100%\|.*\| 9\d\.\dMB of 9\d\.\dMB \[\d\d:\d\d\]", frames[-2])
    assert frames[-1].startswith("ready in ")
    assert all(len(frame) <= 100 for frame in frames[:-1])


def test_what_a_hub_says_does_not_steer_the_terminal(
    hub: LocalHub, hub_root: Path, write_repo: WriteRepo, tmp_path: Path
) -> None:
    write_repo(hub_root, "org/hostile", {"config.json": b'{"architectures": ["\x1b[2J\x07"'})
    where = ("--endpoint", hub.endpoint, "--cache-dir", str(tmp_path))
    with output_on_a_terminal("download", "org/hostile", *where) as terminal:
        shown = terminal.read()
        assert terminal.process.wait() == 1
    assert "org/hostile" in shown
    assert "  Hint: " in shown
    assert not re.search(r"[^\r\n\x20-\x7e\u2010-\u25ff\ufe0e]", shown)


def test_an_interrupt_at_a_terminal(demo_hub: LocalHub, tmp_path: Path) -> None:
    demo_hub.set_faults([Fault(RequestClass.CDN_GET, bytes_per_second=1_000_000)])
    where = ("--endpoint", demo_hub.endpoint, "--cache-dir", str(tmp_path))
    with output_on_a_terminal("download", MINILM, *where) as terminal:
        terminal.read(until="download:")
        terminal.process.send_signal(signal.SIGINT)
        shown = terminal.read()
        assert terminal.process.wait() == 130
    *_, bar, end, last = [
        line.split("\r")[-1] for line in shown.replace("\r\n", "\n").split("\n")[:-1]
    ]
    assert bar.startswith("download:")
    assert re.fullmatch(r"stopped after [\d.]+ s; .*run it again to .*", end)
    assert last == "stopped"


def test_a_download_is_finished_although_nobody_reads(demo_hub: LocalHub, tmp_path: Path) -> None:
    where = ("--endpoint", demo_hub.endpoint, "--cache-dir", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-m", "nbloader", "download", MINILM, *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        complaints = process.stderr.read()
    assert (process.wait(), complaints) == (0, "")
    assert list(tmp_path.rglob("model.safetensors"))


def test_the_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nbloader", "--version"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "nbloader 0.1.0\n", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["config.json"], {"config.json"}),
        (["config.json", "data/[1].csv"], {"config.json", "data/[1].csv"}),
        (["--include", "*.json", "data/", "--exclude", "*.csv"], {"config.json", "data/a.json"}),
        (["--include", "*.json", "--include", "*.md"], {"README.md", "config.json", "data/a.json"}),
        (["--exclude", "data/"], {"README.md", "config.json"}),
        ([], {"README.md", "config.json", "data/[1].csv", "data/a.json"}),
    ],
)
def test_files_are_named_as_hf_download_names_them(
    arguments: list[str],
    expected: set[str],
    hub: LocalHub,
    hub_root: Path,
    write_repo: WriteRepo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("README.md", "config.json", "data/[1].csv", "data/a.json")
    write_repo(hub_root, "datasets/org/named", {name: name.encode() for name in names})
    where = ("--endpoint", hub.endpoint, "--local-dir", str(tmp_path), "--json")
    run = Run(capsys, "download", "org/named", *arguments, "--repo-type", "dataset", *where)
    found = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert {path for path in found if not path.startswith(".cache/")} == expected
    place = {"file": str(tmp_path / arguments[0])} if len(arguments) == 1 else {}
    told = place or {"folder": str(tmp_path)}
    assert {key: run.json[key] for key in ("ok", "kind", *told)} == {
        "ok": True,
        "kind": "files",
        **told,
    }


def test_names_and_patterns_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(capsys, "download", "org/name", "config.json", "--include", "*.json")
    assert (run.status, "files are named" in run.err) == (2, True)


def test_several_are_checked_as_one(
    hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--endpoint", hub.endpoint, "--cache-dir", str(tmp_path), "--json")
    run = Run(capsys, "preflight", "org/no-such-repo", "org/nor-this", *where)
    assert (run.status, run.json["ok"]) == (1, False)
    ids = [each["repo_id"] for each in run.json["repositories"]]
    assert ids == ["org/no-such-repo", "org/nor-this"]
