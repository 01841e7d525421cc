"""What the tests of whole loads share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.localhub import LocalHub


@pytest.fixture
def load(hub: LocalHub, tmp_path: Path) -> Callable[..., Any]:
    """Load a repository of the local Hub on the CPU, into a cache of the test's own."""

    def load(repo_id: str, **keywords: Any) -> Any:
        return nbloader.load(
            repo_id,
            device="cpu",
            endpoint=hub.endpoint,
            cache_dir=tmp_path / "cache",
            **{"view": "none", **keywords},
        )

    return load
