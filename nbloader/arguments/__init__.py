"""The arguments of `load` checked before anything is started. Pure."""

from __future__ import annotations

from nbloader.arguments._loader_kwargs import Taken, taken_over
from nbloader.arguments._repo_ids import RepoAddress, read_repo_id, successor_of
from nbloader.arguments._unknown import unknown_argument
from nbloader.arguments._values import (
    check_device,
    check_dtype,
    check_endpoint,
    check_flag,
    check_folder,
    check_method,
    check_repo_id,
    check_revision,
    check_task,
    check_token,
    check_variant,
    one_of,
)

__all__ = [
    "RepoAddress",
    "Taken",
    "check_device",
    "check_dtype",
    "check_endpoint",
    "check_flag",
    "check_folder",
    "check_method",
    "check_repo_id",
    "check_revision",
    "check_task",
    "check_token",
    "check_variant",
    "one_of",
    "read_repo_id",
    "successor_of",
    "taken_over",
    "unknown_argument",
]
