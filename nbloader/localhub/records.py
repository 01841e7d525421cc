"""The records that pass between the handle and the server, and their form in JSON.

Sizes are bytes, durations seconds. Every `from_json` takes what `json.loads` gives for the record's
own `to_json`. Those that people write (`Fault`, `Access`, `Token`) raise `ValueError` for anything
else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

KEY_HEADER = "X-Localhub-Key"
"""The header of a control request that carries the key of the process."""


class RequestClass(StrEnum):
    """What a request is for; faults and counters are kept for each class."""

    MODEL_INFO = "model-info"
    TREE = "tree"
    PATHS_INFO = "paths-info"
    REFS = "refs"
    WHOAMI = "whoami"
    RESOLVE_HEAD = "resolve-head"
    RESOLVE_GET = "resolve-get"
    CDN_HEAD = "cdn-head"
    CDN_GET = "cdn-get"
    XET_TOKEN = "xet-token"  # noqa: S105 - the name of a class
    XET_RECONSTRUCTION = "xet-reconstruction"
    XET_XORB = "xet-xorb"
    XET_OTHER = "xet-other"
    OTHER = "other"


_FILE_CLASSES = (RequestClass.RESOLVE_GET, RequestClass.CDN_GET, RequestClass.XET_XORB)


class Cut(StrEnum):
    """How a response ends before its time.

    STALL: the connection stays open, silent, until the client leaves.
    DROP: the connection is closed (FIN), short of the announced length.
    RESET: the connection is reset (RST), short of the announced length.
    TRUNCATE: a complete response, whose announced length is that of its short body.
    """

    STALL = "stall"
    DROP = "drop"
    RESET = "reset"
    TRUNCATE = "truncate"


def _checked(kind: type, value: object) -> Mapping[str, Any]:
    """Return `value` if it is an object with none but the fields of the dataclass `kind`."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{kind.__name__}: not an object: {value!r}")
    if unknown := value.keys() - {field.name for field in fields(kind)}:
        raise ValueError(f"{kind.__name__}: unknown fields {sorted(map(str, unknown))}")
    return value


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong for the requests of a class.

    A fault hits the requests that it concerns in the order of their arrival, leaving out the first
    `skip`, and `times` of them (None: all). Several faults may hit one request: delays add up, the
    lowest caps count, the earliest cut and the first status win.

    Attributes:
        request_class: the requests that it concerns.
        path: glob over `org/name/path/of/file` (`org/name` where there is no file); `*` also
            crosses slashes. A ranged read of Xet storage has the xorb's hash instead.
        skip: how many requests pass before the first is hit.
        times: how many requests are hit; None for all.
        latency_s: wait before the answer, seconds.
        bytes_per_second: cap on the speed of each response.
        total_bytes_per_second: cap on the sum of all responses that the fault hits.
        cut: how the response ends early.
        after_bytes: bytes of the body that are sent before the cut. At 0 nothing is sent at all,
            not even headers (`TRUNCATE` then sends an empty body).
        status: the HTTP status of an error sent in place of the answer.
        retry_after: value of that error's `Retry-After` header: seconds, or an HTTP date.
        wrong_bytes: the first byte of each KiB of the file is inverted; the length is right. In a
            xorb bytes are chosen so that the client does not notice, see `xet.damage`.
        expired: the answer is that to a URL (CDN, xorb: 403) or a token (reconstruction, Xet token:
            401) that has expired.
        redirect: the answer is a 302 to the URL that was asked for.
        etag: stands in place of the answer's own ETag and X-Linked-Etag, without quotes; If-Range
            is judged against it.
        ignore_range: a Range is answered as if it had not been sent: 200, and the whole file.

    Faults of the body (caps, wrong bytes, a cut after more than 0 bytes, truncation) concern only
    answers that have a body, so that the redirect before a file does not use them up.

    Raises:
        ValueError: a field is out of its range, or two fields contradict each other.
    """

    request_class: RequestClass
    _: KW_ONLY
    path: str = "*"
    skip: int = 0
    times: int | None = None
    latency_s: float = 0.0
    bytes_per_second: float | None = None
    total_bytes_per_second: float | None = None
    cut: Cut | None = None
    after_bytes: int = 0
    status: int | None = None
    retry_after: str | None = None
    wrong_bytes: bool = False
    expired: bool = False
    redirect: bool = False
    etag: str | None = None
    ignore_range: bool = False

    def __post_init__(self) -> None:
        caps = (self.bytes_per_second, self.total_bytes_per_second)
        rules = {
            "request_class": isinstance(self.request_class, RequestClass),
            "path": isinstance(self.path, str),
            "skip": _is_count(self.skip),
            "times": self.times is None or _is_count(self.times),
            "latency_s": _is_number(self.latency_s) and self.latency_s >= 0,
            "bytes_per_second": all(x is None or (_is_number(x) and x > 0) for x in caps),
            "cut": self.cut is None or isinstance(self.cut, Cut),
            "after_bytes": _is_count(self.after_bytes)
            and (self.cut is not None or not self.after_bytes),
            "status": self.status is None or (_is_count(self.status) and 400 <= self.status <= 599),
            "retry_after": self.retry_after is None
            or (_is_header(self.retry_after) and self.status is not None),
            "wrong_bytes": _is_flag(self.wrong_bytes),
            "expired": _is_flag(self.expired),
            "redirect": _is_flag(self.redirect)
            and (not self.redirect or (self.status is None and not self.expired)),
            "etag": self.etag is None or (_is_header(self.etag) and '"' not in self.etag),
            "ignore_range": _is_flag(self.ignore_range),
        }
        for name, holds in rules.items():
            if not holds:
                raise ValueError(f"bad {name} in {self!r}")

    @property
    def needs_body(self) -> bool:
        """Whether the fault shows only in the body of an answer."""
        return (
            self.wrong_bytes
            or self.bytes_per_second is not None
            or self.total_bytes_per_second is not None
            or self.cut is Cut.TRUNCATE
            or self.after_bytes > 0
        )

    def concerns(self, request_class: RequestClass, path: str, *, has_body: bool) -> bool:
        """Whether a request is one of those that the fault counts."""
        return (
            request_class is self.request_class
            and fnmatchcase(path, self.path)
            and (has_body or not self.needs_body)
        )

    def hits(self, earlier: int) -> bool:
        """Whether the fault hits a request that it concerns, after `earlier` others like it."""
        return self.skip <= earlier and (self.times is None or earlier < self.skip + self.times)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Fault:
        content = dict(_checked(cls, value))
        if "request_class" not in content:
            raise ValueError("Fault: request_class is missing")
        content["request_class"] = RequestClass(content["request_class"])
        if content.get("cut") is not None:
            content["cut"] = Cut(content["cut"])
        return cls(**content)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_header(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may read a repository.

    Attributes:
        private: only tokens that name the repository see it.
        gated: everybody sees the listing, only tokens that name the repository get the files. The
            value is the Hub's word for how requests are approved.
    """

    private: bool = False
    gated: Literal[False, "auto", "manual"] = False

    def __post_init__(self) -> None:
        if self.private not in (True, False) or self.gated not in (False, "auto", "manual"):
            raise ValueError(f"bad private or gated in {self!r}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Access:
        return cls(**_checked(cls, value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token that the Hub knows.

    Attributes:
        name: the user it belongs to, as `whoami` tells.
        repos: ids of the private repositories it may see and the gated ones it has access to.
        stale: it was valid once; every request with it is refused.
        fine_grained: what it may do was chosen box by box.
        reads_gated: of a fine-grained one, whether the box for the contents of public gated
            repositories is ticked; others may read those in any case.
    """

    name: str
    repos: frozenset[str] = frozenset()
    stale: bool = False
    fine_grained: bool = False
    reads_gated: bool = False

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "repos": sorted(self.repos)}

    @classmethod
    def from_json(cls, value: object) -> Token:
        content = dict(_checked(cls, value))
        repos = content.pop("repos", None)
        name, *flags = (content.get(field.name) for field in fields(cls) if field.name != "repos")
        if not (isinstance(name, str) and isinstance(repos, list) and all(map(_is_flag, flags))):
            raise ValueError("Token: a name, repos and flags are expected")
        return cls(**content, repos=frozenset(map(str, repos)))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Sum over requests: how many, and the bytes of body that were written for them."""

    requests: int = 0
    body_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One request as the server saw it.

    Attributes:
        path: `org/name/path/of/file`, `org/name` where there is no file; the hash of a xorb;
            otherwise the URL's path.
        status: the status that was sent, or None if the connection ended (or waits) without one.
        body_bytes: bytes of body written to the connection.
        range: the Range header, or None.
        had_authorization: an Authorization header came with it.
    """

    request_class: RequestClass
    method: str
    path: str
    status: int | None
    body_bytes: int
    range: str | None
    had_authorization: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> LoggedRequest:
        content = dict(_checked(cls, value))
        content["request_class"] = RequestClass(content.get("request_class", ""))
        return cls(**content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the server has done since its start or the last reset.

    Attributes:
        by_class: traffic of the classes that had any.
        body_bytes_by_path: bytes of body by the path of the log; only paths that had any.
        cdn_authorizations: requests to the CDN, or for a xorb, that carried an Authorization
            header. A client that lets its token go to another host shows here.
    """

    by_class: Mapping[RequestClass, Traffic]
    body_bytes_by_path: Mapping[str, int]
    cdn_authorizations: int = 0

    def of(self, request_class: RequestClass) -> Traffic:
        """Return the traffic of one class."""
        return self.by_class.get(request_class, Traffic())

    @property
    def file_bytes(self) -> int:
        """Bytes of body that were contents of files, over whichever route."""
        return sum(self.of(request_class).body_bytes for request_class in _FILE_CLASSES)

    @property
    def total(self) -> Traffic:
        """The traffic of all classes."""
        return Traffic(
            sum(traffic.requests for traffic in self.by_class.values()),
            sum(traffic.body_bytes for traffic in self.by_class.values()),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Counters:
        content = _checked(cls, value)
        by_class = cast("Mapping[str, Mapping[str, int]]", content["by_class"])
        return cls(
            by_class={RequestClass(name): Traffic(**item) for name, item in by_class.items()},
            body_bytes_by_path=dict(content["body_bytes_by_path"]),
            cdn_authorizations=content["cdn_authorizations"],
        )
