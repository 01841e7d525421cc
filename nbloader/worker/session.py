"""What a worker does for one request: it selects, then fetches."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from huggingface_hub import constants

from nbloader.bounds import MAX_DESCRIBING_BYTES
from nbloader.errors import (
    DownloadError,
    HubUnreachableError,
    IntegrityError,
    MalformedFileError,
    NotCachedError,
    RateLimitedError,
    RepoError,
)
from nbloader.hub_cache import COMMIT, SMALL_FILE_BYTES
from nbloader.hub_names import is_repo_id
from nbloader.machine import offline_variable
from nbloader.records import (
    FileDone,
    HubFacts,
    Listing,
    Notice,
    Reference,
    RepoFile,
    Selected,
    Selection,
    Stage,
    StageStarted,
)
from nbloader.selection import (
    Header,
    LookedThrough,
    adapter_facts,
    component_weights,
    described_headers,
    format_of,
    needed,
    pickled,
    select,
    with_taken,
)
from nbloader.text import format_bytes
from nbloader.tokens import token_in_worker
from nbloader.transfer.protocol import Fetch, Report, Start, Stuck
from nbloader.worker.folder import Folder, check_whole, folder_named, of_folder
from nbloader.worker.headers import first_header, read_headers
from nbloader.worker.hub import Hub
from nbloader.worker.repository import Repository, check_places, files_replaced
from nbloader.worker.sketch import SketchOf
from nbloader.worker.xet_route import may_use_xet

_Made: TypeAlias = tuple[Selection, dict[str, bytes], dict[str, Header | None]]
"""A selection, and what it was made from, by path: small files, and headers of weights."""


FETCH_ROUNDS = 3
"""How often files are looked for that somebody has removed since they came."""


def fetch_order(selection: Selection, *, by_name: bool = False) -> list[RepoFile]:
    """Return the order of the files: small ones first of all, then the largest component.

    Small ones are had at once, and decide whether the rest is any use.

    Args:
        by_name: whether the files of a component come in the order of their names, in which the
            libraries read them, and not the largest first.
    """
    sizes = {file.path: file.size for file in selection.files}
    weight = {
        path: sum(sizes[p] for p in component.paths)
        for component in selection.components
        for path in component.paths
    }

    def rank(file: RepoFile) -> tuple[bool, int, int, str]:
        size = 0 if by_name else file.size
        return file.size > SMALL_FILE_BYTES, -weight[file.path], -size, file.path

    return sorted(selection.files, key=rank)


def _check_size(repo_id: str, known: Mapping[str, bytes], wanted: Sequence[RepoFile]) -> None:
    """See that what describes a model is no larger than it can be, before it is fetched.

    Args:
        known: what was read so far.
        wanted: what is to be read; of weights it is little.

    Raises:
        MalformedFileError: it is.
    """
    small = sum(file.size for file in wanted if format_of(file.path) is None)
    size = small + sum(map(len, known.values()))
    if size > MAX_DESCRIBING_BYTES:
        raise MalformedFileError(
            f"The configurations and indexes of {repo_id} take {format_bytes(size)}, and "
            f"{format_bytes(MAX_DESCRIBING_BYTES)} is the most that is read.",
            hint="Try another revision (revision=...), or tell the repository's author.",
        )


def _at_hub(one: Repository | Folder) -> bool:
    return isinstance(one, Repository)


class Session:
    """One request, from the first question to the complete snapshot folder.

    Args:
        publish: takes reports, from any thread.
    """

    def __init__(self, start: Start, publish: Callable[[Report], object]) -> None:
        self._start = start
        self.publish = publish
        self._hub = Hub(
            repo_id=start.repo_id,
            policy=start.policy,
            # Nobody is asked without a network, and a bad file of a token is no matter.
            token=False if start.local_files_only else token_in_worker(start.token, os.environ),
            publish=publish,
            repo_type=start.repo_type,
            local_dir=start.local_dir,
        )
        # By the `repo_id` of their files; that of the selection itself is empty.
        self._repositories: dict[str, Repository | Folder] = {
            "": Folder(Path(start.folder), start.repo_id, self._hub)
            if start.folder is not None
            else self._repository(self._hub, start.revision, start.commit_hash)
        }
        self._selection: Selection | None = None
        self._changed: list[RepoFile] = []

    def _repository(self, hub: Hub, revision: str, commit_hash: str | None) -> Repository:
        return Repository(
            revision=revision,
            commit_hash=commit_hash,
            is_other=hub is not self._hub,
            hub=hub,
            donors=[Path(donor) for donor in self._start.donors],
            publish=self.publish,
            stuck=lambda path, route: self.publish(Stuck(path=path, route=route)),
            tried=self._start.tried,
        )

    @property
    def _own(self) -> Repository | Folder:
        return self._repositories[""]

    def _other(self, reference: Reference) -> Repository | Folder:
        """Return another repository, at the commit that an earlier worker has found."""
        name, revision = reference.repo_id, reference.revision or constants.DEFAULT_REVISION
        known = self._repositories.get(name)
        if known is None and (self._start.folder is not None or not is_repo_id(name)):
            # What a folder names is looked for on this machine first, as the libraries do.
            place = folder_named(name)
            if place is not None:
                self._repositories[name] = beside = Folder(place, name, self._hub, is_other=True)
                return beside
        if known is None or known.revision != revision:
            found = {one.repo_id: one.commit_hash for one in self._start.companions}
            hub = self._hub.beside(name, reference.repo_type)
            self._repositories[name] = known = self._repository(hub, revision, found.get(name))
        return known

    def secret(self) -> str | None:
        """Return the token that is sent to the Hub; None for none."""
        return self._hub.secret

    def moved(self) -> object:
        """Return something that changes while work is done here, or at the same files elsewhere."""
        return [one.moved for one in tuple(self._repositories.values())]

    # -- the selection ---------------------------------------------------------------------

    def select(self) -> Selected:
        """Find out which files are needed and which of them are there.

        Raises:
            NbloaderError: of the tree under `RepoError` or `TransferError`.
        """
        try:
            return self._selected()
        except RepoError as error:
            if self._start.folder is None:
                raise
            others = {name for name, one in self._repositories.items() if _at_hub(one)}
            raise of_folder(error, others) from error.__cause__

    def _selected(self) -> Selected:
        made = self._select_from_hub() if not self._start.local_files_only else None
        if made is None:
            made = self._select_from_cache_alone()
        selection, known, first = made
        if self._start.folder is not None:
            selection = replace(selection, cache_dir=constants.HF_HUB_CACHE)
        self._selection = selection
        used = {"", *(file.repo_id for file in selection.files)}
        self._repositories = {name: one for name, one in self._repositories.items() if name in used}
        check_places(selection, self._repositories)
        self._changed = [file for file in selection.files if self._is_another(selection, file)]
        cached = {file.path for file in selection.files if self._was_there(selection, file)}
        self._ask_xet(self._wants_xet(selection, cached))
        looked_through = self._looked_through(selection)
        headers = dict(first) | {path: found.header for path, found in looked_through.items()}
        headers |= described_headers(selection, known)
        at_once = self._hub.policy.max_workers
        read_headers(selection, known, headers, self._repositories, at_once)
        check_whole(selection, self._repositories)
        self._ask_xet(False)
        return Selected(
            selection=selection,
            cached=tuple(sorted(cached)),
            partial=self._partial(selection, cached),
            copied=self._copied(selection, cached),
            weights=with_taken(selection, known, component_weights(selection, known, headers)),
            adapters=adapter_facts(selection, known, headers, self._start.request),
            pickles=tuple(found.facts for found in looked_through.values()),
            hub=self._facts(),
            folder=str(self._own.place(selection.commit_hash)),
        )

    def _is_another(self, selection: Selection, file: RepoFile) -> bool:
        """Say whether another file than was fetched stands under its name, as far as is known."""
        one = self._repositories[file.repo_id]
        if isinstance(one, Folder):
            return False
        return one.downloads.recognise(selection.commit_of(file), file) is False

    def _copied(self, selection: Selection, cached: set[str]) -> dict[str, int]:
        """Say which of the missing files need not be fetched, and what they take of the disk."""
        copied: dict[str, int] = {}
        coming: set[tuple[str, str]] = set()
        for file in selection.files:
            one = self._repositories[file.repo_id]
            if file.path in cached or isinstance(one, Folder):
                continue
            room = one.cache.takes_room(file)
            if one.cache.elsewhere(file) is not None or (
                room and (file.repo_id, file.etag) in coming
            ):
                copied[file.path] = room
            coming.add((file.repo_id, file.etag))
        return copied

    def _facts(self) -> HubFacts | None:
        """Say what is known of the Hub; None if it has nothing to do with the selection."""
        asked = [one.hub for one in self._repositories.values() if _at_hub(one)]
        if not asked:
            return None
        facts = asked[0].all_facts()
        # The licence of a base is not that of what was made of it.
        return facts if self._start.folder is None else replace(facts, license=None)

    def _was_there(self, selection: Selection, file: RepoFile) -> bool:
        """Say whether a file was in the cache before the selection was made."""
        one = self._repositories[file.repo_id]
        return one.was_there(selection.commit_of(file), file)

    def _wants_xet(self, selection: Selection, cached: set[str]) -> bool:
        """Say whether files may have to come from Xet storage, which nobody has asked yet."""
        return (
            self._start.commit_hash is None
            and may_use_xet(self._start.policy)
            and any(file.xet_hash and file.path not in cached for file in selection.files)
        )

    def _ask_xet(self, ask: bool) -> None:
        for one in self._repositories.values():
            one.hub.asks_xet = ask

    def _partial(self, selection: Selection, cached: set[str]) -> dict[str, int]:
        """Say how much of the missing files an earlier download has left."""
        left = {name: one.left_bytes() for name, one in self._repositories.items()}
        return {
            file.path: min(left[file.repo_id][file.etag], file.size)
            for file in selection.files
            if file.etag in left[file.repo_id] and file.path not in cached
        }

    def _select_from_cache_alone(self) -> _Made:
        """Make the selection without a network. Raises NotCachedError."""
        start = self._start
        made, certain = self._select_from_cache()
        if made is None:
            what = f"{start.repo_id} at {start.revision}"
            if start.folder is not None:
                names = [name for name, one in self._repositories.items() if _at_hub(one)]
                what = f"{', '.join(names)}, which {start.repo_id} needs,"
            raise NotCachedError(
                f"{what} is not complete in the cache",
                hint=f"Run once without offline mode: unset {offline}"
                if (offline := offline_variable(os.environ))
                else "Run once without `local_files_only=True`.",
            )
        if not certain:
            self.publish(
                Notice(
                    reference="not-certain",
                    message=f"{start.repo_id} was not downloaded by nbloader, so whether all of "
                    "its files are in the cache is not known",
                    hint="Run once with a network to be sure.",
                )
            )
        return made

    def _select_from_hub(self) -> _Made | None:
        """Make the selection from what the Hub says; from the cache if that is whole and the Hub
        away, or has nothing newer to say.

        No repository has a `listing` if it is from the cache.
        """
        start = self._start
        cached, certain = self._select_from_cache()
        if cached is not None and not any(map(_at_hub, self._repositories.values())):
            return cached
        if not certain:
            cached = None
        settled = COMMIT.fullmatch(start.revision) and not start.verify
        if cached is not None and settled and not cached[0].companions:
            return cached  # A commit does not change, and no other repository can have a newer one.
        if cached is not None:
            # With everything at hand, one question whether there is something newer is enough.
            for one in self._repositories.values():
                one.hub.policy = replace(start.policy, max_retries=1)
        try:
            listing = self._own.list_from_hub(start.policy)
            if start.folder is None:
                self.publish(StageStarted(stage=Stage.SET_UP))
            return self._made(
                listing,
                lambda one: one.list_from_hub(start.policy),
                lambda one, _, files: one.read_from_hub(files, verify=start.verify),
            )
        except (HubUnreachableError, RateLimitedError) as error:
            if cached is None:
                raise
            self.publish(
                Notice(
                    reference=error.reference,
                    message=f"{error.message}; using the cached commit"
                    f" {cached[0].commit_hash[:7]}".rstrip(),
                    hint="Nothing is needed, unless you wait for a newer version of the model.",
                )
            )
        for one in self._repositories.values():
            one.listing = None
        return cached

    def _select_from_cache(self) -> tuple[_Made | None, bool]:
        """Make the selection from what the cache holds; None if that is not enough for a load.

        The second value tells whether it is certain: a part of a snapshot can look like the whole,
        unless the Hub's listings of those commits were kept.
        """
        certain: list[bool] = []

        def listed(one: Repository | Folder) -> Listing:
            listing, kept = one.list_from_cache()
            certain.append(kept)
            if listing is None:
                raise FileNotFoundError(one.repo_id)
            return listing

        try:
            selection, known, first = self._made(
                listed(self._own), listed, lambda one, listing, files: one.read(listing, files)
            )
        except (RepoError, OSError):
            if not any(map(_at_hub, self._repositories.values())):
                raise  # What is wrong with a folder, no Hub can mend.
            return None, False
        complete = all(
            self._repositories[file.repo_id].is_there(selection.commit_of(file), file)
            for file in selection.files
        )
        return ((selection, known, first), all(certain)) if complete else (None, False)

    def _made(
        self,
        listing: Listing,
        list_one: Callable[[Repository | Folder], Listing],
        read: Callable[[Repository | Folder, Listing, Sequence[RepoFile]], Sequence[bytes]],
    ) -> _Made:
        """List other repositories and read the small files that decide the selection.

        It takes as few rounds as the selection asks for.
        """
        request = self._start.request
        known: dict[str, bytes] = {}
        headers: dict[str, Header | None] = {}
        listings = {"": listing}
        files = self._own.files(listing)
        while True:
            others = {name: other for name, other in listings.items() if name}
            asked = needed(listing, request, known, others, headers)
            if not asked:
                return select(listing, request, known, others, headers), known, headers
            for reference in asked.references:
                other = self._other(reference)
                listings[reference.repo_id] = found = list_one(other)
                files |= other.files(found)
            wanted = [files[path] for path in asked.reads]
            _check_size(listing.repo_id, known, wanted)
            for name, one in self._repositories.items():
                batch = [file for file in wanted if file.repo_id == name]
                if batch:
                    contents = read(one, listings[name], batch)
                    known.update(
                        (file.path, content) for file, content in zip(batch, contents, strict=True)
                    )
            for path in asked.headers:
                headers[path] = first_header(path, files, listings, self._repositories)

    def _looked_through(self, selection: Selection) -> Mapping[str, LookedThrough]:
        """Look through the pickled weights that will be loaded, by path.

        One that the cache holds and that cannot be read is left out.
        """
        files = {file.path: file for file in selection.files}
        paths = pickled(selection) if self._start.loads else []
        if not paths:
            return {}

        def look(file: RepoFile) -> LookedThrough | None:
            return self._repositories[file.repo_id].look_through(selection.commit_of(file), file)

        with ThreadPoolExecutor(self._hub.policy.max_workers) as pool:
            found = pool.map(look, [files[path] for path in paths])
            return {path: one for path, one in zip(paths, found, strict=True) if one is not None}

    # -- the files -------------------------------------------------------------------------

    def fetch(self, order: Fetch | None = None) -> Path:
        """Bring the files of the selection into the cache, and give the snapshot folder.

        Args:
            order: what else is asked for; None for nothing.

        Raises:
            NbloaderError: of the tree under `RepoError` or `TransferError`.
        """
        selection = self._selection
        assert selection is not None
        order = order or Fetch()
        sketch = Path(order.sketch) if order.sketch is not None else None
        if all(one.listing is None for one in self._repositories.values()):
            self._keep(selection, order)
            self._check_local(selection)
            if sketch is not None and order.passing:
                self._sketch().appear(sketch)
            return self._own.place(selection.commit_hash)
        self._sweep()
        self._tell_of_changed()
        files = fetch_order(selection, by_name=bool(order.passing))
        wanted = [file for file in files if file.path not in order.taken]
        if sketch is not None and order.passing:
            copy = self._sketch()
            self._own.fetch(copy.small, done=self._done, verify=self._start.verify)
            copy.appear(sketch)
            wanted = [file for file in wanted if file not in copy.small]
            sketch = None
        passing = frozenset(order.passing)
        for _ in range(FETCH_ROUNDS):
            self._bring(wanted, passing, sketch)
            # Somebody may have cleaned the cache up meanwhile.
            wanted = [file for file in wanted if file.path not in passing and self._is_gone(file)]
            if not wanted:
                return self._own.place(selection.commit_hash)
        raise DownloadError(
            f"{wanted[0].path} has come {FETCH_ROUNDS} times, and was removed again each time",
            hint="Something removes files from the cache. Run the line again once that is over.",
        )

    def _is_gone(self, file: RepoFile) -> bool:
        assert self._selection is not None
        one = self._repositories[file.repo_id]
        return not one.place(self._selection.commit_of(file), file.path_in_repo).exists()

    def _bring(
        self, wanted: Sequence[RepoFile], passing: frozenset[str], sketch: Path | None
    ) -> None:
        """Bring files of the selection to where they are looked for."""
        batches = {
            name: [file for file in wanted if file.repo_id == name] for name in self._repositories
        }

        def rank(name: str) -> tuple[bool, int]:
            """Small ones first: they tell whether the rest is any use.

            Where files go once they are read, the others are all there before: what reads waits for
            them.
            """
            waits = bool(passing) and self._repositories[name] is self._own
            return waits, sum(file.size for file in batches[name])

        for name in sorted(batches, key=rank):
            one = self._repositories[name]
            done: Callable[[RepoFile], None] = self._done
            if sketch is not None and one is self._own:
                done = self._sketch().beside(sketch, self._done)
            own = passing if one is self._own else frozenset()
            one.fetch(batches[name], done=done, verify=self._start.verify, passing=own)
            one.note_revision()

    def sketch(self, folder: Path) -> None:
        """Write the files of the selection into a folder, those of weights without what is in them.

        They have their size and what describes their tensors, and take no more of the disk. The
        others are fetched into the cache, where a load finds them. All are of one repository.

        Raises:
            NbloaderError: of the tree under `RepoError` or `TransferError`.
        """
        sketch = self._sketch()
        if self._own.listing is not None:
            done = lambda file: None  # noqa: ARG005, E731 - nobody counts
            self._own.fetch(sketch.small, done=done, verify=self._start.verify)
        sketch.write(folder)

    def _sketch(self) -> SketchOf:
        assert self._selection is not None
        return SketchOf(self._selection, self._own, at_once=self._hub.policy.max_workers)

    def _done(self, file: RepoFile) -> None:
        self.publish(FileDone(path=file.path))

    def _sweep(self) -> None:
        """Remove what killed downloads have left and nobody will go on from."""
        swept = [one.sweep() for one in self._repositories.values()]
        count = sum(each.count for each in swept)
        if count:
            freed = format_bytes(sum(each.bytes_freed for each in swept))
            what = "1 file" if count == 1 else f"{count} files"
            self.publish(
                Notice(
                    reference="space-freed",
                    message=f"{freed} were freed: {what} that broken "
                    "downloads had left, and that nothing could go on from",
                    hint="Nothing is needed.",
                )
            )

    def _tell_of_changed(self) -> None:
        """Say which files of the user's own folder the Hub's take the place of."""
        if self._changed:
            paths = [file.path for file in self._changed]
            self.publish(files_replaced(paths, self._start.local_dir or ""))

    def _keep(self, selection: Selection, order: Fetch) -> None:
        """Let files stay that another load was going to remove; they are wanted now.

        Raises:
            NotCachedError: one is being removed just now.
        """
        for name, one in self._repositories.items():
            if not isinstance(one, Repository):
                continue
            passing = order.passing if one is self._own else ()
            files = [
                file
                for file in selection.files
                if file.repo_id == name and file.path not in passing
            ]
            commit = selection.commit_of(files[0]) if files else ""
            if going := one.downloads.keep(files, commit):
                raise NotCachedError(
                    f"{going[0].path} was in the cache only until another load had read it, and "
                    "is going",
                    hint="Run the line again, with a network.",
                )

    def _check_local(self, selection: Selection) -> None:
        """Hash the files of the cache if that was asked for."""
        for file in selection.files if self._start.verify else ():
            one = self._repositories[file.repo_id]
            if not one.is_right(selection.commit_of(file), file):
                raise IntegrityError(
                    f"{file.path} in the cache has the wrong bytes",
                    hint="Run once with a network and `verify=True`: the file will be fetched "
                    "again.",
                )
