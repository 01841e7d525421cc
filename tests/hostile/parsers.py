"""`python -m tests.hostile.parsers SECONDS [PARSER ...]`: readers of foreign bytes, and wrong ones.

Inputs are made of right ones (`corpus`) by changes that break formats: bits, lengths, pieces cut
out, twice or from another input. Whatever comes, a parser returns or raises what it promises. Tests
try some of each; this runs for as long as it is told, and says what it did.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from nbloader import settings
from nbloader.bounds import json_value
from nbloader.errors import InvalidSettingError, NbloaderError, ProtocolError
from nbloader.history import _parse as parse_job
from nbloader.hub_cache.journal import JournalHeader, _header_line, _record, parse_journal
from nbloader.hub_cache.ranges import Span
from nbloader.records import RepoFile, Retry
from nbloader.selection import look_through, parse_header
from nbloader.selection.gguf import gguf_bytes_needed, parse_gguf
from nbloader.transfer.protocol import Alive, Fetch, Hello, decode_command, decode_report, encode
from nbloader.worker.answers import repo_info
from nbloader.worker.hub import _repo_file
from tests import gguf_files, pickled
from tests.hostile.hub import COMMIT, FILES, REPO_ID, entry, safetensors

__all__ = ["PARSERS", "Parser", "wrong_inputs"]

MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """Something that reads foreign bytes.

    Attributes:
        read: reads them.
        raises: what it may raise.
        corpus: makes right inputs.
    """

    read: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    corpus: Callable[[], Sequence[bytes]]


def _file(content: bytes, path: str) -> RepoFile:
    return RepoFile(path=path, size=len(content), etag="0" * 64, lfs=True)


def _gguf(content: bytes) -> None:
    file = _file(content, "model.gguf")
    needed = gguf_bytes_needed(b"", file)
    while needed is not None and needed <= len(content):
        start = content[:needed]
        following = gguf_bytes_needed(start, file)
        assert following is None or following > needed
        needed = following
    if needed is None:
        parse_gguf(content, file)


def _pickle(content: bytes) -> None:
    look_through(_file(content, "model.bin"), lambda first, last: content[first:last])


def _answers(content: bytes) -> None:
    found = json_value(content)
    repo_info(found, REPO_ID)
    for each in found if isinstance(found, list) else []:
        if isinstance(each, dict):
            _repo_file(each)


def _settings(content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    settings._pyproject(text)
    settings._shared_yaml(text)
    settings._own_yaml(text)


def _lines(content: bytes) -> None:
    for decode in (decode_report, decode_command):
        with suppress(ProtocolError):
            decode(content)


def _journals() -> list[bytes]:
    header = JournalHeader(
        path="a.bin", revision="main", commit_hash=COMMIT, etag="a" * 64, size=1 << 20
    )
    line, seed = _header_line(header)
    spans: list[Span] = [(0, 4096), (8192, 65536), (1 << 19, 1 << 20)]
    return [line + b"".join(_record(span, seed) for span in spans), line]


def _messages() -> list[bytes]:
    retry = Retry(time=1.0, path="a", reason="b", wait_s=1.0, attempt=1, max_attempts=5)
    return [encode(each) for each in (Hello(version=9), Alive(busy=True), retry, Fetch())]


PARSERS: Mapping[str, Parser] = {
    "safetensors": Parser(
        read=lambda content: parse_header(content, _file(content, "model.safetensors")),
        raises=(NbloaderError,),
        corpus=lambda: [safetensors(512), FILES["model.safetensors"]],
    ),
    "gguf": Parser(
        read=_gguf,
        raises=(NbloaderError,),
        corpus=lambda: [
            gguf_files.gguf_file(
                {"general.architecture": "llama", "general.alignment": 32, "a": ["b", "c"]},
                {"w": ("F32", (4, 4), None), "q": ("Q8_0", (2, 32), None)},
            )
        ],
    ),
    "pickle": Parser(
        read=_pickle,
        raises=(NbloaderError,),
        corpus=lambda: [
            pickled.archive(pickled.tensor_pickle(), {"0": bytes(16)}),
            pickled.tensor_pickle(),
        ],
    ),
    "journal": Parser(read=parse_journal, raises=(), corpus=_journals),
    "answers": Parser(
        read=_answers,
        raises=(NbloaderError, ValueError, RecursionError),
        corpus=lambda: [
            json.dumps([entry(*each) for each in FILES.items()]).encode(),
            json.dumps({"id": REPO_ID, "sha": "a" * 40, "tags": ["license:mit"]}).encode(),
        ],
    ),
    "lines": Parser(read=_lines, raises=(), corpus=_messages),
    "settings": Parser(
        read=_settings,
        raises=(InvalidSettingError,),
        corpus=lambda: [
            b"download:\n  max_retries: 5\n  route: http\n",
            b"[tool.nbloader]\nmax_retries = 5\n",
        ],
    ),
    "history": Parser(
        read=parse_job,
        raises=(),
        corpus=lambda: [b'{"format": 1, "repo_id": "org/name", "stages": [], "retries": []}'],
    ),
}

_ODD = (
    *(b"\0", b"\xff", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8, b"\x80", b"\n", b'"', b"{"),
    *(b"[" * 2000, b'{"a":' * 500, b"&a [*a]", b"1e999", b"-1", b"9" * 400, b"NaN", b"null"),
    *(b"\\u", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"../../x", b"c__builtin__\neval\n"),
)


def wrong_inputs(corpus: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Yield inputs without an end, the same ones for the same seed."""
    random = Random(seed)
    while True:
        content = bytearray(random.choice(corpus))
        for _ in range(random.randint(1, 6)):
            first = random.randint(0, len(content))
            last = min(len(content), first + random.choice((0, 1, 1, 2, 4, 8, 64)))
            piece = random.choice(corpus)
            at = random.randint(0, len(piece))
            content[first:last] = random.choice(
                (
                    b"",
                    random.randbytes(last - first),
                    random.choice(_ODD),
                    content[first:last] * 2,
                    piece[at : at + random.randint(0, 64)],
                    bytes(byte ^ (1 << random.randint(0, 7)) for byte in content[first:last]),
                )
            )
        yield bytes(content[:MOST_BYTES])


def _run(name: str, seconds: float) -> str:
    parser, tried, refused, slowest = PARSERS[name], 0, 0, 0.0
    until = time.monotonic() + seconds
    for content in wrong_inputs(parser.corpus(), seed=int(time.time())):
        began = time.monotonic()
        if began > until:
            break
        tried += 1
        try:
            parser.read(content)
        except parser.raises:
            refused += 1
        except BaseException:
            sys.stderr.write(f"{name}: {content!r}\n")
            raise
        slowest = max(slowest, time.monotonic() - began)
    return f"{name}: {tried} inputs, {refused} refused by an error, the slowest {slowest:.3f} s"


if __name__ == "__main__":
    for chosen in sys.argv[2:] or PARSERS:
        sys.stdout.write(_run(chosen, float(sys.argv[1])) + "\n")
        sys.stdout.flush()
