"""The messages of a kernel in the frames of a websocket, in both forms in which they come."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

__all__ = ["Message", "messages", "most_in_a_second"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a kernel.

    Attributes:
        kind: such as `comm_msg`.
        time: when the kernel sent it, seconds since 1970.
    """

    kind: str
    time: float
    content: Any


def messages(frame: str | bytes) -> Iterator[Message]:
    """Read the message of a frame; nothing of what is no message.

    JupyterLab speaks `v1.kernel.websocket.jupyter.org`: the number of offsets and the offsets, as
    little-endian 64-bit numbers, then the channel, header, parent header, metadata and content
    between them. The classic notebook has one JSON text instead.
    https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html
    """
    if isinstance(frame, str):
        whole = json.loads(frame)
        header, content = whole["header"], whole["content"]
    else:
        (count,) = struct.unpack_from("<Q", frame)
        offsets = struct.unpack_from(f"<{count}Q", frame, 8)
        parts = [frame[start:end] for start, end in pairwise(offsets)]
        header, content = json.loads(parts[1]), json.loads(parts[4])
    sent = datetime.fromisoformat(header["date"])
    yield Message(kind=header["msg_type"], time=sent.timestamp(), content=content)


def most_in_a_second(times: list[float]) -> int:
    """Count the most that fall in any one second, wherever it begins."""
    times = sorted(times)
    return max((sum(start <= time < start + 1 for time in times) for start in times), default=0)
