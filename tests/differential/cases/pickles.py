"""Weights that are pickled, as many repositories still have them, in each library."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbloader.records import Kind
from tests.differential.harness import Case
from tests.models import picture, save_classifier, save_embedder, save_pipeline
from tests.pickled import HARM, archive

CLASSIFIER = "model.safetensors"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"
DENSE = "2_Dense/model.safetensors"

Change = Callable[[Path], object]


def _classifier(folder: Path) -> Any:
    import transformers

    return transformers.pipeline("text-classification", model=str(folder), device="cpu")


def _embedder(folder: Path) -> Any:
    import sentence_transformers

    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def _pipeline(folder: Path) -> Any:
    import diffusers
    import torch

    return diffusers.DiffusionPipeline.from_pretrained(str(folder), torch_dtype=torch.float32)


def _bin_of(path: Path) -> Path:
    """Return the name of the same weights as a pickle."""
    stem = "pytorch_model" if path.stem == "model" else path.stem
    return path.with_name(f"{stem}.bin")


def _pickled(*paths: str, **options: Any) -> Change:
    """Write weights as a pickle in place of safetensors."""

    def change(folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        for path in paths:
            torch.save(load_file(folder / path), _bin_of(folder / path), **options)
            (folder / path).unlink()

    return change


def _changed(path: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Change the tensors in such a pickle."""

    def changed(folder: Path) -> None:
        import torch

        place = _bin_of(folder / path)
        torch.save(change(torch.load(place, weights_only=True)), place)

    return changed


def _without_one(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensors[name] for name in sorted(tensors)[1:]}


def _prefixed(tensors: dict[str, Any]) -> dict[str, Any]:
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def _state_dict(folder: Path) -> None:
    """Write what a training loop writes: parameters, buffers, metadata, what is tied twice."""
    import torch
    from transformers import BertForMaskedLM

    model = BertForMaskedLM.from_pretrained(folder)
    (folder / CLASSIFIER).unlink()
    torch.save(model.state_dict(keep_vars=True), folder / "pytorch_model.bin")


def _masked(folder: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    save_classifier(folder)
    config = BertConfig.from_pretrained(folder)
    BertForMaskedLM(config).save_pretrained(folder)


def _shards(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / CLASSIFIER)
    (folder / CLASSIFIER).unlink()
    weight_map = {}
    for number, name in enumerate(sorted(tensors)):
        weight_map[name] = f"pytorch_model-0000{number % 3 + 1}-of-00003.bin"
    for shard in sorted(set(weight_map.values())):
        part = {name: tensors[name] for name, file in weight_map.items() if file == shard}
        torch.save(part, folder / shard)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _whole_module(folder: Path) -> None:
    import torch
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder)
    (folder / CLASSIFIER).unlink()
    torch.save(model, folder / "pytorch_model.bin")


def _default_dict(folder: Path) -> None:
    """Write a dictionary of another class, which torch's restricted unpickler refuses."""
    import torch
    from safetensors.torch import load_file

    tensors: defaultdict[str, Any] = defaultdict(None, load_file(folder / CLASSIFIER))
    (folder / CLASSIFIER).unlink()
    torch.save(tensors, folder / "pytorch_model.bin")


def _harm(path: str) -> Change:
    def change(folder: Path) -> None:
        (folder / path).unlink()
        _bin_of(folder / path).write_bytes(archive(HARM["a call before the tensors"][0]))

    return change


def _with(save: Change, *changes: Change) -> Change:
    def made(folder: Path) -> None:
        save(folder)
        for change in changes:
            change(folder)

    return made


def _of_transformers(
    name: str, *changes: Change, save: Change = save_classifier, **more: Any
) -> Case:
    if "refused" not in more:
        more = {"plain": _classifier, "call": lambda made: made(["a good b", "bad"]), **more}
    return Case(name=f"pickled-{name}", kind=Kind.TRANSFORMERS, save=_with(save, *changes), **more)


def _fill_mask(folder: Path) -> Any:
    import transformers

    return transformers.pipeline("fill-mask", model=str(folder), device="cpu")


OLD = {"_use_new_zipfile_serialization": False}
ALLOWED = {"allow_pickle": True}

CASES = (
    _of_transformers("classifier", _pickled(CLASSIFIER)),
    _of_transformers("shards", _shards),
    _of_transformers(
        "state-dict",
        _state_dict,
        save=_masked,
        plain=_fill_mask,
        call=lambda made: made("a [MASK] b"),
    ),
    _of_transformers("old-format", _pickled(CLASSIFIER, **OLD), refused="pickled-weights"),
    _of_transformers("old-format-allowed", _pickled(CLASSIFIER, **OLD), arguments=ALLOWED),
    _of_transformers("whole-module", _whole_module, refused="pickled-weights"),
    _of_transformers("other-class", _default_dict, arguments=ALLOWED, refused="pickled-weights"),
    _of_transformers(
        "missing",
        _pickled(CLASSIFIER),
        _changed(CLASSIFIER, _without_one),
        refused="missing-tensors",
    ),
    _of_transformers(
        "prefixed", _pickled(CLASSIFIER), _changed(CLASSIFIER, _prefixed), refused="missing-tensors"
    ),
    _of_transformers("harm", _harm(CLASSIFIER), refused="pickled-weights"),
    Case(
        name="pickled-transformer-and-dense",
        kind=Kind.SENTENCE_TRANSFORMERS,
        save=_with(save_embedder, _pickled(CLASSIFIER, DENSE)),
        plain=_embedder,
        call=lambda made: made.encode(["a good b", "bad"]),
    ),
    Case(
        name="pickled-dense",
        kind=Kind.SENTENCE_TRANSFORMERS,
        save=_with(save_embedder, _pickled(DENSE)),
        plain=_embedder,
        call=lambda made: made.encode(["a good b", "bad"]),
    ),
    Case(
        name="pickled-dense-harm",
        kind=Kind.SENTENCE_TRANSFORMERS,
        save=_with(save_embedder, _harm(DENSE)),
        refused="pickled-weights",
    ),
    Case(
        name="pickled-unet-and-text-encoder",
        kind=Kind.DIFFUSERS,
        save=_with(save_pipeline, _pickled(UNET, TEXT_ENCODER)),
        plain=_pipeline,
        call=picture,
    ),
    Case(
        name="pickled-unet-old-format-allowed",
        kind=Kind.DIFFUSERS,
        save=_with(save_pipeline, _pickled(UNET, **OLD)),
        plain=_pipeline,
        call=picture,
        arguments=ALLOWED,
    ),
    Case(
        name="pickled-unet-missing",
        kind=Kind.DIFFUSERS,
        save=_with(save_pipeline, _pickled(UNET), _changed(UNET, _without_one)),
        refused="missing-tensors",
    ),
    Case(
        name="pickled-unet-harm",
        kind=Kind.DIFFUSERS,
        save=_with(save_pipeline, _harm(UNET)),
        refused="pickled-weights",
    ),
)
