from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.redaction import MAX_CHARACTERS, Redactor

TOKEN = "hf_" + "s" * 34
redact = Redactor(homes=("/home/alice", "/data/people/alice"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing of note: 3 of 5, a=b", "nothing of note: 3 of 5, a=b"),
        (f"token {TOKEN}.", "token ***."),
        ("api_org_" + "x" * 34, "***"),
        ("hf_transfer and hf_xet stay", "hf_transfer and hf_xet stay"),
        (f"a={'eyJhbGciOiJI'}.{'eyJzdWIi'}.sig-_", "a=***"),
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        ("'authorization': 'Basic YWJj'", "'authorization': 'Basic ***'"),
        ("sent Bearer abc, twice", "sent Bearer ***, twice"),
        ("HF_TOKEN=abc&x", "HF_TOKEN=***&x"),
        ("Pass it as `token=`, or not", "Pass it as `token=`, or not"),
        ("password=a api_key=b secret=c", "password=*** api_key=*** secret=***"),
        ("GET https://h.example/a/b?X-Amz-Signature=ab&c=d now", "GET https://h.example/a/b now"),
        ("https://me:pass@mirror.example:80/hub#part", "https://mirror.example:80/hub"),
        ("https://me:pa/ss@mirror.example/", "https://***"),
        ("https://me:p?x=y@mirror.example/hub", "https://mirror.example/hub"),
        ("https://huggingface.co/org/name@main", "https://huggingface.co/org/name@main"),
        ("http://127.0.0.1:8000/@x", "http://127.0.0.1:8000/@x"),
        ("proxy me:pass@proxy:3128", "proxy ***@proxy:3128"),
        ("/api/models?token=abc rest", "/api/models rest"),
        ("/home/alice/x and (/home/alice)", "~/x and (~)"),
        ("/home/alice.", "~."),
        ("/home/alice2/x", "/home/***/x"),
        (
            "/home/bob/x, /Users/bob and /mnt/home/bob/x",
            "/home/***/x, /Users/*** and /mnt/home/***/x",
        ),
        (r"C:\Users\bob\x 'C:\\Users\\bob'", r"C:\Users\***\x 'C:\\Users\\***'"),
        ("/scratch/alice/hf; /scratch/alices", "/scratch/***/hf; /scratch/alices"),
        ("file:///home/alice/x", "file://~/x"),
        ("/data/people/alice/x", "~/x"),
    ],
)
def test_what_is_taken_out(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize("home", ["/", "", "/root", "/home/jovyan"])
def test_homes_that_name_nobody(home: str) -> None:
    own = Redactor(homes=(home,))
    assert own("/tmp/root/x /mnt/jovyan/y") == "/tmp/root/x /mnt/jovyan/y"
    if len(home) > 1:
        assert own(f"{home}/x") == "~/x"


def test_the_home_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/carol")
    assert Redactor.here()("in /home/carol/x") == "in ~/x"


_around = st.text(st.sampled_from(string.ascii_letters + " /:=?&@\"'.,-\n"), max_size=40)
_SECRETS = (
    TOKEN,
    "Bearer " + TOKEN,
    f"https://me:{TOKEN}@host/",
    f"/x?token={TOKEN}",
    f"X={TOKEN}",
)


@given(_around, st.sampled_from(_SECRETS), _around)
def test_a_token_does_not_show_whatever_stands_around_it(
    before: str, secret: str, after: str
) -> None:
    # A letter before it would make another word of it.
    assert TOKEN not in redact(f"{before} {secret} {after}")


@given(st.text(max_size=300))
def test_it_takes_any_text_and_is_done_once(text: str) -> None:
    once = redact(text)
    assert len(once) <= MAX_CHARACTERS
    assert redact(once) == once


@pytest.mark.parametrize("part", ["a:", "a-", "//", "token", "?a", "/home/", "https://", "eyJ."])
def test_a_hostile_text_is_cut(part: str) -> None:
    assert 0 < len(redact(part * 100_000)) <= MAX_CHARACTERS
