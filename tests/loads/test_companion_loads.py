"""Models that need another repository, loaded: names, links, packages, and no network for it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.checks import required_packages
from nbloader.checks.packages import check_packages
from nbloader.loaders.folders import adapted
from nbloader.localhub import LocalHub
from nbloader.records import CheckStatus, Companion, Component, Kind, Selection
from nbloader.selection.pipeline_code import COMMUNITY
from tests.checks.test_packages import COLAB, installed
from tests.differential.cases import companions as cases
from tests.differential.cases.pipelines_special import save_community
from tests.differential.harness import seeded
from tests.loads.test_load import NO_SOCKETS
from tests.models import save_pipeline
from tests.samples import SELECTION

BASE, ADAPTER, CODED, CODE = (
    "adapted/llama",
    "org/adapter-to-load",
    "org/coded-to-load",
    "coded/code",
)


@pytest.fixture
def hub_of_two(hub: LocalHub, hub_root: Path) -> LocalHub:
    """Publish an adapter with its base, and a model with its code."""
    repositories: dict[str, Callable[[Path], object]] = {
        BASE: cases.save_llama,
        ADAPTER: lambda folder: cases.save_lora(folder, BASE),
        CODED: cases.save_coded,
        CODE: cases.save_code,
    }
    for repo_id, save in repositories.items():
        folder = hub_root / "models" / repo_id
        if not folder.exists():
            folder.mkdir(parents=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                seeded(partial(save, folder))
    return hub


def test_without_a_network_of_its_own(hub_of_two: LocalHub, tmp_path: Path) -> None:
    """In a process where every socket is seen: neither for a base, nor for code."""
    wanted = {ADAPTER: {}, CODED: {"trust_remote_code": True}}
    done = subprocess.run(
        [
            *(sys.executable, "-c", NO_SOCKETS),
            *(hub_of_two.endpoint, str(tmp_path), json.dumps(wanted)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n['socket.__new__']\n", "")


def test_its_names_are_those_of_the_hub_and_nothing_is_left(
    hub_of_two: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    made = nbloader.load(
        ADAPTER,
        endpoint=hub_of_two.endpoint,
        cache_dir=tmp_path / "cache",
        device="cpu",
        view="none",
    )
    model = made.model
    assert (type(model).__name__, model._hf_peft_config_loaded) == ("LlamaForCausalLM", True)
    assert (model.name_or_path, made.tokenizer.name_or_path) == (BASE, BASE)
    assert model.peft_config["default"].base_model_name_or_path == BASE
    assert not list(temporary.iterdir())
    # What is mapped stays mapped.
    assert made("a good", max_new_tokens=2)[0]["generated_text"].startswith("a good")


def test_a_pipeline_of_the_community_is_pinned_shown_and_kept(
    hub: LocalHub, hub_root: Path, tmp_path: Path
) -> None:
    """Its code comes from a data set; a second load needs no network for it."""
    for place, save in (
        ("models/org/sd-to-prompt", save_pipeline),
        (f"datasets/{COMMUNITY}", save_community),
    ):
        folder = hub_root / place
        if not folder.exists():
            folder.mkdir(parents=True)
            seeded(partial(save, folder))
    given: dict[str, Any] = {
        "endpoint": hub.endpoint,
        "cache_dir": tmp_path,
        "device": "cpu",
        "trust_remote_code": True,
        "loader_kwargs": {"custom_pipeline": "tiny_prompt"},
    }
    report = nbloader.preflight("org/sd-to-prompt", **given)
    (safety,) = (each for each in report.results if each.name == "safety")
    file = f"{COMMUNITY}:v{version('diffusers')}/tiny_prompt.py"
    assert safety.message == f"code of the repository will run: {file}"
    for offline in (False, True):
        made = nbloader.load("org/sd-to-prompt", **given, local_files_only=offline, view="none")
        assert (type(made).__name__, made.number) == ("TinyPromptPipeline", 0)
    (kept,) = tmp_path.glob("datasets--*/snapshots/*/*/*")
    assert kept.name == "tiny_prompt.py"


@pytest.mark.parametrize("links", ["symlink_to", "hardlink_to", ""])
def test_the_adapter_is_found_without_links_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError

    for name in {"symlink_to", "hardlink_to"} - {links}:
        monkeypatch.setattr(Path, name, refuse)
    folder = tmp_path / "models--org--own" / "snapshots" / ("1" * 40)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    (folder / "adapter_model.safetensors").write_bytes(b"tensors")
    selection = Selection(
        repo_id="org/own",
        revision="main",
        commit_hash="1" * 40,
        kind=Kind.TRANSFORMERS,
        class_name=None,
        components=(
            Component(
                name="adapter",
                library="peft",
                paths=("adapter_config.json", "adapter_model.safetensors"),
                weights=("adapter_model.safetensors",),
                needs=("peft",),
            ),
        ),
        files=(),
        companions=(
            Companion(repo_id="org/base", role="base-model", revision="v1", commit_hash="2" * 40),
        ),
    )
    base = tmp_path / "models--org--base" / "snapshots" / ("2" * 40)
    with adapted(selection, folder) as places:
        assert (places.base, places.base_id, places.revision) == (base, "org/base", "v1")
        assert {path.name: path.read_bytes() for path in places.model.iterdir()} == {
            "adapter_config.json": json.dumps({"base_model_name_or_path": str(base)}).encode(),
            "adapter_model.safetensors": b"tensors",
        }
    assert not places.model.exists()
    assert (folder / "adapter_model.safetensors").read_bytes() == b"tensors"
    assert required_packages(selection) == ("torch", "transformers", "peft")


def test_without_peft_the_check_names_it() -> None:
    selection = replace(
        SELECTION,
        kind=Kind.TRANSFORMERS,
        components=(Component(name="a", paths=(), needs=("peft",)),),
    )
    found = check_packages(selection, installed(COLAB | {"peft": None}))
    assert (found.status, found.reference, found.message) == (
        CheckStatus.FAILED,
        "missing-package",
        "not installed: peft",
    )
