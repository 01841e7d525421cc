"""Access to Xet storage: how long its token lasts, by which clock."""

from __future__ import annotations

import email.utils

import pytest

from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure
from nbloader.worker.xet_route import access_from_json

HUB = "https://hub.example"
NOW = 1_700_000_000.0


def answer(expires: float) -> dict[str, object]:
    return {"casUrl": "https://cas.example", "accessToken": "t", "exp": int(expires)}


@pytest.mark.parametrize("wrong_s", [0, -86_400, 10 * 365 * 86_400])
def test_a_token_lasts_by_the_clock_of_the_hub(wrong_s: int) -> None:
    date = email.utils.formatdate(NOW, usegmt=True)
    access = access_from_json(answer(NOW + 900), HUB, date, clock=lambda: NOW + wrong_s)
    assert access.lasts_s == 900.0


@pytest.mark.parametrize("date", [None, "", "soon"])
def test_where_the_hub_tells_no_time_the_clock_of_this_machine_is_taken(date: str | None) -> None:
    assert access_from_json(answer(NOW + 900), HUB, date, clock=lambda: NOW).lasts_s == 900.0


@pytest.mark.parametrize("url", ["http://cas.example", "https://", "file:///x"])
def test_the_token_goes_to_no_address_that_is_less_safe(url: str) -> None:
    with pytest.raises(Failure) as caught:
        access_from_json(answer(NOW) | {"casUrl": url}, HUB)
    assert caught.value.reason is Reason.BAD_ANSWER
