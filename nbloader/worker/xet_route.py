"""Bytes over Xet storage, by ranges; where chunks begin; whether the storage answers at all.

hf_xet hands a range over only when it is whole, so pieces are small; one stream for a file would
run far ahead of what it delivers, and lose that at a kill.

The storage sends whole chunks (64 KiB in the mean, 128 KiB at most). Two neighbouring ranges that
are cut inside a chunk both fetch it: 2 % more bytes with ranges of 4 MiB, 9 % with 1 MiB (measured
on random bytes). So ranges are cut where a chunk begins, which costs a small question each.

Networks that let the Hub through may still block the hosts of Xet storage, so one is asked beside
other work.
"""

from __future__ import annotations

import importlib.metadata
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from huggingface_hub import constants, get_session

from nbloader.limits import (
    XET_CHUNKS_TIMEOUT_S,
    XET_PROBE_TIMEOUT_S,
    XET_PROBE_WAIT_S,
    xet_piece_limit_s,
)
from nbloader.records import RepoFile, Route, TransferPolicy, XetFacts
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure, seconds_of, status_failure
from nbloader.worker.links import SingleFlight, host_of, may_lead_to
from nbloader.worker.piece import Cut, Piece

OLDEST_XET = (1, 5, 2)
"""The first hf_xet that reads ranges, and whose waits between attempts do not grow to days."""

REFRESH_BEFORE_S = 60.0
"""A token is asked for anew so long before it expires, as the Hub's library does."""

_EXPIRY = 1 << 32
"""What hf_xet is told of the end of a token, in seconds since the epoch: the year 2106. It would
compare the true one with the clock of this machine, which may be wrong."""

_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")
"""How hf_xet tells of an answer that is an error; there is no other way to learn the status."""

MAX_CHUNK_BYTES = 128 << 10

MOST_FAILURES = 3
"""After so many in a row nothing is asked any more: it only saves bytes."""


def xet_is_usable(version: str | None) -> bool:
    """Say whether an installed hf_xet of this version can fetch ranges; None: not installed."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version or "").release >= OLDEST_XET
    except InvalidVersion:
        return False


def may_use_xet(policy: TransferPolicy) -> bool:
    """Say whether the settings allow Xet storage, and an hf_xet that can read it is installed."""
    return policy.route is not Route.HTTP and xet_is_usable(_xet_version())


def _xet_version() -> str | None:
    if constants.HF_HUB_DISABLE_XET:
        return None
    try:
        return importlib.metadata.version("hf-xet")
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class XetAccess:
    """Where Xet storage is, and the token for it.

    Attributes:
        lasts_s: seconds from the answer until it expires.
    """

    cas_url: str
    token: str
    lasts_s: float


def access_from_json(
    answer: object,
    endpoint: str,
    date: str | None = None,
    clock: Callable[[], float] = time.time,
) -> XetAccess:
    """Read the Hub's answer.

    Args:
        date: when it has answered by its own clock, which has set the end of the token, too.

    Raises:
        Failure: it is none, or names an address that the token must not go to.
    """
    if isinstance(answer, dict):
        url, token, expires = (answer.get(key) for key in ("casUrl", "accessToken", "exp"))
        if (
            isinstance(url, str)
            and isinstance(token, str)
            and type(expires) is int
            and may_lead_to(endpoint, url)
        ):
            answered_at = seconds_of(date)
            lasts_s = expires - (clock() if answered_at is None else answered_at)
            return XetAccess(cas_url=url, token=token, lasts_s=lasts_s)
    raise Failure(Reason.BAD_ANSWER, "the Hub's answer about Xet storage makes no sense")


class XetRoute:
    """Fetches pieces of files over Xet storage.

    Args:
        access: asks the Hub where Xet storage is; called again before the token expires.
        stall_timeout_s: what the environment was made with: hf_xet ends a silent read by itself.
    """

    def __init__(
        self,
        access: Callable[[], XetAccess],
        *,
        stall_timeout_s: float,
        chunks: ChunkStarts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask_access = access
        self._stall_timeout_s = stall_timeout_s
        self._chunks = chunks
        self._clock = clock
        self._connecting = SingleFlight()
        self._good_until = float("-inf")
        self._lock = threading.Lock()
        self._session: Any = None
        self._group: Any = None
        self._access: XetAccess | None = None

    def prepare(self, piece: Piece) -> tuple[int, int]:
        """Move the ends of a piece to where chunks begin.

        Raises:
            Failure: the Hub gives no access to Xet storage.
        """
        cut = piece.cut
        if not cut.margin:
            self._connected(piece)
            return cut.start, cut.stop
        start, stop = (self._chunk_start(piece, offset) for offset in (cut.start, cut.stop))
        return (start, stop) if stop > cut.start else (cut.start, cut.stop)

    def _chunk_start(self, piece: Piece, offset: int) -> int:
        """Return the first byte of the chunk that holds a byte, by a token that is accepted."""
        file = piece.cut.file
        assert file.xet_hash is not None
        for _ in range(2):
            _, group, access = self._connected(piece)
            try:
                return self._chunks.before(access, file.xet_hash, offset, file.size)
            except Failure:
                with self._lock:
                    self._forget(group)
            finally:
                piece.heard()
        return offset

    def fetch(self, piece: Piece) -> None:
        """Bring the bytes of a piece.

        Raises:
            Failure: it ended early.
            OSError: the disk refuses.
        """
        session, group, _ = self._connected(piece)
        piece.cancel = self.abort
        chunks = _chunks(group, piece.cut)
        while True:
            # Apart from the write: hf_xet raises OSError, too.
            try:
                chunk = next(chunks, None)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # A panic of native code is no Exception.
                raise self._failure(session, group, error, piece) from error
            if chunk is None:
                break
            if piece.received + len(chunk) > piece.cut.size:
                raise Failure(Reason.OTHER_VERSION)
            piece.write(chunk)
        if piece.received < piece.cut.size:
            self._check_session(session)
            raise Failure(Reason.CAME_SHORT)

    def read(self, commit_hash: str, file: RepoFile, start: int, stop: int) -> bytes:
        """Read a range of a file into memory.

        Raises:
            Failure: it cannot be had.
        """
        limit_s = xet_piece_limit_s(self._stall_timeout_s)
        cut = Cut(
            file=file,
            commit_hash=commit_hash,
            route=Route.XET,
            start=start,
            stop=stop,
            limit_s=limit_s,
        )
        content = bytearray()
        piece = Piece(cut=cut)
        piece.begin(_Memory(content))
        # Nobody else looks whether it stalls.
        timer = threading.Timer(2 * limit_s, self.abort)
        timer.daemon = True
        timer.start()
        try:
            self.fetch(piece)
        finally:
            timer.cancel()
        return bytes(content)

    def abort(self) -> None:
        """End everything that is under way; a single stream cannot be ended while it is read."""
        with self._lock:
            session, self._session, self._group = self._session, None, None
        if session is not None:
            session.sigint_abort()

    def _connected(self, piece: Piece) -> tuple[Any, Any, XetAccess]:
        """Return the session, its group and the access, made anew where that is needed."""
        import hf_xet

        # Not under `_lock`: to ask the Hub may take long, and `abort` must not wait for it.
        with self._connecting.turn(piece.heard):
            access = self._access
            if access is None or self._clock() > self._good_until:
                access = self._ask_access()
                # A new token is good for a moment, whatever was said of its end.
                lasts_s = max(access.lasts_s - REFRESH_BEFORE_S, REFRESH_BEFORE_S)
                self._good_until = self._clock() + lasts_s
                with self._lock:
                    self._access, self._group = access, None
            with self._lock:
                try:
                    if self._session is None:
                        self._session = hf_xet.XetSession()
                    if self._group is None:
                        self._group = self._session.new_download_stream_group(
                            endpoint=access.cas_url,
                            token=access.token,
                            token_expiry_unix_secs=_EXPIRY,
                        )
                except Exception as error:
                    raise Failure(Reason.XET, f"Xet storage failed ({_kind(error)})") from error
                return self._session, self._group, access

    def _forget(self, group: Any) -> None:
        """Ask for a new token before the next piece, unless that has been done; under the lock."""
        if self._group is group:
            self._group = self._access = None

    def _check_session(self, session: Any) -> None:
        with self._lock:
            if self._session is not session:
                raise Failure(Reason.CANCELLED)

    def _failure(self, session: Any, group: Any, error: BaseException, piece: Piece) -> Failure:
        """Say what an error of hf_xet means; its text may hold signed addresses."""
        access = self._access
        host = host_of(access.cas_url) if access is not None else None
        with self._lock:
            if self._session is not session:
                return Failure(Reason.CANCELLED)
            status = _STATUS.search(str(error))
            if status is not None and status[1] in ("401", "403"):
                self._forget(group)
                return Failure(Reason.EXPIRED, host=host)
        if piece.clock() - piece.heard_at >= self._stall_timeout_s:
            failure = Failure(Reason.STALLED)
        elif status is not None:
            failure = status_failure(int(status[1]), None)
        else:
            failure = Failure(Reason.XET, f"Xet storage failed ({_kind(error)})")
        failure.host = host
        return failure


@dataclass(frozen=True, slots=True)
class _Memory:
    """Takes the bytes of a piece that is not kept."""

    content: bytearray

    def write(self, data: bytes | memoryview) -> int:
        self.content.extend(data)
        return len(data)


def _chunks(group: Any, cut: Cut) -> Iterator[bytes]:
    """Read the bytes of a cut; also what goes wrong at the beginning is raised by `next`."""
    import hf_xet

    info = hf_xet.XetFileInfo(cut.file.xet_hash, cut.file.size)
    yield from group.download_stream(info, start=cut.start, end=cut.stop)


def _kind(error: BaseException) -> str:
    """Return the first words of an error of hf_xet, which hold no address."""
    return str(error).partition(":")[0][:40] or type(error).__name__


def ask_storage(url: str, token: str, offset: int, timeout_s: float) -> Any:
    """Ask for what the byte at `offset` is made of. Raises whatever the client raises."""
    response = get_session().get(
        url,
        headers={"Authorization": f"Bearer {token}", "Range": f"bytes={offset}-{offset}"},
        timeout=timeout_s,
        follow_redirects=False,
    )
    response.raise_for_status()
    return response.json()


def _refuses(error: Exception) -> bool:
    """Say whether an error of the client is an answer that does not accept the token."""
    return getattr(getattr(error, "response", None), "status_code", None) in (401, 403)


class ChunkStarts:
    """Finds the beginning of the chunk that holds a byte; asks once for each.

    Args:
        timeout_s: of a question.
    """

    def __init__(
        self,
        timeout_s: float = XET_CHUNKS_TIMEOUT_S,
        ask: Callable[[str, str, int, float], Any] = ask_storage,
    ) -> None:
        self._timeout_s = min(XET_CHUNKS_TIMEOUT_S, timeout_s)
        self._ask = ask
        self._known: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()
        self._failures = 0

    def before(self, access: XetAccess, xet_hash: str, offset: int, size: int) -> int:
        """Return the first byte of the chunk that holds the byte at `offset`.

        Args:
            size: of the file. Its end is the end of a chunk.

        Returns:
            `offset` itself where the storage cannot tell.

        Raises:
            Failure: the token is not accepted any more.
        """
        if offset in (0, size):
            return offset
        with self._lock:
            known = self._known.get((xet_hash, offset))
            if known is not None or self._failures >= MOST_FAILURES:
                return offset if known is None else known
        try:
            url = f"{access.cas_url}/v2/reconstructions/{xet_hash}"
            answer = self._ask(url, access.token, offset, self._timeout_s)
            skipped = answer["offset_into_first_range"]
            told = type(skipped) is int and 0 <= skipped <= min(offset, MAX_CHUNK_BYTES)
        except Exception as error:
            if _refuses(error):
                raise Failure(Reason.EXPIRED) from None
            told = False
        with self._lock:
            if not told:
                self._failures += 1
                return offset
            self._failures = 0
            # What two threads ask at once has one answer.
            start: int = offset - skipped
            self._known[xet_hash, offset] = start
            self._known[xet_hash, start] = start
            return start


class XetProbe:
    """Asks one host once. No token is sent: any answer of HTTP shows that the way is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._host = ""
        self._asked_at = 0.0
        self._timeout_s = XET_PROBE_TIMEOUT_S
        self._answer_s: float | None = None

    def ask(self, host: str, patience_s: float = 0.0) -> None:
        """Ask a host, given without path, on a thread of its own; later calls do nothing.

        Args:
            patience_s: how long an answer may take on this link.
        """
        with self._lock:
            if self._thread is not None:
                return
            self._host, self._asked_at = host, time.monotonic()
            self._timeout_s = max(XET_PROBE_TIMEOUT_S, patience_s)
            self._thread = threading.Thread(target=self._ask, name="xet-probe", daemon=True)
            self._thread.start()

    def result(self, wait_s: float = XET_PROBE_WAIT_S) -> XetFacts | None:
        """Return what came of it; None if no host was asked.

        A host that has refused, or said nothing until then, has no answer.

        Args:
            wait_s: for an answer that is still to come; at most until it is given up.
        """
        thread = self._thread
        if thread is None:
            return None
        left_s = self._asked_at + self._timeout_s - time.monotonic()
        thread.join(max(0.0, min(wait_s, left_s)))
        return XetFacts(host=self._host, answer_s=self._answer_s)

    def _ask(self) -> None:
        from huggingface_hub import get_session

        session: Any = get_session()
        try:
            request = session.build_request("GET", f"{self._host}/", timeout=self._timeout_s)
            session.send(request, stream=True, follow_redirects=False).close()
        except Exception:  # Whatever it is, there was no answer.
            return
        self._answer_s = time.monotonic() - self._asked_at
