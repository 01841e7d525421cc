"""nbloader in the environments of `make test-compat`, each with a Python and versions of its own.

The tests run here, and have the work done there. What came of it is a row of a table in
docs/compatibility.md: `python -m tests.compat` writes it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name
from PIL import Image

from nbloader.demo import SENTENCES
from tests.compat.environments import ENVIRONMENTS, ROOT, Environment
from tests.notebook_runs import NOTEBOOKS

LIMIT_S = 900

VIEWS = (
    "tests/views",
    "tests/notebook",
    "tests/machine/test_place.py",
    "tests/test_tokens.py",
    "tests/compat/test_front_ends.py",
)
"""Of the other tests, those that depend on ipywidgets, IPython and ipykernel."""

Record = dict[str, Any]


@pytest.fixture(scope="session", autouse=True)
def records(request: pytest.FixtureRequest) -> Iterator[dict[str, Record]]:
    """What is found of the environments, for the file that `--outcomes` names."""
    found: dict[str, Record] = {}
    yield found
    if target := request.config.getoption("outcomes"):
        Path(target).write_text(json.dumps([*found.values()]), "utf-8")


@pytest.fixture(scope="module", params=ENVIRONMENTS, ids=lambda each: each.name)
def environment(request: pytest.FixtureRequest) -> Environment:
    given: Environment = request.param
    return given


@pytest.fixture
def record(environment: Environment, records: dict[str, Record]) -> Record:
    """The row of this environment, begun with its versions."""
    begun = {"name": environment.title, "versions": environment.versions()}
    return records.setdefault(environment.name, begun)


@pytest.fixture(scope="module")
def served(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what the demo of this environment serves and writes."""
    folder = tmp_path_factory.mktemp(environment.name)
    yield folder
    shutil.rmtree(folder)


def run(environment: Environment, home: Path, *arguments: str | Path) -> str:
    """Run the environment's Python in the root of the repository; what it says on stdout."""
    own = ("HF_", "NBLOADER_", "TRANSFORMERS_", "VIRTUAL_ENV")
    variables = {name: text for name, text in os.environ.items() if not name.startswith(own)}
    done = subprocess.run(
        [environment.python, *arguments],
        cwd=ROOT,
        env=variables | {"HF_HOME": str(home), "NO_COLOR": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-6000:] + done.stdout[-6000:]
    return done.stdout


def run_tests(environment: Environment, home: Path, *arguments: str | Path) -> str:
    """Run tests of this repository in the environment."""
    # As for the tests here, whatever warns is an error, but not what old versions warn of.
    lenient = ("-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning")
    return run(environment, home, "-m", "pytest", "-q", *lenient, *arguments)


def test_it_has_the_versions_that_are_meant(environment: Environment) -> None:
    found = environment.versions()
    assert {name: found.get(name) for name in environment.pins} == environment.pins
    assert found["python"].startswith(f"{environment.series}.")


# -- installing ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def uv(*arguments: str | Path) -> str:
    """Run uv; what it says on stderr, which is where it tells what it does."""
    command = [Path(sys.executable).with_name("uv"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stderr


def as_it_was(environment: Environment, folder: Path) -> Path:
    """Make what pip and uv see of the environment before nbloader came: metadata alone.

    Returns:
        Its Python.
    """
    uv("venv", "--quiet", "--python", environment.python, folder)
    (source,) = environment.folder.glob("lib/python*/site-packages")
    (target,) = folder.glob("lib/python*/site-packages")
    wanted = set(environment.before)
    for each in source.glob("*.dist-info"):
        name = str(canonicalize_name(each.name.partition("-")[0]))
        if name in wanted:
            shutil.copytree(each, target / each.name)
            wanted.remove(name)
    assert not wanted
    return folder / "bin/python"


def planned_by_pip(python: Path, wheel: Path) -> dict[str, str]:
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    done = subprocess.run(
        [*pip, "install", "--dry-run", "--quiet", "--report", "-", str(wheel)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    plan = [each["metadata"] for each in json.loads(done.stdout)["install"]]
    return {canonicalize_name(each["name"]): each["version"] for each in plan}


def planned_by_uv(python: Path, wheel: Path) -> dict[str, str]:
    told = uv("pip", "install", "--dry-run", "--color", "never", "--python", python, wheel)
    plan = re.findall(r"(?m)^ \+ ([^= @]+)(?:==| @ )(\S+)", told)
    return {canonicalize_name(name): version for name, version in plan}


def test_installing_nbloader_changes_no_version_that_is_there(
    environment: Environment, record: Record, wheel: Path, tmp_path: Path
) -> None:
    python = as_it_was(environment, tmp_path / "place")
    before = environment.before
    record["changed"] = []
    for plan in (planned_by_pip(python, wheel), planned_by_uv(python, wheel)):
        assert "nbloader-hub" in plan
        changed = sorted(set(plan) & set(before))
        assert set(changed) <= {"hf-xet"}
        record["changed"] = changed
    # The same where it was done.
    now: Mapping[str, str] = environment.versions()
    assert {name: now.get(name) for name in before} == before


# -- running -------------------------------------------------------------------------------------


def test_the_demo(environment: Environment, record: Record, served: Path, tmp_path: Path) -> None:
    told = run(environment, tmp_path, "-m", "nbloader", "demo", "--folder", served)
    assert re.findall(r"(?m)^ready in [^:]+(?::\d+)?: (\w+) on", told) == [
        "SentenceTransformer",
        "QwenImageEditPlusPipeline",
    ]
    rows = re.findall(r"(?m)^  \d((?: +-?\d\.\d\d){4})   (.+)$", told)
    assert tuple(sentence for _, sentence in rows) == SENTENCES
    likeness = [[float(number) for number in row.split()] for row, _ in rows]
    # The two about music, and the two about shares.
    assert [max((row[j], j) for j in range(4) if j != i)[1] for i, row in enumerate(likeness)] == [
        1,
        0,
        3,
        2,
    ]
    with Image.open(served / "edited.png") as picture:
        assert picture.size == (256, 256)
    record["demo"] = True


def test_the_tutorials(
    environment: Environment, record: Record, served: Path, tmp_path: Path
) -> None:
    told = run(environment, tmp_path, "-m", "tests.compat.client", served / "tutorials")
    outputs = json.loads(told.splitlines()[-1])
    assert sorted(outputs) == [path.stem for path in NOTEBOOKS]
    # Nothing on stderr, no error: lines, values and pictures.
    assert {each for kinds in outputs.values() for each in kinds} <= {
        "stdout",
        "execute_result",
        "display_data",
    }
    record["tutorials"] = len(outputs)


def test_models_are_what_the_libraries_make_of_them(
    environment: Environment, record: Record, tmp_path: Path
) -> None:
    file = tmp_path / "outcomes.json"
    run_tests(
        environment,
        tmp_path,
        "tests/differential/test_models.py",
        "--models=oldest",
        f"--outcomes={file}",
    )
    outcomes = json.loads(file.read_text("utf-8"))
    record["models"] = sum(each["made"] is not None for each in outcomes)
    record["refused"] = len(outcomes) - record["models"]
    assert record["models"]
    assert record["refused"]


def test_views_and_front_ends(environment: Environment, record: Record, tmp_path: Path) -> None:
    run_tests(environment, tmp_path, *VIEWS)
    record["views"] = True
