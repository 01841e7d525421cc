from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.redaction import MAX_CHARACTERS, Redactor, short_path

TOKEN = "hf_" + "s" * 34
SEKRET = "sEkReT1"
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
        ("token: sekret", "token: ***"),
        ("token = sekret", "token = ***"),
        ("{'token': 'sekret', 'x': 1}", "{'token': '***', 'x': 1}"),
        ('{"x-api-key": "a b", "x": 1}', '{"x-api-key": "***", "x": 1}'),
        (r'"{\"secret\": \"a b\", \"x\": 1}"', r'"{\"secret\": \"***\", \"x\": 1}"'),
        (r'{"secret": "a\"b", "x": 1}', '{"secret": "***", "x": 1}'),
        ("password='my \"own\" word' x", "password='***' x"),
        ("cookie: session=abc; other=def\nx", "cookie: ***\nx"),
        ("{'Set-Cookie': 'a=b; Path=/', 'x': 1}", "{'Set-Cookie': '***', 'x': 1}"),
        ("Authorization: Token abcdef", "Authorization: ***"),
        ('Proxy-Authorization: Digest a="b", c="d"\r\nx', "Proxy-Authorization: ***\r\nx"),
        ("{'authorization': 'Token abcdef', 'x': 1}", "{'authorization': '***', 'x': 1}"),
        ("the tokenizer: Qwen2Tokenizer", "the tokenizer: Qwen2Tokenizer"),
        ("no token, no cookie", "no token, no cookie"),
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


_words = st.lists(
    st.sampled_from(
        [
            *("token", "cookie", "authorization", "bearer ", "basic ", "password", "abc"),
            *(": ", "=", "'", '"', "\\", " ", "\n", ";"),
            *("?x=y", "me:pass@", "https://", "/home/bob"),
        ]
    ),
    max_size=14,
).map("".join)


@given(_words)
def test_words_of_secrets_in_any_order_are_done_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(
    st.sampled_from(["token", "X-Api-Key", "cookie", "Authorization", "password"]),
    st.sampled_from([": ", "=", ":", " = "]),
    st.sampled_from(["{}", "'{}'", '"{}"', r"\"{}\""]),
    st.sampled_from([SEKRET, f"Token{SEKRET}", f"a.{SEKRET}-_/+="]),
    _around,
)
def test_a_named_secret_does_not_show(
    name: str, is_: str, quoted: str, secret: str, after: str
) -> None:
    for text in (f"{name}{is_}{quoted}", f"'{name}'{is_}{quoted}"):
        assert SEKRET not in redact(f"{text.format(secret)} {after}")


@given(st.text(max_size=300))
def test_it_takes_any_text_and_is_done_once(text: str) -> None:
    once = redact(text)
    assert len(once) <= MAX_CHARACTERS
    assert redact(once) == once


@pytest.mark.parametrize(
    "part",
    [
        *("a:", "a-", "//", "token", "?a", "/home/", "https://", "eyJ."),
        *("token:", "_token_", "cookie: '", 'token="\\', "authorization:\\", "=\\'"),
    ],
)
def test_a_hostile_text_is_cut(part: str) -> None:
    assert 0 < len(redact(part * 100_000)) <= MAX_CHARACTERS


def test_a_path_without_the_name_of_its_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, home = tmp_path / "disk" / "alice", tmp_path / "alice"
    real.mkdir(parents=True)
    home.symlink_to(real)
    monkeypatch.setenv("HOME", str(home))
    shown_as = {
        str(home): "~",
        f"{home}/.cache/x": "~/.cache/x",
        str(real / "x"): "~/x",
        f"{home}2/x": f"{home}2/x",
        "/other": "/other",
        "alice/x": "alice/x",
    }
    for path, shown in shown_as.items():
        assert short_path(path) == short_path(Path(path)) == shown
        assert (
            not shown.startswith("~") or Path(shown).expanduser().resolve() == Path(path).resolve()
        )
    monkeypatch.setenv("HOME", "/")
    assert short_path("/x") == "/x"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert short_path("/home/alice/x") == "/home/alice/x"
    assert Redactor.here() == Redactor()
