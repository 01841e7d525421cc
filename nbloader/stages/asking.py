"""What the worker is asked for: the files of a request, or what checks need of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nbloader.records import Companion, Event, Selected, TransferPolicy

if TYPE_CHECKING:
    from nbloader.request import Request
    from nbloader.transfer.child import Standby
    from nbloader.transfer.protocol import Fetch, Sketch


def run_worker(
    request: Request,
    policy: TransferPolicy,
    *,
    publish: Callable[[Event], object],
    approve: Callable[[Selected], object],
    check: Callable[[], object],
    cancelled: threading.Event,
    loads: bool = True,
    commit_hash: str | None = None,
    companions: tuple[Companion, ...] = (),
    donors: Sequence[str] = (),
    order: Fetch | Sketch | None = None,
    fetch: Callable[[], Fetch] | None = None,
    standby: Standby | None = None,
) -> Path:
    """Run the worker for a request.

    Args:
        commit_hash: what the revision stands for, where that is known.
        companions: the other repositories of the selection, where they are known.
        donors: folders of blobs, of which files are taken that are wanted here, too.
        order: what to do with the selection; None to fetch its files.
        fetch: asked for the order to fetch; None for the plain one.
        standby: a worker that has been started already; None for none.
    """
    from nbloader.transfer.protocol import start_of
    from nbloader.transfer.supervisor import transfer

    return transfer(
        start_of(
            request,
            policy,
            loads=loads,
            commit_hash=commit_hash,
            companions=companions,
            donors=donors,
        ),
        endpoint=request.endpoint,
        cache_dir=request.cache_dir,
        publish=publish,
        approve=approve,
        check=check,
        cancelled=cancelled,
        order=order,
        fetch=fetch,
        standby=standby,
    )


def look(
    request: Request,
    *,
    approve: Callable[[Selected], object],
    cancelled: threading.Event | None = None,
    commit_hash: str | None = None,
    order: Sketch | None = None,
) -> Path:
    """Run the worker for checks: nobody is told of retries there, so there are few, short ones.

    Arguments are those of `run_worker`.
    """
    policy = replace(
        request.settings.policy(),
        max_retries=min(2, request.settings.max_retries),
        retry_delay_min_s=1.0,
        retry_delay_max_s=1.0,
        max_wait_s=2.0,
    )
    return run_worker(
        request,
        policy,
        publish=lambda event: None,  # noqa: ARG005 - nobody is told
        approve=approve,
        check=lambda: None,
        cancelled=cancelled or threading.Event(),
        commit_hash=commit_hash,
        order=order,
    )
