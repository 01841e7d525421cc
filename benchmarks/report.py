"""The measurements as plain tables. Pure: records in, text out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from benchmarks.repos import MB
from benchmarks.runs import Outcome, Record
from benchmarks.scenarios import ONE_STREAM, Scenario

__all__ = ["table"]

_REFERENCES = ("snapshot http", "snapshot xet", "aria2 -x8", ONE_STREAM)


def table(scenarios: Sequence[Scenario], records: Sequence[Record]) -> str:
    """Write one table for each scenario, with a row for each of its peers."""
    parts = []
    for scenario in scenarios:
        own = [record for record in records if record.scenario == scenario.key]
        by_peer = {
            peer.name: [record for record in own if record.peer == peer.name]
            for peer in scenario.peers
        }
        rows = _speeds(by_peer) if scenario.timed else _bytes(by_peer)
        parts.append(f"{scenario.title}\n\n{_aligned(rows)}")
    return "\n\n".join(parts)


def _speeds(by_peer: Mapping[str, Sequence[Record]]) -> list[list[str]]:
    """Rows of speeds: the median, its range, and how it compares with each reference.

    A comparison is the median over the rounds, each of which has every peer once: so the machine's
    other work, which comes and goes, is in both figures.
    """
    speeds = {name: _speeds_by_round(records) for name, records in by_peer.items()}
    references = [name for name in _REFERENCES if speeds.get(name)]
    heads = ["MB/s", "lowest", "highest", *(f"/ {name}" for name in references)]
    rows = [
        ["peer", *heads, "whole call s", "CPU s/GB", "served/needed", "requests", "peak MB", ""]
    ]
    for name, records in by_peer.items():
        own = speeds[name]
        ratios = (
            _median(own[turn] / speeds[other][turn] for turn in own if turn in speeds[other])
            for other in references
        )
        done = _done(records)
        rows.append(
            [
                name,
                _number(_median(own.values())),
                _number(min(own.values(), default=None)),
                _number(max(own.values(), default=None)),
                *(_number(ratio, 2) for ratio in ratios),
                _number(_median(record.call_seconds for record in done), 2),
                _number(_median(map(_cpu_per_gb, done)), 2),
                _number(_median(map(_served, done)), 3),
                _number(_median(record.hub_requests for record in done)),
                _number(_peak_mb(records)),
                _remark(records),
            ]
        )
    return rows


def _bytes(by_peer: Mapping[str, Sequence[Record]]) -> list[list[str]]:
    """Rows of bytes served over bytes needed; the worst of all repeats."""
    rows = [["peer", "served/needed", "seconds", "peak MB", ""]]
    for name, records in by_peer.items():
        rows.append(
            [
                name,
                _number(_worst(map(_served, records)), 3),
                _number(_worst(record.seconds for record in _done(records)), 1),
                _number(_peak_mb(records)),
                _remark(records),
            ]
        )
    return rows


def _done(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.outcome is Outcome.DONE]


def _speeds_by_round(records: Iterable[Record]) -> dict[int, float]:
    """Bytes needed over seconds, in MB/s, of the runs that were done."""
    return {
        record.repeat: record.bytes_needed / record.seconds / MB
        for record in _done(records)
        if record.seconds
    }


def _served(record: Record) -> float | None:
    return record.bytes_served / record.bytes_needed if record.bytes_needed else None


def _cpu_per_gb(record: Record) -> float | None:
    if record.cpu_seconds is None or not record.bytes_needed:
        return None
    return record.cpu_seconds / record.bytes_needed * 1000 * MB


def _median(values: Iterable[float | None]) -> float | None:
    return _of(median, values)


def _worst(values: Iterable[float | None]) -> float | None:
    return _of(max, values)


def _of(choose: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return choose(known) if known else None


def _peak_mb(records: Iterable[Record]) -> float | None:
    peak = _worst(record.peak_memory_bytes for record in records)
    return None if peak is None else peak / MB


def _remark(records: Sequence[Record]) -> str:
    """Say what did not go well; nothing where every run was done."""
    done = len(_done(records))
    remarks = [f"{done} of {len(records)} done"] if 0 < done < len(records) else []
    for record in records:
        if record.outcome is not Outcome.DONE:
            remarks.append(f"{record.outcome}: {record.reason}")
        elif record.reason:
            remarks.append(record.reason)
    return "; ".join(dict.fromkeys(remarks))[:160]


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _aligned(rows: list[list[str]]) -> str:
    """Align columns: the first and the last to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *numbers, last = row
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells, last]).rstrip())
    return "\n".join(lines)
