"""The server: Hub, CDN, CAS and control routes, each on a port of its own on 127.0.0.1."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from aiohttp import web

from nbloader.localhub.access import Scope, grant
from nbloader.localhub.answers import (
    Answer,
    FaultBook,
    RefusedError,
    check_signature,
    file_answer,
    url_expired,
)
from nbloader.localhub.certificates import make_certificates
from nbloader.localhub.hub import Hub, HubState, named_repo
from nbloader.localhub.records import KEY_HEADER, Access, Fault, RequestClass, Token
from nbloader.localhub.sending import apply, send
from nbloader.localhub.store import RepoMissingError, Store
from nbloader.localhub.traffic import Entry, RateLimits, TrafficLog, kind_of
from nbloader.localhub.xet.cas import Cas, unauthorized
from nbloader.localhub.xet.store import XetStore

_HOST = "127.0.0.1"
_CDN_NAME = "localhost"
"""Some versions of the Hub's client (1.33 is one) tell hosts apart without their ports, and
would follow a redirect to a CDN of the same name as if it were the Hub."""

_SHUTDOWN_S = 0.2
_TOKEN_CLASSES = frozenset({RequestClass.XET_TOKEN, RequestClass.XET_RECONSTRUCTION})

Handler = Callable[[web.Request], Awaitable[Answer]]
AiohttpHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Subject = Callable[[web.Request], str]

_UPLOAD_TOKEN_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to serve; a port of 0 is chosen by the system. See `HubState` for the rest.

    Attributes:
        tls: serve over TLS, but for the control routes.
    """

    root: Path
    port: int = 0
    cdn_port: int = 0
    cas_port: int = 0
    page_size: int = 1000
    signature_s: int = 3600
    resolve_cache: bool = True
    xet_token_s: int = 3600
    xet_v2: bool = True
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the server listens: four URLs without a slash at the end, and the control key.

    Attributes:
        authority: file with the certificate that vouches for the server's; None without TLS.
    """

    endpoint: str
    cdn: str
    cas: str
    control: str
    key: str
    authority: str | None

    def to_json(self) -> dict[str, str | None]:
        return asdict(self)


@asynccontextmanager
async def serving(options: Options) -> AsyncIterator[Addresses]:
    """Serve while the context lasts.

    Raises:
        OSError: a port is taken.
        CertificateError: there are no certificates to serve with.
    """
    key = secrets.token_urlsafe(24)
    state = HubState(
        store=Store(options.root),
        xet=XetStore(options.root / ".localhub" / "xet"),
        secret=secrets.token_bytes(32),
        page_size=options.page_size,
        signature_s=options.signature_s,
        resolve_cache=options.resolve_cache,
        xet_token_s=options.xet_token_s,
        xet_v2=options.xet_v2,
    )
    control = Control(state, key)
    tls, authority = None, None
    if options.tls:
        tls, authority = make_certificates(options.root / ".localhub" / "tls")
    async with AsyncExitStack() as stack:
        state.cdn = await _listen(
            stack, _cdn_app(Cdn(state), control), options.cdn_port, tls, _CDN_NAME
        )
        state.cas = await _listen(stack, _cas_app(Cas(state), control), options.cas_port, tls)
        state.endpoint = await _listen(stack, _hub_app(Hub(state), control), options.port, tls)
        control_url = await _listen(stack, control.app(), 0)
        yield Addresses(
            endpoint=state.endpoint,
            cdn=state.cdn,
            cas=state.cas,
            control=control_url,
            key=key,
            authority=None if authority is None else str(authority.resolve()),
        )


async def _listen(
    stack: AsyncExitStack,
    app: web.Application,
    port: int,
    tls: ssl.SSLContext | None = None,
    name: str = _HOST,
) -> str:
    # handler_cancellation: a stalled answer ends when its client leaves.
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, _HOST, port, ssl_context=tls).start()
    return f"{'http' if tls is None else 'https'}://{name}:{runner.addresses[0][1]}"


def _hub_app(hub: Hub, control: Control) -> web.Application:
    model = "/api/{type:models|datasets|spaces}/{org}/{name}"
    cached = "/api/resolve-cache/{type:models|datasets|spaces}/{org}/{name}/{revision}/{path:.+}"
    typed = "/{type:datasets|spaces}/{org}/{name}/resolve/{revision}/{path:.+}"
    resolved = "/{org:(?!api/)[^/]+}/{name}/resolve/{revision}/{path:.+}"
    app = web.Application()
    for method, path, request_class, handler in (
        ("GET", model, RequestClass.MODEL_INFO, hub.model_info),
        ("GET", f"{model}/revision/{{revision}}", RequestClass.MODEL_INFO, hub.model_info),
        ("GET", f"{model}/tree/{{revision}}", RequestClass.TREE, hub.tree),
        ("GET", f"{model}/tree/{{revision}}/{{path:.*}}", RequestClass.TREE, hub.tree),
        ("POST", f"{model}/paths-info/{{revision}}", RequestClass.PATHS_INFO, hub.paths_info),
        ("GET", f"{model}/refs", RequestClass.REFS, hub.refs),
        ("GET", f"{model}/xet-read-token/{{revision}}", RequestClass.XET_TOKEN, hub.xet_read_token),
        ("GET", "/api/whoami-v2", RequestClass.WHOAMI, hub.whoami),
        ("HEAD", cached, RequestClass.RESOLVE_HEAD, hub.resolve_cache),
        ("GET", cached, RequestClass.RESOLVE_GET, hub.resolve_cache),
        ("HEAD", typed, RequestClass.RESOLVE_HEAD, hub.resolve),
        ("GET", typed, RequestClass.RESOLVE_GET, hub.resolve),
        ("HEAD", resolved, RequestClass.RESOLVE_HEAD, hub.resolve),
        ("GET", resolved, RequestClass.RESOLVE_GET, hub.resolve),
        ("*", "/{rest:.*}", RequestClass.OTHER, hub.other),
    ):
        served = _served(request_class, _by_old_names(hub, handler), control)
        app.router.add_route(method, path, served)
    return app


def _by_old_names(hub: Hub, handler: Handler) -> Handler:
    """Lead requests by an old name of a repository to the new one."""

    async def handle(request: web.Request) -> Answer:
        return hub.moved(request) or await handler(request)

    return handle


def _cdn_app(cdn: Cdn, control: Control) -> web.Application:
    inside = "/{org}/{name}/{sha256:[0-9a-f]{64}}/{path:.+}"
    content, typed = f"/repos{inside}", f"/repos/{{type:datasets|spaces}}{inside}"
    app = web.Application()
    for method, path, request_class, handler in (
        ("HEAD", typed, RequestClass.CDN_HEAD, cdn.content),
        ("GET", typed, RequestClass.CDN_GET, cdn.content),
        ("HEAD", content, RequestClass.CDN_HEAD, cdn.content),
        ("GET", content, RequestClass.CDN_GET, cdn.content),
        ("*", "/{rest:.*}", RequestClass.OTHER, cdn.other),
    ):
        app.router.add_route(method, path, _served(request_class, handler, control))
    return app


def _cas_app(cas: Cas, control: Control) -> web.Application:
    files = "/{version:v1|v2}/reconstructions/{file:[0-9a-f]{64}}"
    xorbs = "/xorbs/default/{xorb:[0-9a-f]{64}}"
    app = web.Application()
    for method, path, request_class, handler in (
        ("GET", files, RequestClass.XET_RECONSTRUCTION, cas.reconstruction),
        ("GET", xorbs, RequestClass.XET_XORB, cas.xorb),
        ("POST", f"/v1{xorbs}", RequestClass.XET_OTHER, cas.upload_xorb),
        ("POST", "/v2/shards", RequestClass.XET_OTHER, cas.upload_shard),
        ("POST", "/v1/telemetry", RequestClass.XET_OTHER, cas.telemetry),
        ("*", "/{rest:.*}", RequestClass.XET_OTHER, cas.other),
    ):
        app.router.add_route(method, path, _served(request_class, handler, control, cas.subject))
    return app


def _served(
    request_class: RequestClass, handler: Handler, control: Control, subject: Subject | None = None
) -> AiohttpHandler:
    """Wrap a handler: its request is counted, and its answer sent with the faults that are set."""

    async def serve(request: web.Request) -> web.StreamResponse:
        log = control.traffic
        entry = Entry(
            request_class=request_class,
            method=request.method,
            path=(subject or _subject)(request),
            range=request.headers.get("Range"),
            had_authorization="Authorization" in request.headers,
        )
        log.start(entry)
        answer = await _answer(handler, request)
        answer = control.limits.applied(kind_of(request_class, request.path), answer)
        try:
            has_body = answer.length > 0 and request.method != "HEAD"
            effect = control.book.take(request_class, entry.path, has_body=has_body)
            if request.method in ("GET", "HEAD") and (
                effect.ignore_range or effect.etag is not None
            ):
                answer.close()
                headers = effect.headers_taken(request.headers)
                answer = await _answer(handler, request.clone(headers=headers))
            await asyncio.sleep(effect.latency_s)
            if effect.expired:
                answer.close()
                answer = (unauthorized if request_class in _TOKEN_CLASSES else url_expired)().answer
            if effect.redirect:
                answer.close()
                answer = Answer(302, {"Location": request.raw_path})
            answer = apply(answer, effect)
            return await send(request, answer, effect, log, entry)
        finally:
            answer.close()

    return serve


async def _answer(handler: Handler, request: web.Request) -> Answer:
    try:
        return await handler(request)
    except RefusedError as error:
        return error.answer


def _subject(request: web.Request) -> str:
    """Return what the log and the faults know a request by: repository and path, or the URL's."""
    info = request.match_info
    if "org" not in info:
        return request.path
    return "/".join(filter(None, (named_repo(request), info.get("path"))))


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
        app.router.add_put("/access/{repo:.+}", self._put_access)
        app.router.add_put("/listed/{repo:.+}", self._put_listed)
        app.router.add_put("/refs/{repo:.+}", self._put_ref)
        app.router.add_put("/renamed/{repo:.+}", self._put_renamed)
        app.router.add_put("/rate-limits", self._put_rate_limits)
        app.router.add_put("/tokens", self._put_token)
        app.router.add_post("/xet-uploads/{repo:.+}", self._post_xet_upload)
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
        """Say which large files a repository has now and where they lie, with a token to write."""
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
        repo_id = request.match_info["repo"]
        self._state.store.folder(repo_id)
        return repo_id


class Cdn:
    """The handlers of the CDN. A token is never looked at."""

    def __init__(self, state: HubState) -> None:
        self._state = state

    async def content(self, request: web.Request) -> Answer:
        """`HEAD|GET /repos/{id}/{sha256}/{path}?Expires=…&Signature=…`."""
        check_signature(self._state.secret, request)
        info = request.match_info
        try:
            repo = self._state.store.repo(named_repo(request))
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
