"""Which piece comes next, and what becomes of pieces that stall, by a clock of the test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import DownloadError
from nbloader.hub_cache.filesystem import FileLock
from nbloader.hub_cache.hashing import FileHash
from nbloader.hub_cache.partial import MemoryPartial
from nbloader.records import FileProgress, RepoFile, Retry, Route, TransferPolicy
from nbloader.transfer.policy import Attempts, Reason
from nbloader.worker.failures import Failure
from nbloader.worker.piece import Piece
from nbloader.worker.schedule import Schedule, Task
from nbloader.worker.tuning import AnswerTime

MIB = 1 << 20
STALL_S = 30.0


def file(name: str, size: int, *, xet: bool = True) -> RepoFile:
    return RepoFile(
        path=name, size=size, etag="e" * 64, lfs=True, xet_hash="x" * 64 if xet else None
    )


class Desk:
    """A schedule whose clock and pieces the test moves."""

    def __init__(
        self, *files: RepoFile, answers: AnswerTime | None = None, **policy: object
    ) -> None:
        self.now = 1000.0
        self.schedule = Schedule(
            files,
            commit_hash="c" * 40,
            routes=list(Route),
            policy=TransferPolicy(stall_timeout_s=STALL_S, **policy),  # type: ignore[arg-type]
            clock=lambda: self.now,
            wall_clock=lambda: 5.0,
            chance=lambda: 0.0,
            answers=answers,
        )
        self.tasks = [self.begin(one) for one in files]

    def begin(self, one: RepoFile) -> Task:
        task = Task(
            file=one,
            lock=FileLock.__new__(FileLock),  # Nobody releases it here.
            partial=MemoryPartial(one),
            hash=FileHash(one),
            attempts=Attempts(route=self.schedule.route, moved_at=self.now),
        )
        self.schedule.tasks.append(task)
        return task

    def cut(self) -> list[Piece]:
        """Begin with all pieces that may be on their way now."""
        return [piece for _, piece in iter(self.schedule.next_piece, None)]

    def bring(self, task: Task, piece: Piece, count: int | None = None) -> None:
        """Let bytes of a piece come."""
        with task.partial.writer(piece.cut.start + piece.brought) as writer:
            piece.begin(writer)
            piece.write(bytes(piece.cut.size - piece.brought if count is None else count))


def spans(pieces: list[Piece]) -> list[tuple[int, int]]:
    return [(piece.cut.start, piece.cut.stop) for piece in pieces]


def test_pieces_of_one_file_lie_side_by_side() -> None:
    desk = Desk(file("a", 40 * MIB), route=Route.HTTP)
    assert spans(desk.cut()) == [(start * MIB, (start + 8) * MIB) for start in (0, 8, 16, 24)]


def test_the_first_file_has_all_connections_as_long_as_it_has_work_for_them() -> None:
    desk = Desk(file("a", 20 * MIB), file("b", 40 * MIB), file("c", MIB))
    pieces = desk.cut()
    assert [piece.cut.file.path for piece in pieces] == ["a", "a", "a", "b"]
    desk.bring(desk.tasks[0], pieces[0])
    desk.schedule.succeeded(desk.tasks[0], pieces[0])
    assert [piece.cut.file.path for piece in desk.cut()] == ["b"]


def test_files_share_the_connections_of_a_fast_link() -> None:
    desk = Desk(file("a", 400 * MIB), file("b", 40 * MIB), file("c", MIB), route=Route.HTTP)
    pieces = desk.cut()
    assert [piece.cut.file.path for piece in pieces] == ["a"] * 4
    for piece in pieces:
        desk.bring(desk.tasks[0], piece)
        desk.schedule.succeeded(desk.tasks[0], piece)
    desk.schedule.progress()
    desk.schedule.adapt(0.1)
    assert sorted(piece.cut.file.path for piece in desk.cut()) == ["a", "a", "b", "c"]


def test_a_fast_link_is_known_soon_and_pieces_are_small_until_then() -> None:
    desk = Desk(file("a", 900 * MIB), file("b", 900 * MIB), route=Route.HTTP)
    first = desk.tasks[0]
    desk.schedule.progress()
    for seconds in (0.0, 0.06, 0.06):
        assert not any(one.cut.file.path == "b" for one in desk.cut())
        desk.now += seconds
        for piece in tuple(first.in_flight):
            assert piece.cut.size == 16 * MIB
            desk.bring(first, piece)
            desk.schedule.succeeded(first, piece)
        desk.schedule.progress()
    assert sorted(spans(desk.cut())) == [
        *((start * MIB, (start + 64) * MIB) for start in (0, 64)),
        *((start * MIB, (start + 64) * MIB) for start in (192, 256)),
    ]


def test_a_hash_that_lags_catches_up_once_nothing_else_is_to_be_hashed() -> None:
    desk = Desk(file("a", 64 * MIB), file("b", 64 * MIB), route=Route.HTTP)
    a, b = desk.tasks
    for task, there in ((a, 2 * MIB), (b, 16 * MIB)):
        with task.partial.writer(0) as writer:
            writer.write(bytes(there))
    # What is just being hashed as it comes is that much behind.
    assert desk.schedule.to_hash() is b
    b.hashing = True
    assert desk.schedule.to_hash() is None
    with a.partial.writer(2 * MIB) as writer:
        writer.write(b"1")
    assert desk.schedule.to_hash() is a
    b.hashing = False
    assert desk.schedule.to_hash() is b


def test_the_time_in_which_others_were_served_does_not_count_against_a_file() -> None:
    desk = Desk(file("a", 32 * MIB), file("b", 8 * MIB), route=Route.HTTP)
    first, second = desk.tasks
    for piece in desk.cut():
        desk.schedule.failed(first, piece, Failure(Reason.CONNECTION_LOST))
    (piece,) = desk.cut()
    assert second.attempts.moved_at == desk.now
    desk.schedule.failed(second, piece, Failure(Reason.CONNECTION_LOST))
    desk.now = max(first.not_before, second.not_before)
    pieces = desk.cut()
    assert {piece.cut.file.path for piece in pieces} == {"a"}
    desk.now = max(first.not_before, second.not_before)
    for piece in pieces:
        desk.bring(first, piece)
        desk.schedule.succeeded(first, piece)
    (piece,) = desk.cut()
    # What counts is its own wait before the second attempt.
    assert desk.now - second.attempts.moved_at == second.not_before - 1000.0
    assert desk.schedule.failed(second, piece, Failure(Reason.CONNECTION_LOST)) is not None


def test_a_small_file_and_one_without_a_xet_hash_come_over_http() -> None:
    desk = Desk(
        file("small", MIB), file("plain", 9 * MIB, xet=False), file("a", 9 * MIB), route=Route.XET
    )
    routes = {piece.cut.file.path: piece.cut.route for piece in desk.cut()}
    assert routes == {"small": Route.HTTP, "plain": Route.HTTP, "a": Route.XET}


def test_a_piece_over_xet_leaves_room_for_those_that_begin_earlier() -> None:
    desk = Desk(file("a", 9 * MIB), route=Route.XET)
    first, second = desk.cut()[:2]
    # The next may begin and end up to a chunk earlier than was cut; nothing is left between.
    assert (first.cut.start, first.cut.stop, first.cut.margin) == (0, MIB, 128 << 10)
    assert second.cut.start == first.cut.stop


def test_on_a_fast_link_nobody_asks_where_chunks_begin() -> None:
    desk = Desk(file("a", 64 * MIB), route=Route.XET)
    (task,) = desk.tasks
    margins = []
    for speed in (100e6, 400e6):
        desk.cut()
        desk.now += 1.0  # So slow is each piece, as where the processor has too much to do.
        before = desk.schedule.arrived
        for piece in tuple(task.in_flight):
            desk.bring(task, piece)
            desk.schedule.succeeded(task, piece)
        desk.schedule.progress()
        desk.schedule.adapt((desk.schedule.arrived - before) / speed)
        margins.append({piece.cut.margin for piece in desk.cut()})
    assert margins == [{128 << 10}, {0}]


def test_a_failure_holds_back_its_file_alone() -> None:
    desk = Desk(file("a", 8 * MIB), file("b", 20 * MIB), route=Route.HTTP)
    (piece,) = [piece for piece in desk.cut() if piece.cut.file.path == "a"]
    assert desk.schedule.failed(desk.tasks[0], piece, Failure(Reason.BUSY)) == Retry(
        time=5.0,
        path="a",
        reason="the server is busy",
        wait_s=5.0,
        attempt=1,
        max_attempts=5,
        route=Route.HTTP,
        failed_route=Route.HTTP,
    )
    desk.now += 4.9
    assert desk.cut() == []
    desk.now += 0.1
    # A server that is busy gets half of the connections: those of `b` have to end first.
    for other in tuple(desk.tasks[1].in_flight):
        desk.bring(desk.tasks[1], other)
        desk.schedule.succeeded(desk.tasks[1], other)
    assert spans(desk.cut()) == [(0, 8 * MIB)]


def test_pieces_that_fail_together_are_told_once() -> None:
    desk = Desk(file("a", 40 * MIB), route=Route.HTTP)
    pieces = desk.cut()
    told = []
    for piece in pieces:
        desk.now += 0.01
        told.append(desk.schedule.failed(desk.tasks[0], piece, Failure(Reason.CONNECTION_LOST)))
    assert [retry is not None for retry in told] == [True, False, False, False]
    assert desk.tasks[0].attempts.fruitless == 1


def test_what_ended_with_another_is_begun_again_and_counts_for_nothing() -> None:
    desk = Desk(file("a", 9 * MIB), route=Route.XET)
    task, piece = desk.tasks[0], desk.cut()[0]
    before = task.attempts
    assert desk.schedule.failed(task, piece, Failure(Reason.CANCELLED)) is None
    assert task.attempts == before
    (again,) = desk.cut()
    assert again.cut.start == piece.cut.start


# -- pieces that stall -----------------------------------------------------------------------------


def stalling(desk: Desk) -> Iterator[tuple[float, list[Piece], list[Piece]]]:
    """Let time pass; give what stalls and what is stuck, when there is any."""
    for _ in range(2000):
        desk.now += 0.1
        stalled, stuck = list(desk.schedule.stalled()), list(desk.schedule.stuck())
        if stalled or stuck:
            yield desk.now, stalled, stuck


def test_a_piece_that_cannot_be_cancelled_is_told_after_2_seconds_and_once() -> None:
    desk = Desk(file("a", 2 * MIB), route=Route.XET)
    first, second = desk.cut()
    found = list(stalling(desk))
    assert [(stalled, stuck) for _, stalled, stuck in found] == [
        ([first, second], []),
        ([], [first, second]),
    ]
    stalled_at, stuck_at = (now for now, _, _ in found)
    assert stalled_at - 1000.0 == pytest.approx(STALL_S + 1.0, abs=0.2)
    assert stuck_at - stalled_at == pytest.approx(2.0, abs=0.2)


def test_a_piece_that_was_cancelled_has_stalled_whatever_it_says() -> None:
    desk = Desk(file("a", 40 * MIB), route=Route.XET)
    task, piece = desk.tasks[0], desk.cut()[0]
    next(stalling(desk))
    told = desk.schedule.failed(task, piece, Failure(Reason.CANCELLED))
    assert told is not None
    assert (told.reason, told.attempt, told.wait_s) == ("no bytes came", 1, 0.0)


def test_a_piece_that_is_heard_of_does_not_stall() -> None:
    desk = Desk(file("a", 2 * MIB), route=Route.XET)
    pieces = desk.cut()
    for _ in range(100):
        desk.now += STALL_S
        for piece in pieces:
            piece.heard()
        assert list(desk.schedule.stalled()) == []


def test_a_slow_piece_over_xet_gets_four_times_its_time() -> None:
    desk = Desk(file("a", 40 * MIB), route=Route.XET)
    task = desk.tasks[0]
    piece = desk.cut()[0]
    desk.now += 20.0
    desk.bring(task, piece)
    desk.schedule.succeeded(task, piece)
    following = desk.cut()[0]
    assert following.cut.limit_s == pytest.approx(4 * 20.0 + 1.0)


# -- servers that send no parts --------------------------------------------------------------------


def test_where_a_server_sends_all_one_piece_goes_on_and_no_other() -> None:
    desk = Desk(file("a", 40 * MIB), route=Route.HTTP)
    task = desk.tasks[0]
    first, second, *others = desk.cut()
    assert desk.schedule.take_whole(task, first)
    assert (first.cut.start, first.cut.stop) == (0, 40 * MIB)
    assert not desk.schedule.take_whole(task, second)
    for piece in (second, *others):
        desk.now += 0.01
        desk.schedule.failed(task, piece, Failure(Reason.BAD_ANSWER))
    desk.now += 60.0
    first.heard()
    assert desk.cut() == []
    desk.bring(task, first, 10 * MIB)
    desk.schedule.failed(task, first, Failure(Reason.CONNECTION_LOST))
    desk.now += 60.0
    (again,) = desk.cut()
    assert (again.cut.start, again.cut.stop) == (10 * MIB, 40 * MIB)
    assert desk.schedule.take_whole(task, again)


# -- progress --------------------------------------------------------------------------------------


def test_progress_is_told_when_there_is_some() -> None:
    desk = Desk(file("a", 40 * MIB), file("b", 40 * MIB), route=Route.HTTP)
    piece = desk.cut()[0]
    task = next(task for task in desk.tasks if piece in task.in_flight)
    assert desk.schedule.progress() == []
    desk.bring(task, piece, 1000)
    assert desk.schedule.progress() == [FileProgress(path=piece.cut.file.path, completed=1000)]
    assert desk.schedule.progress() == []
    assert desk.schedule.arrived == 1000


@given(data=st.data())
def test_any_run_of_pieces_ends_with_all_bytes_or_the_error(data: st.DataObject) -> None:
    """Whatever the order in which pieces end, and how."""
    sizes = data.draw(st.lists(st.integers(1, 12 * MIB), min_size=1, max_size=3))
    files = [file(str(number), size) for number, size in enumerate(sizes)]
    desk = Desk(*files, route=data.draw(st.sampled_from([None, *Route])))
    steps = data.draw(
        st.lists(st.tuples(st.integers(0, 15), st.sampled_from([0.0, 0.5, 1.0])), max_size=60)
    )
    # After those that were drawn, all goes well.
    for chosen, share in (*steps, *[(0, 1.0)] * 60):
        desk.cut()
        for task in desk.tasks:
            edges = sorted((piece.cut.start, piece.cut.stop) for piece in task.in_flight)
            assert all(one[1] <= other[0] for one, other in pairwise(edges))
        flying = [(task, piece) for task in desk.tasks for piece in task.in_flight]
        if not flying:
            desk.now += 61.0
            continue
        task, piece = flying[chosen % len(flying)]
        desk.bring(task, piece, int(share * piece.cut.size))
        if share == 1.0:
            desk.schedule.succeeded(task, piece)
            continue
        try:
            desk.schedule.failed(task, piece, Failure(Reason.BUSY))
        except DownloadError:
            assert task.attempts.fruitless == 5
            return
    assert all(task.partial.complete for task in desk.tasks)


def test_a_file_that_has_left_a_route_does_not_go_back_with_its_other_pieces() -> None:
    desk = Desk(file("a", 40 * MIB))
    task, pieces = desk.tasks[0], desk.cut()
    assert {piece.cut.route for piece in pieces} == {Route.HTTP}
    told = []
    for piece in pieces:
        desk.now += 0.01
        told.append(desk.schedule.failed(task, piece, Failure(Reason.STALLED)))
    assert [(retry.failed_route, retry.route) for retry in told if retry] == [
        (Route.HTTP, Route.XET)
    ]
    assert {piece.cut.route for piece in desk.cut()} == {Route.XET}


# -- the end of a download -------------------------------------------------------------------------


def silences(desk: Desk, *waits: float) -> list[tuple[float, str, float]]:
    """What is told of a silence while time passes: after which wait, of what, and how long."""
    told = []
    for wait in waits:
        desk.now += wait
        told += [(wait, one.path, one.asked_again_in_s) for one in desk.schedule.silence()]
    return told


def test_a_silence_is_told_of_once_with_the_time_until_its_bytes_are_asked_for_again() -> None:
    desk = Desk(file("a", 40 * MIB), file("b", 40 * MIB), route=Route.HTTP)
    first, *_ = desk.cut()
    assert silences(desk, 0.9, 0.2, 5.0) == [(0.2, "a", 28.9)]
    # Another piece lives.
    desk.bring(desk.tasks[0], first, MIB)
    assert silences(desk, 0.9) == []
    # The one that is given up first counts. Then it is, and no other has been silent for so long.
    assert silences(desk, 0.2, 10.0, 20.0) == [(0.2, "a", 22.8)]


def test_where_answers_begin_late_a_silence_is_longer() -> None:
    answers = AnswerTime()
    answers.took(20.0)
    desk = Desk(file("a", 400 * MIB), answers=answers, route=Route.HTTP)
    desk.cut()
    assert silences(desk, 2.0) == [(2.0, "a", 48.0)]


def test_over_xet_a_silence_is_as_long_as_its_piece_may_take() -> None:
    desk = Desk(file("a", 40 * MIB), route=Route.XET)
    desk.cut()
    assert silences(desk, 2.0) == [(2.0, "a", 29.0)]


def test_at_the_end_a_silence_is_short() -> None:
    desk = Desk(file("a", 4 * MIB), route=Route.HTTP)
    desk.cut()
    assert silences(desk, 2.0) == [(2.0, "a", 3.0)]
    desk.now += 3.0
    desk.cut()  # The second one, which is asked for no third time.
    assert silences(desk, 2.0) == [(2.0, "a", 28.0)]


def test_without_pieces_on_their_way_there_is_no_silence() -> None:
    assert silences(Desk(file("a", MIB)), 5.0) == []


def test_at_the_end_another_connection_goes_after_the_bytes_of_a_silent_one() -> None:
    desk = Desk(file("a", 8 * MIB), route=Route.HTTP)
    task = desk.tasks[0]
    (silent,) = desk.cut()
    desk.bring(task, silent, 3 * MIB)
    desk.now += 4.9
    assert desk.cut() == []
    desk.now += 0.2
    (second,) = desk.cut()
    assert (second.cut.start, second.cut.stop) == (3 * MIB, 8 * MIB)
    assert [type(event) for event in desk.schedule.progress()] == [Retry, FileProgress]
    # Only once: a third would be no better.
    desk.now += 30.0
    assert desk.cut() == []
    desk.bring(task, second)
    desk.schedule.succeeded(task, second)
    assert task.partial.complete
    assert desk.schedule.failed(task, silent, Failure(Reason.STALLED)) is None
    assert desk.schedule.to_hash() is task


def test_a_connection_that_may_take_its_time_is_not_doubled() -> None:
    """Over Xet a piece is silent until it is whole."""
    desk = Desk(file("a", MIB + 1), route=Route.XET)
    desk.cut()
    desk.now += 20.0
    assert desk.cut() == []


def in_time(desk: Desk, task: Task, piece: Piece) -> None:
    """Let what the engine would tell a piece be told, and it write."""
    with task.partial.writer(piece.cut.start) as writer:
        piece.begin(writer, wins=lambda: desk.schedule.wins(task, piece))
        piece.answered()
        piece.write(bytes(piece.cut.size))


@pytest.mark.parametrize("late", [True, False])
def test_of_two_that_ask_for_the_same_the_answer_that_begins_first_is_read(late: bool) -> None:
    desk = Desk(file("a", 8 * MIB), route=Route.HTTP)
    task = desk.tasks[0]
    (first,) = desk.cut()
    desk.now += 5.1
    (second,) = desk.cut()
    ended: list[Piece] = []
    first.cancel, second.cancel = (lambda: ended.append(first)), (lambda: ended.append(second))
    winner, loser = (first, second) if late else (second, first)
    in_time(desk, task, winner)
    assert ended == [loser]
    with pytest.raises(Failure) as caught:
        in_time(desk, task, loser)
    assert caught.value.reason is Reason.CANCELLED
    assert task.in_flight == [winner]
    assert desk.schedule.failed(task, loser, caught.value) is None
    assert desk.cut() == []
    desk.schedule.succeeded(task, winner)
    desk.schedule.progress()
    assert (task.in_flight, desk.schedule.arrived) == ([], 8 * MIB)


def test_what_a_second_connection_leaves_is_not_brought_by_the_first_as_well() -> None:
    desk = Desk(file("a", 8 * MIB), route=Route.HTTP)
    task = desk.tasks[0]
    (first,) = desk.cut()
    desk.now += 5.1
    (second,) = desk.cut()
    assert desk.schedule.failed(task, second, Failure(Reason.CONNECTION_LOST)) is not None
    assert first.lost
    desk.now += 60.0
    assert spans(desk.cut()) == [(0, 8 * MIB)]


# -- links on which every answer begins late -------------------------------------------------------


def late_link(seconds: float = 15.0) -> AnswerTime:
    answers = AnswerTime()
    answers.took(seconds)
    return answers


def test_where_answers_begin_late_each_connection_asks_once() -> None:
    desk = Desk(file("a", 600 * MIB), route=Route.HTTP, answers=late_link())
    assert spans(desk.cut()) == [(start * MIB, (start + 150) * MIB) for start in (0, 150, 300, 450)]
    small = Desk(file("a", 40 * MIB), answers=late_link())
    assert spans(small.cut()) == [(0, 40 * MIB)]


def test_where_answers_begin_late_silence_is_no_stall() -> None:
    for route in Route:
        desk = Desk(file("a", 8 * MIB), route=route, answers=late_link())
        (piece,) = desk.cut()
        desk.now += 2 * 15.0 + 7.0
        assert (desk.cut(), list(desk.schedule.stalled())) == ([], [])
        assert piece.cut.margin == 0  # No question more than is needed.


def test_a_small_file_takes_the_other_route_where_the_first_is_blocked() -> None:
    desk = Desk(file("a", MIB), file("b", MIB, xet=False))
    pieces = desk.cut()
    assert {piece.cut.route for piece in pieces} == {Route.HTTP}
    for task, piece in zip(desk.tasks, pieces, strict=True):
        desk.schedule.failed(task, piece, Failure(Reason.BLOCKED, host="cdn.example"))
    assert [(one.cut.file.path, one.cut.route) for one in desk.cut()] == [("a", Route.XET)]


def test_the_error_names_the_hosts_that_cannot_be_reached() -> None:
    desk = Desk(file("a", 8 * MIB), route=Route.HTTP)
    task = desk.tasks[0]

    def fail(host: str) -> None:
        (piece,) = desk.cut()
        desk.schedule.failed(task, piece, Failure(Reason.BLOCKED, "reset", host=host))
        desk.now += 2.0

    fail("one.example")
    fail("two.example")
    with pytest.raises(DownloadError) as caught:
        fail("two.example")
    assert caught.value.message == (
        "a could not be downloaded from one.example and two.example (reset; 3 attempts)"
    )
