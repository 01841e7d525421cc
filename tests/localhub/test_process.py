from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from nbloader.localhub import Cut, Fault, LocalHub, LocalHubError, RequestClass

_COMMAND = [sys.executable, "-m", "nbloader.localhub"]


def test_the_command_tells_its_addresses_and_ends_in_time(tmp_path: Path) -> None:
    done = subprocess.run(
        [*_COMMAND, "--root", tmp_path, "--max-seconds", "0"],
        capture_output=True,
        timeout=30,
        check=True,
    )
    addresses = json.loads(done.stdout)
    assert list(addresses) == ["endpoint", "cdn", "cas", "control", "key", "authority"]
    assert addresses["authority"] is None
    urls = [urlsplit(addresses[name]) for name in ("endpoint", "cdn", "cas", "control")]
    # The Hub and its CDN differ in more than the port: some clients compare the names alone.
    names = ["127.0.0.1", "localhost", "127.0.0.1", "127.0.0.1"]
    assert [url.hostname for url in urls] == names
    assert len({url.port for url in urls}) == 4
    assert done.stderr == b""


def test_it_listens_on_loopback_only(hub: LocalHub) -> None:
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(hub.pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"] * 4


def test_it_ends_when_its_handle_stops(tmp_path: Path) -> None:
    hub = LocalHub.start(tmp_path)
    hub.stop()
    hub.stop()
    assert not psutil.pid_exists(hub.pid)
    with pytest.raises(LocalHubError, match="does not answer"):
        hub.counters()


def test_it_ends_on_sigterm(tmp_path: Path) -> None:
    with LocalHub.start(tmp_path) as hub:
        os.kill(hub.pid, signal.SIGTERM)
        assert psutil.Process(hub.pid).wait(timeout=10) == 0


@pytest.mark.parametrize("pipe_is_held", [False, True])
def test_it_ends_when_its_parent_is_killed(tmp_path: Path, pipe_is_held: bool) -> None:
    program = f"""
import os, sys, time
from nbloader.localhub import LocalHub
hub = LocalHub.start(sys.argv[1])
print(hub.pid, flush=True)
if {pipe_is_held}:
    # A child that is forked now has the parent's end of the server's stdin.
    child = os.fork()
    if child:
        print(child, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        child = psutil.Process(int(parent.stdout.readline())) if pipe_is_held else None
        parent.kill()
        try:
            _wait_for_end(server)
        finally:
            if child is not None:
                child.kill()


def _wait_for_end(process: psutil.Process) -> None:
    """Wait until a process has ended; whether its new parent has collected it is no matter."""
    deadline = time.monotonic() + 10
    with suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_it_ends_at_once_while_an_answer_stalls(tmp_path: Path) -> None:
    with LocalHub.start(tmp_path) as stalled:
        stalled.set_faults([Fault(RequestClass.WHOAMI, cut=Cut.STALL)])
        connection = http.client.HTTPConnection(urlsplit(stalled.endpoint).netloc, timeout=10)
        connection.request("GET", "/api/whoami-v2")
        while not stalled.counters().total.requests:
            pass
        start = time.monotonic()
        stalled.stop()
        # Below the time after which the handle would kill it.
        assert time.monotonic() - start < 4
        connection.close()


def test_a_failed_start_shows_why(tmp_path: Path) -> None:
    with pytest.raises(LocalHubError, match=r"status 2:(?s:.*)argument --page-size: at least 1"):
        LocalHub.start(tmp_path, page_size=0)


def test_a_start_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(LocalHubError, match="not ready after 0 s"):
        LocalHub.start(tmp_path, start_timeout_s=0)


def test_modules_of_the_working_folder_do_not_get_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError('the wrong module')")
    monkeypatch.chdir(tmp_path)
    with LocalHub.start("root") as hub:
        assert hub.requests() == []


@pytest.mark.parametrize("key", [None, "", "wrong", "é"])
def test_control_needs_the_key(hub: LocalHub, key: str | None) -> None:
    connection = http.client.HTTPConnection(hub._control, timeout=10)
    headers = {} if key is None else {"X-Localhub-Key": key.encode()}
    connection.request("DELETE", "/traffic", headers=headers)
    assert connection.getresponse().status == 403
    connection.close()


def test_control_refuses_what_it_does_not_know(hub: LocalHub) -> None:
    with pytest.raises(LocalHubError, match="unknown fields"):
        hub._call("PUT", "/faults", [{"request_class": "tree", "colour": "red"}])
    with pytest.raises(LocalHubError, match="org/nothing"):
        hub.set_access("org/nothing", private=True)
    hub.set_faults([Fault(RequestClass.TREE)])


def test_the_handle_needs_the_standard_library_only() -> None:
    program = """
import sys
import nbloader
before = set(sys.modules)
import nbloader.localhub
foreign = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(foreign - sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "['nbloader']"
