"""What the libraries report of a load in their logs: tensors that no file had.

Neither library raises for them: transformers fills them with random numbers, and diffusers leaves
them without storage. Both write a warning. `quiet` hides it from the reader and hands it here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nbloader.errors import MissingTensorsError
from nbloader.quoting import quote

__all__ = ["LoadReport", "Reports", "lacking", "missing_tensors", "parse_report", "told_of"]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")

# transformers from 5.0 (`utils/loading_report.py`): a title, a table, notes.
_TITLE = re.compile(r"^(?P<model>\w+) LOAD REPORT from: (?P<source>.*)$", re.MULTILINE)
_ROW = re.compile(r"^(?P<key>\S+(?: \S+)*?) +\| +(?P<status>[A-Z]+)\b", re.MULTILINE)

# diffusers from 0.37 (`models/modeling_utils.py`).
_MISSING = re.compile(
    r"^Some weights of (?P<model>\w+) were not initialized from the model checkpoint at "
    r"(?P<source>.*?) and are newly initialized(?: because the shapes did not match)?:"
    r"(?P<keys>.*)",
    re.DOTALL,
)
_KEYS = re.compile(r"'([^']+)'|^- (\S+): found shape", re.MULTILINE)

# Errors: of torch, where a library wants every tensor (modules of sentence-transformers), and of
# diffusers (`models/model_loading_utils.py`).
_STRICT = re.compile(
    r"^Error\(s\) in loading state_dict for (?P<model>\w+):(?P<rest>.*)", re.DOTALL
)
_STRICT_KEYS = re.compile(r"(?P<what>Missing|Unexpected) key\(s\) in state_dict: (?P<keys>.*)")
_STRICT_SHAPE = re.compile(r"size mismatch for (\S+): copying")
_SHAPE = re.compile(r"^Cannot load (?P<source>.*?) *because (?P<key>\S+) expected shape")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What a library said of one model that it has loaded.

    Attributes:
        model: the class; empty if the library does not say.
        source: the folder that it was loaded from, as the library names it; empty if it does not.
        missing: names of the tensors that it needs and no file had; the libraries write the numbers
            of layers together, as in `layers.{0, 1}.weight`.
        mismatched: those that the files have in another shape.
        unexpected: those that the files have and the model does not know.
    """

    model: str
    source: str
    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()


def parse_report(text: str) -> LoadReport | None:
    """Read a message of a library's log, or of an error; None if it reports no load."""
    text = _ANSI.sub("", text)
    if title := _TITLE.search(text):
        rows = [(row["status"], row["key"]) for row in _ROW.finditer(text, title.end())]
        return LoadReport(
            model=title["model"],
            source=title["source"].strip(),
            missing=tuple(sorted(key for status, key in rows if status == "MISSING")),
            mismatched=tuple(sorted(key for status, key in rows if status == "MISMATCH")),
            unexpected=tuple(sorted(key for status, key in rows if status == "UNEXPECTED")),
        )
    if told := _MISSING.match(text):
        keys = tuple(sorted(first or second for first, second in _KEYS.findall(told["keys"])))
        shapes = "shapes did not match" in text
        return LoadReport(
            model=told["model"],
            source=told["source"].strip(),
            missing=() if shapes else keys,
            mismatched=keys if shapes else (),
        )
    if strict := _STRICT.match(text):
        named = {
            line["what"]: tuple(sorted(re.findall('"([^"]+)"', line["keys"])))
            for line in _STRICT_KEYS.finditer(strict["rest"])
        }
        return LoadReport(
            model=strict["model"],
            source="",
            missing=named.get("Missing", ()),
            mismatched=tuple(sorted(_STRICT_SHAPE.findall(strict["rest"]))),
            unexpected=named.get("Unexpected", ()),
        )
    if shape := _SHAPE.match(text):
        return LoadReport(model="", source=shape["source"], mismatched=(shape["key"],))
    return None


class Reports(logging.Handler):
    """Collects the reports of all loads that are done while it is at the libraries' logs.

    Attributes:
        found: in the order in which the loads ended.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[LoadReport] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a message of a log."""
        try:
            report = parse_report(record.getMessage())
        except Exception:  # A message that cannot be formatted is none that is looked for.
            return
        if report is not None:
            self.found.append(report)


# -- what to say of it -----------------------------------------------------------------------------

_MOST_NAMES = 3

_UNUSED = re.compile(r"(?:^|\.)pooler\.")
"""The layer over the first token that BERT's kin have. Embeddings and features are taken from the
last hidden states, and many encoders are published without it."""

_HEADED = re.compile(r"For[A-Z]")
"""Models with a head, such as a classifier, which computes with what that layer gives."""

_REPLACING = ".modules_to_save."
"""In the name of a tensor of an adapter that stands for one of the model."""

_HINT = (
    "The files do not fit this class: look for another revision (revision=...) or repository, or "
    "tell its author."
)
_FORCE = " With `force=True` the load goes on; what is missing is then random."


def lacking(
    reports: Iterable[LoadReport],
    classes: Collection[str],
    *,
    pooled: bool = True,
    replaced: Collection[str] = (),
) -> list[LoadReport]:
    """Give the last report of each model that is of use and lacks tensors.

    Args:
        classes: of the models that came out; libraries may have tried others before.
        pooled: whether the layer over the first token is used, also where no head does.
        replaced: names of modules that come from an adapter, whatever the model's own file has.
    """
    last = {(report.model, report.source): report for report in reports if report.model in classes}
    replaced_names = frozenset(replaced)

    def brought(key: str) -> bool:
        return _REPLACING not in key and not replaced_names.isdisjoint(key.split("."))

    left = [
        replace(
            report,
            missing=tuple(
                key
                for key in report.missing
                if not brought(key)
                and (pooled or _HEADED.search(report.model) or not _UNUSED.search(key))
            ),
        )
        for report in last.values()
    ]
    return [report for report in left if report.missing or report.mismatched]


def missing_tensors(
    repo_id: str, reports: Sequence[LoadReport], folder: Path, *, forceable: bool
) -> MissingTensorsError:
    """Give the error for models that lack tensors.

    Args:
        forceable: whether the library would go on. It never does with tensors of another shape.
    """
    misshapen = any(report.mismatched for report in reports)
    hint = _HINT + (_FORCE if forceable and not misshapen else "")
    return MissingTensorsError(told_of(repo_id, reports, folder), hint=hint)


def told_of(repo_id: str, reports: Sequence[LoadReport], folder: Path) -> str:
    """Name what models lack: the first tensors of each, and how many more."""
    return "; ".join(_line(repo_id, report, folder) for report in reports)


def _line(repo_id: str, report: LoadReport, folder: Path) -> str:
    source = Path(report.source)
    inner = source.relative_to(folder).as_posix() if source.is_relative_to(folder) else "."
    place = repo_id if inner == "." else f"{quote(inner)} of {repo_id}"
    parts = [
        f"{what} {_names(keys)}"
        for what, keys in (
            ("no file has the tensors", report.missing),
            ("of another shape are", report.mismatched),
        )
        if keys
    ]
    line = f"{place}{f' ({report.model})' if report.model else ''}: {', '.join(parts)}"
    if report.missing and report.unexpected:
        line += f"; the files have {_names(report.unexpected)} in their place"
    return line


def _names(keys: Sequence[str]) -> str:
    more = len(keys) - _MOST_NAMES
    named = ", ".join(quote(key) for key in keys[:_MOST_NAMES])
    return f"{named} and {more} more" if more > 0 else named
