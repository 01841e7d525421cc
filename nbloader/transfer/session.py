"""What a worker does for one request: it plans, then fetches. Only the worker imports this."""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from nbloader.environment import place
from nbloader.errors import (
    CacheNotWritableError,
    HubUnreachableError,
    IntegrityError,
    MalformedFileError,
    NotCachedError,
    RateLimitedError,
    RepoError,
)
from nbloader.plan import make_plan, reads
from nbloader.plan.headers import FIRST_READ_BYTES, Header, header_end, parse_header
from nbloader.plan.pickles import LookedThrough, look_through, pickled
from nbloader.plan.sizes import component_weights, header_reads
from nbloader.records import (
    ComponentDownloaded,
    ComponentWeights,
    FileDone,
    Listing,
    Notice,
    Plan,
    Planned,
    RepoFile,
    Stage,
    StageStarted,
)
from nbloader.tokens import kaggle_token
from nbloader.transfer.cache import ListingStore, RepoCache
from nbloader.transfer.download import Downloads, may_use_xet
from nbloader.transfer.hub import Hub
from nbloader.transfer.partial import SMALL_FILE_BYTES
from nbloader.transfer.protocol import Report, Start, Stuck
from nbloader.transfer.sweep import found_partials, sweep
from nbloader.units import format_bytes

__all__ = ["Session", "fetch_order"]

_Made: TypeAlias = tuple[Plan, dict[str, bytes]]
"""A plan, and the content of the files that it was made from, by path."""


def fetch_order(plan: Plan) -> list[RepoFile]:
    """Give the order of the files: small ones first of all, then the largest component.

    Small ones are had at once, and decide whether the rest is any use.
    """
    sizes = {file.path: file.size for file in plan.files}
    weight = {
        path: sum(sizes[p] for p in component.paths)
        for component in plan.components
        for path in component.paths
    }
    return sorted(
        plan.files, key=lambda f: (f.size > SMALL_FILE_BYTES, -weight[f.path], -f.size, f.path)
    )


class Session:
    """One request, from the first question to the complete snapshot folder.

    Args:
        send: takes reports, from any thread.
    """

    def __init__(self, start: Start, send: Callable[[Report], object]) -> None:
        self._start = start
        self._send = send
        self._hub = Hub(
            repo_id=start.repo_id,
            policy=start.policy,
            token=start.token if start.token is not None else kaggle_token(place(os.environ)),
            publish=send,
        )
        name = repo_folder_name(repo_id=start.repo_id, repo_type="model")
        self._cache = RepoCache(Path(constants.HF_HUB_CACHE) / name)
        self._listings = ListingStore(Path(constants.HF_HOME) / "nbloader" / "listings" / name)
        self._downloads = Downloads(
            hub=self._hub,
            cache=self._cache,
            publish=send,
            stuck=lambda path, route: send(Stuck(path=path, route=route)),
            tried=start.tried,
        )
        self._plan: Plan | None = None
        self._listing: Listing | None = None

    def moved(self) -> object:
        """Give something that changes while work is done here, or at the same files elsewhere."""
        return self._downloads.moved, self._cache.partial_sizes()

    # -- the plan --------------------------------------------------------------------------

    def plan(self) -> Planned:
        """Find out which files are needed and which of them are there.

        Raises:
            NbloaderError: of the tree under `RepoError` or `TransferError`.
        """
        made = self._plan_of_hub() if not self._start.local_files_only else None
        if made is None:
            made = self._plan_of_cache_alone()
        plan, known = made
        self._plan = plan
        commit = plan.commit_hash
        cached = {
            file.path
            for file in plan.files
            if file.path not in self._downloads.fetched and self._cache.has_bytes(commit, file)
        }
        self._hub.asks_xet = self._asks_xet(plan, cached)
        looked_through = self._looked_through(plan)
        weights = self._weights(plan, known, looked_through)
        self._hub.asks_xet = False
        return Planned(
            plan=plan,
            cached=tuple(sorted(cached)),
            partial=self._partial(plan, cached),
            weights=weights,
            pickles=tuple(found.facts for found in looked_through.values()),
            hub=self._hub.all_facts(),
        )

    def _asks_xet(self, plan: Plan, cached: set[str]) -> bool:
        """Tell whether files may have to come from Xet storage, which nobody has asked yet."""
        return (
            self._start.commit_hash is None
            and may_use_xet(self._start.policy)
            and any(file.xet_hash and file.path not in cached for file in plan.files)
        )

    def _partial(self, plan: Plan, cached: set[str]) -> dict[str, int]:
        """Tell how much of the missing files an earlier download has left."""
        try:
            left = {
                found.etag: found.bytes_on_disk
                for found in found_partials(self._cache.blobs)
                if found.ours and found.path is not None
            }
        except OSError:
            return {}
        return {
            file.path: min(left[file.etag], file.size)
            for file in plan.files
            if file.etag in left and file.path not in cached
        }

    def _plan_of_cache_alone(self) -> _Made:
        """Make the plan without a network. Raises NotCachedError."""
        start = self._start
        made, certain = self._plan_of_cache()
        if made is None:
            raise NotCachedError(
                f"{start.repo_id} at {start.revision} is not complete in the cache",
                hint="Run once without `local_files_only=True` (and without HF_HUB_OFFLINE).",
            )
        if not certain:
            self._send(
                Notice(
                    reference="not-certain",
                    message=f"{start.repo_id} was not downloaded by nbloader, so whether all of "
                    "its files are in the cache is not known",
                    hint="Run once with a network to be sure.",
                )
            )
        return made

    def _plan_of_hub(self) -> _Made | None:
        """Make the plan from what the Hub says; from the cache if that is whole and the Hub away.

        Leaves `_listing` unset in the second case.
        """
        start, hub = self._start, self._hub
        cached, certain = self._plan_of_cache()
        if not certain:
            cached = None
        if cached is not None:
            # With everything at hand, one question whether there is something newer is enough.
            hub.policy = replace(start.policy, max_retries=1)
        try:
            listing = self._listing_of_hub()
        except (HubUnreachableError, RateLimitedError) as error:
            if cached is None:
                raise
            self._send(
                Notice(
                    reference=error.reference,
                    message=f"{error.message}; using the cached commit {cached[0].commit_hash[:7]}",
                    hint="Nothing is needed, unless you wait for a newer version of the model.",
                )
            )
            return cached
        self._listing = listing
        return self._made(listing, functools.partial(self._fetched, listing))

    def _listing_of_hub(self) -> Listing:
        """List the revision, with what the Hub says of the repository.

        What the Hub says may change while the commit stays. A worker that goes on with the commit
        of another takes what that one has kept, so that both make the same plan.
        """
        start, hub = self._start, self._hub
        commit = start.commit_hash
        kept = self._listings.get(start.revision, commit) if commit else None
        if kept is not None and kept.described:
            self._send(StageStarted(stage=Stage.SET_UP))
            hub.policy = start.policy
            return kept
        info = hub.resolve(commit or start.revision)
        self._send(StageStarted(stage=Stage.SET_UP))
        hub.policy = start.policy
        kept = self._listings.get(start.revision, info.commit_hash)
        listing = replace(
            kept or hub.listing(start.revision, info.commit_hash),
            pipeline_tag=info.pipeline_tag,
            library_name=info.library_name,
            base_models=info.base_models,
            described=True,
        )
        if listing != kept:
            self._listings.keep(listing)
        return listing

    def _fetched(self, listing: Listing, paths: Sequence[str]) -> list[bytes]:
        """Fetch files of a listing and read them."""
        files = {file.path: file for file in listing.files}
        self._downloads.fetch(
            listing.revision,
            listing.commit_hash,
            [files[path] for path in paths],
            done=lambda file: None,  # noqa: ARG005 - nobody counts these
            verify=self._start.verify,
        )
        return [self._cache.pointer(listing.commit_hash, path).read_bytes() for path in paths]

    def _made(self, listing: Listing, read: Callable[[Sequence[str]], Sequence[bytes]]) -> _Made:
        """Read the small files that decide the plan, in as few rounds as it asks for."""
        known: dict[str, bytes] = {}
        while wanted := reads(listing, self._start.request, known):
            known.update(zip(wanted, read(wanted), strict=True))
        return make_plan(listing, self._start.request, known), known

    def _looked_through(self, plan: Plan) -> Mapping[str, LookedThrough]:
        """Look through the pickled weights that will be loaded, by path.

        One that the cache holds and that cannot be read is left out.
        """
        files = {file.path: file for file in plan.files}
        paths = pickled(plan) if self._start.loads else []
        if not paths:
            return {}
        look = functools.partial(self._look_through, plan.commit_hash)
        with ThreadPoolExecutor(self._hub.policy.max_workers) as pool:
            found = pool.map(look, [files[path] for path in paths])
            return {path: one for path, one in zip(paths, found, strict=True) if one is not None}

    def _look_through(self, commit_hash: str, file: RepoFile) -> LookedThrough | None:
        """Look through a file where it is."""
        content = self._cache.content(commit_hash, file)
        if content is None:
            if self._listing is None:
                return None
            return look_through(file, functools.partial(self._hub.read_range, commit_hash, file))
        try:
            with content.open("rb") as opened:

                def read(first: int, last: int) -> bytes:
                    opened.seek(first)
                    return opened.read(last - first)

                return look_through(file, read)
        except OSError:
            return None

    def _weights(
        self,
        plan: Plan,
        known: Mapping[str, bytes],
        looked_through: Mapping[str, LookedThrough],
    ) -> tuple[ComponentWeights, ...]:
        """Find out what the tensors of each component take, from as few headers as tell it.

        A file whose header is read over the network is seen to be whole, too.

        Raises:
            MalformedFileError: such a header is wrong.
        """
        files = {file.path: file for file in plan.files}
        read = functools.partial(self._header, plan.commit_hash)
        headers = {path: found.header for path, found in looked_through.items()}
        with ThreadPoolExecutor(self._hub.policy.max_workers) as pool:
            while wanted := header_reads(plan, known, headers):
                found = pool.map(read, [files[path] for path in wanted])
                headers.update(zip(wanted, found, strict=True))
        return component_weights(plan, known, headers)

    def _header(self, commit_hash: str, file: RepoFile) -> Header | None:
        """Read a header where the file is; None if the copy in the cache does not show one.

        What is wrong with such a copy is found by its hash, or by the library that loads it.
        """
        content = self._cache.content(commit_hash, file)
        if content is None:
            return None if self._listing is None else self._hub.read_header(commit_hash, file)
        try:
            with content.open("rb") as opened:
                start = opened.read(FIRST_READ_BYTES)
                rest = header_end(start, file) - len(start)
                return parse_header(start + opened.read(max(0, rest)), file)
        except (OSError, MalformedFileError):
            return None

    def _plan_of_cache(self) -> tuple[_Made | None, bool]:
        """Make the plan from what the cache holds; None if that is not enough for a load.

        The second value tells whether it is certain: a part of a snapshot can look like the whole,
        unless the Hub's listing of that commit was kept.
        """
        start, cache = self._start, self._cache
        commit = cache.commit_of(start.revision)
        kept = self._listings.get(start.revision, commit) if commit else None
        listing = kept or cache.listing(start.repo_id, start.revision)
        if listing is None:
            return None, False
        snapshot = cache.snapshot(listing.commit_hash)
        try:
            made = self._made(listing, lambda paths: [(snapshot / p).read_bytes() for p in paths])
        except (RepoError, OSError):
            return None, False
        complete = all(cache.has_pointer(listing.commit_hash, file) for file in made[0].files)
        return (made, kept is not None) if complete else (None, False)

    # -- the files -------------------------------------------------------------------------

    def fetch(self) -> Path:
        """Bring the files of the plan into the cache, and give the snapshot folder.

        Raises:
            NbloaderError: of the tree under `RepoError` or `TransferError`.
        """
        plan, listing = self._plan, self._listing
        assert plan is not None
        if listing is None:
            self._check_local(plan)
        else:
            self._sweep(listing)
            self._downloads.fetch(
                plan.revision,
                plan.commit_hash,
                fetch_order(plan),
                done=self._counting(plan),
                verify=self._start.verify,
            )
            self._note_revision(plan)
        return self._cache.snapshot(plan.commit_hash)

    def _counting(self, plan: Plan) -> Callable[[RepoFile], None]:
        """Give what tells of complete files, and of components once their last file is there."""
        component = {path: part.name for part in plan.components for path in part.paths}
        left = Counter(component.values())
        lock = Lock()

        def done(file: RepoFile) -> None:
            self._send(FileDone(path=file.path))
            name = component[file.path]
            with lock:
                left[name] -= 1
                complete = not left[name]
            if complete:
                self._send(ComponentDownloaded(name=name))

        return done

    def _sweep(self, listing: Listing) -> None:
        """Remove what killed downloads have left and nobody will go on from."""
        swept = sweep(self._downloads.cache, listing, time.time())
        if swept.count:
            what = "1 file" if swept.count == 1 else f"{swept.count} files"
            self._send(
                Notice(
                    reference="space-freed",
                    message=f"{format_bytes(swept.bytes_freed)} were freed: {what} that broken "
                    "downloads had left, and that nothing could go on from",
                    hint="Nothing is needed.",
                )
            )

    def _check_local(self, plan: Plan) -> None:
        """Hash the files of the cache if that was asked for."""
        for file in plan.files if self._start.verify else ():
            if file.etag and not self._downloads.is_right(plan.commit_hash, file):
                raise IntegrityError(
                    f"{file.path} in the cache has the wrong bytes",
                    hint="Run once with a network and `verify=True`: the file will be fetched "
                    "again.",
                )

    def _note_revision(self, plan: Plan) -> None:
        """Write down which commit the branch stands for; the files are there in any case."""
        try:
            self._cache.write_ref(plan.revision, plan.commit_hash)
        except OSError:
            self._send(
                Notice(
                    reference=CacheNotWritableError.reference,
                    message=f"the cache cannot note that {plan.revision} is {plan.commit_hash[:7]}",
                    hint=f'Without a network, pass revision="{plan.commit_hash}".',
                )
            )
