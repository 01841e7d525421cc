"""The benchmark of transfers, run once at a small size."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, gpu_models, ready, report, transfer
from benchmarks.peers import PEERS
from benchmarks.repos import MB, ModelRepo, hashes, publish
from benchmarks.runs import Outcome, Record, run
from benchmarks.scenarios import Scenario, scenarios
from nbloader.localhub import LocalHub

PLAIN, TLS, CAPPED, KILL = (
    scenario
    for scenario in scenarios(large=5 * MB, medium=MB, small=10 * MB)
    if scenario.key in ("plain", "tls", "capped", "kill-small")
)
RECORD = Record(
    scenario="plain",
    peer="nbloader http",
    repeat=0,
    outcome=Outcome.DONE,
    bytes_needed=100 * MB,
    bytes_served=110 * MB,
    hub_requests=7,
    seconds=1.0,
    call_seconds=1.5,
    peak_memory_bytes=50 * MB,
    cpu_seconds=0.3,
)


def rows(table: str) -> dict[str, list[str]]:
    """The first words of every table's rows, by its title."""
    *blocks, _ = table.split("\n\n")  # the last names the file with the JSON
    return {
        title: [line.split("  ")[0] for line in lines.splitlines()[1:]]
        for title, lines in zip(blocks[0::2], blocks[1::2], strict=True)
    }


def available(name: str) -> bool:
    """Say whether a peer can be run here."""
    program = PEERS[name].program
    return program is None or shutil.which(program) is not None


def test_a_small_run_fills_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aria2 = Outcome.DONE if shutil.which("aria2c") else Outcome.SKIPPED
    outcomes = {"nbloader http": Outcome.DONE, "snapshot http": Outcome.DONE, "aria2 -x8": aria2}
    outcomes |= {name: Outcome.DONE for name in ("hf_xet", "curl", "wget") if available(name)}
    options = {
        "--large-mb": "5",
        "--small-mb": "10",
        "--repeats": "1",
        "--scenarios": "plain,tls,kill-small",
        "--peers": ",".join(outcomes),
        "--scratch": str(tmp_path / "scratch"),
        "--output": str(tmp_path / "result.json"),
    }
    assert transfer.main([word for option in options.items() for word in option]) == 0

    table = capsys.readouterr().out
    assert rows(table) == {
        scenario.title: [peer.name for peer in scenario.peers] for scenario in (PLAIN, TLS, KILL)
    }
    result = json.loads((tmp_path / "result.json").read_text())
    assert {
        (record["scenario"], record["peer"]): record["outcome"] for record in result["records"]
    } == {
        (scenario.key, peer.name): outcomes.get(peer.name, Outcome.SKIPPED)
        for scenario in (PLAIN, TLS, KILL)
        for peer in scenario.peers
    }
    for record in result["records"]:
        if record["outcome"] == Outcome.DONE:
            assert record["bytes_needed"] == needed(tmp_path, record["scenario"])
            assert record["bytes_served"] >= record["bytes_needed"]
            assert record["hub_requests"] > 0
            assert 0 < record["seconds"] <= record["call_seconds"]
            # So small a run of a program may begin and end between two looks at it; what runs
            # Python takes longer.
            assert PEERS[record["peer"]].program or record["peak_memory_bytes"] > MB
            assert PEERS[record["peer"]].program or record["cpu_seconds"] > 0
    # Nothing but the repositories is left behind.
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["hub"]


def needed(folder: Path, key: str) -> int:
    """Bytes of all files of the repository of a scenario."""
    (scenario,) = (scenario for scenario in (PLAIN, TLS, KILL) if scenario.key == key)
    source = folder / "scratch/hub/models" / scenario.repo.repo_id
    return sum(path.stat().st_size for path in source.iterdir())


def test_wrong_bytes_are_found(hub: LocalHub, hub_root: Path, tmp_path: Path) -> None:
    scenario = replace(PLAIN, repo=ModelRepo(size=MB))
    folder = publish(hub_root, scenario.repo)
    right = hashes(folder, scenario.repo.files)
    record = run(
        hub,
        scenario,
        PEERS["snapshot http"],
        repeat=0,
        source=hub_root,
        expected={**right, "model.safetensors": "0" * 64},
        scratch=tmp_path,
        limit_s=60,
    )
    assert (record.outcome, record.reason) == (Outcome.WRONG_BYTES, "model.safetensors")


def test_a_run_without_end_is_ended(hub: LocalHub, hub_root: Path, tmp_path: Path) -> None:
    scenario = replace(PLAIN, repo=ModelRepo(size=MB), total_bytes_per_second=1000.0)
    publish(hub_root, scenario.repo)
    record = run(
        hub,
        scenario,
        PEERS["snapshot http"],
        repeat=0,
        source=hub_root,
        expected={"model.safetensors": ""},
        scratch=tmp_path,
        limit_s=1,
    )
    assert (record.outcome, record.reason) == (Outcome.TOO_SLOW, "ended after 1 s")


def cells(scenario: Scenario, *records: Record) -> dict[str, list[str]]:
    """The rows of one table, by peer, without those that are empty."""
    lines = report.table([scenario], records).split("\n\n")[1].splitlines()
    return {" ".join(words[:2]): words[2:] for words in map(str.split, lines)}


def test_the_table_of_speeds_has_medians_and_compares_within_a_round() -> None:
    # The machine is slower in each round, and the first is twice as fast as the second.
    own = [replace(RECORD, repeat=turn, seconds=2.0**turn) for turn in range(3)]
    other = [
        replace(RECORD, peer="snapshot http", repeat=turn, seconds=2.0 ** (turn + 1))
        for turn in range(3)
    ]
    found = cells(PLAIN, *own, *other)
    assert " ".join(found["peer MB/s"]) == (
        "lowest highest / snapshot http whole call s CPU s/GB served/needed requests peak MB"
    )
    assert found["nbloader http"] == ["50", "25", "100", "2.00", "1.50", "3.00", "1.100", "7", "50"]
    assert found["snapshot http"] == ["25", "12", "50", "1.00", "1.50", "3.00", "1.100", "7", "50"]
    assert found["aria2 -x8"] == ["-"] * 9


def test_the_table_of_bytes_has_the_worst_and_says_what_failed() -> None:
    run_of = replace(RECORD, scenario=KILL.key)
    failed = replace(
        run_of, outcome=Outcome.FAILED, reason="gone", bytes_served=150 * MB, seconds=None
    )
    found = cells(KILL, run_of, failed)
    assert " ".join(found["nbloader http"]) == "1.500 1.0 50 1 of 2 done; failed: gone"


def test_all_ways_onto_a_gpu_bring_the_same(tmp_path: Path) -> None:
    gpu_models.save_flux(tmp_path, 1_000_000, tiny=True)
    for ways in (["safetensors load_file", "mapped, then .to", "nbloader"], list(gpu._LOADS)[1:]):
        digests = {gpu._one(way, str(tmp_path), "cpu")["digest"] for way in ways}
        assert len(digests) == 1


def test_the_table_of_seconds_compares_within_a_round_and_with_the_bound() -> None:
    case = ready.Case(model="pipeline", cap=100, tls=True)
    warm = ready.Case(model="pipeline", warm=True)

    def timing(ready_s: float, **more: Any) -> ready.Timing:
        return ready.Timing(ready_s=ready_s, cpu_s=4.0, **more)

    own = [
        timing(
            each,
            wire_bytes=900_000_000,
            left_s=0.25,
            ahead_bytes=800_000_000,
            peak_bytes={"process": 1_500_000_000, "worker": 80_000_000},
        )
        for each in (10.0, 9.9, 10.2)
    ]
    library = [timing(each) for each in (20.0, 11.0, 17.0)]
    floor = [timing(each) for each in (5.0, 4.5)]
    found = {
        case: {"nbloader": own, "library": library},
        warm: {"nbloader": floor, "library": floor},
    }
    heads, *rows = (
        [cell for cell in line.split("  ") if cell.strip()]
        for line in ready.table(found, {"pipeline": floor}, cores=2).splitlines()
    )
    assert [[cell.strip() for cell in row] for row in rows] == [
        # The link is the bound: 900 MB at 100 MB/s.
        [
            *("pipeline, http over TLS, 100 MB/s", "10.00", "17.00", "0.60", "9.00", "1.11"),
            *("0.25", "800", "4.0", "4.0", "1500", "80"),
        ],
        [
            "pipeline, from the cache",
            "4.75",
            "4.75",
            "1.00",
            "4.50",
            "1.06",
            "4.0",
            "4.0",
            "0",
            "0",
        ],
    ]
    assert len(heads) == 12
