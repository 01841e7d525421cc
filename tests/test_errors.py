from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from nbloader import errors
from nbloader.errors import NbloaderError, error_from_parts

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


def test_a_notebook_shows_the_error_without_a_traceback(tmp_path: Path) -> None:
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
    assert done.stdout.strip() == (
        "InvalidRepoIdError: 'no id' is no repository id\n"
        '  Hint: Ids look like "Qwen/Qwen-Image-Edit-2509".\n'
        "  [invalid-repo-id]"
    )
