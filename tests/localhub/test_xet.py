"""Xet storage with the real client on both sides: uploads, downloads, ranges, and faults."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from hf_xet import XetFileInfo, XetSession
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from nbloader.localhub import Cut, Fault, LocalHub, LocalHubError, RequestClass, Traffic

WriteRepo = Callable[[Path, str, Mapping[str, bytes]], None]

_XORB = RequestClass.XET_XORB
_RECONSTRUCTION = RequestClass.XET_RECONSTRUCTION
_REPO = "org/name"
_LARGE = 70_000_000

_SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], allow_patterns=sys.argv[2:] or None))
"""


@dataclass(frozen=True)
class Uploaded:
    """A server, and what its repository holds; all large files but `http.bin` are on Xet."""

    hub: LocalHub
    root: Path
    files: Mapping[str, bytes]
    hashes: Mapping[str, str]


@pytest.fixture(scope="module")
def _uploaded(
    tmp_path_factory: pytest.TempPathFactory, write_repo: WriteRepo
) -> Iterator[Uploaded]:
    root = tmp_path_factory.mktemp("xet")
    random = Random(2)
    numbers = b"".join(b"%d," % number for number in range(400_000))
    files = {
        "config.json": b"{}",
        "empty.bin": b"",
        "http.bin": random.randbytes(100_000),
        "large.bin": random.randbytes(_LARGE),
        "numbers.bin": numbers,  # what compresses
        "one.bin": b"x",
        "sub/some.bin": random.randbytes(3_000_000),
        # Half of it is in `numbers.bin` and is uploaded once.
        "twice.bin": numbers[: len(numbers) // 2] + random.randbytes(500_000),
    }
    write_repo(root, _REPO, files)
    with LocalHub.start(root, max_seconds=600) as hub:
        hub.upload_to_xet(
            _REPO, [name for name in files if name not in ("config.json", "http.bin")]
        )
        yield Uploaded(hub, root, files, _xet_hashes(hub))


@pytest.fixture
def uploaded(_uploaded: Uploaded) -> Iterator[Uploaded]:
    """The same, with no faults and nothing counted."""
    _uploaded.hub.reset_counters()
    yield _uploaded
    _uploaded.hub.clear_faults()


@pytest.fixture
def stored(tmp_path: Path, write_repo: WriteRepo) -> Uploaded:
    """A repository whose server has ended."""
    root = tmp_path / "root"
    files = {
        "http.bin": b"only over http",
        "one.bin": b"x",
        "some.bin": Random(3).randbytes(2_000_000),
    }
    write_repo(root, _REPO, files)
    with LocalHub.start(root, max_seconds=60) as hub:
        hub.upload_to_xet(_REPO, ["one.bin", "some.bin"])
        return Uploaded(hub, root, files, _xet_hashes(hub))


def _xet_hashes(hub: LocalHub) -> dict[str, str]:
    api = HfApi(endpoint=hub.endpoint, token=False)
    return {
        entry.path: entry.xet_hash
        for entry in api.list_repo_tree(_REPO, recursive=True)
        if isinstance(entry, RepoFile) and entry.xet_hash is not None
    }


def _snapshot(
    hub: LocalHub, tmp_path: Path, *names: str, **settings: str
) -> tuple[dict[str, bytes], str]:
    """Run `snapshot_download` in a process of its own; return its files and its stderr."""
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.endpoint}
    done = subprocess.run(
        [sys.executable, "-c", _SNAPSHOT, _REPO, *names],
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        return {}, done.stderr
    folder = Path(done.stdout.strip())
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}, done.stderr


def _request(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request(
            method, f"{parts.path}?{parts.query}", body=body, headers=dict(headers or {})
        )
        with connection.getresponse() as response:
            return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def _token(hub: LocalHub) -> dict[str, Any]:
    url = f"{hub.endpoint}/api/models/{_REPO}/xet-read-token/main"
    answer: dict[str, Any] = json.loads(_request(url)[2])
    return answer


def _reconstruction(uploaded: Uploaded, name: str, **headers: str) -> tuple[int, Any]:
    hub = uploaded.hub
    headers = {"Authorization": f"Bearer {_token(hub)['accessToken']}"} | headers
    url = f"{hub.cas}/v2/reconstructions/{uploaded.hashes[name]}"
    status, _, body = _request(url, headers)
    return status, json.loads(body)


def test_the_hub_offers_what_was_uploaded(uploaded: Uploaded) -> None:
    hub, files = uploaded.hub, uploaded.files
    expected = set(files) - {"config.json", "http.bin"}
    assert set(uploaded.hashes) == expected
    assert len(set(uploaded.hashes.values())) == len(expected)
    api = HfApi(endpoint=hub.endpoint, token=False)
    infos = api.get_paths_info(_REPO, list(files))
    assert {
        info.path: info.xet_hash
        for info in infos
        if isinstance(info, RepoFile) and info.xet_hash is not None
    } == uploaded.hashes
    sha = api.model_info(_REPO).sha
    offered = {}
    for name in files:
        _, headers, _ = _request(f"{hub.endpoint}/{_REPO}/resolve/main/{name}", method="HEAD")
        offered[name] = headers.get("X-Xet-Hash"), headers.get("Link")
    auth = f'<{hub.endpoint}/api/models/{_REPO}/xet-read-token/{sha}>; rel="xet-auth"'
    info = f'<{hub.cas}/v1/reconstructions/%s>; rel="xet-reconstruction-info"'
    assert offered == {
        name: (found, f"{auth}, {info % found}")
        if (found := uploaded.hashes.get(name))
        else (None,) * 2
        for name in files
    }


def test_the_hubs_own_client_downloads_over_xet(uploaded: Uploaded, tmp_path: Path) -> None:
    hub, files = uploaded.hub, uploaded.files
    found, _ = _snapshot(hub, tmp_path)
    counters = hub.counters()
    assert found == files
    assert counters.of(RequestClass.CDN_GET) == Traffic(1, len(files["http.bin"]))
    assert counters.cdn_authorizations == 0
    # Chunks that two files share, and those that were compressed, are served with fewer bytes.
    over_xet = counters.of(_XORB).body_bytes
    assert _LARGE + 3_500_000 < over_xet < sum(map(len, files.values()))
    assert counters.file_bytes == over_xet + len(files["http.bin"]) + len(files["config.json"])
    # An empty file asks for nothing, and the large one is in two xorbs.
    paths = {entry.path for entry in hub.requests() if entry.request_class is _RECONSTRUCTION}
    assert paths == {f"{_REPO}/{name}" for name in uploaded.hashes if name != "empty.bin"}
    _, parts = _reconstruction(uploaded, "large.bin")
    assert len(parts["xorbs"]) == 2


def test_one_file_of_one_byte(uploaded: Uploaded, tmp_path: Path) -> None:
    assert _snapshot(uploaded.hub, tmp_path, "one.bin")[0] == {"one.bin": b"x"}
    assert uploaded.hub.counters().of(_XORB).body_bytes == 8 + 1


def test_the_client_falls_back_to_version_1_and_renews_its_token(
    stored: Uploaded, tmp_path: Path
) -> None:
    """Against another process than the one that took the upload."""
    with LocalHub.start(stored.root, xet_v2=False, xet_token_seconds=1, max_seconds=60) as hub:
        assert _xet_hashes(hub) == stored.hashes
        found, _ = _snapshot(hub, tmp_path, "some.bin")
        counters = hub.counters()
        asked = [entry for entry in hub.requests() if entry.request_class is _RECONSTRUCTION]
    assert found == {"some.bin": stored.files["some.bin"]}
    assert counters.of(_XORB).body_bytes > 2_000_000
    assert [(entry.path, entry.status) for entry in asked] == [
        (f"{_REPO}/some.bin", 404),
        (f"{_REPO}/some.bin", 200),
    ]
    # One for Python, and one at least for the client below it, which finds that too old.
    assert counters.of(RequestClass.XET_TOKEN).requests >= 2


_MIB = 1 << 20


@pytest.mark.parametrize(
    ("name", "start", "stop"),
    [
        ("large.bin", 0, 1),
        ("large.bin", 0, _MIB),
        ("large.bin", 5 * _MIB + 1, 9 * _MIB - 1),
        ("large.bin", 63 * _MIB, 65 * _MIB),
        ("large.bin", _LARGE - 1, _LARGE),
        ("large.bin", 12_345_678, 12_345_679),
        ("numbers.bin", 100_000, 1_000_000),
        ("numbers.bin", 0, 2_288_890),
        ("twice.bin", 1_000_000, 1_500_000),
        ("one.bin", 0, 1),
    ],
)
def test_a_ranged_read_is_the_slice(uploaded: Uploaded, name: str, start: int, stop: int) -> None:
    content = uploaded.files[name]
    assert _read(uploaded, name, start, stop) == content[start:stop]
    counters = uploaded.hub.counters()
    assert counters.of(_RECONSTRUCTION).requests == 1
    # Two chunks of at most 128 KiB lie over the edges; each chunk has a header.
    served = counters.of(_XORB).body_bytes
    assert served <= (stop - start) * 1.01 + 2 * (128 << 10)


def _read(uploaded: Uploaded, name: str, start: int, stop: int) -> bytes:
    token = _token(uploaded.hub)
    group = XetSession().new_download_stream_group(
        endpoint=token["casUrl"],
        token=token["accessToken"],
        token_expiry_unix_secs=token["exp"],
    )
    info = XetFileInfo(uploaded.hashes[name], len(uploaded.files[name]))
    return b"".join(group.download_stream(info, start=start, end=stop))


def test_an_expired_url_is_replaced_on_the_way(uploaded: Uploaded, tmp_path: Path) -> None:
    uploaded.hub.set_faults([Fault(_XORB, expired=True, skip=1, times=1)])
    found, _ = _snapshot(uploaded.hub, tmp_path, "large.bin")
    assert found == {"large.bin": uploaded.files["large.bin"]}
    asked = [entry.status for entry in uploaded.hub.requests() if entry.request_class is _XORB]
    assert sorted(status or 0 for status in asked) == [206, 206, 403]
    assert uploaded.hub.counters().of(_RECONSTRUCTION).requests == 2


def test_urls_expire(stored: Uploaded) -> None:
    with LocalHub.start(stored.root, signature_seconds=0, max_seconds=60) as hub:
        _, parts = _reconstruction(replace(stored, hub=hub), "one.bin")
        (xorb,) = parts["xorbs"].values()
        status, _, body = _request(xorb[0]["url"])
    assert (status, json.loads(body)) == (403, {"error": "Request has expired"})


def test_a_xorb_is_read_by_its_signed_url_alone(uploaded: Uploaded) -> None:
    _, parts = _reconstruction(uploaded, "one.bin")
    ((xorb, (fetch,)),) = parts["xorbs"].items()
    url, (part,) = fetch["url"], fetch["ranges"]
    first, last = part["bytes"]["start"], part["bytes"]["end"]
    status, headers, body = _request(url, {"Range": f"bytes={first}-{last}"})
    size = int(headers["Content-Range"].rpartition("/")[2])
    assert (status, body) == (206, b"\0\1\0\0\0\1\0\0x")
    assert headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    whole = _request(url)
    assert (whole[0], len(whole[2]), whole[2][first : last + 1]) == (200, size, body)
    assert _request(url, {"Range": f"bytes={size}-"})[0] == 416
    assert _request(url.replace("Expires=1", "Expires=2"))[0] == 403
    assert _request(url.partition("?")[0])[0] == 403
    counters = uploaded.hub.counters()
    assert counters.body_bytes_by_path[xorb] == counters.of(_XORB).body_bytes


def test_a_token_expires(stored: Uploaded) -> None:
    with LocalHub.start(stored.root, xet_token_seconds=0, max_seconds=60) as hub:
        assert _reconstruction(replace(stored, hub=hub), "one.bin") == (
            401,
            {"error": "Unauthorized"},
        )


def test_a_reconstruction_needs_a_token_and_a_range_inside_the_file(uploaded: Uploaded) -> None:
    size = len(uploaded.files["numbers.bin"])
    token = _token(uploaded.hub)["accessToken"]
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    asked = {
        "whole": _reconstruction(uploaded, "numbers.bin")[0],
        "last byte": _reconstruction(uploaded, "numbers.bin", Range=f"bytes={size - 1}-{size}")[0],
        "past the end": _reconstruction(uploaded, "numbers.bin", Range=f"bytes={size}-")[0],
        "wrong token": _reconstruction(uploaded, "one.bin", Authorization=f"Bearer {wrong}")[0],
        "no token": _reconstruction(uploaded, "one.bin", Authorization="")[0],
    }
    assert asked == {
        "whole": 200,
        "last byte": 200,
        "past the end": 416,
        "wrong token": 401,
        "no token": 401,
    }
    unknown = replace(uploaded, hashes={"x": "a" * 64})
    assert _reconstruction(unknown, "x") == (404, {"error": "File not found"})


@pytest.mark.parametrize("name", ["large.bin", "numbers.bin", "one.bin"])
def test_wrong_bytes_end_in_the_cache_unnoticed(
    uploaded: Uploaded, tmp_path: Path, name: str
) -> None:
    """Also where the chunks are compressed."""
    uploaded.hub.set_faults([Fault(_XORB, wrong_bytes=True)])
    found, _ = _snapshot(uploaded.hub, tmp_path, name)
    assert len(found[name]) == len(uploaded.files[name])
    assert found[name] != uploaded.files[name]


_RETRY_SOON = {"HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms", "HF_XET_CLIENT_READ_TIMEOUT": "1s"}


@pytest.mark.parametrize("request_class", [_XORB, _RECONSTRUCTION])
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        {"status": 429, "retry_after": "0"},
        {"cut": Cut.STALL, "after_bytes": 100},
        {"cut": Cut.DROP, "after_bytes": 100},
        {"cut": Cut.RESET, "after_bytes": 100},
        {"cut": Cut.TRUNCATE, "after_bytes": 100},
    ],
    ids=repr,
)
def test_the_client_tries_again_after_a_fault(
    uploaded: Uploaded, tmp_path: Path, request_class: RequestClass, fault: dict[str, Any]
) -> None:
    name = "sub/some.bin"
    uploaded.hub.set_faults([Fault(request_class, path="*", times=1, **fault)])
    assert _snapshot(uploaded.hub, tmp_path, name, **_RETRY_SOON)[0] == {name: uploaded.files[name]}
    traffic = uploaded.hub.counters().of(request_class)
    assert traffic.requests == 2


def test_faults_choose_by_file_and_by_xorb(uploaded: Uploaded) -> None:
    _, parts = _reconstruction(uploaded, "one.bin")
    ((xorb, (fetch,)),) = parts["xorbs"].items()
    uploaded.hub.set_faults(
        [
            Fault(_RECONSTRUCTION, path=f"{_REPO}/sub/*", status=500),
            Fault(_XORB, path=xorb, status=501),
            Fault(RequestClass.XET_TOKEN, path=_REPO, skip=2, expired=True),
        ]
    )
    assert _reconstruction(uploaded, "sub/some.bin")[0] == 500
    assert _reconstruction(uploaded, "one.bin")[0] == 200
    assert _request(fetch["url"])[0] == 501
    assert _request(f"{uploaded.hub.endpoint}/api/models/{_REPO}/xet-read-token/main")[0] == 401


def test_a_range_of_a_xorb_can_be_ignored(uploaded: Uploaded, tmp_path: Path) -> None:
    """The client notices, and tries again."""
    name = "sub/some.bin"
    uploaded.hub.set_faults([Fault(_XORB, ignore_range=True, times=1)])
    assert _snapshot(uploaded.hub, tmp_path, name, **_RETRY_SOON)[0] == {name: uploaded.files[name]}
    asked = [entry.status for entry in uploaded.hub.requests() if entry.request_class is _XORB]
    assert asked == [200, 206]


def test_an_expired_token_is_fatal_for_the_client(uploaded: Uploaded, tmp_path: Path) -> None:
    """It gets a new one by the clock alone."""
    uploaded.hub.set_faults([Fault(_RECONSTRUCTION, expired=True, times=1)])
    found, error = _snapshot(uploaded.hub, tmp_path, "sub/some.bin")
    assert found == {}
    assert "401 Unauthorized" in error


def test_the_token_route_keeps_the_rules_for_files(hub: LocalHub, hub_root: Path) -> None:
    def ask(repo_id: str, token: str | None = None, revision: str = "main") -> tuple[int, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = f"{hub.endpoint}/api/models/{repo_id}/xet-read-token/{revision}"
        status, answered, _ = _request(url, headers)
        return status, answered.get("X-Error-Code")

    for name in ("open", "private", "gated"):
        folder = hub_root / f"models/tokens/{name}"
        folder.mkdir(parents=True)
        (folder / "a.txt").write_bytes(b"a")
    hub.set_access("tokens/private", private=True)
    hub.set_access("tokens/gated", gated="auto")
    hub.add_token("hf_member", repos=["tokens/private", "tokens/gated"])
    hub.add_token("hf_stranger")
    assert {
        (name, token): ask(f"tokens/{name}", token)
        for name in ("open", "private", "gated", "missing")
        for token in (None, "hf_member", "hf_stranger", "hf_unknown")
    } == {
        ("open", None): (200, None),
        ("open", "hf_member"): (200, None),
        ("open", "hf_stranger"): (200, None),
        ("open", "hf_unknown"): (401, "RepoNotFound"),
        ("private", None): (401, "RepoNotFound"),
        ("private", "hf_member"): (200, None),
        ("private", "hf_stranger"): (404, "RepoNotFound"),
        ("private", "hf_unknown"): (401, "RepoNotFound"),
        ("gated", None): (401, "GatedRepo"),
        ("gated", "hf_member"): (200, None),
        ("gated", "hf_stranger"): (403, "GatedRepo"),
        ("gated", "hf_unknown"): (401, "RepoNotFound"),
        ("missing", None): (401, "RepoNotFound"),
        ("missing", "hf_member"): (404, "RepoNotFound"),
        ("missing", "hf_stranger"): (404, "RepoNotFound"),
        ("missing", "hf_unknown"): (401, "RepoNotFound"),
    }
    assert ask("tokens/open", revision="nothing") == (404, "RevisionNotFound")
    hub.add_token("hf_member", repos=["tokens/private"], stale=True)
    assert ask("tokens/private", "hf_member") == (401, "RepoNotFound")


def test_the_token_is_told_in_json_and_in_headers(uploaded: Uploaded) -> None:
    url = f"{uploaded.hub.endpoint}/api/models/{_REPO}/xet-read-token/main"
    _, headers, body = _request(url)
    answer = json.loads(body)
    assert answer["casUrl"] == uploaded.hub.cas
    assert {
        "casUrl": headers["X-Xet-Cas-Url"],
        "exp": int(headers["X-Xet-Token-Expiration"]),
        "accessToken": headers["X-Xet-Access-Token"],
    } == answer


def test_uploads_need_a_token_to_write_and_have_to_be_right(uploaded: Uploaded) -> None:
    hub = uploaded.hub
    plan = hub._call("POST", f"/xet-uploads/{_REPO}")
    read = {"Authorization": f"Bearer {_token(hub)['accessToken']}"}
    write = {"Authorization": f"Bearer {plan['token']}"}
    xorb = f"{hub.cas}/v1/xorbs/default/{'a' * 64}"
    shard = f"{hub.cas}/v2/shards"
    known = next(iter((uploaded.root / ".localhub/xet/xorbs").glob("*/*"))).name
    chunk = b"\0\1\0\0\0\1\0\0x"
    asked = [
        _request(url, method="POST", body=body, headers=headers)[0]
        for url, body, headers in (
            (xorb, chunk, {}),
            (xorb, chunk, read),
            (xorb, b"no xorb", write),
            (xorb, chunk + chunk[:-1], write),
            (shard, b"no shard", write),
            (shard, b"no shard", read),
            (f"{hub.cas}/v1/xorbs/default/../../x", chunk, write),
        )
    ]
    assert asked == [401, 401, 400, 400, 400, 401, 404]
    assert _request(f"{hub.cas}/v1/xorbs/default/{known}", method="POST", body=b"", headers=write)[
        2
    ] == (b'{"was_inserted": false}')
    assert list((uploaded.root / ".localhub/xet/incoming").iterdir()) == []


def test_only_large_files_can_be_uploaded(uploaded: Uploaded) -> None:
    with pytest.raises(LocalHubError, match=r"no large files of org/name: config.json, nothing"):
        uploaded.hub.upload_to_xet(_REPO, ["config.json", "nothing", "one.bin"])


def test_an_upload_that_fails_says_why(stored: Uploaded) -> None:
    with LocalHub.start(stored.root, max_seconds=60) as hub:
        hub.set_faults([Fault(RequestClass.XET_OTHER, status=403)])
        with pytest.raises(LocalHubError, match=r"(?s)upload to Xet storage failed.*403"):
            hub.upload_to_xet(_REPO, ["http.bin"])
        assert _xet_hashes(hub) == stored.hashes
