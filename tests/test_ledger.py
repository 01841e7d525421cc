"""What the parent remembers of workers that die or hang."""

from __future__ import annotations

import pytest

from nbloader.errors import WorkerDiedError
from nbloader.records import (
    FileDone,
    FileProgress,
    HubFacts,
    Notice,
    Retry,
    Route,
    Selected,
    SelectionRequest,
    TransferPolicy,
)
from nbloader.transfer.ledger import Ledger, WorkerHungError
from nbloader.transfer.protocol import Start, Stuck, Tried
from tests.samples import MB, SELECTION

WEIGHTS = "transformer/model.safetensors"


class Books:
    """A ledger with a clock that only the test moves."""

    def __init__(self, **policy: object) -> None:
        self.now = 1000.0
        self.start = Start(
            repo_id="org/name",
            revision="main",
            request=SelectionRequest(),
            policy=TransferPolicy(**policy),  # type: ignore[arg-type]
            token="hf_secret",
        )
        self.ledger = Ledger(
            self.start, clock=lambda: self.now, wall_clock=lambda: 5.0, chance=lambda: 0.0
        )

    def selected(self, **partial: int) -> None:
        self.ledger.selected = Selected(
            selection=SELECTION, partial={WEIGHTS: partial.get("left", 0)}
        )

    def run(self, error: WorkerDiedError | WorkerHungError, *completed: int) -> Retry:
        """Let a worker bring bytes for ten seconds, then end."""
        self.ledger.next_start()
        for count in completed:
            self.ledger.heard(FileProgress(path=WEIGHTS, completed=count))
        self.now += 10.0
        return self.ledger.after(error)


def died(message: str = "the download process ended by signal 9") -> WorkerDiedError:
    error = WorkerDiedError(message, hint="h")
    error.by_signal = True
    return error


def test_the_first_question_is_that_of_the_caller() -> None:
    books = Books()
    assert books.ledger.next_start() == books.start


def test_a_worker_that_brought_bytes_is_followed_at_once_and_not_counted() -> None:
    books = Books()
    books.selected()
    for megabytes in (10, 20, 30, 40, 50, 60, 70):
        assert books.run(died(), megabytes * MB) == Retry(
            time=5.0,
            path=None,
            reason="the download process ended by signal 9",
            wait_s=0.0,
            attempt=0,
            max_attempts=5,
        )


def test_workers_that_bring_nothing_are_counted_and_the_last_death_is_the_error() -> None:
    books = Books()
    books.selected()
    waits = [books.run(died()).wait_s for _ in range(4)]
    # The second failure changes the route, and that is not waited for.
    assert waits == [5.0, 0.0, 20.0, 40.0]
    last = died("the fifth")
    with pytest.raises(WorkerDiedError) as caught:
        books.run(last)
    assert caught.value is last


def test_a_worker_that_cannot_even_begin_is_not_followed() -> None:
    ended = WorkerDiedError("with exit status 1", hint="h")
    with pytest.raises(WorkerDiedError) as caught:
        Books().run(ended)
    assert caught.value is ended
    books = Books()
    books.selected()
    assert books.run(ended, 10 * MB).reason == "with exit status 1"


def test_workers_that_hang_for_ever_are_an_error() -> None:
    books = Books(max_retries=2)
    assert books.run(WorkerHungError(None)).reason == "the download process hung"
    with pytest.raises(WorkerDiedError, match="hung 2 times in a row"):
        books.run(WorkerHungError(None))


def test_what_was_left_by_an_earlier_run_was_not_brought_by_the_worker() -> None:
    books = Books()
    books.selected(left=30 * MB)
    assert books.run(died(), 30 * MB).attempt == 1
    assert books.run(died(), 30 * MB, 31 * MB).attempt == 0


def test_bytes_that_were_wrong_and_come_again_are_counted_once() -> None:
    books = Books()
    books.selected()
    assert books.run(died(), 10 * MB, 0, 10 * MB).attempt == 0
    assert books.run(died(), 10 * MB).attempt == 1


def test_the_next_worker_knows_the_commit_and_what_was_tried() -> None:
    books = Books()
    books.selected()
    retry = Retry(
        time=1.0,
        path=WEIGHTS,
        reason="no bytes came",
        wait_s=0.0,
        attempt=3,
        max_attempts=5,
        route=Route.HTTP,
    )
    assert books.ledger.heard(retry)
    books.run(died(), 10 * MB)
    start = books.ledger.next_start()
    assert start.commit_hash == SELECTION.commit_hash
    # It brought bytes since.
    assert start.tried == (Tried(path=WEIGHTS, route=Route.HTTP, fruitless=0),)
    assert (start.token, start.policy) == (books.start.token, books.start.policy)


def test_a_token_that_the_hub_refused_is_not_tried_again() -> None:
    books = Books()
    hub = HubFacts(endpoint="http://127.0.0.1", cache_dir="/cache", token_refused=True)
    books.ledger.selected = Selected(selection=SELECTION, hub=hub)
    assert books.ledger.next_start().token is False


def test_a_stuck_fetch_takes_the_other_route_in_the_next_worker() -> None:
    books = Books()
    books.selected()
    retry = books.run(WorkerHungError(Stuck(path=WEIGHTS, route=Route.XET)), 10 * MB)
    assert (retry.path, retry.route, retry.failed_route, retry.reason) == (
        WEIGHTS,
        Route.HTTP,
        Route.XET,
        "the download process hung",
    )
    assert books.ledger.next_start().tried == (Tried(path=WEIGHTS, route=Route.HTTP),)


@pytest.mark.parametrize("route", Route)
def test_the_only_route_that_is_allowed_is_kept(route: Route) -> None:
    books = Books(route=route)
    books.selected()
    retry = books.run(WorkerHungError(Stuck(path=WEIGHTS, route=route)), 10 * MB)
    assert retry.route is route
    for _ in range(3):
        books.run(died())
        assert books.ledger.next_start().policy.route is route


def test_native_code_that_dies_again_and_again_is_left_out() -> None:
    books = Books()
    books.selected()
    books.run(died())
    assert books.ledger.next_start().policy.route is None
    books.run(died())
    assert books.ledger.next_start().policy.route is Route.HTTP


def test_what_is_complete_is_news_once() -> None:
    ledger = Books().ledger
    events = (
        FileDone(path=WEIGHTS),
        FileDone(path="other"),
        Notice(reference="space-freed", message="m", hint="h"),
    )
    assert [ledger.heard(event) for event in events] == [True] * 3
    assert [ledger.heard(event) for event in events] == [False] * 3
    assert ledger.heard(FileProgress(path=WEIGHTS, completed=1))


def test_the_last_words_of_a_worker_are_told_in_one_line() -> None:
    books = Books()
    error = died("the download process ended by signal 11:\nFatal error\nSegmentation fault")
    assert books.run(error, MB).reason == (
        "the download process ended by signal 11: Segmentation fault"
    )
