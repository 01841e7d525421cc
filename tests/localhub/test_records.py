from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.localhub import (
    Access,
    Counters,
    Cut,
    Fault,
    LoggedRequest,
    RequestClass,
    Token,
    Traffic,
)

_COUNTS = st.integers(0, 10**12)
_SPEEDS = st.none() | st.floats(1, 1e12)


@st.composite
def _faults(draw: st.DrawFn) -> Fault:
    cut = draw(st.none() | st.sampled_from(Cut))
    status = draw(st.none() | st.integers(400, 599))
    redirect = status is None and draw(st.booleans())
    return Fault(
        draw(st.sampled_from(RequestClass)),
        path=draw(st.text()),
        skip=draw(_COUNTS),
        times=draw(st.none() | _COUNTS),
        latency_s=draw(st.floats(0, 1e6)),
        bytes_per_second=draw(_SPEEDS),
        total_bytes_per_second=draw(_SPEEDS),
        cut=cut,
        after_bytes=draw(_COUNTS) if cut else 0,
        status=status,
        retry_after=draw(st.none() | st.sampled_from(["7", "Wed, 21 Oct 2026 07:28:00 GMT"]))
        if status
        else None,
        wrong_bytes=draw(st.booleans()),
        expired=not redirect and draw(st.booleans()),
        redirect=redirect,
        etag=draw(st.none() | st.sampled_from(["abc", ""])),
        ignore_range=draw(st.booleans()),
    )


@given(_faults())
def test_a_fault_survives_json(fault: Fault) -> None:
    assert Fault.from_json(json.loads(json.dumps(fault.to_json()))) == fault


@pytest.mark.parametrize(
    "record",
    [
        Access(),
        Access(private=True, gated="manual"),
        Token(name="ann", repos=frozenset({"a/b", "c/d"}), stale=True),
        Token(name="ann", fine_grained=True, reads_gated=True),
        LoggedRequest(
            request_class=RequestClass.CDN_GET,
            method="GET",
            path="a/b/c",
            status=None,
            body_bytes=3,
            range="bytes=1-3",
            had_authorization=True,
        ),
        Counters(
            by_class={RequestClass.TREE: Traffic(2, 30)},
            body_bytes_by_path={"a/b": 30},
            cdn_authorizations=1,
        ),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_survives_json(record: Access | Token | LoggedRequest | Counters) -> None:
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    "bad",
    [
        {"path": 7},
        {"skip": -1},
        {"skip": True},
        {"times": 1.5},
        {"latency_s": float("nan")},
        {"latency_s": -1},
        {"bytes_per_second": 0},
        {"total_bytes_per_second": float("inf")},
        {"cut": "explode"},
        {"after_bytes": 5},
        {"cut": "drop", "after_bytes": -1},
        {"status": 200},
        {"retry_after": "5"},
        {"status": 429, "retry_after": "5\r\nX-Evil: 1"},
        {"wrong_bytes": 1},
        {"expired": None},
        {"redirect": 1},
        {"redirect": True, "status": 500},
        {"redirect": True, "expired": True},
        {"etag": 7},
        {"etag": 'a"b'},
        {"etag": "a\r\nX-Evil: 1"},
        {"ignore_range": None},
        {"request_class": "coffee"},
        {"unknown": 1},
    ],
    ids=repr,
)
def test_a_bad_fault_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^bad |is not a valid|unknown fields"):
        Fault.from_json({"request_class": "cdn-get", **bad})


@pytest.mark.parametrize("bad", [None, [], "tree", {}], ids=repr)
def test_what_is_no_fault_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"not an object|is missing"):
        Fault.from_json(bad)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        {},
        {"name": 7},
        {"repos": "a/b"},
        {"stale": None},
        {"fine_grained": 1},
        {"reads_gated": "yes"},
        {"unknown": True},
    ],
)
def test_what_is_no_token_is_refused(bad: dict[str, Any] | None) -> None:
    good = Token(name="ann").to_json()
    with pytest.raises(ValueError, match=r"^Token: "):
        Token.from_json(good | bad if bad else bad)


@pytest.mark.parametrize("bad", [{"gated": True}, {"gated": "yes"}, {"private": None}, {"x": 1}])
def test_bad_access_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^bad |unknown fields"):
        Access.from_json(bad)


@pytest.mark.parametrize(
    ("fault", "hits"),
    [
        (Fault(RequestClass.TREE), [True, True, True, True]),
        (Fault(RequestClass.TREE, times=1), [True, False, False, False]),
        (Fault(RequestClass.TREE, skip=2), [False, False, True, True]),
        (Fault(RequestClass.TREE, skip=1, times=2), [False, True, True, False]),
        (Fault(RequestClass.TREE, times=0), [False, False, False, False]),
    ],
)
def test_a_fault_hits_by_the_number_of_requests_before(fault: Fault, hits: list[bool]) -> None:
    assert [fault.hits(earlier) for earlier in range(4)] == hits


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("*", "org/name/unet/a.safetensors", True),
        ("*.safetensors", "org/name/unet/a.safetensors", True),
        ("org/name/*", "org/name/unet/a.safetensors", True),
        ("org/name", "org/name", True),
        ("*.SAFETENSORS", "org/name/a.safetensors", False),
        ("*.bin", "org/name/a.safetensors", False),
    ],
)
def test_a_fault_concerns_paths_by_its_glob(glob: str, path: str, expected: bool) -> None:
    fault = Fault(RequestClass.CDN_GET, path=glob)
    assert fault.concerns(RequestClass.CDN_GET, path, has_body=True) is expected


def test_a_fault_concerns_its_class_only() -> None:
    fault = Fault(RequestClass.CDN_GET)
    concerned = [name for name in RequestClass if fault.concerns(name, "a/b", has_body=True)]
    assert concerned == [RequestClass.CDN_GET]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(RequestClass.CDN_GET, latency_s=1), True),
        (Fault(RequestClass.CDN_GET, status=503), True),
        (Fault(RequestClass.CDN_GET, expired=True), True),
        (Fault(RequestClass.CDN_GET, cut=Cut.RESET), True),
        (Fault(RequestClass.CDN_GET, cut=Cut.RESET, after_bytes=1), False),
        (Fault(RequestClass.CDN_GET, cut=Cut.TRUNCATE), False),
        (Fault(RequestClass.CDN_GET, wrong_bytes=True), False),
        (Fault(RequestClass.CDN_GET, bytes_per_second=1), False),
        (Fault(RequestClass.CDN_GET, total_bytes_per_second=1), False),
    ],
)
def test_a_fault_of_the_body_passes_answers_without_one(fault: Fault, expected: bool) -> None:
    assert fault.concerns(RequestClass.CDN_GET, "a/b", has_body=False) is expected


def test_counters_add_up() -> None:
    counters = Counters(
        by_class={
            RequestClass.TREE: Traffic(2, 30),
            RequestClass.RESOLVE_GET: Traffic(2, 5),
            RequestClass.CDN_GET: Traffic(1, 70),
            RequestClass.XET_XORB: Traffic(3, 200),
        },
        body_bytes_by_path={},
    )
    assert counters.total == Traffic(8, 305)
    assert counters.file_bytes == 275
    assert counters.of(RequestClass.TREE) == Traffic(2, 30)
    assert counters.of(RequestClass.REFS) == Traffic()


def test_every_field_of_a_fault_is_tried_above() -> None:
    assert {field.name for field in fields(Fault)} == {
        "request_class",
        "path",
        "skip",
        "times",
        "latency_s",
        "bytes_per_second",
        "total_bytes_per_second",
        "cut",
        "after_bytes",
        "status",
        "retry_after",
        "wrong_bytes",
        "expired",
        "redirect",
        "etag",
        "ignore_range",
    }
