"""The cache that nbloader leaves, as the oldest and the newest huggingface_hub see it.

Each version has an environment of its own, made by `make test-hub-versions`. In it nbloader
downloads with that version, and that version's own tools judge what is there. The local Hub runs in
the environment of the tests.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import save

from nbloader.localhub import Fault, LocalHub, RequestClass
from tests.conftest import Publish
from tests.hub_versions import client

VERSIONS = sorted(path.stem for path in Path(__file__).parent.glob("*.txt"))
ENVIRONMENTS = Path(__file__).parents[2] / ".venv-hub"

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BYTES_PER_SECOND = 6_000_000
KILL_AFTER = 6_000_000
LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Environment:
    """One version of huggingface_hub with nbloader beside it, and a cache folder of its own."""

    version: str
    home: Path
    endpoint: str

    @property
    def variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home), "NO_COLOR": "1"}
        return kept | own | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def command(self, work: str, repo_id: str, *arguments: str) -> list[str]:
        python = ENVIRONMENTS / self.version / "bin/python"
        if not python.exists():
            pytest.fail("The environments are missing. Run: make test-hub-versions")
        return [str(python), "-P", client.__file__, work, repo_id, *arguments]

    def ask(self, work: str, repo_id: str, *arguments: str) -> Any:
        """Have `client` do a work in this environment."""
        return json.loads(self._run(self.command(work, repo_id, *arguments)))

    def hf(self, *arguments: str) -> str:
        """Run the version's own command line; what it says on stdout."""
        return self._run([str(ENVIRONMENTS / self.version / "bin/hf"), *arguments])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command, env=self.variables, capture_output=True, text=True, timeout=LIMIT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@dataclass(frozen=True, slots=True)
class Model:
    """A published repository.

    Attributes:
        needed: content by path of what the selection needs.
    """

    repo_id: str
    needed: Mapping[str, bytes]


@pytest.fixture(params=VERSIONS)
def environment(request: pytest.FixtureRequest, hub: LocalHub, tmp_path: Path) -> Environment:
    return Environment(request.param, tmp_path / "home", hub.endpoint)


@pytest.fixture(params=["http", "xet"])
def model(request: pytest.FixtureRequest, hub: LocalHub, publish: Publish) -> Model:
    """Files of all kinds, offered over HTTP only or over Xet as well."""
    # By parameter another content: what is in Xet storage once is offered there in every
    # repository.
    source = random.Random(request.param)
    weight_map = {f"weight.{number}": name for number, name in enumerate(SHARDS)}
    index = {"metadata": {"total_size": 12_000_000}, "weight_map": weight_map}
    needed = {
        "config.json": json.dumps({"architectures": ["BertModel"]}).encode(),
        "model.safetensors.index.json": json.dumps(index).encode(),
        "merges.txt": b"",
        "tokenizer.json": source.randbytes(1_500_000),  # large enough for LFS
        "additional_chat_templates/tool use.jinja": b"{{ messages }}",
        **{
            name: save(
                {
                    f"weight.{number}": np.frombuffer(source.randbytes(6_000_000), np.uint8),
                }
            )
            for number, name in enumerate(SHARDS)
        },
    }
    unneeded = {"README.md": b"# A model", "pytorch_model.bin": source.randbytes(100_000)}
    repo_id = publish(needed | unneeded)
    if request.param == "xet":
        hub.upload_to_xet(repo_id)
        hub.reset_counters()
    return Model(repo_id, needed)


def contents(folder: str) -> dict[str, bytes]:
    """All files below a folder."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def assert_right(environment: Environment, model: Model, folder: str) -> None:
    """The folder holds what the selection needs, and the version's own tools say so, too."""
    assert contents(folder) == model.needed
    assert environment.ask("snapshot", model.repo_id, "true", *model.needed) == folder
    assert environment.ask("scan", model.repo_id) == {
        "warnings": [],
        "refs": ["main"],
        "files": {path: len(content) for path, content in model.needed.items()},
    }
    listed = environment.hf("cache", "ls", "--format", "quiet")
    assert listed.split() == [f"model/{model.repo_id}"]
    told = environment.hf("cache", "verify", model.repo_id, "--fail-on-extra-files")
    assert f"Verified {len(model.needed)} file(s)" in told


def partials(environment: Environment) -> set[str]:
    """The partial files of downloads, whoever left them."""
    return {path.name for path in environment.home.glob("hub/models--*/blobs/*.incomplete")}


def kill_in_the_midst(hub: LocalHub, environment: Environment, model: Model) -> None:
    """Leave a download behind that was killed, with a partial file and its journal."""
    pairs = [
        {f"{etag}.nbloader.incomplete", f"{etag}.nbloader-journal.incomplete"}
        for etag in (hashlib.sha256(model.needed[name]).hexdigest() for name in SHARDS)
    ]
    hub.set_faults(
        [
            Fault(content, total_bytes_per_second=BYTES_PER_SECOND)
            for content in (RequestClass.CDN_GET, RequestClass.XET_XORB)
        ]
    )
    process = psutil.Popen(
        environment.command("download", model.repo_id), env=environment.variables
    )
    limit = time.monotonic() + LIMIT_S
    while hub.counters().file_bytes < KILL_AFTER:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    # The worker first: it must not see its parent end and put things in order.
    family = [*process.children(recursive=True), process]
    for member in family:
        member.kill()
    psutil.wait_procs(family)
    hub.clear_faults()
    hub.reset_counters()
    assert any(pair <= partials(environment) for pair in pairs)


def test_it_is_the_version_that_is_meant(environment: Environment) -> None:
    found = environment.ask("versions", "-")
    assert found["huggingface_hub"].startswith(f"{environment.version}.")
    # Xet without ranges, as on Kaggle, must stay among those that are tried.
    assert (found["hf-xet"] == "1.4.3") == (environment.version == "1.11")


def test_its_own_tools_agree(environment: Environment, model: Model) -> None:
    answer = environment.ask("download", model.repo_id)
    assert sorted(answer["files"]) == sorted(model.needed)
    assert_right(environment, model, answer["folder"])
    assert not partials(environment)


def test_its_own_tools_are_not_misled_by_a_partial(
    hub: LocalHub, environment: Environment, model: Model
) -> None:
    kill_in_the_midst(hub, environment, model)
    environment.hf("cache", "ls")
    folder = environment.ask("snapshot", model.repo_id, "false", *model.needed)
    assert_right(environment, model, folder)
    answer = environment.ask("download", model.repo_id)
    assert_right(environment, model, answer["folder"])


def test_nbloader_goes_on_from_its_partial(
    hub: LocalHub, environment: Environment, model: Model
) -> None:
    kill_in_the_midst(hub, environment, model)
    answer = environment.ask("download", model.repo_id)
    size = sum(map(len, model.needed.values()))
    assert hub.counters().file_bytes < size - KILL_AFTER / 2
    assert_right(environment, model, answer["folder"])
    assert not partials(environment)


def test_nbloader_does_without_a_partial_that_was_pruned(
    hub: LocalHub, environment: Environment, model: Model
) -> None:
    kill_in_the_midst(hub, environment, model)
    environment.hf("cache", "prune", "--yes")
    answer = environment.ask("download", model.repo_id)
    assert_right(environment, model, answer["folder"])
    assert not partials(environment)


@pytest.mark.parametrize(("first", "second"), [("nbloader", "hub"), ("hub", "nbloader")])
def test_a_folder_that_one_has_filled_is_complete_to_the_other(
    hub: LocalHub,
    environment: Environment,
    model: Model,
    tmp_path: Path,
    first: str,
    second: str,
) -> None:
    folder = str(tmp_path / "folder")
    assert environment.ask("local", model.repo_id, first, folder, *model.needed) == folder
    before = hub.counters().file_bytes
    assert environment.ask("local", model.repo_id, second, folder, *model.needed) == folder
    assert hub.counters().file_bytes == before
    found = contents(folder)
    assert {path: found[path] for path in found if not path.startswith(".cache/")} == model.needed
