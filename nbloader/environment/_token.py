"""Where the token of the Hub comes from; the token itself is not kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from nbloader.environment._disk import expanded, home_of_environment
from nbloader.records import TokenFacts

__all__ = ["token_facts"]

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})  # as the Hub's library reads its own switches


def token_facts(
    environ: Mapping[str, str] = os.environ, *, given: bool | None = None, secret: str = ""
) -> TokenFacts:
    """Tell which of the places that can hold a token is the first that does.

    That is the order in which a load looks: the argument, the variables, the secrets of a hosted
    notebook, then what the Hub's library finds by itself.

    Args:
        given: whether the call was given a token; False if it forbade any, None if it said nothing.
        secret: the hosted service whose secret `HF_TOKEN` was read, such as `Colab`; empty if none
            was. Asking may put up a question or go over the network, so it is not done here.
    """
    if given:
        return TokenFacts(source="argument")
    implicit = environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() not in _TRUE
    if given is False or not implicit:
        return TokenFacts()
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if environ.get(variable, "").strip():
            return TokenFacts(source=variable)
    if secret:
        return TokenFacts(source=f"{secret} secret")
    if environ.get("HF_OIDC_RESOURCE"):
        return TokenFacts(source="HF_OIDC_RESOURCE")
    path = environ.get("HF_TOKEN_PATH")
    file = expanded(path) if path else home_of_environment(environ) / "token"
    return TokenFacts(source="stored file" if _has_text(file) else "")


def _has_text(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            return bool(content.read(4096).strip())
    except OSError:
        return False
