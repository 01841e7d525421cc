"""What Binder installs: versions of the tests, what the notebooks need, and 2 GB of memory."""

from __future__ import annotations

import ast
import contextlib
import re
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from tenacity import Retrying, stop_after_delay, wait_fixed

from nbloader.localhub import LocalHub
from tests.notebook_runs import NOTEBOOKS, ROOT, as_python, notebook_environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

MEMORY_BYTES = 2_000_000_000
"""Of a user of mybinder.org, with all processes of the session."""

SERVER_BYTES = 200_000_000
"""What Jupyter's own server takes of it, with room to spare: 119 MB were measured."""

JOIN = 'echo $$ > "$0/cgroup.procs" && exec "$@"'

RUN = """\
import os, sys
from pathlib import Path
from tests.notebook_runs import execute

execute(Path(sys.argv[1]), dict(os.environ))
print("run")"""

IMPORTED_AS = {"sentence_transformers": "sentence-transformers", "PIL": "pillow"}
OF_LOCALHUB = "aiohttp"


def versions(file: Path) -> Mapping[str, str]:
    """Return the versions that a file of requirements pins, by the names of the packages.

    A build is no part of them (`+cpu`); a package without a version has the empty one.
    """
    found: dict[str, str] = {}
    for line in file.read_text("utf-8").splitlines():
        if line and not line.startswith(("#", "-")):
            one = Requirement(line)
            found[canonicalize_name(one.name)] = re.sub(r"^==|\+cpu$", "", str(one.specifier))
    return found


INSTALLED = versions(ROOT / "binder" / "requirements.txt")
PYTHON = (ROOT / "binder" / "runtime.txt").read_text("utf-8").strip().removeprefix("python-")


def needed() -> Iterator[Requirement]:
    """Yield what nbloader requires for the models of the notebooks."""
    extras = PROJECT["optional-dependencies"]
    for line in (*PROJECT["dependencies"], *extras["embeddings"], *extras["diffusers"]):
        yield Requirement(line)


def test_the_versions_are_those_of_the_tests() -> None:
    tested = versions(ROOT / "constraints.txt")
    pinned = {name: version for name, version in INSTALLED.items() if version}
    assert pinned == {name: tested[name] for name in pinned}


def test_all_that_nbloader_requires_is_there() -> None:
    missing = [
        str(one)
        for one in needed()
        if (version := INSTALLED.get(canonicalize_name(one.name))) is None
        or (version and version not in one.specifier)
    ]
    assert missing == []


def test_its_python_is_one_that_nbloader_runs_on() -> None:
    assert f"{PYTHON}.0" in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_that_a_notebook_imports_is_there(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    named = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(as_python(cell.source))):
                match node:
                    case ast.Import(names=names):
                        named |= {each.name for each in names}
                    case ast.ImportFrom(module=str(module)):
                        named.add(module)
    if any(name.startswith("nbloader.localhub") for name in named):
        assert OF_LOCALHUB in INSTALLED
    tops = {name.partition(".")[0] for name in named}
    foreign = {IMPORTED_AS.get(top, top) for top in tops - sys.stdlib_module_names - {"nbloader"}}
    assert foreign <= INSTALLED.keys()


@pytest.fixture
def group() -> Iterator[Path]:
    """A group of processes that get no more memory than a user of Binder has beside the server."""
    root = Path("/sys/fs/cgroup")
    first = (root / "memory").is_dir()  # The first version of control groups has one for each kind.
    folder = (root / "memory" if first else root) / f"nbloader-{uuid.uuid4().hex}"
    limit = "memory.limit_in_bytes" if first else "memory.max"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(MEMORY_BYTES - SERVER_BYTES))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no memory can be limited here: {error}")
    yield folder
    for wait in Retrying(stop=stop_after_delay(10), wait=wait_fixed(0.05), reraise=True):
        with wait:
            folder.rmdir()  # Not before the last of its processes is gone.


def test_the_first_notebook_runs_in_the_memory_of_a_user(
    demo_root: Path, tmp_path: Path, group: Path
) -> None:
    path = next(path for path in NOTEBOOKS if path.stem == "01_embeddings")
    with LocalHub.start(demo_root, max_seconds=600) as hub:
        done = subprocess.run(
            ["sh", "-c", JOIN, str(group), sys.executable, "-c", RUN, str(path)],
            cwd=ROOT,
            env=notebook_environment(hub.endpoint, tmp_path),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "run\n"), done.stderr
