"""What the check of the packages finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nbloader.errors import NbloaderError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        stops: whether the load cannot work with it.
        certain: whether it then ends so even if it is forced.
        change: versions to install by the name of the import; empty where nothing is to be
            installed.
        restart: whether a restart of the process mends it.
        advice: what to do besides, or instead.
    """

    error: type[NbloaderError]
    message: str
    stops: bool = True
    certain: bool = False
    change: Mapping[str, str] = field(default_factory=dict)
    restart: bool = False
    advice: str = ""
    link: str = ""
