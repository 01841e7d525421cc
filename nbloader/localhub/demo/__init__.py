"""Two repositories to load without the internet, under their real names.

`publish` writes them below the folder that the local Hub serves. The embedding model has its real
weights; the image editing pipeline is real in everything but its size and its random weights.
"""

from __future__ import annotations

from nbloader.localhub.demo.repos import (
    MINILM,
    QWEN_IMAGE_EDIT,
    PublishError,
    example_image,
    publish,
    repo_folder,
    write_missing,
)

__all__ = [
    "MINILM",
    "QWEN_IMAGE_EDIT",
    "PublishError",
    "example_image",
    "publish",
    "repo_folder",
    "write_missing",
]
