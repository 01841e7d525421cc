"""`python -m benchmarks.ready`: seconds until a model is ready, nbloader beside the library alone.

Every run is a process of its own, timed from its start to the moment at which its model can be
used; what Python takes to end is not in it. All run against a local Hub whose connections share one
cap, in turns. Beside each case stands its bound: the larger of the link (the bytes on the wire at
the cap), of imports and load (the library from a folder of this machine), and of the CPU time of
the run and of the Hub, which runs beside it, shared out over the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median

import psutil

from benchmarks.models import MODELS, Model, publish
from benchmarks.runs import compile_package, cpu_seconds
from benchmarks.transfer import positive
from nbloader.localhub import Fault, LocalHub, RequestClass

__all__ = ["CASES", "Case", "Timing", "main", "table"]

MB = 1_000_000
_BODIES = (RequestClass.CDN_GET, RequestClass.XET_XORB)
_LIMIT_S = 300.0
_POLL_S = 0.05
_NO_PATH = str.maketrans({" ": "-", ",": None, "/": "-"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model and the way to it.

    Attributes:
        cap: MB/s of all connections together; None for no cap.
        route: `http` or `xet`.
        tls: whether the Hub is asked over TLS.
        warm: whether all of it is in the cache.
    """

    model: str
    cap: int | None = None
    route: str = "http"
    tls: bool = False
    warm: bool = False

    @property
    def title(self) -> str:
        """The case in a few words."""
        if self.warm:
            return f"{self.model}, from the cache"
        way = f"{self.route}{' over TLS' if self.tls else ''}"
        return f"{self.model}, {way}, " + (f"{self.cap} MB/s" if self.cap else "no cap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One process.

    Attributes:
        ready_s: from its start to a model that can be used.
        left_s: of that, after the last byte; None where nobody tells.
        ahead_bytes: that had arrived when the last component but one was built; None likewise.
        cpu_s: of the process and its children, user and system.
        hub_cpu_s: of the local Hub meanwhile.
        peak_bytes: the most memory that the process held (`VmHWM`), and its worker.
        wire_bytes: that the Hub sent.
    """

    ready_s: float
    left_s: float | None = None
    ahead_bytes: int | None = None
    cpu_s: float = 0.0
    hub_cpu_s: float = 0.0
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    wire_bytes: int = 0


CASES: tuple[Case, ...] = (
    *(Case(model="pipeline", cap=cap, tls=True) for cap in (60, 140, 300)),
    Case(model="pipeline", cap=140),
    Case(model="pipeline", cap=140, route="xet"),
    Case(model="pipeline", tls=True),
    *(Case(model="embedder", cap=cap, tls=True) for cap in (140, 300)),
    Case(model="minilm", cap=10, tls=True),
    *(Case(model=name, warm=True) for name in MODELS),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    chosen = [case for case in CASES if any(word in case.title for word in args.cases)]
    scratch: Path = args.scratch.resolve()
    root = scratch / "hub"
    compile_package()
    for name in dict.fromkeys(case.model for case in chosen):
        publish(root, MODELS[name])
    found: dict[Case, dict[str, list[Timing]]] = {}
    told = ""
    floors: dict[str, list[Timing]] = {}
    with tempfile.TemporaryDirectory(dir=scratch, prefix="run-") as place:
        for tls in sorted({case.tls for case in chosen}):
            with LocalHub.start(root, max_seconds=4 * 3600.0, tls=tls) as hub:
                mine = [case for case in chosen if case.tls is tls]
                for name in {case.model for case in mine if case.route == "xet"}:
                    hub.upload_to_xet(MODELS[name].repo_id)
                for case in mine:
                    found[case] = _measure(hub, case, args, root, Path(place), floors)
                    told = table(found, floors, cores=os.cpu_count() or 1)
                    sys.stderr.write(f"{told}\n\n")
                    _keep(args.output, found, floors)
    sys.stdout.write(f"{told}\n\n{args.output}\n")
    return 0


def _keep(
    output: Path,
    found: Mapping[Case, Mapping[str, Sequence[Timing]]],
    floors: Mapping[str, Sequence[Timing]],
) -> None:
    """Write what was measured so far: all of it takes the better part of an hour."""
    result = [
        {
            "case": case.title,
            **{peer: [asdict(run) for run in runs] for peer, runs in by_peer.items()},
            "floor": [asdict(run) for run in floors[case.model]],
        }
        for case, by_peer in found.items()
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ready",
        description="Measure the time until a model is ready.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--repeats", type=positive, default=5, help="runs of each")
    parser.add_argument(
        "--cases", nargs="+", default=[""], help="those whose titles have one of these words"
    )
    parser.add_argument("--scratch", type=Path, default=Path(".bench"), help="kept for the next")
    parser.add_argument("--output", type=Path, default=Path(".bench/ready.json"))
    parser.add_argument("--charts", type=Path, help="folder for a chart of each case as PNG")
    return parser


def _measure(
    hub: LocalHub,
    case: Case,
    args: argparse.Namespace,
    root: Path,
    scratch: Path,
    floors: dict[str, list[Timing]],
) -> dict[str, list[Timing]]:
    """Run nbloader and the library in turns."""
    model = MODELS[case.model]
    caps = [Fault(body, total_bytes_per_second=case.cap * MB) for body in _BODIES if case.cap]
    hub.set_faults(caps)
    found: dict[str, list[Timing]] = {"nbloader": [], "library": []}
    floor = floors.setdefault(case.model, [])
    kept = scratch / f"warm-{case.model}"
    for turn in range(args.repeats):
        for peer, runs in found.items():
            cache = kept if case.warm else Path(tempfile.mkdtemp(dir=scratch))
            if case.warm and turn == 0:
                _run(hub, case, model, peer, cache)  # the first fills the cache
            chart = None
            if args.charts and peer == "nbloader" and turn == 0:
                args.charts.mkdir(parents=True, exist_ok=True)
                chart = args.charts / f"{case.title.translate(_NO_PATH)}.png"
            runs.append(_run(hub, case, model, peer, cache, chart=chart))
            if not case.warm:
                shutil.rmtree(cache, ignore_errors=True)
        if len(floor) < args.repeats:
            local = str(root / "models" / model.repo_id)
            floor.append(_run(hub, case, replace(model, repo_id=local), "library", kept))
    return found


def _run(
    hub: LocalHub,
    case: Case,
    model: Model,
    peer: str,
    cache: Path,
    *,
    chart: Path | None = None,
) -> Timing:
    """Start a process, and wait until its model is ready."""
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "0" if case.route == "xet" else "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    if hub.authority is not None:
        env["SSL_CERT_FILE"] = str(hub.authority)
    before, spent = hub.counters().file_bytes, cpu_seconds(hub.pid) or 0.0
    script = Path(__file__).with_name("ready_client.py")
    told = [] if chart is None else [str(chart)]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(script), peer, model.kind, model.repo_id, case.route, *told],
        env=env,
        stdout=subprocess.PIPE,
    )
    try:
        peaks: dict[str, int] = {}
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        line = b""
        while not line.endswith(b"\n"):
            ended = process.poll() is not None
            _note_peaks(process.pid, peaks)
            time.sleep(_POLL_S)
            with suppress(BlockingIOError):
                line += os.read(process.stdout.fileno(), 1 << 16)
            if not line and (ended or time.monotonic() - began > _LIMIT_S):
                raise RuntimeError(f"{case.title}: {peer} was not ready")
        answer = json.loads(line)
        process.wait(_LIMIT_S)
    finally:
        process.kill()
        process.wait()
    return Timing(
        ready_s=answer["ready_at"] - began,
        left_s=answer.get("left_s"),
        ahead_bytes=answer.get("ahead_bytes"),
        cpu_s=answer["cpu_s"],
        hub_cpu_s=(cpu_seconds(hub.pid) or 0.0) - spent,
        peak_bytes=peaks,
        wire_bytes=hub.counters().file_bytes - before,
    )


def _note_peaks(pid: int, peaks: dict[str, int]) -> None:
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children()):
            name = "process" if process.pid == pid else "worker"
            with suppress(OSError, psutil.Error):
                for row in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if row.startswith("VmHWM:"):
                        peaks[name] = max(peaks.get(name, 0), int(row.split()[1]) * 1024)


# -- the table -------------------------------------------------------------------------------------


def table(
    found: Mapping[Case, Mapping[str, Sequence[Timing]]],
    floors: Mapping[str, Sequence[Timing]],
    *,
    cores: int,
) -> str:
    """Write a row for each case: medians, ratios within a round, and the bound.

    Args:
        found: the runs of `nbloader` and of the `library`, in turns.
        floors: those of the library from a folder of this machine, by model.
    """
    rows = [
        [
            *("case", "nbloader s", "library s", "ratio", "bound s", "/ bound"),
            *("after the last byte s", "MB before the last part", "CPU s", "library CPU s"),
            *("process MB", "worker MB"),
        ],
        *(_row(case, runs, floors[case.model], cores) for case, runs in found.items()),
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(
    case: Case, runs: Mapping[str, Sequence[Timing]], floor: Sequence[Timing], cores: int
) -> list[str]:
    own, library = runs["nbloader"], runs["library"]
    seconds = median(run.ready_s for run in own)
    ratio = median(a.ready_s / b.ready_s for a, b in zip(own, library, strict=True))
    bound = max(_bounds(case, own, floor, cores))
    left = [run.left_s for run in own if run.left_s is not None]
    ahead = [run.ahead_bytes for run in own if run.ahead_bytes is not None]
    return [
        case.title,
        f"{seconds:.2f}",
        f"{median(run.ready_s for run in library):.2f}",
        f"{ratio:.2f}",
        f"{bound:.2f}",
        f"{seconds / bound:.2f}",
        f"{median(left):.2f}" if left and not case.warm else "",
        f"{median(ahead) / MB:.0f}" if ahead and not case.warm else "",
        f"{median(run.cpu_s for run in own):.1f}",
        f"{median(run.cpu_s for run in library):.1f}",
        *(f"{_peak(own, name) / MB:.0f}" for name in ("process", "worker")),
    ]


def _peak(runs: Sequence[Timing], name: str) -> int:
    return max(run.peak_bytes.get(name, 0) for run in runs)


def _bounds(
    case: Case, own: Sequence[Timing], floor: Sequence[Timing], cores: int
) -> Iterator[float]:
    yield min(run.ready_s for run in floor)
    if case.cap:
        yield min(run.wire_bytes for run in own) / (case.cap * MB)
    if not case.warm:
        yield min(run.cpu_s + run.hub_cpu_s for run in own) / cores


if __name__ == "__main__":
    sys.exit(main())
