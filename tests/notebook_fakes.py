"""A notebook without a front end: outputs and messages that are written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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

    def stand_in(self, patch: pytest.MonkeyPatch) -> None:
        """Have the widgets of the installed ipywidgets speak to this."""
        from ipywidgets.widgets import widget

        if hasattr(widget, "Comm"):  # ipywidgets 7
            patch.setattr(widget, "Comm", self._of_ipykernel())
        else:
            patch.setattr(widget.comm, "create_comm", self._of_comm())

    def _publish(self) -> Callable[..., None]:
        """Return the method of a comm that sends a message."""

        def publish(_comm: object, msg_type: str, data: Any = None, **_: object) -> None:
            self.before_message(len(self.sent))
            self.sent.append((self.clock(), msg_type, data or {}))

        return publish

    def _of_comm(self) -> type:
        from comm.base_comm import BaseComm

        return type("Comm", (BaseComm,), {"publish_msg": self._publish()})

    def _of_ipykernel(self) -> type:
        import traitlets
        from ipykernel.comm import Comm

        manager = SimpleNamespace(
            register_comm=lambda comm: None, unregister_comm=lambda comm: None
        )
        own = {
            # Without a kernel it sends nothing.
            "kernel": traitlets.Any(SimpleNamespace(comm_manager=manager)),
            "publish_msg": self._publish(),
            "_publish_msg": self._publish(),  # until ipykernel 6.17
        }
        return type("Comm", (Comm,), own)


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
        recorded.stand_in(patch)
        yield recorded
    assert open_widgets() == before, "the test has left widgets open"


def open_widgets() -> set[str]:
    """Return the ids of all widgets of this process that are not closed."""
    from ipywidgets.widgets import widget

    if hasattr(widget, "_instances"):
        return set(widget._instances)
    return set(widget.Widget.widgets)  # ipywidgets 7


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
