"""Give the notebooks a local Hub under `pytest --nbval`.

Cells know no fixtures: kernels take the environment of this process, so it is set when the session
starts, before any notebook is opened.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from tests.notebook_runs import ROOT, for_one, serving

_STACK = pytest.StashKey[ExitStack]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the Hub, and point kernels to it."""
    option = session.config.option
    if not (option.nbval or option.nbval_lax):
        return
    stack = session.config.stash[_STACK] = ExitStack()
    environment = stack.enter_context(serving(ROOT / "demo/tutorials"))
    stack.callback(os.environ.update, dict(os.environ))
    stack.callback(os.environ.clear)
    os.environ.clear()
    os.environ.update(environment)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each notebook an empty cache, before the first of its cells starts the kernel."""
    if _STACK in item.config.stash:
        os.environ.update(for_one(os.environ, item.path))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the Hub."""
    session.config.stash.get(_STACK, ExitStack()).close()
