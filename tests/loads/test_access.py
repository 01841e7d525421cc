"""Who may read what: private and gated repositories, good, foreign and stale tokens."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import nbloader
from nbloader.errors import NbloaderError
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.records import Checked, CheckStatus, Event
from tests.conftest import Publish
from tests.loads.test_bad_input import RIGHT

OWNER, STRANGER, STALE, NARROW, TICKED = (
    f"hf_{name}{'x' * 28}" for name in ("owner", "other", "stale", "narrow", "ticked")
)
ADD = "Pass it as `token=`, or store it with `hf auth login`."
NEW = f"Make a new token at https://huggingface.co/settings/tokens. {ADD}"
PAGE = "Accept them at https://huggingface.co/{repo}"
TOKENS = "https://huggingface.co/settings/tokens"
LIMIT_S = 3.0


@pytest.fixture
def repo_id(hub: LocalHub, publish: Publish, request: pytest.FixtureRequest) -> str:
    repo_id = publish(RIGHT)
    hub.add_token(OWNER, repos=[repo_id])
    hub.add_token(STRANGER)
    hub.add_token(STALE, stale=True)
    hub.add_token(NARROW, repos=[repo_id], fine_grained=True)
    hub.add_token(TICKED, fine_grained=True, reads_gated=True)
    return repo_id


@pytest.mark.parametrize(
    ("access", "token", "reference", "message", "hint"),
    [
        (
            {"private": True},
            False,
            "repo-not-found",
            "{repo} does not exist, or is private",
            f"Check the spelling. A private repository needs a token. {ADD}",
        ),
        (
            {"private": True},
            STRANGER,
            "repo-not-found",
            "{repo} does not exist, or is private and the token does not open it",
            "Check the spelling. For a private repository, use a token of an account that may "
            "read it.",
        ),
        (
            {"private": True},
            STALE,
            "invalid-token",
            "the Hub does not accept the token, and without one {repo} cannot be read",
            NEW,
        ),
        (
            {"gated": "manual"},
            False,
            "gated-repo",
            "{repo} is gated: its conditions have to be accepted first",
            f"{PAGE} and use a token of that account. {ADD}",
        ),
        (
            {"gated": "manual"},
            STALE,
            "invalid-token",
            "the Hub does not accept the token, and without one {repo} cannot be read",
            NEW,
        ),
        (
            {"gated": "auto"},
            STRANGER,
            "gated-repo",
            "{repo} is gated: its conditions have to be accepted first",
            f"{PAGE} with the account of the token.",
        ),
        (
            {"gated": "auto"},
            TICKED,
            "gated-repo",
            "{repo} is gated: its conditions have to be accepted first",
            f"{PAGE} with the account of the token.",
        ),
        (
            {"gated": "auto"},
            NARROW,
            "gated-repo",
            "{repo} is gated, and the token has no permission to read gated repositories",
            f'Edit the token at {TOKENS} and tick "Read access to contents of all public gated '
            'repos you can access". The conditions at https://huggingface.co/{repo} have to be '
            "accepted too, with the account of the token.",
        ),
        (
            {"private": True},
            TICKED,
            "repo-not-found",
            "{repo} does not exist, or is private and the token does not open it",
            f"Check the spelling. For a private repository, edit the token at {TOKENS}: it is "
            'fine-grained, and needs the box "Read access to contents of selected repos" for this '
            "repository.",
        ),
    ],
    ids=[
        "private",
        "private, foreign token",
        "private, stale token",
        "gated",
        "gated, stale token",
        "gated, foreign token",
        "gated, foreign fine-grained token",
        "gated, fine-grained token without permission",
        "private, foreign fine-grained token",
    ],
)
def test_without_access_the_hint_fits_the_case(
    hub: LocalHub,
    repo_id: str,
    tmp_path: Path,
    access: dict[str, object],
    token: str | bool,
    reference: str,
    message: str,
    hint: str,
) -> None:
    hub.set_access(repo_id, **access)  # type: ignore[arg-type]
    with pytest.raises(NbloaderError) as caught:
        nbloader.download(
            repo_id, endpoint=hub.endpoint, cache_dir=tmp_path, view="none", token=token
        )
    error = caught.value
    assert (error.reference, error.message, error.hint) == (
        reference,
        message.format(repo=repo_id),
        hint.format(repo=repo_id),
    )
    assert str(token) not in f"{error}{error.__cause__}{error.__context__}"
    assert hub.counters().of(RequestClass.WHOAMI).requests == (1 if token else 0)
    assert hub.counters().of(RequestClass.CDN_GET).requests == 0
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 99
    ] == []

    report = nbloader.preflight(repo_id, endpoint=hub.endpoint, cache_dir=tmp_path, token=token)
    assert [(item.name, item.status, item.message) for item in report.failures] == [
        ("access", CheckStatus.FAILED, message.format(repo=repo_id))
    ]


@pytest.mark.parametrize(
    ("access", "message"),
    [
        ({"private": True}, "{repo} is private and can be read, with a token (argument)"),
        ({"gated": "auto"}, "{repo} is gated and can be read, with a token (argument)"),
        ({}, "{repo} is public and can be read, with a token (argument)"),
    ],
)
def test_with_access_it_loads(
    hub: LocalHub, repo_id: str, tmp_path: Path, access: dict[str, object], message: str
) -> None:
    hub.set_access(repo_id, **access)  # type: ignore[arg-type]
    events: list[Event] = []
    folder = nbloader.download(
        repo_id,
        endpoint=hub.endpoint,
        cache_dir=tmp_path,
        view="none",
        token=OWNER,
        on_event=events.append,
    )
    assert (folder / "model.safetensors").read_bytes() == RIGHT["model.safetensors"]
    results = next(event.results for event in events if isinstance(event, Checked))
    assert {item.name: item.message for item in results}["access"] == message.format(repo=repo_id)
    assert hub.counters().cdn_authorizations == 0


def test_without_an_answer_about_the_token_the_hint_names_both_causes(
    hub: LocalHub, repo_id: str, tmp_path: Path
) -> None:
    hub.set_access(repo_id, gated="auto")
    hub.set_faults([Fault(RequestClass.WHOAMI, status=429)])
    with pytest.raises(NbloaderError) as caught:
        nbloader.download(
            repo_id, endpoint=hub.endpoint, cache_dir=tmp_path, view="none", token=NARROW
        )
    assert caught.value.hint == (
        f"{PAGE.format(repo=repo_id)} with the account of the token; a fine-grained one needs the "
        'box "Read access to contents of all public gated repos you can access".'
    )


@pytest.mark.timed
@pytest.mark.parametrize(
    ("access", "token"),
    [
        ({"gated": "manual"}, False),
        ({"gated": "manual"}, NARROW),
        ({"private": True}, False),
        ({"private": True}, STALE),
        (None, False),
        (None, STRANGER),
    ],
    ids=["gated", "gated, token", "private", "private, token", "missing", "missing, token"],
)
def test_a_load_without_access_ends_soon_with_a_short_text_and_no_weights(
    hub: LocalHub,
    repo_id: str,
    tmp_path: Path,
    access: dict[str, object] | None,
    token: str | bool,
) -> None:
    if access is not None:
        hub.set_access(repo_id, **access)  # type: ignore[arg-type]
    began_at = time.monotonic()
    with pytest.raises(NbloaderError) as caught:
        nbloader.load(
            "org/nothing-here" if access is None else repo_id,
            endpoint=hub.endpoint,
            cache_dir=tmp_path,
            view="none",
            token=token,
        )
    assert time.monotonic() - began_at < LIMIT_S
    assert len(str(caught.value).splitlines()) <= 6
    assert hub.counters().of(RequestClass.CDN_GET).requests == 0


def test_a_public_model_with_a_stale_token_goes_on_with_a_warning(
    hub: LocalHub, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.set_access(repo_id)
    monkeypatch.setenv("HF_TOKEN", STALE)
    events: list[Event] = []
    folder = nbloader.download(
        repo_id, endpoint=hub.endpoint, cache_dir=tmp_path, view="none", on_event=events.append
    )
    assert (folder / "config.json").is_file()
    results = next(event.results for event in events if isinstance(event, Checked))
    warnings = [
        (item.name, item.message, item.reference)
        for item in results
        if item.status is CheckStatus.WARNING
    ]
    assert warnings == [
        (
            "access",
            f"{repo_id} is public; the Hub does not accept the token (HF_TOKEN), so it goes on "
            "without one",
            "invalid-token",
        )
    ]


def test_a_repository_that_does_not_exist(hub: LocalHub, tmp_path: Path) -> None:
    with pytest.raises(NbloaderError) as caught:
        nbloader.load("org/nothing-here", endpoint=hub.endpoint, cache_dir=tmp_path, view="none")
    assert (caught.value.reference, caught.value.message) == (
        "repo-not-found",
        "org/nothing-here does not exist, or is private",
    )
