"""Uploaded xorbs and shards on disk, and what they say of files.

`<root>/.localhub/xet/xorbs/<first two digits>/<hash>` and `.../shards/<sha256 of the shard>`. The
shards are read at the start, the headers of a xorb when a file needs it. Both are written in
`.../incoming` and appear under their names complete.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from nbloader.localhub.xet.formats import FileRecord, FormatError, XorbIndex, index_xorb, read_shard
from nbloader.localhub.xet.reconstruction import Layout

__all__ = ["XetStore"]

_MAX_XORB = 80 << 20
"""Bytes: 64 MiB of chunks, with room for headers and a footer."""

_MAX_SHARD = 256 << 20


class XetStore:
    """Xorbs and shards below a folder. One server at a time may use it."""

    def __init__(self, folder: Path) -> None:
        self._xorbs = folder / "xorbs"
        self._shards = folder / "shards"
        self._indexes: dict[str, XorbIndex] = {}
        self._files: dict[str, FileRecord] = {}
        self._layouts: dict[str, Layout] = {}
        self._hashes: dict[str, str] = {}
        self._incoming = folder / "incoming"
        shutil.rmtree(self._incoming, ignore_errors=True)  # left by a server that was killed
        for made in (self._xorbs, self._shards, self._incoming):
            made.mkdir(parents=True, exist_ok=True)
        for shard in self._shards.iterdir():
            self._adopt(read_shard(shard.read_bytes()))

    def xet_hash(self, sha256: str) -> str | None:
        """Return the Xet hash of a content, or None if it was not uploaded."""
        return self._hashes.get(sha256)

    def sha256(self, xet_hash: str) -> str | None:
        """Return the hash of the content of a file, if the client that uploaded it gave it."""
        file = self._files.get(xet_hash)
        return file.sha256 if file else None

    def layout(self, xet_hash: str) -> Layout:
        """Return how a file is made.

        Raises:
            LookupError: there is no such file.
        """
        if xet_hash not in self._layouts:
            self._layouts[xet_hash] = Layout.of(self._files[xet_hash], self.index)
        return self._layouts[xet_hash]

    def index(self, xorb: str) -> XorbIndex:
        """Return where the chunks of a xorb are.

        Raises:
            LookupError: there is no such xorb.
        """
        if xorb not in self._indexes:
            with self.open(xorb) as file:
                self._indexes[xorb] = index_xorb(file)
        return self._indexes[xorb]

    def open(self, xorb: str) -> FileIO:
        """Open a xorb.

        Raises:
            LookupError: there is no such xorb.
        """
        try:
            return self._path(xorb).open("rb", buffering=0)
        except FileNotFoundError:
            raise LookupError(f"no xorb {xorb}") from None

    async def add_xorb(self, xorb: str, content: AsyncIterator[bytes]) -> bool:
        """Keep a xorb as it comes; return False if it is there already.

        Raises:
            FormatError: it is none.
        """
        if self._path(xorb).exists():
            return False
        with self._scratch() as scratch:
            await _write(scratch, content, _MAX_XORB)
            with scratch.open("rb", buffering=0) as file:
                index = index_xorb(file)
            self._path(xorb).parent.mkdir(exist_ok=True)
            scratch.replace(self._path(xorb))
        self._indexes[xorb] = index
        return True

    async def add_shard(self, content: AsyncIterator[bytes]) -> None:
        """Keep a shard as it comes; its files are known then.

        Raises:
            FormatError: it is none, or its files do not fit the xorbs.
            LookupError: its files take xorbs that are not there.
        """
        with self._scratch() as scratch:
            await _write(scratch, content, _MAX_SHARD)
            shard = scratch.read_bytes()
            files = read_shard(shard)
            for file in files:
                Layout.of(file, self.index)
            scratch.replace(self._shards / hashlib.sha256(shard).hexdigest())
        self._adopt(files)

    def _adopt(self, files: list[FileRecord]) -> None:
        for file in files:
            self._files[file.xet_hash] = file
            if file.sha256 is not None:
                self._hashes[file.sha256] = file.xet_hash

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Give the path of a new empty file, which is removed unless it was moved away."""
        with tempfile.NamedTemporaryFile(dir=self._incoming, delete=False) as file:
            path = Path(file.name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _path(self, xorb: str) -> Path:
        return self._xorbs / xorb[:2] / xorb


async def _write(path: Path, content: AsyncIterator[bytes], limit: int) -> None:
    size = 0
    with path.open("wb") as file:
        async for block in content:
            size += len(block)
            if size > limit:
                raise FormatError(f"more than {limit} bytes")
            file.write(block)
