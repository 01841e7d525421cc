"""Repositories as folders on disk, and the commits that come of them.

The files of `<root>/models/<org>/<name>/` are the tip of the branch `main`, and so are those of
`<root>/datasets/<org>/<name>/` and `<root>/spaces/<org>/<name>/`. The id of a dataset or a space
has its kind before it here, as in its address: `datasets/org/name`. `Store.main` looks at the files
(name, size, time, inode) and makes a new commit when something has changed. Every content is kept
under its own hash in `<root>/.localhub/objects`, so that old commits can still be read: small files
as copies, large ones as hard links, which cost neither time nor space.

Hence the rule: **replace files, do not write into them** (write beside the repository, then
`os.replace`). Where a large file was written in place, its earlier content is gone; the store
notices and says so (`LostContentError`), and never serves the new bytes under the old hash.

What is known is kept in `<root>/.localhub/index.json`, so that a restart hashes nothing again. One
server at a time may use a root.

Ids are git's, as the Hub shows them: of a small file its blob, of a large one the blob of its Git
LFS pointer. https://git-scm.com/book/en/v2/Git-Internals-Git-Objects,
https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

RefKind = Literal["branch", "tag", "pull-request"]

LFS_SUFFIXES = frozenset({".bin", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".safetensors"})
"""Suffixes that the `.gitattributes` of a new repository on the Hub puts into LFS, in part."""

LFS_THRESHOLD = 1 << 20
"""Files above this size, bytes, are in LFS whatever their name."""

_RACY_NS = 50_000_000
"""A file changed this shortly before it was hashed may change again within the resolution of the
file system's clock, and is hashed anew the next time (git calls such an index entry racy)."""

_INDEX_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_RESERVED_ORGS = frozenset({"api", "datasets", "spaces"})
OTHER_TYPES = ("datasets", "spaces")

Stamp = tuple[int, int, int]
"""Size, modification time in nanoseconds, inode: what shows that a file has changed."""


class RepoMissingError(LookupError):
    """There is no folder of that name."""


class LostContentError(LookupError):
    """The content was known once, but its file has been written in place since."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a commit.

    Attributes:
        size: bytes.
        git_oid: git's blob id; for a file in LFS that of its pointer.
        sha256: hash of the content for a file in LFS, otherwise None.
    """

    path: str
    size: int
    git_oid: str
    sha256: str | None

    @property
    def oid(self) -> str:
        """The hash that addresses the content, and the ETag on the Hub."""
        return self.sha256 or self.git_oid


@dataclass(frozen=True)
class Commit:
    """A state of a repository.

    Attributes:
        sha: 40 hex digits, a function of the names and contents alone.
        time: seconds since the epoch, of the youngest file.
        files: by path, in the order of the paths.
        folders: git's tree ids by path, without the root.
    """

    sha: str
    time: int
    files: Mapping[str, StoredFile]
    folders: Mapping[str, str]

    @classmethod
    def of(cls, files: list[StoredFile], time: int) -> Commit:
        folders = tree_oids({file.path: file.git_oid for file in files})
        sha = commit_oid(folders.pop(""))
        return cls(
            sha=sha,
            time=time,
            files=MappingProxyType({file.path: file for file in sorted(files, key=_path_of)}),
            folders=MappingProxyType(dict(sorted(folders.items()))),
        )


def _path_of(file: StoredFile) -> str:
    return file.path


@dataclass
class Repo:
    """What is known of a repository.

    Attributes:
        seen: stamp and content of each file at the last look.
        commits: by sha, oldest first.
        refs: names other than `main`, with their kind and commit.
    """

    repo_id: str
    seen: dict[str, tuple[Stamp, StoredFile]] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, tuple[RefKind, str]] = field(default_factory=dict)


def is_repo_id(repo_id: str) -> bool:
    """Whether the text is `org/name` by the Hub's rules; so it is safe as a path, too.

    The id of a dataset or a space has its kind before it.
    """
    kind, _, rest = repo_id.partition("/")
    org, slash, name = (rest if kind in OTHER_TYPES else repo_id).partition("/")
    return (
        slash == "/"
        and org not in _RESERVED_ORGS
        and all(_NAME.fullmatch(part) and ".." not in part for part in (org, name))
    )


class Store:
    """The repositories under a root. Its methods block, and may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._private = root / ".localhub"
        self._objects = self._private / "objects"
        self._index = self._private / "index.json"
        self._lock = threading.Lock()
        self._stamps: dict[str, Stamp] = {}
        self._repos: dict[str, Repo] = {}
        self._objects.mkdir(parents=True, exist_ok=True)
        self._read_index()

    def folder(self, repo_id: str) -> Path:
        """Return the folder of a repository.

        Raises:
            RepoMissingError: there is none.
        """
        is_model = repo_id.partition("/")[0] not in OTHER_TYPES
        folder = self._root / "models" / repo_id if is_model else self._root / repo_id
        if not is_repo_id(repo_id) or not folder.is_dir():
            raise RepoMissingError(repo_id)
        return folder

    def repo(self, repo_id: str) -> Repo:
        """Return what is known of a repository, without a look at its files."""
        self.folder(repo_id)
        return self._repos.setdefault(repo_id, Repo(repo_id))

    def main(self, repo_id: str) -> Commit:
        """Look at the files and return the commit that they make now.

        Raises:
            RepoMissingError: there is no such repository.
        """
        folder = self.folder(repo_id)
        # One look at a time: two would hash the same new files.
        with self._lock:
            repo = self.repo(repo_id)
            seen: dict[str, tuple[Stamp, StoredFile]] = {}
            racy: set[str] = set()
            youngest_ns = 0
            for path, file in _walk(folder):
                with suppress(FileNotFoundError):  # removed since it was listed
                    looked_ns = time.time_ns()
                    stamp = _stamp(file.stat())
                    known = repo.seen.get(path)
                    if known is None or known[0] != stamp or not self._is_kept(known[1].oid):
                        stamp, stored = self._keep(path, file)
                        if looked_ns - stamp[1] < _RACY_NS:
                            racy.add(path)
                        known = stamp, stored
                    seen[path] = known
                    youngest_ns = max(youngest_ns, stamp[1])
            commit = Commit.of([file for _, file in seen.values()], youngest_ns // 1_000_000_000)
            seen = {path: known for path, known in seen.items() if path not in racy}
            if seen != repo.seen or commit.sha not in repo.commits:
                repo.seen = seen
                commit = repo.commits.setdefault(commit.sha, commit)
                self._write_index()
            return repo.commits[commit.sha]

    def set_ref(self, repo_id: str, name: str, kind: RefKind, sha: str) -> None:
        """Name a known commit."""
        repo = self.repo(repo_id)
        with self._lock:
            if sha not in repo.commits:
                raise LookupError(f"{repo_id} has no commit {sha}")
            repo.refs[name] = kind, sha
            self._write_index()

    def open(self, oid: str) -> FileIO:
        """Open the content with this hash.

        Raises:
            LostContentError: it is not there any more.
        """
        try:
            file = self.object_path(oid).open("rb", buffering=0)
        except FileNotFoundError:
            raise LostContentError(oid) from None
        if _stamp(os.fstat(file.fileno())) != self._stamps.get(oid):
            file.close()
            raise LostContentError(oid)
        return file

    def object_path(self, oid: str) -> Path:
        """Return where the content with this hash is kept, if it is."""
        return self._objects / oid[:2] / oid

    def _is_kept(self, oid: str) -> bool:
        with suppress(FileNotFoundError):
            return _stamp(self.object_path(oid).stat()) == self._stamps.get(oid)
        return False

    def _keep(self, path: str, file: Path) -> tuple[Stamp, StoredFile]:
        """Hash a file and put its content among the objects."""
        stamp = _stamp(file.stat())
        if file.suffix not in LFS_SUFFIXES and stamp[0] <= LFS_THRESHOLD:
            content = file.read_bytes()
            stored = StoredFile(path, len(content), blob_oid(content), None)
            with tempfile.NamedTemporaryFile(dir=self._private, delete=False) as copy:
                copy.write(content)
            self._adopt(Path(copy.name), stored.oid, _stamp(Path(copy.name).stat()))
            return stamp, stored
        with tempfile.TemporaryDirectory(dir=self._private) as scratch:
            link = Path(scratch, "content")
            try:
                link.hardlink_to(file.resolve())
            except OSError:  # another file system, or one without hard links
                shutil.copy2(file, link)
            with link.open("rb") as content_file:
                # Taken before the hash: a write during it shows as a change.
                content_stamp = _stamp(os.fstat(content_file.fileno()))
                sha256 = hashlib.file_digest(content_file, "sha256").hexdigest()
            size = content_stamp[0]
            pointer = lfs_pointer(sha256, size)
            stored = StoredFile(path, size, blob_oid(pointer), sha256)
            self._adopt(link, sha256, content_stamp)
        return stamp, stored

    def _adopt(self, file: Path, oid: str, stamp: Stamp) -> None:
        """Make `file` the object `oid`, unless that is there and intact; `file` is gone then."""
        target = self.object_path(oid)
        if not self._is_kept(oid):
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
            self._stamps[oid] = stamp
        # A rename onto another link of the same file does nothing (POSIX), so that this is left.
        file.unlink(missing_ok=True)

    def _read_index(self) -> None:
        # The index only saves work: whatever is wrong with it, everything can be hashed again.
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            index = json.loads(self._index.read_bytes())
            if index["version"] != _INDEX_VERSION:
                return
            repos = {
                repo_id: _repo_from_json(repo_id, item) for repo_id, item in index["repos"].items()
            }
            stamps = {oid: _stamp_from_json(item) for oid, item in index["objects"].items()}
            self._repos, self._stamps = repos, stamps

    def _write_index(self) -> None:
        index = {
            "version": _INDEX_VERSION,
            "objects": self._stamps,
            "repos": {repo_id: _repo_to_json(repo) for repo_id, repo in self._repos.items()},
        }
        with tempfile.NamedTemporaryFile("w", dir=self._private, delete=False) as file:
            json.dump(index, file)
        Path(file.name).replace(self._index)


def _walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Yield the regular files below `folder` with their paths in the repository.

    Folders that are links are left out (they could form a loop), and so are names that are not
    UTF-8, which no request could name.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name != ".git":
                    yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield prefix + entry.name, Path(entry.path)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _stamp_from_json(value: list[int]) -> Stamp:
    size, mtime_ns, inode = map(int, value)
    return size, mtime_ns, inode


def _file_to_json(file: StoredFile) -> list[Any]:
    return [file.path, file.size, file.git_oid, file.sha256]


def _repo_to_json(repo: Repo) -> dict[str, Any]:
    return {
        "seen": [[stamp, _file_to_json(file)] for stamp, file in repo.seen.values()],
        "commits": [
            [commit.time, [_file_to_json(file) for file in commit.files.values()]]
            for commit in repo.commits.values()
        ],
        "refs": repo.refs,
    }


def _repo_from_json(repo_id: str, value: Mapping[str, Any]) -> Repo:
    seen = [(_stamp_from_json(stamp), StoredFile(*file)) for stamp, file in value["seen"]]
    commits = [
        Commit.of([StoredFile(*file) for file in files], time) for time, files in value["commits"]
    ]
    return Repo(
        repo_id=repo_id,
        seen={file.path: (stamp, file) for stamp, file in seen},
        commits={commit.sha: commit for commit in commits},
        refs={name: (kind, sha) for name, (kind, sha) in value["refs"].items()},
    )


def blob_oid(content: bytes) -> str:
    """Return the id of a file's content."""
    return _oid("blob", content)


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the text that git keeps in place of a large file."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def tree_oids(blobs: Mapping[str, str]) -> dict[str, str]:
    """Return the id of every folder, by its path, from the blob ids of files by their path.

    The root is the empty path.
    """
    entries: dict[str, dict[str, str]] = {"": {}}
    for path, oid in blobs.items():
        folder, _, name = path.rpartition("/")
        entries.setdefault(folder, {})[name] = oid
        while folder:
            folder = folder.rpartition("/")[0]
            entries.setdefault(folder, {})
    oids: dict[str, str] = {}
    # A path is longer than that of the folder it is in: the deepest come first.
    for folder in sorted(entries, key=len, reverse=True):
        rows = [(name.encode(), b"100644", oid) for name, oid in entries[folder].items()]
        rows += [
            (path.rpartition("/")[2].encode(), b"40000", oid)
            for path, oid in oids.items()
            if path.rpartition("/")[0] == folder
        ]
        # git sorts a folder as if its name ended with a slash.
        rows.sort(key=lambda row: row[0] + b"/" if row[1] == b"40000" else row[0])
        content = b"".join(
            mode + b" " + name + b"\0" + bytes.fromhex(oid) for name, mode, oid in rows
        )
        oids[folder] = _oid("tree", content)
    return oids


def commit_oid(tree: str) -> str:
    """Return the id of a commit of `tree` with no parent, a fixed author and a fixed date."""
    author = "localhub <localhub@localhost> 0 +0000"
    return _oid("commit", f"tree {tree}\nauthor {author}\ncommitter {author}\n\nPublish\n".encode())


def _oid(kind: str, content: bytes) -> str:
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
