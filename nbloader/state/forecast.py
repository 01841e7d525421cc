"""How long imports and build will take, from the last jobs of this machine. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Expected", "PastJob", "expected"]

MOST_TIMES = 8
"""Between models whose sizes differ by more, the time of one says nothing about that of another."""

_IMPORTED_S = 1.0
"""Imports that took less found the libraries in the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastJob:
    """What is known of a load that came to its end, or of one that is to come.

    Attributes:
        kind, device, plan: the values of `records.Kind`, torch's name, and that of
            `records.Method`; empty where there is none.
        total: bytes of all files.
        fetched: whether any of them were downloaded. Beside a download parts are built ahead.
        import_s: seconds from the first import of the libraries to the last; None if not known.
        build_s: seconds from when both bytes and libraries were there until the model was ready;
            None if not known.
    """

    repo_id: str
    kind: str
    device: str
    plan: str
    total: int
    fetched: bool
    import_s: float | None = None
    build_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What may be expected of a load.

    Attributes:
        import_s, build_s: as in `PastJob`.
        same: whether `build_s` is that of the same repository on the same device by the same plan,
            and not of a similar one.
    """

    import_s: float | None = None
    build_s: float | None = None
    same: bool = False


def expected(past: Sequence[PastJob], job: PastJob) -> Expected:
    """Return what the last jobs tell about another one.

    The build is that of the job that is most alike: of the same repository on the same device by
    the same plan, else of the same kind on the same device; then with the same plan, with or
    without a download as this one, and the last one. It is scaled by the bytes.

    Args:
        past: the oldest first.
        job: what is known of the other one.
    """
    imports = [
        one.import_s
        for one in past
        if one.kind == job.kind and one.import_s is not None and one.import_s >= _IMPORTED_S
    ]
    alike = max(
        ((_likeness(one, job), number) for number, one in enumerate(past) if _tells(one, job)),
        default=None,
    )
    import_s = imports[-1] if imports else None
    if alike is None:
        return Expected(import_s=import_s)
    one = past[alike[1]]
    assert one.build_s is not None
    return Expected(
        import_s=import_s,
        build_s=one.build_s * job.total / one.total,
        same=alike[0][0],
    )


def _tells(one: PastJob, job: PastJob) -> bool:
    """Say whether the build of a job tells anything about another one."""
    if one.build_s is None or (one.kind, one.device) != (job.kind, job.device):
        return False
    return 0 < one.total <= MOST_TIMES * job.total and job.total <= MOST_TIMES * one.total


def _likeness(one: PastJob, job: PastJob) -> tuple[bool, bool, bool]:
    same_plan = one.plan == job.plan
    return (same_plan and one.repo_id == job.repo_id, same_plan, one.fetched is job.fetched)
