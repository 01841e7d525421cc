"""Tokens of the Hub that a hosted notebook keeps for its user.

Colab's are asked for over the kernel's own channel, on the main thread (elsewhere it deadlocks);
Kaggle's by a call over the network, which the worker makes. Both waits are bounded, and whatever
goes wrong means that there is no token: the error of the Hub then says how to add one.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping

from nbloader.environment import token_facts
from nbloader.records import Place, TokenFacts

__all__ = ["colab_token", "kaggle_token", "token_origin"]

NAME = "HF_TOKEN"
COLAB_WAIT_S = 30.0
"""Long enough to answer Colab's question whether the notebook may read the secret."""

KAGGLE_WAIT_S = 10.0

_TOKEN = re.compile(r"[!-~]{1,512}")
_found: dict[Place, str] = {}


def colab_token(where: Place, wait_s: float = COLAB_WAIT_S) -> str | None:
    """Give the secret HF_TOKEN of a Colab notebook; None if there is none or it cannot be asked.

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
    """Give the secret HF_TOKEN of a Kaggle notebook; None if there is none. Opens a connection."""
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


def token_origin(
    token: str | bool | None = None, environ: Mapping[str, str] = os.environ
) -> TokenFacts:
    """Tell where the token of a call comes from. Nobody is asked for a secret.

    Colab's secret counts once `colab_token` has read it in this process. Kaggle's is read by the
    worker alone: there, a token that was sent though none is told here is that secret.

    Args:
        token: the argument of the call, as its user gave it.
    """
    return token_facts(
        environ,
        given=True if isinstance(token, str) else False if token is False else None,
        secret=next(iter(_found), ""),
    )


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
