"""A small selection and events that several tests share."""

from __future__ import annotations

import json
import struct

from nbloader.records import Component, Kind, RepoFile, Selection

MB = 1_000_000


def safetensors(header: object, tensors: bytes = b"") -> bytes:
    """Write a safetensors file: the length of the header, the header (as it is, if it is bytes),
    the tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


SELECTION = Selection(
    repo_id="org/name",
    revision="main",
    commit_hash="c" * 40,
    kind=Kind.DIFFUSERS,
    class_name="SomePipeline",
    components=(
        Component(name="config", paths=("model_index.json",)),
        Component(
            name="transformer",
            library="diffusers",
            class_name="SomeModel",
            paths=("transformer/config.json", "transformer/model.safetensors"),
            weights=("transformer/model.safetensors",),
        ),
        Component(
            name="vae",
            library="diffusers",
            class_name="SomeVae",
            paths=("vae/model.safetensors",),
            weights=("vae/model.safetensors",),
        ),
    ),
    files=(
        RepoFile(path="model_index.json", size=1_000, etag="1" * 40),
        RepoFile(path="transformer/config.json", size=1_000, etag="2" * 40),
        RepoFile(path="transformer/model.safetensors", size=80 * MB, etag="3" * 64, lfs=True),
        RepoFile(path="vae/model.safetensors", size=20 * MB, etag="4" * 64, lfs=True),
    ),
)
