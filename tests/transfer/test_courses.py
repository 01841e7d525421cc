"""Courses of a transfer: what holds whatever its workers say, and however they end."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import WorkerDiedError
from nbloader.records import (
    Event,
    FileDone,
    FileProgress,
    Notice,
    Retry,
    Route,
    Selected,
    Stage,
    StageStarted,
)
from nbloader.transfer.protocol import (
    PROTOCOL_VERSION,
    Alive,
    Fetch,
    Finished,
    Hello,
    Start,
    Stopped,
    Stuck,
)
from nbloader.transfer.state_machine import (
    Approve,
    Died,
    Fail,
    Finish,
    Input,
    KillWorker,
    Output,
    Publish,
    Send,
    StartWorker,
    Tick,
)
from tests.samples import SELECTION
from tests.stepping import HELLO, SILENT, WEIGHTS, Books, died

PATHS = st.sampled_from([WEIGHTS, "vae/model.safetensors"])
ROUTES = st.sampled_from(Route)
REASONS = st.sampled_from(["no bytes came", "wrong bytes"])
ATTEMPTS = st.integers(0, 4)

REPORTS: st.SearchStrategy[Input] = st.one_of(
    st.just(HELLO),
    st.builds(Alive, busy=st.booleans()),
    st.just(StageStarted(stage=Stage.SET_UP)),
    st.builds(
        Selected,
        selection=st.just(SELECTION),
        cached=st.lists(PATHS, max_size=2).map(tuple),
        partial=st.dictionaries(PATHS, st.integers(0, 9)),
    ),
    st.builds(FileProgress, path=PATHS, completed=st.integers(0, 9)),
    st.builds(FileDone, path=PATHS),
    st.builds(
        Notice, reference=st.sampled_from(["a", "b"]), message=st.just("m"), hint=st.just("h")
    ),
    st.builds(
        Retry,
        time=st.just(1.0),
        path=st.none() | PATHS,
        reason=REASONS,
        wait_s=st.sampled_from([0.0, 5.0]),
        attempt=ATTEMPTS,
        max_attempts=st.just(5),
        route=st.none() | ROUTES,
    ),
)
ENDINGS: st.SearchStrategy[Input] = st.one_of(
    st.builds(Stuck, path=PATHS, route=ROUTES),
    st.builds(lambda: Died(error=died())),
    st.just(SILENT),
)
LAST: st.SearchStrategy[Input] = st.one_of(
    st.just(Finished(folder="/cache/snapshot")),
    st.just(Stopped(reference="disk-full", message="m", hint="h")),
    st.just(Hello(version=PROTOCOL_VERSION + 1)),
    st.builds(lambda: Died(error=WorkerDiedError("with exit status 1", hint="h"))),
)
WORKERS = st.builds(lambda said, end: [*said, end], st.lists(REPORTS, max_size=12), ENDINGS)
COURSES = st.builds(
    lambda workers, last: [heard for worker in workers for heard in worker] + last,
    st.lists(WORKERS, max_size=6),
    st.lists(REPORTS | LAST, max_size=8),
)
POLICIES = st.fixed_dictionaries(
    {"max_retries": st.sampled_from([100, 5, 1]), "route": st.none() | ROUTES}
)


class Course(Books):
    """A course of one transfer, and what it was told by workers that were running.

    Attributes:
        starts: what each worker was sent, and what all before it had said.
        said: what was said so far.
    """

    def __init__(self, **policy: Any) -> None:
        super().__init__(**policy)
        self.starts: list[tuple[Start, tuple[Input, ...]]] = []
        self.said: tuple[Input, ...] = ()

    @property
    def ended(self) -> bool:
        return any(isinstance(one, Finish | Fail) for one in self.told)

    def step(self, heard: Input) -> tuple[Output, ...]:
        if self.running and not self.ended:
            self.said += (heard,)
        was_running, had_ended = self.running, self.ended
        outputs = super().step(heard)
        assert not (had_ended and outputs)
        for output in outputs:
            if isinstance(output, StartWorker):
                assert not was_running
                self.starts.append((output.start, self.said))
                was_running = True
            elif isinstance(output, KillWorker | Send | Approve):
                assert was_running
                was_running = not isinstance(output, KillWorker)
        return outputs

    def follow(self, course: list[Input]) -> None:
        for heard in course:
            while not (self.running or self.ended):
                # Words of a worker that is gone are none.
                assert isinstance(heard, Tick) or self.step(heard) == ()
                self.step(Tick(waited_s=0.0))
                self.now += 1.0
            self.now += 0.1
            self.step(heard)

    def published(self, *kinds: type[Event]) -> list[Event]:
        events = [one.event for one in self.told if isinstance(one, Publish)]
        return [event for event in events if isinstance(event, kinds)]


def followed(policy: dict[str, object], course: list[Input]) -> Course:
    transfer = Course(**policy)
    transfer.follow(course)
    return transfer


@given(policy=POLICIES, course=COURSES)
def test_nothing_that_is_complete_is_published_twice(
    policy: dict[str, object], course: list[Input]
) -> None:
    transfer = followed(policy, course)
    complete = transfer.published(FileDone, Notice)
    assert len(complete) == len(set(complete))
    expected: set[object] = {*said(transfer, FileDone), *said(transfer, Notice)}
    for selected in said(transfer, Selected)[1:]:
        expected.update(FileDone(path=path) for path in selected.cached)
    assert set(complete) == expected


T = TypeVar("T")


def said(transfer: Course, kind: type[T]) -> list[T]:
    return [one for one in transfer.said if isinstance(one, kind)]


@given(policy=POLICIES, course=COURSES)
def test_the_selection_is_approved_once_and_before_anything_is_fetched(
    policy: dict[str, object], course: list[Input]
) -> None:
    transfer = followed(policy, course)
    selections = said(transfer, Selected)
    orders = [one for one in transfer.told if isinstance(one, Approve | Send)]
    assert [isinstance(one, Approve) for one in orders] == (
        [True] + [False] * len(selections) if selections else []
    )
    assert transfer.published(Selected) == selections[:1]
    # The last resort may have ended it at the first report.
    assert all(one == Send(command=Fetch()) for one in orders[1:])


@given(policy=POLICIES, course=COURSES)
def test_every_worker_is_told_what_was_tried_and_found(
    policy: dict[str, object], course: list[Input]
) -> None:
    transfer = followed(policy, course)
    for start, heard in transfer.starts:
        routes: dict[str, Route] = {}
        wrong = Counter[str]()
        for one in heard:
            if isinstance(one, Stuck):
                other = Route.HTTP if one.route is Route.XET else Route.XET
                routes[one.path] = transfer.start.policy.route or other
            elif isinstance(one, Retry) and one.path is not None and one.route is not None:
                routes[one.path] = one.route
                wrong[one.path] += one.reason == "wrong bytes"
        assert {one.path: one.route for one in start.tried} == routes
        assert {one.path: one.wrong for one in start.tried if one.wrong} == +wrong
        found = any(isinstance(one, Selected) for one in heard)
        assert start.commit_hash == (SELECTION.commit_hash if found else None)
        assert start.policy.route in (transfer.start.policy.route, Route.HTTP)


@given(policy=POLICIES, course=COURSES)
def test_workers_follow_each_other_until_too_many_brought_nothing(
    policy: dict[str, object], course: list[Input]
) -> None:
    transfer = followed(policy, course)
    turns = [one for one in transfer.told if isinstance(one, StartWorker | KillWorker)]
    assert all(type(one) is not type(other) for one, other in pairwise(turns))
    # A retry follows each that was killed, and is no word of any worker.
    retries = len(transfer.published(Retry)) - len(said(transfer, Retry))
    assert retries == sum(isinstance(one, KillWorker) for one in turns)
    ends = [one for one in transfer.told if isinstance(one, Finish | Fail)]
    assert ends == (transfer.told[-1:] if ends else [])
    assert all(
        one.attempt < one.max_attempts
        for one in transfer.published(Retry)
        if isinstance(one, Retry) and one not in said(transfer, Retry)
    )
