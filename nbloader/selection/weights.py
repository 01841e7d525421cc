"""Which files in a folder hold the weights that a library would load from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nbloader.errors import VariantNotFoundError
from nbloader.hub_names import folder_and_name, join
from nbloader.selection.repo import Repo, check_safe, malformed
from nbloader.text import quote

_SHARDS = (".safetensors", ".bin")


@dataclass(frozen=True, slots=True)
class Naming:
    """How a library names the weights of a model.

    Attributes:
        stem: of a safetensors file.
        pickle_stem: of a `.bin` file.
        sharded_first: whether shards win over a single file beside them, in the same format.
        indexes: suffixes of the formats whose shards it loads.
        legacy_index: whether it knows the variant's index by the older name too.
    """

    stem: str
    pickle_stem: str
    sharded_first: bool
    indexes: tuple[str, ...]
    legacy_index: bool = False

    def candidates(self, variant: str | None) -> Iterable[tuple[str, bool]]:
        """File names, best first, each with whether it is an index of shards."""
        dotted = f".{variant}" if variant else ""
        for stem, suffix in ((self.stem, "safetensors"), (self.pickle_stem, "bin")):
            single = [(f"{stem}{dotted}.{suffix}", False)]
            indexes = []
            if suffix in self.indexes:
                indexes.append((f"{stem}.{suffix}.index{dotted}.json", True))
                if variant and self.legacy_index:
                    indexes.append((f"{stem}.{suffix}.{variant}.index.json", True))
            yield from indexes + single if self.sharded_first else single + indexes


DIFFUSERS = Naming(
    "diffusion_pytorch_model",
    "diffusion_pytorch_model",
    sharded_first=True,
    indexes=("safetensors",),
    legacy_index=True,
)
"""`ModelMixin.from_pretrained`: a safetensors index comes first; it asks for none of `.bin`."""

TRANSFORMERS = Naming("model", "pytorch_model", sharded_first=False, indexes=("safetensors", "bin"))
"""`_get_resolved_checkpoint_files`: single before shards, safetensors before `.bin`."""

MODULE = Naming("model", "pytorch_model", sharded_first=False, indexes=())
"""`Module.load_torch_weights` of sentence-transformers: one file only."""

_VARIANT_NAMES = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(?P<new>[^.]+?)(?:-\d{5}-of-\d{5})?|-\d{5}-of-\d{5}\.(?P<old>[^.]+))"
    r"\.(?:safetensors|bin)"
)


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model's weights consist of.

    Attributes:
        files: files with tensors.
        index: the index that names them, where they are shards.
    """

    files: tuple[str, ...]
    index: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All files, the index included."""
        return (*self.files, self.index) if self.index else self.files


def find_weights(repo: Repo, folder: str, naming: Naming, variant: str | None) -> Weights | None:
    """The weights of `variant` that the library would load from `folder`, or None.

    Raises:
        MalformedFileError: the index of the shards is wrong.
        UnsafePathError: the index names a file outside the folder.
    """
    for name, is_index in naming.candidates(variant):
        path = join(folder, name)
        if path in repo.paths:
            # diffusers allows plain names only.
            nested = naming is not DIFFUSERS
            return from_index(repo, path, nested=nested) if is_index else Weights((path,))
    return None


def from_index(repo: Repo, path: str, *, nested: bool) -> Weights:
    """The shards that the index at `path` names; none as long as its content is not known.

    Args:
        nested: whether shards may be in folders below the index.

    Raises:
        MalformedFileError: it has no `weight_map`, or names a file that is not there.
        UnsafePathError: it names a file outside its folder.
    """
    index = repo.read_object(path)
    if index is None:
        return Weights((), path)
    weight_map = index.get("weight_map")
    # Both libraries also fail without a mapping under `metadata`.
    if not isinstance(weight_map, dict) or not isinstance(index.get("metadata"), dict):
        raise malformed(path, "has no weight_map and metadata, so it is not an index of shards")
    names = list(weight_map.values())
    if not names or not all(isinstance(name, str) for name in names):
        raise malformed(path, "has a weight_map that names no files")
    folder, own = folder_and_name(path)
    # A library reads what the index names by its ending; anything else it might run or unpickle.
    endings = _SHARDS if ".bin.index." in own else _SHARDS[:1]
    shards = []
    for name in sorted(set(names)):
        check_safe(name, where=f"The file {quote(path)}")
        shard = join(folder, name)
        if ("/" in name and not nested) or shard not in repo.paths:
            raise malformed(path, f"names {quote(name)}, which is not there")
        if not name.endswith(endings):
            raise malformed(path, f"names {quote(name)}, which is no file of weights of its format")
        shards.append(shard)
    return Weights(tuple(shards), path)


def variant_not_found(repo: Repo, folders: Iterable[str]) -> VariantNotFoundError:
    """The error that names the variants which `folders` do have."""
    found = {
        match["new"] or match["old"]
        for folder in folders
        for name in repo.names(folder)
        if (match := _VARIANT_NAMES.fullmatch(name))
    }
    listed = ", ".join(quote(variant) for variant in sorted(found)[:10])
    return VariantNotFoundError(
        f"{quote(repo.repo_id)} has no weights of the variant {quote(repo.variant)}.",
        hint=f"Variants that it has: {listed}." if found else "It has none: leave out variant=.",
    )
