"""The components of a job and their files as HTML: how far each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nbloader.state import ComponentState, FileState, JobState, Status, Step
from nbloader.units import format_bytes, format_duration
from nbloader.views.markup import bar, cell, escape, grid, spread
from nbloader.views.words import step_words

__all__ = ["components", "files", "largest", "there_of"]

MAX_FILES = 30

_NAME_LIMIT = 60
_PATH_LIMIT = 120


def components(parts: Sequence[ComponentState], state: JobState, *, limit: int) -> str:
    """Write a row a component: the largest ones in the plan's order, and one for the others."""
    seconds = {event.name: event.seconds for event in state.loaded}
    rows = (_component(part, state.status, seconds) for part in largest(parts, limit))
    return grid(rows, "components")


def files(part: ComponentState, status: Status) -> str:
    """Write a row a file of a component; its own folder is not named again and again."""
    folder = f"{part.name}/"
    rows = [_file(file, folder, status) for file in part.files[:MAX_FILES]]
    if others := part.files[MAX_FILES:]:
        total = sum(file.total for file in others)
        there = sum(file.completed for file in others)
        rows.append(_row(f"{len(others)} others", "", there_of(there, total)))
    return grid(rows, f"files of {escape(part.name, _NAME_LIMIT)}")


def largest(parts: Sequence[ComponentState], limit: int) -> list[ComponentState]:
    """Give the `limit` largest components in the plan's order, and one for all others."""
    if len(parts) <= limit:
        return list(parts)
    by_size = sorted(range(len(parts)), key=lambda number: -parts[number].total)
    others = [parts[number] for number in by_size[limit:]]
    summed = ComponentState(
        name=f"{len(others)} others",
        step=min((part.step for part in others), key=list(Step).index),
        files=tuple(file for part in others for file in part.files),
    )
    return [*(parts[number] for number in sorted(by_size[:limit])), summed]


def there_of(there: int, total: int) -> str:
    """Write how many bytes are there; all of them are told of once."""
    if there >= total:
        return format_bytes(total)
    return f"{format_bytes(there)} of {format_bytes(total)}"


def _component(part: ComponentState, status: Status, seconds: Mapping[str, float]) -> str:
    name = escape(part.name, _NAME_LIMIT)
    step = step_words(part.step, status)
    if part.name in seconds:
        step += f" · {format_duration(seconds[part.name])}"
    completed, total = part.completed, part.total
    share = min(1.0, completed / total) if total else 1.0
    there = there_of(completed, total)
    moves = "" if status is Status.READY else bar(share, name, f"{step}, {there}")
    label = (
        f'<span title="{name}" style="flex:0 0 10em;overflow:hidden;text-overflow:ellipsis;'
        f'white-space:nowrap">{name}</span>{moves}'
    )
    return _row(label, step, there, "display:flex;align-items:center;column-gap:1em")


def _file(file: FileState, folder: str, status: Status) -> str:
    path = escape(file.path.removeprefix(folder), _PATH_LIMIT)
    return _row(path, step_words(file.step, status), there_of(file.completed, file.total))


def _row(name: str, step: str, there: str, style: str = "") -> str:
    """Write a row of a grid: on one line, or on two where the page is narrow."""
    # Only what stands alone on a line takes all of it.
    return cell(name, "1000 1 15em", style) + cell(spread(step, there), "1 1 20em", "display:flex")
