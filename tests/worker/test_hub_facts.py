"""What the Hub's answers tell beside what was asked for; all of it may be hostile."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.records import RateLimitFacts
from nbloader.worker.answers import (
    RepoInfo,
    TokenScope,
    license_of,
    rate_limit_of,
    repo_info,
    tightest,
    token_scope,
    xet_host,
)

_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"cardData": {"license": "apache-2.0"}, "tags": ["license:mit"]}, "apache-2.0"),
        ({"cardData": {"license": "openrail++"}}, "openrail++"),
        (
            {"cardData": {"license": "other", "license_name": "flux-1-dev-non-commercial-license"}},
            "flux-1-dev-non-commercial-license",
        ),
        ({"cardData": {"license": "other", "license_name": "<b>"}}, "other"),
        ({"cardData": {"license": "mit", "license_name": "mine"}}, "mit"),
        ({"cardData": {"license": ["mit"]}, "tags": ["x", 7, "license:mit"]}, "mit"),
        ({"cardData": None, "tags": ["license:llama3.1"]}, "llama3.1"),
        ({"tags": ["license:<script>", "license:", "license:mit\n"]}, None),
        ({"cardData": {"license": "x" * 81}}, None),
        ({"cardData": {"license": "licençe"}}, None),
        ({"cardData": [], "tags": "license:mit"}, None),
        ({}, None),
    ],
)
def test_the_licence_is_a_plain_short_name(info: dict[str, Any], expected: str | None) -> None:
    assert license_of(info) == expected


SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"id": "new/name"}, {"repo_id": "new/name"}),
        ({"id": "gpt2"}, {"repo_id": "gpt2"}),
        ({"id": "../name"}, {}),
        ({"id": ["a/b"]}, {}),
        (
            {"pipeline_tag": "text-generation", "library_name": "sentence-transformers"},
            {"pipeline_tag": "text-generation", "library_name": "sentence-transformers"},
        ),
        ({"pipeline_tag": "<b>", "library_name": "x" * 65}, {}),
        ({"pipeline_tag": ["fill-mask"], "library_name": "a\nb"}, {}),
        ({"cardData": {"base_model": "org/base"}}, {"base_models": ("org/base",)}),
        (
            {
                "cardData": {"base_model": ["org/b", "org/a", "org/b", "/etc/passwd", None]},
                "tags": [
                    "base_model:org/a",
                    "base_model:adapter:org/c",
                    "base_model:../x",
                    "base_model:",
                    7,
                ],
            },
            {"base_models": ("org/b", "org/a", "org/c")},
        ),
        (
            {"tags": [f"base_model:merge:org/n{index}" for index in range(1000)]},
            {"base_models": tuple(f"org/n{index}" for index in range(8))},
        ),
        ({"cardData": ["org/a"], "tags": "base_model:org/a"}, {}),
    ],
)
def test_what_is_told_of_a_repository_is_names(
    info: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert repo_info({"sha": SHA, **info}, "org/name") == RepoInfo(
        **{"repo_id": "org/name", "commit_hash": SHA, **expected}
    )


@pytest.mark.parametrize("sha", [None, SHA[1:], f"{SHA}\n", SHA.upper(), int(SHA[:8], 16)])
def test_without_a_commit_nothing_is_told(sha: object) -> None:
    assert repo_info({"sha": sha, "id": "org/name"}, "org/name") is None


@given(_json)
def test_whatever_is_told_of_a_repository_is_read(answer: object) -> None:
    repo_info(answer, "org/name")
    card = {"sha": SHA, "cardData": answer, "tags": answer, "pipeline_tag": answer, "id": answer}
    assert repo_info(card, "org/name") is not None
    assert repo_info(card | {"cardData": {"base_model": answer}}, "org/name") is not None


@pytest.mark.parametrize(
    ("limit", "policy", "expected"),
    [
        ('"api";r=489;t=183', '"fixed window";"api";q=500;w=300', ("api", 489, 500, 300, 183)),
        ('"api"; r=0; t=5', '"x";"pages";q=9;w=9, "y";"api";q=5;w=3', ("api", 0, 5, 3, 5)),
        (
            '"resolvers";r=7;t=1',
            '"fixed window";"api";q=500;w=300',
            ("resolvers", 7, None, None, 1),
        ),
        ('"api";r=7;t=1', "", ("api", 7, None, None, 1)),
        ('"api";r=-7;t=1', "", None),
        ('"a<b>";r=7;t=1', "", None),
        (f'"{"a" * 41}";r=7;t=1', "", None),
        (f'"api";r={"9" * 400};t=1', "", None),
        ("api;r=7;t=1", "", None),
        ("", '"fixed window";"api";q=500;w=300', None),
    ],
)
def test_the_rate_limit_is_read_from_its_headers(
    limit: str, policy: str, expected: tuple[Any, ...] | None
) -> None:
    found = rate_limit_of({"RateLimit": limit, "RateLimit-Policy": policy})
    names = ("kind", "remaining", "limit", "window_s", "reset_s")
    assert found == (expected and RateLimitFacts(**dict(zip(names, expected, strict=True))))


def test_the_tightest_limit_leaves_the_fewest_requests() -> None:
    def left(kind: str, remaining: int) -> RateLimitFacts:
        return RateLimitFacts(kind=kind, remaining=remaining, limit=None, window_s=None, reset_s=1)

    assert tightest([left("resolvers", 50), left("api", 7), left("pages", 70)]) == left("api", 7)
    assert tightest([]) is None


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (
            "https://cas-server.xethub.hf.co/v1/reconstructions/00",
            "https://cas-server.xethub.hf.co",
        ),
        ("https://cas.example:8443/v1?x=1#y", "https://cas.example:8443"),
        ("https://[::1]:8443/v1", "https://[::1]:8443"),
        ("https://[::1]/v1", "https://[::1]"),
        ("http://cas.example/v1", None),
        ("ftp://cas.example/v1", None),
        ("https://user:secret@cas.example/v1", None),
        ("https://cas.example:99999/", None),
        ("https://cas.example:x/", None),
        ("https://<b>/", None),
        ("https:///v1", None),
        ("/v1/reconstructions/00", None),
        (None, None),
        (7, None),
    ],
)
def test_the_host_of_xet_storage_is_a_plain_address(link: object, expected: str | None) -> None:
    assert xet_host(link, "https://huggingface.co") == expected


def test_on_loopback_xet_storage_may_be_plain_http() -> None:
    assert xet_host("http://127.0.0.1:80/v1", "http://127.0.0.1:9") == "http://127.0.0.1:80"


def whoami(**token: object) -> dict[str, object]:
    return {"name": "ann", "auth": {"type": "access_token", "accessToken": token}}


NARROW = TokenScope(fine_grained=True, reads_gated=False)


@pytest.mark.parametrize(
    ("answer", "scope"),
    [
        (whoami(role="read"), TokenScope()),
        (whoami(role="fineGrained", fineGrained={"canReadGatedRepos": False}), NARROW),
        (whoami(role="fineGrained", fineGrained={}), NARROW),
        (whoami(role="fineGrained", fineGrained={"canReadGatedRepos": "yes"}), NARROW),
        (
            whoami(role="fineGrained", fineGrained={"canReadGatedRepos": True, "global": []}),
            TokenScope(fine_grained=True),
        ),
        (whoami(role="fineGrained"), TokenScope()),
        ({"auth": None}, TokenScope()),
        ([], TokenScope()),
    ],
)
def test_what_a_token_may_do(answer: object, scope: TokenScope) -> None:
    assert token_scope(answer) == scope


@given(_json, st.text(max_size=99))
def test_no_answer_brings_an_error(value: Any, text: str) -> None:
    token_scope(value)
    xet_host(text, "https://huggingface.co")
    xet_host(f"https://{text}", "https://huggingface.co")
    rate_limit_of({"RateLimit": text, "RateLimit-Policy": text})
    license_of({"cardData": value, "tags": value})
