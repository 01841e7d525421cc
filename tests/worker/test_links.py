"""Where the bytes of files are: who is asked, who gets the token, what is followed."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError

from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.records import RepoFile
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure, RateLimit
from nbloader.worker.links import Answer, Links, at_endpoint, host_of, origin, part_of
from tests.conftest import Publish

RESOLVE = RequestClass.RESOLVE_GET
CDN = RequestClass.CDN_GET
CONTENT = Random(1).randbytes(3_000_000)
TOKEN = "hf_linktoken"

Open = Callable[[int, int], bytes]


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what the library reads when it is imported: a worker has it in its environment."""
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def files(
    hub: LocalHub, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str, dict[str, RepoFile]]:
    """A repository with a large and a small file, and what the Hub lists of it."""
    use(hub.endpoint, monkeypatch)
    repo_id = publish({"model.bin": CONTENT, "config.json": b"{}" * 1000})
    hub.add_token(TOKEN)
    info = HfApi(endpoint=hub.endpoint).model_info(repo_id, files_metadata=True)
    assert info.sha
    assert info.siblings
    listed = {
        file.rfilename: RepoFile(
            path=file.rfilename,
            size=file.size or 0,
            etag=file.lfs.sha256 if file.lfs else file.blob_id or "",
            lfs=file.lfs is not None,
        )
        for file in info.siblings
    }
    hub.reset_counters()
    return repo_id, info.sha, listed


def links_of(repo_id: str, *, timeout_s: float = 5.0) -> Links:
    return Links(
        repo_id, token=lambda: TOKEN, timeout_s=timeout_s, rate_limit=RateLimit(lambda: 0.0)
    )


def content(answer: Answer) -> bytes:
    """Read all of an answer; a chunk is good only until the next one."""
    return b"".join(bytes(chunk) for chunk in answer.chunks())


class Reader:
    """Reads ranges of a file over links."""

    def __init__(self, files: tuple[str, str, dict[str, RepoFile]], path: str) -> None:
        self.repo_id, self.commit_hash, listed = files
        self.file = listed[path]
        self.links = links_of(self.repo_id, timeout_s=10.0)

    def read(self, start: int, stop: int) -> bytes:
        with self.links.open(self.commit_hash, self.file, start, stop) as (answer, first):
            return content(answer)[start - first : stop - first]


@pytest.fixture
def large(files: tuple[str, str, dict[str, RepoFile]]) -> Reader:
    return Reader(files, "model.bin")


def reason_of(read: Callable[[], object]) -> Reason:
    with pytest.raises(Failure) as caught:
        read()
    return caught.value.reason


def test_the_hub_is_asked_once_for_many_ranges_at_once(hub: LocalHub, large: Reader) -> None:
    hub.set_faults([Fault(RESOLVE, latency_s=0.3)])
    ranges = [(start, start + 100_000) for start in range(0, 3_000_000, 100_000)]
    with ThreadPoolExecutor(16) as pool:
        parts = list(pool.map(lambda bounds: large.read(*bounds), ranges))
    assert b"".join(parts) == CONTENT
    counters = hub.counters()
    assert (counters.of(RESOLVE).requests, counters.of(CDN).requests) == (1, 30)


def test_the_token_goes_to_the_hub_alone(hub: LocalHub, large: Reader) -> None:
    large.read(0, 10)
    large.read(10, 20)
    sent = [(request.request_class, request.had_authorization) for request in hub.requests()]
    assert sent == [(RESOLVE, True), (CDN, False), (CDN, False)]


def test_a_small_file_comes_from_the_hub_itself(
    hub: LocalHub, files: tuple[str, str, dict[str, RepoFile]]
) -> None:
    small = Reader(files, "config.json")
    assert small.read(0, 2000) == b"{}" * 1000
    assert small.read(1000, 1500) == b"{}" * 250
    assert {request.request_class for request in hub.requests()} == {RESOLVE}
    assert all(request.had_authorization for request in hub.requests())


def test_one_slow_answer_of_the_cdn_holds_nobody_up(hub: LocalHub, large: Reader) -> None:
    hub.set_faults([Fault(CDN, cut=Cut.STALL, times=1)])
    large.links = links_of(large.repo_id, timeout_s=2.0)
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(large.read, start, start + 100) for start in range(0, 400, 100)]
        errors = [task.exception() for task in tasks]
    assert [getattr(error, "reason", error) for error in errors if error] == [Reason.STALLED]
    assert hub.counters().of(RESOLVE).requests == 1


def test_a_range_that_the_server_does_not_cut_comes_whole(hub: LocalHub, large: Reader) -> None:
    hub.set_faults([Fault(CDN, ignore_range=True)])
    with large.links.open(large.commit_hash, large.file, 1000, 2000) as (answer, first):
        assert (answer.status_code, first) == (200, 0)
        assert content(answer) == CONTENT


def test_an_address_that_has_expired_is_asked_for_anew(hub: LocalHub, large: Reader) -> None:
    large.read(0, 10)
    hub.set_faults([Fault(CDN, expired=True, times=1)])
    assert reason_of(lambda: large.read(0, 10)) is Reason.EXPIRED
    assert large.read(0, 10) == CONTENT[:10]
    assert hub.counters().of(RESOLVE).requests == 2


@pytest.mark.parametrize(
    ("fault", "reason", "retry_after_s"),
    [
        (Fault(CDN, redirect=True), Reason.REDIRECTS, None),
        (Fault(RESOLVE, redirect=True), Reason.REDIRECTS, None),
        (Fault(CDN, status=503), Reason.BUSY, None),
        (Fault(CDN, status=503, retry_after="4"), Reason.BUSY, 4.0),
        (Fault(RESOLVE, status=429, retry_after="7"), Reason.RATE_LIMITED, 7.0),
        (Fault(CDN, status=404), Reason.REFUSED, None),
        (Fault(CDN, status=416), Reason.REFUSED, None),
        (Fault(RESOLVE, status=416), Reason.REFUSED, None),
        (Fault(RESOLVE, etag="0" * 64), Reason.OTHER_VERSION, None),
    ],
)
def test_answers_that_are_none(
    hub: LocalHub, large: Reader, fault: Fault, reason: Reason, retry_after_s: float | None
) -> None:
    hub.set_faults([fault])
    with pytest.raises(Failure) as caught:
        large.read(0, 10)
    assert (caught.value.reason, caught.value.retry_after_s) == (reason, retry_after_s)
    hub.clear_faults()
    large.links = links_of(large.repo_id)
    assert large.read(0, 10) == CONTENT[:10]


def test_a_hub_that_wants_to_be_left_alone_is_asked_for_no_file(
    hub: LocalHub, large: Reader, files: tuple[str, str, dict[str, RepoFile]]
) -> None:
    now = 0.0
    large.links = Links(
        large.repo_id, token=lambda: None, timeout_s=5.0, rate_limit=RateLimit(lambda: now)
    )
    small = Reader(files, "config.json")
    small.links = large.links
    hub.set_faults([Fault(RESOLVE, status=429, retry_after="7", times=1)])
    for reader, left in ((large, 7.0), (small, 7.0), (large, 7.0)):
        with pytest.raises(Failure) as caught:
            reader.read(0, 10)
        assert (caught.value.reason, caught.value.retry_after_s) == (Reason.RATE_LIMITED, left)
    assert hub.counters().of(RESOLVE).requests == 1
    now = 6.0
    with pytest.raises(Failure) as caught:
        small.read(0, 10)
    assert caught.value.retry_after_s == 1.0
    now = 7.0
    assert large.read(0, 10) == CONTENT[:10]
    assert small.read(0, 2) == b"{}"


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_the_hubs_own_refusal_is_final(hub: LocalHub, large: Reader, status: int) -> None:
    hub.set_faults([Fault(RESOLVE, status=status)])
    with pytest.raises(HfHubHTTPError) as caught:
        large.read(0, 10)
    assert caught.value.response.status_code == status


def test_a_file_that_changes_at_the_cdn_is_not_mixed_in(hub: LocalHub, large: Reader) -> None:
    large.read(0, 10)
    hub.set_faults([Fault(CDN, etag="another")])
    assert reason_of(lambda: large.read(10, 20)) is Reason.OTHER_VERSION
    assert large.read(10, 20) == CONTENT[10:20]  # Its hash will tell.


# -- servers that a LocalHub is not ----------------------------------------------------------------


class Answers(http.server.ThreadingHTTPServer):
    """A server that gives the answers that a test wants, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, answers: Mapping[str, tuple[int, dict[str, str], bytes]]) -> None:
        self.answers = dict(answers)
        self.asked: list[tuple[str, bool]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.server.asked.append((self.path, "Authorization" in self.headers))
        status, headers, body = self.server.answers[self.path]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Write nothing: pytest shows what stands on stderr."""


@pytest.fixture
def serve() -> Iterator[Callable[..., Answers]]:
    servers: list[Answers] = []

    def start(answers: Mapping[str, tuple[int, dict[str, str], bytes]] | None = None) -> Answers:
        server = Answers(answers or {})
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


COMMIT = "c" * 40
PATH = f"/org/name/resolve/{COMMIT}/a.bin"
FILE = RepoFile(path="a.bin", size=4, etag="e" * 64, lfs=True)


def read(hub: Answers, monkeypatch: pytest.MonkeyPatch, links: Links | None = None) -> bytes:
    use(hub.url, monkeypatch)
    links = links or links_of("org/name")
    with links.open(COMMIT, FILE, 0, 4) as (answer, _):
        return content(answer)


@pytest.mark.parametrize(
    "location",
    [
        "",
        PATH,
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "//",
        "http://",
        "http://[::1",
        "data:text/plain,abcd",
        "javascript:alert(1)",
    ],
)
def test_a_redirect_to_nowhere_is_not_followed(
    serve: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    hub = serve({PATH: (302, {"Location": location}, b"")})
    assert reason_of(lambda: read(hub, monkeypatch)) is Reason.REDIRECTS
    assert hub.asked == [(PATH, True)]


def test_redirects_in_a_ring_end(
    serve: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = serve(), serve()
    first.answers = {PATH: (302, {"Location": f"{second.url}/b"}, b"")}
    second.answers = {"/b": (302, {"Location": f"{first.url}{PATH}"}, b"")}
    assert reason_of(lambda: read(first, monkeypatch)) is Reason.REDIRECTS
    assert 2 <= len(first.asked) + len(second.asked) <= 8


def test_no_redirect_carries_the_token_to_another_origin(
    serve: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, cdn = serve(), serve()
    part = {"Content-Range": "bytes 0-3/4"}
    hub.answers = {
        PATH: (307, {"Location": "/moved"}, b""),
        "/moved": (302, {"Location": f"{cdn.url}/a"}, b""),
    }
    cdn.answers = {
        "/a": (301, {"Location": f"{cdn.url}/b"}, b""),
        "/b": (206, part, b"abcd"),
    }
    links = links_of("org/name")
    assert read(hub, monkeypatch, links) == b"abcd"
    assert read(hub, monkeypatch, links) == b"abcd"
    assert hub.asked == [(PATH, True), ("/moved", True)]
    assert not any(had_token for _, had_token in cdn.asked)


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (206, {"Content-Range": "bytes 0-3/5"}, Reason.OTHER_VERSION),
        (206, {"Content-Range": "bytes 0-4/*"}, Reason.OTHER_VERSION),
        (206, {"Content-Range": "bytes 1-4/4"}, Reason.BAD_ANSWER),
        (206, {"Content-Range": "bytes 3-0/4"}, Reason.BAD_ANSWER),
        (206, {"Content-Length": "3"}, Reason.BAD_ANSWER),
        (200, {"Content-Length": "3"}, Reason.OTHER_VERSION),
        (200, {"Content-Encoding": "gzip"}, Reason.BAD_ANSWER),
        (200, {"Content-Encoding": "br"}, Reason.BAD_ANSWER),
        (200, {"Content-Encoding": "gzip, gzip"}, Reason.BAD_ANSWER),
        (200, {"Content-Length": "3", "Content-Type": "text/html; charset=utf-8"}, Reason.PAGE),
        (403, {"Content-Type": "text/html"}, Reason.PAGE),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for(
    serve: Callable[..., Answers],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    reason: Reason,
) -> None:
    hub = serve({PATH: (status, headers, b"abcd")})
    assert reason_of(lambda: read(hub, monkeypatch)) is reason


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (206, {"Content-Range": "bytes 0-3/*"}, b"abcd"),
        (206, {"Content-Range": "Bytes 0-3/4"}, b"abcd"),
        (200, {"Content-Range": "bytes 7-9/44"}, b"abcd"),
        (206, {}, b"abcd"),  # The whole, as it was asked for then.
        (200, {"ETag": '"another"', "Content-Type": "text/html"}, b"abcd"),
        (200, {"Content-Encoding": "gzip"}, zipped(b"abcd")),
        (200, {"Content-Encoding": "x-gzip", "ETag": 'W/"1-gzip"'}, zipped(b"abcd")),
        (200, {"Content-Encoding": "identity"}, b"abcd"),
        (200, {"Content-Encoding": "aws-chunked"}, b"abcd"),
        (200, {"Content-Encoding": "gzip"}, zipped(bytes(50_000_000))),
    ],
)
def test_an_answer_that_others_give_is_used(
    serve: Callable[..., Answers],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    body: bytes,
) -> None:
    hub, cdn = serve(), serve({"/a": (status, headers, body)})
    linked = {"Location": f"{cdn.url}/a", "X-Linked-Etag": '"of-the-mirror"'}
    hub.answers = {PATH: (302, linked, b"")}
    came = read(hub, monkeypatch)
    assert came in (b"abcd", bytes(FILE.size + 1))  # No more of what grows is unzipped.


def test_an_error_says_at_which_host(
    serve: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, cdn = serve(), serve({"/a?secret=1": (200, {"Content-Type": "text/html"}, b"<html>")})
    hub.answers = {PATH: (302, {"Location": f"{cdn.url}/a?secret=1"}, b"")}
    with pytest.raises(Failure) as caught:
        read(hub, monkeypatch)
    assert (caught.value.reason, caught.value.host) == (Reason.PAGE, cdn.url.partition("//")[2])


@pytest.mark.parametrize("where", ["http://127.0.0.1:9/a", "http://nowhere.invalid/a"])
def test_a_host_that_never_answers_while_the_hub_does_is_blocked(
    serve: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    hub = serve({PATH: (302, {"Location": where}, b"")})
    links = links_of("org/name")
    for asked in (1, 2):
        with pytest.raises(Failure) as caught:
            read(hub, monkeypatch, links)
        assert caught.value.reason is Reason.BLOCKED
        assert caught.value.host == where.split("/")[2]
        assert len(hub.asked) == asked  # The Hub may name another, and shows that it is there.


def test_a_host_that_says_nothing_is_blocked(
    serve: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as opened:
        silent = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # No more are let in, and nobody is told.
            client = opened.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(silent.getsockname())
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        hub = serve({PATH: (302, {"Location": f"http://{host}/a"}, b"")})
        with pytest.raises(Failure) as caught:
            read(hub, monkeypatch, links_of("org/name", timeout_s=0.5))
    assert (caught.value.reason, caught.value.host) == (Reason.BLOCKED, host)


def test_a_part_under_the_status_of_the_whole_is_a_part(
    serve: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve({PATH: (200, {"Content-Range": "bytes 1-2/4"}, b"bc")})
    use(hub.url, monkeypatch)
    with links_of("org/name").open(COMMIT, FILE, 1, 3) as (answer, first):
        assert (first, content(answer), part_of(answer, 4)) == (1, b"bc", (1, 3, 4))


def test_a_host_that_has_answered_before_is_not_blocked(hub: LocalHub, large: Reader) -> None:
    large.read(0, 10)
    hub.set_faults([Fault(CDN, cut=Cut.RESET)])
    assert reason_of(lambda: large.read(10, 20)) is Reason.CONNECTION_LOST
    large.links = links_of(large.repo_id)
    assert reason_of(lambda: large.read(10, 20)) is Reason.BLOCKED


def test_etags_that_change_with_each_answer_are_looked_at_once(
    hub: LocalHub, large: Reader
) -> None:
    large.read(0, 10)
    reasons = []
    for number in range(6):
        hub.set_faults([Fault(CDN, etag=f"node-{number}")])
        try:
            assert large.read(10, 20) == CONTENT[10:20]
        except Failure as failure:
            reasons.append(failure.reason)
    assert reasons == [Reason.OTHER_VERSION]


def test_one_odd_answer_does_not_end_ranges(hub: LocalHub, large: Reader) -> None:
    hub.set_faults([Fault(CDN, status=416, times=1)])
    assert large.read(10, 20) == CONTENT[10:20]
    assert large.read(20, 30) == CONTENT[20:30]
    ranges = [one.range for one in hub.requests() if one.request_class is CDN]
    assert ranges == ["bytes=10-19", None, "bytes=20-29"]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://huggingface.co/a/b", ("https", "huggingface.co", 443)),
        ("HTTPS://HuggingFace.co:443/", ("https", "huggingface.co", 443)),
        ("http://127.0.0.1/x", ("http", "127.0.0.1", 80)),
        ("http://LOCALHOST:8080", ("http", "localhost", 8080)),
        ("http://[::1]:80/x", ("http", "::1", 80)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, found: tuple[str, str, int]) -> None:
    assert origin(url) == found


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://huggingface.co:443/a?b", "huggingface.co"),
        ("http://127.0.0.1:8080/x", "127.0.0.1:8080"),
        ("http://[::1]/x", "[::1]"),
    ],
)
def test_a_message_names_the_host_alone(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("endpoint", "link", "found"),
    [
        (
            "http://m.example",
            "https://huggingface.co/api/x?cursor=1",
            "http://m.example/api/x?cursor=1",
        ),
        ("http://m.example", "/api/x?cursor=1", "http://m.example/api/x?cursor=1"),
        ("http://m.example", "?cursor=1", "http://m.example/api/now?cursor=1"),
        ("http://m.example/hf", "https://huggingface.co/api/x", "http://m.example/hf/api/x"),
        ("http://m.example/hf", "http://m.example/hf/api/x", "http://m.example/hf/api/x"),
        ("http://m.example/hf/", "/hf/api/x", "http://m.example/hf/api/x"),
    ],
)
def test_a_link_is_followed_at_the_endpoint(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, link: str, found: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    assert at_endpoint(f"{endpoint}/api/now", link) == found
