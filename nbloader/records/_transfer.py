"""How the worker brings files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "LARGE_FILE_BYTES",
    "Route",
    "TransferPolicy",
]

LARGE_FILE_BYTES = 10_000_000_000
"""From this size on a file is a large one."""


class Route(StrEnum):
    """A way for the bytes of a file."""

    HTTP = "http"
    XET = "xet"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPolicy:
    """How hard the worker tries.

    Attributes:
        max_retries: attempts in a row that may bring nothing, for each file or call.
        retry_delay_min_s, retry_delay_max_s: bounds of the exponential wait between attempts.
        timeout_s: the longest that a file may make no progress over all its attempts.
        large_file_timeout_s: the same for files over 10 GB.
        stall_timeout_s: a connection that brings nothing for so long is given up.
        min_speed: bytes per second; so is one that is slower over that time.
        max_workers: files that are downloaded at the same time.
        answer_timeout_s: the longest that the Hub may take for its first answer.
        route: the only way to take; None for the faster of those that are there.
        max_wait_s: the longest wait that a server may ask for; where one asks for more, the call or
            the file is given up at once. None to wait as long as it asks, up to five minutes.
        check_disk_space: whether to stop early once the rest does not fit on the disk.
    """

    max_retries: int = 5
    retry_delay_min_s: float = 5.0
    retry_delay_max_s: float = 60.0
    timeout_s: float = 300.0
    large_file_timeout_s: float = 1800.0
    stall_timeout_s: float = 30.0
    min_speed: float = 10_000.0
    max_workers: int = 4
    answer_timeout_s: float = 5.0
    route: Route | None = None
    max_wait_s: float | None = None
    check_disk_space: bool = True

    def quiet_limit_s(self, size: int) -> float:
        """Give the longest that a file of `size` bytes may make no progress."""
        return self.large_file_timeout_s if size >= LARGE_FILE_BYTES else self.timeout_s
