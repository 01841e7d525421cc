"""Repositories of transformers whose files are not as the library would have saved them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nbloader.records import Kind
from tests.differential.cases.transformers_models import WAVES, call_of, plain, save
from tests.differential.harness import Case

WEIGHTS = "model.safetensors"

Change = Callable[[Path], object]


def _tensors(change: Callable[[dict[str, Any]], Mapping[str, Any]], folder: Path) -> None:
    """Write the weights anew with what a change makes of them."""
    from safetensors.torch import load_file, save_file

    file = folder / WEIGHTS
    tensors = dict(change(load_file(file)))
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})


def _without(part: str) -> Change:
    return partial(_tensors, lambda found: {k: v for k, v in found.items() if part not in k})


def _with_prefix(prefix: str) -> Change:
    return partial(_tensors, lambda found: {prefix + key: each for key, each in found.items()})


def _halved(part: str) -> Change:
    return partial(
        _tensors,
        lambda found: {k: v[: len(v) // 2].clone() if part in k else v for k, v in found.items()},
    )


def _more(found: dict[str, Any]) -> Mapping[str, Any]:
    first = next(iter(found.values()))
    return {**found, "of.another.model": first.clone()}


def _config(**changes: Any) -> Change:
    """Change entries of the configuration; those that are None go."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        values = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

    return change


_CONFIGURATION = """from transformers import LlamaConfig


class OwnConfig(LlamaConfig):
    model_type = "own"
"""

_MODEL = """from transformers import LlamaForCausalLM, LlamaModel

from .configuration_own import OwnConfig


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig


class OwnModel(LlamaModel):
    config_class = OwnConfig


class OwnForWonders(LlamaForCausalLM):
    config_class = OwnConfig
"""


def _own(name: str, *autos: str) -> Change:
    """Make a model one of the repository's own code."""

    def change(folder: Path) -> None:
        (folder / "configuration_own.py").write_text(_CONFIGURATION)
        (folder / "modeling_own.py").write_text(_MODEL)
        auto_map = dict.fromkeys(autos, f"modeling_own.{name}")
        _config(
            model_type="own",
            architectures=[name],
            auto_map={"AutoConfig": "configuration_own.OwnConfig", **auto_map},
        )(folder)

    return change


def _trusting(task: str | None, auto: str, folder: Path) -> Any:
    import transformers

    if task is not None:
        return transformers.pipeline(task, model=str(folder), device="cpu", trust_remote_code=True)
    cls = getattr(transformers, auto)
    return cls.from_pretrained(str(folder), trust_remote_code=True).eval()


def _changed(cls: str, extra: str, *changes: Change) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        save(cls, {}, extra, folder)
        for change in changes:
            change(folder)

    return write


def _has_pipeline(task: str) -> bool:
    """Say whether the installed version has a task, without an import."""
    found = find_spec("transformers")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "pipelines" / f"{task}.py").exists()


def _case(name: str, write: Callable[[Path], object], **more: Any) -> Case:
    return Case(name=name, kind=Kind.TRANSFORMERS, save=write, **{"group": "files", **more})


def _loads(name: str, cls: str, task: str | None, *changes: Change, **more: Any) -> Case:
    given = {"plain": partial(plain, cls, task), "call": call_of(task), **more}
    return _case(name, _changed(cls, "text", *changes), **given)


_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "DPTForDepthEstimation": {
        "num_hidden_layers": 4,
        "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8,
    },
    "ResNetForImageClassification": {"hidden_sizes": [8, 8], "depths": [1, 1], "embedding_size": 8},
    "Wav2Vec2ForCTC": WAVES,
}


def _unread(name: str, cls: str, task: str, part: str, extra: str = "image") -> Case:
    """Make a case of files that lack what no call reads."""

    def write(folder: Path) -> None:
        save(cls, _SETTINGS[cls], extra, folder)
        _without(part)(folder)

    return _case(name, write, plain=partial(plain, cls, task), call=call_of(task))


def _refused(name: str, cls: str, reference: str, *changes: Change, **more: Any) -> Case:
    return _case(name, _changed(cls, "text", *changes), refused=reference, **more)


_CLASSIFIER = "BertForSequenceClassification"
_TRUST = {"arguments": {"trust_remote_code": True}}
_ALONE = {"notices": frozenset({"no-pipeline"})}

_DECISIONS = tuple(
    _case(
        "a-task-for-any-language-model",
        _changed("LlamaForCausalLM", "chat"),
        plain=partial(plain, "LlamaForCausalLM", task),
        call=call_of(task),
        arguments={"task": task},
        group=task,
    )
    for task in ("decision",)
    if _has_pipeline(task)
)
"""A task that only newer versions have."""

CASES = (
    # Tensors.
    _refused("without-its-head", _CLASSIFIER, "missing-tensors", _without("classifier")),
    _refused("without-a-layer", "LlamaForCausalLM", "missing-tensors", _without("layers.1.")),
    _refused("of-another-shape", _CLASSIFIER, "missing-tensors", _halved("classifier")),
    _refused("with-a-prefix", _CLASSIFIER, "missing-tensors", _with_prefix("module.")),
    _refused(
        "alone-without-its-head",
        "BertForQuestionAnswering",
        "missing-tensors",
        _without("qa_outputs"),
    ),
    _loads("with-more-tensors", _CLASSIFIER, "text-classification", partial(_tensors, _more)),
    _loads("without-a-pooler", "BertModel", "feature-extraction", _without("pooler")),
    _loads(
        "without-a-head-that-is-tied",
        "GPT2LMHeadModel",
        "text-generation",
        _without("lm_head"),
    ),
    _unread(
        "without-what-hides-sounds",
        "Wav2Vec2ForCTC",
        "automatic-speech-recognition",
        "masked_spec_embed",
        extra="waves letters",
    ),
    _unread(
        "without-counters", "ResNetForImageClassification", "image-classification", "num_batches"
    ),
    _unread(
        "without-a-way-that-leads-nowhere",
        "DPTForDepthEstimation",
        "depth-estimation",
        "fusion_stage.layers.0.residual_layer1",
        extra="dpt",
    ),
    # What the configuration names.
    _loads(
        "no-architectures",
        "BertModel",
        None,
        _config(architectures=None),
        **_ALONE,
    ),
    _loads(
        "no-architectures-but-a-task",
        "BertForMaskedLM",
        "fill-mask",
        _config(architectures=None),
        arguments={"task": "fill-mask"},
    ),
    _refused(
        "a-class-of-tomorrow",
        "BertModel",
        "unsupported-class",
        _config(architectures=["BertOfTomorrow"]),
    ),
    _refused(
        "a-family-of-tomorrow", "BertModel", "unsupported-class", _config(model_type="of_tomorrow")
    ),
    # What the caller asks for.
    _loads(
        "a-task-by-its-alias",
        _CLASSIFIER,
        "sentiment-analysis",
        arguments={"task": "sentiment-analysis"},
    ),
    _loads(
        "another-task",
        "BertForMaskedLM",
        "feature-extraction",
        arguments={"task": "feature-extraction"},
    ),
    *_DECISIONS,
    _refused(
        "a-task-that-is-none", _CLASSIFIER, "invalid-argument", arguments={"task": "summarization"}
    ),
    _refused(
        "a-task-of-another-head",
        "BertForMaskedLM",
        "missing-tensors",
        arguments={"task": "text-classification"},
    ),
    # Code of the repository.
    _case(
        "own-code-for-text",
        _changed("LlamaForCausalLM", "chat", _own("OwnForCausalLM", "AutoModelForCausalLM")),
        plain=partial(_trusting, "text-generation", ""),
        call=call_of("text-generation"),
        **_TRUST,
    ),
    _case(
        "own-code-that-no-task-knows",
        _changed("LlamaForCausalLM", "text", _own("OwnForWonders", "AutoModel")),
        plain=partial(_trusting, None, "AutoModel"),
        **_TRUST,
        **_ALONE,
    ),
    _case(
        "own-code-that-is-not-trusted",
        _changed("LlamaForCausalLM", "text", _own("OwnForCausalLM", "AutoModelForCausalLM")),
        refused="unsupported-repo",
    ),
)
