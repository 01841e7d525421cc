"""Processes that are killed, stopped or interrupted in the middle, and two at the same files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from nbloader.errors import Interrupted
from nbloader.localhub import Fault, LocalHub
from nbloader.records import Event, FileProgress
from tests.faults.repos import ONE, SIZES
from tests.faults.runs import BODY, BOTH, check_kept, check_right, download, workers

HALF = ONE.total // 2

IN_FLIGHT = 6 << 20
"""What may be lost at a kill: half of some pieces over Xet, and what a kernel has buffered."""

INTERRUPT_S = 1.0

PARENT = """
import sys
import nbloader

repo_id, endpoint, cache, route, half = sys.argv[1:]

def listen(event):
    if event.type == "file-progress" and event.completed > int(half):
        print("half", flush=True)

nbloader.download(
    repo_id, kind="transformers", endpoint=endpoint, cache_dir=cache, view="none",
    on_event=listen, settings={"route": route},
)
"""


def slow(route: str) -> Fault:
    """So slow that the middle of a download can be met."""
    return Fault(BODY[route], total_bytes_per_second=20_000_000)


def at_half(act: Callable[[], object]) -> Callable[[Event], None]:
    """Return a listener that acts once, when half of the file is there."""
    todo = [act]

    def listen(event: Event) -> None:
        if todo and isinstance(event, FileProgress) and event.completed > HALF:
            todo.pop()()

    return listen


def signal_worker(number: signal.Signals) -> None:
    (worker,) = workers()
    worker.send_signal(number)


def ended(process: psutil.Process) -> bool:
    """Say whether a process is gone; one that nobody has collected yet is."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("route", BOTH)
def test_another_worker_follows_one_that_was_killed(
    hub: LocalHub, tmp_path: Path, route: str
) -> None:
    kill = at_half(lambda: signal_worker(signal.SIGKILL))
    run = download(hub, ONE, tmp_path, [slow(route)], on_event=kill, route=route)
    check_right(run)
    assert [(retry.path, retry.reason, retry.attempt) for retry in run.retries] == [
        (None, "the download process ended by signal 9", 0)
    ]
    assert run.served <= 1.01 * ONE.total + IN_FLIGHT


@pytest.mark.parametrize("route", BOTH)
def test_another_worker_follows_one_that_hangs(hub: LocalHub, tmp_path: Path, route: str) -> None:
    stop = at_half(lambda: signal_worker(signal.SIGSTOP))
    run = download(
        hub, ONE, tmp_path, [slow(route)], on_event=stop, route=route, stall_timeout_s=1.0
    )
    check_right(run)
    assert run.reasons == ["the download process hung"]


@pytest.mark.parametrize("route", BOTH)
def test_the_worker_goes_with_its_parent_and_the_next_run_goes_on(
    hub: LocalHub, tmp_path: Path, route: str
) -> None:
    hub.set_faults([slow(route)])
    arguments = (ONE.repo_id, hub.endpoint, str(tmp_path), route, str(HALF))
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"half\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    assert children
    while not all(ended(child) for child in children):
        time.sleep(0.02)
    hub.set_faults([])
    before = hub.counters().file_bytes
    run = download(hub, ONE, tmp_path, route=route)
    check_right(run)
    assert run.kept >= HALF - IN_FLIGHT
    assert before + run.served <= 1.01 * ONE.total + IN_FLIGHT


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A run in the background of a shell starts with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("second", BOTH)
@pytest.mark.parametrize("first", BOTH)
def test_an_interrupt_is_prompt_and_either_route_goes_on(
    hub: LocalHub, tmp_path: Path, first: str, second: str
) -> None:
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    listen = at_half(lambda: threading.Timer(0.05, interrupt).start())
    run = download(hub, ONE, tmp_path, [slow(first)], on_event=listen, route=first)
    assert isinstance(run.error, Interrupted)
    assert run.ended_at - sent[0] <= INTERRUPT_S
    again = check_kept(hub, run, tmp_path, lost=IN_FLIGHT, route=second)
    assert run.served + again.served <= 1.01 * ONE.total + IN_FLIGHT


@pytest.mark.parametrize("route", BOTH)
def test_two_at_once_share_one_download(hub: LocalHub, tmp_path: Path, route: str) -> None:
    # Slow enough for both to be at work at the same time.
    hub.set_faults([Fault(BODY[route], total_bytes_per_second=60_000_000)])
    with ThreadPoolExecutor() as pool:
        tasks = [
            pool.submit(download, hub, SIZES, tmp_path, None, route=route, alone=False)
            for _ in range(2)
        ]
        runs = [task.result() for task in tasks]
    for run in runs:
        check_right(run)
        assert run.retries == []
    assert hub.counters().file_bytes <= 1.01 * SIZES.total
