"""What errors of the network mean: a failure that the next attempt may not have, or an error that
every other attempt would end with, too."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from huggingface_hub.errors import OfflineModeIsEnabled

from nbloader.errors import NbloaderError
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure
from nbloader.worker.reach import WANTS_LOGIN, proxy_before, refused_by_proxy, untrusted
from nbloader.worker.wire import http_package

_NETWORK_ERRNO = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)


_REFUSED_TUNNEL = re.compile(r"(?:^|: )(4\d\d)\b")
_NOT_CONNECTED = frozenset({"ConnectError", "ConnectTimeout", "ConnectionRefusedError"})


def _transport_error() -> type[Exception]:
    """Return the base of the errors of the Hub's client."""
    found = getattr(http_package(), "TransportError", None)
    return found if isinstance(found, type) and issubclass(found, Exception) else ConnectionError


def connection_failure(error: BaseException) -> Failure | None:
    """Return the failure that an error of the network means; None for an error of another kind."""
    links = list(_chain(error))
    if any(isinstance(link, OfflineModeIsEnabled) for link in links):
        return None  # To the Hub's library it is an error of the network, but it was asked for.
    if any(isinstance(link, socket.gaierror) for link in links):
        return Failure(Reason.CONNECTION_LOST, "the host name is not known")
    for link in links:
        name = type(link).__name__
        if name == "InvalidURL":
            return Failure(Reason.REDIRECTS)
        if isinstance(link, TimeoutError) or (
            isinstance(link, _transport_error()) and "Timeout" in name
        ):
            return Failure(Reason.STALLED if name == "ReadTimeout" else Reason.TIMED_OUT)
        if (
            isinstance(link, (ConnectionError, _transport_error()))
            or getattr(link, "errno", None) in _NETWORK_ERRNO
        ):
            return Failure(Reason.CONNECTION_LOST, f"connection lost ({name})")
    return None


@contextmanager
def network_failures(url: str = "", *, asking: bool = False) -> Iterator[None]:
    """Turn errors of the network into failures.

    Args:
        url: what was to be reached, if the error does not say so itself.
        asking: whether nothing was reached so far: then a proxy that cannot be reached is at fault.

    Raises:
        Failure: another attempt may do better.
        UntrustedCertificateError, ProxyError: none will.
    """
    try:
        yield
    except (Failure, NbloaderError):
        raise
    except Exception as error:
        found = told_for_good(error, url, asking=asking) or connection_failure(error)
        if found is None:
            raise
        raise found from error


def told_for_good(error: BaseException, url: str, *, asking: bool) -> NbloaderError | None:
    """Return the error that every other attempt would end with, too; None for any other."""
    links = list(_chain(error))
    url = next((found for link in links if (found := _url_of(link))), url)
    for link in links:
        text, name = str(link), type(link).__name__
        if isinstance(link, ssl.SSLCertVerificationError):
            return untrusted(url, link)
        if isinstance(link, ImportError) and "socks" in text.lower():
            return refused_by_proxy(url, "SOCKS needs a package: %pip install socksio")
        if isinstance(link, ValueError) and "proxy" in text.lower() and "scheme" in text.lower():
            return refused_by_proxy(url, "its address has a scheme that is none of a proxy")
        refused = _REFUSED_TUNNEL.search(text)
        if refused is not None and (name == "ProxyError" or type(link) is OSError):
            return refused_by_proxy(url, WANTS_LOGIN if refused[1] == "407" else refused[1])
    if asking and url and proxy_before(url):
        if any(isinstance(link, socket.gaierror) for link in links):
            return refused_by_proxy(url, "its name is not known")
        if any(type(link).__name__ in _NOT_CONNECTED for link in links):
            return refused_by_proxy(url, "no connection to it can be made")
    return None


def _url_of(error: BaseException) -> str:
    """Return what the Hub's client was asked for when it raised an error; empty if it has none."""
    with suppress(Exception):  # It raises where there is no request.
        return str(error.request.url)  # type: ignore[attr-defined]
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and what caused it."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        yield link
        link = link.__cause__ or link.__context__
