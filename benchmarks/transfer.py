"""`python -m benchmarks.transfer`: nbloader's downloads side by side with those of its peers.

All run against the same local Hub on loopback, in turns, each into an empty cache, and the sha256
of every file is checked after every run. Two tables are of speed, the others of the bytes that the
Hub had to send when something went wrong. With `--help` come the sizes and other options.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.peers import PEERS, Peer, Route
from benchmarks.repos import MB, hashes, publish
from benchmarks.runs import Record, compile_package, run, skipped
from benchmarks.scenarios import Scenario, scenarios
from nbloader.localhub import LocalHub

__all__ = ["main", "positive"]

_HUB_LIMIT_S = 4 * 3600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 when every row is filled or explained."""
    args = _parser().parse_args(argv)
    chosen = [
        scenario
        for scenario in scenarios(
            large=args.large_mb * MB, medium=args.medium_mb * MB, small=args.small_mb * MB
        )
        if scenario.key in args.scenarios
    ]
    scratch: Path = args.scratch.resolve()  # the peers run in folders of their own
    scratch.mkdir(parents=True, exist_ok=True)
    root = scratch / "hub"
    compile_package()
    for repo in dict.fromkeys(scenario.repo for scenario in chosen):
        publish(root, repo)
    records: list[Record] = []
    for tls in (False, True):
        some = [scenario for scenario in chosen if scenario.tls is tls]
        if not some:
            continue
        with (
            LocalHub.start(root, tls=tls, max_seconds=_HUB_LIMIT_S) as hub,
            tempfile.TemporaryDirectory(dir=scratch, prefix="run-") as runs,
        ):
            records += _measure(hub, some, args, root, Path(runs))
    result = {
        "machine": _machine(),
        "versions": _versions(),
        "options": {name: str(value) for name, value in vars(args).items()},
        "records": [record.to_json() for record in records],
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(f"{report.table(chosen, records)}\n\n{args.output}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transfer",
        description="Measure nbloader's downloads side by side with those of its peers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--repeats", type=positive, default=5, help="runs of each timed row")
    parser.add_argument(
        "--fault-repeats", type=positive, default=1, help="runs of each row with a fault"
    )
    parser.add_argument("--large-mb", type=positive, default=2000, help="size of the five files")
    parser.add_argument("--medium-mb", type=positive, default=1000, help="size at 100 MB/s")
    parser.add_argument("--small-mb", type=positive, default=120, help="size at 20 MB/s")
    parser.add_argument(
        "--limit-s", type=float, default=120.0, help="a run that takes longer has failed"
    )
    keys = [scenario.key for scenario in scenarios(large=MB, medium=MB, small=MB)]
    parser.add_argument("--scenarios", type=_among(keys), default=keys, help=", ".join(keys))
    parser.add_argument("--peers", type=_among(PEERS), default=list(PEERS), help=", ".join(PEERS))
    parser.add_argument(
        "--scratch", type=Path, default=Path(".bench"), help="folder on a disk, kept for the next"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(".bench/transfer.json"), help="file for the JSON"
    )
    return parser


def positive(text: str) -> int:
    """Read a number of the command line that is at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _among(names: Sequence[str] | dict[str, Peer]) -> Callable[[str], list[str]]:
    """Make the reader of a list of names with commas between them."""

    def read(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        if unknown := [name for name in chosen if name not in names]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return chosen

    return read


def _measure(
    hub: LocalHub, chosen: Sequence[Scenario], args: argparse.Namespace, root: Path, scratch: Path
) -> list[Record]:
    """Run every peer through every scenario, in turns, so that all meet the same machine."""
    records: list[Record] = []
    if any(
        peer.route is Route.XET and not _unavailable(peer, args.peers) for peer in PEERS.values()
    ):
        for repo in dict.fromkeys(scenario.repo for scenario in chosen):
            hub.upload_to_xet(repo.repo_id)
    for scenario in chosen:
        repo = scenario.repo
        reasons = {peer: _unavailable(peer, args.peers) for peer in scenario.peers}
        records += [skipped(scenario, peer, reason) for peer, reason in reasons.items() if reason]
        peers = [peer for peer, reason in reasons.items() if not reason]
        expected = hashes(root / "models" / repo.repo_id, repo.files)
        for repeat in range(args.repeats if scenario.timed else args.fault_repeats):
            # Another one goes first each time: none is always the neighbour of the same peer.
            shift = repeat % max(1, len(peers))
            for peer in peers[shift:] + peers[:shift]:
                record = run(
                    hub,
                    scenario,
                    peer,
                    repeat=repeat,
                    source=root,
                    expected=expected,
                    scratch=scratch,
                    limit_s=args.limit_s,
                )
                records.append(record)
                sys.stderr.write(_line(scenario, record))
    return records


def _line(scenario: Scenario, record: Record) -> str:
    """Describe one run, for whoever waits for the table."""
    took = "" if record.seconds is None else f" in {record.seconds:.2f} s"
    return f"{scenario.key}: {record.peer}: {record.outcome}{took} {record.reason}".rstrip() + "\n"


def _unavailable(peer: Peer, wanted: Collection[str]) -> str | None:
    """Say why a peer is not measured; None if it is."""
    if peer.name not in wanted:
        return "left out by --peers"
    if peer.program is not None and shutil.which(peer.program) is None:
        return f"{peer.program} is missing; on Debian and Ubuntu: apt-get install {peer.tool}"
    return None


def _machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "load_average": os.getloadavg(),  # of the last 1, 5 and 15 minutes
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def _versions() -> dict[str, str | None]:
    """Return the versions of all that took part; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("nbloader-hub", "huggingface_hub", "hf-xet", "aiohttp"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["aria2"] = _aria2_version()
    return found


def _aria2_version() -> str | None:
    place = shutil.which("aria2c")
    if place is None:
        return None
    answer = subprocess.run([place, "--version"], capture_output=True, text=True, check=False)
    return answer.stdout.partition("\n")[0].removeprefix("aria2 version ")


if __name__ == "__main__":
    sys.exit(main())
