"""`python -m benchmarks.estimates`: how right the time left of a download is, on traces of many.

Beside it stand a plain average (bytes by seconds), and tqdm's own smoothing.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from benchmarks.traces import Step, Trace, made, recorded
from nbloader.records import (
    Component,
    FileDone,
    FileProgress,
    Kind,
    RepoFile,
    Selected,
    Selection,
    Stage,
    StageStarted,
)
from nbloader.state import JobState, advance, apply

__all__ = ["PAGE", "Figures", "Look", "looks", "main", "measured", "table", "written"]

PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"

LOOKS_PER_S = 4
FIRST_SHARE = 0.1
NEAR_CHANGE_S = 5.0
LEAST_TRUTH_S = 1.0
"""In the last second an error is taken of a whole one: a tenth more or less is no lie."""

_BEGAN = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is said at a moment of a trace, in seconds; None where nothing is.

    Attributes:
        at: since the download began.
        truth: the seconds that it took from then on until the last byte.
        nbloader, average, tqdm: the time left by each.
        oracle: that of one who knows how fast the link is at that moment, without its noise and
            its teeth, but not what will come.
        speed: of nbloader, in bytes per second.
    """

    at: float
    truth: float
    nbloader: float | None
    average: float | None
    tqdm: float | None
    oracle: float | None
    speed: float | None


def _begun(trace: Trace) -> JobState:
    selection = Selection(
        repo_id="org/name",
        revision="main",
        commit_hash="c" * 40,
        kind=Kind.TRANSFORMERS,
        class_name="SomeModel",
        components=(Component(name="model", paths=tuple(trace.sizes)),),
        files=tuple(
            RepoFile(path=path, size=size, etag="1" * 40) for path, size in trace.sizes.items()
        ),
    )
    state = JobState(repo_id="org/name", started_at=_BEGAN, updated_at=_BEGAN)
    state = apply(state, Selected(selection=selection), _BEGAN)
    return apply(state, StageStarted(stage=Stage.DOWNLOAD), _BEGAN)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def looks(trace: Trace) -> Iterator[Look]:
    """Play a trace through the fold of events, and look four times a second until the last byte.

    The traces' times are those of the events; between two of them only time passes.
    """
    from tqdm import tqdm

    state, clock = _begun(trace), _Clock()
    steps: list[Step] = list(trace.steps)
    there: dict[str, int] = {}
    end, total, taken, heard_at = trace.end, trace.total, 0, 0.0
    # Its thread that watches bars would outlive it.
    with mock.patch("tqdm.std.time", clock), mock.patch.object(tqdm, "monitor_interval", 0):
        bar = tqdm(total=total, file=io.StringIO(), mininterval=0.1, smoothing=0.3)
        for number in range(1, int(end * LOOKS_PER_S)):
            now = number / LOOKS_PER_S
            while taken < len(steps) and steps[taken].at <= now:
                step = steps[taken]
                taken += 1
                gain = step.completed - there.get(step.path, 0)
                there[step.path] = step.completed
                heard_at = step.at if gain > 0 else heard_at
                event: FileDone | FileProgress = FileProgress(
                    path=step.path, completed=step.completed
                )
                if step.done:
                    event = FileDone(path=step.path)
                state = apply(state, event, _BEGAN + step.at)
                clock.now = step.at
                bar.update(gain)
            clock.now = now
            state = advance(state, _BEGAN + now)
            rest = total - bar.n
            own = trace.rate(now)
            rate = bar.format_dict["rate"] or bar.n / now
            yield Look(
                at=now,
                truth=end - now,
                nbloader=state.time_remaining,
                average=rest / (bar.n / now) if bar.n else None,
                tqdm=rest / rate if rate else None,
                oracle=max(0.0, rest / own - (now - heard_at)) if own else None,
                speed=state.speed,
            )
        bar.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How right an estimate was over a trace.

    Attributes:
        mean: of the relative errors.
        worst: the largest of them, but for the moments near a change of the link; None where all
            are near one.
    """

    mean: float
    worst: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was measured on a trace.

    Attributes:
        told: the share of the time in which nbloader says something.
    """

    trace: Trace
    nbloader: Figures
    average: Figures
    tqdm: Figures
    oracle: Figures
    told: float


def measured(trace: Trace) -> Result:
    """Measure how right the time left is.

    The truth is the time that it took, in seconds, from a moment until the last byte. The relative
    error is the difference to it, divided by it, or by a second where less is left. Moments are
    four a second, from a tenth of the whole time on, in which nbloader says something: it says
    nothing in a silence, nor before it knows anything. The mean is over all of them. The worst
    leaves out those that are up to five seconds before or after a change of the link's own speed:
    nobody sees it come, and it takes a while to tell it from noise.
    """
    late = [look for look in looks(trace) if look.at >= FIRST_SHARE * trace.end]
    told = [look for look in late if look.nbloader is not None]
    return Result(
        trace=trace,
        nbloader=_figures(trace, told, "nbloader"),
        average=_figures(trace, told, "average"),
        tqdm=_figures(trace, told, "tqdm"),
        oracle=_figures(trace, told, "oracle"),
        told=len(told) / len(late),
    )


def _figures(trace: Trace, told: Sequence[Look], name: str) -> Figures:
    errors = [
        (look.at, abs(left - look.truth) / max(look.truth, LEAST_TRUTH_S))
        for look in told
        if (left := getattr(look, name)) is not None
    ]
    far = [
        error
        for at, error in errors
        if all(abs(at - change) > NEAR_CHANGE_S for change in trace.changes)
    ]
    return Figures(
        mean=sum(error for _, error in errors) / len(errors), worst=max(far, default=None)
    )


def table(results: Sequence[Result]) -> str:
    """Write a table: the mean and the worst relative error of each, in percent."""
    lines = [
        "| | Seconds | nbloader | Plain average | tqdm | Who knows the link |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        columns = (result.nbloader, result.average, result.tqdm, result.oracle)
        trace = result.trace
        cells = [
            f"{trace.name}: {trace.about}",
            f"{trace.end:.0f}",
            *(f"{_percent(one.mean)}, {_percent(one.worst)}" for one in columns),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(error: float | None) -> str:
    return "–" if error is None else f"{100 * error:.0f}"


def written(page: str, results: Sequence[Result]) -> str:
    """Return a page with the table in its place."""
    begins, ends = "<!-- estimates -->\n", "\n<!-- end of estimates -->"
    before, _, rest = page.partition(begins)
    _, _, after = rest.partition(ends)
    return f"{before}{begins}{table(results)}{ends}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all traces and write the table, to the standard output or into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates")
    parser.add_argument("--write", action="store_true", help="write it into docs/benchmarks.md")
    args = parser.parse_args(argv)
    results = [measured(trace) for trace in (*made(), *recorded())]
    if args.write:
        PAGE.write_text(written(PAGE.read_text("utf-8"), results), "utf-8")
    else:
        sys.stdout.write(table(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
