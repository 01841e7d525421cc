"""What the oldest and the newest huggingface_hub delete when nbloader asks them to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from nbloader.localhub import LocalHub
from tests.caches import Built, Cache, build
from tests.conftest import WriteRepo
from tests.hub_versions.test_hub_versions import ENVIRONMENTS, VERSIONS

DELETE = (
    "import json, sys, nbloader\n"
    "deleted = nbloader.cache(sys.argv[1]).delete()\n"
    "print(json.dumps([[each.name for each in deleted.removed], [k.why for k in deleted.kept]]))"
)


@pytest.fixture(scope="module")
def built(
    _server: tuple[LocalHub, Path], write_repo: WriteRepo, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf-home")))
        return build(*_server, write_repo, tmp_path_factory.mktemp("built"))


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cached(tmp_path: Path, hub: LocalHub, built: Built) -> Cache:
    return Cache(tmp_path / "cache", hub, built)


def delete(version: str, cached: Cache) -> list[list[str]]:
    python = ENVIRONMENTS / version / "bin/python"
    if not python.exists():
        pytest.fail("The environments are missing. Run: make test-hub-versions")
    done = subprocess.run(
        [str(python), "-P", "-c", DELETE, str(cached.dir)],
        env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_what_can_go_goes(version: str, cached: Cache) -> None:
    partial = cached.leave_partial()
    orphan = cached.repo / "blobs" / ("b" * 40)
    orphan.write_bytes(b"orphan")
    assert delete(version, cached) == [[orphan.name, partial.name, cached.old.name], []]
    assert not any(path.exists() for path in (orphan, cached.old, cached.old_weights))
    assert (cached.new / "model.safetensors").is_file()


def test_nothing_outside_the_cache_goes(version: str, cached: Cache, tmp_path: Path) -> None:
    (cached.repo / "refs" / "main").unlink()
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (cached.old / "tokenizer.json").unlink()
    (cached.old / "tokenizer.json").symlink_to(precious)
    assert delete(version, cached) == [[], []]
    assert precious.read_bytes() == b"precious"
