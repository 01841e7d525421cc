"""The Hub's own client, with the bounds that it has not.

Its timeouts are for each wait, so a server that sends a byte now and then, or interim answers,
holds it for ever; it reads whatever an error or a redirect has for a body, and unpacks what is
packed three times. Here headers have to be there in time, and a body is bounded as it comes and as
it is unpacked.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from huggingface_hub import get_session
from huggingface_hub.utils import hf_raise_for_status

from nbloader.bounds import MAX_ERROR_BYTES
from nbloader.limits import ANSWER_LIMIT_S, headers_limit_s
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure
from nbloader.worker.reach import WANTS_LOGIN, refused_by_proxy
from nbloader.worker.wire import http_package

PACKED = {"Accept-Encoding": "gzip"}
"""What `body_of` can unpack."""

UNPACKED = frozenset({"gzip", "x-gzip"})
"""How a server may pack what it was asked not to."""

_UNPACKED_AT_ONCE = 1 << 16
_OF_THE_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class TooLargeError(Exception):
    """A body is larger than it may be.

    Attributes:
        begins: what was read of it.
    """

    def __init__(self, begins: bytes) -> None:
        super().__init__(f"more than {len(begins)} bytes")
        self.begins = begins


def send(url: str, headers: dict[str, str], *, connect_s: float, timeout_s: float) -> Any:
    """Send a request, and return the answer, whose body is yet to be read. To be closed.

    Redirects are not followed: what they have for a body would be read.

    Args:
        connect_s, timeout_s: for a connection to be made, and for each wait.

    Raises:
        Failure: the headers do not come to an end in time.
    """
    session: Any = get_session()
    timeouts = (connect_s, timeout_s, timeout_s, timeout_s)
    request = session.build_request("GET", url, headers=headers, timeout=timeouts)
    outcomes: SimpleQueue[Any] = SimpleQueue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            outcomes.put(session.send(request, stream=True, follow_redirects=False))
        except BaseException as error:
            outcomes.put(error)
        if given_up.is_set():
            _close_all(outcomes)

    # A thread of its own: nothing else ends a read of the client's.
    threading.Thread(target=ask, name="asking", daemon=True).start()
    try:
        outcome = outcomes.get(timeout=headers_limit_s(connect_s, timeout_s))
    except Empty:
        given_up.set()
        _close_all(outcomes)
        raise Failure(Reason.STALLED) from None
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _close_all(outcomes: SimpleQueue[Any]) -> None:
    """Close answers that came when nobody waited any more."""
    with suppress(Empty):
        while True:
            late = outcomes.get_nowait()
            if not isinstance(late, BaseException):
                late.close()


def body_of(
    response: Any, most_bytes: int, *, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Read a body that comes in time.

    Raises:
        TooLargeError: it has more than `most_bytes`, as they are or unpacked.
        Failure: it takes too long, or is packed in another way than was allowed.
    """
    began_at, content = clock(), bytearray()
    coding = str(response.headers.get("Content-Encoding") or "identity")
    for part in unpacked(response.iter_raw(), coding):
        content += part
        if len(content) > most_bytes:
            raise TooLargeError(bytes(content[:most_bytes]))
        if clock() - began_at > ANSWER_LIMIT_S:
            raise Failure(Reason.TOO_SLOW)
    return bytes(content)


def unpacked(chunks: Iterable[bytes | memoryview], coding: str) -> Iterator[bytes | memoryview]:
    """Yield what packed bytes unpack to, a little at a time.

    Args:
        coding: the value of `Content-Encoding`; one of `UNPACKED` is known, once.

    Raises:
        Failure: it is packed in another way, or wrong.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        yield from chunks
        return
    if coding not in UNPACKED:
        raise Failure(Reason.BAD_ANSWER, "the answer is compressed in an unknown way")
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        for chunk in chunks:
            left, more = chunk, True
            while more and not unpacker.eof:
                part = unpacker.decompress(left, _UNPACKED_AT_ONCE)
                left = unpacker.unconsumed_tail
                # It may have taken all, and hold back what it unpacks to.
                more = bool(left) or len(part) == _UNPACKED_AT_ONCE
                yield part  # It may be empty: whoever counts the time has to have a look.
    except zlib.error:
        raise Failure(Reason.BAD_ANSWER, "the answer is compressed wrongly") from None
    if not unpacker.eof:
        raise Failure(Reason.CAME_SHORT)


def raise_refusal(response: Any) -> None:
    """Raise what an answer means that is an error, by the rules of the Hub's library.

    Raises:
        ProxyError: it is none of the Hub's, but of a proxy before it.
        HfHubHTTPError: the Hub refuses.
    """
    if response.status_code == 407:
        raise refused_by_proxy(str(response.request.url), WANTS_LOGIN)
    try:
        content = body_of(response, MAX_ERROR_BYTES)
    except TooLargeError as error:
        content = error.begins
    except Failure:
        content = b""
    headers = [
        (name, value)
        for name, value in response.headers.multi_items()
        if name.lower() not in _OF_THE_BODY
    ]
    hf_raise_for_status(
        http_package().Response(
            response.status_code, headers=headers, content=content, request=response.request
        )
    )
