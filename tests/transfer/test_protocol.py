from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nbloader.errors import NoWeightsError, ProtocolError
from nbloader.records import (
    FileDone,
    FileProgress,
    Kind,
    Notice,
    Retry,
    Selected,
    SelectionRequest,
    Stage,
    StageStarted,
    TransferPolicy,
)
from nbloader.transfer.protocol import (
    Command,
    Fetch,
    Finished,
    Hello,
    Report,
    Sketch,
    Start,
    Stopped,
    decode_command,
    decode_report,
    encode,
    stopped,
)
from tests.samples import SELECTION

START = Start(
    repo_id="org/name",
    revision="main",
    request=SelectionRequest(kind=Kind.DIFFUSERS, variant="fp16"),
    policy=TransferPolicy(max_retries=2),
    token="hf_secret",
)
REPORTS: tuple[Report, ...] = (
    Hello(version=4),
    StageStarted(stage=Stage.SET_UP),
    Selected(selection=SELECTION, cached=("model_index.json",)),
    FileProgress(path="a\nb\u2028", completed=3),
    FileDone(path="a"),
    Retry(time=1.5, path=None, reason="r", wait_s=5, attempt=1, max_attempts=5),
    Notice(reference="r", message="m", hint="h"),
    Finished(folder="/x"),
    Stopped(reference="r", message="m", hint="h"),
)


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_is_one_line_and_comes_back_as_it_was(report: Report) -> None:
    line = encode(report)
    assert line.count(b"\n") == 1
    assert decode_report(line) == report


@pytest.mark.parametrize("command", [START, Fetch(), Sketch(folder="/tmp/a b")])
def test_a_command_comes_back_as_it_was(command: Command) -> None:
    assert decode_command(encode(command)) == command


def test_a_token_is_not_shown() -> None:
    assert "hf_secret" not in repr(START)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"null",
        b"[1]",
        b"\xff\xfe",
        b"{" * 100_000,
        b'{"type": "fetch"}',
        b'{"type": "of-tomorrow"}',
        b'{"type": "file-progress", "path": "a", "completed": "many"}',
        b'{"type": "hello", "version": 1, "token": "hf_secret"}'[:-1],
    ],
)
def test_what_is_no_report_is_an_error_without_the_line(line: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_report(line)
    assert "hf_secret" not in str(caught.value)


def test_a_report_is_no_command() -> None:
    with pytest.raises(ProtocolError):
        decode_command(json.dumps({"type": "hello", "version": 1}).encode())


@pytest.mark.parametrize(
    "message", [replace(START, revision="Be\ud800"), FileProgress(path="Be\ud800", completed=3)]
)
def test_half_a_character_is_an_error_without_the_line(message: Command | Report) -> None:
    with pytest.raises(ProtocolError) as caught:
        encode(message)
    assert "hf_secret" not in str(caught.value)


def test_an_error_reaches_the_parent_whatever_it_says() -> None:
    told = stopped(NoWeightsError("Be\ud800rt", hint="\ud800"))
    assert told == Stopped(reference="no-weights", message=r"Be\ud800rt", hint=r"\ud800")
    assert decode_report(encode(told)) == told
