"""Downloads as they went: what was there of each file at which time.

Some were made here, with the noise of a generator that begins anew each time; the others were
recorded by `benchmarks.record`.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.repos import MB

__all__ = ["RECORDED", "Step", "Trace", "from_json", "made", "recorded", "to_json"]

RECORDED = Path(__file__).parents[1] / "tests/state/traces"

MIB = 1 << 20

_TELLS_EVERY_S = 0.1
"""As often as the worker tells of progress."""


class Step(NamedTuple):
    """What was told at a time.

    Attributes:
        at: seconds since the download began.
        completed: bytes of the file that are there.
        done: whether it is in its place.
    """

    at: float
    path: str
    completed: int
    done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One download.

    Attributes:
        about: what happens in it, for a table.
        sizes: bytes of each file.
        steps: in their order.
        rates: bytes per second of the link itself, without noise and teeth, each from a time on.
            What anybody could know at best.
        changes: when the speed of the link changes, those of `rates` and others.
    """

    name: str
    about: str
    sizes: Mapping[str, int]
    steps: Sequence[Step]
    rates: Sequence[tuple[float, float]]
    changes: Sequence[float] = ()

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())

    @property
    def end(self) -> float:
        """When the last byte came."""
        there: dict[str, int] = {}
        end = 0.0
        for step in self.steps:
            if step.completed > there.get(step.path, 0):
                end = step.at
            there[step.path] = step.completed
        return end

    def rate(self, at: float) -> float:
        """Return the bytes per second of the link at a time."""
        return next((rate for since, rate in reversed(self.rates) if since <= at), 0.0)


def to_json(trace: Trace) -> str:
    """Write a trace, with the files by their numbers."""
    number = {path: count for count, path in enumerate(trace.sizes)}
    steps = [
        [round(step.at, 2), number[step.path], step.completed, *([1] if step.done else [])]
        for step in trace.steps
    ]
    head = {
        "name": trace.name,
        "about": trace.about,
        "sizes": dict(trace.sizes),
        "rates": [list(rate) for rate in trace.rates],
        "changes": list(trace.changes),
    }
    return json.dumps({**head, "steps": steps}, separators=(",", ":")) + "\n"


def from_json(text: str) -> Trace:
    """Read what `to_json` writes."""
    content = json.loads(text)
    paths = list(content["sizes"])
    steps = [
        Step(at, paths[number], completed, bool(done))
        for at, number, completed, *done in content.pop("steps")
    ]
    return Trace(**content, steps=steps)


def recorded() -> list[Trace]:
    """Return those that were recorded."""
    return [from_json(path.read_text("utf-8")) for path in sorted(RECORDED.glob("*.json"))]


# -- made here -------------------------------------------------------------------------------------

_FILE = "model.safetensors"


def _trace(
    name: str,
    about: str,
    total: float,
    steps: Sequence[Step],
    rates: Sequence[tuple[float, float]],
    changes: Sequence[float] | None = None,
) -> Trace:
    return Trace(
        name=name,
        about=about,
        sizes={_FILE: int(total)},
        steps=steps,
        rates=rates,
        changes=[since for since, _ in rates[1:]] if changes is None else changes,
    )


def _stream(
    rate: Callable[[float], float], total: float, *, seed: int, noise: float = 0.2
) -> Iterator[Step]:
    """Yield what comes of one file at a speed of each moment, told ten times a second.

    Args:
        noise: the deviation of a tenth of a second, as a share; half of it stays for the next.
    """
    chance = random.Random(seed)
    count = ticks = 0
    more = 0.0
    while count < total:
        ticks += 1
        at = ticks * _TELLS_EVERY_S
        more = more / 2 + math.sqrt(3) / 2 * chance.gauss(0, 1)
        here = rate(at) * max(0.0, 1 + noise * more) * _TELLS_EVERY_S
        if here > 0:
            count = min(int(total), count + max(1, int(here)))
            yield Step(at, _FILE, count)


def _lumps(
    rate: float, total: float, *, lump: int, at_once: int, seed: int, from_s: float = 0.0
) -> Iterator[Step]:
    """Yield what comes in whole pieces, of which several are on their way."""
    chance = random.Random(seed)
    usual_s = lump * at_once / rate
    ends = [
        from_s + usual_s * (number + chance.uniform(0.7, 1.3)) / at_once
        for number in range(1, at_once + 1)
    ]
    heapq.heapify(ends)
    count = 0
    while count < total:
        at = heapq.heappop(ends)
        count = min(int(total), count + lump)
        yield Step(at, _FILE, count)
        heapq.heappush(ends, at + usual_s * chance.uniform(0.7, 1.3))


def _steps_of(rates: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    return lambda at: next(rate for since, rate in reversed(rates) if since <= at)


def _of_rates(
    name: str, about: str, rates: Sequence[tuple[float, float]], total: float, seed: int
) -> Trace:
    return _trace(name, about, total, [*_stream(_steps_of(rates), total, seed=seed)], rates)


def _sawtooth() -> Trace:
    low, high, period = 10 * MB, 40 * MB, 6.0
    steps = [*_stream(lambda at: low + (high - low) * (at % period) / period, 1500 * MB, seed=4)]
    return _trace(
        "sawtooth", "up from 10 to 40 MB/s and down at once, every 6 s", 1500 * MB, steps,
        [(0.0, (low + high) / 2)],
    )  # fmt: skip


def _waves() -> Trace:
    high, low, half = 40 * MB, 10 * MB, 10.0
    edges = [half * number for number in range(8)]
    rates = [(at, low if number % 2 else high) for number, at in enumerate(edges)]
    return _of_rates("waves", "40 and 10 MB/s in turns, 10 s each", rates, 1500 * MB, seed=5)


def _start_up() -> Trace:
    full, ramp = 30 * MB, 6.0
    steps = [*_stream(lambda at: full * min(1.0, 0.02 + (at / ramp) ** 2), 1200 * MB, seed=6)]
    return _trace(
        "start-up", "6 s until the link is up to speed", 1200 * MB, steps, [(0.0, full)],
        [0.0, ramp / 2, ramp],
    )  # fmt: skip


def _lost() -> Trace:
    """At 14 s one of two files has the wrong bytes: its 120 MB come anew."""
    rate, first, second = 15 * MB, 120 * MB, 600 * MB
    steps: list[Step] = []
    for step in _stream(lambda _: rate, first + second, seed=7):
        taken = min(first, int(step.completed / 2))
        steps.append(Step(step.at, "a.safetensors", taken))
        steps.append(Step(step.at, "b.safetensors", min(second, step.completed - taken)))
        if taken == first:
            break
    at, there = steps[-1].at, steps[-1].completed
    steps.append(Step(at + 0.5, "a.safetensors", 0))
    for step in _stream(lambda _: rate, first + second - there, seed=8):
        taken = min(first, int(step.completed / 2))
        steps.append(Step(at + 0.5 + step.at, "a.safetensors", taken))
        more = min(second, there + step.completed - taken)
        steps.append(Step(at + 0.5 + step.at, "b.safetensors", more))
    return Trace(
        name="bytes lost",
        about="a file of 120 MB comes anew",
        sizes={"a.safetensors": first, "b.safetensors": second},
        steps=steps,
        rates=[(0.0, rate)],
        changes=[at],
    )


def _many_small() -> Trace:
    chance = random.Random(9)
    sizes = sorted(
        (min(MIB, int(110_000 * chance.lognormvariate(0, 0.6))) for _ in range(2500)), reverse=True
    )
    files = {f"images/{number:05}.jpg": size for number, size in enumerate(sizes)}
    ends = [0.0] * 8
    steps = []
    for path, size in files.items():
        at = heapq.heappop(ends) + 0.08 * chance.uniform(0.7, 1.6) + size / (5 * MB)
        steps.append(Step(at, path, size, done=True))
        heapq.heappush(ends, at)
    steps.sort()
    return Trace(
        name="many small files",
        about="2,500 files of 20 kB to 1 MB, the largest first, 8 at a time",
        sizes=files,
        steps=steps,
        rates=[(0.0, sum(sizes) / steps[-1].at)],
    )


def _small_first() -> Trace:
    sizes = {f"{number:03}.json": 20_000 for number in range(300)} | {_FILE: 1000 * MB}
    steps = [
        Step((number + 1) / 60, f"{number:03}.json", 20_000, done=True) for number in range(300)
    ]
    begins = steps[-1].at
    steps += [
        step._replace(at=begins + step.at)
        for step in _stream(lambda _: 30 * MB, 1000 * MB, seed=10)
    ]
    return Trace(
        name="small files first",
        about="5 s of small files, then one of 1 GB at 30 MB/s",
        sizes=sizes,
        steps=steps,
        rates=[(0.0, 1.2 * MB), (begins, 30 * MB)],
        changes=[begins],
    )


def made() -> list[Trace]:
    """Return those that are made here."""
    fell = [(0.0, 60 * MB), (7.0, 15 * MB)]
    return [
        _of_rates("steady", "20 MB/s", [(0.0, 20 * MB)], 1200 * MB, seed=1),
        _of_rates("falling", "60 MB/s, from 7 s on 15", fell, 1000 * MB, seed=2),
        _of_rates("falling, larger", "the same", fell, 3000 * MB, seed=2),
        _of_rates(
            "rising", "15 MB/s, from 5 s on 60", [(0.0, 15 * MB), (5.0, 60 * MB)], 3000 * MB, seed=3
        ),
        _of_rates(
            "rising late",
            "15 MB/s, from 15 s on 60",
            [(0.0, 15 * MB), (15.0, 60 * MB)],
            2000 * MB,
            seed=3,
        ),
        _sawtooth(),
        _waves(),
        _of_rates(
            "a dip",
            "40 MB/s, 12 for 12 s, 40",
            [(0.0, 40 * MB), (20.0, 12 * MB), (32.0, 40 * MB)],
            2200 * MB,
            seed=11,
        ),
        _of_rates(
            "stall",
            "25 MB/s, nothing for 10 s",
            [(0.0, 25 * MB), (20.0, 0.0), (30.0, 25 * MB)],
            1250 * MB,
            seed=12,
        ),
        _start_up(),
        _many_small(),
        _small_first(),
        _lost(),
        _of_rates(
            "route changed",
            "12 MB/s, 2 s of nothing, then 40",
            [(0.0, 12 * MB), (4.0, 0.0), (6.0, 40 * MB)],
            2000 * MB,
            seed=13,
        ),
        _trace(
            "lumps",
            "20 MB/s in pieces of 4 MiB, 8 at a time",
            1200 * MB,
            [*_lumps(20 * MB, 1200 * MB, lump=4 * MIB, at_once=8, seed=14)],
            [(0.0, 20 * MB)],
        ),
        _trace(
            "large lumps",
            "10 MB/s in pieces of 16 MiB, 4 at a time",
            1200 * MB,
            [*_lumps(10 * MB, 1200 * MB, lump=16 * MIB, at_once=4, seed=15)],
            [(0.0, 10 * MB)],
        ),
    ]
