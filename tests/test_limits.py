"""The time limits of a transfer: what has to be shorter than what."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader import Settings
from nbloader.limits import (
    http_piece_limit_s,
    orders,
    quiet_limit_s,
    silence_limit_s,
    xet_piece_limit_s,
)
from nbloader.records import TransferPolicy


def rising(policy: TransferPolicy, timeout_s: float) -> dict[str, tuple[float, ...]]:
    return dict(
        orders(
            stall_timeout_s=policy.stall_timeout_s,
            answer_timeout_s=policy.answer_timeout_s,
            timeout_s=timeout_s,
        )
    )


@pytest.mark.parametrize("policy", [TransferPolicy(), Settings().policy()])
def test_each_limit_is_longer_than_those_within_it(policy: TransferPolicy) -> None:
    for timeout_s in (policy.timeout_s, policy.large_file_timeout_s):
        for wrong, seconds in rising(policy, timeout_s).items():
            assert all(inner < outer for inner, outer in pairwise(seconds)), wrong


@given(
    stall_timeout_s=st.floats(0.1, 3600), expected_s=st.floats(0, 600), file_s=st.floats(0.1, 86400)
)
def test_whoever_is_farther_out_gives_up_later_whatever_the_settings(
    stall_timeout_s: float, expected_s: float, file_s: float
) -> None:
    assert stall_timeout_s < silence_limit_s(stall_timeout_s)
    assert stall_timeout_s < http_piece_limit_s(stall_timeout_s)
    over_xet = xet_piece_limit_s(stall_timeout_s, expected_s)
    assert max(stall_timeout_s, expected_s) < over_xet
    assert file_s < quiet_limit_s(file_s)
