"""Object ids as git makes them, for blobs, trees and commits.

The Hub shows git's ids: of a small file its blob, of a large one the blob of its Git LFS pointer.
https://git-scm.com/book/en/v2/Git-Internals-Git-Objects,
https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


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
