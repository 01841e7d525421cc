"""How much is taken from strangers: from a Hub, a repository, a cache that others may write.

Each bound is many times what honest ones need, and so small that the processes stay below 400 MB
whatever comes. Bytes are counted as they are and as they are unpacked.
"""

from __future__ import annotations

import json
from typing import Any

MAX_ANSWER_BYTES = 32 << 20
"""Of an answer of the Hub. What it says of a repository of 100,000 files takes 10 MB."""

MAX_ERROR_BYTES = 64 << 10
"""Of the body of an error, of which a line is shown; the rest is not read."""

MAX_FILES = 250_000
"""Of a listing. The Hub advises against more than 100,000 in a repository."""

MAX_PAGES = 1000
"""Of a listing; the Hub's have 1000 files each."""

MAX_DESCRIBING_BYTES = 128 << 20
"""Of all small files together that are read to make a selection: configurations and indexes."""

MAX_JSON_BYTES = 32 << 20
"""Of one of them. The index of the largest published mixture-of-experts models is about 15 MB."""

MAX_HEADER_BYTES = 32 << 20
"""Of the header of a safetensors file: 200,000 tensors. The library itself takes up to 100 MB."""

MAX_JSON_VALUES = 1_000_000
"""In a text of JSON. Each takes some hundred bytes once it is read: `[],[]` takes twenty times its
length. The index of the largest published models has 100,000."""


def json_value(text: str | bytes) -> Any:
    """Read foreign JSON, in UTF-8, unless it would take too much memory.

    Raises:
        ValueError: it is none, or holds more than `MAX_JSON_VALUES`.
        RecursionError: it is nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if sum(map(text.count, ",[{")) > MAX_JSON_VALUES:
        raise ValueError(f"more than {MAX_JSON_VALUES:,} values")
    return json.loads(text)
