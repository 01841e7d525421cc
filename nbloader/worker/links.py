"""Where the bytes of a file are: the Hub's own address, or a signed one at a CDN.

The Hub is asked once for each file. Its answer, a redirect to another host, is kept until that
host refuses it; so the header that the selection needs and every range of the download cost one
request to the Hub together.

The Hub is asked by its library's client, with the token. The bytes are fetched by `wire`, from
wherever they are known to be.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from huggingface_hub import constants, get_session, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from nbloader.hub_cache import SMALL_FILE_BYTES
from nbloader.limits import ASKING_STEP_S, CONNECT_TIMEOUT_S
from nbloader.records import RepoFile, RepoType
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import TRANSIENT_STATUS, Failure, RateLimit, status_failure
from nbloader.worker.wire import Canceller, Wires

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ETAG = re.compile(r'(?:W/)?"?([^"]*)"?')


def origin(url: str) -> tuple[str, str]:
    """Return what decides whether two addresses are of the same server."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def may_lead_to(url: str, following: str) -> bool:
    """Say whether a server may send its client on to another address: one of HTTP, and over a
    safe wire where the first was safe."""
    try:
        scheme, host = origin(following)
        _ = urlsplit(following).port  # Raises for what is no number.
    except ValueError:
        return False
    safe = ("https",) if url.startswith("https:") else ("https", "http")
    return scheme in safe and bool(host)


class SingleFlight:
    """Lets threads that want the same answer ask one after another.

    Where one fails, those that waited for it fail with it: a server that is silent would otherwise
    hold them all, each for its own timeout, in turn.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_at = float("-inf")
        self._failure: Failure | None = None

    @contextmanager
    def turn(self, waiting: Callable[[], object]) -> Iterator[None]:
        """Wait for one's turn; within it, see first whether the answer is there by now.

        Args:
            waiting: called from time to time while others are asked.

        Raises:
            Failure: that of the one who asked meanwhile.
        """
        came_at = self._clock()
        while not self._lock.acquire(timeout=ASKING_STEP_S):
            waiting()
        try:
            waiting()
            if self._failure is not None and self._failed_at >= came_at:
                why = self._failure
                raise Failure(why.reason, str(why), retry_after_s=why.retry_after_s)
            try:
                yield
            except Failure as failure:
                self._failed_at, self._failure = self._clock(), failure
                raise
        finally:
            self._lock.release()


class Answer(Protocol):
    """An answer whose body is yet to be read."""

    @property
    def status_code(self) -> int: ...

    def header(self, name: str) -> str | None:
        """Return a header by its name, in any case; None if it is not there."""

    def chunks(self) -> Iterator[memoryview]:
        """Yield the bytes of the body. Each chunk is good until the next one is asked for."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _ByClient:
    """An answer that the Hub's client has got."""

    response: Any

    @property
    def status_code(self) -> int:
        return int(self.response.status_code)

    def header(self, name: str) -> str | None:
        value: str | None = self.response.headers.get(name)
        return value

    def chunks(self) -> Iterator[memoryview]:
        return map(memoryview, self.response.iter_raw())

    def close(self) -> None:
        self.response.close()


@dataclass(slots=True)
class _Link:
    """What is known of the way to one file.

    Attributes:
        locating: lets one ask the Hub.
        url: where the bytes are; None until the Hub was asked.
        etag: of that place, for If-Range: a range of another version must not be mixed in.
    """

    locating: SingleFlight = field(default_factory=SingleFlight)
    url: str | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A range that is asked for. The names are those of `Links.open`."""

    file: RepoFile
    link: _Link
    start: int
    stop: int
    asking: Callable[[], object]
    canceller: Canceller


class Links:
    """Opens ranges of the files of one commit.

    Args:
        token: gives the token for the Hub; it is sent to no other host.
        timeout_s: for each wait for bytes.
        heard: called with each answer of the Hub to its client, for what its headers tell.
        wires: fetches from where the bytes are known to be.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        repo_type: str = RepoType.MODEL,
        token: Callable[[], str | bool | None],
        timeout_s: float,
        rate_limit: RateLimit,
        heard: Callable[[Any], object] = lambda response: None,  # noqa: ARG005 - nobody listens
        wires: Wires | None = None,
    ) -> None:
        self._repo_id = repo_id
        self._repo_type = str(repo_type)
        self._token = token
        self._rate_limit = rate_limit
        self._heard = heard
        self._wires = wires or Wires()
        self._connect_s, self._timeout_s = min(CONNECT_TIMEOUT_S, timeout_s), timeout_s
        self._links: defaultdict[str, _Link] = defaultdict(_Link)
        self._lock = threading.Lock()

    @contextmanager
    def open(
        self,
        commit_hash: str,
        file: RepoFile,
        start: int,
        stop: int,
        *,
        asking: Callable[[], object] = lambda: None,
        canceller: Canceller | None = None,
    ) -> Iterator[tuple[Answer, int]]:
        """Ask for the bytes from `start` up to `stop` of a file.

        Args:
            asking: called before each request, and while others ask.
            canceller: ends the fetch where it is not the Hub's client that does it.

        Yields:
            The answer, whose body is yet to be read, and the offset of its first byte: `start`,
            or 0 where the server sends the whole file all the same.

        Raises:
            Failure: another attempt may do better.
            HfHubHTTPError: the Hub refuses for good.
        """
        with self._lock:
            link = self._links[file.path]
        wanted = _Wanted(file, link, start, stop, asking, canceller or Canceller())
        answer: Answer | None = None
        with link.locating.turn(asking):
            # The others wait for the one that asks the Hub, and then have its answer.
            if link.url is None:
                url = hf_hub_url(
                    self._repo_id,
                    file.path_in_repo,
                    repo_type=self._repo_type,
                    revision=commit_hash,
                    endpoint=constants.ENDPOINT,
                )
                answer = self._ask(url, wanted, only_home=True)
        if answer is None:
            if link.url is None:
                raise Failure(Reason.EXPIRED)  # Another piece has just found that.
            answer = self._ask(link.url, wanted, only_home=False)
            assert answer is not None
        try:
            yield answer, self._first_byte(link, answer, file, start, stop)
        finally:
            answer.close()

    def _ask(self, url: str, wanted: _Wanted, *, only_home: bool) -> Answer | None:
        """Send the request, and follow redirects.

        Args:
            only_home: stop where they lead away from the Hub; then there is no answer yet.
        """
        home, link = origin(constants.ENDPOINT), wanted.link
        for _ in range(MAX_REDIRECTS + 1):
            wanted.asking()
            at_home = origin(url) == home
            if at_home:
                self._rate_limit.check()
            answer = self._send(url, wanted, at_home=at_home)
            try:
                if isinstance(answer, _ByClient) and at_home:
                    self._heard(answer.response)
                if answer.status_code in _REDIRECTS:
                    _check_version(answer, wanted.file)
                    url = _next(url, answer)
                    answer.close()
                    if only_home and origin(url) != home:
                        link.url = url
                        return None
                    continue
                if answer.status_code >= 400:
                    self._refused(link, url, answer, at_home=at_home)
            except BaseException:
                answer.close()
                raise
            link.url = url
            return answer
        raise Failure(Reason.REDIRECTS)

    def _send(self, url: str, wanted: _Wanted, *, at_home: bool) -> Answer:
        link = wanted.link
        # Bytes as they are: a range of a compressed answer would be a range of something else.
        headers = {
            "Accept-Encoding": "identity",
            "Range": f"bytes={wanted.start}-{wanted.stop - 1}",
            **build_hf_headers(token=self._token() if at_home else False),
        }
        if link.etag is not None:
            headers["If-Range"] = link.etag
        known_there = url == link.url and wanted.file.size > SMALL_FILE_BYTES
        if known_there or not at_home:
            answer = self._wires.get(
                url,
                headers,
                connect_s=self._connect_s,
                timeout_s=self._timeout_s,
                canceller=wanted.canceller,
            )
            if answer is not None:
                if not at_home or answer.status_code < 300:
                    return answer
                answer.close()  # What the Hub says besides is told by its client.
        session: Any = get_session()
        timeouts = (self._connect_s, *(self._timeout_s,) * 3)
        request = session.build_request("GET", url, headers=headers, timeout=timeouts)
        return _ByClient(session.send(request, stream=True, follow_redirects=False))

    def _refused(self, link: _Link, url: str, answer: Answer, *, at_home: bool) -> None:
        """Raise for an answer that is an error."""
        status = answer.status_code
        if status in TRANSIENT_STATUS:
            refusal = self._rate_limit.refusal if at_home else status_failure
            raise refusal(status, answer.header("Retry-After"))
        if link.url == url:  # Another piece may have found a newer one.
            link.url = link.etag = None
        if isinstance(answer, _ByClient) and at_home and status != 416:
            answer.response.read()
            hf_raise_for_status(answer.response)
        if status in (401, 403):
            raise Failure(Reason.EXPIRED)
        raise status_failure(status, None)

    def _first_byte(
        self, link: _Link, answer: Answer, file: RepoFile, start: int, stop: int
    ) -> int:
        """Check that the answer is the range that was asked for, or the whole file."""
        if answer.header("Content-Encoding") not in (None, "identity"):
            raise Failure(Reason.BAD_ANSWER, "the answer is compressed")
        if answer.status_code == 206:
            wanted = f"bytes {start}-{stop - 1}/{file.size}"
            if answer.header("Content-Range") != wanted:
                link.url = link.etag = None
                raise Failure(Reason.OTHER_VERSION)
            first = start
        elif answer.status_code == 200:
            length = answer.header("Content-Length")
            if length is None and _bare(answer.header("ETag")) != file.etag:
                # A sign-in page of the network looks like this.
                raise Failure(Reason.BAD_ANSWER)
            if length not in (None, str(file.size)):
                link.url = link.etag = None
                raise Failure(Reason.OTHER_VERSION)
            first = 0
        else:
            raise status_failure(answer.status_code, None)
        etag = answer.header("ETag")
        if etag is not None and etag.isascii() and not etag.startswith("W/"):
            if link.etag not in (None, etag):
                link.etag = None
                raise Failure(Reason.OTHER_VERSION)
            link.etag = etag
        return first


def _check_version(answer: Answer, file: RepoFile) -> None:
    """Compare what the Hub says of a file now with what it listed."""
    linked = _bare(answer.header("X-Linked-Etag"))
    if linked is not None and linked != file.etag:
        raise Failure(Reason.OTHER_VERSION)


def _bare(etag: str | None) -> str | None:
    """Take the quotes and the mark of weakness off an ETag; None if it is none."""
    match = _ETAG.fullmatch(etag) if etag else None
    return match[1] if match else None


def _next(url: str, answer: Answer) -> str:
    """Return the address that a redirect names."""
    try:
        following = urljoin(url, answer.header("Location") or "")
    except ValueError:
        raise Failure(Reason.REDIRECTS) from None
    if following == url or not may_lead_to(url, following):
        raise Failure(Reason.REDIRECTS)
    return following
