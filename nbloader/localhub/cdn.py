"""The routes of the CDN: files by their hash, for whoever has a signed URL."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nbloader.localhub.access import Verdict, verify
from nbloader.localhub.answers import Answer, RefusedError, file_answer
from nbloader.localhub.hub import HubState
from nbloader.localhub.store import RepoMissingError

if TYPE_CHECKING:
    from aiohttp import web


class Cdn:
    """The handlers of the CDN. A token is never looked at."""

    def __init__(self, state: HubState) -> None:
        self._state = state

    async def content(self, request: web.Request) -> Answer:
        """`HEAD|GET /repos/{id}/{sha256}/{path}?Expires=…&Signature=…`."""
        check_signature(self._state.secret, request)
        info = request.match_info
        try:
            repo = self._state.store.repo(f"{info['org']}/{info['name']}")
        except RepoMissingError:
            raise RefusedError(404, "Not found") from None
        # A copy: another thread may find a new commit meanwhile.
        for commit in tuple(repo.commits.values()):
            file = commit.files.get(info["path"])
            if file is not None and file.sha256 == info["sha256"]:
                return file_answer(self._state.store, file, request.headers)
        raise RefusedError(404, "Not found")

    async def other(self, _request: web.Request) -> Answer:
        """Everything else."""
        raise RefusedError(403, "Access denied")


def check_signature(secret: bytes, request: web.Request) -> None:
    """Check the signature of a URL.

    Raises:
        RefusedError: it is too old, or was not made here.
    """
    verdict = verify(secret, request.path, request.query, time.time())
    if verdict is Verdict.EXPIRED:
        raise url_expired()
    if verdict is Verdict.FORGED:
        raise RefusedError(403, "Access denied")


def url_expired() -> RefusedError:
    """Return the error of a URL that is too old."""
    return RefusedError(403, "Request has expired")
