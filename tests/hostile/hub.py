"""A Hub of one repository that says what a test wants."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.servers import Server

COMMIT = "a" * 40
REPO_ID = "org/name"
TOKEN = "hf_" + "Qq7" * 11 + "Z"


def safetensors(size: int = 4096) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(range(256)) * (size // 256)


CONFIG = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8}
FILES: Mapping[str, bytes] = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": safetensors(),
}


def entry(path: str, content: bytes) -> dict[str, Any]:
    """Describe a file as a listing does."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    told: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if path.endswith((".safetensors", ".bin")):
        sha256 = hashlib.sha256(content).hexdigest()
        told["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer, before it is sent.

    Attributes:
        body: JSON is written out, bytes go as they are.
        headers: beside the length.
    """

    status: int
    body: Any
    headers: tuple[tuple[str, str], ...] = ()


Change = Callable[[str, Said], Said]
"""Given what is asked for (`info`, `tree` or a path) and the honest answer: the one to send."""


class HostileHub:
    """Serves the files, and puts every answer through `change` first.

    Attributes:
        endpoint: its address.
    """

    def __init__(self, change: Change, files: Mapping[str, bytes] = FILES) -> None:
        self._change, self._files = change, files
        self._server = Server(self._answer)
        self.endpoint = self._server.url.removesuffix("/a")

    @property
    def heads(self) -> list[bytes]:
        """The requests, as they came."""
        return self._server.heads

    def close(self) -> None:
        self._server.close()

    def _answer(self, connection: socket.socket) -> None:
        lines = self.heads[-1].decode("latin-1").split("\r\n")
        path = unquote(urlsplit(lines[0].split()[1]).path)
        given = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        about, honest = self._honest(path, given.get("range"))
        said = self._change(about, honest)
        body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
        names = {name.lower() for name, _ in said.headers}
        headers = said.headers
        if not names & {"content-length", "transfer-encoding"}:
            headers += (("Content-Length", str(len(body))),)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        connection.sendall(f"HTTP/1.1 {said.status} X\r\n{head}\r\n".encode("latin-1") + body)

    def _honest(self, path: str, asked: str | None) -> tuple[str, Said]:
        if "/revision/" in path:
            return "info", Said(status=200, body={"id": REPO_ID, "sha": COMMIT})
        if "/tree/" in path:
            return "tree", Said(status=200, body=[entry(*each) for each in self._files.items()])
        name = path.partition("/resolve/")[2].partition("/")[2]
        content = self._files.get(name)
        if content is None:
            return name, Said(status=404, body={}, headers=(("X-Error-Code", "EntryNotFound"),))
        told = entry(name, content)
        etag = told.get("lfs", told)["oid"]
        headers = [("ETag", f'"{etag}"'), ("X-Repo-Commit", COMMIT)]
        if asked is not None and (found := re.fullmatch(r"bytes=(\d+)-(\d+)", asked)):
            first, last = int(found[1]), min(int(found[2]), len(content) - 1)
            headers.append(("Content-Range", f"bytes {first}-{last}/{len(content)}"))
            return name, Said(status=206, body=content[first : last + 1], headers=tuple(headers))
        return name, Said(status=200, body=content, headers=tuple(headers))
