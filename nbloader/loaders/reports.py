"""What the libraries say during a load: kept from the reader, and read for what it reports.

Neither transformers nor diffusers raises for tensors that no file had: the one fills them with
random numbers, and the other leaves them without storage. Both write a warning. `quiet` hides it
from the reader and hands it to `Reports`.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nbloader.errors import BY_FORCE, MissingTensorsError
from nbloader.text import quote

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

# diffusers (`pipelines/pipeline_utils.py`), of a mapping of names to values.
_IGNORED = re.compile(
    r"^Keyword arguments .* are not expected by .* and will be ignored", re.DOTALL
)

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
        ignored: what they said of arguments that nothing took.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[LoadReport] = []
        self.ignored: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a message of a log."""
        try:
            message = record.getMessage()
            report = parse_report(message)
        except Exception:  # A message that cannot be formatted is none that is looked for.
            return
        if _IGNORED.search(message):
            self.ignored.append(message)
        if report is not None:
            self.found.append(report)


# -- what to say of it -----------------------------------------------------------------------------

_MOST_NAMES = 3

_UNUSED = re.compile(r"(?:^|\.)pooler\.")
"""The layer over the first token that BERT's kin have. Embeddings and features are taken from the
last hidden states, and many encoders are published without it."""

_UNREAD = re.compile(
    r"(?:^|\.)(?:masked_spec_embed|num_batches_tracked)$"
    r"|(?:^|\.)fusion_stage\.layers\.0\.residual_layer1\."
)
"""What no call reads, and many models are published without: what stands for the sounds that are
hidden in training (wav2vec2 and its kin), the counter of a batch normalization, and the way into
the first layer of a fusion of features, to which nothing comes (DPT and its kin)."""

_HEADED = re.compile(r"For[A-Z]")
"""Models with a head, such as a classifier, which computes with what that layer gives."""

_REPLACING = ".modules_to_save."
"""In the name of a tensor of an adapter that stands for one of the model."""

_HINT = (
    "The files do not fit this class: look for another revision (revision=...) or repository, or "
    "tell its author."
)


def lacking(
    reports: Iterable[LoadReport],
    classes: Collection[str],
    *,
    pooled: bool = True,
    replaced: Collection[str] = (),
) -> list[LoadReport]:
    """Return the last report of each model that is of use and lacks tensors.

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
                and not _UNREAD.search(key)
                and (pooled or _HEADED.search(report.model) or not _UNUSED.search(key))
            ),
        )
        for report in last.values()
    ]
    return [report for report in left if report.missing or report.mismatched]


def missing_tensors(
    repo_id: str, reports: Sequence[LoadReport], folder: Path, *, forceable: bool
) -> MissingTensorsError:
    """Return the error for models that lack tensors.

    Args:
        forceable: whether the library would go on. It never does with tensors of another shape.
    """
    misshapen = any(report.mismatched for report in reports)
    hint = f"{_HINT} {BY_FORCE}" if forceable and not misshapen else _HINT
    return MissingTensorsError(told_of(repo_id, reports, folder), hint=hint)


def told_of(repo_id: str, reports: Sequence[LoadReport], folder: Path) -> str:
    """Name what models lack: the first tensors of each, and how many more."""
    return "; ".join(_line(repo_id, report, folder) for report in reports)


def _line(repo_id: str, report: LoadReport, folder: Path) -> str:
    source = Path(report.source)
    if not source.is_relative_to(folder) and (other := _snapshot(source)) is not None:
        folder, repo_id = other
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


def _snapshot(source: Path) -> tuple[Path, str] | None:
    """The snapshot of another repository that a source is in, and its id."""
    for folder in (source, *source.parents):
        kept = folder.parent.parent.name
        if folder.parent.name == "snapshots" and kept.startswith("models--"):
            return folder, kept.removeprefix("models--").replace("--", "/")
    return None


def _names(keys: Sequence[str]) -> str:
    more = len(keys) - _MOST_NAMES
    named = ", ".join(quote(key) for key in keys[:_MOST_NAMES])
    return f"{named} and {more} more" if more > 0 else named


# -- what is kept from the reader meanwhile --------------------------------------------------------

_LOGGERS = ("accelerate", "bitsandbytes", "sentence_transformers")


@contextmanager
def quiet() -> Iterator[Reports]:
    """Silence the libraries that are imported, through their own switches, and restore them.

    Only one load runs at a time in a process, so the switches are not fought over.

    Yields:
        What they report of their loads meanwhile.
    """
    reports = Reports()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name in ("diffusers.utils.logging", "transformers.utils.logging"):
            stack.enter_context(_silent_logging(name, reports))
        stack.enter_context(quiet_loggers())
        stack.enter_context(_silent_hub())
        yield reports


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Silence the libraries that only log. Also for their imports: bitsandbytes warns in its own.

    Warnings are left alone, because what catches them does not count threads.
    """
    with ExitStack() as stack:
        for name in _LOGGERS:
            stack.enter_context(_only_errors(logging.getLogger(name)))
        yield


@contextmanager
def _silent_logging(name: str, reports: Reports) -> Iterator[None]:
    """Send the warnings of a library to `reports` alone."""
    library = sys.modules.get(name)
    if library is None:
        yield
        return
    logger = library.get_logger(name.partition(".")[0])
    level, propagates, handlers = logger.level, logger.propagate, list(logger.handlers)
    bars = library.is_progress_bar_enabled()
    # The level stays at that of the reports, which are warnings. What else is at the log, such as a
    # notebook's own handler, is kept from it meanwhile.
    for handler in handlers:
        logger.removeHandler(handler)
    logger.addHandler(reports)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    library.disable_progress_bar()
    try:
        yield
    finally:
        logger.removeHandler(reports)
        for handler in handlers:
            logger.addHandler(handler)
        logger.propagate = propagates
        logger.setLevel(level)
        if bars:
            library.enable_progress_bar()


@contextmanager
def _only_errors(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _silent_hub() -> Iterator[None]:
    hub = sys.modules.get("huggingface_hub.utils")
    if hub is None or hub.are_progress_bars_disabled():
        yield
        return
    hub.disable_progress_bars()
    try:
        yield
    finally:
        hub.enable_progress_bars()


def is_full(error: BaseException) -> bool:
    """Say whether there was no room, on a GPU or in memory."""
    return type(error).__name__ == "OutOfMemoryError" or is_full_memory(error)


def is_full_memory(error: BaseException) -> bool:
    """Say whether the memory of the machine had no room."""
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
