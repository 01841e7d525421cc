"""What a handler returns, before faults change it and the server sends it.

Range and If-Range are read by RFC 9110 sections 13.1.5 and 14.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import FileIO

from nbloader.localhub.faults import invert
from nbloader.localhub.store import LostContentError, Store, StoredFile

_SINGLE_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")


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
