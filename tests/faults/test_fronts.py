"""Mirrors, proxies and firewalls before the servers, which answer in ways of their own."""

from __future__ import annotations

import email.utils
import gzip
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbloader.errors import DownloadError, HubUnreachableError
from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.records import Route
from tests.conftest import WriteRepo
from tests.faults.repos import ONE, SIZES, SMALL
from tests.faults.runs import BODY, check_kept, check_right, check_stopped, download
from tests.servers import Change, Front, fronted

CDN = BODY["http"]
SOON_S = 30.0
"""For a download that cannot work to say so: with waits as they are by default."""

PATIENT: dict[str, Any] = {"retry_delay_min": 5.0, "retry_delay_max": 60.0}

Headers = dict[str, str]
Changed = tuple[int, Headers, bytes]

_numbers = itertools.count()


def unknown_length(status: int, headers: Headers, body: bytes) -> Changed:
    if status == 206:
        headers["Content-Range"] = headers["Content-Range"].rpartition("/")[0] + "/*"
    return status, headers, body


def shorter(status: int, headers: Headers, body: bytes) -> Changed:
    if status == 206 and len(body) > 700_000:
        span, _, size = headers["Content-Range"].rpartition("/")
        first = int(span.split()[1].partition("-")[0])
        headers["Content-Range"] = f"bytes {first}-{first + 699_999}/{size}"
        body = body[:700_000]
    return status, headers, body


def no_content_range(status: int, headers: Headers, body: bytes) -> Changed:
    headers.pop("Content-Range", None)
    return status, headers, body


def in_chunks(status: int, headers: Headers, body: bytes) -> Changed:
    headers.update({"Transfer-Encoding": "chunked", "ETag": '"of-the-proxy"'})
    return status, headers, body


def whole_in_chunks(status: int, headers: Headers, body: bytes) -> Changed:
    if status == 206:
        return 200, {"Transfer-Encoding": "chunked"}, ONE.files["one.bin"]
    return status, headers, body


def other_etags(status: int, headers: Headers, body: bytes) -> Changed:
    headers["ETag"] = f'"node-{next(_numbers)}"'
    return status, headers, body


@pytest.mark.parametrize(
    "change",
    [unknown_length, shorter, no_content_range, in_chunks, whole_in_chunks, other_etags],
)
def test_an_answer_of_another_form_is_used(hub: LocalHub, tmp_path: Path, change: Change) -> None:
    with fronted(hub.endpoint, hub.cdn, of_cdn=change) as (front, _):
        run = download(hub, ONE, tmp_path, endpoint=front.url, route="http")
    check_right(run)


def test_small_files_that_are_always_compressed(hub: LocalHub, tmp_path: Path) -> None:
    def compress(status: int, headers: Headers, body: bytes) -> Changed:
        if status in (200, 206):
            headers.pop("Content-Range", None)
            headers["Content-Encoding"] = "gzip"
            status, body = 200, gzip.compress(body)
        if "X-Linked-Etag" in headers:
            headers["X-Linked-Etag"] = '"of-the-mirror"'
        return status, headers, body

    with fronted(hub.endpoint, hub.cdn, of_hub=compress) as (front, _):
        run = download(hub, SMALL, tmp_path, endpoint=front.url, route="http")
    check_right(run)
    assert run.retries == []


def test_small_files_whose_length_nobody_tells(hub: LocalHub, tmp_path: Path) -> None:
    with fronted(hub.endpoint, hub.cdn, of_hub=in_chunks) as (front, _):
        run = download(hub, SMALL, tmp_path, endpoint=front.url, route="http")
    check_right(run)
    assert run.retries == []


def test_a_web_page_in_place_of_the_hub_is_no_fault_of_the_token(
    hub: LocalHub, tmp_path: Path
) -> None:
    def page(status: int, headers: Headers, body: bytes) -> Changed:
        return 403, {"Content-Type": "text/html"}, b"<html>Blocked by policy</html>"

    front = Front(hub.endpoint, page)
    run = download(hub, SMALL, tmp_path, endpoint=front.url, token="hf_good")
    front.close()
    check_stopped(run, HubUnreachableError, "403 with a web page", front.url)


def test_a_listing_that_goes_on_elsewhere_is_asked_of_the_mirror(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, write_repo: WriteRepo
) -> None:
    root = tmp_path_factory.mktemp("pages")
    write_repo(root, SMALL.repo_id, SMALL.files)
    with LocalHub.start(root, page_size=1) as paged:
        real = Front(paged.endpoint)

        def links(status: int, headers: Headers, body: bytes) -> Changed:
            headers = {n: v.replace(paged.endpoint, real.url) for n, v in headers.items()}
            return status, headers, body

        mirror = Front(paged.endpoint, links)
        paged.add_token("hf_mirrored")
        run = download(paged, SMALL, tmp_path, token="hf_mirrored", endpoint=mirror.url)
        mirror.close()
        real.close()
    check_right(run)
    assert real.asked == []
    assert sum("/tree/" in path for path, _ in mirror.asked) == len(SMALL.files)


@pytest.mark.parametrize("years", [-3, 3])
def test_the_clock_of_the_hub_is_another(hub: LocalHub, tmp_path: Path, years: int) -> None:
    shift_s = years * 365 * 86_400

    def shifted(status: int, headers: Headers, body: bytes) -> Changed:
        if b'"exp"' in body:
            answer = json.loads(body)
            answer["exp"] += shift_s
            body = json.dumps(answer).encode()
            headers["Date"] = email.utils.formatdate(time.time() + shift_s, usegmt=True)
        return status, headers, body

    with fronted(hub.endpoint, hub.cdn, of_hub=shifted) as (front, _):
        run = download(hub, ONE, tmp_path, endpoint=front.url, route="xet")
    check_right(run)
    assert run.retries == []
    assert hub.counters().of(RequestClass.XET_TOKEN).requests == 1


# -- what is blocked -------------------------------------------------------------------------------


def test_a_web_page_in_place_of_a_file_is_told_soon(hub: LocalHub, tmp_path: Path) -> None:
    def page(status: int, headers: Headers, body: bytes) -> Changed:
        return 200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Blocked by policy</html>"

    began = time.monotonic()
    with fronted(hub.endpoint, hub.cdn, of_cdn=page) as (front, files):
        run = download(hub, ONE, tmp_path, endpoint=front.url, route="http", **PATIENT)
    check_stopped(run, DownloadError, "one.bin", "web page", files.host)
    assert time.monotonic() - began < SOON_S
    check_kept(hub, run, tmp_path, route="http")


@pytest.fixture(params=["refused", "reset", "closed", "no name"])
def blocked(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that lets nobody in."""
    if request.param == "no name":
        yield "http://files.invalid"
        return
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    if request.param == "refused":
        listening.close()
        yield url
        return

    def serve() -> None:
        try:
            while True:
                connection, _ = listening.accept()
                if request.param == "reset":
                    linger = b"\1\0\0\0\0\0\0\0"
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.close()
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    yield url
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def test_a_blocked_host_is_named_soon(hub: LocalHub, tmp_path: Path, blocked: str) -> None:
    def lead(status: int, headers: Headers, body: bytes) -> Changed:
        if "Location" in headers:
            headers["Location"] = headers["Location"].replace(hub.cdn, blocked)
        return status, headers, body

    front = Front(hub.endpoint, lead)
    began = time.monotonic()
    run = download(hub, ONE, tmp_path, endpoint=front.url, route="http", **PATIENT)
    front.close()
    host = blocked.partition("//")[2]
    check_stopped(run, DownloadError, "one.bin", host, "3 attempts")
    assert isinstance(run.error, DownloadError)
    assert run.error.hint is not None
    assert host in run.error.hint
    assert time.monotonic() - began < SOON_S


def test_all_comes_over_xet_where_the_host_of_downloads_is_blocked(
    hub: LocalHub, tmp_path: Path
) -> None:
    run = download(hub, SIZES, tmp_path, [Fault(CDN, cut=Cut.RESET)])
    check_right(run)
    assert {retry.route for retry in run.retries} == {Route.XET}
    assert hub.counters().of(CDN).body_bytes == 0


def test_all_comes_over_http_where_xet_storage_is_blocked(hub: LocalHub, tmp_path: Path) -> None:
    blocked = (RequestClass.XET_RECONSTRUCTION, RequestClass.XET_XORB)
    run = download(hub, SIZES, tmp_path, [Fault(one, cut=Cut.RESET) for one in blocked])
    check_right(run)
    assert hub.counters().of(RequestClass.XET_XORB).body_bytes == 0
