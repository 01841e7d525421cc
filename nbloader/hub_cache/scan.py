"""What lies in a cache folder, whoever left it there. Reads names and sizes, and changes nothing.

The Hub library's own scan gives a repository up at the first thing that it does not expect, and
some things end the whole scan. Here each is noted as a problem of its repository.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from nbloader.hub_cache.filesystem import is_held
from nbloader.hub_cache.layout import ETAG, MAX_REF_BYTES
from nbloader.hub_cache.sweep import FoundPartial, found_partials
from nbloader.small_files import read_small

_REPO = re.compile(r"(model|dataset|space|kernel)s--(.+)", re.DOTALL)
_IGNORED = frozenset({".DS_Store"})  # The Hub's library passes over it, too.


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBlob:
    """The content of a file.

    Attributes:
        bytes: its size.
        read, written: seconds since the epoch.
        link: whether it is a link into a store that repositories share.
        shared: whether another repository has a link to the same, of either kind.
        in_use: whether a process has it open or mapped.
    """

    bytes: int
    read: float
    written: float
    link: bool = False
    shared: bool = False
    in_use: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRevision:
    """The names of a commit's files.

    Attributes:
        blobs: the etags that they stand for.
        files: how many names there are.
        own_bytes: of the files that are no links.
        written: when it got its last name, seconds since the epoch.
        in_use: whether a process has one of the files open that are no links.
    """

    commit_hash: str
    blobs: frozenset[str]
    files: int
    own_bytes: int
    written: float
    in_use: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRepo:
    """The folder of a repository.

    Attributes:
        refs: the branches and tags by commit.
        held: the etags whose locks a process holds.
        linked: whether its names are links; if not, nobody can tell which blobs they stand for.
        problems: what is not as the layout of the cache has it.
    """

    folder: Path
    repo_type: str
    repo_id: str
    revisions: tuple[FoundRevision, ...] = ()
    refs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blobs: Mapping[str, FoundBlob] = field(default_factory=dict)
    partials: tuple[FoundPartial, ...] = ()
    held: frozenset[str] = frozenset()
    linked: bool = True
    problems: tuple[str, ...] = ()


def repo_of_folder(name: str) -> tuple[str, str] | None:
    """Return the type and the id of the repository that a folder is named after; None if none."""
    found = _REPO.fullmatch(name)
    return (found[1], found[2].replace("--", "/")) if found else None


def find_repos(cache_dir: Path, in_use: frozenset[str]) -> list[FoundRepo]:
    """Find the repositories in a cache folder, ordered by their folders. No folder holds none.

    Args:
        in_use: real paths that a process has open.

    Raises:
        OSError: the folder cannot be read.
    """
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        names = sorted(path.name for path in cache_dir.iterdir())
    shared = _shared(cache_dir, names)
    return [
        _Reading(cache_dir / name, *found, in_use, shared).repo()
        for name in names
        if (found := repo_of_folder(name))
    ]


def _shared(cache_dir: Path, names: list[str]) -> Mapping[str, int]:
    """Count by real path how many blobs are links to the same file, in the whole cache."""
    counts: defaultdict[str, int] = defaultdict(int)
    for name in filter(repo_of_folder, names):
        for entry in _entries(cache_dir / name / "blobs"):
            if entry.is_symlink():
                counts[os.path.realpath(entry.path)] += 1
    return counts


def folder_size(folder: Path) -> tuple[int, int]:
    """Return the files below a folder and their bytes; links are not followed."""
    files = size = 0
    for entry in _walk(folder, []):
        with contextlib.suppress(OSError):
            files, size = files + 1, size + entry.stat(follow_symlinks=False).st_size
    return files, size


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _walk(folder: Path | str, problems: list[str]) -> Iterator[os.DirEntry[str]]:
    """Yield all below a folder that is not a folder itself; links are not followed."""
    folders = [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.name not in _IGNORED:
                        yield entry
        except OSError as error:
            problems.append(f"a folder cannot be read: {error.strerror}")


class _Reading:
    """Reads the folder of one repository."""

    def __init__(
        self,
        folder: Path,
        repo_type: str,
        repo_id: str,
        in_use: frozenset[str],
        shared: Mapping[str, int],
    ) -> None:
        self._folder = folder
        self._repo_type, self._repo_id = repo_type, repo_id
        self._in_use, self._shared = in_use, shared
        self._problems: list[str] = []
        self._linked = True
        self._blobs = folder / "blobs"
        self._real_blobs = os.path.realpath(self._blobs)
        self._real: dict[Path, str] = {}

    def repo(self) -> FoundRepo:
        revisions: tuple[FoundRevision, ...] = ()
        refs: Mapping[str, tuple[str, ...]] = {}
        blobs: Mapping[str, FoundBlob] = {}
        partials: tuple[FoundPartial, ...] = ()
        # A link may lead anywhere, and nothing is deleted there.
        if self._is_folder(self._folder):
            if self._is_folder(self._blobs, needed=False):
                blobs, partials = self._find_blobs(), self._find_partials()
            if self._is_folder(self._folder / "snapshots", needed=False):
                revisions = self._find_revisions(blobs.keys())
            refs = self._find_refs({revision.commit_hash for revision in revisions})
        return FoundRepo(
            folder=self._folder,
            repo_type=self._repo_type,
            repo_id=self._repo_id,
            revisions=revisions,
            refs=refs,
            blobs=blobs,
            partials=partials,
            held=held_locks(self._folder.parent / ".locks" / self._folder.name),
            linked=self._linked,
            problems=tuple(dict.fromkeys(self._problems)),
        )

    def _is_folder(self, path: Path, *, needed: bool = True) -> bool:
        """Say whether a folder is there; what stands in its place is a problem."""
        try:
            if stat.S_ISDIR(path.lstat().st_mode):
                return True
            self._problems.append(f"{path.name} is not a folder")
        except FileNotFoundError:
            if needed:
                self._problems.append(f"{path.name} is missing")
        except OSError as error:
            self._problems.append(f"{path.name} cannot be read: {error.strerror}")
        return False

    def _find_blobs(self) -> dict[str, FoundBlob]:
        found = {}
        for entry in _entries(self._blobs):
            if not ETAG.fullmatch(entry.name):
                continue
            try:
                about = entry.stat()
            except OSError as error:
                self._problems.append(f"a blob cannot be read: {error.strerror}")
                continue
            if not stat.S_ISREG(about.st_mode):
                self._problems.append("a blob is not a file")
                continue
            real = os.path.realpath(entry.path)
            found[entry.name] = FoundBlob(
                bytes=about.st_size,
                read=about.st_atime,
                written=about.st_mtime,
                link=entry.is_symlink(),
                shared=self._shared.get(real, 0) > 1 or about.st_nlink > 1,
                in_use=real in self._in_use,
            )
        return found

    def _find_partials(self) -> tuple[FoundPartial, ...]:
        # A journal that is a pipe would be waited for without end.
        names = [entry for entry in _entries(self._blobs) if entry.name.endswith(".incomplete")]
        for entry in names:
            if not (entry.is_file(follow_symlinks=False) or entry.is_symlink()) or (
                entry.name.endswith("-journal.incomplete") and entry.is_symlink()
            ):
                self._problems.append("a partial is not a file")
                return ()
        try:
            return tuple(found_partials(self._blobs)) if names else ()
        except OSError as error:
            self._problems.append(f"the partials cannot be read: {error.strerror}")
            return ()

    def _find_revisions(self, blobs: Set[str]) -> tuple[FoundRevision, ...]:
        found = []
        for entry in _entries(self._folder / "snapshots"):
            if entry.is_dir(follow_symlinks=False):
                found.append(self._revision(Path(entry.path), blobs))
            elif entry.name not in _IGNORED:
                self._problems.append("among the snapshots is something else")
        return tuple(found)

    def _revision(self, folder: Path, there: Set[str]) -> FoundRevision:
        blobs: set[str] = set()
        files = own_bytes = 0
        in_use = False
        written = folder.lstat().st_mtime
        for entry in _walk(folder, self._problems):
            files += 1
            try:
                about = entry.stat(follow_symlinks=False)
                written = max(written, about.st_mtime)
                if stat.S_ISREG(about.st_mode):
                    own_bytes += about.st_size
                    self._linked = False
                    in_use = in_use or os.path.realpath(entry.path) in self._in_use
                elif not stat.S_ISLNK(about.st_mode):
                    self._problems.append("a name of a snapshot is not a file")
                elif (etag := self._etag(entry.path)) is not None:
                    blobs.add(etag)
            except OSError as error:
                self._problems.append(f"a name of a snapshot cannot be read: {error.strerror}")
        return FoundRevision(
            commit_hash=folder.name,
            blobs=frozenset(blobs & there),
            files=files,
            own_bytes=own_bytes,
            written=written,
            in_use=in_use,
        )

    def _etag(self, name: str) -> str | None:
        """Return the blob that a link of a snapshot stands for.

        Raises:
            OSError: it leads nowhere.
        """
        link = Path(name)
        link.stat()
        # The blob itself may be a link, into a store that several repositories share.
        target = link.parent / link.readlink()
        if target.parent not in self._real:
            self._real[target.parent] = os.path.realpath(target.parent)
        if self._real[target.parent] == self._real_blobs and ETAG.fullmatch(target.name):
            return target.name
        self._problems.append("a link of a snapshot leads out of the blobs")
        return None

    def _find_refs(self, commits: set[str]) -> dict[str, tuple[str, ...]]:
        folder = self._folder / "refs"
        refs: defaultdict[str, list[str]] = defaultdict(list)
        if not self._is_folder(folder, needed=False):
            return {}
        for entry in _walk(folder, self._problems):
            commit = _read_ref(entry)
            if commit in commits:
                refs[commit].append(os.path.relpath(entry.path, folder))
            else:
                self._problems.append("a reference names no commit that is there")
        return {commit: tuple(sorted(names)) for commit, names in refs.items()}


def _read_ref(entry: os.DirEntry[str]) -> str:
    try:
        return read_small(entry.path, MAX_REF_BYTES, follow=False).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def held_locks(folder: Path) -> frozenset[str]:
    """Return the etags of the files of a repository whose locks are held.

    Args:
        folder: of the repository's locks, `<cache>/.locks/models--org--name`.
    """
    with contextlib.suppress(OSError):
        return frozenset(
            path.name.removesuffix(".lock")
            for path in folder.iterdir()
            if path.name.endswith(".lock") and is_held(path)
        )
    return frozenset()


def open_files(folder: Path, processes: Path = Path("/proc")) -> frozenset[str]:
    """Return the real paths below a folder that a process has open or mapped.

    Weights are mapped, so a model that was loaded from the cache shows here. Known on Linux, for
    the processes that this user may look into; elsewhere nothing is known.
    """
    start = f"{os.path.realpath(folder)}/"
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for process in processes.iterdir():
            if process.name.isdecimal():
                found.update(path for path in _paths(process) if path.startswith(start))
    return frozenset(found)


def _paths(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in (process / "maps").read_bytes().splitlines():
            # Address, rights, offset, device, inode, path.
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith(b"/"):
                yield os.fsdecode(fields[5])
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(descriptor)  # noqa: PTH115 - what it says may be no path
