"""The routes of the CAS: reconstructions, ranges of xorbs, and uploads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from nbloader.localhub.access import Scope, bearer, check_grant, sign
from nbloader.localhub.answers import (
    Answer,
    FilePart,
    RefusedError,
    UnsatisfiableRangeError,
    check_signature,
    json_answer,
    ranged_answer,
    select_range,
)
from nbloader.localhub.hub import HubState
from nbloader.localhub.store import RepoMissingError
from nbloader.localhub.xet.formats import FormatError, damage
from nbloader.localhub.xet.store import answer_v1, answer_v2, reconstruct

if TYPE_CHECKING:
    from aiohttp import web


class Cas:
    """The handlers of the CAS."""

    def __init__(self, state: HubState) -> None:
        self._state = state

    async def reconstruction(self, request: web.Request) -> Answer:
        """`GET /v1|v2/reconstructions/{file}`: what to fetch for the file or for its Range."""
        self._granted(request, Scope.READ)
        version = request.match_info["version"]
        if version == "v2" and not self._state.xet_v2:
            raise RefusedError(404, "Not found")
        try:
            layout = self._state.xet.layout(request.match_info["file"])
        except LookupError:
            raise RefusedError(404, "File not found") from None
        try:
            part = select_range(layout.size, "", request.headers.get("Range"), None)
        except UnsatisfiableRangeError:
            raise RefusedError(416, "Range not satisfiable") from None
        parts = reconstruct(layout, part.start, part.stop)
        answer = answer_v2 if version == "v2" else answer_v1
        return json_answer(answer(layout, parts, self._xorb_url))

    async def xorb(self, request: web.Request) -> Answer:
        """`GET /xorbs/default/{hash}?Expires=…&Signature=…`: a xorb, or a range of it."""
        check_signature(self._state.secret, request)
        xorb = request.match_info["xorb"]
        try:
            index = self._state.xet.index(xorb)
            answer = ranged_answer(
                lambda: self._state.xet.open(xorb), index.offsets[-1], request.headers, {}
            )
        except LookupError:
            raise RefusedError(404, "Not found") from None
        if isinstance(answer.body, FilePart):
            damaged = partial(damage, answer.body.file, index)
            answer = replace(answer, body=replace(answer.body, damage=damaged))
        return answer

    async def telemetry(self, _request: web.Request) -> Answer:
        """`POST /v1/telemetry`: nothing is done with it."""
        return json_answer({})

    async def upload_xorb(self, request: web.Request) -> Answer:
        """`POST /v1/xorbs/default/{hash}`."""
        self._granted(request, Scope.WRITE)
        try:
            inserted = await self._state.xet.add_xorb(request.match_info["xorb"], _blocks(request))
        except FormatError as error:
            raise RefusedError(400, str(error)) from None
        return json_answer({"was_inserted": inserted})

    async def upload_shard(self, request: web.Request) -> Answer:
        """`POST /v2/shards`; the answer is one line of NDJSON, with nothing to wait for."""
        self._granted(request, Scope.WRITE)
        try:
            await self._state.xet.add_shard(_blocks(request))
        except (FormatError, LookupError) as error:
            raise RefusedError(400, str(error)) from None
        return Answer(200, {"Content-Type": "application/x-ndjson"}, b'{"type": "result"}\n')

    async def other(self, _request: web.Request) -> Answer:
        """Everything else; no chunk is known globally, and no xorb is uploaded elsewhere."""
        raise RefusedError(404, "Not found")

    def subject(self, request: web.Request) -> str:
        """Return what the log and the faults know a request by.

        For a reconstruction that is the path of the file in the repository of its token, if there
        is such a file; for a xorb, its hash; for anything else, the URL's path.
        """
        info = request.match_info
        if request.method == "GET" and "xorb" in info:
            return info["xorb"]
        if "file" in info:
            token = bearer(request.headers.get("Authorization"))
            repo_id = check_grant(self._state.secret, token, Scope.READ, time.time())
            path = self._path_in(repo_id, info["file"]) if repo_id else None
            if path is not None:
                return f"{repo_id}/{path}"
        return request.path

    def _path_in(self, repo_id: str, xet_hash: str) -> str | None:
        sha256 = self._state.xet.sha256(xet_hash)
        try:
            repo = self._state.store.repo(repo_id)
        except RepoMissingError:
            return None
        # A copy: another thread may find a new commit meanwhile.
        for commit in reversed(tuple(repo.commits.values())):
            for file in commit.files.values():
                if file.sha256 is not None and file.sha256 == sha256:
                    return file.path
        return None

    def _granted(self, request: web.Request, scope: Scope) -> None:
        token = bearer(request.headers.get("Authorization"))
        if check_grant(self._state.secret, token, scope, time.time()) is None:
            raise unauthorized()

    def _xorb_url(self, xorb: str) -> str:
        path = f"/xorbs/default/{xorb}"
        expires = int(time.time()) + self._state.signature_s
        return f"{self._state.cas}{path}?{urlencode(sign(self._state.secret, path, expires))}"


def unauthorized() -> RefusedError:
    """Return the error of a token that is missing, wrong or too old."""
    return RefusedError(401, "Unauthorized")


async def _blocks(request: web.Request) -> AsyncIterator[bytes]:
    async for block in request.content.iter_any():
        yield block
