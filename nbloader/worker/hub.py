"""The Hub as the worker sees it: listings, headers, access.

Every call has a timeout and goes through `call_with_retries`. What fails for good leaves as an
error of `errors`, with a hint that fits the case.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import quote

from huggingface_hub import constants, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import build_hf_headers

from nbloader.bounds import MAX_ANSWER_BYTES, MAX_FILES, MAX_PAGES, json_value
from nbloader.errors import (
    GatedRepoError,
    InvalidTokenError,
    MalformedFileError,
    NbloaderError,
    RepoNotFoundError,
)
from nbloader.hub_names import is_etag, is_xet_hash
from nbloader.limits import (
    CALL_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    MOST_ANSWER_WAIT_S,
    XET_PROBE_WAIT_S,
)
from nbloader.records import (
    HubFacts,
    Listing,
    RateLimitFacts,
    RepoFile,
    RepoType,
    Retry,
    TransferPolicy,
)
from nbloader.redaction import hidden
from nbloader.selection import FIRST_READ_BYTES, Header, header_end, parse_header
from nbloader.transfer.policy import Reason
from nbloader.worker.answers import (
    Attempted,
    RepoInfo,
    TokenScope,
    explain,
    license_of,
    no_hub,
    rate_limit_of,
    repo_info,
    tightest,
    token_refused,
    token_scope,
    xet_host,
)
from nbloader.worker.client import PACKED, TooLargeError, body_of, raise_refusal, send
from nbloader.worker.failures import (
    OPENING_ATTEMPTS,
    TRANSIENT_STATUS,
    Failure,
    RateLimit,
    call_with_retries,
)
from nbloader.worker.links import (
    MAX_REDIRECTS,
    REDIRECTS,
    Links,
    at_endpoint,
    origin,
    part_of,
    redirected,
)
from nbloader.worker.network import network_failures
from nbloader.worker.tuning import AnswerTime
from nbloader.worker.wire import Wires
from nbloader.worker.xet_route import (
    ChunkStarts,
    XetAccess,
    XetProbe,
    XetRoute,
    access_from_json,
    may_use_xet,
)

MAX_KEPT_HEADERS = 16 << 20
"""Bytes of headers of weights that are kept for a sketch; those of a model of 24 GB take 0.2 MB."""

LONGER_EACH_TIME = 2.5
"""The second and the third question wait so many times as long for the first answer."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What holds for all repositories at one endpoint.

    Attributes:
        rate_limit: waits when the Hub asks for it.
        limits: what answers told of it, by kind.
        xet_probe: finds out whether Xet storage answers.
        wires: the connections to where the bytes are.
        answers: how long answers take to begin.
    """

    rate_limit: RateLimit = field(default_factory=RateLimit)
    limits: dict[str, RateLimitFacts] = field(default_factory=dict)
    xet_probe: XetProbe = field(default_factory=XetProbe)
    wires: Wires = field(default_factory=Wires)
    answers: AnswerTime = field(default_factory=AnswerTime)


@dataclass(slots=True)
class Hub:
    """One repository at one endpoint.

    Attributes:
        token: a token, None for the one that is stored on this machine, False for none at all.
        publish: told of retries.
        local_dir: a folder of the user's own for its files; None for the Hub's cache.
        endpoint: shared by the repositories there.
        links: opens ranges of its files.
        facts: what is known of the Hub so far.
        asks_xet: whether to find out if Xet storage answers, as soon as an answer names it.
        headers: of weights that were read, by commit and path.
    """

    repo_id: str
    policy: TransferPolicy
    token: str | bool | None = field(repr=False)
    publish: Callable[[Retry], object]
    repo_type: RepoType = RepoType.MODEL
    local_dir: str | None = None
    endpoint: Endpoint = field(default_factory=Endpoint)
    links: Links = field(init=False)
    facts: HubFacts = field(init=False)
    asks_xet: bool = field(init=False, default=False)
    headers: dict[tuple[str, str], bytes] = field(init=False, default_factory=dict)
    _scope: TokenScope | None = field(init=False, default=None)
    _xet: dict[str, XetRoute] = field(init=False, default_factory=dict)
    _reads_over_xet: bool = field(init=False, default=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.facts = HubFacts(
            endpoint=constants.ENDPOINT,
            cache_dir=self.local_dir or constants.HF_HUB_CACHE,
            local=self.local_dir is not None,
        )
        self.links = Links(
            self.repo_id,
            repo_type=self.repo_type,
            token=lambda: self.token,
            timeout_s=self.policy.stall_timeout_s,
            rate_limit=self.endpoint.rate_limit,
            heard=self._heard,
            wires=self.endpoint.wires,
            answers=self.endpoint.answers,
        )

    def beside(self, repo_id: str, repo_type: RepoType = RepoType.MODEL) -> Hub:
        """Return another repository at the same endpoint, asked with the same token.

        What the Hub says of its rate limit counts for both, and so does Xet storage.
        """
        return replace(self, repo_id=repo_id, repo_type=repo_type, local_dir=None)

    def all_facts(self) -> HubFacts:
        """Return what all answers so far have told; waits for Xet storage if it was asked."""
        return replace(
            self.facts,
            rate_limit=tightest(list(self.endpoint.limits.values())),
            # The Hub's own first answer shows how long a connection takes from here.
            xet=self.endpoint.xet_probe.result(
                max(XET_PROBE_WAIT_S, 2 * (self.facts.answer_s or 0.0))
            ),
        )

    def _heard(self, response: Any) -> None:
        """Note what the headers of an answer tell."""
        limit = rate_limit_of(response.headers)
        if limit is not None:
            self.endpoint.limits[limit.kind] = limit
            if response.status_code == 429 and "Retry-After" not in response.headers:
                self.endpoint.rate_limit.resets_in(limit.reset_s)
        if self.asks_xet:
            link = response.links.get("xet-reconstruction-info", {}).get("url")
            host = xet_host(link, constants.ENDPOINT)
            if host is not None:
                self.endpoint.xet_probe.ask(host, self.endpoint.answers.patience_s())

    # -- what is there ---------------------------------------------------------------------

    def resolve(self, revision: str) -> RepoInfo:
        """Find out which commit a revision is and what the Hub says of the repository.

        The facts about the Hub are noted, too.

        A token that the Hub refuses must not stand between a user and a public model: the call is
        made again without it, and the facts tell.
        """
        try:
            return self._resolve(revision)
        except (InvalidTokenError, RepoNotFoundError) as error:
            scope = self._token_scope() if self.secret else None
            if scope is None or scope.valid:
                raise
            kept, self.token = self.token, False
            try:
                info = self._resolve(revision)
            except (RepoNotFoundError, GatedRepoError):
                self.token = kept
                raise token_refused(self.repo_id) from error
            self.facts = replace(self.facts, token_refused=True)
            return info

    def _resolve(self, revision: str) -> RepoInfo:
        url = f"{self._api}/revision/{quote(revision, safe='')}"
        timeout_s = self.policy.answer_timeout_s

        def ask() -> tuple[float, Any]:
            nonlocal timeout_s
            started, waited_s = time.monotonic(), timeout_s
            # Where nothing comes, the link may be one on which every answer begins late.
            timeout_s = max(timeout_s, min(timeout_s * LONGER_EACH_TIME, MOST_ANSWER_WAIT_S))
            answer, _, _ = self._get_json(url, waited_s)
            return time.monotonic() - started, answer

        few = min(OPENING_ATTEMPTS, self.policy.max_retries)
        seconds, answer = self._call(
            ask, revision=revision, policy=replace(self.policy, max_retries=few)
        )
        info = repo_info(answer, self.repo_id)
        if info is None:
            raise no_hub(f"its answer about {self.repo_id} holds no commit")
        self.facts = replace(
            self.facts,
            answer_s=seconds,
            private=bool(answer.get("private")),
            gated=bool(answer.get("gated")),
            license=license_of(answer),
            token_sent=self.secret is not None,
        )
        return info

    @property
    def _api(self) -> str:
        return f"{constants.ENDPOINT}/api/{self.repo_type}s/{self.repo_id}"

    def _get_json(self, url: str, timeout_s: float) -> tuple[Any, str | None, str | None]:
        """Ask the Hub's API; gives the answer, what it links to as its next page, and its date.

        The library's own calls wait for ever on a silent server and hide their retries.
        """
        answers = self.endpoint.answers
        for _ in range(MAX_REDIRECTS + 1):
            self.endpoint.rate_limit.check()
            wait_s, asked_at = answers.patience_s(timeout_s), time.monotonic()
            at_home = origin(url) == origin(constants.ENDPOINT)
            headers = PACKED | build_hf_headers(token=self.token if at_home else False)
            connect_s = min(CONNECT_TIMEOUT_S, wait_s)
            response = send(url, headers, connect_s=connect_s, timeout_s=wait_s)
            with closing(response):
                answers.took(time.monotonic() - asked_at)
                self._heard(response)
                date = response.headers.get("Date")
                if response.status_code in REDIRECTS:
                    url = redirected(url, response.headers.get("Location"))
                    continue
                if response.status_code in TRANSIENT_STATUS:
                    retry_after = response.headers.get("Retry-After")
                    raise self.endpoint.rate_limit.refusal(response.status_code, retry_after, date)
                if response.status_code >= 400:
                    raise_refusal(response)
                try:
                    content = body_of(response, MAX_ANSWER_BYTES)
                except TooLargeError:
                    raise no_hub("its answer does not end") from None
                following = response.links.get("next", {}).get("url")
            try:
                return self._without_token(json_value(content), content), following, date
            except (ValueError, RecursionError):
                raise no_hub("its answer is not JSON") from None
        raise Failure(Reason.REDIRECTS)

    def _without_token(self, answer: Any, content: bytes) -> Any:
        """Take the token out of an answer: a server that repeats it would have it shown and kept.

        Args:
            content: what the answer was read from.
        """
        token = self.secret
        if token is None:
            return answer
        may_hold_it = token.encode() in content or b"\\u" in content
        return hidden(answer, token) if may_hold_it else answer

    def listing(self, revision: str, commit_hash: str) -> Listing:
        """List all files of a commit."""
        url = f"{self._api}/tree/{commit_hash}?recursive=true"
        files: list[RepoFile] = []
        for _ in range(MAX_PAGES):
            entries, following = self._call(functools.partial(self._page, url), revision=revision)
            files.extend(_repo_file(entry) for entry in entries if entry.get("type") == "file")
            if len(files) > MAX_FILES:
                raise no_hub(f"its listing has more than {MAX_FILES:,} files")
            if following is None:
                return Listing(
                    repo_id=self.repo_id,
                    revision=revision,
                    commit_hash=commit_hash,
                    files=tuple(files),
                )
            url = following
        raise no_hub("the listing does not end")

    def _page(self, url: str) -> tuple[list[dict[str, Any]], str | None]:
        """Fetch one page of a listing, and the address of the next."""
        entries, following, _ = self._get_json(url, CALL_TIMEOUT_S)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise no_hub("the listing is not a list")
        try:
            return entries, None if following is None else at_endpoint(url, following)
        except ValueError:
            raise no_hub("the listing goes on at an address that is none") from None

    @property
    def secret(self) -> str | None:
        """The token that is sent; None for none."""
        token = get_token() if self.token in (None, True) else self.token
        return token if isinstance(token, str) and token else None

    def _token_scope(self) -> TokenScope | None:
        """Ask what the token is good for; None if that cannot be found out.

        It is asked once at most: the Hub answers this question only a few times.
        """
        if self._scope is None:
            try:
                url = f"{constants.ENDPOINT}/api/whoami-v2"
                answer, _, _ = self._get_json(url, CALL_TIMEOUT_S)
                self._scope = token_scope(answer)
            except HfHubHTTPError as error:
                if error.response.status_code == 401:
                    self._scope = TokenScope(valid=False)
            except Exception:  # The question is put only to explain another error.
                return None
        return self._scope

    def read_header(self, commit_hash: str, file: RepoFile) -> Header:
        """Read the header of a safetensors file, and not the tensors.

        Raises:
            MalformedFileError: it was wrong twice.
        """
        return parse_header(self.header_bytes(commit_hash, file), file)

    def header_bytes(self, commit_hash: str, file: RepoFile) -> bytes:
        """Read a safetensors file up to the end of its header, which is seen to be right.

        Raises:
            MalformedFileError: it was wrong twice.
        """
        if (kept := self.headers.get((commit_hash, file.path))) is not None:
            return kept
        wrong = 0

        def attempt() -> bytes:
            nonlocal wrong
            start = self._read_range(commit_hash, file, 0, min(FIRST_READ_BYTES, file.size))
            try:
                end = header_end(start, file)
                if end > len(start):
                    start += self._read_range(commit_hash, file, len(start), end)
                parse_header(start, file)
            except MalformedFileError as error:
                wrong += 1
                if wrong > 1:
                    raise
                raise Failure(Reason.WRONG_BYTES, "wrong bytes in the header") from error
            return start[:end]

        header = self._call(attempt, path=file.path)
        if sum(map(len, self.headers.values())) + len(header) <= MAX_KEPT_HEADERS:
            self.headers[commit_hash, file.path] = header
        return header

    def read_range(self, commit_hash: str, file: RepoFile, first: int, last: int) -> bytes:
        """Read the bytes of a file from offset `first` up to `last`, without keeping them."""
        return self._call(
            functools.partial(self._read_range, commit_hash, file, first, last), path=file.path
        )

    def _read_range(self, commit_hash: str, file: RepoFile, first: int, last: int) -> bytes:
        """Read the bytes of a file from offset `first` up to `last`, over what answers."""

        def over_http() -> bytes:
            with network_failures():
                return self._read_over_http(commit_hash, file, first, last)

        def over_xet() -> bytes:
            return self._xet_of(commit_hash).read(commit_hash, file, first, last)

        if file.xet_hash is None or not may_use_xet(self.policy):
            return over_http()
        ways = (over_xet, over_http) if self._reads_over_xet else (over_http, over_xet)
        try:
            return ways[0]()
        except Failure as failure:
            if failure.reason is Reason.RATE_LIMITED:
                raise
            try:
                content = ways[1]()
            except (Failure, HfHubHTTPError):
                raise failure from None  # Of the route that is tried first, more can be told.
            self._reads_over_xet = not self._reads_over_xet
            return content

    def _read_over_http(self, commit_hash: str, file: RepoFile, first: int, last: int) -> bytes:
        content = bytearray()
        while len(content) < last - first:
            here = first + len(content)
            with self.links.open(commit_hash, file, here, last) as (answer, begins):
                # A server may answer with the whole file; no more of it is read than was asked
                # for. Or with less, which it says; then the rest is asked for.
                came, part = bytearray(), part_of(answer, file.size)
                for chunk in answer.chunks():
                    came += chunk
                    if len(came) > last - begins:
                        break
            content += came[here - begins : last - begins]
            ends = first + len(content)
            if ends < last and (part is None or part[1] != ends or ends == here):
                raise Failure(Reason.CAME_SHORT)
        return bytes(content)

    def _xet_of(self, commit_hash: str) -> XetRoute:
        """Return what reads ranges of the files of a commit over Xet storage."""
        with self._lock:
            if commit_hash not in self._xet:
                self._xet[commit_hash] = XetRoute(
                    functools.partial(self.xet_access, commit_hash),
                    stall_timeout_s=self.policy.stall_timeout_s,
                    chunks=ChunkStarts(self.policy.stall_timeout_s),
                )
            return self._xet[commit_hash]

    def xet_access(self, commit_hash: str) -> XetAccess:
        """Ask where Xet storage is, and for a token for it.

        Raises:
            Failure: there is no good answer. Files may come over HTTP all the same, which also
                finds out whether the access is at fault.
        """
        timeout_s = min(CALL_TIMEOUT_S, self.policy.stall_timeout_s)
        url = f"{self._api}/xet-read-token/{commit_hash}"
        try:
            with network_failures():
                answer, _, date = self._get_json(url, timeout_s)
        except HfHubHTTPError as error:
            raise Failure(Reason.REFUSED, "the Hub gives no access to Xet storage") from error
        return access_from_json(answer, constants.ENDPOINT, date)

    # -- errors ----------------------------------------------------------------------------

    def _call(
        self,
        function: Callable[[], _T],
        *,
        revision: str | None = None,
        path: str | None = None,
        policy: TransferPolicy | None = None,
    ) -> _T:
        attempts = 0

        def attempt() -> _T:
            nonlocal attempts
            attempts += 1
            with network_failures(constants.ENDPOINT, asking=path is None):
                return function()

        try:
            return call_with_retries(
                attempt, policy=policy or self.policy, path=path, publish=self.publish
            )
        except NbloaderError:
            raise
        except Exception as error:
            told = self.explained(error, revision=revision, path=path, attempts=attempts)
            raise told from (None if told is error.__cause__ else error)

    def explained(
        self,
        error: Exception,
        *,
        revision: str | None = None,
        path: str | None = None,
        attempts: int = 1,
    ) -> NbloaderError:
        """Return the error of our tree that says the same.

        Where access was refused to a token, the Hub is asked what the token is good for.
        """
        refused = isinstance(error, HfHubHTTPError) and (
            isinstance(error, RepositoryNotFoundError) or error.response.status_code in (401, 403)
        )
        sent = self.secret is not None
        return explain(
            error,
            Attempted(
                repo_id=self.repo_id,
                repo_type=self.repo_type,
                local_dir=self.local_dir,
                revision=revision,
                path=path,
                attempts=attempts,
                token_sent=sent,
                token_refused=self.facts.token_refused,
                token_scope=self._token_scope() if refused and sent else None,
            ),
        )


def _repo_file(entry: dict[str, Any]) -> RepoFile:
    """Read one file of a listing. Raises HubUnreachableError for anything odd."""
    path, size, etag, lfs = (entry.get(key) for key in ("path", "size", "oid", "lfs"))
    if isinstance(lfs, dict):
        size, etag = lfs.get("size", size), lfs.get("oid")
    xet_hash = entry.get("xetHash")
    if (
        not isinstance(path, str)
        or type(size) is not int
        or size < 0
        or not is_etag(etag, lfs=bool(lfs))
    ):
        raise no_hub("the listing holds something that is not a file")
    return RepoFile(
        path=path,
        size=size,
        etag=etag,
        lfs=bool(lfs),
        xet_hash=xet_hash if is_xet_hash(xet_hash) else None,
    )
