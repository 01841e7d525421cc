"""The routes of the Hub, by https://huggingface.co/docs/hub/api and what its clients send.

Each handler takes a request and returns an `Answer`, or raises `RefusedError`. A path of a request
is only ever looked up among the names of a commit, never on the disk.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import yaml

from nbloader.localhub.access import Denial, Scope, bearer, grant, judge, sign
from nbloader.localhub.answers import Answer, RefusedError, file_answer, json_answer
from nbloader.localhub.records import Access, Token
from nbloader.localhub.store import (
    Commit,
    LostContentError,
    Repo,
    RepoMissingError,
    Store,
    StoredFile,
    blob_oid,
    lfs_pointer,
)
from nbloader.localhub.xet.store import XetStore

if TYPE_CHECKING:
    from aiohttp import web

_BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - the Hub's message

_TOLD_OF_CARD = frozenset({"library_name", "pipeline_tag"})
"""What of a card the answer names in its own place, too."""


@dataclass(kw_only=True)
class HubState:
    """What the handlers share, and the control routes change.

    Attributes:
        secret: signs the URLs of CDN and xorbs, and the tokens of Xet storage.
        page_size: entries of a page of the tree.
        signature_s: how long a signed URL is valid, seconds.
        resolve_cache: small files are redirected to `/api/resolve-cache` first, as the Hub does.
        xet_token_s: how long a token of Xet storage is valid, seconds.
        xet_v2: there are reconstructions of version 2, beside those of version 1.
        endpoint: URL of the Hub, with no slash at the end; so are `cdn` and `cas`.
        tokens: by their value.
        access: by repository; goes before the `<name>.access.json` beside its folder.
        renamed: new names of repositories by their old ones.
        listed: paths, by repository, that its listings name although there is no such file. What
            a hostile Hub might say.
    """

    store: Store
    xet: XetStore
    secret: bytes
    page_size: int
    signature_s: int
    resolve_cache: bool
    xet_token_s: int
    xet_v2: bool
    endpoint: str = ""
    cdn: str = ""
    cas: str = ""
    tokens: dict[str, Token] = field(default_factory=dict)
    access: dict[str, Access] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    listed: dict[str, list[str]] = field(default_factory=dict)


class Hub:
    """The handlers of the Hub."""

    def __init__(self, state: HubState) -> None:
        self._state = state

    def moved(self, request: web.Request) -> Answer | None:
        """Return the redirect for a request by the old name of a repository, as the Hub does.

        None if the name is none of those. An old name may lack the owner, such as `gpt2`.
        """
        for old, new in self._state.renamed.items():
            for prefix in ("/api/models/", "/"):  # Of models alone.
                rest = request.raw_path.removeprefix(f"{prefix}{old}")
                if rest != request.raw_path and rest[:1] in ("", "/", "?"):
                    return Answer(307, {"Location": f"{prefix}{new}{rest}"})
        return None

    async def model_info(self, request: web.Request) -> Answer:
        """`GET /api/models/{id}[/revision/{rev}]`."""
        repo, access = self._allowed(request, for_file=False)
        commit = await self._commit(repo, request.match_info.get("revision", "main"))
        with_blobs = request.query.get("blobs", "").lower() in ("true", "1")
        files = self._listed(repo.repo_id, commit)
        siblings = [_sibling(file, with_blobs=with_blobs) for file in files]
        when = _iso_time(commit.time)
        card = await asyncio.to_thread(self._card, commit)
        bare = "/".join(repo.repo_id.split("/")[-2:])
        return json_answer(
            {
                "_id": commit.sha[:24],
                "id": bare,
                "modelId": bare,
                "author": bare.partition("/")[0],
                "sha": commit.sha,
                "createdAt": when,
                "lastModified": when,
                "private": access.private,
                "gated": access.gated,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": _tags(card, commit),
                **{key: value for key, value in card.items() if key in _TOLD_OF_CARD},
                "usedStorage": sum(file.size for file in files),
                "siblings": siblings,
                **({"cardData": card} if card else {}),
            }
        )

    async def tree(self, request: web.Request) -> Answer:
        """`GET /api/models/{id}/tree/{rev}[/{path}]`, in pages."""
        repo, _ = self._allowed(request, for_file=False)
        revision = request.match_info["revision"]
        commit = await self._commit(repo, revision)
        folder = request.match_info.get("path", "").strip("/")
        if folder and folder not in commit.folders:
            raise _entry_not_found(commit)
        recursive = request.query.get("recursive", "").lower() in ("true", "1")
        expand = request.query.get("expand", "").lower() in ("true", "1")
        prefix = f"{folder}/" if folder else ""
        rows = [
            row
            for row in self._rows(repo.repo_id, commit, expand=expand)
            if row["path"].startswith(prefix)
            and (recursive or "/" not in row["path"][len(prefix) :])
        ]
        size = min(
            self._state.page_size, _count(request.query.get("limit"), self._state.page_size) or 1
        )
        start = _count(request.query.get("cursor"), 0)
        headers = {}
        if start + size < len(rows):
            query = urlencode({**request.query, "cursor": start + size})
            path = f"{quote(revision, safe='')}/{quote(folder)}".rstrip("/")
            url = f"{self._state.endpoint}{_api(repo)}/tree/{path}?{query}"
            headers["Link"] = f'<{url}>; rel="next"'
        return json_answer(rows[start : start + size], headers=headers)

    async def paths_info(self, request: web.Request) -> Answer:
        """`POST /api/models/{id}/paths-info/{rev}`; paths that are not there are left out."""
        repo, _ = self._allowed(request, for_file=False)
        commit = await self._commit(repo, request.match_info["revision"])
        form = await request.post()
        paths = {str(path).strip("/") for path in form.getall("paths", [])}
        expand = str(form.get("expand", "")).lower() in ("true", "1")
        rows = self._rows(repo.repo_id, commit, expand=expand)
        return json_answer([row for row in rows if row["path"] in paths])

    async def refs(self, request: web.Request) -> Answer:
        """`GET /api/models/{id}/refs`."""
        repo, _ = self._allowed(request, for_file=False)
        main = await self._commit(repo, "main")

        def rows(kind: str, prefix: str) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"{prefix}{name}", "targetCommit": sha}
                for name, (kind_of_ref, sha) in repo.refs.items()
                if kind_of_ref == kind
            ]

        branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": main.sha}]
        answer = {
            "branches": branches + rows("branch", "refs/heads/"),
            "converts": [],
            "tags": rows("tag", "refs/tags/"),
        }
        if request.query.get("include_prs"):
            # The name of a pull request is its whole ref.
            answer["pullRequests"] = rows("pull-request", "")
        return json_answer(answer)

    async def whoami(self, request: web.Request) -> Answer:
        """`GET /api/whoami-v2`."""
        token = bearer(request.headers.get("Authorization"))
        known = self._state.tokens.get(token) if token else None
        if known is None or known.stale:
            raise RefusedError(401, _BAD_TOKEN)
        return json_answer(
            {
                "type": "user",
                "id": known.name,
                "name": known.name,
                "fullname": known.name,
                "isPro": False,
                "orgs": [],
                "auth": {"type": "access_token", "accessToken": _access_token(known)},
            }
        )

    async def resolve(self, request: web.Request) -> Answer:
        """`HEAD|GET [/datasets|/spaces]/{id}/resolve/{rev}/{path}`."""
        repo, commit, file = await self._file(request)
        headers = {
            "X-Repo-Commit": commit.sha,
            "X-Linked-Size": str(file.size),
            "X-Linked-Etag": f'"{file.oid}"',
        }
        if file.sha256 is not None:
            xet_hash = self._state.xet.xet_hash(file.sha256)
            if xet_hash is not None:
                route = f"{self._state.endpoint}{_api(repo)}/xet-read-token"
                headers["X-Xet-Hash"] = xet_hash
                headers["Link"] = (
                    f'<{route}/{commit.sha}>; rel="xet-auth", '
                    f"<{self._state.cas}/v1/reconstructions/{xet_hash}>; "
                    'rel="xet-reconstruction-info"'
                )
            path = f"/repos/{repo.repo_id}/{file.sha256}/{file.path}"
            expires = int(time.time()) + self._state.signature_s
            query = urlencode(sign(self._state.secret, path, expires))
            location = f"{self._state.cdn}{quote(path)}?{query}"
            return Answer(302, {**headers, "Location": location})
        if self._state.resolve_cache:
            path = f"/api/resolve-cache{_typed(repo)}/{commit.sha}/{file.path}"
            return Answer(307, {**headers, "Location": quote(path)})
        return await self.resolve_cache(request)

    async def resolve_cache(self, request: web.Request) -> Answer:
        """`HEAD|GET /api/resolve-cache/models/{id}/{commit}/{path}`: the content itself."""
        _, commit, file = await self._file(request)
        if file.sha256 is not None:
            raise _entry_not_found(commit)
        return file_answer(self._state.store, file, request.headers, X_Repo_Commit=commit.sha)

    async def xet_read_token(self, request: web.Request) -> Answer:
        """`GET /api/models/{id}/xet-read-token/{rev}`: in JSON, and in headers."""
        repo, _ = self._allowed(request, for_file=True)
        await self._commit(repo, request.match_info["revision"])
        expires = int(time.time()) + self._state.xet_token_s
        token = grant(self._state.secret, Scope.READ, repo.repo_id, expires)
        return json_answer(
            {"casUrl": self._state.cas, "exp": expires, "accessToken": token},
            headers={
                "X-Xet-Cas-Url": self._state.cas,
                "X-Xet-Token-Expiration": str(expires),
                "X-Xet-Access-Token": token,
            },
        )

    async def other(self, request: web.Request) -> Answer:
        """Everything else."""
        top = request.path.removeprefix("/api").split("/")[1]
        if top in ("datasets", "spaces", "models"):
            raise RefusedError(404, "Repository not found", code="RepoNotFound")
        raise RefusedError(404, "Not found")

    def _allowed(self, request: web.Request, *, for_file: bool) -> tuple[Repo, Access]:
        """Return the repository that the request names, if its token may read it."""
        repo_id = named_repo(request)
        token = bearer(request.headers.get("Authorization"))
        try:
            repo = self._state.store.repo(repo_id)
            access = self._state.access.get(repo_id) or self._access_file(repo_id)
        except RepoMissingError:
            repo, access = None, Access(private=True)
        denial = judge(repo_id, access, token, self._state.tokens, for_file=for_file)
        if denial is Denial.BAD_TOKEN:
            raise RefusedError(401, _BAD_TOKEN, code="RepoNotFound")
        if repo is None or denial is Denial.REPO_HIDDEN:
            # The Hub tells a stranger nothing of what exists, and a user that nothing is there.
            raise RefusedError(404 if token else 401, "Repository not found", code="RepoNotFound")
        if denial is Denial.GATE_CLOSED:
            raise RefusedError(
                403 if token else 401, f"Access to model {repo_id} is restricted", code="GatedRepo"
            )
        return repo, access

    def _access_file(self, repo_id: str) -> Access:
        file = self._state.store.folder(repo_id)
        try:
            return Access.from_json(
                json.loads(file.with_name(f"{file.name}.access.json").read_bytes())
            )
        except FileNotFoundError:
            return Access()

    async def _commit(self, repo: Repo, revision: str) -> Commit:
        if revision in ("main", "refs/heads/main"):
            return await asyncio.to_thread(self._state.store.main, repo.repo_id)
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        _, sha = repo.refs.get(name, (None, revision))
        if sha not in repo.commits:
            # A commit is known once its files have been looked at.
            await asyncio.to_thread(self._state.store.main, repo.repo_id)
        if sha not in repo.commits:
            raise RefusedError(404, "Invalid rev id", code="RevisionNotFound")
        return repo.commits[sha]

    async def _file(self, request: web.Request) -> tuple[Repo, Commit, StoredFile]:
        repo, _ = self._allowed(request, for_file=True)
        commit = await self._commit(repo, request.match_info["revision"])
        file = commit.files.get(request.match_info["path"])
        if file is None:
            raise _entry_not_found(commit)
        return repo, commit, file

    def _card(self, commit: Commit) -> dict[str, Any]:
        """Return what stands at the head of the repository's README, as JSON can hold it."""
        readme = commit.files.get("README.md")
        if readme is None or readme.sha256 is not None:
            return {}
        try:
            with self._state.store.open(readme.oid) as file:
                text = file.read().decode(errors="replace")
            card = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else None
            content = json.loads(json.dumps(card, default=str, skipkeys=True))
        except (LostContentError, yaml.YAMLError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _listed(self, repo_id: str, commit: Commit) -> list[StoredFile]:
        extra = self._state.listed.get(repo_id, [])
        oid = blob_oid(b"")
        return [*commit.files.values(), *(StoredFile(path, 0, oid, None) for path in extra)]

    def _rows(self, repo_id: str, commit: Commit, *, expand: bool) -> list[dict[str, Any]]:
        """Return all rows of the tree, files and folders, by path."""
        rows: list[dict[str, Any]] = [
            {"type": "directory", "path": path, "oid": oid, "size": 0}
            for path, oid in commit.folders.items()
        ]
        for file in self._listed(repo_id, commit):
            row = {"type": "file", "path": file.path, "oid": file.git_oid, "size": file.size}
            if file.sha256 is not None:
                pointer_size = len(lfs_pointer(file.sha256, file.size))
                row["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": pointer_size}
                xet_hash = self._state.xet.xet_hash(file.sha256)
                if xet_hash is not None:
                    row["xetHash"] = xet_hash
            rows.append(row)
        if expand:
            date = _iso_time(commit.time)
            for row in rows:
                row["lastCommit"] = {"id": commit.sha, "title": "Publish", "date": date}
        return sorted(rows, key=lambda row: row["path"])


def named_repo(request: web.Request) -> str:
    """Return the id of the repository that a request names, as the store knows it."""
    info = request.match_info
    repo_id = f"{info['org']}/{info['name']}"
    kind = info.get("type", "models")
    return repo_id if kind == "models" else f"{kind}/{repo_id}"


def _typed(repo: Repo) -> str:
    """Return the part of an address that names a repository with its kind."""
    is_model = repo.repo_id.count("/") == 1
    return f"/models/{repo.repo_id}" if is_model else f"/{repo.repo_id}"


def _api(repo: Repo) -> str:
    return f"/api{_typed(repo)}"


def _tags(card: dict[str, Any], commit: Commit) -> list[str]:
    """Return the tags that the Hub makes of a card, before those that the card has itself."""

    def named(key: str) -> list[str]:
        value = card.get(key)
        return [str(name) for name in (value if isinstance(value, list) else [value]) if name]

    bases = named("base_model")
    inferred = "adapter" if "adapter_config.json" in commit.files else "finetune"
    relation = card.get("base_model_relation") or ("merge" if len(bases) > 1 else inferred)
    return [
        *named("library_name"),
        *named("pipeline_tag"),
        *named("tags"),
        *(f"base_model:{base}" for base in bases),
        *(f"base_model:{relation}:{base}" for base in bases),
        *(f"license:{name}" for name in named("license")),
    ]


def _access_token(token: Token) -> dict[str, Any]:
    if not token.fine_grained:
        return {"displayName": token.name, "role": "read"}
    return {
        "displayName": token.name,
        "role": "fineGrained",
        "fineGrained": {
            "canReadGatedRepos": token.reads_gated,
            "global": [],
            "scoped": [
                {
                    "entity": {"type": "model", "name": repo_id},
                    "permissions": ["repo.content.read"],
                }
                for repo_id in sorted(token.repos)
            ],
        },
    }


def _sibling(file: StoredFile, *, with_blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": file.path}
    if with_blobs:
        sibling |= {"size": file.size, "blobId": file.git_oid}
        if file.sha256 is not None:
            pointer_size = len(lfs_pointer(file.sha256, file.size))
            sibling["lfs"] = {
                "sha256": file.sha256,
                "size": file.size,
                "pointerSize": pointer_size,
            }
    return sibling


def _entry_not_found(commit: Commit) -> RefusedError:
    return RefusedError(404, "Entry not found", code="EntryNotFound", X_Repo_Commit=commit.sha)


def _count(text: str | None, default: int) -> int:
    """Read a number of a query.

    Raises:
        RefusedError: it is none.
    """
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RefusedError(400, "Not a number in the query")
    return int(text)


def _iso_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
