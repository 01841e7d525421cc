"""What a worker does, done in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from nbloader.localhub import LocalHub
from nbloader.records import SelectionRequest, TransferPolicy
from nbloader.transfer.protocol import Report, Start
from nbloader.worker.session import Session

__all__ = ["Worker"]


class Worker:
    """Makes sessions with a server, and with a cache of their own.

    Attributes:
        told: what they reported.
    """

    def __init__(self, hub: LocalHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[Report] = []
        self.home = home
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HOME", str(home))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))

    def session(
        self, repo_id: str, request: SelectionRequest | None = None, **keywords: Any
    ) -> Session:
        """Make a session."""
        start = Start(
            repo_id=repo_id,
            revision=keywords.pop("revision", "main"),
            request=request or SelectionRequest(),
            policy=keywords.pop("policy", TransferPolicy(max_retries=1)),
            token=keywords.pop("token", False),
            **keywords,
        )
        return Session(start, self.told.append)
