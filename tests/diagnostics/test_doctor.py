from __future__ import annotations

import errno
import html
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.lib.pretty import pretty

import nbloader
from nbloader.checks import PreflightReport
from nbloader.diagnostics import DoctorReport, doctor, issue_of_job
from nbloader.diagnostics.gather import fenced, redacted_sections
from nbloader.diagnostics.rows import (
    hub_rows,
    job_rows,
    machine_rows,
    package_rows,
    preflight_rows,
    redacted,
    token_rows,
)
from nbloader.errors import InvalidRepoIdError
from nbloader.history import History, JobEntry, RetryEntry, entry_of
from nbloader.hub_cache.report import cache
from nbloader.localhub import LocalHub
from nbloader.localhub.demo import MINILM
from nbloader.records import (
    CheckResult,
    CheckStatus,
    DiskFacts,
    DriverFacts,
    GpuFacts,
    Interface,
    MachineFacts,
    MemoryFacts,
    PackageFacts,
    Place,
    PlaceFacts,
    TorchFacts,
)
from nbloader.redaction import Redactor
from nbloader.request import Call, checked
from nbloader.views import Row, Section, sections_html, sections_json, sections_text
from tests.jobs import BROKEN, last_state, texts
from tests.same_content import assert_same_content

TOKEN = "hf_" + "s" * 34
HEAVY = ("torch", "diffusers", "transformers", "sentence_transformers", "huggingface_hub")


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
        "HF_WRONG": "http://[::1",
        "NBLOADER_MAX_RETRIES": "3",
        "SOMETHING": "else",
    }
    assert redacted(environ, Redactor(homes=("/home/me",))) == {
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
        "HF_WRONG": "(set)",
        "NBLOADER_MAX_RETRIES": "3",
    }


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of a user called alice, with the Hub's folder in it. Errors cut long paths."""
    home = tmp_path_factory.mktemp("h") / "alice"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.chdir(home)
    return home


def test_the_whole_report(demo_hub: LocalHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", demo_hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NBLOADER_MAX_RETRIES", "1")
    nbloader.download(MINILM, view="none")
    entry = entry_of(last_state(BROKEN), now=0, versions={}, redact=Redactor())
    History(home / "hf" / "nbloader").add(entry)
    report = doctor(MINILM)
    assert_same_content(report.sections, str(report), report._repr_html_(), report.to_json())
    assert pretty(report) == str(report)  # type: ignore[no-untyped-call]
    found = json.loads(json.dumps(report.to_json()))
    assert [key for key in found if found[key]] == [
        "nbloader",
        "machine",
        "packages",
        "preflight",
        "token",
        "hub",
        "variables",
        "jobs",
        "cache",
        "issue",
        "seconds",
    ]
    assert (found["packages"]["torch"], found["nbloader"]["settings"]) == (
        "2.13.0",
        "max_retries=1",
    )
    assert found["machine"]["disk"]["writable"] is True
    assert found["machine"]["disk"]["folder"] == "~/hf/hub"
    assert found["preflight"]["repo_id"] == MINILM
    assert not any(" 1 revisions" in str(row) for row in found["cache"].values())
    assert f"Preflight of {MINILM}" in str(report)
    assert found["token"]["token"] == "from HF_TOKEN"
    assert found["hub"]["HF_ENDPOINT"] == {
        "text": demo_hub.endpoint,
        "value": demo_hub.endpoint,
        "set_by": "environment",
    }
    assert found["hub"]["HF_XET_CLIENT_READ_TIMEOUT"]["text"] == "30s (set by nbloader)"
    assert found["variables"]["NBLOADER_MAX_RETRIES"] == "1"
    jobs = [text["text"] for text in found["jobs"].values()]
    assert any("failed (disk-full)" in text for text in jobs)
    assert any("timed out" in text for text in jobs)
    assert found["cache"][MINILM]["bytes"] == cache().bytes
    everything = f"{report}{report!r}{found}{report._repr_html_()}"
    assert TOKEN not in everything
    assert str(home) not in everything
    assert str(report).endswith(report.issue)
    assert html.escape(report.issue) in report._repr_html_()


def test_without_a_repository_nothing_goes_over_the_network(
    demo_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", demo_hub.endpoint)
    before = demo_hub.counters()
    assert "preflight" not in doctor().to_json()
    assert demo_hub.counters() == before


def test_it_imports_nothing_heavy_and_tells_how_long_it_took() -> None:
    code = (
        "import sys, nbloader\n"
        "report = nbloader.doctor()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], 0 < report.seconds)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[] True\n"


def test_wrong_settings_are_told_and_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nbloader.yaml").write_text("download: {max_retries: many}")
    found = doctor(MINILM).to_json()
    start = "wrong: nbloader.yaml: max_retries = 'many'"
    assert found["nbloader"]["settings"].startswith(start)
    assert found["preflight"]["not made"].startswith("nbloader.yaml: max_retries = 'many'")


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(InvalidRepoIdError):
        doctor("not an id")


def test_a_broken_cache_and_history_stop_nothing(home: Path) -> None:
    (home / "hf").mkdir()
    (home / "hf" / "hub").write_text("in the way")
    (home / "hf" / "nbloader").write_text("in the way")
    found = doctor().to_json()
    assert found["cache"] == {"not read": "cache_dir='~/hf/hub' is not a folder"}
    assert found["jobs"] == {}


@pytest.mark.parametrize("given", [False, True])
def test_the_report_of_a_job_tells_of_the_cache_that_it_used(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, given: bool
) -> None:
    asked: list[Path] = []

    def disk(folder: Path) -> DiskFacts:
        asked.append(folder)
        return DiskFacts(folder=str(folder), free=1, total=2, writable=True)

    monkeypatch.setattr("nbloader.diagnostics.gather.disk_facts_or_none", disk)
    folder = home / "own" if given else home / "hf" / "hub"
    request = checked(Call(repo_id=MINILM, cache_dir=folder if given else None))
    issue = issue_of_job(request, last_state(BROKEN))
    assert asked == [folder]
    shown = "~/own" if given else "~/hf/hub"
    assert f"\ndisk: 1 B free of 2 B at {shown} (" in issue
    assert (
        f"\ncache: folder {shown}; repositories 0, 0 B; partial downloads 0, 0 B; can go: nothing\n"
        in issue
    )


# -- the rows --------------------------------------------------------------------------------------

T4 = GpuFacts(name="Tesla T4", free=15_000_000_000, total=15_800_000_000, capability=(7, 5))
P100 = GpuFacts(name="Tesla P100", free=16_000_000_000, total=17_100_000_000, capability=(6, 0))
KAGGLE = MachineFacts(
    memory=MemoryFacts(available=30_000_000_000, total=33_700_000_000, source="cgroup"),
    place=PlaceFacts(place=Place.KAGGLE, interface=Interface.BATCH, source="KAGGLE_X"),
    gpus=(T4, P100),
    driver=DriverFacts(version="580.1", cuda=(13, 0)),
    torch=TorchFacts(version="2.13.0+cu130", cuda=(13, 0), archs=("sm_75", "sm_80")),
)
DISK = DiskFacts(folder="/x", free=10**9, total=2 * 10**9, writable=False, source="quota")


def told(rows: object) -> dict[str, str]:
    return {row.name: row.text for row in rows}  # type: ignore[attr-defined]


def test_a_machine_in_rows() -> None:
    rows = told(machine_rows(KAGGLE, DISK))
    rows.pop("processors")
    assert rows == {
        "place": "Kaggle, batch run (KAGGLE_X)",
        "memory": "30.0 GB available of 33.7 GB (cgroup)",
        "disk": "1.0 GB free of 2.0 GB at /x, cannot be written (quota)",
        "gpu 0": "Tesla T4, 15.0 GB free of 15.8 GB, compute capability 7.5",
        "gpu 1": "Tesla P100, 16.0 GB free of 17.1 GB, compute capability 6.0; torch "
        "2.13.0+cu130 has no kernels for Tesla P100 (compute capability 6.0)",
        "driver": "580.1, runs CUDA 13.0",
        "torch build": "2.13.0+cu130 for CUDA 13.0, kernels for sm_75 sm_80",
    }
    mac = MachineFacts(memory=KAGGLE.memory, mps=True)
    assert told(machine_rows(mac, None))["gpu"] == "Apple's, by MPS"


def test_a_machine_of_which_nothing_is_known() -> None:
    rows = told(
        machine_rows(
            MachineFacts(
                memory=MemoryFacts(available=0, total=0, source="unknown"),
                torch=TorchFacts(version="?"),
            ),
            None,
        )
    )
    rows.pop("processors")
    assert rows == {
        "place": "other, terminal",
        "memory": "unknown",
        "disk": "unknown: the file system of the cache cannot be asked",
        "gpu": "none (NVIDIA)",
        "torch build": "unknown: its files cannot be read",
    }


def test_a_machine_where_everything_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "the mount is dead")

    monkeypatch.delenv("HF_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr("psutil.virtual_memory", fail)
    monkeypatch.setattr("shutil.disk_usage", fail)
    monkeypatch.setattr("nbloader.diagnostics.gather.cache", fail)
    found = doctor().to_json()
    assert found["machine"]["memory"]["text"] == "unknown"
    assert found["machine"]["disk"] == "unknown: the file system of the cache cannot be asked"
    assert found["cache"]["not read"] == "the cache folder cannot be asked: OSError"


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_package_that_was_upgraded_after_its_import() -> None:
    packages = {
        "torch": PackageFacts(name="torch", installed="2.13.0", imported="2.13.0+cu130"),
        "diffusers": PackageFacts(name="diffusers", installed="0.42.1", imported="0.37.0"),
        "peft": PackageFacts(name="peft", installed=None),
    }
    assert told(package_rows(packages)) == {
        "torch": "2.13.0",
        "diffusers": "0.42.1; imported is 0.37.0: restart the kernel",
        "peft": "missing",
    }


def preflight(*results: tuple[str, CheckStatus, str]) -> PreflightReport:
    return PreflightReport(
        repo_id="org/name",
        results=tuple(
            CheckResult(name=name, status=status, message="m", hint="Do it.", reference=reference)
            for name, status, reference in results
        ),
    )


@pytest.mark.parametrize(
    ("source", "report", "expected"),
    [
        ("", preflight(("hub", CheckStatus.PASSED, "")), {"token": "none"}),
        ("HF_TOKEN", None, {"token": "from HF_TOKEN"}),
        ("HF_TOKEN", preflight(("hub", CheckStatus.SKIPPED, "")), {"token": "from HF_TOKEN"}),
        (
            "stored file",
            preflight(("hub", CheckStatus.PASSED, "")),
            {"token": "from stored file", "valid": "the Hub did not refuse it"},
        ),
        (
            "stored file",
            preflight(("access", CheckStatus.WARNING, "invalid-token")),
            {"token": "from stored file", "valid": "the Hub does not accept it"},
        ),
    ],
)
def test_the_token_is_told_without_being_shown(
    source: str, report: PreflightReport | None, expected: dict[str, str]
) -> None:
    assert told(token_rows(source, report)) == expected


def test_checks_in_rows() -> None:
    found = told(preflight_rows(preflight(("disk", CheckStatus.FAILED, "not-enough-disk"))))
    assert found == {"repo_id": "org/name", "disk": "✗ m Do it."}


def test_settings_tell_who_set_them() -> None:
    environ = {"HF_A": "1", "HF_B": "1", "HF_TOKEN": TOKEN, "X": "1"}
    worker = {"HF_A": "1", "HF_B": "2", "HF_C": "/home/me/x"}
    assert told(hub_rows(environ, worker, "/home/me/hub", Redactor(homes=("/home/me",)))) == {
        "HF_A": "1",
        "HF_B": "2 (set by nbloader)",
        "HF_C": "~/x (set by nbloader)",
        "HF_ENDPOINT": "https://huggingface.co (default)",
        "HF_HUB_CACHE": "~/hub (default)",
        "HF_TOKEN": "(set)",
    }


def test_jobs_in_rows_the_newest_first() -> None:
    retry = RetryEntry(time="t", path=None, reason="timed out", wait_s=5, route="xet")
    job = JobEntry(
        repo_id="org/name",
        commit_hash=None,
        kind="diffusers",
        started="s",
        seconds=75,
        status="failed",
        reference="disk-full",
        fetched=10**9,
        total=2 * 10**9,
        stages=(("connect", 1.5),),
        retries=(retry,) * 12,
        retry_count=60,
        notices=("n",),
        versions={},
    )
    rows = list(job_rows([job, job]))
    assert [row.name for row in rows] == ["s", *["retry t"] * 10] * 2
    assert rows[0].text == (
        "org/name as diffusers: failed (disk-full) after 1:15; 1.0 GB fetched of 2.0 GB; "
        "60 retries; notices: n; connect 1.5 s"
    )
    assert rows[1].text == "a call: timed out; again after 5.0 s over xet"


# -- what anybody may have written -----------------------------------------------------------------

_rows = st.builds(
    Row,
    name=texts,
    text=texts,
    data=st.one_of(st.none(), st.dictionaries(texts, st.one_of(texts, st.lists(texts)))),
)


@given(st.lists(_rows, max_size=6), texts)
def test_foreign_text_is_plain_or_escaped(rows: list[Row], title: str) -> None:
    sections = redacted_sections(
        [Section(key="k", title=title, rows=tuple(rows))], Redactor(homes=("/home/me",))
    )
    report = DoctorReport(sections=sections, issue=fenced([title]), seconds=1.0)
    text, markup = str(report), report._repr_html_()
    text.encode()
    assert all(line.isprintable() for line in text.split("\n"))
    assert "<script" not in markup
    assert "onload='x" not in markup
    json.dumps(report.to_json())
    assert len(report.to_json()["k"]) == len(rows)


@given(st.lists(st.text("`a \n~", max_size=30), max_size=5))
def test_no_line_ends_the_block_to_paste(lines: list[str]) -> None:
    first, *rest, last = fenced(lines).split("\n")
    fence = first.removesuffix("text")
    assert set(fence) == {"`"}
    assert last == fence
    assert all(fence not in line for line in rest)


def test_a_token_in_any_row_is_taken_out() -> None:
    row = Row(name=TOKEN, text=f"a {TOKEN}", data={TOKEN: [TOKEN, {"a": (TOKEN,)}], "n": 1})
    sections = redacted_sections([Section(key="k", title=TOKEN, rows=(row,))], Redactor())
    forms = (sections_text(sections), sections_html(sections), json.dumps(sections_json(sections)))
    assert all(TOKEN not in form for form in forms)
    assert sections_json(sections) == {
        "k": {"***": {"text": "a ***", "***": ["***", {"a": ["***"]}], "n": 1}}
    }
