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
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit, urlunsplit

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.utils import build_hf_headers

from nbloader.hub_cache import SMALL_FILE_BYTES
from nbloader.limits import ASKING_STEP_S, CONNECT_TIMEOUT_S
from nbloader.records import RepoFile, RepoType
from nbloader.transfer.policy import Reason
from nbloader.worker.client import UNPACKED, raise_refusal, send, unpacked
from nbloader.worker.failures import TRANSIENT_STATUS, Failure, RateLimit, status_failure
from nbloader.worker.network import network_failures
from nbloader.worker.tuning import AnswerTime
from nbloader.worker.wire import Canceller, Wires

MAX_REDIRECTS = 5

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ETAG = re.compile(r'(?:W/)?"?([^"]*)"?')
_CONTENT_RANGE = re.compile(
    r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE
)
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_PORTS = {"http": 80, "https": 443}

_AS_IT_IS = frozenset({"", "identity", "none", "binary", "aws-chunked"})
"""Encodings that leave the bytes as they are. The last is the store's own business."""


def origin(url: str) -> tuple[str, str, int | None]:
    """Return what decides whether two addresses are of the same server: scheme, host and port.

    Raises:
        ValueError: it is no address.
    """
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def host_of(url: str) -> str:
    """Return the host of an address for a message, with its port if that is not the usual one."""
    scheme, host, port = origin(url)
    host = f"[{host}]" if ":" in host else host
    return host if port == _PORTS.get(scheme) else f"{host}:{port}"


def may_lead_to(url: str, following: str) -> bool:
    """Say whether a server may send its client on to another address: one of HTTP, and over a
    safe wire where the first was safe."""
    try:
        scheme, host, _ = origin(following)
    except ValueError:
        return False
    safe = ("https",) if url.lower().startswith("https:") else ("https", "http")
    return scheme in safe and bool(host)


def at_endpoint(asked: str, link: str) -> str:
    """Return where the configured endpoint has what a link of one of its answers names.

    A mirror passes on the links of the Hub as they are. Only their path and query count: whoever
    was asked for the first page is asked for the next.

    Args:
        asked: the address that was answered.

    Raises:
        ValueError: the link is no address.
    """
    parts, home = urlsplit(urljoin(asked, link)), urlsplit(constants.ENDPOINT)
    before, path = home.path.rstrip("/"), parts.path
    if not (before and path.startswith(f"{before}/")):
        path = before + path
    return urlunsplit((home.scheme, home.netloc, path, parts.query, ""))


def part_of(answer: Answer, size: int) -> tuple[int, int, int | None] | None:
    """Read which part of a file an answer holds (RFC 9110, 14.4).

    Some servers say so under the wrong status, and some repeat the header beside the whole file.

    Args:
        size: of the whole file.

    Returns:
        Its first byte, the one after its last, and the bytes of the whole file, None where the
        server does not know; None if it is the whole, or does not say.
    """
    found = _CONTENT_RANGE.fullmatch((answer.header("Content-Range") or "").strip())
    if found is None or int(found[2]) < int(found[1]):
        return None
    if answer.status_code != 206 and answer.header("Content-Length") in (None, str(size)):
        return None
    return int(found[1]), int(found[2]) + 1, None if found[3] == "*" else int(found[3])


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
                raise Failure(why.reason, str(why), retry_after_s=why.retry_after_s, host=why.host)
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


@dataclass(frozen=True, slots=True)
class _Unzipped:
    """An answer that a server has compressed although nobody wanted it."""

    answer: Answer
    size: int

    @property
    def status_code(self) -> int:
        return self.answer.status_code

    def header(self, name: str) -> str | None:
        return self.answer.header(name)

    def chunks(self) -> Iterator[memoryview]:
        """Yield the bytes of the file, and not many more, whatever they grow to."""
        left = self.size + 1
        for part in unpacked(self.answer.chunks(), ", ".join(_encodings(self.answer))):
            yield memoryview(part)[:left]
            left -= len(part)
            if left <= 0:
                return

    def close(self) -> None:
        self.answer.close()


@dataclass(slots=True)
class _Link:
    """What is known of the way to one file.

    Attributes:
        locating: lets one ask the Hub.
        url: where the bytes are; None until the Hub was asked.
        etag: of that place, for If-Range: a range of another version must not be mixed in.
        tagged: whether its ETags are looked at. Where they change while the file cannot, as behind
            a row of proxies, its hash alone decides.
        odd: how often a range was answered with what has no place in the file. Once may be
            chance, and without ranges whatever breaks begins anew.
        by_client: whether the Hub's client has to ask there.
    """

    locating: SingleFlight = field(default_factory=SingleFlight)
    url: str | None = None
    etag: str | None = None
    tagged: bool = True
    odd: int = 0
    by_client: bool = False

    def forget(self) -> None:
        """Let the Hub be asked anew."""
        self.url = self.etag = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A range that is asked for. The names are those of `Links.open`."""

    file: RepoFile
    link: _Link
    start: int
    stop: int
    asking: Callable[[], object]
    canceller: Canceller
    whole: bool = False


class Links:
    """Opens ranges of the files of one commit.

    Args:
        token: gives the token for the Hub; it is sent to no other host.
        timeout_s: for each wait for bytes.
        heard: called with each answer of the Hub to its client, for what its headers tell.
        wires: fetches from where the bytes are known to be.
        answers: how long answers take to begin, as far as that is known.
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
        answers: AnswerTime | None = None,
    ) -> None:
        self._repo_id = repo_id
        self._repo_type = str(repo_type)
        self._token = token
        self._rate_limit = rate_limit
        self._heard = heard
        self._wires = wires or Wires()
        self._answers = answers or AnswerTime()
        self._connect_s, self._timeout_s = min(CONNECT_TIMEOUT_S, timeout_s), timeout_s
        self._links: defaultdict[str, _Link] = defaultdict(_Link)
        self._lock = threading.Lock()
        self._answered: set[tuple[str, str, int | None]] = set()

    def place_of(self, file: RepoFile) -> str:
        """Return where the bytes of a file are known to be; the Hub's address if nowhere."""
        with self._lock:
            return self._links[file.path].url or constants.ENDPOINT

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
            The answer, whose body is yet to be read, and the offset of its first byte: `start` or
            less, and 0 where the server sends the whole file all the same. It may end before
            `stop`; then `part_of` says so.

        Raises:
            Failure: another attempt may do better.
            HfHubHTTPError: the Hub refuses for good.
        """
        with self._lock:
            link = self._links[file.path]
        wanted = _Wanted(
            file, link, start, stop, asking, canceller or Canceller(), whole=link.odd > 1
        )
        answer = self._answer(commit_hash, wanted)
        try:
            first = self._first_byte(wanted, answer)
            if first is None and not wanted.whole:
                answer.close()
                link.odd += 1
                wanted = replace(wanted, whole=True)
                answer = self._answer(commit_hash, wanted)
                first = self._first_byte(wanted, answer)
            if first is None:
                raise self._failed(Reason.BAD_ANSWER, link)
            yield _readable(answer, file), first
        finally:
            answer.close()

    def _answer(self, commit_hash: str, wanted: _Wanted) -> Answer:
        """Ask where the file is, first the Hub if nobody knows that yet."""
        link, answer = wanted.link, None
        with link.locating.turn(wanted.asking):
            # The others wait for the one that asks the Hub, and then have its answer.
            if link.url is None:
                url = hf_hub_url(
                    self._repo_id,
                    wanted.file.path_in_repo,
                    repo_type=self._repo_type,
                    revision=commit_hash,
                    endpoint=constants.ENDPOINT,
                )
                answer = self._ask(url, wanted, only_home=True)
        if answer is None:
            url = link.url or ""
            if not url:
                raise Failure(Reason.EXPIRED)  # Another piece has just found that.
            answer = self._ask(url, wanted, only_home=False)
            assert answer is not None
        return answer

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
            answer = self._reach(url, wanted, at_home=at_home)
            try:
                if isinstance(answer, _ByClient) and at_home:
                    self._heard(answer.response)
                if answer.status_code in REDIRECTS:
                    _check_version(answer, wanted.file)
                    url = redirected(url, answer.header("Location"))
                    answer.close()
                    if only_home and origin(url) != home:
                        link.url = url
                        return None
                    continue
                unsatisfiable = answer.status_code == 416 and not wanted.whole
                if answer.status_code >= 400 and not unsatisfiable:
                    self._refused(link, url, answer, at_home=at_home)
            except BaseException:
                answer.close()
                raise
            link.url = url
            return answer
        raise Failure(Reason.REDIRECTS, host=host_of(url))

    def _reach(self, url: str, wanted: _Wanted, *, at_home: bool) -> Answer:
        """Send a request; what goes wrong says at which host.

        One that has never answered, while the Hub has just named it, is most likely blocked. The
        Hub is asked anew the next time: it may name another, and if it does not answer either,
        the fault is on this side.
        """
        there, asked_at = origin(url), time.monotonic()
        try:
            with network_failures(url, asking=there not in self._answered):
                answer = self._send(url, wanted, at_home=at_home)
        except Failure as failure:
            failure.host = failure.host or host_of(url)
            lost = failure.reason in (Reason.CONNECTION_LOST, Reason.TIMED_OUT, Reason.STALLED)
            if lost and not at_home and there not in self._answered:
                failure.reason = Reason.BLOCKED
                if wanted.link.url == url:
                    wanted.link.forget()
            raise
        self._answers.took(time.monotonic() - asked_at)
        self._answered.add(there)
        return answer

    def _send(self, url: str, wanted: _Wanted, *, at_home: bool) -> Answer:
        link = wanted.link
        # Bytes as they are: a range of a compressed answer would be a range of something else.
        headers = {
            "Accept-Encoding": "identity",
            **build_hf_headers(token=self._token() if at_home else False),
        }
        if not wanted.whole:
            headers["Range"] = f"bytes={wanted.start}-{wanted.stop - 1}"
            if link.etag is not None:
                headers["If-Range"] = link.etag
        known_there = url == link.url and wanted.file.size > SMALL_FILE_BYTES
        if (known_there or not at_home) and not link.by_client:
            answer = self._wires.get(
                url,
                headers,
                connect_s=self._connect_s,
                timeout_s=self._answers.patience_s(self._timeout_s),
                canceller=wanted.canceller,
            )
            if answer is not None:
                if not at_home or answer.status_code < 300:
                    return answer
                answer.close()  # What the Hub says besides is told by its client.
            else:
                link.by_client = True
        wait_s = self._answers.patience_s(self._timeout_s)
        return _ByClient(send(url, headers, connect_s=self._connect_s, timeout_s=wait_s))

    def _refused(self, link: _Link, url: str, answer: Answer, *, at_home: bool) -> None:
        """Raise for an answer that is an error."""
        status, host = answer.status_code, host_of(url)
        if status in TRANSIENT_STATUS:
            refusal = self._rate_limit.refusal if at_home else status_failure
            failure = refusal(status, answer.header("Retry-After"), answer.header("Date"))
            failure.host = host
            raise failure
        if link.url == url:  # Another piece may have found a newer one.
            link.forget()
        page = _is_html(answer) and answer.header("X-Error-Message") is None
        told = isinstance(answer, _ByClient) and at_home and status != 416 and not page
        if isinstance(answer, _ByClient) and (told or status == 407):
            raise_refusal(answer.response)
        if page:
            raise Failure(Reason.PAGE, f"the server answered {status} with a web page", host=host)
        if status in (401, 403):
            raise Failure(Reason.EXPIRED, host=host)
        failure = status_failure(status, None)
        failure.host = host
        raise failure

    def _first_byte(self, wanted: _Wanted, answer: Answer) -> int | None:
        """Return the offset of the first byte of an answer, if it holds what was asked for.

        The commit is pinned and the hash of the whole file decides, so nothing more is asked of an
        answer than that its bytes have a place.

        Returns:
            None where the whole file has to be asked for: this place cannot cut it.
        """
        link, file = wanted.link, wanted.file
        encodings, length = _encodings(answer), answer.header("Content-Length")
        if answer.status_code == 416:
            return None
        part = part_of(answer, file.size)
        unsaid = (
            wanted.whole and answer.header("Content-Range") is None and length == str(file.size)
        )
        if part is not None or (answer.status_code == 206 and not unsaid):
            if encodings or part is None or not part[0] <= wanted.start < part[1]:
                return None
            first, stop, size = part
            if size not in (None, file.size) or stop > file.size:
                raise self._failed(Reason.OTHER_VERSION, link)
        elif answer.status_code in (200, 206):
            first = 0
            fits = length == str(file.size) and not encodings
            if _is_html(answer) and not fits and _bare(answer.header("ETag")) != file.etag:
                raise self._failed(Reason.PAGE, link)
            if not encodings <= UNPACKED or len(encodings) > 1:
                raise self._failed(Reason.BAD_ANSWER, link, "the answer is compressed")
            if not fits and length is not None and not encodings:
                raise self._failed(Reason.OTHER_VERSION, link)
        else:
            raise status_failure(answer.status_code, None)
        etag = answer.header("ETag")
        if link.tagged and not encodings and etag and etag.isascii() and not etag.startswith("W/"):
            if link.etag not in (None, etag):
                link.etag, link.tagged = None, False
                raise Failure(Reason.OTHER_VERSION)
            link.etag = etag
        return first

    def _failed(self, reason: Reason, link: _Link, text: str = "") -> Failure:
        """Return the failure of an answer that is of no use; the Hub is asked anew after it."""
        host = host_of(link.url) if link.url else None
        link.forget()
        return Failure(reason, text, host=host)


def _encodings(answer: Answer) -> frozenset[str]:
    """Return how the body of an answer is encoded; nothing where it is as it is."""
    named = (answer.header("Content-Encoding") or "").lower().split(",")
    return frozenset(name.strip() for name in named) - _AS_IT_IS


def _readable(answer: Answer, file: RepoFile) -> Answer:
    """Return an answer whose chunks are the bytes of the file."""
    return _Unzipped(answer, file.size) if _encodings(answer) else answer


def _is_html(answer: Answer) -> bool:
    kind = (answer.header("Content-Type") or "").partition(";")[0].strip().lower()
    return kind in ("text/html", "application/xhtml+xml")


def _check_version(answer: Answer, file: RepoFile) -> None:
    """Compare what the Hub says of a file now with what it listed."""
    linked = _bare(answer.header("X-Linked-Etag"))
    # A mirror may have ETags of its own, which say nothing of the content.
    is_hash = linked is not None and len(linked) == len(file.etag) and _HASH.fullmatch(linked)
    if is_hash and linked != file.etag:
        raise Failure(Reason.OTHER_VERSION)


def _bare(etag: str | None) -> str | None:
    """Take the quotes and the mark of weakness off an ETag; None if it is none."""
    match = _ETAG.fullmatch(etag) if etag else None
    return match[1] if match else None


def redirected(url: str, location: str | None) -> str:
    """Return the address that a redirect names.

    Raises:
        Failure: it is none, or the client may not be led there.
    """
    host = host_of(url)
    try:
        following = urljoin(url, location or "")
    except ValueError:
        raise Failure(Reason.REDIRECTS, host=host) from None
    if following == url:
        raise Failure(Reason.REDIRECTS, host=host)
    if not may_lead_to(url, following):
        raise Failure(Reason.REDIRECTS, "redirected to an address that is not safe", host=host)
    return following
