"""A notebook without a front end: outputs and messages that are written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comm
import pytest

from nbloader.views.display import Bundle


@dataclass
class RecordedDisplay:
    """Keeps what is shown; `current` is what stands in the notebook."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    current: dict[str, Bundle] = field(default_factory=dict)

    def show(self, bundle: Bundle, display_id: str) -> None:
        assert display_id not in self.current
        self.calls.append(("show", display_id))
        self.current[display_id] = bundle

    def update(self, bundle: Bundle, display_id: str) -> None:
        assert display_id in self.current
        self.calls.append(("update", display_id))
        self.current[display_id] = bundle

    @property
    def outputs(self) -> list[Bundle]:
        return list(self.current.values())


@dataclass
class Comms:
    """Keeps the messages of ipywidgets with their times.

    Attributes:
        clock: the time of a message.
        before_message: called with the number of a message before it is sent.
    """

    clock: Callable[[], float] = lambda: 0.0
    before_message: Callable[[int], object] = lambda number: None
    sent: list[tuple[float, str, Mapping[str, Any]]] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[float]:
        return [time for time, sent, _ in self.sent if sent == kind]

    def create(self, *args: Any, **keywords: Any) -> Any:
        """Stand in for `comm.create_comm`."""
        from comm.base_comm import BaseComm

        comms = self

        class Comm(BaseComm):
            def publish_msg(self, msg_type: str, data: Any = None, **_: Any) -> None:  # type: ignore[override]
                comms.before_message(len(comms.sent))
                comms.sent.append((comms.clock(), msg_type, data or {}))

        return Comm(*args, **keywords)


class Clock:
    """A time that only the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def recorded_comms() -> Iterator[Comms]:
    """Let real widgets work, and write their messages down; none may be left open."""
    recorded = Comms()
    before = open_widgets()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comm, "create_comm", recorded.create)
        yield recorded
    assert open_widgets() == before, "the test has left widgets open"


def open_widgets() -> set[str]:
    """Return the ids of all widgets of this process that are not closed."""
    from ipywidgets.widgets import widget

    return set(widget._instances)


@contextmanager
def running_kernel(folder: Path) -> Iterator[tuple[Any, Any]]:
    """Run a real kernel for a while, and give a client and the manager of it."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder), extra_arguments=["--HistoryManager.enabled=False"])
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        yield client, manager
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
