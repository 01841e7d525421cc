"""Which token of the Hub a call carries, and where it comes from: `find_token` states the order.

A hosted notebook keeps one for its user as a secret. Colab's is asked for over the kernel's own
channel, on the main thread (elsewhere it deadlocks); Kaggle's by a call over the network, which the
worker makes. Both waits are bounded, and whatever goes wrong means that there is no token: the
error of the Hub then says how to add one.
"""

from __future__ import annotations

import codecs
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nbloader.errors import InvalidTokenError
from nbloader.hub_names import TOKEN_VARIABLES
from nbloader.machine import home_of_environment, place, switched_on
from nbloader.paths import absolute, expanded
from nbloader.records import Place, TokenFacts
from nbloader.redaction import short_path
from nbloader.small_files import read_small

__all__ = ["Token", "find_token", "token_in_worker", "token_origin"]

NAME = TOKEN_VARIABLES[0]

COLAB_WAIT_S = 30.0
"""Long enough to answer Colab's question whether the notebook may read the secret."""

KAGGLE_WAIT_S = 10.0

_TOKEN_FILE_BYTES = 64 * 1024

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""What Windows' editors and shells begin a file with."""

_SENDABLE = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[!-~]{1,512}")
_found: dict[Place, str] = {}


@dataclass(frozen=True, slots=True)
class Token:
    """The token of a call.

    Attributes:
        source: where it comes from, such as `HF_TOKEN`; empty if there is none.
        value: its text; False for none at all; else what the call has (None or True), and the
            worker looks on.
    """

    source: str
    value: str | bool | None = field(repr=False)


def find_token(
    given: str | bool | None, environ: Mapping[str, str] = os.environ, *, ask: bool = True
) -> Token:
    """Look for the token of a call. This is the order, and nothing else states it:

    1. the argument: a text, or False, which forbids any;
    2. `HF_HUB_DISABLE_IMPLICIT_TOKEN`, which forbids any but that of the argument, unless this is
       True;
    3. the variables `HF_TOKEN` and `HUGGING_FACE_HUB_TOKEN`;
    4. the secret `HF_TOKEN` of a hosted notebook: Colab's here, Kaggle's in the worker
       (`token_in_worker`);
    5. what the Hub's library finds by itself, in the worker: `HF_OIDC_RESOURCE`, the stored file.

    Args:
        given: the argument of the call.
        ask: whether Colab may be asked, which may put up a question; else its secret counts once it
            was read in this process. Kaggle's is read by the worker alone: there, a token that was
            sent though none is told of here is that secret.
    """
    if isinstance(given, str):
        return Token("argument", given)
    if given is False or (given is None and switched_on(environ, "HF_HUB_DISABLE_IMPLICIT_TOKEN")):
        return Token("", value=False)
    for variable in TOKEN_VARIABLES:
        if text := environ.get(variable, "").strip():
            return Token(variable, text)
    if ask:
        colab_token(place(environ))
    for service, text in _found.items():
        return Token(f"{service} secret", text)
    return Token(_of_the_library(environ), given)


def token_origin(
    token: str | bool | None = None, environ: Mapping[str, str] = os.environ
) -> TokenFacts:
    """Return where the token of a call comes from. Nobody is asked for a secret."""
    return TokenFacts(source=find_token(token, environ, ask=False).source)


def colab_token(where: Place, wait_s: float = COLAB_WAIT_S) -> str | None:
    """Return the secret HF_TOKEN of a Colab notebook; None if there is none or it cannot be asked.

    A token that was found is kept for the process, so that Colab asks its user once.
    """
    if where is not Place.COLAB or "google.colab" not in sys.modules:
        return None
    if where not in _found:
        try:
            from google.colab import userdata  # type: ignore[import-not-found, unused-ignore]

            token = _checked(_on_main_thread(lambda: userdata.get(NAME), wait_s))
        except Exception:  # Colab's errors are its own: no secret, no access, no answer.
            return None
        if token is None:
            return None
        _found[where] = token
    return _found[where]


def kaggle_token(where: Place, wait_s: float = KAGGLE_WAIT_S) -> str | None:
    """Return the secret HF_TOKEN of a Kaggle notebook, or None. Opens a connection."""
    if where is not Place.KAGGLE:
        return None
    answer: list[str | None] = []

    def ask() -> None:
        try:
            from kaggle_secrets import (  # type: ignore[import-not-found, unused-ignore]
                UserSecretsClient,
            )

            answer.append(_checked(UserSecretsClient().get_secret(NAME)))
        except Exception:  # Not attached, no Internet, or not on Kaggle after all.
            answer.append(None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(wait_s)
    return answer[0] if answer else None


def token_in_worker(sent: str | bool | None, environ: Mapping[str, str]) -> str | bool | None:
    """Return the token of a call in the worker, which looks on where `find_token` has left off.

    Args:
        sent: what came with the order.

    Raises:
        InvalidTokenError: the stored file holds something else, or cannot be read.
    """
    found = kaggle_token(place(environ)) if sent is None else sent
    if found is None or found is True:  # The Hub's library looks for the stored one.
        return _marked_token(environ) or found
    return found


def _of_the_library(environ: Mapping[str, str]) -> str:
    """Return where the Hub's library finds a token by itself; empty if nowhere."""
    if environ.get("HF_OIDC_RESOURCE"):
        return "HF_OIDC_RESOURCE"
    return "stored file" if _stored(environ).strip() else ""


def _stored_file(environ: Mapping[str, str]) -> Path:
    """Return the file that the Hub's tools keep the token in; it may not be there."""
    path = environ.get("HF_TOKEN_PATH")
    return absolute(expanded(path)) if path else home_of_environment(environ) / "token"


def _stored(environ: Mapping[str, str]) -> bytes:
    """Read that file; empty if there is none, or it cannot be read."""
    try:
        return read_small(_stored_file(environ), _TOKEN_FILE_BYTES)
    except OSError:
        return b""


def _marked_token(environ: Mapping[str, str]) -> str | None:
    """Return a stored token before which an editor has put the mark of its encoding; else None.

    The Hub's library takes the mark for a part of the token, or fails to read the file.

    Raises:
        InvalidTokenError: no request could carry what the file holds, or it cannot be read. The
            Hub's library would wait for a FIFO without end.
    """
    if environ.get("HF_OIDC_RESOURCE"):
        return None
    file = _stored_file(environ)
    try:
        content = read_small(file, _TOKEN_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidTokenError(
            f"the token's file {short_path(file)} cannot be read: {error.strerror}",
            hint="Mend or remove it (`hf auth login` writes a new one), or pass `token=`; "
            "`token=False` goes without one.",
        ) from None
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    text = (
        content.decode(encoding or "utf-8", "replace").replace("\r", "").replace("\n", "").strip()
    )
    if text and not _SENDABLE.fullmatch(text):
        raise InvalidTokenError(
            "the file that the token is stored in holds something else",
            hint="Log in again with `hf auth login`, or pass `token=`.",
        )
    return text if text and encoding else None


def _checked(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text if _TOKEN.fullmatch(text) else None


def _on_main_thread(function: Callable[[], object], wait_s: float) -> object:
    """Call on the main thread, interrupted by a timer after `wait_s`; elsewhere give None."""
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        return None

    def expire(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, wait_s)
    try:
        return function()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
