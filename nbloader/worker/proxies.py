"""Which way leads to a server: straight, through a tunnel, or one that only the Hub's client knows.

The rules are those of the Hub's HTTP client, which tests hold this to. Where they are not plain,
nothing is decided here. Pure.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

_PLAIN_NAME = re.compile(r"\.?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*")


class Way(Enum):
    """A way that needs no proxy of ours."""

    STRAIGHT = "straight"
    BY_CLIENT = "by the client"
    """Through a proxy that takes more than a tunnel, or by a rule that is not plain."""


STRAIGHT: Final = Way.STRAIGHT
BY_CLIENT: Final = Way.BY_CLIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """A proxy that makes tunnels, spoken to without TLS.

    Attributes:
        authorization: value of the header that it wants; None for none.
    """

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


def way_to(parts: SplitResult, named: Mapping[str, str]) -> Way | Tunnel:
    """Choose the way to a server.

    Args:
        parts: of an address of http or https there.
        named: what `urllib.request.getproxies` says: proxies by scheme, and under `no` the hosts
            that are reached without.
    """
    host = (parts.hostname or "").lower()
    spared = [name.strip() for name in named.get("no", "").split(",") if name.strip()]
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy or "*" in spared:
        return STRAIGHT
    for name in spared:
        if not _PLAIN_NAME.fullmatch(name):
            return BY_CLIENT
        if _is_spared(host, name.lower()):
            return STRAIGHT
    # Without TLS to the server there is no tunnel: the proxy reads the request.
    if parts.scheme != "https" or ":" in host:
        return BY_CLIENT
    return _tunnel(proxy) or BY_CLIENT


def _is_spared(host: str, name: str) -> bool:
    if name == "localhost" or _is_address(name):
        return host == name
    return host.endswith(name) if name.startswith(".") else f".{host}".endswith(f".{name}")


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


def _tunnel(proxy: str) -> Tunnel | None:
    """Read the address of a proxy; None for one that makes no plain tunnels."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        return None
    if parts.scheme != "http" or not host:
        return None
    authorization = None
    if parts.username or parts.password:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Tunnel(host=host, port=port, authorization=authorization)
