"""Which failures are worth another attempt, and when it is made.

What cannot succeed by waiting (401, 403, 404, a full disk, wrong bytes twice) is never tried again.
"""

from __future__ import annotations

import errno
import importlib
import socket
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from nbloader.errors import NbloaderError
from nbloader.records import Retry, TransferPolicy

__all__ = [
    "OPENING_ATTEMPTS",
    "TRANSIENT_STATUS",
    "TransientError",
    "call_with_retries",
    "is_transient",
    "reason_of",
    "retry_after_s",
]

_T = TypeVar("_T")

OPENING_ATTEMPTS = 3
"""For the first question to the Hub: nothing is lost yet, and nobody wants to wait for minutes to
hear that there is no network."""

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that ask to come back, or that a proxy gives while the Hub is busy."""

MAX_RETRY_AFTER_S = 300.0
"""The Hub's limits are counted over five minutes, so no honest wait is longer."""

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


class TransientError(Exception):
    """A failure of our own finding that another attempt may mend; the text is the reason.

    Attributes:
        response: the answer that it came from, where there is one.
    """

    def __init__(self, reason: str, response: object = None) -> None:
        super().__init__(reason)
        self.response = response


def transport_error() -> type[Exception]:
    """Give the base of the HTTP client's errors: httpx in huggingface_hub 1.x, httpx2 in 2.x."""
    package = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    found = getattr(package, "TransportError", None)
    return found if isinstance(found, type) and issubclass(found, Exception) else ConnectionError


def _chain(error: BaseException) -> list[BaseException]:
    """Give the error and what it came from, outermost first."""
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in found:
        found.append(link)
        link = link.__cause__ or link.__context__
    return found


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(error, HfHubHTTPError) and isinstance(status, int) else None


def is_transient(error: BaseException) -> bool:
    """Tell whether a later attempt can succeed where this one failed.

    The Hub's library wraps network errors in errors that look final
    (`LocalEntryNotFoundError`), so the causes count too.
    """
    if isinstance(error, TransientError):
        return True
    if isinstance(error, (NbloaderError, OfflineModeIsEnabled)):
        return False  # Offline mode is a ConnectionError to the Hub's library.
    network = (ConnectionError, TimeoutError, socket.gaierror, transport_error())
    for link in _chain(error):
        status = _status(link)
        if status is not None:
            return status in TRANSIENT_STATUS
        if isinstance(link, network):
            return True
        if isinstance(link, OSError) and link.errno in _NETWORK_ERRNO:
            return True
        # A short file: the library raises a bare OSError for it.
        if type(link) is OSError and link.errno is None and "Consistency check" in str(link):
            return True
        if type(link).__module__.partition(".")[0] == "hf_xet" or (
            type(link).__name__ == "XetDownloadError"
        ):
            return True
    return False


def retry_after_s(error: BaseException) -> float | None:
    """Give the seconds that the server asks to wait, if it does."""
    for link in _chain(error):
        headers = getattr(getattr(link, "response", None), "headers", None)
        value = headers.get("Retry-After") if headers is not None else None
        if value is not None and str(value).strip().isdigit():
            return min(float(value), MAX_RETRY_AFTER_S)
    return None


def reason_of(error: BaseException) -> str:
    """Say in one short line what went wrong, without addresses: those may be signed."""
    for link in _chain(error):
        status = _status(link)
        if status is not None:
            return f"the server answered {status}"
    if any(isinstance(link, socket.gaierror) for link in _chain(error)):
        return "the host name is not known"
    for link in _chain(error):
        if isinstance(link, TransientError):
            return str(link)
        if isinstance(link, TimeoutError) or "Timeout" in type(link).__name__:
            return "timed out"
        if isinstance(link, (ConnectionError, transport_error())):
            return f"connection lost ({type(link).__name__})"
        if "Consistency check" in str(link):
            return "the file came short"
    return type(error).__name__


class _Stop(tenacity.stop.stop_base):
    def __init__(self, attempts: int, stalled: Callable[[], bool]) -> None:
        self._attempts = attempts
        self._stalled = stalled

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        return retry_state.attempt_number >= self._attempts or self._stalled()


def call_with_retries(
    function: Callable[[], _T],
    *,
    policy: TransferPolicy,
    path: str | None,
    publish: Callable[[Retry], object],
    quiet_for: Callable[[], float] = lambda: 0.0,
    timeout_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> _T:
    """Call until it works, a permanent error comes, or the attempts are used up.

    Args:
        path: the file that the call is about.
        publish: told of each failed attempt that is followed by another.
        quiet_for: seconds since the file last made progress.
        timeout_s: no further attempt is made once `quiet_for` exceeds this.

    Raises:
        The last error, as it was raised.
    """
    exponential = tenacity.wait_exponential(
        multiplier=policy.retry_delay_min_s, max=policy.retry_delay_max_s
    )

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = retry_after_s(error) if error else None
        return max(exponential(state), asked or 0.0)

    def announce(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        publish(
            Retry(
                time=clock(),
                path=path,
                reason=reason_of(error) if error else "",
                wait_s=round(state.upcoming_sleep, 3),
                attempt=state.attempt_number,
                max_attempts=policy.max_retries,
            )
        )

    retrying = tenacity.Retrying(
        stop=_Stop(policy.max_retries, lambda: timeout_s is not None and quiet_for() > timeout_s),
        wait=wait,
        retry=tenacity.retry_if_exception(is_transient),
        before_sleep=announce,
        sleep=sleep,
        reraise=True,
    )
    return retrying(function)
