"""The Hub as the worker sees it: listing, small files, downloads. Only the worker imports this.

Every call has a timeout and goes through `retry`. What fails for good leaves as an error of
`errors`, with a hint that fits the case.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from huggingface_hub import (
    constants,
    get_session,
    get_token,
    hf_hub_download,
    hf_hub_url,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status
from tqdm import tqdm

from nbloader.errors import (
    GatedRepoError,
    IntegrityError,
    InvalidTokenError,
    MalformedFileError,
    NbloaderError,
    RepoNotFoundError,
)
from nbloader.plan.headers import FIRST_READ_BYTES, Header, header_end, parse_header
from nbloader.records import HubFacts, Listing, RepoFile, Retry, TransferPolicy
from nbloader.transfer.cache import ListingStore, RepoCache, matches
from nbloader.transfer.explain import Attempted, explain, no_hub, token_refused
from nbloader.transfer.retry import OPENING_ATTEMPTS, TransientError, call_with_retries
from nbloader.transfer.shown import ShownRetries, show_retries

__all__ = ["Hub"]

CALL_TIMEOUT_S = 20.0
"""For the answer to a call; the Hub's library would wait for ever."""

MAX_PAGES = 1000
"""A million files; a listing that is longer does not end."""

_T = TypeVar("_T")


@dataclass(slots=True)
class Hub:
    """One repository at one endpoint.

    Attributes:
        token: a token, None for the one that is stored on this machine, False for none at all.
        publish: told of retries.
        on_bytes: told the path and the bytes of a file that have arrived so far.
        downloaded: paths that were not in the cache before.
        facts: what is known of the Hub so far.
    """

    repo_id: str
    policy: TransferPolicy
    token: str | bool | None = field(repr=False)
    publish: Callable[[Retry], object]
    on_bytes: Callable[[str, int], object]
    cache: RepoCache = field(init=False)
    listings: ListingStore = field(init=False)
    downloaded: set[str] = field(init=False, default_factory=set)
    facts: HubFacts = field(init=False)
    _shown: ShownRetries = field(init=False)
    _quiet_since: dict[str, float] = field(init=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        name = repo_folder_name(repo_id=self.repo_id, repo_type="model")
        self.cache = RepoCache(Path(constants.HF_HUB_CACHE) / name)
        self.listings = ListingStore(Path(constants.HF_HOME) / "nbloader" / "listings" / name)
        self.facts = HubFacts(endpoint=constants.ENDPOINT, cache_dir=constants.HF_HUB_CACHE)
        self._shown = show_retries(self.publish)

    # -- what is there ---------------------------------------------------------------------

    def resolve(self, revision: str) -> str:
        """Find the commit hash of a revision, and note the facts about the Hub.

        A token that the Hub refuses must not stand between a user and a public model: the call is
        made again without it, and the facts tell.
        """
        try:
            return self._resolve(revision)
        except (InvalidTokenError, RepoNotFoundError) as error:
            if not self._sends_token() or self._token_is_valid():
                raise
            kept, self.token = self.token, False
            try:
                commit_hash = self._resolve(revision)
            except (RepoNotFoundError, GatedRepoError):
                self.token = kept
                raise token_refused(self.repo_id) from error
            self.facts = replace(self.facts, token_refused=True)
            return commit_hash

    def _resolve(self, revision: str) -> str:
        url = f"{self._api}/revision/{quote(revision, safe='')}"

        def ask() -> tuple[float, Any]:
            started = time.monotonic()
            answer, _ = self._get_json(url, self.policy.answer_timeout_s)
            return time.monotonic() - started, answer

        few = min(OPENING_ATTEMPTS, self.policy.max_retries)
        seconds, info = self._call(
            ask, revision=revision, policy=replace(self.policy, max_retries=few)
        )
        commit_hash = info.get("sha") if isinstance(info, dict) else None
        if not isinstance(commit_hash, str) or not re.fullmatch("[0-9a-f]{40}", commit_hash):
            raise no_hub(f"its answer about {self.repo_id} holds no commit")
        self.facts = replace(
            self.facts,
            answer_s=seconds,
            private=bool(info.get("private")),
            gated=bool(info.get("gated")),
            token_sent=self._sends_token(),
        )
        return commit_hash

    @property
    def _api(self) -> str:
        return f"{constants.ENDPOINT}/api/models/{self.repo_id}"

    def _get_json(self, url: str, timeout_s: float) -> tuple[Any, str | None]:
        """Ask the Hub's API; gives the answer and the address of its next page.

        The library's own calls wait for ever on a silent server and hide their retries.
        """
        response = get_session().get(
            url,
            headers=build_hf_headers(token=self.token),
            timeout=timeout_s,
            follow_redirects=True,
        )
        hf_raise_for_status(response)
        try:
            answer = response.json()
        except ValueError:
            raise no_hub("its answer is no JSON") from None
        return answer, response.links.get("next", {}).get("url")

    def listing(self, revision: str, commit_hash: str) -> Listing:
        """List all files of a commit."""
        url = f"{self._api}/tree/{commit_hash}?recursive=true"
        files: list[RepoFile] = []
        for _ in range(MAX_PAGES):
            entries, following = self._call(functools.partial(self._page, url), revision=revision)
            files.extend(_repo_file(entry) for entry in entries if entry.get("type") == "file")
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
        entries, following = self._get_json(url, CALL_TIMEOUT_S)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise no_hub("the listing is no list")
        if following is not None and _origin(following) != _origin(constants.ENDPOINT):
            raise no_hub("the listing goes on at another host")
        return entries, following

    def _sends_token(self) -> bool:
        return bool(get_token() if self.token in (None, True) else self.token)

    def _token_is_valid(self) -> bool:
        """Ask whether the token is good for anything; True if that cannot be found out."""
        try:
            response = get_session().get(
                f"{constants.ENDPOINT}/api/whoami-v2",
                headers=build_hf_headers(token=self.token),
                timeout=CALL_TIMEOUT_S,
            )
        except Exception:
            return True
        return bool(response.status_code != 401)

    def read_header(self, commit_hash: str, file: RepoFile) -> Header:
        """Read the header of a safetensors file, without keeping it.

        Raises:
            MalformedFileError: it was wrong twice.
        """
        wrong = 0

        def attempt() -> Header:
            nonlocal wrong
            start = self._read_range(commit_hash, file, 0, min(FIRST_READ_BYTES, file.size))
            try:
                end = header_end(start, file)
                if end > len(start):
                    start += self._read_range(commit_hash, file, len(start), end)
                return parse_header(start, file)
            except MalformedFileError as error:
                wrong += 1
                if wrong > 1:
                    raise
                raise TransientError("wrong bytes in the header") from error

        return self._call(attempt, path=file.path)

    def _read_range(self, commit_hash: str, file: RepoFile, first: int, last: int) -> bytes:
        """Read the bytes of a file from offset `first` up to `last`."""
        headers = {**build_hf_headers(token=self.token), "Range": f"bytes={first}-{last - 1}"}
        url = hf_hub_url(self.repo_id, file.path, revision=commit_hash)
        with get_session().stream(
            "GET", url, headers=headers, timeout=CALL_TIMEOUT_S, follow_redirects=True
        ) as response:
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            # A server may answer with the whole file; no more of it is read than was asked for.
            skip = first if response.status_code == 200 else 0
            content = bytearray()
            for chunk in response.iter_bytes(1 << 14):
                content += chunk
                if len(content) >= skip + last - first:
                    break
        content = content[skip : skip + last - first]
        if len(content) < last - first:
            raise TransientError("the file came short")
        return bytes(content)

    # -- fetching --------------------------------------------------------------------------

    def fetch(self, commit_hash: str, file: RepoFile, *, verify_cached: bool = False) -> Path:
        """Bring one file into the cache and give its place there.

        What the cache holds with the right size is taken as it is, or hashed if `verify_cached`.
        What is downloaded is always hashed; wrong bytes are removed, and come a second time only
        once.
        """
        pointer = self.cache.pointer(commit_hash, file.path)
        if self.cache.has_pointer(commit_hash, file):
            if not verify_cached or matches(pointer, file):
                return pointer
            self.cache.discard(commit_hash, file)
        elif self.cache.has_bytes(commit_hash, file):
            if verify_cached and not matches(self.cache.blob(file), file):
                self.cache.discard(commit_hash, file)
        elif pointer.exists():
            self.cache.discard(commit_hash, file)  # A wrong size can never become right.
        wrong = 0
        self._heard_of(file.path)

        def attempt() -> Path:
            nonlocal wrong
            self.on_bytes(file.path, 0)
            self.cache.remove_orphans(file)
            with self._shown.of(file.path):
                path = Path(
                    hf_hub_download(
                        self.repo_id,
                        file.path,
                        revision=commit_hash,
                        token=self.token,
                        tqdm_class=self._bar(file),
                    )
                )
            if matches(path, file):
                self.downloaded.add(file.path)
                return path
            self.cache.discard(commit_hash, file)
            wrong += 1
            if wrong > 1:
                raise IntegrityError(
                    f"{file.path} arrived with the wrong bytes twice; they were removed",
                    hint="A proxy or a mirror on the way may serve a broken copy. Try again later, "
                    "or from another network.",
                )
            raise TransientError("wrong bytes")

        return self._call(attempt, path=file.path, timeout_s=self.policy.quiet_limit_s(file.size))

    def _bar(self, file: RepoFile) -> type[tqdm[Any]]:
        """Make the class that the library counts the bytes of `file` with.

        Over Xet it makes two bars of a file: what came over the network, and what was written
        from it. The further one counts.
        """
        heard, on_bytes, arrived = self._heard_of, self.on_bytes, dict[int, int]()

        class Bar(tqdm):  # type: ignore[type-arg]
            def __init__(self, **kwargs: Any) -> None:
                arrived[id(self)] = int(kwargs.get("initial") or 0)
                super().__init__(disable=True, total=kwargs.get("total"))

            def update(self, n: float | None = 1) -> None:
                arrived[id(self)] += int(n or 0)
                heard(file.path)
                on_bytes(file.path, max(0, min(max(arrived.values()), file.size)))

        return Bar

    def _heard_of(self, path: str) -> None:
        with self._lock:
            self._quiet_since[path] = time.monotonic()

    def _quiet_for(self, path: str | None) -> float:
        with self._lock:
            since = self._quiet_since.get(path or "")
        return 0.0 if since is None else time.monotonic() - since

    # -- errors ----------------------------------------------------------------------------

    def _call(
        self,
        function: Callable[[], _T],
        *,
        revision: str | None = None,
        path: str | None = None,
        timeout_s: float | None = None,
        policy: TransferPolicy | None = None,
    ) -> _T:
        attempts = 0

        def attempt() -> _T:
            nonlocal attempts
            attempts += 1
            return function()

        try:
            return call_with_retries(
                attempt,
                policy=policy or self.policy,
                path=path,
                publish=self.publish,
                quiet_for=lambda: self._quiet_for(path),
                timeout_s=timeout_s,
            )
        except NbloaderError:
            raise
        except Exception as error:
            told = explain(
                error,
                Attempted(
                    repo_id=self.repo_id,
                    revision=revision,
                    path=path,
                    attempts=attempts,
                    token_sent=self._sends_token(),
                    token_refused=self.facts.token_refused,
                ),
            )
            raise told from (None if told is error.__cause__ else error)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


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
        or not isinstance(etag, str)
        or not re.fullmatch("[0-9a-f]{64}" if lfs else "[0-9a-f]{40}", etag)
    ):
        raise no_hub("the listing holds something that is no file")
    return RepoFile(
        path=path,
        size=size,
        etag=etag,
        lfs=bool(lfs),
        xet_hash=xet_hash if isinstance(xet_hash, str) else None,
    )
