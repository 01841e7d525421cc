"""The Hub's client, held to bounds of time and size, against servers that know none."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError
from hypothesis import given
from hypothesis import strategies as st

from nbloader.bounds import MAX_ERROR_BYTES, MAX_JSON_VALUES, json_value
from nbloader.redaction import HIDDEN, hidden
from nbloader.transfer.policy import Reason
from nbloader.worker import client
from nbloader.worker.client import TooLargeError, body_of, raise_refusal, send, unpacked
from nbloader.worker.failures import Failure
from nbloader.worker.wire import Canceller, Wires
from tests.servers import Serve, Server

FOREVER = 1 << 20
ANSWER = b"HTTP/1.1 200 OK\r\n"
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nX-Error-Message: no\r\n"


@pytest.fixture
def serve() -> Iterator[Callable[[Serve], Server]]:
    servers: list[Server] = []

    def start(function: Serve) -> Server:
        servers.append(Server(function))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def endless(head: bytes) -> Serve:
    def answer(connection: socket.socket) -> None:
        connection.sendall(head + b"Connection: close\r\n\r\n")
        for _ in range(FOREVER):
            connection.sendall(bytes(1 << 16))

    return answer


def packed(head: bytes, content: bytes, times: int = 1) -> Serve:
    for _ in range(times):
        content = gzip.compress(content, 9)
    coding = ", ".join(["gzip"] * times).encode()

    def answer(connection: socket.socket) -> None:
        length = b"Content-Length: %d\r\n" % len(content)
        connection.sendall(head + b"Content-Encoding: " + coding + b"\r\n" + length + b"\r\n")
        connection.sendall(content)

    return answer


def ask(server: Server) -> Any:
    return send(server.url, dict(client.PACKED), connect_s=5.0, timeout_s=5.0)


@pytest.mark.parametrize(
    "refuse",
    [endless(REFUSAL), packed(REFUSAL, bytes(100 << 20)), packed(REFUSAL, bytes(1 << 20), 3)],
    ids=["without an end", "unpacked", "packed three times"],
)
def test_of_an_error_a_little_is_read(serve: Callable[[Serve], Server], refuse: Serve) -> None:
    with closing(ask(serve(refuse))) as response, pytest.raises(HfHubHTTPError) as caught:
        raise_refusal(response)
    assert caught.value.response.status_code == 400
    assert len(caught.value.response.content) <= MAX_ERROR_BYTES


def test_what_an_error_says_is_read(serve: Callable[[Serve], Server]) -> None:
    told = json.dumps({"error": "this is wrong"}).encode()
    with (
        closing(ask(serve(packed(REFUSAL, told)))) as response,
        pytest.raises(HfHubHTTPError, match="this is wrong"),
    ):
        raise_refusal(response)


@pytest.mark.parametrize(
    "answer", [endless(ANSWER), packed(ANSWER, bytes(100 << 20))], ids=["endless", "unpacked"]
)
def test_a_body_is_no_larger_than_it_may_be(
    serve: Callable[[Serve], Server], answer: Serve
) -> None:
    with closing(ask(serve(answer))) as response, pytest.raises(TooLargeError) as caught:
        body_of(response, 1 << 20)
    assert len(caught.value.begins) == 1 << 20


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "deflate"])
def test_other_ways_of_packing_are_refused(coding: str) -> None:
    with pytest.raises(Failure, match="unknown way"):
        list(unpacked([b"abc"], coding))


@given(st.binary(max_size=3000), st.lists(st.integers(1, 400), min_size=1))
def test_what_is_packed_comes_out_as_it_was(content: bytes, sizes: list[int]) -> None:
    whole = gzip.compress(content)
    steps = itertools.cycle(sizes)
    chunks, at = [], 0
    while at < len(whole):
        chunks.append(whole[at : (at := at + next(steps))])
    assert b"".join(unpacked(chunks, "gzip")) == content
    assert b"".join(unpacked(chunks, "identity")) == whole


@given(st.binary(max_size=300))
def test_what_is_packed_wrongly_is_a_failure(content: bytes) -> None:
    with suppress(Failure):
        for part in unpacked([content], "gzip"):
            assert part == zlib.decompressobj(wbits=31).decompress(content)


def drip(connection: socket.socket) -> None:
    connection.sendall(ANSWER + b"X-Drip: ")
    for _ in range(FOREVER):
        connection.sendall(b"a")
        time.sleep(0.02)


def interim(connection: socket.socket) -> None:
    for _ in range(FOREVER):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.005)


@pytest.mark.parametrize("slow", [drip, interim])
def test_headers_have_to_come_to_an_end(serve: Callable[[Serve], Server], slow: Serve) -> None:
    server = serve(slow)
    with pytest.raises(Failure) as caught:
        send(server.url, {}, connect_s=0.2, timeout_s=0.2)
    assert caught.value.reason is Reason.STALLED
    with pytest.raises(Failure) as caught:
        Wires().get(server.url, {}, connect_s=0.2, timeout_s=0.2, canceller=Canceller())
    assert caught.value.reason is Reason.STALLED


def test_what_a_redirect_has_for_a_body_is_not_read(serve: Callable[[Serve], Server]) -> None:
    server = serve(endless(b"HTTP/1.1 302 Found\r\nLocation: /b\r\n"))
    with closing(ask(server)) as response:
        assert response.status_code == 302


SECRET = "hf_" + "Ab3" * 10


def test_a_secret_is_taken_out_of_all_texts() -> None:
    value = {"path": f"../{SECRET}", SECRET: [1, None, True, [f"a{SECRET}{SECRET}"]]}
    assert hidden(value, SECRET) == {
        "path": f"../{HIDDEN}",
        HIDDEN: [1, None, True, [f"a{HIDDEN}{HIDDEN}"]],
    }


def test_json_that_would_fill_the_memory_is_refused() -> None:
    assert json_value(b'{"a": [1, 2]}') == {"a": [1, 2]}
    for hostile in ("[" + "[]," * MAX_JSON_VALUES + "1]", '{"a":1,' * MAX_JSON_VALUES):
        with pytest.raises(ValueError, match="more than 1,000,000 values"):
            json_value(hostile)
    with pytest.raises(RecursionError):
        json_value("[" * 100_000)
    with pytest.raises(ValueError, match="utf-8"):
        json_value(json.dumps({"a": 1}).encode("utf-16"))
