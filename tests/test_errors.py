from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never

import pytest
from hypothesis import given

from nbloader import errors
from nbloader.errors import NbloaderError, error_from_parts
from nbloader.notebook.error_cards import error_card, source_shown
from nbloader.redaction import Redactor
from nbloader.request.values import check_token
from nbloader.text import printable
from nbloader.transfer.policy import Reason
from nbloader.worker.answers import rate_limited
from nbloader.worker.failures import Failure
from tests.jobs import texts
from tests.notebook_fakes import running_kernel

HUB_TOKEN = "hf_" + "a" * 34
ALL = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]


def test_the_text_holds_message_hint_and_reference() -> None:
    error = errors.GatedRepoError("org/name is gated", hint="Accept its conditions.")
    assert str(error) == "org/name is gated\n  Hint: Accept its conditions.\n  [gated-repo]"


@pytest.mark.parametrize("kind", ALL)
def test_every_error_survives_pickling_and_a_trip_between_processes(
    kind: type[NbloaderError],
) -> None:
    error = kind("what", hint="do this")
    copies = (
        pickle.loads(pickle.dumps(error)),
        error_from_parts(error.reference, error.message, error.hint),
    )
    for copy in copies:
        assert (type(copy), copy.message, copy.hint) == (kind, "what", "do this")


def test_references_are_kebab_case_and_name_one_error_each() -> None:
    references = [kind.reference for kind in ALL]
    assert len(set(references)) == len(references)
    assert all(name.replace("-", "").isalpha() and name.islower() for name in references)


def test_an_unknown_reference_loses_nothing() -> None:
    error = error_from_parts("of-tomorrow", "what", "do this")
    assert (type(error), error.message, error.hint) == (NbloaderError, "what", "do this")


def test_every_error_of_the_module_is_exported() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, NbloaderError)
    }
    assert defined <= set(errors.__all__)


@pytest.mark.parametrize("kind", ALL)
def test_the_documentation_of_an_error_begins_with_a_sentence_for_its_card(
    kind: type[NbloaderError],
) -> None:
    first = (kind.__doc__ or "").partition("\n")[0]
    assert first.endswith(".")
    assert 20 < len(first) < 90


def test_steering_characters_stay_out_of_the_text() -> None:
    error = errors.DownloadError("a\x1b[31m\u202eb\nc", hint="x\r\n  y\x07")
    assert str(error) == "a [31m b\nc\n  Hint: x\n  y \n  [download-failed]"


@given(text=texts)
def test_foreign_lines_are_cleaned_in_one_way(text: str) -> None:
    lines = printable(text).split("\n")
    assert all(line.isprintable() for line in lines)
    assert list(map(len, lines)) == (list(map(len, text.splitlines())) or [0])


def test_what_is_printable_stays_as_it_is() -> None:
    assert printable("  a:\n    b  \tc\r\n\x1b[1m") == "  a:\n    b   c\n [1m"


# -- in IPython ------------------------------------------------------------------------------------

CARD = """\
InvalidRepoIdError: The value is not a repository id of the Hub.
  'no id' is not a repository id
  Hint: Ids look like "Qwen/Qwen-Image-Edit-2509".
  [invalid-repo-id]
{place}
The whole traceback: %tb"""


def test_a_terminal_shows_a_card(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor"),
            *("-c", "import nbloader; nbloader.load('no id')"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "IPYTHONDIR": str(tmp_path)},
    )
    place = "Cell In[1], line 1\n    import nbloader; nbloader.load('no id')"
    assert done.stdout.strip() == CARD.format(place=place)


@dataclass
class Notebook:
    """A notebook of a real kernel."""

    client: Any
    folder: Path

    def run(self, cell: str) -> list[str]:
        """Return the lines of the error that a cell shows, without colours."""
        shown: list[str] = []

        def note(message: Any) -> None:
            if message["msg_type"] == "error":
                shown.extend("\n".join(message["content"]["traceback"]).split("\n"))

        self.client.execute_interactive(cell, timeout=60, output_hook=note)
        return [re.sub(r"\x1b\[[\d;]*m", "", line) for line in shown]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    folder = tmp_path_factory.mktemp("notebook")
    with running_kernel(folder) as (client, _):
        notebook = Notebook(client, folder)
        assert not notebook.run("import nbloader\nfrom nbloader.errors import *")
        yield notebook


@pytest.mark.parametrize(
    ("cell", "place"),
    [
        ("x = 1\npipe = nbloader.load(\n    'no id',\n)", ("2", "    pipe = nbloader.load(")),
        ("await nbloader.aload('no id')", ("1", "    await nbloader.aload('no id')")),
        (
            "def twice():\n    return nbloader.load('no id')\n\ntwice()",
            ("2", "    return nbloader.load('no id')"),
        ),
    ],
    ids=["load", "aload", "function"],
)
def test_a_cell_shows_a_card(notebook: Notebook, cell: str, place: tuple[str, str]) -> None:
    head, *shown = notebook.run(cell)
    line, source = place
    cell_line = next(text for text in shown if text.startswith("Cell In["))
    assert re.fullmatch(rf"Cell In\[\d+\], line {line}", cell_line)
    expected = CARD.format(place=f"{cell_line}\n{source}")
    assert [head, *shown] == expected.split("\n")


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (
            f"nbloader.download('no id', token='{HUB_TOKEN}', revision='main')",
            "nbloader.download('no id', token=***, revision='main')",
        ),
        ("token = 'sekret'; nbloader.load('no id')", "token = ***; nbloader.load('no id')"),
        ("nbloader.load('no id', token=f'sekret{1}')", "nbloader.load('no id', token=***"),
        ("nbloader.load('no id',\n  token='sekret')", "nbloader.load('no id',"),
        ('nbloader.load("no id", token="""sek\nret""")', 'nbloader.load("no id", token=***'),
    ],
    ids=["hub-token", "assigned", "f-string", "next-line", "two-lines"],
)
def test_a_card_shows_no_token(notebook: Notebook, cell: str, shown: str) -> None:
    assert notebook.run(cell)[-2] == f"    {shown}"


def test_a_function_of_an_earlier_cell_is_named_with_that_cell(notebook: Notebook) -> None:
    shown = notebook.run("def fetch():\n    nbloader.load('no id')\n\nfetch()")
    assert notebook.run("fetch()") == shown
    assert shown[-2] == "    nbloader.load('no id')"


def test_the_cell_is_named_where_it_calls_a_file(notebook: Notebook) -> None:
    (notebook.folder / "own.py").write_text("import nbloader\nnbloader.load('no id')\n")
    shown = notebook.run("# mine\nimport own")
    assert re.fullmatch(r"Cell In\[\d+\], line 2", shown[-3])
    assert shown[-2] == "    import own"


def test_a_file_is_named_where_no_cell_is_under_way(notebook: Notebook) -> None:
    (notebook.folder / "script.py").write_text("import nbloader\nnbloader.load('no id')\n")
    shown = notebook.run("%run script.py")
    assert shown[-3].endswith("script.py, line 2")
    assert shown[-2] == "    nbloader.load('no id')"


CAUSED = """
def build():
    raise RuntimeError("a library's own words")

try:
    build()
except RuntimeError as error:
    raise ModelLoadError("it could not be built", hint="Do this:\\n\\n    a: 1\\n") from error
"""


def test_the_whole_traceback_is_kept_for_tb(notebook: Notebook) -> None:
    card = notebook.run(CAUSED)
    assert card[:5] == [
        "ModelLoadError: The model could not be built from its files.",
        "  it could not be built",
        "  Hint: Do this:",
        "    a: 1",
        "  [model-load-failed]",
    ]
    assert not any("own words" in line for line in card)
    for magic in ("%tb", "%tb Plain", "%tb"):
        whole = "\n".join(notebook.run(magic))
        assert "RuntimeError: a library's own words" in whole
        assert "build()" in whole
        assert "direct cause" in whole
        assert "[model-load-failed]" in whole
    assert notebook.run(CAUSED)[:5] == card[:5]


def test_an_error_that_is_raised_again_shows_its_card_again(notebook: Notebook) -> None:
    card = notebook.run("kept = NotCachedError('what', hint='do this')\nraise kept")
    assert notebook.run("%tb")[0].startswith("-----")
    assert notebook.run("raise kept")[:4] == card[:4]


def test_a_card_without_the_lines_of_its_cell(notebook: Notebook) -> None:
    shown = notebook.run(
        "import linecache\nlinecache.clearcache()\nraise NotCachedError('what', hint='do this')"
    )
    assert re.fullmatch(r"Cell In\[\d+\], line 3", shown[-2])
    assert shown[-1] == "The whole traceback: %tb"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@given(message=texts, hint=texts)
def test_a_card_is_short_and_steers_nothing(message: str, hint: str) -> None:
    error = raised(errors.WorkerDiedError(message, hint=hint))
    lines = error_card(error, message=message, hint=hint, reference="worker-died")
    assert len(lines) <= 12
    assert all(line.isprintable() for line in lines)
    assert sum(map(len, lines)) < 10_000


def test_the_lines_of_a_hint_stay_as_they_are() -> None:
    hint = "Put this there:\n\n    download:\n      max_retries: 5\n"
    error = errors.InvalidSettingError("what", hint=hint)
    assert error_card(error, message="what", hint=hint, reference="x")[2:6] == [
        "  Hint: Put this there:",
        "    download:",
        "      max_retries: 5",
        "  [x]",
    ]


def test_of_a_long_text_the_ends_stay() -> None:
    error = errors.WorkerDiedError("it died:\n1\n2\n3\n4", hint="x")
    lines = error_card(error, message=error.message, hint="x", reference="worker-died")
    assert lines[1:4] == ["  it died:", "  …", "  4"]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("nbloader.load('org/name')\n", "nbloader.load('org/name')"),
        ("load(x, token='sekret')", "load(x, token=***)"),
        ('load(x, token = "sek\\"ret", plan="cpu")', 'load(x, token = ***, plan="cpu")'),
        ("load(x, token=r'sekret')", "load(x, token=***"),
        ("load(x, token=b'sekret')", "load(x, token=***"),
        ('load(x, token="""sekret""", plan="cpu")', "load(x, token=***"),
        ('load(x, token="""sekret', "load(x, token=***"),
        ("load(x, token='sekret", "load(x, token=***"),
        ("load(x, token=('sekret'", "load(x, token=***"),
        ("load(x, token='a' 'sekret')", "load(x, token=***"),
        ("load(x, token='' 'sekret')", "load(x, token=***"),
        ("load(x, token=a or 'sekret')", "load(x, token=***"),
        ("load(x, token=f'{a}sekret')", "load(x, token=***"),
        ("""load(x, token=f"{a["b, c"]}sekret")""", "load(x, token=***"),
        ("load(x, token=own, plan='cpu')", "load(x, token=***, plan='cpu')"),
        ("load(x, token=", "load(x, token="),
        ("load(**{'token': 'sekret', 'x': 1})", "load(**{'token': ***, 'x': 1})"),
        ("dict([('token', 'sekret')])", "dict([('token', ***)])"),
        ("token: str = 'sekret'", "token: ***"),
        ("os.environ['HF_TOKEN'] = 'sekret'; load(x)", "os.environ['HF_TOKEN'] = ***; load(x)"),
        ("login(password='sekret', api_key='sekret')", "login(password=***, api_key=***)"),
        (f"login('{HUB_TOKEN}')", "login('***')"),
        (f"{'x' * 100}('{HUB_TOKEN}')", f"{'x' * 100}('***')"),
        (f"load({'x' * 114})", f"load({'x' * 114})"),
        (f"load({'x' * 110}, 5000)", f"load({'x' * 110}, 50…"),
        ("load('/home/alice/x')", "load('~/x')"),
        ("load('org/token', tokenizer='x')", "load('org/token', tokenizer='x')"),
        ("load(\x1b[31m)", "load( [31m)"),
    ],
)
def test_a_line_of_code_is_shown_without_its_secrets(source: str, shown: str) -> None:
    assert source_shown(source, Redactor(homes=("/home/alice",))) == shown


@given(before=texts, after=texts)
def test_no_literal_given_as_a_token_is_shown(before: str, after: str) -> None:
    assert "sekret" not in source_shown(f"{before} token='sekret'{after}", Redactor())


def test_message_and_hint_are_shown_without_secrets() -> None:
    message = f"https://me:sekret@mirror.example does not answer {HUB_TOKEN}"
    hint = f"Do this:\nnbloader.load('org/name', token='{HUB_TOKEN}')"
    error = errors.HubUnreachableError(message, hint=hint)
    assert error_card(error, message=message, hint=hint, reference="x")[1:4] == [
        "  https://mirror.example does not answer ***",
        "  Hint: Do this:",
        "nbloader.load('org/name', token='***')",
    ]


def test_the_sentences_about_tokens_stay_whole() -> None:
    with pytest.raises(errors.InvalidArgumentError) as found:
        check_token(5)
    limited = rate_limited(Failure(Reason.RATE_LIMITED), None, token_sent=False)
    for error in (found.value, limited):
        lines = error_card(error, message=error.message, hint=error.hint, reference="x")
        assert lines[1:3] == [f"  {error.message}", f"  Hint: {error.hint}"]


def test_a_token_where_a_long_text_is_cut_is_taken_out_first() -> None:
    message = f"{'x' * 3_990} {HUB_TOKEN}"
    lines = error_card(raised(ValueError()), message=message, hint="x", reference="x")
    assert "hf_" not in "".join(lines)


class _BrokenShell:
    execution_count = 1

    def __getattr__(self, name: str) -> Never:
        raise RuntimeError(name)


@pytest.mark.parametrize("handled", [True, False])
def test_rendering_never_raises(handled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(get_ipython=_BrokenShell)
    monkeypatch.setitem(sys.modules, "IPython", module)
    error = errors.NotCachedError(f"what\x1b {HUB_TOKEN}", hint="do this")
    try:
        raise error
    except NbloaderError as caught:
        lines = caught._render_traceback_()
    if not handled:
        lines = error._render_traceback_()
    assert lines == ["NotCachedError: what  ***", "  Hint: do this"]


def test_without_ipython_it_is_the_traceback_of_python() -> None:
    error = raised(errors.NotCachedError("what", hint="do this"))
    assert isinstance(error, NbloaderError)
    assert error._render_traceback_() == traceback.format_exception(error)
