"""The control routes: what the handle sets and reads. Guarded by the key of the process."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from nbloader.localhub.access import Scope, grant
from nbloader.localhub.faults import FaultBook
from nbloader.localhub.hub import HubState
from nbloader.localhub.records import KEY_HEADER, Access, Fault, Token
from nbloader.localhub.traffic import RateLimits, TrafficLog

_UPLOAD_TOKEN_S = 3600


class Control:
    """The state that control routes change, and the routes.

    Attributes:
        book: the faults in force.
        traffic: the counters in use.
        limits: the rate limits in force.
    """

    def __init__(self, state: HubState, key: str) -> None:
        self._state = state
        self._key = key
        self.book = FaultBook()
        self.traffic = TrafficLog()
        self.limits = RateLimits()

    def app(self) -> web.Application:
        """Return the application with all control routes."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_put("/faults", self._put_faults)
        app.router.add_get("/counters", self._get_counters)
        app.router.add_get("/requests", self._get_requests)
        app.router.add_delete("/traffic", self._delete_traffic)
        app.router.add_put("/access/{org}/{name}", self._put_access)
        app.router.add_put("/listed/{org}/{name}", self._put_listed)
        app.router.add_put("/refs/{org}/{name}", self._put_ref)
        app.router.add_put("/renamed/{org}/{name}", self._put_renamed)
        app.router.add_put("/rate-limits", self._put_rate_limits)
        app.router.add_put("/tokens", self._put_token)
        app.router.add_post("/xet-uploads/{org}/{name}", self._post_xet_upload)
        return app

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        key = request.headers.get(KEY_HEADER, "")
        if not hmac.compare_digest(key.encode(), self._key.encode()):
            return web.Response(status=403, text="wrong key")
        try:
            return await handler(request)
        except (ValueError, KeyError, TypeError, LookupError) as error:
            return web.Response(status=400, text=f"{type(error).__name__}: {error}")

    async def _put_faults(self, request: web.Request) -> web.Response:
        self.book = FaultBook([Fault.from_json(item) for item in await request.json()])
        return web.Response()

    async def _get_counters(self, _request: web.Request) -> web.Response:
        return web.json_response(self.traffic.counters().to_json())

    async def _get_requests(self, _request: web.Request) -> web.Response:
        return web.json_response([entry.to_json() for entry in self.traffic.requests()])

    async def _delete_traffic(self, _request: web.Request) -> web.Response:
        # Requests under way go on counting in the log that they began with.
        self.traffic = TrafficLog()
        return web.Response()

    async def _put_access(self, request: web.Request) -> web.Response:
        self._state.access[self._repo_id(request)] = Access.from_json(await request.json())
        return web.Response()

    async def _put_listed(self, request: web.Request) -> web.Response:
        paths = await request.json()
        self._state.listed[self._repo_id(request)] = list(map(str, paths))
        return web.Response()

    async def _put_renamed(self, request: web.Request) -> web.Response:
        self._state.renamed[str(await request.json())] = self._repo_id(request)
        return web.Response()

    async def _put_ref(self, request: web.Request) -> web.Response:
        ref = await request.json()
        repo_id = self._repo_id(request)
        main = await asyncio.to_thread(self._state.store.main, repo_id)
        sha = ref["sha"] or main.sha
        kind = ref["kind"]
        if kind not in ("branch", "tag", "pull-request"):
            raise ValueError(f"no kind of ref: {kind!r}")
        await asyncio.to_thread(self._state.store.set_ref, repo_id, str(ref["name"]), kind, sha)
        return web.json_response({"sha": sha})

    async def _put_rate_limits(self, request: web.Request) -> web.Response:
        body = await request.json()
        quotas = {str(kind): int(quota) for kind, quota in body["quotas"].items()}
        self.limits = RateLimits(quotas, int(body["window_s"]))
        return web.Response()

    async def _put_token(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._state.tokens[str(body["value"])] = Token.from_json(body["token"])
        return web.Response()

    async def _post_xet_upload(self, request: web.Request) -> web.Response:
        """Tell which large files a repository has now and where they lie, with a token to write."""
        repo_id = self._repo_id(request)
        commit = await asyncio.to_thread(self._state.store.main, repo_id)
        expires = int(time.time()) + _UPLOAD_TOKEN_S
        return web.json_response(
            {
                "endpoint": self._state.cas,
                "token": grant(self._state.secret, Scope.WRITE, repo_id, expires),
                "expires": expires,
                "files": [
                    {
                        "path": file.path,
                        "sha256": file.sha256,
                        "content": str(self._state.store.object_path(file.sha256)),
                    }
                    for file in commit.files.values()
                    if file.sha256 is not None
                ],
            }
        )

    def _repo_id(self, request: web.Request) -> str:
        repo_id = f"{request.match_info['org']}/{request.match_info['name']}"
        self._state.store.folder(repo_id)
        return repo_id
