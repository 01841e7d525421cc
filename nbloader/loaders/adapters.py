"""Adapters, put into a model that is built: by the library's own calls on files that are there.

Words first, since they make the table of embeddings longer; then IP-Adapters, all in one call, as
diffusers wants several of them; then LoRAs, which may have to be made active together, with those
that an IP-Adapter brings. All before the model is offloaded: what is put in afterwards would have
the hooks taken off and set again.
"""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbloader.errors import InvalidArgumentError, ModelLoadError
from nbloader.loaders.folders import as_safetensors, rename, snapshot_of
from nbloader.loaders.reports import quiet
from nbloader.records import AdapterKind, ChosenAdapter, Selection
from nbloader.text import quote

_ENCODERS = {"clip_l": ("text_encoder", "tokenizer"), "clip_g": ("text_encoder_2", "tokenizer_2")}
"""By the tensors of a textual inversion for two text encoders, what each is for."""

_SAFE, _PICKLED = "adapter_model.safetensors", "adapter_model.bin"


def put_into_pipeline(pipeline: Any, selection: Selection, folder: Path) -> None:
    """Put the adapters of a selection into a pipeline of diffusers.

    Raises:
        InvalidArgumentError: the pipeline takes none of their kind, or a word for one is missing.
        ModelLoadError: the library found nothing in one that it could put in.
    """
    words: list[ChosenAdapter] = []
    ip_adapters: list[ChosenAdapter] = []
    loras: list[ChosenAdapter] = []
    groups = {AdapterKind.TEXTUAL_INVERSION: words, AdapterKind.IP_ADAPTER: ip_adapters}
    for one in selection.adapters:
        groups.get(one.kind, loras).append(one)
    with quiet():  # What the library misses of an adapter is not missing of the model.
        for one in words:
            _check_takes(pipeline, one, "load_textual_inversion")
            _words(pipeline, one, _place(one, selection, folder))
        if ip_adapters:
            _check_takes(pipeline, ip_adapters[0], "load_ip_adapter")
            _ip_adapters(pipeline, ip_adapters, selection, folder)
        if loras:
            _check_takes(pipeline, loras[0], "load_lora_weights")
            _loras(pipeline, loras, selection, folder)
    for repo_id in {one.repo_id for one in selection.adapters} - {""}:
        rename(pipeline, snapshot_of(selection, folder, repo_id), repo_id)


def _place(one: ChosenAdapter, selection: Selection, folder: Path) -> Path:
    """Return the folder with the file of an adapter."""
    if not one.repo_id:
        return Path(one.folder)
    return snapshot_of(selection, folder, one.repo_id) / one.folder


def _check_takes(pipeline: Any, one: ChosenAdapter, method: str) -> None:
    if not hasattr(pipeline, method):
        raise InvalidArgumentError(
            f"{type(pipeline).__name__} takes no {one.kind}, and {quote(one.filename)} is one",
            hint="Leave it out, or load the class that takes it (cls=...).",
        )


def _words(pipeline: Any, one: ChosenAdapter, place: Path) -> None:
    if len(one.words) < 2 or not set(one.words) <= _ENCODERS.keys():
        given = {"token": one.token} if one.token else {}
        pipeline.load_textual_inversion(str(place), weight_name=one.filename, **given)
        return
    from safetensors.torch import load_file

    if not one.token:
        raise InvalidArgumentError(
            f"{quote(one.filename)} does not say which word it is for",
            hint='Choose one: adapters={"repo_id": ..., "token": "<my-word>"}.',
        )
    embeddings = load_file(place / one.filename)
    for name in one.words:
        encoder, tokenizer = _ENCODERS[name]
        pipeline.load_textual_inversion(
            embeddings[name],
            token=one.token,
            text_encoder=getattr(pipeline, encoder),
            tokenizer=getattr(pipeline, tokenizer),
        )


def _ip_adapters(
    pipeline: Any, adapters: Sequence[ChosenAdapter], selection: Selection, folder: Path
) -> None:
    # The library finds an image encoder beside the file, or from the root of the repository.
    roots, inner = [], []
    for one in adapters:
        root = snapshot_of(selection, folder, one.repo_id) if one.repo_id else Path(one.folder)
        roots.append(str(root))
        inner.append(one.folder if one.repo_id else "")
    several = len(adapters) > 1
    first = adapters[0]
    encoders = [one.image_encoder for one in adapters if one.image_encoder is not None]
    arguments: dict[str, Any] = {
        "subfolder": inner if several else inner[0],
        "weight_name": [one.filename for one in adapters] if several else first.filename,
        "local_files_only": True,
    }
    encoder = encoders[0] if encoders else None
    takes = inspect.signature(pipeline.load_ip_adapter).parameters
    if "image_encoder_folder" in takes:
        arguments["image_encoder_folder"] = encoder
    else:  # Those of FLUX.1 take a repository, and a folder in it.
        place = snapshot_of(selection, folder, first.repo_id) if first.repo_id else None
        named = str(place or first.folder) if encoder else None
        arguments["image_encoder_pretrained_model_name_or_path"] = named
        arguments["image_encoder_subfolder"] = _inner(encoder or "", first)
    pipeline.load_ip_adapter(roots if several else roots[0], **arguments)
    scales = [one.scale for one in adapters]
    if any(scale is not None for scale in scales):
        known = [1.0 if scale is None else scale for scale in scales]
        pipeline.set_ip_adapter_scale(known if several else known[0])


def _inner(encoder: str, one: ChosenAdapter) -> str:
    """Return where an image encoder is in the repository of an adapter."""
    beside = one.folder if one.repo_id and encoder and "/" not in encoder else ""
    return "/".join(filter(None, (beside, encoder)))


def _loras(
    pipeline: Any, adapters: Sequence[ChosenAdapter], selection: Selection, folder: Path
) -> None:
    before = _names(pipeline)
    for one in adapters:
        try:
            pipeline.load_lora_weights(
                str(_place(one, selection, folder)),
                weight_name=one.filename,
                adapter_name=one.name,
                local_files_only=True,
            )
        except ValueError as error:
            # diffusers casts a text encoder with a LoRA, which bitsandbytes forbids.
            part = _quantized_text_encoder(pipeline)
            if part and "cast a bitsandbytes" in str(error):
                raise ModelLoadError(
                    f"{quote(one.filename)} changes the text encoders, and {part} is quantized",
                    hint='Choose another way, such as plan="model-offload" or plan="gpu".',
                ) from error
            raise
        if one.name not in _names(pipeline):
            raise ModelLoadError(
                f"Nothing in {quote(one.filename)} could be put into {selection.repo_id}: the "
                "library knows none of its names",
                hint="Look for a file in the format of diffusers, or upgrade diffusers.",
            )
    if len(adapters) > 1 or before or any(one.scale is not None for one in adapters):
        scales = [1.0 if one.scale is None else one.scale for one in adapters]
        names = [*before, *(one.name for one in adapters)]
        pipeline.set_adapters(names, [*(1.0 for _ in before), *scales])


def _quantized_text_encoder(pipeline: Any) -> str:
    """Name a text encoder that is quantized; empty if there is none."""
    parts = pipeline.components.items()
    found = (name for name, part in parts if getattr(part, "is_quantized", False))
    return next((name for name in found if name.startswith("text_encoder")), "")


def _names(pipeline: Any) -> list[str]:
    """Return the names of the LoRAs that a pipeline has."""
    listed = pipeline.get_list_adapters().values()
    return list(dict.fromkeys(name for names in listed for name in names))


def put_into_model(model: Any, selection: Selection, folder: Path) -> None:
    """Put the adapters of a selection into a model of transformers or sentence-transformers.

    Of several, the library makes the last one active.

    Raises:
        InvalidArgumentError: it takes none.
    """
    for one in selection.adapters:
        if not hasattr(model, "load_adapter"):
            raise InvalidArgumentError(
                f"{type(model).__name__} takes no adapter of PEFT", hint="Leave adapters= out."
            )
        with quiet():
            _put_into_model(model, one, _place(one, selection, folder))


def _put_into_model(model: Any, one: ChosenAdapter, place: Path) -> None:
    if (place / _SAFE).is_file() or not (place / _PICKLED).is_file():
        model.load_adapter(str(place), adapter_name=one.name)
        return
    private = Path(tempfile.mkdtemp(prefix="nbloader-adapter-"))
    try:
        as_safetensors(place, private)
        model.load_adapter(str(private), adapter_name=one.name)
    finally:
        shutil.rmtree(private, ignore_errors=True)
