"""Pickled weights in a whole load: what harms is refused by name before it, the rest is loaded."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch

import nbloader
from nbloader.errors import PickledWeightsError
from nbloader.localhub import LocalHub, RequestClass
from tests.conftest import Publish
from tests.models import save_classifier
from tests.pickled import CANARY, HARM, archive, saved

LARGE = {"0": bytes(4_000_000)}


@pytest.fixture
def classifier(tmp_path: Path) -> dict[str, bytes]:
    """The small files of a classifier, and its tensors under `tensors`."""
    folder = tmp_path / "classifier"
    save_classifier(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("allow_pickle", [False, True])
@pytest.mark.parametrize("name", ["GLOBAL", "STACK_GLOBAL with names from the memo"])
def test_a_harmful_pickle_is_refused_by_name_before_the_first_weight(
    hub: LocalHub,
    publish: Publish,
    classifier: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    allow_pickle: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    del classifier["model.safetensors"]
    repo_id = publish(classifier | {"pytorch_model.bin": archive(HARM[name][0], LARGE)})
    keywords = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache", "device": "cpu"}
    report = nbloader.preflight(repo_id, **keywords)  # type: ignore[call-overload]
    assert not report.ok
    with pytest.raises(PickledWeightsError, match=r"it names 'posix\.mkdir'"):
        nbloader.load(repo_id, **keywords, view="none", allow_pickle=allow_pickle)  # type: ignore[arg-type]
    assert not Path(CANARY).exists()
    assert hub.counters().of(RequestClass.CDN_GET).body_bytes < 64 * 1024
    assert not list((tmp_path / "cache").rglob("pytorch_model.bin"))


def test_what_the_user_has_allowed_torch_to_make_is_loaded(
    hub: LocalHub, publish: Publish, classifier: dict[str, bytes], tmp_path: Path
) -> None:
    from safetensors.torch import load

    tensors = load(classifier.pop("model.safetensors"))
    other = saved(lambda: {**tensors, "time": timedelta(hours=3)})
    repo_id = publish(classifier | {"pytorch_model.bin": other})
    with torch.serialization.safe_globals([timedelta]):
        pipeline = nbloader.load(
            repo_id,
            endpoint=hub.endpoint,
            cache_dir=tmp_path / "cache",
            device="cpu",
            view="none",
            allow_pickle=True,
        )
    state = pipeline.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())
