"""Servers of a few lines, which say and do what a test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
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
