"""The libraries' own bars, notices and warnings, off for as long as a load takes."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from nbloader.loaders.reports import Reports

__all__ = ["quiet", "quiet_loggers"]

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
