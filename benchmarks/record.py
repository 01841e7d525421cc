"""`python -m benchmarks.record`: record downloads from a local Hub whose speed changes on the way.

What `on_event` is told is kept, four times a second, below `tests/state/traces`. It takes some six
minutes, and 1 GB of disk in `.bench`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import nbloader
from benchmarks.repos import MB, ModelRepo, publish
from benchmarks.traces import RECORDED, Step, Trace, to_json
from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.records import Event, FileDone, FileProgress, Selected, Stage, StageStarted

__all__ = ["main"]

_KEPT_EVERY_S = 0.25
_CONTENT = (RequestClass.CDN_GET, RequestClass.XET_XORB)

Act = Callable[[LocalHub], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A download to record.

    Attributes:
        repo: what is fetched; None for many small files.
        acts: what is done to the Hub, each so many seconds after the download has begun.
        rates, changes: of `Trace`; no rates where the link has one, which only the end tells.
    """

    name: str
    about: str
    repo: ModelRepo | None
    acts: Sequence[tuple[float, Act]]
    rates: Sequence[tuple[float, float]] = ()
    changes: Sequence[float] = ()
    route: str = "http"


def _faults(*faults: Fault) -> Act:
    return lambda hub: hub.set_faults(faults)


def _capped(rate: float, **more: object) -> Act:
    """Hold all answers together to a speed."""
    return _faults(
        *(Fault(kind, total_bytes_per_second=rate, **more) for kind in _CONTENT)  # type: ignore[arg-type]
    )


def _stop(hub: LocalHub) -> None:
    os.kill(hub.pid, signal.SIGSTOP)


def _go_on(hub: LocalHub) -> None:
    os.kill(hub.pid, signal.SIGCONT)


def _in_turns(fast: Act, slow: Act, every_s: float, count: int) -> list[tuple[float, Act]]:
    return [(every_s * number, slow if number % 2 else fast) for number in range(count)]


_ONE = ModelRepo(size=300 * MB)
_SHARDS = ModelRepo(size=400 * MB, shards=100)
_FELL = ((0.0, 24 * MB), (6.0, 6 * MB))
_ROSE = ((0.0, 5 * MB), (3.0, 20 * MB))

SCENES = (
    Scene(name="recorded, steady", about="12 MB/s", repo=_ONE, acts=[(0, _capped(12 * MB))]),
    Scene(
        name="recorded, falling",
        about="24 MB/s, from 6 s on 6",
        repo=_SHARDS,
        acts=[(0, _capped(24 * MB)), (6, _capped(6 * MB))],
        rates=_FELL,
    ),
    Scene(
        name="recorded, rising",
        about="5 MB/s, from 3 s on 20",
        repo=ModelRepo(size=800 * MB, shards=200),
        acts=[(0, _capped(5 * MB)), (3, _capped(20 * MB))],
        rates=_ROSE,
    ),
    Scene(
        name="recorded, teeth",
        about="20 and 10 MB/s in turns, 3 s each",
        repo=_SHARDS,
        acts=_in_turns(_capped(20 * MB), _capped(10 * MB), 3.0, 14),
    ),
    Scene(
        name="recorded, stall",
        about="12 MB/s, nothing for 8 s",
        repo=_ONE,
        acts=[(0, _capped(12 * MB)), (12, _stop), (20, _go_on)],
        rates=((0.0, 12 * MB), (12.0, 0.0), (20.0, 12 * MB)),
    ),
    Scene(
        name="recorded, answers cut off",
        about="12 MB/s, each answer ends after 5 MB",
        repo=_ONE,
        acts=[
            (
                0,
                _faults(
                    *(Fault(k, total_bytes_per_second=12 * MB) for k in _CONTENT),
                    *(Fault(k, cut=Cut.DROP, after_bytes=5 * MB) for k in _CONTENT),
                ),
            )
        ],
    ),
    Scene(
        name="recorded, wrong bytes",
        about="12 MB/s, a file of 100 MB comes anew",
        repo=ModelRepo(size=300 * MB, shards=3),
        rates=((0.0, 12 * MB),),
        acts=[
            (
                0,
                _faults(
                    Fault(RequestClass.CDN_GET, total_bytes_per_second=12 * MB),
                    Fault(
                        RequestClass.CDN_GET,
                        path="*model-00001-*",
                        wrong_bytes=True,
                        skip=1,
                        times=1,
                    ),
                ),
            ),
        ],
    ),
    Scene(
        name="recorded, Xet",
        about="8 MB/s",
        repo=_ONE,
        acts=[(0, _capped(8 * MB))],
        route="xet",
    ),
    Scene(
        name="recorded, Xet, late answers",
        about="10 MB/s, each answer begins after 4 s",
        repo=_ONE,
        acts=[(0, _capped(10 * MB, latency_s=4.0))],
        route="xet",
    ),
    Scene(
        name="recorded, another route",
        about="1 MB/s a connection over HTTP, 15 MB/s in all over Xet",
        repo=ModelRepo(size=600 * MB),
        # As it was seen: one route is tried, then the other while pieces of the first still come.
        rates=((0.0, 7 * MB), (5.0, 24 * MB), (12.0, 15 * MB)),
        acts=[
            (
                0,
                _faults(
                    Fault(RequestClass.CDN_GET, bytes_per_second=MB),
                    Fault(RequestClass.XET_XORB, total_bytes_per_second=15 * MB),
                ),
            )
        ],
        route="auto",
    ),
    Scene(
        name="recorded, many small files",
        about="1,500 files of 10 kB to 1 MB, each answer begins after 0.1 s",
        repo=None,
        acts=[
            (
                0,
                _faults(
                    *(
                        Fault(kind, latency_s=0.1)
                        for kind in (RequestClass.RESOLVE_GET, RequestClass.CDN_GET)
                    )
                ),
            )
        ],
    ),
)

_SMALL_ID = "bench/small-files"


def _publish_small(root: Path) -> None:
    folder = root / "models" / _SMALL_ID
    if folder.is_dir():
        return
    (folder / "images").mkdir(parents=True)
    chance = random.Random(1)
    for number in range(1500):
        size = min(1_000_000, int(60_000 * chance.lognormvariate(0, 0.8)))
        (folder / f"images/{number:04}.bin").write_bytes(chance.randbytes(size))


def main(argv: Sequence[str] | None = None) -> int:
    """Record what the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record")
    parser.add_argument("names", nargs="*", help="parts of names; all if there is none")
    parser.add_argument("--scratch", type=Path, default=Path(".bench"))
    parser.add_argument("--output", type=Path, default=RECORDED)
    args = parser.parse_args(argv)
    root = args.scratch.resolve() / "hub"
    args.output.mkdir(parents=True, exist_ok=True)
    for scene in SCENES:
        if args.names and not any(name in scene.name for name in args.names):
            continue
        if scene.repo is not None:
            publish(root, scene.repo)
        else:
            _publish_small(root)
        trace = _recorded(scene, root)
        name = scene.name.removeprefix("recorded, ").replace(", ", "-").replace(" ", "-").lower()
        (args.output / f"{name}.json").write_text(to_json(trace), "utf-8")
        sys.stderr.write(f"{scene.name}: {trace.end:.1f} s, {len(trace.steps)} steps\n")
    return 0


def _recorded(scene: Scene, root: Path) -> Trace:
    events: list[tuple[float, Event]] = []
    began = threading.Event()

    def hear(event: Event) -> None:
        at = getattr(event, "at", None)
        events.append((time.monotonic() if at is None else at, event))
        if isinstance(event, StageStarted) and event.stage is Stage.DOWNLOAD:
            began.set()

    with (
        LocalHub.start(root) as hub,
        tempfile.TemporaryDirectory(prefix="nbloader-record-") as cache,
        # What is remembered of a commit may be from before it was in Xet storage.
        mock.patch.dict(os.environ, HF_HOME=cache),
    ):
        repo_id = scene.repo.repo_id if scene.repo else _SMALL_ID
        if scene.route != "http":
            hub.upload_to_xet(repo_id)
        scene.acts[0][1](hub)
        stopped = threading.Event()
        acting = threading.Thread(target=_act, args=(scene, hub, began, stopped), daemon=True)
        acting.start()
        try:
            nbloader.download(
                repo_id,
                endpoint=hub.endpoint,
                cache_dir=cache,
                token=False,
                view="none",
                settings={"route": scene.route},
                on_event=hear,
                allow_patterns=None if scene.repo else ["images/*"],
            )
        finally:
            stopped.set()
            began.set()
            acting.join()
    return _trace(scene, events)


def _act(scene: Scene, hub: LocalHub, began: threading.Event, stopped: threading.Event) -> None:
    began.wait()
    start = time.monotonic()
    for after_s, act in scene.acts[1:]:
        if stopped.wait(max(0.0, start + after_s - time.monotonic())):
            break
        act(hub)
    _go_on(hub)


def _trace(scene: Scene, events: Sequence[tuple[float, Event]]) -> Trace:
    """Keep of each file what was told last in each quarter of a second."""
    sizes: dict[str, int] = {}
    start = 0.0
    kept: dict[tuple[int, str], Step] = {}
    for at, event in events:
        if isinstance(event, Selected):
            sizes = {file.path: file.size for file in event.selection.files}
        elif isinstance(event, StageStarted) and event.stage is Stage.DOWNLOAD:
            start = at
        elif isinstance(event, FileProgress | FileDone):
            done = isinstance(event, FileDone)
            completed = event.completed if isinstance(event, FileProgress) else sizes[event.path]
            after_s = max(0.0, at - start)
            key = int(after_s / _KEPT_EVERY_S), event.path
            kept.pop(key, None)  # The newest one goes last.
            kept[key] = Step(round(after_s, 2), event.path, completed, done)
    steps = sorted(kept.values(), key=lambda step: step.at)
    trace = Trace(
        name=scene.name,
        about=scene.about,
        sizes=sizes,
        steps=steps,
        rates=scene.rates,
        changes=[since for since, _ in scene.rates[1:]] or list(scene.changes),
    )
    return trace if trace.rates else replace(trace, rates=[(0.0, trace.total / trace.end)])


if __name__ == "__main__":
    sys.exit(main())
