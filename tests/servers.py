"""Servers of a few lines, which say and do what a test wants."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PATIENCE_S = 20.0
"""Longer than any of it takes; who waits so long has failed."""

Serve = Callable[[socket.socket], object]


class Server:
    """Answers each connection by a function, and counts them.

    Attributes:
        heads: the requests, as they came.
    """

    def __init__(self, serve: Serve) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._serve = serve
        self._open: list[socket.socket] = []
        self.connections = 0
        self.heads: list[bytes] = []
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/a"

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while head := read_head(connection):
                self.heads.append(head)
                self._serve(connection)
                if connection.fileno() < 0:
                    return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            connection.close()


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        head += byte
    return head


class Proxy:
    """A proxy that makes tunnels for those who have the password."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._server = Server(self._tunnel)
        self.address = urlsplit(self._server.url).netloc

    def _tunnel(self, client: socket.socket) -> None:
        asked = self._server.heads[-1]
        self.asked.append(asked)
        if b"Proxy-Authorization: Basic bWU6czNjcmV0\r\n" not in asked:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            client.close()
            return
        host, port = asked.split()[1].decode().split(":")
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection((host, int(port))) as server:
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join(PATIENCE_S)
        client.close()

    def close(self) -> None:
        self._server.close()


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while some := source.recv(1 << 16):
            target.sendall(some)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


Change = Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]
"""What becomes of an answer: of its status, its headers and its body."""

_OF_ONE_CONNECTION = ("connection", "content-length", "server", "transfer-encoding")


class Front(ThreadingHTTPServer):
    """Stands before another server, as mirrors and proxies do, and changes its answers.

    A body is sent in chunks, and so without its length, where `change` gives Transfer-Encoding.

    Attributes:
        asked: paths of the requests, and whether a token came with them.
    """

    daemon_threads = True

    def __init__(self, target: str, change: Change = lambda *answer: answer) -> None:
        self.target, self.change = urlsplit(target).netloc, change
        self.asked: list[tuple[str, bool]] = []
        super().__init__(("127.0.0.1", 0), _FrontHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Write nothing: clients leave before the end of an answer."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _FrontHandler(BaseHTTPRequestHandler):
    server: Front
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, "Authorization" in self.headers))
        sent = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        there = http.client.HTTPConnection(self.server.target, timeout=PATIENCE_S)
        with contextlib.closing(there):
            there.request("GET", self.path, headers=sent)
            got = there.getresponse()
            status, headers, body = self.server.change(
                got.status, dict(got.getheaders()), got.read()
            )
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _OF_ONE_CONNECTION:
                self.send_header(name, value)
        if "Transfer-Encoding" in headers:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Write nothing: pytest shows what stands on stderr."""


@contextlib.contextmanager
def fronted(
    endpoint: str, cdn: str, *, of_cdn: Change | None = None, of_hub: Change | None = None
) -> Iterator[tuple[Front, Front]]:
    """Put a front before a Hub, and one before the host that it sends its clients to."""

    def here(
        status: int, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if headers.get("Location", "").startswith(cdn):
            headers["Location"] = headers["Location"].replace(cdn, files.url)
        return of_hub(status, headers, body) if of_hub else (status, headers, body)

    files = Front(cdn, of_cdn or (lambda *answer: answer))
    hub = Front(endpoint, here)
    try:
        yield hub, files
    finally:
        hub.close()
        files.close()
