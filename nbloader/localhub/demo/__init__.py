"""Repositories to load without the internet.

`publish` writes them below the folder that the local Hub serves. The embedding model has its real
weights; the image editing pipeline is real in everything but its size and its random weights. A
second one, smaller still, was trained: its edits can be seen.
"""

from __future__ import annotations

from nbloader.localhub.demo.repos import (
    EMOJI_EDIT,
    MINILM,
    QWEN_IMAGE_EDIT,
    PublishError,
    example_image,
    publish,
    repo_folder,
    write_emoji_edit,
    write_missing,
)

__all__ = [
    "EMOJI_EDIT",
    "MINILM",
    "QWEN_IMAGE_EDIT",
    "PublishError",
    "example_image",
    "publish",
    "repo_folder",
    "write_emoji_edit",
    "write_missing",
]
