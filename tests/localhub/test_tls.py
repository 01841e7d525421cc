"""A local Hub that speaks TLS, and those who trust it."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from nbloader.localhub import Cut, Fault, LocalHub, LocalHubError, RequestClass
from tests.conftest import WriteRepo

CDN = RequestClass.CDN_GET
SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download("org/safe", cache_dir=sys.argv[1]))
"""


@pytest.fixture(scope="module")
def safe_hub(
    tmp_path_factory: pytest.TempPathFactory, write_repo: WriteRepo, weights: bytes
) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("safe-hub")
    write_repo(root, "org/safe", {"a.bin": weights, "config.json": b"{}"})
    with LocalHub.start(root, tls=True) as hub:
        hub.upload_to_xet("org/safe")
        yield hub


@pytest.fixture
def hub(safe_hub: LocalHub) -> Iterator[LocalHub]:
    safe_hub.reset_counters()
    yield safe_hub
    safe_hub.clear_faults()


def client(hub: LocalHub, cache: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": hub.endpoint, **settings}
    return subprocess.run(
        [sys.executable, "-c", SNAPSHOT, cache], env=env, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("xet", [False, True])
def test_the_hubs_client_comes_in_by_the_authority(
    hub: LocalHub, tmp_path: Path, weights: bytes, xet: bool
) -> None:
    assert hub.authority is not None
    settings = {"SSL_CERT_FILE": hub.authority, "HF_HUB_DISABLE_XET": "01"[not xet]}
    done = client(hub, tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip(), "a.bin").read_bytes() == weights
    content = RequestClass.XET_XORB if xet else CDN
    assert hub.counters().of(content).body_bytes >= len(weights)


def test_nobody_else_trusts_it(hub: LocalHub, tmp_path: Path) -> None:
    done = client(hub, tmp_path, HF_HUB_DISABLE_XET="1")
    assert done.returncode != 0
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


@contextlib.contextmanager
def ask(hub: LocalHub, url: str) -> Iterator[http.client.HTTPResponse]:
    context = ssl.create_default_context(cafile=hub.authority)
    asking = http.client.HTTPSConnection(urlsplit(url).netloc, context=context, timeout=20)
    with contextlib.closing(asking):
        asking.request("GET", url)
        yield asking.getresponse()


@pytest.mark.parametrize("cut", [Cut.DROP, Cut.RESET])
def test_faults_are_those_of_plain_http(hub: LocalHub, weights: bytes, cut: Cut) -> None:
    with ask(hub, f"{hub.endpoint}/org/safe/resolve/main/a.bin") as response:
        location = response.headers["Location"]
    assert location is not None
    assert location.startswith(hub.cdn)
    hub.set_faults([Fault(CDN, cut=cut, after_bytes=1_000_000)])
    hub.reset_counters()
    came = bytearray()
    with (
        ask(hub, location) as response,
        contextlib.suppress(ConnectionError, ssl.SSLError),
    ):
        while chunk := response.read1():
            came += chunk
    assert len(came) <= 1_000_000
    assert came == weights[: len(came)]
    assert hub.counters().of(CDN).body_bytes == 1_000_000


def test_without_openssl_it_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalHubError, match="`openssl` is missing"):
        LocalHub.start(tmp_path / "root", tls=True)
