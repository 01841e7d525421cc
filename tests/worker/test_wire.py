"""How bytes are moved, by servers that say and do what a test wants."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest

from nbloader.errors import ProxyError, UntrustedCertificateError
from nbloader.localhub import LocalHub
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure
from nbloader.worker.network import network_failures
from nbloader.worker.wire import BUFFER_BYTES, Answer, Canceller, Wires
from tests.conftest import WriteRepo
from tests.servers import PATIENCE_S, Proxy, Serve, Server

CONTENT = Random(7).randbytes(3 * BUFFER_BYTES + 1)


@pytest.fixture
def serve() -> Iterator[Callable[[Serve], Server]]:
    servers: list[Server] = []

    def start(answer: Serve) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def head(length: int | str = len(CONTENT), *more: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


def get(
    url: str,
    wires: Wires | None = None,
    canceller: Canceller | None = None,
    timeout_s: float = PATIENCE_S,
) -> Answer | None:
    return (wires or Wires()).get(
        url,
        {"Range": "bytes=0-9", "Accept-Encoding": "identity"},
        connect_s=PATIENCE_S,
        timeout_s=timeout_s,
        canceller=canceller or Canceller(),
    )


def read(answer: Answer | None) -> bytes:
    assert answer is not None
    with contextlib.closing(answer):
        return b"".join(bytes(chunk) for chunk in answer.chunks())


def reason_of(fetch: Callable[[], object]) -> tuple[Reason, str]:
    with pytest.raises(Failure) as caught:
        fetch()
    return caught.value.reason, str(caught.value)


def test_one_connection_serves_one_request_after_another(
    serve: Callable[[Serve], Server],
) -> None:
    server = serve(lambda connection: connection.sendall(head() + CONTENT))
    wires = Wires()
    assert [read(get(server.url, wires)) for _ in range(3)] == [CONTENT] * 3
    assert server.connections == 1
    assert {one.split(b"\r\n")[0] for one in server.heads} == {b"GET /a HTTP/1.1"}
    assert all(b"\r\nRange: bytes=0-9\r\n" in one for one in server.heads)
    assert all(one.count(b"Accept-Encoding: identity\r\n") == 1 for one in server.heads)


def test_a_fast_link_fills_the_buffer(serve: Callable[[Serve], Server]) -> None:
    server = serve(lambda connection: connection.sendall(head() + CONTENT))
    answer = get(server.url)
    assert answer is not None
    with contextlib.closing(answer):
        sizes = [len(chunk) for chunk in answer.chunks()]
    assert sum(sizes) == len(CONTENT)
    assert max(sizes) > BUFFER_BYTES // 4


def test_what_a_slow_link_brings_is_handed_over_at_once(serve: Callable[[Serve], Server]) -> None:
    came = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.sendall(head(20) + b"0123456789")
        assert came.wait(PATIENCE_S)
        connection.sendall(b"9876543210")

    answer = get(serve(trickle).url)
    assert answer is not None
    with contextlib.closing(answer):
        chunks = answer.chunks()
        first = bytes(next(chunks))
        came.set()
        assert first + b"".join(map(bytes, chunks)) == b"01234567899876543210"


@pytest.mark.parametrize(
    "headers",
    [
        ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked"],
        ["HTTP/1.1 200 OK", "Content-Length: 4", "Transfer-Encoding: chunked"],
        ["HTTP/1.1 200 OK", "Content-Length: 4", "Content-Length: 5"],
        ["HTTP/1.1 200 OK", "Content-Length: many"],
        ["HTTP/1.1 200 OK", "Content-Length: -4"],
        ["HTTP/1.1 200 OK"],
    ],
)
def test_a_body_of_unknown_length_is_left_to_the_client(
    serve: Callable[[Serve], Server], headers: list[str]
) -> None:
    answer = "\r\n".join([*headers, "", ""]).encode()
    assert get(serve(lambda connection: connection.sendall(answer + b"abcd")).url) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"\r\n",
        b"not http\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_answer(serve: Callable[[Serve], Server], answer: bytes) -> None:
    def tell(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    reason, text = reason_of(lambda: get(serve(tell).url))
    assert reason is Reason.CONNECTION_LOST
    assert text.startswith("connection lost (")


@pytest.mark.parametrize("sent", [0, 10, BUFFER_BYTES + 10])
def test_what_came_before_the_end_is_handed_over(
    serve: Callable[[Serve], Server], sent: int
) -> None:
    def stop(connection: socket.socket) -> None:
        connection.sendall(head() + CONTENT[:sent])
        connection.shutdown(socket.SHUT_WR)

    answer = get(serve(stop).url)
    assert answer is not None
    came = bytearray()

    def take() -> None:
        for chunk in answer.chunks():
            came.extend(chunk)

    with contextlib.closing(answer):
        assert reason_of(take) == (Reason.CONNECTION_LOST, "connection lost (IncompleteRead)")
    assert came == CONTENT[:sent]


def test_a_silent_server_is_given_up(serve: Callable[[Serve], Server]) -> None:
    wires = Wires()
    silent = serve(lambda connection: None)
    assert reason_of(lambda: get(silent.url, wires, timeout_s=0.1))[0] is Reason.STALLED
    amid = serve(lambda connection: connection.sendall(head() + b"abc"))
    assert reason_of(lambda: read(get(amid.url, wires, timeout_s=0.1)))[0] is Reason.STALLED


def test_a_wait_for_bytes_ends_at_once_when_it_is_cancelled(
    serve: Callable[[Serve], Server],
) -> None:
    server = serve(lambda connection: connection.sendall(head() + b"abc"))
    canceller = Canceller()
    answer = get(server.url, canceller=canceller)
    assert answer is not None
    with contextlib.closing(answer):
        chunks = answer.chunks()
        assert bytes(next(chunks)) == b"abc"
        threading.Timer(0.1, canceller).start()
        assert reason_of(lambda: next(chunks))[0] is Reason.CANCELLED
    # For good: it does not begin anew either.
    assert reason_of(lambda: get(server.url, canceller=canceller))[0] is Reason.CANCELLED


def test_a_wait_for_the_headers_ends_as_well(serve: Callable[[Serve], Server]) -> None:
    canceller = Canceller()
    server = serve(lambda connection: canceller())
    assert reason_of(lambda: get(server.url, canceller=canceller))[0] is Reason.CANCELLED


@pytest.mark.parametrize("after", [b"HTTP/1.1 200 OK\r\n", None])
def test_a_connection_that_says_more_or_ends_is_not_used_again(
    serve: Callable[[Serve], Server], after: bytes | None
) -> None:
    done = threading.Event()

    def say(connection: socket.socket) -> None:
        connection.sendall(head(4) + b"abcd")
        if after is None:
            connection.shutdown(socket.SHUT_WR)
        else:
            connection.sendall(after)
        done.set()

    server, wires = serve(say), Wires()
    for _ in range(2):
        done.clear()
        assert read(get(server.url, wires)) == b"abcd"
        assert done.wait(PATIENCE_S)
    assert server.connections == 2


@pytest.mark.parametrize("more", ["Connection: close", "X: y"])
def test_a_connection_is_closed_if_it_was_not_read_to_the_end_or_so_was_asked(
    serve: Callable[[Serve], Server], more: str
) -> None:
    server, wires = serve(lambda connection: connection.sendall(head(4, more) + b"abcd")), Wires()
    for _ in range(2):
        answer = get(server.url, wires)
        if "close" in more:
            assert read(answer) == b"abcd"
        elif answer is not None:
            answer.close()
    assert server.connections == 2


def test_a_connection_is_not_kept_for_long(serve: Callable[[Serve], Server]) -> None:
    now = [0.0]
    server = serve(lambda connection: connection.sendall(head(4) + b"abcd"))
    wires = Wires(clock=lambda: now[0])
    for seconds in (0.0, 4.0, 6.0):
        now[0] += seconds
        assert read(get(server.url, wires)) == b"abcd"
    assert server.connections == 2


def test_a_client_by_rules_of_its_own_is_left_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import utils

    monkeypatch.setattr(utils._http, "_GLOBAL_CLIENT_FACTORY", lambda: None)
    assert get("http://127.0.0.1:9/a") is None


def test_a_host_that_can_be_none_is_a_lost_connection() -> None:
    assert reason_of(lambda: get(f"http://{'a' * 70}.example/a"))[0] is Reason.CONNECTION_LOST


def test_an_address_with_a_password_is_left_to_the_client() -> None:
    assert get("http://me:secret@127.0.0.1:9/a") is None


# -- over TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def safe_hub(tmp_path_factory: pytest.TempPathFactory, write_repo: WriteRepo) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("safe-hub")
    write_repo(root, "org/safe", {"a.bin": CONTENT})
    with LocalHub.start(root, tls=True) as hub:
        yield hub


@pytest.fixture
def safe_url(safe_hub: LocalHub) -> str:
    """The signed address of a file at the CDN."""
    host = urlsplit(safe_hub.endpoint).netloc
    context = ssl.create_default_context(cafile=safe_hub.authority)
    asking = http.client.HTTPSConnection(host, context=context)
    with contextlib.closing(asking):
        asking.request("GET", "/org/safe/resolve/main/a.bin")
        location = asking.getresponse().headers["Location"]
    assert location is not None
    return location


@pytest.fixture
def trusted(safe_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert safe_hub.authority is not None
    monkeypatch.setenv("SSL_CERT_FILE", safe_hub.authority)


def test_bytes_come_over_tls_where_the_authority_is_trusted(safe_url: str, trusted: None) -> None:
    wires = Wires()
    assert read(get(safe_url, wires)) == CONTENT[:10]
    assert read(get(safe_url, wires)) == CONTENT[:10]


def test_a_server_that_nobody_vouches_for_is_not_believed(safe_url: str) -> None:
    """No other attempt will end otherwise, so it is no failure to try again after."""
    untrusted = pytest.raises(UntrustedCertificateError, match="'localhost' is not trusted")
    with untrusted, network_failures(safe_url):
        get(safe_url)


def test_a_wait_for_bytes_over_tls_ends_at_once_when_it_is_cancelled(
    safe_hub: LocalHub, safe_url: str, trusted: None
) -> None:
    from nbloader.localhub import Cut, Fault, RequestClass

    safe_hub.set_faults([Fault(RequestClass.CDN_GET, cut=Cut.STALL, after_bytes=3)])
    canceller = Canceller()
    answer = get(safe_url, canceller=canceller)
    assert answer is not None
    with contextlib.closing(answer):
        chunks = answer.chunks()
        assert bytes(next(chunks)) == CONTENT[:3]
        threading.Timer(0.1, canceller).start()
        assert reason_of(lambda: next(chunks))[0] is Reason.CANCELLED
    safe_hub.clear_faults()


def test_bytes_come_through_a_proxy_with_a_password(
    safe_url: str, trusted: None, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:s3cret@{proxy.address}")
    wires = Wires()
    assert read(get(safe_url, wires)) == CONTENT[:10]
    assert read(get(safe_url, wires)) == CONTENT[:10]
    (asked,) = proxy.asked
    there = urlsplit(safe_url).netloc.encode()
    assert asked.startswith(b"CONNECT %s HTTP/1." % there)
    assert b"Host: %s\r\n" % there in asked


def test_a_proxy_that_refuses_is_named(
    safe_url: str, trusted: None, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    with pytest.raises(ProxyError, match="HTTPS_PROXY"), network_failures(safe_url):
        get(safe_url)


def test_hosts_are_spared_the_proxy(
    safe_url: str, trusted: None, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:s3cret@{proxy.address}")
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert read(get(safe_url)) == CONTENT[:10]
    assert proxy.asked == []


def test_the_key_of_the_authority_is_thrown_away(safe_hub: LocalHub) -> None:
    assert safe_hub.authority is not None
    names = {path.name for path in Path(safe_hub.authority).parent.iterdir()}
    assert "server.key" in names
    assert "authority.key" not in names
