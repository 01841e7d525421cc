from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

import pytest

from nbloader.localhub import LocalHub
from tests.servers import Proxy

# What is loaded is compared bit for bit with what the libraries load. On some processors MKL's sums
# depend on where in memory a matrix begins, unless it is asked for the same result everywhere:
# "Reproducibility conditions" in oneMKL's guide. It is read when torch is imported.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

WriteRepo = Callable[[Path, str, Mapping[str, bytes]], None]
Publish = Callable[[Mapping[str, bytes]], str]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the tests in tests/differential."""
    parser.addoption(
        "--models",
        default="sample",
        help="which cases are compared with the libraries' own loads: sample, all, oldest (those "
        "for the oldest versions), or one part of several, as 2/3",
    )
    parser.addoption("--outcomes", help="a file for what came of these cases, as JSON")


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both demo repositories, built once a run; no test may change them."""
    from nbloader.localhub import demo

    root = tmp_path_factory.mktemp("demo")
    demo.publish(root)
    yield root
    shutil.rmtree(root)  # pytest keeps the folders of three runs, and this one has 300 MB


@pytest.fixture(scope="session")
def _demo_server(demo_root: Path) -> Iterator[LocalHub]:
    with LocalHub.start(demo_root, max_seconds=7200) as hub:
        yield hub


@pytest.fixture
def demo_hub(_demo_server: LocalHub) -> Iterator[LocalHub]:
    """A server of the demo repositories, with no faults and nothing counted."""
    _demo_server.reset_counters()
    yield _demo_server
    _demo_server.clear_faults()


@pytest.fixture(autouse=True)
def _own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep settings, tokens and caches of the machine out of the tests."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf-home")))


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalHub, Path]]:
    root = tmp_path_factory.mktemp("localhub")
    with LocalHub.start(root, max_seconds=7200) as hub:
        yield hub, root


@pytest.fixture
def hub_root(_server: tuple[LocalHub, Path]) -> Path:
    """The root of `hub`."""
    return _server[1]


@pytest.fixture
def hub(_server: tuple[LocalHub, Path]) -> Iterator[LocalHub]:
    """A running server with no faults and nothing counted."""
    hub = _server[0]
    hub.reset_counters()
    yield hub
    hub.clear_faults()


@pytest.fixture(scope="session")
def write_repo() -> WriteRepo:
    """Write files of a repository as the store asks for: replaced, never written in place.

    The id of a dataset or a space has its kind before it: `datasets/org/name`.
    """

    def write(root: Path, repo_id: str, files: Mapping[str, bytes]) -> None:
        folder = root / (repo_id if repo_id.count("/") > 1 else f"models/{repo_id}")
        for path, content in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = folder.with_name(f"{folder.name}.writing")
            scratch.write_bytes(content)
            scratch.replace(target)

    return write


@pytest.fixture
def publish(hub_root: Path, write_repo: WriteRepo, request: pytest.FixtureRequest) -> Publish:
    """Publish files in the repository of this test, and return its id."""
    # The Hub's names hold 96 characters at most; parametrized tests may share a repository.
    repo_id = f"org/{request.node.originalname[-90:].strip('_')}"

    def publish(files: Mapping[str, bytes]) -> str:
        write_repo(hub_root, repo_id, files)
        return repo_id

    return publish


@pytest.fixture(scope="session")
def weights() -> bytes:
    """Three megabytes in which no part is like another."""
    return Random(0).randbytes(3_000_000)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that makes tunnels, and no other rules of how servers are reached."""
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    proxy = Proxy()
    yield proxy
    proxy.close()
