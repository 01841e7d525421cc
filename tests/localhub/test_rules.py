"""The pure parts of the server: signatures, ranges, git's ids, access, faults that add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.localhub import Access, Cut, Fault, RequestClass, Token
from nbloader.localhub.access import Denial, Verdict, bearer, judge, sign, verify
from nbloader.localhub.answers import (
    WRONG_BYTE_STRIDE,
    ByteRange,
    Effect,
    FaultBook,
    Pace,
    UnsatisfiableRangeError,
    invert,
    json_answer,
    select_range,
)
from nbloader.localhub.store import blob_oid, commit_oid, tree_oids
from nbloader.localhub.traffic import RateLimits, kind_of

GET = RequestClass.CDN_GET


@pytest.mark.parametrize(
    ("now", "verdict"),
    [(999.9, Verdict.VALID), (1000.0, Verdict.EXPIRED), (5000.0, Verdict.EXPIRED)],
)
def test_a_signature_is_valid_until_its_expiry(now: float, verdict: Verdict) -> None:
    query = sign(b"secret", "/repos/a/b", expires=1000)
    assert verify(b"secret", "/repos/a/b", query, now) is verdict


@pytest.mark.parametrize(
    ("secret", "path", "change"),
    [
        (b"other", "/a", {}),
        (b"secret", "/b", {}),
        (b"secret", "/a", {"Expires": "2000"}),
        (b"secret", "/a", {"Expires": "never"}),
        (b"secret", "/a", {"Signature": ""}),
        (b"secret", "/a", {"Signature": "é"}),
    ],
)
def test_a_changed_url_is_forged(secret: bytes, path: str, change: dict[str, str]) -> None:
    query = sign(b"secret", "/a", expires=1000) | change
    assert verify(secret, path, query, now=0) is Verdict.FORGED


def test_a_url_without_signature_is_forged() -> None:
    assert verify(b"secret", "/a", {}, now=0) is Verdict.FORGED


@pytest.mark.parametrize(
    ("range_", "if_range", "expected"),
    [
        (None, None, ByteRange(0, 100)),
        ("bytes=0-9", None, ByteRange(0, 10, partial=True)),
        ("bytes=90-", None, ByteRange(90, 100, partial=True)),
        ("bytes=90-500", None, ByteRange(90, 100, partial=True)),
        ("bytes=-10", None, ByteRange(90, 100, partial=True)),
        ("bytes=-500", None, ByteRange(0, 100, partial=True)),
        ("bytes=5-4", None, ByteRange(0, 100)),
        ("bytes=-", None, ByteRange(0, 100)),
        ("bytes=a-b", None, ByteRange(0, 100)),
        ("bytes=0-1,5-6", None, ByteRange(0, 100)),
        ("lines=0-1", None, ByteRange(0, 100)),
        ("bytes=90-", '"etag"', ByteRange(90, 100, partial=True)),
        ("bytes=90-", '"older"', ByteRange(0, 100)),
        ("bytes=90-", "Wed, 21 Oct 2026 07:28:00 GMT", ByteRange(0, 100)),
        ("bytes=500-", '"older"', ByteRange(0, 100)),
    ],
)
def test_ranges_follow_the_rfc(
    range_: str | None, if_range: str | None, expected: ByteRange
) -> None:
    assert select_range(100, '"etag"', range_, if_range) == expected


@pytest.mark.parametrize("range_", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_past_the_end_cannot_be_satisfied(range_: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        select_range(100, '"etag"', range_, None)


@given(st.binary(min_size=1, max_size=50), st.data())
def test_the_parts_of_a_file_join_to_the_file(content: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(content) - 1))
    size = len(content)
    ends = [f"bytes=0-{cut}", f"bytes={cut + 1}-"] if cut + 1 < size else [f"bytes=0-{cut}"]
    parts = [select_range(size, "", range_, None) for range_ in ends]
    assert b"".join(content[part.start : part.stop] for part in parts) == content


def test_ids_are_those_of_git() -> None:
    """Taken from `git ls-tree -r -t` and `git hash-object -t commit` over the same files."""
    blobs = {
        "config.json": blob_oid(b"{}"),
        "sub.txt": blob_oid(b"y"),
        "sub/deep/x.txt": blob_oid(b"x"),
    }
    trees = tree_oids(blobs)
    assert blobs == {
        "config.json": "9e26dfeeb6e641a33dae4961196235bdb965b21b",
        "sub.txt": "e25f1814e51579d5f55c0f1fe0135ddb28a47f4a",
        "sub/deep/x.txt": "c1b0730e0133447badcfd47fd144e254807b06e1",
    }
    assert trees == {
        "": "5865d1a96266bce3942a310c343b64c06299960c",
        "sub": "b4c91a9adb8e76a56d44dcdeed5693917cf4da27",
        "sub/deep": "b1140f98f130cab0c87eaf311a3ea27f5fdc160f",
    }
    assert commit_oid(trees[""]) == "28b66dfb171b1f57e99123171239f2f79d27412b"


@given(
    st.dictionaries(
        st.lists(st.text("abc.-", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join),
        st.just(blob_oid(b"")),
        max_size=8,
    )
)
def test_every_folder_has_an_id(blobs: dict[str, str]) -> None:
    folders = {""}
    for path in blobs:
        parts = path.split("/")
        folders |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    assert tree_oids(blobs).keys() == folders


@pytest.mark.parametrize(
    ("authorization", "token"),
    [
        (None, None),
        ("Bearer abc", "abc"),
        ("bearer abc ", "abc"),
        ("Basic abc", ""),
        ("", ""),
    ],
)
def test_a_token_is_read_from_its_header(authorization: str | None, token: str | None) -> None:
    assert bearer(authorization) == token


TOKENS = {
    "member": Token(name="ann", repos=frozenset({"a/b"})),
    "stranger": Token(name="bob"),
    "stale": Token(name="ann", repos=frozenset({"a/b"}), stale=True),
    "narrow": Token(name="ann", repos=frozenset({"a/b"}), fine_grained=True),
    "ticked": Token(name="ann", repos=frozenset({"a/b"}), fine_grained=True, reads_gated=True),
    "foreign": Token(name="bob", fine_grained=True, reads_gated=True),
}


@pytest.mark.parametrize(
    ("access", "token", "listing", "file"),
    [
        (Access(), None, None, None),
        (Access(), "stranger", None, None),
        (Access(), "stale", Denial.BAD_TOKEN, Denial.BAD_TOKEN),
        (Access(), "unknown", Denial.BAD_TOKEN, Denial.BAD_TOKEN),
        (Access(), "", Denial.BAD_TOKEN, Denial.BAD_TOKEN),
        (Access(private=True), None, Denial.REPO_HIDDEN, Denial.REPO_HIDDEN),
        (Access(private=True), "stranger", Denial.REPO_HIDDEN, Denial.REPO_HIDDEN),
        (Access(private=True), "member", None, None),
        (Access(gated="auto"), None, None, Denial.GATE_CLOSED),
        (Access(gated="manual"), "stranger", None, Denial.GATE_CLOSED),
        (Access(gated="auto"), "member", None, None),
        (Access(gated="auto"), "narrow", None, Denial.GATE_CLOSED),
        (Access(gated="auto"), "ticked", None, None),
        (Access(gated="auto"), "foreign", None, Denial.GATE_CLOSED),
        (Access(private=True), "narrow", None, None),
        (Access(private=True, gated="auto"), "stranger", Denial.REPO_HIDDEN, Denial.REPO_HIDDEN),
    ],
)
def test_access_is_judged(
    access: Access, token: str | None, listing: Denial | None, file: Denial | None
) -> None:
    assert (
        judge("a/b", access, token, TOKENS, for_file=False),
        judge("a/b", access, token, TOKENS, for_file=True),
    ) == (listing, file)


@given(
    st.floats(1, 1e9),
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 10)), min_size=1, max_size=20),
)
def test_a_pace_is_never_exceeded(bytes_per_second: float, writes: list[tuple[int, float]]) -> None:
    pace = Pace(bytes_per_second)
    now = total = 0.0
    for count, idle_s in writes:
        now += idle_s
        ready = now + pace.reserve(count, now)
        total += count
        assert total <= bytes_per_second * ready * (1 + 1e-9) + 1e-6


def test_a_pace_gives_no_credit_for_idle_time() -> None:
    pace = Pace(10)
    assert [pace.reserve(10, now=0), pace.reserve(10, now=0), pace.reserve(10, now=50)] == [1, 2, 1]


def test_faults_add_up() -> None:
    shared = Pace(5)
    effect = Effect.of(
        [
            (Fault(GET, latency_s=1, cut=Cut.STALL, after_bytes=9), None),
            (Fault(GET, latency_s=2, cut=Cut.DROP, after_bytes=3), shared),
            (Fault(GET, status=503), None),
            (Fault(GET, status=429, retry_after="1", wrong_bytes=True), None),
        ]
    )
    assert effect == Effect(
        latency_s=3,
        status=503,
        cut=Cut.DROP,
        after_bytes=3,
        wrong_bytes=True,
        paces=(shared,),
    )


def test_a_book_counts_for_each_fault_by_itself() -> None:
    book = FaultBook(
        [
            Fault(GET, path="*/a", status=500, times=1),
            Fault(GET, wrong_bytes=True, skip=1, times=1),
        ]
    )
    requests = [("x/b", True), ("x/a", False), ("x/a", True), ("x/b", True)]
    effects = [book.take(GET, path, has_body=has_body) for path, has_body in requests]
    assert effects == [Effect(), Effect(status=500), Effect(wrong_bytes=True), Effect()]


def test_responses_share_the_pace_of_a_total_cap_only() -> None:
    book = FaultBook([Fault(GET, bytes_per_second=7, total_bytes_per_second=9)])
    (own, shared), (other_own, other_shared) = (
        book.take(GET, "a/b", has_body=True).paces for _ in range(2)
    )
    assert (own.bytes_per_second, shared.bytes_per_second) == (7, 9)
    assert shared is other_shared
    assert own is not other_own


@given(st.binary(max_size=5000), st.integers(0, 10_000))
def test_wrong_bytes_depend_on_their_place_in_the_file_alone(content: bytes, cut: int) -> None:
    wrong = invert(content, 0)
    changed = [index for index in range(len(content)) if content[index] != wrong[index]]
    assert changed == list(range(0, len(content), WRONG_BYTE_STRIDE))
    assert invert(content[:cut], 0) + invert(content[cut:], cut) == wrong
    assert invert(wrong, 0) == content


def test_a_rate_limit_counts_a_window_and_begins_anew() -> None:
    times = iter((100.0, 100.0, 110.5, 159.0, 160.0))
    limits = RateLimits({"api": 2}, window_s=60, clock=lambda: next(times))
    told = []
    for _ in range(4):
        answer = limits.applied("api", json_answer({}, headers={"X-Other": "kept"}))
        told.append((answer.status, answer.headers["RateLimit"], answer.headers.get("X-Other")))
        assert answer.headers["RateLimit-Policy"] == '"fixed window";"api";q=2;w=60'
    assert told == [
        (200, '"api";r=1;t=60', "kept"),
        (200, '"api";r=0;t=50', "kept"),
        (429, '"api";r=0;t=1', None),
        (200, '"api";r=1;t=60', "kept"),
    ]
    answer = json_answer({})
    assert limits.applied("resolvers", answer) is limits.applied(None, answer) is answer


@pytest.mark.parametrize(
    ("request_class", "path", "kind"),
    [
        (RequestClass.TREE, "/api/models/a/b/tree/main", "api"),
        (RequestClass.RESOLVE_GET, "/a/b/resolve/main/f", "resolvers"),
        (RequestClass.RESOLVE_GET, "/api/resolve-cache/models/a/b/c/f", None),
        (RequestClass.CDN_GET, "/repos/a/b/c/f", None),
        (RequestClass.XET_OTHER, "/", None),
    ],
)
def test_requests_are_counted_by_what_they_ask(
    request_class: RequestClass, path: str, kind: str | None
) -> None:
    assert kind_of(request_class, path) == kind
