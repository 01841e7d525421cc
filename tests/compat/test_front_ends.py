"""Every front end by its variables and what it puts into a kernel: the whole way of a download.

A real kernel stands for those that have one. The modules that hold their users' secrets are stood
in for by modules of the same names. The repository is private, and only the secret opens it.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nbloader.localhub import LocalHub
from tests.conftest import Publish
from tests.kernels import running

TOKEN = "hf_" + "s" * 34

FACTS = """
import json
from nbloader.machine import place_facts
from nbloader.views import ViewName, choose_view, front_end
found = place_facts()
print(json.dumps([found.place, found.interface.name, choose_view(ViewName.AUTO, front_end())]))
"""

COLAB = f"""
import sys, types
names = ("google", "google.colab", "google.colab.userdata")
google, package, userdata = map(types.ModuleType, names)
userdata.get = {{"HF_TOKEN": {TOKEN!r}}}.__getitem__
package.userdata = userdata
for module in (google, package, userdata):
    sys.modules[module.__name__] = module
"""

KAGGLE = f"""
class UserSecretsClient:
    def get_secret(self, name):
        return {{"HF_TOKEN": {TOKEN!r}}}[name]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """A front end, and what nbloader has to make of it.

    Attributes:
        name: which it is.
        facts: the place, the interface and the view.
        variables: in the environment of its kernel.
        before: what it does in the kernel before the user's cell.
        batch: whether it runs the notebook while nobody can be asked for input.
    """

    name: str
    facts: tuple[str, str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    before: str = ""
    batch: bool = False


NAMED = "__vsc_ipynb_file__ = '/home/me/a.ipynb'"

FRONT_ENDS = [
    FrontEnd(
        name="Colab",
        facts=("Colab", "JUPYTER", "widget"),
        variables={"COLAB_RELEASE_TAG": "release-colab", "COLAB_GPU": "1"},
        before=COLAB,
    ),
    FrontEnd(
        name="Kaggle",
        facts=("Kaggle", "JUPYTER", "widget"),
        variables={"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "COLAB_GPU": ""},
    ),
    FrontEnd(
        name="Kaggle's Save & Run All",
        facts=("Kaggle", "BATCH", "text"),
        variables={"KAGGLE_KERNEL_RUN_TYPE": "Batch"},
        batch=True,
    ),
    FrontEnd(
        name="Binder",
        facts=("Binder", "JUPYTER", "widget"),
        variables={"BINDER_REPO_URL": "x", "HF_TOKEN": TOKEN},
    ),
    FrontEnd(
        name="JupyterLab and the classic notebook",
        facts=("other", "JUPYTER", "widget"),
        variables={"HF_TOKEN": TOKEN, "JPY_PARENT_PID": "1"},
    ),
    FrontEnd(
        name="VS Code",
        facts=("other", "VS_CODE", "widget"),
        variables={"HF_TOKEN": TOKEN, "VSCODE_PID": "1"},
        before=NAMED,
    ),
    FrontEnd(
        name="papermill and nbclient",
        facts=("other", "BATCH", "text"),
        variables={"HF_TOKEN": TOKEN},
        batch=True,
    ),
]

FOREIGN = ("COLAB_", "KAGGLE_", "BINDER_", "VSCODE_", "HF_", "JPY_", "NBLOADER_")


@pytest.fixture
def secret(hub: LocalHub, publish: Publish) -> str:
    """A private repository that the token opens."""
    repo_id = publish({"config.json": b"{}", "vocab.txt": b"one\ntwo\n"})
    hub.add_token(TOKEN, repos=[repo_id])
    hub.set_access(repo_id, private=True)
    return repo_id


@pytest.fixture(autouse=True)
def _alone(
    _own_environment: None, monkeypatch: pytest.MonkeyPatch, hub: LocalHub, tmp_path: Path
) -> None:
    """Take everything that tells of a front end out of the environment."""
    for name in [each for each in os.environ if each.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


def download(repo_id: str) -> str:
    return f"import nbloader\nfolder = nbloader.download({repo_id!r}, allow_patterns=['*'])\n"


@pytest.mark.parametrize("front", FRONT_ENDS, ids=lambda front: front.name)
def test_a_private_file_comes_and_is_shown_as_fits_the_place(
    front: FrontEnd,
    secret: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in front.variables.items():
        monkeypatch.setenv(name, value)
    if front.facts[0] == "Kaggle":
        modules = tmp_path / "modules"
        modules.mkdir()
        (modules / "kaggle_secrets.py").write_text(KAGGLE)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(modules), *filter(None, sys.path)]))
    with running(tmp_path) as kernel:
        assert kernel.run(front.before, batch=front.batch).status == "ok"
        facts = kernel.run(FACTS, batch=front.batch)
        cell = kernel.run(download(secret), batch=front.batch)
        files = kernel.run("print(sorted(file.name for file in folder.iterdir()))")
    assert (cell.status, cell.traceback) == ("ok", [])
    assert json.loads(facts.text) == list(front.facts)
    assert files.text == "['config.json', 'vocab.txt']\n"
    if front.facts[2] == "text":
        assert cell.displays == {}
        assert "download: 2 files" in cell.text
    else:
        # What stays is a form that a saved notebook can hold.
        assert cell.text == ""
        (shown,) = cell.displays.values()
        assert {"text/html", "text/plain"} <= set(shown)


MARIMO = """
import sys, types
# No kernel of Jupyter's, no terminal, and the name of the running file among the modules.
sys.modules["marimo"] = types.ModuleType("marimo")
"""


def test_marimo(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = subprocess.run(
        [sys.executable, "-c", MARIMO + FACTS + download(secret)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    facts, _, lines = done.stdout.partition("\n")
    assert json.loads(facts) == ["other", "TERMINAL", "text"]
    assert "download: 2 files" in lines


@pytest.mark.parametrize(("terminal", "view"), [(False, "text"), (True, "tqdm")])
def test_plain_ipython(
    terminal: bool,
    view: str,
    secret: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # What is told goes into a file: a terminal has a line for bars as well.
    code = FACTS.replace("print(", "open('facts', 'w').write(") + download(secret)
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", code],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=follower if terminal else subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=120,
        )
        shown = os.read(leader, 100_000) if terminal else done.stdout
    finally:
        os.close(follower)
        os.close(leader)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "facts").read_text()) == ["other", "TERMINAL", view]
    assert b"ready in" in shown
