"""Proxies that are set wrongly, and certificates that nobody trusts: told at once and by name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from nbloader.localhub import LocalHub
from tests.servers import PATIENCE_S, Server

CALL = """
import json, sys, time, nbloader
began = time.monotonic()
try:
    nbloader.download("org/name", view="none")
    told = ["done", "", ""]
except nbloader.errors.NbloaderError as error:
    told = [error.reference, error.message, error.hint]
print(json.dumps([*told, time.monotonic() - began]))
"""
NOWHERE = "http://hub.invalid"


def download(home: Path, endpoint: str, **variables: str) -> list[str]:
    """Download in a process with these variables; return reference, message and hint of the end."""
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    cleared = {*proxies, *map(str.upper, proxies), "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
    env = {name: value for name, value in os.environ.items() if name not in cleared}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", CALL],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told: list[str]
    *told, seconds = json.loads(done.stdout)
    assert seconds < PATIENCE_S
    assert "Run the line again" not in told[2]
    return told


def refuse(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    connection.close()


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    server = Server(refuse)
    yield server.url.removesuffix("/a")
    server.close()


@pytest.mark.parametrize(
    ("endpoint", "variables", "named", "why"),
    [
        (NOWHERE, {"http_proxy": "{refusing}"}, "http_proxy", "name and a password (407)"),
        ("https://hub.invalid", {"HTTPS_PROXY": "{refusing}"}, "HTTPS_PROXY", "(407)"),
        ("https://hub.invalid", {"https_proxy": "http://127.0.0.1:9"}, "https_proxy", "no connec"),
        (NOWHERE, {"http_proxy": "http://me:s3cret@127.0.0.1:9"}, "http_proxy", "no connection"),
        (NOWHERE, {"http_proxy": "http://proxy.invalid:3128"}, "http_proxy", "name is not known"),
        (NOWHERE, {"http_proxy": "htp://127.0.0.1:9"}, "http_proxy", "scheme"),
        (NOWHERE, {"ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY", "%pip install socksio"),
    ],
)
def test_a_proxy_at_fault_is_named(
    tmp_path: Path,
    refusing: str,
    endpoint: str,
    variables: Mapping[str, str],
    named: str,
    why: str,
) -> None:
    given = {name: value.format(refusing=refusing) for name, value in variables.items()}
    reference, message, hint = download(tmp_path, endpoint, **given)
    assert (reference, why in message, named in message + hint) == ("proxy-failed", True, True)
    assert "s3cret" not in message + hint
    assert "Hub" not in message


def test_a_certificate_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    repo = tmp_path / "hub/models/org/name"
    repo.mkdir(parents=True)
    (repo / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (repo / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with LocalHub.start(tmp_path / "hub", tls=True) as hub:
        reference, message, hint = download(tmp_path / "a", hub.endpoint)
        assert (reference, "127.0.0.1" in message) == ("certificate-not-trusted", True)
        assert "SSL_CERT_FILE" in hint
        for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            told = download(tmp_path / variable, hub.endpoint, **{variable: str(hub.authority)})
            assert told[0] != "certificate-not-trusted"
