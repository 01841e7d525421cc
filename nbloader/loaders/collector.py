"""The garbage collector, out of the way of imports and builds."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_off() -> Iterator[None]:
    """Collect nothing meanwhile, and do not walk what was made meanwhile again and again later.

    Importing and building make hundreds of thousands of objects that stay. The collector would
    walk them many times: a fourth of a start from the cache. Switched on again, it would find all
    of them young; frozen and released, they are in the oldest generation without a walk.

    One that was off stays off, and objects that somebody else has frozen stay so.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if not gc.get_freeze_count():  # It counts them one by one: only where it matters.
                gc.freeze()
                gc.unfreeze()
            gc.enable()
