"""Moves the bytes of files: over HTTP/1.1 and kept connections, into one large buffer each.

The Hub's client reads a connection by 64 KiB, over TLS by 16 KiB, and hands each of them through
several layers. Here a buffer is filled from the socket and handed over as it is, which takes a
third of the processor's time. What is asked of the Hub itself is asked by its client; so is what
this cannot do. Certificates and proxies are those of that client.
"""

from __future__ import annotations

import functools
import http.client
import importlib
import io
import math
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from huggingface_hub import get_session

from nbloader.limits import headers_limit_s
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure
from nbloader.worker.proxies import BY_CLIENT, Tunnel, Way, way_to

BUFFER_BYTES = 1 << 20
"""Handed over at once on a fast link, and written in one go."""

FILL_S = 0.05
GAP_S = 0.005
"""On a slow link, what has come in so long is handed over, or before the first gap of so long:
progress is to be smooth, and what is not handed over is lost at a kill."""

KEPT_S = 5.0
"""A connection that nobody uses is kept so long, as the Hub's client does."""


class Canceller:
    """Ends, from another thread, a request that is under way. Once called, for good."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.cancelled = False

    def __call__(self) -> None:
        with self._lock:
            self.cancelled = True
            self._shut()

    def watch(self, connected: socket.socket | None) -> None:
        """Let a call end this connection, and no other."""
        with self._lock:
            self._socket = connected
            if self.cancelled:
                self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                # Not that of TLS, which would take away what the other thread is reading from.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Headers(io.RawIOBase):
    """A socket to read headers from, which have to be there in time: what ends each wait, such as a
    byte now and then or interim answers, does not end all of them."""

    def __init__(self, connected: socket.socket, until: float, clock: Callable[[], float]) -> None:
        # It keeps the socket open, where a connection is closed before its last answer is read.
        self._io = connected.makefile("rb", buffering=0)
        self._until, self._clock = until, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._clock() > self._until:
            raise TimeoutError
        return self._io.readinto(buffer) or 0

    def close(self) -> None:
        self._io.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response whose headers are read byte by byte, so that the body is left in the socket.

    Args:
        until: when the headers have to be there, by `clock`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *args: Any,
        until: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        **kwargs: Any,
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = _Headers(sock, until, clock)  # type: ignore[assignment] # it reads lines too


class _Plain(http.client.HTTPConnection):
    response_class = _Response


class _Safe(http.client.HTTPSConnection):
    response_class = _Response


@dataclass(slots=True, eq=False)
class _Kept:
    """A connection, its buffer, and when it was last used."""

    connection: http.client.HTTPConnection
    buffer: memoryview
    used_at: float = 0.0

    @property
    def is_quiet(self) -> bool:
        """Whether it may be used again: nothing has come since, not even its end."""
        connected = self.connection.sock
        if connected is None or (isinstance(connected, ssl.SSLSocket) and connected.pending()):
            return False
        try:
            return not select.select([connected], [], [], 0)[0]
        except (OSError, ValueError):  # Closed, or a descriptor above what select can take.
            return False


@dataclass(slots=True, eq=False)
class Answer:
    """An answer whose body is yet to be read.

    Attributes:
        status_code: of HTTP.
    """

    status_code: int
    _left: int
    _kept: _Kept
    _socket: socket.socket
    _timeout_s: float
    _canceller: Canceller
    _give_back: Callable[[_Kept], object] | None
    _response: http.client.HTTPResponse
    _clock: Callable[[], float]
    _lost: OSError | None = None

    def header(self, name: str) -> str | None:
        """Return a header by its name, in any case; None if it is not there."""
        return self._response.headers.get(name)

    def chunks(self) -> Iterator[memoryview]:
        """Yield the bytes of the body. Each chunk is good until the next one is asked for.

        Raises:
            Failure: the body ends early, or nothing comes.
        """
        while self._left:
            count = self._fill(self._kept.buffer[: self._left])
            self._left -= count
            yield self._kept.buffer[:count]

    def _fill(self, buffer: memoryview) -> int:
        """Wait for bytes, and a moment longer for more of them."""
        connected, clock = self._socket, self._clock
        with _failures(self._canceller):
            if self._lost is not None:
                raise self._lost
            connected.settimeout(self._timeout_s)
            have = connected.recv_into(buffer)
            if not have:
                raise http.client.IncompleteRead(b"", self._left)
        if have == len(buffer):
            return have
        connected.settimeout(GAP_S)
        until, size = clock() + FILL_S, len(buffer)
        while have < size and clock() < until:
            try:
                # With the count, which TLS would find out anew for each 16 KiB.
                count = connected.recv_into(buffer[have:], size - have)
            except TimeoutError:
                break
            except OSError as error:  # To be told once what came before it is handed over.
                self._lost = error
                break
            if not count:
                break
            have += count
        return have

    def close(self) -> None:
        """End it, and keep the connection if all of it was read."""
        self._canceller.watch(None)
        self._response.close()
        if self._left or self._give_back is None or self._canceller.cancelled:
            self._kept.connection.close()
        else:
            self._give_back(self._kept)


class Wires:
    """Connections to servers, kept for the next request. Safe for use by several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: defaultdict[tuple[str, str, Way | Tunnel], list[_Kept]] = defaultdict(list)
        self._context: ssl.SSLContext | None = None

    def __del__(self) -> None:
        for kept in (one for some in self._idle.values() for one in some):
            kept.connection.close()

    def get(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        connect_s: float,
        timeout_s: float,
        canceller: Canceller,
    ) -> Answer | None:
        """Send a request, and read the headers of the answer.

        Args:
            connect_s, timeout_s: for a connection to be made, and for each wait for bytes.
            canceller: ends the request.

        Returns:
            None where the Hub's client has to ask: for the way there, or for a body whose length
            the headers do not tell.

        Raises:
            Failure: the connection is lost, or nothing comes.
            OSError: there is none: the host is not known, or does not answer in time.
        """
        # By the client's own rules of what stands in an address, and of what is none.
        session: Any = get_session()
        parts = urlsplit(str(session.build_request("GET", url).url))
        way = way_to(parts, urllib.request.getproxies())
        if way is BY_CLIENT or parts.username or parts.password or not _is_usual_client():
            return None
        key = (parts.scheme, parts.netloc, way)
        with _failures(canceller, connecting=True):
            kept = self._idle_one(key) or self._connect(parts, way, connect_s)
        answer: Answer | None = None
        try:
            connected = kept.connection.sock
            canceller.watch(connected)
            with _failures(canceller):
                connected.settimeout(timeout_s)
                kept.connection.response_class = self._response_by(connect_s, timeout_s)
                target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
                kept.connection.request("GET", target, headers=dict(headers))
                response = kept.connection.getresponse()
            if _tells_length(response):
                answer = Answer(
                    status_code=response.status,
                    _left=response.length or 0,
                    _kept=kept,
                    _socket=connected,
                    _timeout_s=timeout_s,
                    _canceller=canceller,
                    _give_back=None if response.will_close else lambda one: self._keep(key, one),
                    _response=response,
                    _clock=self._clock,
                )
            else:
                response.close()
            return answer
        finally:
            if answer is None:
                canceller.watch(None)
                kept.connection.close()

    def _response_by(self, connect_s: float, timeout_s: float) -> Any:
        """Return the class of an answer whose headers have to be there in time."""
        until = self._clock() + headers_limit_s(connect_s, timeout_s)
        return functools.partial(_Response, until=until, clock=self._clock)

    def _idle_one(self, key: tuple[str, str, Way | Tunnel]) -> _Kept | None:
        """Take a connection that is kept, and close those that are of no use any more."""
        while True:
            with self._lock:
                if not self._idle[key]:
                    return None
                kept = self._idle[key].pop()
            if self._clock() - kept.used_at < KEPT_S and kept.is_quiet:
                return kept
            kept.connection.close()

    def _keep(self, key: tuple[str, str, Way | Tunnel], kept: _Kept) -> None:
        kept.used_at = self._clock()
        with self._lock:
            self._idle[key].append(kept)

    def _connect(self, parts: SplitResult, way: Way | Tunnel, connect_s: float) -> _Kept:
        host, safe = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (http.client.HTTPS_PORT if safe else http.client.HTTP_PORT)
        there = (way.host, way.port) if isinstance(way, Tunnel) else (host, port)
        connection: http.client.HTTPConnection
        if safe:
            connection = _Safe(*there, timeout=connect_s, context=self._trusted())
        else:
            connection = _Plain(*there, timeout=connect_s)
        if isinstance(way, Tunnel):
            asked = {"Host": f"{host}:{port}"}
            if way.authorization is not None:
                asked["Proxy-Authorization"] = way.authorization
            connection.set_tunnel(host, port, asked)
            connection.response_class = self._response_by(connect_s, connect_s)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return _Kept(connection, memoryview(bytearray(BUFFER_BYTES)))

    def _trusted(self) -> ssl.SSLContext:
        """Return what servers are judged by, made by the Hub client's own function."""
        with self._lock:
            if self._context is None:
                self._context = http_package().create_ssl_context()
                self._context.set_alpn_protocols(["http/1.1"])
            return self._context


def http_package() -> Any:
    """Return the library of the Hub's client: httpx in huggingface_hub 1.x, httpx2 in 2.x."""
    return importlib.import_module(type(get_session()).__module__.partition(".")[0])


def _is_usual_client() -> bool:
    """Say whether the Hub's client is its own, and not one that somebody has set up by other rules
    (`huggingface_hub.set_client_factory`)."""
    module = importlib.import_module("huggingface_hub.utils._http")
    made_by = getattr(module, "_GLOBAL_CLIENT_FACTORY", None)
    return made_by is not None and made_by is getattr(module, "default_client_factory", None)


def _tells_length(response: http.client.HTTPResponse) -> bool:
    """Say whether the headers tell, once and for all, how long the body is."""
    lengths = set(response.headers.get_all("Content-Length", []))
    return (
        len(lengths) == 1
        and response.length is not None
        and "Transfer-Encoding" not in response.headers
    )


def _is_refusal_of_tunnel(error: Exception) -> bool:
    """Say whether a proxy has refused to lead on (`http.client` knows no class for that)."""
    return type(error) is OSError and str(error).startswith("Tunnel connection failed: 4")


@contextmanager
def _failures(canceller: Canceller, *, connecting: bool = False) -> Iterator[None]:
    """Turn errors of a connection into failures."""
    try:
        yield
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # The last: no host name.
        if canceller.cancelled:
            raise Failure(Reason.CANCELLED) from error
        if isinstance(error, ssl.SSLCertVerificationError) or _is_refusal_of_tunnel(error):
            raise  # No other attempt ends otherwise.
        silent = isinstance(error, TimeoutError)
        if isinstance(error, socket.gaierror) or (connecting and silent):
            raise  # The errors of the Hub's client are told by the same rule.
        if silent:
            raise Failure(Reason.STALLED) from error
        text = f"connection lost ({type(error).__name__})"
        raise Failure(Reason.CONNECTION_LOST, text) from error
