"""The worker process: it ends when it should, and nothing of the user's gets in its way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import nbloader
from nbloader.errors import WorkerDiedError
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from nbloader.records import Event, SelectionRequest, TransferPolicy
from nbloader.transfer.child import environment, worker_path
from nbloader.transfer.protocol import PROTOCOL_VERSION, Hello, Report, Start
from nbloader.transfer.supervisor import Cancelled, Worker, transfer

SLOW = Fault(RequestClass.CDN_GET, bytes_per_second=500_000)

LOAD = """
import os, signal, sys
import nbloader

# A run in the background of a shell starts with interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def downloading(event):
    if event.type == "file-progress" and event.completed:
        print("downloading", flush=True)

if len(sys.argv) > 3:
    # A child that was made by fork holds a copy of every pipe of its parent.
    import threading, time
    def fork():
        time.sleep(1)
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    threading.Thread(target=fork).start()
    time.sleep(0.1)
try:
    nbloader.download(
        "sentence-transformers/all-MiniLM-L6-v2",
        endpoint=sys.argv[1], cache_dir=sys.argv[2], view="none", on_event=downloading,
    )
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


class Parent:
    """A process that downloads slowly, caught in the middle of it."""

    def __init__(self, hub: LocalHub, cache: Path, *more: str) -> None:
        hub.set_faults([SLOW])
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOAD, hub.endpoint, str(cache), *more],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "downloading\n"
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        self.worker = next(child for child in self.children if "nbloader.worker" in child.cmdline())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for child in self.children:
            if child.is_running():
                child.kill()
        if self.process.stdout:
            self.process.stdout.close()


def ended(process: psutil.Process) -> bool:
    """Whether a process is gone; one that nobody has collected yet is."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


@pytest.fixture
def parent(demo_hub: LocalHub, tmp_path: Path) -> Iterator[Parent]:
    parent = Parent(demo_hub, tmp_path / "cache")
    yield parent
    parent.end()


def test_killing_the_parent_ends_the_worker(parent: Parent) -> None:
    parent.process.send_signal(signal.SIGKILL)
    wait_for(lambda: ended(parent.worker), seconds=2)


def test_a_fork_that_holds_the_pipes_does_not_keep_the_worker(
    demo_hub: LocalHub, tmp_path: Path
) -> None:
    parent = Parent(demo_hub, tmp_path / "cache", "fork")
    try:
        family = psutil.Process(parent.process.pid)
        wait_for(lambda: len(family.children()) == 2, seconds=20)
        fork = next(child for child in family.children() if child != parent.worker)
        parent.children.append(fork)
        parent.process.send_signal(signal.SIGKILL)
        wait_for(lambda: ended(parent.worker), seconds=2)
        assert not ended(fork)
    finally:
        parent.end()


def test_an_interrupt_leaves_no_process(parent: Parent) -> None:
    parent.process.send_signal(signal.SIGINT)
    out, _ = parent.process.communicate(timeout=10)
    assert (parent.process.returncode, out.splitlines()[-1]) == (0, "interrupted")
    assert all(ended(child) for child in parent.children)


def our_workers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "nbloader.worker" in child.cmdline()]


def test_cancelling_from_another_thread_ends_the_worker(demo_hub: LocalHub, tmp_path: Path) -> None:
    demo_hub.set_faults([SLOW])
    cancelled = threading.Event()
    with pytest.raises(Cancelled):
        transfer(
            Start(
                repo_id=MINILM, revision="main", request=SelectionRequest(), policy=TransferPolicy()
            ),
            endpoint=demo_hub.endpoint,
            cache_dir=str(tmp_path),
            publish=lambda event: cancelled.set() if event.type == "file-progress" else None,
            approve=lambda event: None,
            cancelled=cancelled,
        )
    assert our_workers() == []


def test_cancelling_the_task_of_aload_ends_the_worker(demo_hub: LocalHub, tmp_path: Path) -> None:
    demo_hub.set_faults([SLOW])

    async def main() -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(
            nbloader.aload(
                MINILM,
                endpoint=demo_hub.endpoint,
                cache_dir=tmp_path,
                view="none",
                on_event=lambda event: (
                    loop.call_soon_threadsafe(begun.set) if event.type == "file-progress" else None
                ),
            )
        )
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert our_workers() == []


def test_modules_in_the_working_folder_do_not_break_it(
    demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("queue", "tqdm", "json", "huggingface_hub", "tenacity"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend("")
    folder = nbloader.download(MINILM, endpoint=demo_hub.endpoint, cache_dir="cache", view="none")
    assert folder.is_relative_to(tmp_path / "cache")


def test_a_library_that_prints_does_not_break_the_protocol(
    demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tenacity.py").write_text(
        "import os, sys\n"
        "print('loud')\n"
        "os.write(1, b'louder')\n"
        "sys.path.remove(os.path.dirname(__file__))\n"
        "del sys.modules['tenacity']\n"
        "import tenacity\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = nbloader.download(
        MINILM, endpoint=demo_hub.endpoint, cache_dir=tmp_path / "cache", view="none"
    )
    assert (folder / "model.safetensors").is_file()


def test_a_token_is_neither_in_arguments_nor_environment_nor_sent_to_the_cdn(
    demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "hf_" + "x" * 34
    monkeypatch.setenv("HF_TOKEN", token)
    demo_hub.add_token(token)
    demo_hub.set_faults([SLOW])
    workers: list[list[object]] = []

    class Enough(Exception):  # noqa: N818
        pass

    def look(event: Event) -> None:
        if event.type == "file-progress" and event.path == "model.safetensors":
            workers.extend([child.cmdline(), child.environ()] for child in our_workers())
            raise Enough

    with pytest.raises(Enough):
        nbloader.download(
            MINILM, endpoint=demo_hub.endpoint, cache_dir=tmp_path, view="none", on_event=look
        )
    assert len(workers) == 1
    assert token not in repr(workers)
    by_class = {
        (request.request_class, request.had_authorization) for request in demo_hub.requests()
    }
    assert (RequestClass.MODEL_INFO, True) in by_class
    assert (RequestClass.CDN_GET, False) in by_class
    assert (RequestClass.CDN_GET, True) not in by_class


def test_the_environment_of_the_worker() -> None:
    parent = {"PATH": "/bin", "HF_TOKEN": "hf_x", "HF_HUB_CACHE": "/old", "LANG": "C"}
    env = environment(parent, endpoint="http://127.0.0.1:1", cache_dir="/new")
    path = env.pop("PYTHONPATH").split(os.pathsep)
    assert str(Path(nbloader.__file__).parents[1]) in path
    assert env == {
        "PATH": "/bin",
        "LANG": "C",
        "HF_ENDPOINT": "http://127.0.0.1:1",
        "HF_HUB_CACHE": "/new",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_SYMLINKS_WARNING": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_XET_CLIENT_CONNECT_TIMEOUT": "10s",
        "HF_XET_CLIENT_READ_TIMEOUT": "30s",
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "0",
        "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_LIMIT": "64mb",
        "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_SIZE": "64mb",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONWARNINGS": "ignore",
    }


def test_the_path_of_the_worker_puts_the_standard_library_first() -> None:
    standard = os.__file__.rpartition("/")[0]
    own = str(Path(nbloader.__file__).parents[1])
    path = ["", "/work", Path("/no-text"), "/user", standard, "/site-packages", own]
    assert worker_path(path, "/work") == [standard, "/user", "/site-packages", own]
    # Run from a checkout, the working folder is left out, but not the nbloader in it.
    assert worker_path(path, own) == [standard, own, "/work", "/user", "/site-packages"]


def said_by(worker: Worker) -> Report:
    while (report := worker.receive(1.0)) is None:
        pass
    return report


def test_a_worker_that_dies_says_how_and_shows_no_secrets() -> None:
    env = environment(os.environ, endpoint=None, cache_dir=None)
    with Worker(env) as worker:
        assert said_by(worker) == Hello(version=PROTOCOL_VERSION)
        os.kill(worker.pid, signal.SIGTERM)
        with pytest.raises(WorkerDiedError, match="the download process ended by signal 15"):
            said_by(worker)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")
def test_a_worker_keeps_the_memory_of_pieces_unless_the_user_has_set_that() -> None:
    env = environment(os.environ, endpoint=None, cache_dir=None) | {"MALLOC_ARENA_MAX": "3"}
    with Worker(env) as worker:
        assert said_by(worker) == Hello(version=PROTOCOL_VERSION)
        lines = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
    assert b"MALLOC_ARENA_MAX=3" in lines
    assert b"MALLOC_TRIM_THRESHOLD_=134217728" in lines


def test_a_broken_start_is_reported_with_the_end_of_stderr(tmp_path: Path) -> None:
    (tmp_path / "pydantic.py").write_text("raise RuntimeError('token hf_abcdefghijk')")
    env = environment(os.environ, endpoint=None, cache_dir=None)
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"
    with Worker(env) as worker, pytest.raises(WorkerDiedError) as caught:
        said_by(worker)
    assert "RuntimeError: token <redacted>" in caught.value.message
