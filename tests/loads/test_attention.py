"""Whole loads with a way to compute attention: what works, and what is refused before a weight."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.__main__ import main
from nbloader.errors import InvalidArgumentError
from nbloader.localhub import LocalHub
from nbloader.localhub.demo import MINILM
from nbloader.records import CheckStatus, Event, GpuFacts, MemoryFacts, Notice, TorchFacts
from tests.conftest import Publish
from tests.differential.pipeline_parts import make
from tests.loads.test_refusals import BERT, VAE, as_json, on, pipeline, refused
from tests.models import save_classifier

GB = 1_000_000_000
T4, L4 = (
    GpuFacts(name=name, free=15 * GB, total=16 * GB, capability=capability)
    for name, capability in (("Tesla T4", (7, 5)), ("NVIDIA L4", (8, 9)))
)
TORCH = TorchFacts(version="2.13.0+cu130", cuda=(13, 0), archs=("sm_75", "sm_80", "sm_90"))


def with_gpu(monkeypatch: pytest.MonkeyPatch, *gpus: GpuFacts) -> None:
    memory = MemoryFacts(available=20 * GB, total=24 * GB)
    on(monkeypatch, gpus=gpus, torch=TORCH, memory=memory)


def test_an_embedder_that_computes_in_the_plain_way(demo_hub: LocalHub, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "device": "cpu",
        "endpoint": demo_hub.endpoint,
        "cache_dir": tmp_path,
    }
    report = nbloader.preflight(MINILM, attention="eager", **arguments)
    (found,) = (each for each in report.results if each.name == "attention")
    assert (report.ok, found.status, found.message) == (True, CheckStatus.PASSED, "eager")
    model = nbloader.load(MINILM, attention="eager", view="none", **arguments)
    assert model[0].auto_model.config._attn_implementation == "eager"
    usual = nbloader.load(MINILM, view="none", **arguments)
    assert usual[0].auto_model.config._attn_implementation == "sdpa"


def test_the_librarys_own_argument_is_checked_too(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    given = {"model_kwargs": {"attn_implementation": "sage"}}
    error = refused(hub, tmp_path, publish(BERT), device="cpu", loader_kwargs=given)
    assert (error.reference, error.hint) == ("invalid-argument", 'Pass attention="sdpa".')
    assert "'sage' is none of transformers" in error.message


def test_a_t4_has_no_flash_attention_2(
    hub: LocalHub, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpu(monkeypatch, T4)
    error = refused(hub, tmp_path, publish(BERT), attention="flash_attention_2")
    assert (error.reference, error.message, error.hint) == (
        "does-not-fit",
        "flash_attention_2 needs an NVIDIA GPU of compute capability 8.0 or newer, and Tesla T4 "
        "has 7.5",
        'Pass attention="sdpa".',
    )


def test_its_package_is_missed_before_the_download(
    hub: LocalHub, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # as if it were not installed
    with_gpu(monkeypatch, L4)
    files = pipeline("FluxPipeline", vae=VAE, transformer=["diffusers", "FluxTransformer2DModel"])
    others = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    error = refused(
        hub,
        tmp_path,
        publish(files),
        attention="flash",
        loader_kwargs=dict.fromkeys(others),
    )
    assert error.reference == "missing-package"
    assert "flash-attn>=2.6.3, which is not installed" in error.message
    assert 'Pass attention="sdpa".' in error.hint
    assert '--no-build-isolation "flash-attn>=2.6.3"' in error.hint


def test_a_class_that_has_no_other_way(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    config = {"model_type": "deberta-v2", "architectures": ["DebertaV2Model"]}
    repo_id = publish({**BERT, "config.json": as_json(config)})
    error = refused(hub, tmp_path, repo_id, device="cpu", attention="sdpa")
    assert (error.reference, error.message, error.hint) == (
        "unsupported-class",
        "'DebertaV2Model' cannot compute attention as 'sdpa'",
        'Pass attention="eager".',
    )
    # It protects: what is forced is a load that could work.
    error = refused(hub, tmp_path, repo_id, device="cpu", attention="sdpa", force=True)
    assert error.reference == "unsupported-class"


@pytest.mark.parametrize(
    ("cls", "attention"),
    [
        ("AutoModelForSequenceClassification", "eager"),
        ("BertForSequenceClassification", "flex_attention"),
        (("AutoTokenizer", "AutoModelForSequenceClassification"), "eager"),
    ],
)
def test_a_class_of_transformers_that_is_asked_for(
    hub: LocalHub, hub_root: Path, tmp_path: Path, cls: Any, attention: str
) -> None:
    place = hub_root / "models/tiny/attention-classifier"
    if not place.exists():
        place.mkdir(parents=True)
        save_classifier(place)
    made = nbloader.load(
        "tiny/attention-classifier",
        cls=cls,
        attention=attention,
        device="cpu",
        endpoint=hub.endpoint,
        cache_dir=tmp_path,
        view="none",
    )
    model = made[1] if isinstance(made, tuple) else made
    assert model.config._attn_implementation == attention


def test_a_class_of_diffusers_that_is_asked_for(
    hub: LocalHub, hub_root: Path, tmp_path: Path
) -> None:
    import diffusers

    place = hub_root / "models/tiny/attention-transformer"
    make("FluxTransformer2DModel").save_pretrained(place)
    arguments: dict[str, Any] = {
        "device": "cpu",
        "endpoint": hub.endpoint,
        "cache_dir": tmp_path,
        "view": "none",
    }
    told: list[Event] = []
    model = nbloader.load(
        "tiny/attention-transformer", attention="_native_math", on_event=told.append, **arguments
    )
    assert isinstance(model, diffusers.FluxTransformer2DModel)
    backends = {each._attention_backend.value for each in model.attn_processors.values()}
    assert backends == {"_native_math"}
    assert not [each for each in told if isinstance(each, Notice)]
    hub.reset_counters()
    error = refused(hub, tmp_path, "tiny/attention-transformer", device="cpu", attention="eager")
    assert (error.reference, error.hint) == ("invalid-argument", 'Pass attention="sdpa".')


def test_a_tokenizer_alone_has_no_attention(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    files = {**BERT, "vocab.txt": b"[PAD]\n[UNK]\n", "tokenizer_config.json": b"{}"}
    error = refused(
        hub, tmp_path, publish(files), device="cpu", cls="AutoTokenizer", attention="eager"
    )
    assert (error.reference, error.message) == (
        "invalid-argument",
        "attention= is for a model, and none of the classes is one",
    )


def test_a_kernel_of_the_hub_is_refused_before_anything_is_asked(
    hub: LocalHub, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match="is a kernel of the Hub"):
        nbloader.load(
            MINILM,
            attention="kernels-community/flash-attn2",
            trust_remote_code=True,
            endpoint=hub.endpoint,
            cache_dir=tmp_path,
        )
    assert hub.counters().total.requests == 0


def test_the_command_line_takes_it(
    demo_hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--endpoint", demo_hub.endpoint, "--cache-dir", str(tmp_path), "--device", "cpu"]
    assert main(["preflight", MINILM, *where, "--attention", "xformers"]) == 1
    assert "'xformers' is none of transformers" in capsys.readouterr().out
    assert main(["preflight", MINILM, *where, "--attention", "fast"]) == 2
    assert "--attention fast is not known" in capsys.readouterr().err
