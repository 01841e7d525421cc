"""Secrets and the names of people taken out of text that will be shown to others."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

__all__ = ["HIDDEN", "Redactor", "hidden", "short_path"]

HIDDEN = "***"
"""Stands for what was taken out."""

MAX_CHARACTERS = 8_000
"""Longer texts are cut first, so that a hostile one costs no time."""

# Tokens of the Hub (users' and organizations'), and signed ones (JSON Web Tokens).
_TOKEN = re.compile(
    r"\b(?:hf_|api_org_)[A-Za-z0-9]{12,}|\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?", re.ASCII
)
# Between a name and its value: in code, in JSON, in JSON within a text, in headers.
_IS = r"\\{0,2}[\"']?\s{0,4}[:=]\s{0,4}"
_OPEN = r"(\\{0,2}[\"'])?"
_TO_THE_QUOTE = r"(?:(?!\2)(?:\\[^\r\n]|[^\r\n]))+"
# What these hold has blanks, commas and semicolons: without quotes, all of the line goes.
_HEADER = re.compile(
    rf"(?i)(\b(?:authorization|cookies?)\b{_IS}){_OPEN}(b(?:earer|asic)\s{{1,4}})?"
    rf"(?(2){_TO_THE_QUOTE}|[^\r\n]+)"
)
_BEARER = re.compile(r"(?i)(\bbearer\s{1,4})[^\s\"',;]+")
_ASSIGNED = re.compile(
    r"(?i)\b(\w{0,40}(?:token(?!iz)|secret|password|passwd|api[_-]?key|signature)\w{0,10}"
    rf"{_IS}){_OPEN}(?(2){_TO_THE_QUOTE}|[^\s\"'`,;&)]+)"
)
_ADDRESS = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}://)([^\s\"'<>`]+)", re.ASCII)
_LOGIN = re.compile(r"[^\s:/@\"']{1,100}:[^\s/@\"']{1,100}@(?=[\w\[])")
_QUERY = re.compile(r"\?[\w.%~\[\]-]{1,100}=[^\s\"'<>`]*")
_OTHER_HOME = re.compile(r"([\\/]{1,2}(?:home|Users)[\\/]{1,2})[^\\/\s\"'`:,;<>|)]+")

_EVERYBODY = frozenset({"", "root", "home", "user", "jovyan", "ubuntu", "runner", "hub", "models"})
"""Last parts of home folders that name nobody, or that other folders share."""


@dataclass(frozen=True, slots=True)
class Redactor:
    """Takes out tokens, passwords, the queries of addresses, and the names of home folders.

    Attributes:
        homes: the home folders of this user, absolute; they become `~`. Those of others keep their
            place and lose their name, and so does a folder elsewhere that is named like a home.
    """

    homes: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Redactor:
        """Make one for the user of this process."""
        return cls(homes=_own_homes())

    def __call__(self, text: str) -> str:
        """Return the text without them, cut to `MAX_CHARACTERS`."""
        text = _ADDRESS.sub(_address, text[:MAX_CHARACTERS])
        text = _QUERY.sub("", text)
        text = _LOGIN.sub(f"{HIDDEN}@", text)
        text = _HEADER.sub(rf"\1\2\3{HIDDEN}", text)
        text = _BEARER.sub(rf"\1{HIDDEN}", text)
        text = _ASSIGNED.sub(rf"\1\2{HIDDEN}", text)
        text = _TOKEN.sub(HIDDEN, text)
        return _OTHER_HOME.sub(rf"\1{HIDDEN}", self._without_homes(text))

    def _without_homes(self, text: str) -> str:
        homes = [home.rstrip("/\\") for home in self.homes]
        for home in sorted(filter(None, homes), key=len, reverse=True):
            text = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w-]|\.\w)", "~", text)
        for name in _names(homes):
            text = re.sub(rf"(?<=[\\/]){re.escape(name)}(?![\w.-])", HIDDEN, text)
        return text


def hidden(value: Any, secret: str) -> Any:
    """Return what JSON holds with a secret taken out of all its texts. Raises RecursionError."""
    if isinstance(value, str):
        return value.replace(secret, HIDDEN)
    if isinstance(value, list):
        return [hidden(each, secret) for each in value]
    if isinstance(value, dict):
        return {hidden(key, secret): hidden(each, secret) for key, each in value.items()}
    return value


def short_path(path: str | os.PathLike[str]) -> str:
    """Write a path of this machine without the name of its user: `~/.cache`. It never raises.

    What is not below the home folder of this process stays as it is, and so does everything where
    there is no home folder, or where that is the root.
    """
    whole = PurePath(path)
    for home in _own_homes():
        below = PurePath(home)
        if below.name and whole.is_relative_to(below):
            return str(PurePath("~") / whole.relative_to(below))
    return str(whole)


def _own_homes() -> tuple[str, ...]:
    """Return the home folder as it is called and as it is found; none for a user without one."""
    try:
        home = str(Path.home())
        return tuple(dict.fromkeys((home, os.path.realpath(home))))
    except (RuntimeError, OSError, ValueError):  # A user without an entry, as in some containers.
        return ()


def _names(homes: Sequence[str]) -> list[str]:
    """Return the names of people that home folders are named after."""
    names = (re.split(r"[\\/]", home)[-1] for home in homes)
    return sorted({name for name in names if name.casefold() not in _EVERYBODY})


def _address(found: re.Match[str]) -> str:
    """Return an address without name and password, query and fragment."""
    scheme, rest = found[1], found[2]
    place, slash, path = rest.partition("/")
    if "@" in place:
        place = place.rpartition("@")[2]
    elif "@" in path and re.search(r":(?!\d{1,5}$)", place):
        return f"{scheme}{HIDDEN}"  # A password with a slash in it.
    return scheme + re.split(r"[?#]", place + slash + path, maxsplit=1)[0]
