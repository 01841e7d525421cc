"""Who gives up when: the time limits of a load, from the innermost to the outermost.

Those of the transfer and its watchers stand in `nbloader.limits`, with the reason for each; some
are settings. The others are constants where they act, and are found here by their names, wherever
in the package they stand; a name that is not there any more is an error.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import log10
from pathlib import Path

import nbloader
from docs.generate.tables import table
from nbloader import Settings, limits

__all__ = ["NOT_LIMITS", "Limit", "Watcher", "constants", "markdown", "reasons", "watchers"]

NOT_LIMITS = re.compile(
    r"_?(\w*(EVERY|STEP)_S|\w+_PER_S|APART_S|CHOICE_HOLDS_S|DAY_S|DUE_S|FILL_S|FIRST_LOOK_S|KEPT_S|LATE_S"
    r"|AGAIN_S|ALTERNATES_S|FILE_S|GAP_S|IMPORTED_S|LASTING_WAIT_S|QUIET_S|REFRESH_BEFORE_S|SILENCE_S|SMALL_GAIN_WAIT_S"
    r"|SOONEST_S|STALL_S|(SPEED_)?WINDOW_S)"
)
"""Names of constants in seconds after which nobody gives up: how often something is looked at or
drawn, what counts as silence, how long something is kept, and a wait that is no longer than
another."""

_PACKAGE = Path(nbloader.__file__).parent
_LEFT_OUT = ("localhub", "demo.py")


@dataclass(frozen=True, slots=True)
class Limit:
    """A time after which somebody gives up.

    Attributes:
        waits_for: what does not come.
        seconds: with the settings as they are by default.
        written: the same in the words of the settings and constants that it is made of.
        then: what follows.
    """

    waits_for: str
    seconds: float
    written: str
    then: str


@dataclass(frozen=True, slots=True)
class Watcher:
    """Somebody who gives up, in the process where that is."""

    name: str
    process: str
    limits: tuple[Limit, ...]


class _Seconds:
    """The constants and settings in seconds, by name."""

    def __init__(self, found: Mapping[tuple[str, str], float]) -> None:
        self._found = found

    def __call__(self, name: str) -> float:
        """Return a constant."""
        values = {value for (_, found), value in self._found.items() if found == name}
        if len(values) != 1:
            raise LookupError(f"{name}: {sorted(values)}")
        return values.pop()

    @staticmethod
    def setting(name: str) -> float:
        return float(Settings.model_fields[name].default)


def constants() -> dict[tuple[str, str], float]:
    """Return the constants of the package that are in seconds, by file and name.

    Those of `nbloader.limits` are among them.
    """
    return {
        (str(path.relative_to(_PACKAGE)), name): value
        for path in sorted(_PACKAGE.rglob("*.py"))
        if path.relative_to(_PACKAGE).parts[0] not in _LEFT_OUT
        for name, value in _in_seconds(ast.parse(path.read_text(encoding="utf-8")))
    }


def _in_seconds(module: ast.Module) -> Iterator[tuple[str, float]]:
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
                pass
            case _:
                continue
        if name.isupper() and name.endswith("_S") and isinstance(value, int | float):
            yield name, float(value)


def reasons() -> tuple[tuple[str, float, str], ...]:
    """Return name, value and reason of each constant of `nbloader.limits`, in its order."""
    body = ast.parse(Path(limits.__file__).read_text(encoding="utf-8")).body
    found = []
    for statement, following in pairwise(body):
        match statement, following:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)),
                ast.Expr(value=ast.Constant(value=str() as reason)),
            ):
                found.append((name, float(value), " ".join(reason.split())))  # type: ignore[arg-type]
    return tuple(found)


def watchers() -> tuple[Watcher, ...]:
    """Return all who watch the time of a load, the innermost first."""
    of = _Seconds(constants())
    stall, connect = of.setting("stall_timeout_s"), limits.CONNECT_TIMEOUT_S
    file, large = of.setting("timeout"), of.setting("large_file_timeout")
    return (
        Watcher(
            "The connection",
            "worker",
            (
                Limit("to be made", connect, f"{connect:g} s", "another attempt"),
                Limit(
                    "a byte, or `min_speed` over that time",
                    stall,
                    "`stall_timeout_s`",
                    "it is closed; its bytes are asked for again, at once, over the other route",
                ),
            ),
        ),
        Watcher(
            "The piece of a file",
            "worker",
            (
                Limit(
                    "to be gone after it was cancelled",
                    limits.CANCEL_LIMIT_S,
                    f"{limits.CANCEL_LIMIT_S:g} s",
                    "the worker says that it is stuck, and is ended",
                ),
                Limit(
                    "a byte, when no other piece has work",
                    limits.SILENT_S,
                    f"{limits.SILENT_S:g} s",
                    "another connection goes after the same bytes",
                ),
                Limit(
                    "a byte over Xet, which notices silence by itself",
                    limits.xet_piece_limit_s(stall),
                    f"`stall_timeout_s` + {limits.XET_SPARE_S:g} s",
                    "it is cancelled",
                ),
                Limit(
                    "a byte over HTTP, where its own limits do not act",
                    limits.http_piece_limit_s(stall),
                    f"{limits.HTTP_PATIENCE} times `stall_timeout_s` + {connect:g} s",
                    "it is cancelled",
                ),
            ),
        ),
        Watcher(
            "A question to the Hub",
            "worker",
            (
                Limit(
                    "Xet storage, to say that it is there",
                    limits.XET_PROBE_TIMEOUT_S,
                    f"{limits.XET_PROBE_TIMEOUT_S:g} s, beside other work",
                    "a warning",
                ),
                Limit(
                    "Xet storage, to say where a chunk begins",
                    limits.XET_CHUNKS_TIMEOUT_S,
                    f"{limits.XET_CHUNKS_TIMEOUT_S:g} s",
                    "the piece begins at the missing byte; the rest of its chunk comes twice",
                ),
                Limit(
                    "the Hub, to answer for the first time",
                    5.0,
                    f"5 s, then longer, up to {limits.MOST_ANSWER_WAIT_S:g} s; 60 s without "
                    "`check_network`",
                    "another attempt, three in all; then `hub-unreachable`, or the cache",
                ),
                Limit(
                    "Kaggle, to hand over a secret",
                    of("KAGGLE_WAIT_S"),
                    f"{of('KAGGLE_WAIT_S'):g} s",
                    "it goes on without that token",
                ),
                Limit(
                    "the API, to begin its answer",
                    limits.CALL_TIMEOUT_S,
                    f"{limits.CALL_TIMEOUT_S:g} s",
                    "another attempt",
                ),
                Limit(
                    "the API, to end its answer, however it trickles",
                    limits.ANSWER_LIMIT_S,
                    f"{limits.ANSWER_LIMIT_S:g} s",
                    "another attempt",
                ),
            ),
        ),
        Watcher(
            "The file",
            "worker",
            (
                Limit(
                    "the next attempt, after one that brought nothing",
                    of.setting("retry_delay_max"),
                    "`retry_delay_min`, doubling up to `retry_delay_max`",
                    "the attempt; after `max_retries` in a row `download-failed`",
                ),
                Limit(
                    "the time that a server asks to wait",
                    limits.MAX_RETRY_AFTER_S,
                    f"what it asks, at most {limits.MAX_RETRY_AFTER_S:g} s",
                    "the attempt",
                ),
                Limit("a byte, over all its attempts", file, "`timeout`", "`download-failed`"),
                Limit(
                    "another process that holds the file, to write something",
                    file,
                    "`timeout`, or `large_file_timeout`",
                    "`download-failed`, with the process and the lock",
                ),
                Limit(
                    "the same of a file over 10 GB",
                    large,
                    "`large_file_timeout`",
                    "`download-failed`",
                ),
            ),
        ),
        Watcher(
            "The worker's parent",
            "kernel",
            (
                Limit(
                    "a killed worker to be gone",
                    limits.KILL_LIMIT_S,
                    f"{limits.KILL_LIMIT_S:g} s",
                    "it is left to the system",
                ),
                Limit(
                    "a word of the worker, which speaks every second",
                    limits.silence_limit_s(stall),
                    f"`stall_timeout_s` + {limits.SILENCE_SPARE_S:g} s",
                    "it is killed, and another goes on from what is on the disk",
                ),
                Limit(
                    "a sign of work of any worker",
                    limits.quiet_limit_s(file),
                    f"the longest `timeout` of its files + {limits.QUIET_SPARE_S:g} s",
                    "`download-failed`",
                ),
            ),
        ),
        Watcher(
            "The worker itself",
            "worker",
            (
                Limit(
                    "its first command",
                    limits.START_TIMEOUT_S,
                    f"{limits.START_TIMEOUT_S:g} s",
                    "it ends; it does so within half a second when its parent is gone",
                ),
            ),
        ),
        Watcher(
            "Beside the download",
            "kernel",
            (
                Limit(
                    "the files that count against a quota to be added up",
                    of("COUNT_WAIT_S"),
                    f"{of('COUNT_WAIT_S'):g} s",
                    "what is known so far",
                ),
                Limit(
                    "other disks, to be found",
                    of("LOOK_WAIT_S"),
                    f"{of('LOOK_WAIT_S'):g} s",
                    "the hint names those that were found",
                ),
                Limit(
                    "the lock of the notes on the last jobs",
                    of("LOCK_WAIT_S"),
                    f"{of('LOCK_WAIT_S'):g} s",
                    "this job is not noted",
                ),
                Limit(
                    "a job that has failed to be noted",
                    of("ENDS_WITHIN_S"),
                    f"{of('ENDS_WITHIN_S'):g} s",
                    "`retry` begins",
                ),
                Limit(
                    "Colab, to hand over a secret, for which it may ask its user",
                    of("COLAB_WAIT_S"),
                    f"{of('COLAB_WAIT_S'):g} s",
                    "it goes on without that token",
                ),
                Limit(
                    "torch, to list the GPUs in a process of its own",
                    of("ASK_TIMEOUT_S"),
                    f"{of('ASK_TIMEOUT_S'):g} s",
                    "GPUs that only torch sees do not count",
                ),
                Limit(
                    "the trial build, in a process of its own",
                    limits.TRIAL_LIMIT_S,
                    f"{limits.TRIAL_LIMIT_S:g} s",
                    "it is killed, and the check skipped",
                ),
            ),
        ),
        Watcher(
            "What was left behind",
            "disk",
            (
                Limit(
                    "other libraries' partial files to be written to",
                    of("ORPHAN_AGE_S"),
                    "a day",
                    "they are swept",
                ),
                Limit(
                    "a stopped load to go on",
                    of("FRESH_S"),
                    "a day",
                    "`nbloader.cache()` says that its files can go",
                ),
            ),
        ),
    )


def markdown() -> str:
    """Return the drawing, and a table for each watcher."""
    everybody = watchers()
    parts = [_drawing(everybody)]
    for watcher in everybody:
        parts += [
            f"## {watcher.name}",
            f"In the {watcher.process} process." if watcher.process != "disk" else "On the disk.",
            table(
                ("Waits for", "How long", "Then"),
                [
                    (limit.waits_for, f"{limit.written}{_in_all(limit)}", limit.then)
                    for limit in watcher.limits
                ],
            ),
        ]
    rows = [(f"`{name}`", _value(name, value), reason) for name, value, reason in reasons()]
    parts += ["## Why so long", table(("Name", "Value", "Why"), rows)]
    return "\n\n".join(parts)


def _value(name: str, value: float) -> str:
    return f"{value:g} s" if name.endswith("_S") else f"{value:g} times"


def _in_all(limit: Limit) -> str:
    """Say how long it is by default, where a setting takes part."""
    return f" ({_time(limit.seconds)})" if limit.written.count("`") else ""


def _time(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("min", 60)):
        if seconds >= 2 * size or seconds == size == 86_400:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


# -- the drawing -----------------------------------------------------------------------------------

_ROW, _LABELS, _WIDTH, _VALUES = 18, 360, 340, 70
_FIRST_S, _LAST_S = 0.1, 100_000.0
_TICKS = (
    (1, "1 s"),
    (10, "10 s"),
    (60, "1 min"),
    (600, "10 min"),
    (3600, "1 h"),
    (86_400, "1 day"),
)


def _x(seconds: float) -> float:
    share = log10(seconds / _FIRST_S) / log10(_LAST_S / _FIRST_S)
    return round(_LABELS + share * _WIDTH, 1)


def _drawing(everybody: tuple[Watcher, ...]) -> str:
    """Draw each limit as a bar, as long as the logarithm of its time."""
    y, rows = 2 * _ROW, []
    for watcher in everybody:
        y += _ROW // 2
        rows.append(f'<text x="0" y="{y}" class="who">{escape(watcher.name)}</text>')
        for limit in watcher.limits:
            y += _ROW
            plain = escape(limit.waits_for.replace("`", ""))
            end = _x(limit.seconds)
            rows += [
                f'<text x="{_LABELS - 8}" y="{y}" text-anchor="end">{plain}</text>',
                f'<rect x="{_LABELS}" y="{y - 10}" width="{end - _LABELS:.1f}" height="11" rx="2"'
                f' class="{watcher.process}"/>',
                f'<text x="{end + 5}" y="{y}">{_time(limit.seconds)}</text>',
            ]
        y += _ROW
    ticks = [
        f'<line x1="{_x(at)}" x2="{_x(at)}" y1="{_ROW}" y2="{y}"/>'
        f'<text x="{_x(at)}" y="{_ROW - 6}" text-anchor="middle">{name}</text>'
        for at, name in _TICKS
    ]
    width = _LABELS + _WIDTH + _VALUES
    return "\n".join(
        [
            f'<svg class="limits" viewBox="0 0 {width} {y}" role="img" '
            'aria-label="Every limit as a bar over a logarithmic axis of time">',
            *ticks,
            *rows,
            "</svg>",
        ]
    )
