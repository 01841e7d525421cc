"""The repositories to download: weights that no one can compress, in files that can be selected."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MB", "ModelRepo", "hashes", "publish", "warm"]

MB = 1_000_000

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRepo:
    """A model of transformers: its configuration, and weights in files of one size.

    Attributes:
        size: bytes of all weights together.
        shards: number of files that hold them.
    """

    size: int
    shards: int = 1

    @property
    def repo_id(self) -> str:
        """The name; it tells the content, so what is there under it need not be written again."""
        return f"bench/weights-{self.shards}x{self.size // self.shards}"

    @property
    def weights(self) -> dict[str, int]:
        """The files with weights: name to size in bytes."""
        if self.shards == 1:
            return {"model.safetensors": self.size}
        numbers = range(1, self.shards + 1)
        names = [f"model-{number:05}-of-{self.shards:05}.safetensors" for number in numbers]
        return dict.fromkeys(names, self.size // self.shards)

    @property
    def texts(self) -> dict[str, str]:
        """The small files: name to content."""
        texts = {"config.json": json.dumps({"architectures": ["BertModel"], "model_type": "bert"})}
        if self.shards > 1:
            weight_map = {f"weight.{name}": name for name in self.weights}
            index = {"metadata": {"total_size": self.size}, "weight_map": weight_map}
            texts["model.safetensors.index.json"] = json.dumps(index)
        return texts

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files; every one of them is needed to load the model."""
        return (*self.texts, *self.weights)


def publish(root: Path, repo: ModelRepo) -> Path:
    """Write a repository below the root of a local Hub, unless it is there; return its folder."""
    folder = root / "models" / repo.repo_id
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in repo.texts.items():
        _replace(folder / name, iter([text.encode()]))
    for name, size in repo.weights.items():
        place = folder / name
        if not place.is_file() or place.stat().st_size != size:
            _replace(place, _weights(name, size))
    return folder


def hashes(folder: Path, names: tuple[str, ...]) -> dict[str, str | None]:
    """Return the sha256 of each file below `folder`, or None where there is no such file."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            found[name] = None
    return found


def warm(folder: Path) -> None:
    """Read every file below `folder`, so that all who ask find it in the page cache."""
    seen: set[int] = set()
    buffer = bytearray(_CHUNK)
    for place in folder.rglob("*"):
        if place.is_file() and (inode := place.stat().st_ino) not in seen:
            seen.add(inode)  # the store of a local Hub keeps contents as hard links
            with place.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def _replace(place: Path, content: Iterator[bytes]) -> None:
    """Write a file as the store of a local Hub asks for: beside the repository, then renamed."""
    writing = place.parent.with_suffix(".writing")
    with writing.open("wb") as file:
        file.writelines(content)
    writing.replace(place)


def _weights(name: str, size: int) -> Iterator[bytes]:
    """Yield a safetensors file of exactly `size` bytes, whose one tensor is pseudo-random."""
    # The header is padded with spaces, as the format allows, so that its length is known before.
    header_size = 256
    length = size - 8 - header_size
    tensor = {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}
    yield struct.pack("<Q", header_size)
    yield json.dumps({f"weight.{name}": tensor}).ljust(header_size).encode()
    source = random.Random(f"{name} {size}")
    for start in range(0, length, _CHUNK):
        yield source.randbytes(min(_CHUNK, length - start))
