"""The arguments, the reporting and the ends of a call."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader import loaders
from nbloader.errors import (
    HubUnreachableError,
    Interrupted,
    InvalidArgumentError,
)
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from nbloader.records import Event, Failed, FileProgress, Ready
from nbloader.request import Call, Request, checked

TOKEN = "hf_" + "q" * 34


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"verify": None}, "verify must be a bool, not None"),
        ({"trust_remote_code": "no"}, "trust_remote_code must be a bool, not 'no'"),
        ({"cache_dir": 3}, "cache_dir=3 is not a folder"),
        ({"cache_dir": ""}, "cache_dir='' is not a folder"),
        ({"settings": "fast"}, "settings must be a mapping of names to values, not 'fast'"),
        ({"loader_kwargs": [1]}, "loader_kwargs must be a mapping of names to values, not [1]"),
        ({"on_event": 3}, "on_event=3 cannot be called"),
        ({"token": TOKEN.encode()}, "token= is not a token (bytes)"),
        ({"token": 3}, "token= is not a token (int)"),
        ({"token": "two words"}, "token= is not a token (str)"),
        ({"token": "hf_ü"}, "token= is not a token (str)"),
        ({"endpoint": f"http://me:{TOKEN}@host"}, "endpoint is not the address of a Hub"),
        ({"view": "video"}, "view='video' is not allowed"),
    ],
)
def test_a_wrong_argument_is_named_and_no_token_shown(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        checked(Call(repo_id="org/name", **arguments))
    assert caught.value.message == message
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "given", "used"),
    [
        ({}, None, None),
        ({}, False, False),
        ({}, f" {TOKEN}\n", TOKEN),
        ({"HF_TOKEN": f"{TOKEN}\n"}, None, TOKEN),
        ({"HF_TOKEN": TOKEN}, False, False),
        ({"HF_TOKEN": TOKEN}, "hf_other", "hf_other"),
        ({"HUGGING_FACE_HUB_TOKEN": TOKEN}, None, TOKEN),
        ({"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None, False),
        ({"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, True, TOKEN),
    ],
)
def test_which_token_is_used(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    given: str | bool | None,
    used: str | bool | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    request = checked(Call(repo_id="org/name", token=given))
    assert request.token == used
    assert TOKEN not in repr(request)


@pytest.mark.parametrize(
    ("variable", "value"), [("HF_ENDPOINT", "http://me:secret@host"), ("HF_TOKEN", "two words")]
)
def test_a_wrong_variable_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidArgumentError) as caught:
        checked(Call(repo_id="org/name"))
    assert variable in caught.value.message
    assert value not in str(caught.value)


def test_torchs_own_objects_are_understood(tmp_path: Path) -> None:
    import torch

    call = Call(
        repo_id="org/name",
        device=torch.device("cuda", 1),
        dtype=torch.float16,
        cache_dir=tmp_path / "a" / ".." / "b",
    )
    request: Request = checked(call)
    assert (request.device, request.dtype) == ("cuda:1", "float16")
    assert request.cache_dir == str(tmp_path / "b")


def test_an_on_event_that_fails_ends_the_job_and_is_not_called_again(
    demo_hub: LocalHub, tmp_path: Path
) -> None:
    calls: list[str] = []

    def on_event(event: Event) -> None:
        calls.append(event.type)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nbloader.download(
            MINILM,
            endpoint=demo_hub.endpoint,
            cache_dir=tmp_path,
            view="none",
            on_event=on_event,
        )
    assert calls == ["stage-started"]


@pytest.mark.parametrize(
    ("error", "seen"), [(KeyError("mine"), KeyError), (KeyboardInterrupt(), Interrupted)]
)
def test_an_error_of_whoever_is_told_of_the_end_keeps_no_model(
    demo_hub: LocalHub, tmp_path: Path, error: BaseException, seen: type[BaseException]
) -> None:
    gc.collect()  # of other tests
    gc.collect()  # A model of another test may wait for it.
    before = loaders.loaded()

    def on_event(event: Event) -> None:
        if isinstance(event, Ready):
            raise error

    with pytest.raises(seen) as caught:
        nbloader.load(
            MINILM,
            endpoint=demo_hub.endpoint,
            cache_dir=tmp_path,
            view="none",
            on_event=on_event,
        )
    gc.collect()
    assert loaders.loaded() == before
    assert caught.value.__traceback__ is not None


def test_a_cancelled_job_says_that_it_was_stopped(
    demo_hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo_hub.set_faults([Fault(RequestClass.CDN_GET, bytes_per_second=500_000)])
    events: list[Event] = []

    async def main() -> None:
        task = asyncio.current_task()
        assert task
        loop = asyncio.get_running_loop()

        def on_event(event: Event) -> None:
            events.append(event)
            if isinstance(event, FileProgress):
                loop.call_soon_threadsafe(task.cancel)

        await nbloader.aload(
            MINILM,
            endpoint=demo_hub.endpoint,
            cache_dir=tmp_path,
            view="text",
            on_event=on_event,
        )

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert events[-1] == Failed(
        reference="cancelled",
        message="the job was cancelled",
        hint="Run it again: what has arrived is kept.",
    )
    last = capsys.readouterr().out.splitlines()[-1]
    kept = "(.* are kept|nothing had arrived yet|the download had not begun)"
    assert re.fullmatch(rf"stopped after [\d.]+ s; ({kept}; )?run it again to .*", last)


def test_the_folder_in_the_last_line_does_not_name_its_user(
    demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    events: list[Event] = []
    folder = nbloader.download(
        MINILM,
        endpoint=demo_hub.endpoint,
        cache_dir="~/cache",
        view="none",
        on_event=events.append,
    )
    assert events[-1] == Ready(summary=f"~/{folder.relative_to(tmp_path)}")


class _SignInPage(BaseHTTPRequestHandler):
    content = b"<html>Please sign in</html>"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _SignInPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    "content", [b"<html>Please sign in</html>", b"null", b"[]", b"{}", b'{"sha": "../x"}', b"\xff"]
)
def test_a_sign_in_page_is_not_taken_for_a_hub(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(_SignInPage, "content", content)
    with pytest.raises(HubUnreachableError, match="does not answer like a Hub"):
        nbloader.download("org/name", endpoint=page, cache_dir=tmp_path, view="none")
