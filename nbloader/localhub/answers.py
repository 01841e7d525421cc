"""What a handler returns, and which faults hit a request before the server sends it.

Range and If-Range are read by RFC 9110 sections 13.1.5 and 14.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from typing import TYPE_CHECKING

from nbloader.localhub.access import Verdict, verify
from nbloader.localhub.records import Cut, Fault, RequestClass
from nbloader.localhub.store import LostContentError, Store, StoredFile

if TYPE_CHECKING:
    from aiohttp import web

_SINGLE_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")

WRONG_BYTE_STRIDE = 1024
"""Distance of the bytes that a wrong answer inverts, counted from the start of the file."""


def invert(data: bytes, offset: int) -> bytes:
    """Return `data`, which stands at `offset` of a file, with the wrong bytes put in."""
    wrong = bytearray(data)
    first = -offset % WRONG_BYTE_STRIDE
    wrong[first::WRONG_BYTE_STRIDE] = bytes(byte ^ 0xFF for byte in wrong[first::WRONG_BYTE_STRIDE])
    return bytes(wrong)


@dataclass(frozen=True, slots=True)
class FilePart:
    """Bytes `start` up to and without `stop` of an open file.

    Attributes:
        damage: puts wrong bytes into bytes that stand at an offset of the file.
    """

    file: FileIO
    start: int
    stop: int
    damage: Callable[[bytes, int], bytes] = invert


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers without Content-Length, and body. `close` it after use."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FilePart = b""

    @property
    def length(self) -> int:
        """Bytes of the body."""
        if isinstance(self.body, FilePart):
            return self.body.stop - self.body.start
        return len(self.body)

    def close(self) -> None:
        """Close the file that the body comes from."""
        if isinstance(self.body, FilePart):
            self.body.file.close()


class RefusedError(Exception):
    """The request ends with an error of the Hub.

    Attributes:
        answer: the JSON body and the headers by which clients know the error. `X-Error-Code` is
            what they look at over plain http.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, **headers: str
    ) -> None:
        super().__init__(message)
        all_headers = {"X-Error-Message": message}
        if code is not None:
            all_headers["X-Error-Code"] = code
        all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = json_answer({"error": message}, status=status, headers=all_headers)


def json_answer(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """Return an answer with a JSON body."""
    return Answer(
        status,
        {"Content-Type": "application/json; charset=utf-8", **(headers or {})},
        json.dumps(value).encode(),
    )


def file_answer(
    store: Store, file: StoredFile, request_headers: Mapping[str, str], **headers: str
) -> Answer:
    """Return the content of a file, or the part of it that the request's Range names.

    Raises:
        RefusedError: the content is not there any more.
    """
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers["ETag"] = f'"{file.oid}"'
    try:
        return ranged_answer(lambda: store.open(file.oid), file.size, request_headers, headers)
    except LostContentError:
        raise RefusedError(404, "The content was overwritten", code="EntryNotFound") from None


def ranged_answer(
    open_content: Callable[[], FileIO],
    size: int,
    request_headers: Mapping[str, str],
    headers: Mapping[str, str],
) -> Answer:
    """Return a content of `size` bytes, or the part of it that the request's Range names.

    `headers` are those of the answer, with the ETag if it has one.
    """
    common = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    range_, if_range = request_headers.get("Range"), request_headers.get("If-Range")
    try:
        part = select_range(size, headers.get("ETag", ""), range_, if_range)
    except UnsatisfiableRangeError:
        return Answer(416, common | {"Content-Range": f"bytes */{size}"})
    if part.partial:
        common["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    body = FilePart(open_content(), part.start, part.stop)
    return Answer(206 if part.partial else 200, common, body)


class UnsatisfiableRangeError(ValueError):
    """The range lies past the end; the answer is 416."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` up to and without `stop`; `partial` if the answer is a 206."""

    start: int
    stop: int
    partial: bool = False

    def __len__(self) -> int:
        return self.stop - self.start


def select_range(size: int, etag: str, range_: str | None, if_range: str | None) -> ByteRange:
    """Return the bytes to send of a file with `size` bytes and the (quoted) `etag`.

    A header that is malformed or names several ranges is ignored, and so is one whose If-Range
    names another version.

    Raises:
        UnsatisfiableRangeError: no byte of the file is in the range.
    """
    whole = ByteRange(0, size)
    if range_ is None or (if_range is not None and if_range != etag):
        return whole
    match = _SINGLE_RANGE.fullmatch(range_.replace(" ", ""))
    if match is None or match.group(0) == "bytes=-":
        return whole
    first, last = match.groups()
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return whole
    if start >= size:
        raise UnsatisfiableRangeError(f"{range_} of {size} bytes")
    return ByteRange(start, stop, partial=True)


def check_signature(secret: bytes, request: web.Request) -> None:
    """Check the signature of a URL.

    Raises:
        RefusedError: it is too old, or was not made here.
    """
    verdict = verify(secret, request.path, request.query, time.time())
    if verdict is Verdict.EXPIRED:
        raise url_expired()
    if verdict is Verdict.FORGED:
        raise RefusedError(403, "Access denied")


def url_expired() -> RefusedError:
    """Return the error of a URL that is too old."""
    return RefusedError(403, "Request has expired")


class Pace:
    """A cap on speed: how long to wait so that all bytes together keep to it."""

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self._free_at = 0.0

    def reserve(self, count: int, now: float) -> float:
        """Take the next slot for `count` bytes; return how many seconds from `now` it is over."""
        self._free_at = max(self._free_at, now) + count / self.bytes_per_second
        return self._free_at - now


@dataclass(frozen=True, slots=True)
class Effect:
    """What the faults of one request add up to; the fields are those of `Fault`."""

    latency_s: float = 0.0
    status: int | None = None
    retry_after: str | None = None
    cut: Cut | None = None
    after_bytes: int = 0
    wrong_bytes: bool = False
    expired: bool = False
    redirect: bool = False
    etag: str | None = None
    ignore_range: bool = False
    paces: tuple[Pace, ...] = ()

    @classmethod
    def of(cls, faults: Iterable[tuple[Fault, Pace | None]]) -> Effect:
        """Add faults up; beside each the pace that its responses share, if it has one."""
        pairs = list(faults)
        cut = min(
            (fault for fault, _ in pairs if fault.cut), key=lambda x: x.after_bytes, default=None
        )
        error = next((fault for fault, _ in pairs if fault.status is not None), None)
        paces = [Pace(fault.bytes_per_second) for fault, _ in pairs if fault.bytes_per_second]
        return cls(
            latency_s=sum(fault.latency_s for fault, _ in pairs),
            status=error.status if error else None,
            retry_after=error.retry_after if error else None,
            cut=cut.cut if cut else None,
            after_bytes=cut.after_bytes if cut else 0,
            wrong_bytes=any(fault.wrong_bytes for fault, _ in pairs),
            expired=any(fault.expired for fault, _ in pairs),
            redirect=any(fault.redirect for fault, _ in pairs),
            etag=next((fault.etag for fault, _ in pairs if fault.etag is not None), None),
            ignore_range=any(fault.ignore_range for fault, _ in pairs),
            paces=(*paces, *(shared for _, shared in pairs if shared)),
        )

    def headers_taken(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of a request as its answer is to take them."""
        condition = headers.get("If-Range")
        ignored = set()
        if condition is not None and self.etag is not None:
            ignored.add("if-range")
        if self.ignore_range or ("if-range" in ignored and condition != f'"{self.etag}"'):
            ignored.add("range")
        return {name: value for name, value in headers.items() if name.lower() not in ignored}


class FaultBook:
    """The faults that are set, and how many requests each has concerned so far."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._faults = tuple(faults)
        self._concerned = [0] * len(faults)
        self._shared = [
            Pace(fault.total_bytes_per_second) if fault.total_bytes_per_second else None
            for fault in faults
        ]

    def take(self, request_class: RequestClass, path: str, *, has_body: bool) -> Effect:
        """Count a request, and return what is to be done to it."""
        active = []
        for index, fault in enumerate(self._faults):
            if fault.concerns(request_class, path, has_body=has_body):
                if fault.hits(self._concerned[index]):
                    active.append((fault, self._shared[index]))
                self._concerned[index] += 1
        return Effect.of(active)
