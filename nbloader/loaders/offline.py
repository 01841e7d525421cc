"""The switch of the Hub's library that keeps it from the network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CONSTANTS = "huggingface_hub.constants"
_SWITCH = "HF_HUB_OFFLINE"


@contextmanager
def offline() -> Iterator[None]:
    """Let no library ask the Hub for what a file or an argument names, until the end of the block.

    They all ask through the Hub's own library, which looks at this switch before each request. The
    variable of that name would be handed down to the process that downloads.
    """
    constants = sys.modules.get(_CONSTANTS)
    before = getattr(constants, _SWITCH, None)
    if before is None:  # It is not imported, or is another version than any that is known.
        yield
        return
    setattr(constants, _SWITCH, True)
    try:
        yield
    finally:
        setattr(constants, _SWITCH, before)


def is_offline_error(error: BaseException | None) -> bool:
    """Say whether an error comes of what was not asked for."""
    while error is not None:
        if type(error).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled"):
            return True
        error = error.__cause__ or error.__context__
    return False
