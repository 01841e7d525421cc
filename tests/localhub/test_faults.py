"""Bytes, statuses and ends of connections, seen by a client that retries nothing."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest
from huggingface_hub import hf_hub_download

from nbloader.localhub import Counters, Cut, Fault, LocalHub, LoggedRequest, RequestClass, Traffic
from nbloader.localhub.answers import invert

Publish = Callable[[Mapping[str, bytes]], str]
WriteRepo = Callable[[Path, str, Mapping[str, bytes]], None]

_TIMEOUT_S = 10.0
_SILENCE_S = 0.2


@dataclass(frozen=True)
class Seen:
    """What a client saw: status and headers unless the connection ended first, body, and end."""

    status: int | None
    body: bytes
    error: type[Exception] | None
    headers: Mapping[str, str]


def _fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    silent_after: int | None = None,
) -> Seen:
    """Send a request; after `silent_after` bytes of body, wait for more but a moment."""
    parts = urlsplit(url)
    timeout_s = _SILENCE_S if silent_after == 0 else _TIMEOUT_S
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    status, body, error, answered = None, b"", None, {}
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, headers=dict(headers or {}))
        with connection.getresponse() as response:
            status, answered = response.status, dict(response.headers)
            while chunk := response.read1(65536):
                body += chunk
                if len(body) == silent_after:
                    connection.sock.settimeout(_SILENCE_S)
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
    except (OSError, http.client.HTTPException) as caught:
        error = type(caught)
    finally:
        connection.close()
    return Seen(status, body, error, answered)


@pytest.fixture
def large(hub: LocalHub, publish: Publish, weights: bytes) -> str:
    """The signed URL of `weights` on the CDN; what led to it is not counted."""
    repo_id = publish({"a.bin": weights})
    url = _fetch(f"{hub.endpoint}/{repo_id}/resolve/main/a.bin", method="HEAD").headers["Location"]
    hub.reset_counters()
    return url


@pytest.fixture
def small(hub: LocalHub, publish: Publish) -> str:
    """The URL of a file with five bytes, past its redirect; that is not counted."""
    repo_id = publish({"a.txt": b"small"})
    seen = _fetch(f"{hub.endpoint}/{repo_id}/resolve/main/a.txt")
    hub.reset_counters()
    return hub.endpoint + seen.headers["Location"]


def _counted(hub: LocalHub, request_class: RequestClass) -> Traffic:
    """Return the counters of a class, and that nothing else was counted."""
    counters = hub.counters()
    assert list(counters.by_class) == [request_class]
    return counters.of(request_class)


def test_a_file_and_its_parts_are_served(hub: LocalHub, large: str, weights: bytes) -> None:
    etag = _fetch(large, method="HEAD").headers["ETag"]
    whole = _fetch(large)
    part = _fetch(large, headers={"Range": "bytes=1000000-1999999"})
    resumed = _fetch(large, headers={"Range": "bytes=2999999-", "If-Range": etag})
    changed = _fetch(large, headers={"Range": "bytes=2999999-", "If-Range": '"other"'})
    past = _fetch(large, headers={"Range": "bytes=3000000-"})
    assert [(seen.status, seen.body, seen.error) for seen in (whole, part, resumed, changed)] == [
        (200, weights, None),
        (206, weights[1_000_000:2_000_000], None),
        (206, weights[-1:], None),
        (200, weights, None),
    ]
    assert part.headers["Content-Range"] == "bytes 1000000-1999999/3000000"
    assert (past.status, past.headers["Content-Range"]) == (416, "bytes */3000000")
    assert hub.counters().by_class == {
        RequestClass.CDN_HEAD: Traffic(1, 0),
        RequestClass.CDN_GET: Traffic(5, 7_000_001),
    }


def test_the_log_says_what_was_asked(hub: LocalHub, publish: Publish, weights: bytes) -> None:
    repo_id = publish({"a.bin": weights})
    url = f"{hub.endpoint}/{repo_id}/resolve/main/a.bin"
    hub.add_token("hf_ann", name="ann")
    token = {"Authorization": "Bearer hf_ann"}
    location = _fetch(url, method="HEAD", headers=token).headers["Location"]
    _fetch(location, headers={"Range": "bytes=0-9", **token})
    _fetch(f"{hub.endpoint}/nowhere")
    common = {"path": f"{repo_id}/a.bin", "had_authorization": True}
    assert hub.requests() == [
        LoggedRequest(
            request_class=RequestClass.RESOLVE_HEAD,
            method="HEAD",
            status=302,
            body_bytes=0,
            range=None,
            **common,  # type: ignore[arg-type]  # the values of `common` fit their names
        ),
        LoggedRequest(
            request_class=RequestClass.CDN_GET,
            method="GET",
            status=206,
            body_bytes=10,
            range="bytes=0-9",
            **common,  # type: ignore[arg-type]  # as above
        ),
        LoggedRequest(
            request_class=RequestClass.OTHER,
            method="GET",
            path="/nowhere",
            status=404,
            body_bytes=22,
            range=None,
            had_authorization=False,
        ),
    ]
    assert hub.counters().cdn_authorizations == 1


def test_a_small_file_comes_by_a_redirect_to_the_same_origin(
    hub: LocalHub, publish: Publish
) -> None:
    repo_id = publish({"a b.txt": b"small"})
    first = _fetch(f"{hub.endpoint}/{repo_id}/resolve/main/a%20b.txt")
    commit = first.headers["X-Repo-Commit"]
    location = f"/api/resolve-cache/models/{repo_id}/{commit}/a%20b.txt"
    second = _fetch(hub.endpoint + location)
    assert (first.status, first.body, first.headers["Location"]) == (307, b"", location)
    assert (second.status, second.body, second.headers["X-Repo-Commit"]) == (200, b"small", commit)
    assert second.headers["Content-Length"] == "5"


def test_the_redirect_of_small_files_can_be_left_out(tmp_path: Path, write_repo: WriteRepo) -> None:
    write_repo(tmp_path, "org/name", {"a.txt": b"small"})
    with LocalHub.start(tmp_path, resolve_cache=False, max_seconds=60) as hub:
        seen = _fetch(f"{hub.endpoint}/org/name/resolve/main/a.txt")
    assert (seen.status, seen.body) == (200, b"small")


@pytest.mark.parametrize(
    ("cut", "error"),
    [
        (Cut.DROP, http.client.IncompleteRead),
        (Cut.RESET, ConnectionResetError),
        (Cut.STALL, TimeoutError),
        (Cut.TRUNCATE, None),
    ],
)
@pytest.mark.parametrize("after_bytes", [1, 700_001])
def test_a_cut_comes_after_exactly_so_many_bytes(
    hub: LocalHub,
    large: str,
    weights: bytes,
    cut: Cut,
    error: type[Exception] | None,
    after_bytes: int,
) -> None:
    hub.set_faults([Fault(RequestClass.CDN_GET, cut=cut, after_bytes=after_bytes, times=1)])
    seen = _fetch(large, silent_after=after_bytes if cut is Cut.STALL else None)
    length = after_bytes if cut is Cut.TRUNCATE else len(weights)
    assert (seen.status, seen.body, seen.error) == (200, weights[:after_bytes], error)
    assert seen.headers["Content-Length"] == str(length)
    assert _counted(hub, RequestClass.CDN_GET) == Traffic(1, after_bytes)
    again = _fetch(large, headers={"Range": f"bytes={after_bytes}-"})
    assert (again.status, seen.body + again.body, again.error) == (206, weights, None)
    assert _counted(hub, RequestClass.CDN_GET) == Traffic(2, len(weights))


@pytest.mark.parametrize(
    ("cut", "error"),
    [
        (Cut.DROP, http.client.RemoteDisconnected),
        (Cut.RESET, ConnectionResetError),
        (Cut.STALL, TimeoutError),
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_cut_after_no_byte_leaves_no_answer(
    hub: LocalHub, small: str, cut: Cut, error: type[Exception], method: str
) -> None:
    request_class = RequestClass(f"resolve-{method.lower()}")
    hub.set_faults([Fault(request_class, cut=cut)])
    seen = _fetch(small, method=method, silent_after=0 if cut is Cut.STALL else None)
    assert (seen.status, seen.body, seen.error) == (None, b"", error)
    assert _counted(hub, request_class) == Traffic(1, 0)
    assert hub.requests()[0].status is None


def test_a_stalled_answer_stops_no_other(hub: LocalHub, small: str) -> None:
    hub.set_faults([Fault(RequestClass.RESOLVE_GET, cut=Cut.STALL, after_bytes=2, times=1)])
    with _opened(small) as stalled:
        assert _fetch(small).body == b"small"
        assert stalled.recv(1) == b"H"


@contextmanager
def _opened(url: str) -> Iterator[socket.socket]:
    """Send a request, and leave the answer unread."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 0)
    with socket.create_connection(address, timeout=_TIMEOUT_S) as connection:
        connection.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        # The first byte: the request has arrived, and its fault is taken.
        assert connection.recv(1, socket.MSG_PEEK) == b"H"
        yield connection


def test_bytes_that_a_client_does_not_take_are_not_counted(hub: LocalHub, publish: Publish) -> None:
    repo_id = publish({"large.bin": bytes(64 << 20)})
    parts = urlsplit(_fetch(f"{hub.endpoint}/{repo_id}/resolve/main/large.bin").headers["Location"])
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        # A small window, set before the first byte, so that the kernels cannot hold the file.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(1) == b"H"
    deadline = time.monotonic() + _TIMEOUT_S
    path = f"{repo_id}/large.bin"
    # The server hears of the end by the next write; until then a slice may be counted ahead.
    while hub.counters().body_bytes_by_path[path] >= 8 << 20:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_cut_past_the_end_changes_nothing(hub: LocalHub, small: str) -> None:
    hub.set_faults([Fault(RequestClass.RESOLVE_GET, cut=Cut.RESET, after_bytes=5)])
    seen = _fetch(small)
    assert (seen.status, seen.body, seen.error) == (200, b"small", None)


def test_an_error_carries_its_retry_after(hub: LocalHub, small: str) -> None:
    hub.set_faults([Fault(RequestClass.RESOLVE_GET, status=429, retry_after="7", times=1)])
    seen = _fetch(small)
    assert (seen.status, seen.headers["Retry-After"]) == (429, "7")
    assert _fetch(small).status == 200
    assert [entry.status for entry in hub.requests()] == [429, 200]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_an_error_of_the_server_stands_in_for_the_answer(
    hub: LocalHub, large: str, status: int
) -> None:
    hub.set_faults([Fault(RequestClass.CDN_GET, status=status)])
    seen = _fetch(large)
    assert seen.status == status
    assert _counted(hub, RequestClass.CDN_GET) == Traffic(1, len(seen.body))


def test_a_fault_keeps_to_its_path(hub: LocalHub, publish: Publish) -> None:
    repo_id = publish({"a.txt": b"a", "b.txt": b"b"})
    hub.set_faults([Fault(RequestClass.RESOLVE_GET, path="*/b.txt", status=503)])
    base = f"{hub.endpoint}/{repo_id}/resolve/main"
    assert [_fetch(f"{base}/{name}").status for name in ("a.txt", "b.txt")] == [307, 503]


def test_wrong_bytes_are_the_same_for_the_whole_and_for_a_part(
    hub: LocalHub, large: str, weights: bytes
) -> None:
    hub.set_faults([Fault(RequestClass.CDN_GET, wrong_bytes=True)])
    wrong = invert(weights, 0)
    part = _fetch(large, headers={"Range": "bytes=1500-1999999"})
    assert (_fetch(large).body, part.body) == (wrong, wrong[1500:2_000_000])
    hub.clear_faults()
    assert _fetch(large).body == weights


def test_the_cdn_can_refuse_as_if_the_signature_had_expired(hub: LocalHub, large: str) -> None:
    hub.set_faults([Fault(RequestClass.CDN_GET, expired=True, times=1)])
    assert [_fetch(large).status for _ in range(2)] == [403, 200]


def test_a_signature_can_be_too_old_or_forged(
    tmp_path: Path, write_repo: WriteRepo, hub: LocalHub, large: str
) -> None:
    write_repo(tmp_path, "org/name", {"a.bin": b"a"})
    with LocalHub.start(tmp_path, signature_seconds=0, max_seconds=60) as other:
        old = _fetch(f"{other.endpoint}/org/name/resolve/main/a.bin").headers["Location"]
        expired = _fetch(old)
    forged = _fetch(large.replace("Expires=1", "Expires=2"))
    bare = _fetch(large.partition("?")[0])
    assert [(seen.status, seen.body) for seen in (expired, forged, bare)] == [
        (403, b'{"error": "Request has expired"}'),
        (403, b'{"error": "Access denied"}'),
        (403, b'{"error": "Access denied"}'),
    ]


def test_a_redirect_can_lead_to_itself(hub: LocalHub, publish: Publish, weights: bytes) -> None:
    repo_id = publish({"a.bin": weights})
    url = f"{hub.endpoint}/{repo_id}/resolve/main/a.bin"
    location = _fetch(url).headers["Location"]
    classes = (RequestClass.RESOLVE_HEAD, RequestClass.RESOLVE_GET, RequestClass.CDN_GET)
    hub.set_faults([Fault(name, redirect=True) for name in classes])
    for method, asked in (("HEAD", url), ("GET", url), ("GET", location)):
        seen = _fetch(asked, method=method)
        target = urljoin(asked, seen.headers["Location"])
        assert (seen.status, seen.body, target) == (302, b"", asked)


def test_the_hubs_own_client_gives_up_on_a_redirect_to_itself(
    hub: LocalHub, publish: Publish, weights: bytes, tmp_path: Path
) -> None:
    repo_id = publish({"a.bin": weights})
    hub.set_faults([Fault(RequestClass.CDN_GET, redirect=True)])
    with pytest.raises(httpx2.TooManyRedirects):
        hf_hub_download(repo_id, "a.bin", endpoint=hub.endpoint, cache_dir=tmp_path, token=False)


def test_an_etag_can_be_another(hub: LocalHub, large: str, weights: bytes) -> None:
    own = _fetch(large, method="HEAD").headers["ETag"]
    hub.set_faults([Fault(RequestClass.CDN_GET, etag="other")])
    asked = {
        "own": {"If-Range": own},
        "other": {"If-Range": '"other"'},
        "no": {},
    }
    answers = {
        name: _fetch(large, headers={"Range": "bytes=2999999-", **condition})
        for name, condition in asked.items()
    }
    assert {
        name: (seen.status, seen.body, seen.headers["ETag"]) for name, seen in answers.items()
    } == {
        "own": (200, weights, '"other"'),
        "other": (206, weights[-1:], '"other"'),
        "no": (206, weights[-1:], '"other"'),
    }


@pytest.mark.parametrize(
    ("name", "status", "header"),
    [("a.bin", 302, "X-Linked-Etag"), ("a.txt", 307, "X-Linked-Etag")],
)
def test_the_hub_can_tell_another_etag(
    hub: LocalHub, publish: Publish, name: str, status: int, header: str
) -> None:
    repo_id = publish({"a.bin": b"large", "a.txt": b"small"})
    hub.set_faults([Fault(RequestClass.RESOLVE_HEAD, etag="other", times=1)])
    url = f"{hub.endpoint}/{repo_id}/resolve/main/{name}"
    seen = [_fetch(url, method="HEAD") for _ in range(2)]
    assert [answer.status for answer in seen] == [status, status]
    assert seen[0].headers[header] == '"other"' != seen[1].headers[header]


def test_a_small_file_can_have_another_etag(hub: LocalHub, small: str) -> None:
    hub.set_faults([Fault(RequestClass.RESOLVE_GET, etag="other")])
    seen = _fetch(small)
    assert (seen.status, seen.body, seen.headers["ETag"]) == (200, b"small", '"other"')


def test_a_range_can_be_ignored(hub: LocalHub, large: str, weights: bytes) -> None:
    hub.set_faults([Fault(RequestClass.CDN_GET, ignore_range=True, times=2)])
    ranges = ["bytes=5-9", "bytes=5000000-", "bytes=5-9"]
    seen = [_fetch(large, headers={"Range": range_}) for range_ in ranges]
    assert [(answer.status, answer.body) for answer in seen] == [
        (200, weights),
        (200, weights),
        (206, weights[5:10]),
    ]


def test_a_token_can_become_stale(hub: LocalHub, publish: Publish) -> None:
    repo_id = publish({"a.txt": b"a"})
    hub.set_access(repo_id, private=True)
    url = f"{hub.endpoint}/api/models/{repo_id}"
    statuses = []
    for stale in (False, True, False):
        hub.add_token("hf_ann", name="ann", repos=[repo_id], stale=stale)
        statuses.append(_fetch(url, headers={"Authorization": "Bearer hf_ann"}).status)
    assert statuses == [200, 401, 200]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(RequestClass.CDN_GET, bytes_per_second=10e6),
        Fault(RequestClass.CDN_GET, total_bytes_per_second=10e6),
    ],
    ids=["each", "total"],
)
def test_a_cap_slows_an_answer_down(
    hub: LocalHub, large: str, weights: bytes, fault: Fault
) -> None:
    hub.set_faults([fault])
    start = time.monotonic()
    assert _fetch(large).body == weights
    assert time.monotonic() - start >= len(weights) / 10e6
    assert _counted(hub, RequestClass.CDN_GET) == Traffic(1, len(weights))


def test_latency_delays_an_answer(hub: LocalHub, small: str) -> None:
    hub.set_faults([Fault(RequestClass.RESOLVE_GET, latency_s=0.2, times=1)])
    start = time.monotonic()
    assert _fetch(small).body == b"small"
    assert time.monotonic() - start >= 0.2


def test_faults_hit_listings_too(hub: LocalHub, publish: Publish) -> None:
    repo_id = publish({"a.txt": b"a"})
    url = f"{hub.endpoint}/api/models/{repo_id}/tree/main"
    whole = _fetch(url).body
    hub.reset_counters()
    hub.set_faults([Fault(RequestClass.TREE, cut=Cut.DROP, after_bytes=10)])
    seen = _fetch(url)
    assert (seen.body, seen.error) == (whole[:10], http.client.IncompleteRead)
    assert hub.counters() == Counters(
        by_class={RequestClass.TREE: Traffic(1, 10)}, body_bytes_by_path={repo_id: 10}
    )


@pytest.mark.parametrize(
    "path",
    [
        "/org/{name}/resolve/main/../../../../secret",
        "/org/{name}/resolve/main/..%2f..%2f..%2f..%2fsecret",
        "/org/{name}/resolve/main/%2e%2e/%2e%2e/secret",
        "/org/{name}/resolve/main//etc/passwd",
        "/org/..%2f..%2fmodels%2forg/resolve/main/{name}/a.txt",
        "/org/%2e%2e/resolve/main/org/{name}/a.txt",
        "/../models/resolve/main/org/a.txt",
        "/org/{name}/resolve/..%2f../a.txt",
        "/api/models/org/{name}/tree/main/..%2f..",
        "/api/models/%2e%2e/models",
        "/api/resolve-cache/models/org/{name}/main/..%2f{name}/a.txt",
        "/.localhub/index.json",
    ],
)
def test_no_request_leaves_the_repository(
    hub: LocalHub, hub_root: Path, publish: Publish, path: str
) -> None:
    (hub_root / "secret").write_text("secret")
    name = publish({"a.txt": b"a"}).partition("/")[2]
    seen = _fetch(hub.endpoint + path.format(name=name))
    assert seen.status in (401, 404)
    assert b"secret" not in seen.body


@pytest.mark.parametrize("query", ["cursor=x", "cursor=-1", "limit=%C2%B2", "cursor=" + "9" * 5000])
def test_a_bad_query_is_refused(hub: LocalHub, publish: Publish, query: str) -> None:
    repo_id = publish({"a.txt": b"a"})
    assert _fetch(f"{hub.endpoint}/api/models/{repo_id}/tree/main?{query}").status == 400
