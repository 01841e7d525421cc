"""One model of diffusers in a file, with its configuration in a repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nbloader.errors import UnsupportedRepoError
from nbloader.hub_names import join, successor_of
from nbloader.records import Component, Reference
from nbloader.selection.checkpoint_types import Type, types
from nbloader.selection.classes import CONFIG, MODEL
from nbloader.selection.described import GGUF, Described, described, format_of
from nbloader.selection.gguf_models import check_parts, check_types, gguf_model
from nbloader.selection.repo import CONFIGURATION, Repo, companion, is_name
from nbloader.selection.single_files import check_ending, check_holds, checkpoint_of, refuse_scaled
from nbloader.text import quote

GGUF_NEEDS = ("accelerate", "gguf")
"""The packages that both libraries read a GGUF with."""

# The folder of the configuration of each class that reads checkpoints, where it has one of its own:
# `SINGLE_FILE_LOADABLE_CLASSES` of diffusers (0.42.1). A test compares them.
READERS: Mapping[str, str] = {
    **{type_.class_name: type_.subfolder for type_ in types()},
    "AutoencoderKL": "vae",
    "AutoencoderKLLTX2Audio": "audio_vae",
    "AutoencoderKLLTX2Video": "vae",
    "AutoencoderKLLTXVideo": "vae",
    "ChronoEditTransformer3DModel": "transformer",
    "ErnieImageTransformer2DModel": "transformer",
    "MotifVideoTransformer3DModel": "transformer",
    "QwenImageTransformer2DModel": "transformer",
    "SkyReelsV2Transformer3DModel": "transformer",
    "SparseControlNetModel": "",
    "StableCascadeUNet": "",
    "WanAnimate2Transformer3DModel": "transformer",
}


def configuration_of(type_: Type) -> str:
    """Return the repository that the configuration of a checkpoint is taken from."""
    return successor_of(type_.repo_id) or type_.repo_id


def model_from_file(
    repo: Repo,
    path: str,
    found: Described,
    class_name: str,
    *,
    name: str = MODEL,
    base: Repo | None = None,
) -> Component | None:
    """A model of diffusers, taken from a file; None as long as not all is listed.

    Args:
        repo: of the file.
        base: the pipeline that the model is a part of, by its name, and that has the configuration;
            without it the repository that is asked for, or that the tensors tell.

    Raises:
        UnsupportedRepoError: the file is no checkpoint, or its configuration is not where it ought
            to be.
    """
    asked = repo.family.request.config
    check_ending(repo.repo_id, path.removeprefix(repo.root), found.format)
    if found.format == GGUF:
        check_types(path, (tensor.dtype for tensor in found.tensors.values()))
    if base is not None:
        refuse_scaled(path, found.tensors)
        inner, prefix = name, ""
    elif asked:
        refuse_scaled(path, found.tensors)
        reference = Reference(repo_id=asked, role=CONFIGURATION)
        base, inner, prefix = companion(repo, reference, where="config"), READERS[class_name], ""
    else:
        checkpoint = checkpoint_of(repo.repo_id, path.removeprefix(repo.root), found)
        type_ = checkpoint.type
        reference = Reference(repo_id=configuration_of(type_), role=CONFIGURATION)
        base = companion(repo, reference, where=path)
        inner = type_.subfolder if class_name == type_.class_name else READERS[class_name]
        prefix = checkpoint.main if class_name == type_.class_name else checkpoint.vae or ""
    if base is None:
        return None
    if asked and inner and not base.existing(join(base.root, inner), CONFIG):
        inner = ""  # The repository of one model has it in its root.
    config = base.existing(join(base.root, inner) if inner else base.root, CONFIG)
    if not config:
        raise UnsupportedRepoError(
            f"{quote(base.repo_id)}, whose configuration {quote(path)} is loaded with, has no "
            f"{CONFIG}" + (f" in {quote(inner)}." if inner else "."),
            hint='Name another repository of it: loader_kwargs={"config": "org/name"}.',
        )
    return Component(
        name=name,
        library="diffusers",
        class_name=class_name,
        paths=tuple(sorted({path, *config})),
        weights=(path,),
        needs=GGUF_NEEDS if found.format == GGUF else (),
        folder=inner,
        checkpoint=path,
        config=base.repo_id,
        tensors=prefix,
    )


def part_from_file(
    repo: Repo, other: Repo, path: str, name: str, declared: object
) -> Component | None:
    """A part of a pipeline, taken from a file; None as long as not all is known.

    Args:
        repo: of the pipeline.
        other: of the file.
        name: of the part.
        declared: what the pipeline says of the part: its library and its class.

    Raises:
        UnsupportedRepoError: the file holds nothing of which the part could be made.
    """
    if path not in other.paths or format_of(path) is None:
        raise UnsupportedRepoError(
            f"components[{name!r}]: {quote(other.repo_id)} has no file of weights "
            f"{quote(path.removeprefix(other.root))}.",
            hint="Look at its files on the Hub, and name it from the root of the repository.",
        )
    found = described(other, path)
    if found is None:
        return None
    if found.format == GGUF:
        check_parts(path, found.metadata)
    match declared:
        case ["transformers", str(class_name)] if is_name(class_name):
            model = gguf_model(found.metadata) if found.format == GGUF else None
            if model is not None:
                return Component(
                    name=name,
                    library="transformers",
                    class_name=class_name,
                    paths=(path,),
                    weights=(path,),
                    model_type=model.family,
                    needs=GGUF_NEEDS,
                    repo_id=other.repo_id,
                    checkpoint=path,
                )
            raise UnsupportedRepoError(
                f"components[{name!r}]: a {class_name} of transformers cannot be made of "
                f"{quote(path)}, which has no configuration.",
                hint="Name the folder of a repository that has it, or a GGUF of it.",
            )
        case ["diffusers", str(class_name)] if class_name in READERS:
            place = join(other.repo_id.rstrip("/"), path.removeprefix(other.root))
            check_holds(f"components[{name!r}]", repo.repo_id, place, found, class_name)
            part = model_from_file(other, path, found, class_name, name=name, base=repo)
        case _:
            told = checkpoint_of(other.repo_id, path.removeprefix(other.root), found).type
            part = model_from_file(other, path, found, told.class_name, name=name)
    return None if part is None else replace(part, repo_id=other.repo_id)
