"""The way to a server, held to the rules of the Hub's own client."""

from __future__ import annotations

import os
from unittest import mock
from urllib.parse import urlsplit
from urllib.request import getproxies

import pytest
from huggingface_hub import get_session
from hypothesis import given
from hypothesis import strategies as st

from nbloader.worker.proxies import BY_CLIENT, STRAIGHT, Tunnel, Way, way_to

HOSTS = [
    "cdn.example.org",
    "example.org",
    "badexample.org",
    "localhost",
    "127.0.0.1",
    "10.1.2.3",
    "[::1]",
]
SPARED = [
    *HOSTS,
    ".example.org",
    "*.example.org",
    "Example.org",
    "org",
    "*",
    "",
    " example.org ",
    "10.0.0.0/8",
    "example.org:8443",
    "https://example.org",
    "::1",
]
PROXIES = [
    "",
    "http://proxy:3128",
    "proxy:3128",
    "http://me:s%40y@proxy:3128",
    "http://me@proxy",
    "https://proxy:3128",
    "socks5://proxy:1080",
]
NAMES = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]


@given(
    host=st.sampled_from(HOSTS),
    scheme=st.sampled_from(["http", "https"]),
    proxies=st.lists(st.sampled_from(PROXIES), min_size=3, max_size=3),
    spared=st.lists(st.sampled_from(SPARED), max_size=3),
)
def test_what_is_decided_here_is_what_the_client_does(
    host: str, scheme: str, proxies: list[str], spared: list[str]
) -> None:
    url = f"{scheme}://{host}/a?b=c"
    values = [*proxies, ",".join(spared)]
    kept = {name: text for name, text in os.environ.items() if name.lower() not in NAMES}
    settings = {name: value for name, value in zip(NAMES, values, strict=True) if value}
    with mock.patch.dict(os.environ, kept | settings, clear=True):
        way = way_to(urlsplit(url), getproxies())
        if way is BY_CLIENT:
            return  # Whatever it does, it does.
        try:
            client = type(get_session())(verify=False)
        except ImportError:  # A proxy of SOCKS is named, and its package is not there.
            assert way is STRAIGHT or isinstance(way, Tunnel)
            return
    with client:
        transport = client._transport_for_url(client.build_request("GET", url).url)
        if way is STRAIGHT:
            assert transport is client._transport
            return
        assert isinstance(way, Tunnel)
        pool = vars(transport)["_pool"]
        proxy = pool._proxy_url
        assert (proxy.scheme, proxy.host.decode(), proxy.port or 80) == (
            b"http",
            way.host,
            way.port,
        )
        headers = {name.lower(): value.decode() for name, value in pool._proxy_headers}
        assert headers.get(b"proxy-authorization") == way.authorization


@pytest.mark.parametrize(
    ("url", "named", "way"),
    [
        ("https://cdn/a", {}, STRAIGHT),
        ("https://cdn/a", {"http": "http://p"}, STRAIGHT),
        ("https://cdn/a", {"https": "http://p:8080"}, Tunnel(host="p", port=8080)),
        ("https://cdn/a", {"all": "p"}, Tunnel(host="p", port=80)),
        ("http://cdn/a", {"http": "http://p"}, BY_CLIENT),
        ("https://[::1]/a", {"https": "http://p"}, BY_CLIENT),
        ("https://cdn/a", {"https": "socks5://p:1080"}, BY_CLIENT),
        ("https://cdn/a", {"https": "https://p"}, BY_CLIENT),
        ("https://cdn/a", {"https": "http://p:no"}, BY_CLIENT),
        ("https://cdn/a", {"https": "http://"}, BY_CLIENT),
        ("https://a.cdn/a", {"https": "http://p", "no": "x, cdn"}, STRAIGHT),
        ("https://a.cdn/a", {"https": "http://p", "no": "10.0.0.0/8"}, BY_CLIENT),
        ("https://a.cdn/a", {"https": "http://p", "no": "x,*"}, STRAIGHT),
    ],
)
def test_ways(url: str, named: dict[str, str], way: Way | Tunnel) -> None:
    assert way_to(urlsplit(url), named) == way


def test_no_password_is_shown() -> None:
    tunnel = way_to(urlsplit("https://cdn/a"), {"https": "http://me:s3cret@p"})
    assert isinstance(tunnel, Tunnel)
    assert tunnel.authorization == "Basic bWU6czNjcmV0"
    assert "bWU6" not in repr(tunnel)
