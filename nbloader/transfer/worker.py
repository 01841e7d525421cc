"""The child process that does everything on the network.

Run as `python -P -m nbloader.transfer.worker PARENT_PID`. Reads commands from stdin, writes
reports to what was stdout when it started.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbloader.records import Listing, Plan, RepoFile
    from nbloader.transfer.hub import Hub
    from nbloader.transfer.protocol import Command, Report, Start

__all__ = ["main"]

PROGRESS_EVERY_S = 0.1
PARENT_CHECK_EVERY_S = 0.5
LIFE_EVERY_S = 5.0
START_TIMEOUT_S = 60.0


def main() -> None:
    """Do what the parent asks, and report it."""
    commands, reports = _take_streams()
    _end_with_parent(int(sys.argv[1]))
    # Imported only now: a library that prints while it is imported must not reach the protocol.
    from nbloader.errors import NbloaderError, ProtocolError
    from nbloader.transfer.protocol import PROTOCOL_VERSION, Hello, Start, Stopped

    channel = _Channel(commands, reports)
    channel.send(Hello(version=PROTOCOL_VERSION))
    try:
        # A parent that was interrupted while it started this process may never speak.
        start = channel.receive(START_TIMEOUT_S)
        if not isinstance(start, Start) or start.version != PROTOCOL_VERSION:
            raise ProtocolError(
                "the worker and its parent are of different versions",
                hint="Restart the kernel: nbloader was upgraded under it.",
            )
        _work(start, channel)
    except NbloaderError as error:
        channel.send(Stopped(reference=error.reference, message=error.message, hint=error.hint))
    except OSError:
        from nbloader.transfer.explain import cache_not_writable

        refused = cache_not_writable()
        channel.send(
            Stopped(reference=refused.reference, message=refused.message, hint=refused.hint)
        )


def _take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Move the protocol to private descriptors, so that no print can break it."""
    commands = os.fdopen(os.dup(0), "rb")
    reports = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return commands, reports


def _end_with_parent(parent_pid: int) -> None:
    """End this process when its parent is gone.

    The end of stdin is not enough: another child of the parent may hold the pipe open.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(PARENT_CHECK_EVERY_S)
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


class _Channel:
    """Commands in, reports out."""

    def __init__(self, commands: IO[bytes], reports: IO[bytes]) -> None:
        import queue

        self._reports = reports
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()

        def read() -> None:
            for line in commands:
                self._queue.put(line)
            os._exit(0)

        threading.Thread(target=read, name="commands", daemon=True).start()

    def receive(self, timeout_s: float | None = None) -> Command:
        from nbloader.transfer.protocol import decode_command

        return decode_command(self._queue.get(timeout=timeout_s))

    def send(self, report: Report) -> None:
        from nbloader.transfer.protocol import encode

        line = encode(report)
        with self._lock:
            try:
                self._reports.write(line)
                self._reports.flush()
            except (BrokenPipeError, ValueError):
                os._exit(0)


def _show_life(hub: Hub, channel: _Channel) -> None:
    """Tell the parent that bytes move although no file of ours reports any.

    Another process may be downloading the same file, while this one waits for its lock.
    """
    from nbloader.transfer.protocol import Alive

    def watch() -> None:
        seen: dict[str, int] = {}
        while True:
            time.sleep(LIFE_EVERY_S)
            sizes = hub.cache.partial_sizes()
            if sizes != seen:
                channel.send(Alive())
            seen = sizes

    threading.Thread(target=watch, name="life", daemon=True).start()


class _Progress:
    """Bytes of the files in flight, reported at most ten times a second for each."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._changed: dict[str, int] = {}
        threading.Thread(target=self._tick, name="progress", daemon=True).start()

    def set(self, path: str, completed: int) -> None:
        with self._lock:
            self._changed[path] = completed

    def done(self, path: str) -> None:
        from nbloader.records import FileDone

        with self._lock:
            self._changed.pop(path, None)
            self._channel.send(FileDone(path=path))

    def _tick(self) -> None:
        from nbloader.records import FileProgress

        while True:
            time.sleep(PROGRESS_EVERY_S)
            with self._lock:
                for path, completed in self._changed.items():
                    self._channel.send(FileProgress(path=path, completed=completed))
                self._changed.clear()


def _work(start: Start, channel: _Channel) -> None:
    from nbloader.environment import place
    from nbloader.records import Planned
    from nbloader.tokens import kaggle_token
    from nbloader.transfer.hub import Hub
    from nbloader.transfer.protocol import Fetch, Finished

    progress = _Progress(channel)
    hub = Hub(
        repo_id=start.repo_id,
        policy=start.policy,
        token=start.token if start.token is not None else kaggle_token(place(os.environ)),
        publish=channel.send,
        on_bytes=progress.set,
    )
    _show_life(hub, channel)
    plan, local = _planned(start, hub, channel)
    commit = plan.commit_hash
    cached = tuple(
        file.path
        for file in plan.files
        if file.path not in hub.downloaded and hub.cache.has_bytes(commit, file)
    )
    channel.send(Planned(plan=plan, cached=cached, hub=hub.facts))
    if not isinstance(channel.receive(), Fetch):
        return
    if local:
        _check_local(start, hub, plan)
    else:
        _fetch(plan, hub, progress, verify=start.verify)
        _note_revision(start.revision, commit, hub, channel)
    channel.send(Finished(folder=str(hub.cache.snapshot(commit))))


def _note_revision(revision: str, commit: str, hub: Hub, channel: _Channel) -> None:
    """Write down which commit the branch stands for; the files are there, whatever comes of it."""
    from nbloader.errors import CacheNotWritableError
    from nbloader.records import Notice

    try:
        hub.cache.write_ref(revision, commit)
    except OSError:
        channel.send(
            Notice(
                reference=CacheNotWritableError.reference,
                message=f"the cache cannot note that {revision} is {commit[:7]}",
                hint=f'Without a network, pass revision="{commit}".',
            )
        )


def _planned(start: Start, hub: Hub, channel: _Channel) -> tuple[Plan, bool]:
    """Make the plan, from the Hub or from the cache; tells which (True: from the cache)."""
    from dataclasses import replace

    from nbloader.errors import HubUnreachableError, NotCachedError
    from nbloader.records import Notice, Stage, StageStarted

    cached, certain = _plan_of_cache(start, hub)
    if start.local_files_only:
        if cached is None:
            raise NotCachedError(
                f"{start.repo_id} at {start.revision} is not complete in the cache",
                hint="Run once without `local_files_only=True` (and without HF_HUB_OFFLINE).",
            )
        if not certain:
            channel.send(
                Notice(
                    reference="not-certain",
                    message=f"{start.repo_id} was not downloaded by nbloader, so whether all of "
                    "its files are in the cache is not known",
                    hint="Run once with a network to be sure.",
                )
            )
        return cached, True
    if not certain:
        cached = None
    if cached is not None:
        # With everything at hand, one question whether there is something newer is enough.
        hub.policy = replace(start.policy, max_retries=1)
    try:
        commit = hub.resolve(start.revision)
        channel.send(StageStarted(stage=Stage.SET_UP))
        hub.policy = start.policy
        kept = hub.listings.get(start.revision, commit)
        listing = kept or hub.listing(start.revision, commit)
        if kept is None:
            hub.listings.keep(listing)
    except HubUnreachableError as error:
        if cached is None:
            raise
        channel.send(
            Notice(
                reference=error.reference,
                message=f"{error.message}; using the cached commit {cached.commit_hash[:7]}",
                hint="Nothing is needed, unless you wait for a newer version of the model.",
            )
        )
        return cached, True

    def read(path: str) -> bytes:
        file = next(file for file in listing.files if file.path == path)
        return hub.fetch(listing.commit_hash, file, verify_cached=start.verify).read_bytes()

    plan = _make_plan(start, listing, read)
    _check_headers(plan, hub)
    return plan, False


def _check_headers(plan: Plan, hub: Hub) -> None:
    """Read the header of every safetensors file that is to be fetched: is it whole?"""
    import functools
    from concurrent.futures import ThreadPoolExecutor

    commit = plan.commit_hash
    weights = {path for component in plan.components for path in component.weights}
    missing = [
        file
        for file in plan.files
        if file.path in weights
        and file.path.endswith(".safetensors")
        and not hub.cache.has_bytes(commit, file)
    ]
    with ThreadPoolExecutor(hub.policy.max_workers) as pool:
        list(pool.map(functools.partial(hub.read_header, commit), missing))


def _make_plan(start: Start, listing: Listing, read: Callable[[str], bytes]) -> Plan:
    """Read the small files that decide the plan, in as few rounds as it asks for, and make it."""
    from concurrent.futures import ThreadPoolExecutor

    from nbloader.plan import make_plan, reads

    known: dict[str, bytes] = {}
    with ThreadPoolExecutor(start.policy.max_workers) as pool:
        while wanted := reads(listing, start.request, known):
            known.update(zip(wanted, pool.map(read, wanted), strict=True))
    return make_plan(listing, start.request, known)


def _plan_of_cache(start: Start, hub: Hub) -> tuple[Plan | None, bool]:
    """Make the plan from what the cache holds; None if that is not enough for a load.

    The second value tells whether it is certain: a part of a snapshot can look like the whole,
    unless the Hub's listing of that commit was kept.
    """
    from nbloader.errors import RepoError

    commit = hub.cache.commit_of(start.revision)
    kept = hub.listings.get(start.revision, commit) if commit else None
    listing = kept or hub.cache.listing(start.repo_id, start.revision)
    if listing is None:
        return None, False
    snapshot = hub.cache.snapshot(listing.commit_hash)
    try:
        plan = _make_plan(start, listing, lambda path: (snapshot / path).read_bytes())
    except (RepoError, OSError):
        return None, False
    complete = all(hub.cache.has_pointer(listing.commit_hash, file) for file in plan.files)
    return (plan, kept is not None) if complete else (None, False)


def _check_local(start: Start, hub: Hub, plan: Plan) -> None:
    """Hash the files of the cache if that was asked for."""
    from nbloader.errors import IntegrityError
    from nbloader.transfer.cache import matches

    for file in plan.files if start.verify else ():
        if file.etag and not matches(hub.cache.pointer(plan.commit_hash, file.path), file):
            raise IntegrityError(
                f"{file.path} in the cache has the wrong bytes",
                hint="Run once with a network and `verify=True`: the file will be fetched again.",
            )


def _fetch(plan: Plan, hub: Hub, progress: _Progress, *, verify: bool) -> None:
    """Download what is missing, several files at once, largest component first."""
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    sizes = {file.path: file.size for file in plan.files}
    weight = {
        path: sum(sizes[p] for p in component.paths)
        for component in plan.components
        for path in component.paths
    }
    order = sorted(plan.files, key=lambda f: (-weight[f.path], -f.size, f.path))
    pool = ThreadPoolExecutor(hub.policy.max_workers, thread_name_prefix="download")

    def fetch(file: RepoFile) -> None:
        hub.fetch(plan.commit_hash, file, verify_cached=verify)
        progress.done(file.path)

    running = [pool.submit(fetch, file) for file in order]
    finished, _ = wait(running, return_when=FIRST_EXCEPTION)
    for future in finished:
        if error := future.exception():
            pool.shutdown(wait=False, cancel_futures=True)
            raise error


def _run() -> NoReturn:
    try:
        main()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    # Threads that still download must not delay the end.
    os._exit(0)


if __name__ == "__main__":
    _run()
