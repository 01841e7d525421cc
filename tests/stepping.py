"""A transfer that is stepped by hand, for the tests of its state machine."""

from __future__ import annotations

from typing import Any

from nbloader.errors import WorkerDiedError
from nbloader.records import (
    Event,
    FileProgress,
    HubFacts,
    Retry,
    Selected,
    SelectionRequest,
    TransferPolicy,
)
from nbloader.transfer.protocol import (
    PROTOCOL_VERSION,
    Fetch,
    Hello,
    Start,
    Stuck,
)
from nbloader.transfer.state_machine import (
    Died,
    Fail,
    Input,
    KillWorker,
    Moment,
    Output,
    Publish,
    StartWorker,
    Tick,
    TransferMachine,
)
from tests.samples import SELECTION

WEIGHTS = "transformer/model.safetensors"
HELLO = Hello(version=PROTOCOL_VERSION)
SILENT = Tick(waited_s=1000.0)


class Books:
    """A machine with a clock that only the test moves.

    Attributes:
        told: every output, in order.
    """

    def __init__(self, *, commit_hash: str | None = None, **policy: Any) -> None:
        self.now = 1000.0
        self.start = Start(
            repo_id="org/name",
            revision="main",
            request=SelectionRequest(),
            policy=TransferPolicy(**policy),
            token="hf_secret",
            commit_hash=commit_hash,
        )
        self.told: list[Output] = []
        self.running = False
        self.machine = TransferMachine(self.start, Fetch(), now=self.now)

    def step(self, heard: Input) -> tuple[Output, ...]:
        outputs = self.machine.step(heard, Moment(now=self.now, wall=5.0, chance=0.0))
        for output in outputs:
            if isinstance(output, StartWorker | KillWorker):
                self.running = isinstance(output, StartWorker)
        self.told += outputs
        return outputs

    def next_start(self) -> Start:
        """Wait until a worker runs, and give what it was sent."""
        while not self.running:
            assert not self.failed
            self.step(Tick(waited_s=0.0))
            self.now += 1.0
        return [one.start for one in self.told if isinstance(one, StartWorker)][-1]

    @property
    def failed(self) -> list[Fail]:
        return [one for one in self.told if isinstance(one, Fail)]

    def heard(self, event: Event) -> bool:
        """Let the worker say it, and tell whether it was news."""
        self.next_start()
        return Publish(event=event) in self.step(event)  # type: ignore[arg-type]

    def selected(self, hub: HubFacts | None = None, **partial: int) -> None:
        self.next_start()
        left = {WEIGHTS: partial.get("left", 0)}
        self.step(Selected(selection=SELECTION, partial=left, hub=hub))

    def run(self, end: WorkerDiedError | Stuck | Tick, *completed: int) -> Retry:
        """Let a worker bring bytes for ten seconds, then end."""
        self.next_start()
        self.step(HELLO)
        for count in completed:
            self.step(FileProgress(path=WEIGHTS, completed=count))
        self.now += 10.0
        for output in self.step(Died(error=end) if isinstance(end, WorkerDiedError) else end):
            if isinstance(output, Fail):
                raise output.error
            if isinstance(output, Publish):
                assert isinstance(output.event, Retry)
                return output.event
        raise AssertionError("neither another attempt nor an error")


def died(message: str = "the download process ended by signal 9") -> WorkerDiedError:
    error = WorkerDiedError(message, hint="h")
    error.by_signal = True
    return error
