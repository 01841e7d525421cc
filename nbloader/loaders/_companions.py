"""Where a load finds the other repositories of its plan.

All lie in one cache, under their commits, so the libraries need no network for any of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbloader.records import Plan

__all__ = ["code_arguments", "snapshot_of"]


def snapshot_of(plan: Plan, folder: Path, repo_id: str) -> Path:
    """Give the folder of another repository of a plan.

    Args:
        folder: the snapshot of the plan's own: `<cache>/models--org--name/snapshots/<commit>`.
    """
    commit = next(one.commit_hash for one in plan.companions if one.repo_id == repo_id)
    name = f"models--{repo_id.replace('/', '--')}"
    return _cache(folder) / name / "snapshots" / commit


def code_arguments(plan: Plan, folder: Path) -> dict[str, Any]:
    """Give the arguments that let transformers find code that is named with its repository.

    It looks for `org/code--module.Class` in the Hub's cache; with the commit it asks nobody.
    """
    commit = next((one.commit_hash for one in plan.companions if one.role == "code"), None)
    return {} if commit is None else {"code_revision": commit, "cache_dir": str(_cache(folder))}


def _cache(folder: Path) -> Path:
    return folder.parents[2]
