"""Downloads over TLS, through a proxy that wants a password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import nbloader
from nbloader.localhub import LocalHub, RequestClass
from tests.conftest import WriteRepo
from tests.servers import Proxy
from tests.transfer.test_transfer import files


@pytest.fixture(scope="module")
def safe_hub(tmp_path_factory: pytest.TempPathFactory, write_repo: WriteRepo) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("safe-hub")
    write_repo(root, "org/safe", files())
    with LocalHub.start(root, tls=True) as hub:
        hub.upload_to_xet("org/safe")
        yield hub


@pytest.mark.parametrize("route", ["http", "xet"])
def test_files_come_over_tls(
    safe_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    assert safe_hub.authority is not None
    monkeypatch.setenv("SSL_CERT_FILE", safe_hub.authority)
    safe_hub.reset_counters()
    folder = nbloader.download(
        "org/safe",
        endpoint=safe_hub.endpoint,
        cache_dir=tmp_path,
        settings={"route": route},
        view="none",
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files()
    content = {"http": RequestClass.CDN_GET, "xet": RequestClass.XET_XORB}[route]
    assert safe_hub.counters().of(content).body_bytes >= 30_000_000


@pytest.mark.parametrize("password", ["s3cret", "wrong"])
def test_all_of_it_takes_the_way_of_the_hubs_library(
    safe_hub: LocalHub,
    proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    password: str,
) -> None:
    assert safe_hub.authority is not None
    monkeypatch.setenv("SSL_CERT_FILE", safe_hub.authority)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{password}@{proxy.address}")
    safe_hub.reset_counters()

    def download() -> Path:
        settings = {"route": "http", "max_retries": 1}
        return nbloader.download(
            "org/safe",
            endpoint=safe_hub.endpoint,
            cache_dir=tmp_path,
            settings=settings,
            view="none",
        )

    if password == "wrong":
        with pytest.raises(nbloader.errors.HubUnreachableError):
            download()
        assert safe_hub.counters().total.requests == 0
        return
    folder = download()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files()
    assert safe_hub.counters().of(RequestClass.CDN_GET).body_bytes >= 30_000_000
    hosts = {asked.split()[1].decode() for asked in proxy.asked}
    assert hosts >= {url.removeprefix("https://") for url in (safe_hub.endpoint, safe_hub.cdn)}
