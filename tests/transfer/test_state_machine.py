"""One transfer, stepped by hand: what follows when workers speak, fall silent or die."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nbloader.errors import DownloadError, ProtocolError, WorkerDiedError
from nbloader.limits import QUIET_SPARE_S, SILENCE_SPARE_S
from nbloader.records import (
    FileDone,
    FileProgress,
    HubFacts,
    Notice,
    Retry,
    Route,
    Selected,
    Silence,
    Stage,
    StageStarted,
)
from nbloader.transfer.protocol import (
    PROTOCOL_VERSION,
    Alive,
    Fetch,
    Finished,
    Hello,
    Stopped,
    Stuck,
    Tried,
)
from nbloader.transfer.state_machine import (
    Approve,
    Fail,
    Finish,
    KillWorker,
    Publish,
    Send,
    StartWorker,
    Tick,
)
from tests.samples import MB, SELECTION
from tests.stepping import HELLO, SILENT, WEIGHTS, Books, died


def test_the_first_question_is_that_of_the_caller() -> None:
    books = Books()
    assert books.next_start() == books.start


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
    assert books.run(SILENT).reason == "the download process hung"
    with pytest.raises(WorkerDiedError, match="hung 2 times in a row"):
        books.run(SILENT)


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
    assert books.heard(retry)
    books.run(died(), 10 * MB)
    start = books.next_start()
    assert start.commit_hash == SELECTION.commit_hash
    # It brought bytes since.
    assert start.tried == (Tried(path=WEIGHTS, route=Route.HTTP, fruitless=0),)
    assert (start.token, start.policy) == (books.start.token, books.start.policy)


def test_a_token_that_the_hub_refused_is_not_tried_again() -> None:
    books = Books()
    hub = HubFacts(endpoint="http://127.0.0.1", cache_dir="/cache", token_refused=True)
    books.selected(hub)
    books.run(died())
    assert books.next_start().token is False


def test_a_stuck_fetch_takes_the_other_route_in_the_next_worker() -> None:
    books = Books()
    books.selected()
    retry = books.run(Stuck(path=WEIGHTS, route=Route.XET), 10 * MB)
    assert (retry.path, retry.route, retry.failed_route, retry.reason) == (
        WEIGHTS,
        Route.HTTP,
        Route.XET,
        "the download process hung",
    )
    assert books.next_start().tried == (Tried(path=WEIGHTS, route=Route.HTTP),)


@pytest.mark.parametrize("route", Route)
def test_the_only_route_that_is_allowed_is_kept(route: Route) -> None:
    books = Books(route=route)
    books.selected()
    retry = books.run(Stuck(path=WEIGHTS, route=route), 10 * MB)
    assert retry.route is route
    for _ in range(3):
        books.run(died())
        assert books.next_start().policy.route is route


def test_native_code_that_dies_again_and_again_is_left_out() -> None:
    books = Books()
    books.selected()
    books.run(died())
    assert books.next_start().policy.route is None
    books.run(died())
    assert books.next_start().policy.route is Route.HTTP


def test_what_is_complete_is_news_once() -> None:
    books = Books()
    events = (
        FileDone(path=WEIGHTS),
        FileDone(path="other"),
        Notice(reference="space-freed", message="m", hint="h"),
    )
    assert [books.heard(event) for event in events] == [True] * 3
    assert [books.heard(event) for event in events] == [False] * 3
    assert [books.heard(FileProgress(path="third", completed=1)) for _ in range(2)] == [True] * 2


def test_progress_that_was_counted_before_its_file_was_done_is_not_news() -> None:
    books = Books()
    books.selected()
    books.next_start()
    late = FileProgress(path=WEIGHTS, completed=10 * MB)
    assert books.step(late) == (Publish(event=late),)
    books.step(FileDone(path=WEIGHTS))
    assert books.step(late) == ()
    other = replace(late, path="vae/model.safetensors")
    assert books.step(other) == (Publish(event=other),)


def test_the_last_words_of_a_worker_are_told_in_one_line() -> None:
    books = Books()
    error = died("the download process ended by signal 11:\nFatal error\nSegmentation fault")
    assert books.run(error, MB).reason == (
        "the download process ended by signal 11: Segmentation fault"
    )


# -- one worker after another ----------------------------------------------------------------------


def test_the_selection_is_published_approved_and_then_fetched() -> None:
    books = Books()
    books.next_start()
    selected = Selected(selection=SELECTION)
    assert books.step(selected) == (
        Publish(event=selected),
        Approve(selected=selected),
        Send(command=Fetch()),
    )


def test_of_a_second_selection_only_what_is_on_the_disk_is_news() -> None:
    books = Books()
    books.selected()
    books.step(FileDone(path="model_index.json"))
    books.run(died(), 10 * MB)
    assert books.heard(StageStarted(stage=Stage.SET_UP)) is False
    again = Selected(
        selection=SELECTION,
        cached=("model_index.json", "transformer/config.json"),
        partial={WEIGHTS: 10 * MB},
    )
    assert books.step(again) == (
        Publish(event=FileDone(path="transformer/config.json")),
        Publish(event=FileProgress(path=WEIGHTS, completed=10 * MB)),
        Send(command=Fetch()),
    )


def test_the_next_worker_starts_when_the_wait_is_over_and_not_before() -> None:
    books = Books()
    books.selected()
    assert books.run(died()).wait_s == 5.0
    books.now += 4.9
    assert books.step(Tick(waited_s=4.9)) == ()
    # What the dead one had still to say comes too late.
    assert books.step(FileDone(path=WEIGHTS)) == ()
    books.now += 0.1
    assert [type(one) for one in books.step(Tick(waited_s=0.1))] == [StartWorker]


def test_the_folder_is_the_end_and_nothing_follows() -> None:
    books = Books()
    books.selected()
    assert books.step(Finished(folder="/cache/snapshot")) == (
        Finish(folder=Path("/cache/snapshot")),
    )
    assert books.step(FileDone(path=WEIGHTS)) == books.step(SILENT) == ()


def test_an_error_of_the_worker_is_that_of_the_transfer() -> None:
    books = Books()
    books.next_start()
    books.step(Stopped(reference="disk-full", message="m", hint="h"))
    (failed,) = books.failed
    assert (failed.error.reference, failed.error.message) == ("disk-full", "m")


def test_a_worker_of_another_version_is_not_listened_to() -> None:
    books = Books()
    books.next_start()
    books.step(Hello(version=PROTOCOL_VERSION + 1))
    (failed,) = books.failed
    assert isinstance(failed.error, ProtocolError)


# -- who is waited for, and how long ---------------------------------------------------------------


def test_a_worker_that_says_nothing_any_more_is_killed_by_the_time_waited_for_it() -> None:
    books = Books()
    books.next_start()
    limit = books.start.policy.stall_timeout_s + SILENCE_SPARE_S
    # Before its first word it imports, which may take long; its death is noticed anyway.
    assert books.step(Tick(waited_s=limit + 1)) == ()
    books.step(HELLO)
    books.now += limit + 1  # Time in which this process did not wait, for it was paused.
    assert books.step(Tick(waited_s=limit)) == ()
    books.step(Alive())
    assert books.step(Tick(waited_s=limit)) == ()
    assert isinstance(books.step(Tick(waited_s=1.0))[0], KillWorker)


def test_no_sign_of_work_for_too_long_ends_the_transfer() -> None:
    books = Books(timeout_s=100.0)
    books.next_start()
    worked_at = books.now = 2000.0
    books.step(HELLO)
    books.now = worked_at + 100.0 + QUIET_SPARE_S
    assert books.step(Alive()) == books.step(Tick(waited_s=0.05)) == ()
    assert books.step(Alive(busy=True)) == ()
    books.now += 101.0 + QUIET_SPARE_S
    silence = Silence(path=WEIGHTS, asked_again_in_s=9.0)
    assert books.step(silence) == (Publish(event=silence),)  # It is none either.
    books.step(Tick(waited_s=0.05))
    (failed,) = books.failed
    assert isinstance(failed.error, DownloadError)
    assert "nothing has arrived for 161 s" in failed.error.message


def test_a_wait_that_was_told_and_the_largest_file_may_take_longer() -> None:
    books = Books(timeout_s=100.0, large_file_timeout_s=500.0)
    books.next_start()
    large = replace(SELECTION.files[-1], size=50_000 * MB)
    books.step(Selected(selection=replace(SELECTION, files=(large,))))
    worked_at = books.now
    books.now += 500.0 + QUIET_SPARE_S
    assert books.step(Alive()) == ()
    books.now = worked_at
    waits = Retry(time=1.0, path=None, reason="busy", wait_s=90.0, attempt=1, max_attempts=5)
    books.step(waits)
    books.now += 590.0 + QUIET_SPARE_S
    assert books.step(Alive()) == ()
    books.now += 1.0
    assert [type(one) for one in books.step(Alive())] == [Fail]


def test_a_commit_that_the_caller_knows_is_asked_for() -> None:
    books = Books(commit_hash="a" * 40)
    assert books.next_start() == books.start
    books.run(SILENT)
    assert books.next_start().commit_hash == "a" * 40
