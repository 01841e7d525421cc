"""Why a server cannot be reached, where the next attempt would end the same way.

A certificate that is not trusted and a proxy that is set wrongly are faults of neither the Hub nor
the link: they are told at once, by name, with what mends them.
"""

from __future__ import annotations

import os
import ssl
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from nbloader.errors import ProxyError, UntrustedCertificateError
from nbloader.text import quote
from nbloader.worker.proxies import STRAIGHT, way_to

_SYSTEM_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""Of Debian, of Fedora, of Alpine and macOS."""


WANTS_LOGIN = "it wants a name and a password (407)"
"""Of a proxy; see `refused_by_proxy`."""


def untrusted(url: str, error: ssl.SSLCertVerificationError) -> UntrustedCertificateError:
    """Make the error for a server whose certificate cannot be trusted."""
    why = str(error.verify_message or error.reason or error)[:100]
    host = _host(url)
    where = f" of {quote(host)}" if host else ""
    return UntrustedCertificateError(
        f"the certificate{where} is not trusted: {why}",
        hint="A proxy of the network may open TLS; then its authority's certificate is needed. "
        f'os.environ["SSL_CERT_FILE"] = "{_system_store()}" takes what this system trusts; or name '
        "the file that the network's operators give out.",
    )


def _system_store() -> str:
    there = (store for store in _SYSTEM_STORES if Path(store).is_file())
    return next(there, "/path/to/certificates.pem")


def refused_by_proxy(url: str, why: str, environ: Mapping[str, str] = os.environ) -> ProxyError:
    """Make the error for a proxy that does not do what it is for.

    Args:
        url: what was to be reached; empty where that is not known.
    """
    variable, address = proxy_before(url, environ) or (_any_variable(environ), "")
    named = f" {quote(address)}" if address else ""
    of = f", as {variable} names it," if variable else ""
    return ProxyError(
        f"the proxy{named}{of} is at fault: {why}",
        hint=f"Correct {variable or 'the proxy'}, or do without"
        + (f", where none is needed: unset {variable}" if variable else " where none is needed")
        + ". NO_PROXY names hosts that are reached without one. A name and a password stand before "
        "the host: http://name:password@host:port.",
    )


def proxy_before(url: str, environ: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """Return the variable that names the proxy on the way to a server, and its address without a
    password; None where the way is straight."""
    try:
        parts = urlsplit(url)
        if not parts.hostname or way_to(parts, urllib.request.getproxies()) is STRAIGHT:
            return None
    except ValueError:
        return None
    for name in _variables((parts.scheme, "all")):
        if environ.get(name):
            return name, _bare(environ[name])
    return None


def _any_variable(environ: Mapping[str, str]) -> str:
    names = _variables(("https", "http", "all"))
    return next((name for name in names if environ.get(name)), "")


def _variables(schemes: Iterable[str]) -> list[str]:
    """Name the variables in the order in which the Hub's client reads them: small letters first."""
    return [name for scheme in schemes for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())]


def _bare(address: str) -> str:
    """Take name, password and path off the address of a proxy."""
    scheme, mark, rest = address.partition("://")
    place = (rest if mark else address).partition("/")[0].rpartition("@")[2]
    return f"{scheme}://{place}" if mark else place


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
