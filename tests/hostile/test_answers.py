"""Answers of a Hub that means harm, to a worker with a token: what is done, told and written.

Whatever it says, the worker ends with an error of ours or with the right bytes; nothing outside the
cache is touched, and the token, which the Hub repeats wherever it can, is in no report and no file.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import get_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbloader.errors import NbloaderError
from nbloader.records import TransferPolicy
from nbloader.transfer.protocol import encode, stopped
from tests.hostile.hub import FILES, REPO_ID, TOKEN, Change, HostileHub, Said, entry
from tests.hostile.watch import holding, unchanged, watched
from tests.sessions import Worker

Try = Callable[[Change], str]

IMPATIENT = TransferPolicy(max_retries=1, stall_timeout_s=0.3, answer_timeout_s=0.3)
"""Servers of this machine answer at once, or not at all."""


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Try:
    """Download from a Hub that changes its answers, and say how it ended."""
    monkeypatch.setattr("nbloader.worker.hub.CALL_TIMEOUT_S", 0.3)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_bytes(b"PRECIOUS")
    numbers = itertools.count()

    def run(change: Change) -> str:
        home = tmp_path / "homes" / str(next(numbers))
        home.mkdir(parents=True)
        hub = HostileHub(change)
        try:
            with unchanged(tmp_path, leave_out=tmp_path / "homes"), monkeypatch.context() as patch:
                with watched(home) as touched:
                    ended = outcome(Worker(hub, home, patch), home)  # type: ignore[arg-type]
                assert touched == []
                return ended
        finally:
            hub.close()
            get_session().cookies.clear()  # They are sent to all of this address.

    return run


def outcome(worker: Worker, home: Path) -> str:
    ended = "done"
    try:
        session = worker.session(REPO_ID, token=TOKEN, policy=IMPATIENT)
        worker.told.append(session.select())
        place = session.fetch()
        for path, content in FILES.items():
            assert (place / path).read_bytes() == content
    except NbloaderError as error:
        worker.told.append(stopped(error))
        ended = error.reference
    assert holding(home, TOKEN) == []
    for report in worker.told:
        assert TOKEN not in str(report)
        assert TOKEN.encode() not in encode(report)
    return ended


def only(about: str, **changes: Any) -> Change:
    """Change one answer."""
    return lambda asked, said: replace(said, **changes) if asked == about else said


NAMES = [
    *("..", ".", "/", "//", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "./a", "a/./b"),
    *("..\\x", "C:\\x", "C:x", "\\\\host\\x", "a\\..\\..\\x", "~/x", "$HOME/x", "%2e%2e/x"),
    *("", " ", "a\0b", "a\nb", "a\x1b[2Jb", "\u202egnp", "\ud800", "a" * 2000, "a/" * 600 + "b"),
    *("con", "nul.txt", "aux/x", "a ", "a.", ".git/config", ".cache/huggingface/x"),
    *(f"{'../' * depth}victim/precious" for depth in range(1, 9)),
    *("../refs/main", "../../blobs/x", f"../../{'a' * 40}", "snapshots", "blobs/x", "refs/main"),
    *(f"Bearer {TOKEN}", f"../{TOKEN}", f"{TOKEN}/config.json", TOKEN),
]
VALUES: Sequence[object] = [
    *(None, True, False, 0, -1, 1 << 63, 1 << 200, 1.5, 1e400, "", "x", "0" * 39, "g" * 40),
    *([], {}, [[]], {"a": {}}, "\ud800", "../../../victim/precious", TOKEN, f"Bearer {TOKEN}"),
    *("a" * 64, "A" * 64, "/etc/passwd", "a" * 100_000, ["a"] * 1000, {"oid": "a" * 64}),
]


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_names_of_files(attempt: Try, number: int) -> None:
    """Such a file may be named and left alone, or the listing refused; it is never written."""
    bad = entry(NAMES[number], b"evil")
    honest = [entry(*each) for each in FILES.items()]
    for listing in ([*honest, bad], [bad], [bad, *honest], [*honest, bad | {"type": "directory"}]):
        assert attempt(only("tree", body=listing))
    if TOKEN in NAMES[number]:
        return  # What is in a file is kept as it is: its hash says so.
    index = {"metadata": {}, "weight_map": {"w": NAMES[number]}}
    named = [each for each in honest if each["path"] != "model.safetensors"]
    content = json.dumps(index).encode()

    def with_index(asked: str, said: Said) -> Said:
        path = "model.safetensors.index.json"
        if asked == "tree":
            return replace(said, body=[*named, entry(path, content), bad])
        return replace(said, status=200, body=content) if asked == path else said

    assert attempt(with_index) != "done"


@pytest.mark.parametrize("key", ["path", "size", "oid", "lfs", "type", "xetHash", "more"])
def test_values_in_a_listing(attempt: Try, key: str) -> None:
    for value in VALUES:
        listing = [entry(*each) for each in FILES.items()]
        listing[1][key] = value
        assert attempt(only("tree", body=json.dumps(listing).encode()))
    for value in VALUES:
        listing = [entry(*each) for each in FILES.items()]
        listing[1]["lfs"][key] = value
        assert attempt(only("tree", body=json.dumps(listing).encode()))


@pytest.mark.parametrize(
    "key",
    ["id", "sha", "private", "gated", "cardData", "tags", "pipeline_tag", "library_name", "more"],
)
def test_values_in_what_the_hub_says_of_a_repository(attempt: Try, key: str) -> None:
    for value in VALUES:
        told = {"id": REPO_ID, "sha": "a" * 40, key: value}
        assert attempt(only("info", body=json.dumps(told).encode()))
    for value in VALUES:
        card = {"license": value, "license_name": value, "base_model": value}
        told = {
            "id": REPO_ID,
            "sha": "a" * 40,
            "cardData": card,
            "tags": [value, f"license:{value}"],
        }
        assert attempt(only("info", body=json.dumps(told).encode()))


BODIES = [
    *(b"", b"null", b"[]", b"{}", b"[null]", b"[[]]", b"1", b'"x"', b"\xff\xfe", b"<html>", b"\0"),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"[]," * 1_200_000 + b"1]", b"1" * 10_000),
    *(
        b'{"sha": "' + b"a" * 40,
        b"NaN",
        b"-",
        b"[{}]",
        b'[{"type": "file"}]',
        b"true",
        b"\xef\xbb\xbf[]",
    ),
    *(f'"{TOKEN}"'.encode(), f'[{{"type": "file", "path": "{TOKEN}"}}]'.encode()),
    ("[" + json.dumps("".join(f"\\u{ord(each):04x}" for each in TOKEN)) + "]").encode(),
]


@pytest.mark.parametrize("about", ["info", "tree"])
@pytest.mark.parametrize("number", range(len(BODIES)))
def test_bodies(attempt: Try, about: str, number: int) -> None:
    assert attempt(only(about, body=BODIES[number])) != "done"


HEADERS = [
    *(("ETag", value) for value in ('"x"', "", '"', f'"{TOKEN}"', '"' + "a" * 9000 + '"', "W/")),
    *(("Content-Range", value) for value in ("", "bytes", "bytes 0-0/1", "bytes */*", "x" * 9000)),
    *(("Content-Length", value) for value in ("-1", "1e3", "99999999999999", "0", "x", "1, 2")),
    *(("Content-Encoding", value) for value in ("gzip", "br", "gzip, gzip", "identity", "x")),
    *(
        ("Link", f'<{url}>; rel="next"')
        for url in ("", "x", "http://127.0.0.1:9/", "file:///etc/x")
    ),
    *(("Link", value) for value in ("<", ";" * 9000, f'<https://{TOKEN}.example/>; rel="next"')),
    *(("X-Linked-Etag", value) for value in ("", '"x"', TOKEN)),
    *(("X-Repo-Commit", value) for value in ("", "../..", TOKEN)),
    *(("X-Error-Code", value) for value in ("GatedRepo", "RepoNotFound", TOKEN, "x" * 9000)),
    *(("X-Error-Message", value) for value in (TOKEN, "\x1b[2J", "<script>", "x" * 9000)),
    *(("RateLimit", value) for value in ('"api";r=0;t=99', "x", TOKEN, '"api";r=-1;t=1e9')),
    *(("Retry-After", value) for value in ("-1", "1e9", "x", "99999999999", TOKEN)),
    *(("Set-Cookie", value) for value in (f"a={TOKEN}", "x" * 9000)),
    *(("X-Xet-Hash", value) for value in ("", "../..", TOKEN)),
]
STATUS = [200, 206, 204, 301, 302, 308, 400, 401, 403, 404, 407, 410, 416, 429, 451, 500, 503, 599]


@pytest.mark.parametrize("status", STATUS)
@pytest.mark.parametrize("about", ["info", "tree", "config.json", "model.safetensors"])
def test_headers(attempt: Try, about: str, status: int) -> None:
    """In every answer, with every status; each header with a few of them."""
    at = STATUS.index(status)
    for number, header in enumerate(HEADERS):
        if (number + at) % 5 == 0:
            assert attempt(only(about, status=status, headers=(header,)))


LOCATIONS = [
    *("", "/", "x", "//", "http://", "http://127.0.0.1:9/", "file:///etc/passwd", "ftp://x/"),
    *("javascript:1", "http://[", "http://a:b:c/", "http://127.0.0.1:99999/", "\\\\x", "#", "?"),
    *(
        f"http://127.0.0.1:9/{TOKEN}",
        f"http://{TOKEN}@127.0.0.1:9/",
        "http:" + "/" * 9000,
        "data:,x",
    ),
]


@pytest.mark.parametrize("about", ["info", "tree", "config.json", "model.safetensors"])
@pytest.mark.parametrize("number", range(len(LOCATIONS)))
def test_redirects(attempt: Try, about: str, number: int) -> None:
    headers = (("Location", LOCATIONS[number]),)
    assert attempt(only(about, status=302, headers=headers)) != "done"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(NAMES),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "path", "size", "oid", "lfs", "sha", "id", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(about=st.sampled_from(["info", "tree"]), value=JSON)
def test_any_json(attempt: Try, about: str, value: object) -> None:
    assert attempt(only(about, body=json.dumps(value).encode()))
