"""The contracts on imports: each is broken on purpose, in a copy of the package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ONE_WAY = "Imports go one way"
WORKER = "Nothing imports the worker"
CONNECTIONS = "Only the worker opens connections"
KNOWS_NOTHING = "The local Hub knows nothing of the rest"
ONLY_DEMO = "Only the demo starts the local Hub"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(
        ROOT / "nbloader", tmp_path / "nbloader", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def broken(folder: Path) -> set[str]:
    """Return the names of the contracts that do not hold in a copy; all have to be checked."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    found = dict(re.findall(r"(?m)^(.+?) (KEPT|BROKEN)\b", done.stdout))
    assert found.keys() == names(), done.stdout + done.stderr
    assert (done.returncode != 0) == ("BROKEN" in found.values())
    return {name for name, verdict in found.items() if verdict == "BROKEN"}


def names() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return {contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}


def test_each_contract_is_broken_below() -> None:
    assert names() == {ONE_WAY, WORKER, CONNECTIONS, KNOWS_NOTHING, ONLY_DEMO}


def test_contracts_hold(copy: Path) -> None:
    assert broken(copy) == set()


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        pytest.param(ONE_WAY, "records/events.py", "from nbloader import views", id="upwards"),
        pytest.param(ONE_WAY, "new.py", "", id="a module that has no place"),
        pytest.param(ONE_WAY, "new/__init__.py", "", id="a package that has no place"),
        pytest.param(WORKER, "transfer/supervisor.py", "import nbloader.worker.hub", id="parent"),
        pytest.param(WORKER, "__init__.py", "from nbloader.worker import links", id="root"),
        pytest.param(CONNECTIONS, "machine/disk.py", "import socket", id="socket"),
        pytest.param(CONNECTIONS, "text.py", "import httpx", id="httpx"),
        pytest.param(CONNECTIONS, "hub_cache/layout.py", "import huggingface_hub", id="hub"),
        pytest.param(CONNECTIONS, "libraries/pip.py", "def f():\n    import hf_xet", id="xet"),
        pytest.param(CONNECTIONS, "settings.py", "from http import client", id="http"),
        pytest.param(KNOWS_NOTHING, "localhub/hub.py", "import nbloader.text", id="text"),
        pytest.param(KNOWS_NOTHING, "localhub/xet/cas.py", "import nbloader.worker", id="worker"),
        pytest.param(KNOWS_NOTHING, "localhub/child.py", "from nbloader import load", id="package"),
        pytest.param(ONLY_DEMO, "api.py", "from nbloader.localhub import LocalHub", id="local-hub"),
    ],
)
def test_a_contract_that_is_broken_is_seen(
    copy: Path, contract: str, module: str, line: str
) -> None:
    path = copy / "nbloader" / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert contract in broken(copy)
