"""The repositories that the matrix downloads: contents made once, of sizes that lie on edges."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from nbloader.hub_cache.partial import SMALL_FILE_BYTES
from nbloader.worker.tuning import SMALLEST_HTTP_PIECE_BYTES, XetPace

__all__ = ["LARGE", "ONE", "SIZES", "SMALL", "Repo"]


@dataclass(frozen=True)
class Repo:
    """A repository that the selection of a transformers model takes as a whole.

    Its weights are shards of the pickle kind, whose content nobody looks at: they may be of any
    size, even empty.

    Attributes:
        sizes: bytes of its weights, by path.
    """

    repo_id: str
    sizes: Mapping[str, int]

    @functools.cached_property
    def files(self) -> Mapping[str, bytes]:
        """All its files; those of weights hold nothing that is anywhere else."""
        random = Random(self.repo_id)
        weights = {path: random.randbytes(size) for path, size in self.sizes.items()}
        index = {"metadata": {}, "weight_map": {path: path for path in weights}}
        return {
            **weights,
            "config.json": b'{"model_type": "bert"}',
            "pytorch_model.bin.index.json": json.dumps(index).encode(),
        }

    @functools.cached_property
    def hashes(self) -> Mapping[str, str]:
        """The sha256 of each file."""
        return {path: hashlib.sha256(content).hexdigest() for path, content in self.files.items()}

    def __str__(self) -> str:
        return self.repo_id

    @functools.cached_property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


def _around(*edges: int) -> list[int]:
    return [edge + delta for edge in edges for delta in (-1, 0, 1)]


SIZES = Repo(
    "org/sizes",
    {
        f"size-{size:08}.bin": size
        for size in (
            *(0, 1),
            *_around(SMALL_FILE_BYTES, XetPace.LARGEST, SMALLEST_HTTP_PIECE_BYTES),
            20_000_000,
        )
    },
)
"""Nothing, one byte, one byte around each edge of a piece and of what is held in memory, and
several pieces."""

ONE = Repo("org/one", {"one.bin": 24_000_001})
"""One file of several pieces, so that no other file hides what happens to it."""

SMALL = Repo("org/small", {"small.bin": SMALL_FILE_BYTES + 1})
"""One file of one piece over HTTP, for what is slow."""

LARGE = Repo("org/large", {"large.bin": 96_000_000})
"""One file that is large enough to compare the routes on."""
