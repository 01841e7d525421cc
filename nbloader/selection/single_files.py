"""What is in a checkpoint of one file, by the names and shapes of its tensors.

The rules are those of `from_single_file` of diffusers (0.42.1), `loaders/single_file.py`: a
pipeline takes from the file what it finds there of its models, and the rest from the repository of
its configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nbloader.errors import UnsupportedRepoError
from nbloader.hub_names import is_repo_id, join
from nbloader.selection.checkpoint_types import DENOISER, Type, type_of, types
from nbloader.selection.described import GGUF, SAFETENSORS, Described
from nbloader.selection.gguf_models import gguf_model
from nbloader.selection.lines import literal
from nbloader.text import quote

VAES = ("first_stage_model.", "vae.")
"""What stands before the names of the tensors of a VAE (`LDM_VAE_KEYS`)."""

# The six names by which `is_clip_model_in_single_file` finds a text encoder of the family CLIP, and
# the one by which `is_t5_in_single_file` finds T5. A test compares them.
CLIPS = (
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
    "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.weight",
    "cond_stage_model.model.token_embedding.weight",
    "conditioner.embedders.1.model.positional_embedding",
    "conditioner.embedders.0.model.text_projection",
    "text_encoders.clip_g.transformer.text_model.embeddings.position_embedding.weight",
)
T5 = "text_encoders.t5xxl.transformer.shared.weight"

OF_CLIP = frozenset({"CLIPTextModel", "CLIPTextModelWithProjection"})
OF_T5 = frozenset({"T5EncoderModel"})

_TEXT = re.compile(r"cond_stage_model\.|conditioner\.embedders\.\d+\.|text_encoders\.\w+\.")
"""What stands before the names of the tensors of a text encoder."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is in a file.

    Attributes:
        type: by which the library chooses a configuration.
        main: what stands before the names of the main model; empty if nothing does.
        vae: the same of the VAE; None if there is none.
        texts: the same of the text encoders, in their order.
        clip, t5: whether the library finds text encoders of these families.
    """

    type: Type
    main: str
    vae: str | None
    texts: tuple[str, ...]
    clip: bool
    t5: bool

    @property
    def alone(self) -> bool:
        """Whether the file holds one model and nothing of the rest of a pipeline."""
        return self.vae is None and not self.texts

    def holds(self, class_name: str) -> bool:
        """Say whether the library takes a model of a pipeline from the file, by its class."""
        if class_name in OF_CLIP:
            return self.clip
        if class_name in OF_T5:
            return self.t5
        if class_name.startswith(("Autoencoder", "AsymmetricAutoencoder")):
            return self.vae is not None
        return class_name == self.type.class_name


def checkpoint_of(repo_id: str, path: str, described: Described) -> Checkpoint:
    """Return what is in a file.

    Args:
        repo_id, path: where the file is, for errors.

    Raises:
        UnsupportedRepoError: it is no checkpoint that diffusers can tell; the text says what it
            seems to be.
    """
    shapes = described.shapes
    refuse_scaled(path, shapes)
    type_ = type_of(shapes)
    if type_ is None:
        raise _no_checkpoint(repo_id, path, described)
    vae = next((prefix for prefix in reversed(VAES) if _any_begins(shapes, prefix)), None)
    texts = {match[0] for name in shapes if (match := _TEXT.match(name))}
    return Checkpoint(
        type=type_,
        main=DENOISER if _any_begins(shapes, DENOISER) else "",
        vae=vae,
        texts=tuple(sorted(texts)),
        clip=any(name in shapes for name in CLIPS),
        t5=T5 in shapes,
    )


_KINDS = re.compile("ControlNet|Transformer|UNet|Autoencoder|MotionAdapter")
_OF_DIFFUSERS = ("transformer_blocks.", "down_blocks.", "up_blocks.", "mid_block.")
"""What the names of tensors begin with that are those of diffusers, and not of the authors."""


def check_holds(where: str, base: str, place: str, found: Described, class_name: str) -> None:
    """See that a model of a class can be in a file, as far as its tensors tell.

    Args:
        where: the argument that names the file, for errors.
        base: the repository that the model is to be a part of, for errors.
        place: the file, with its repository.

    Raises:
        UnsupportedRepoError: it holds something else.
    """
    type_ = type_of(found.shapes)
    if type_ is None:
        what, adapts = _instead(found)
        if what:
            raise UnsupportedRepoError(
                f"{where}: {quote(place)} is no {class_name}. It seems to be {what}.",
                hint=f"It is put into a model: nbloader.load({literal(base)}, "
                f"adapters={literal(place)})."
                if adapts
                else f"Name a file, or the folder of a repository, of the class {class_name}.",
            )
        return
    checkpoint = checkpoint_of(base, place, found)
    if checkpoint.holds(class_name) or _may_be(type_, class_name, found.shapes):
        return
    raise UnsupportedRepoError(
        f"{where}: {quote(place)} holds weights of {type_.class_name}, and not of {class_name}.",
        hint=f"Name a file of the same model as {quote(base)}, or load the pipeline that it is of: "
        f"nbloader.load({literal(type_.repo_id)}, components=...).",
    )


def _may_be(type_: Type, class_name: str, names: Iterable[str]) -> bool:
    """Say whether a file that is taken for a type may hold a model of another class.

    The types tell checkpoints of their authors, and not all classes that read such; they do not
    tell the VAEs apart.
    """
    told, meant = (_KINDS.search(name) for name in (type_.class_name, class_name))
    if told is None or meant is None:
        return True
    if told[0] != meant[0]:
        return False
    return (
        meant[0] == "Autoencoder"
        or class_name not in {each.class_name for each in types()}
        or class_name == type_.class_name
        or any(name.startswith(_OF_DIFFUSERS) for name in names)
    )


def _instead(found: Described) -> tuple[str, bool]:
    """Say what a file seems to be that is no checkpoint, and whether it is put into a model."""
    if found.format == GGUF and gguf_model(found.metadata) is not None:
        return f"a GGUF of {quote(found.metadata['general.architecture'])}", False
    what, hint = _seems(found.tensors)
    return ("", False) if what == _ONE_MODEL else (what, "adapters=" in hint)


def _any_begins(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


# -- what it is instead ----------------------------------------------------------------------------

_ONE_MODEL = "one model in the format of diffusers, and not a checkpoint in that of its authors"
_SCALED = re.compile(r"(?:^|.*\.)(?:scale_weight|weight_scale|scaled_fp8)")
_NAMED: tuple[tuple[str, str, str], ...] = (
    (
        r".*[._](lora_[AB]|lora_(up|down)|lora\.(up|down)|lora_linear_layer)\b.*|.*\.(lokr|hada|oft)_.*",
        "a LoRA",
        "Load its base model with it: nbloader.load(BASE, adapters={place}).",
    ),
    (
        r"(ip_adapter|image_proj(_model)?)\..*",
        "an IP-Adapter",
        "Load its base model with it: nbloader.load(BASE, adapters={place}).",
    ),
    (
        r"emb_params|clip_[lg]|string_to_param.*|<.*>",
        "a textual inversion",
        "Load its base model with it: nbloader.load(BASE, adapters={place}).",
    ),
    (
        r".*\.(wscales|smooth_orig|lora_down_proj|proj_down)",
        "weights quantized by Nunchaku",
        "Load it with Nunchaku, whose classes have from_pretrained, and hand it to its pipeline.",
    ),
    (
        r"(text_model\.)?(encoder\.layers|embeddings)\..*|encoder\.block\.\d+\.layer\..*|shared\.weight",
        "a text encoder alone, without its configuration",
        "Load the repository of the model that it is of, which has it in a folder of its own.",
    ),
    (
        r"model\.(layers|embed_tokens)\..*|transformer\.h\..*|lm_head\.weight",
        "a model of transformers, without its configuration",
        "Load its repository: nbloader.load({repo}).",
    ),
    (
        r"(down_blocks|up_blocks|transformer_blocks|single_transformer_blocks|mid_block|"
        r"encoder\.down_blocks|decoder\.up_blocks)\..*",
        _ONE_MODEL,
        "Load the folder that it is in: nbloader.load({folder}), or, for the class that reads such "
        "files, name it: cls=...",
    ),
)
"""What a file is that is no checkpoint, by the names of tensors; the first counts."""


def refuse_scaled(path: str, names: Iterable[str]) -> None:
    """Refuse float8 weights with scales beside them: diffusers would pass over the scales."""
    if any(_SCALED.fullmatch(name) for name in names):
        raise UnsupportedRepoError(
            f"{quote(path)} holds float8 weights with scales of their own, which diffusers passes "
            "over: the model would be a wrong one.",
            hint="Look for the same checkpoint in bfloat16 or as GGUF.",
        )


_ENDINGS = {SAFETENSORS: ".safetensors", GGUF: ".gguf"}


def check_ending(repo_id: str, path: str, format_: str) -> None:
    """Refuse a file whose format diffusers does not see by its name: it would unpickle it.

    Raises:
        UnsupportedRepoError: it is one.
    """
    ending = _ENDINGS.get(format_, "")
    if path.endswith(ending):
        return
    name = f"{path.rpartition('/')[2].rpartition('.')[0]}{ending}"
    fetched = f"nbloader.download({literal(repo_id)}, {literal(path)})"
    raise UnsupportedRepoError(
        f"{quote(path)} holds {format_}, which diffusers reads only of files that end with "
        f"{ending!r}.",
        hint=f"Give it such a name: import os; os.symlink({fetched}, {literal(name)}), and load "
        f"{literal(f'./{name}')}."
        if is_repo_id(repo_id)
        else f"Rename it to {quote(name)}.",
    )


def _no_checkpoint(repo_id: str, path: str, described: Described) -> UnsupportedRepoError:
    if described.format == GGUF:
        architecture = quote(described.metadata.get("general.architecture"))
        return UnsupportedRepoError(
            f"{quote(path)} is a GGUF of the architecture {architecture}, which neither diffusers "
            "nor transformers reads.",
            hint="Load it with what its card names, such as llama.cpp: "
            f"llama_cpp.Llama.from_pretrained({literal(repo_id)}, filename={literal(path)}).",
        )
    what, hint = _seems(described.tensors)
    inner = path.rpartition("/")[0]
    return UnsupportedRepoError(
        f"{quote(path)} is no checkpoint that diffusers can tell."
        + (f" It seems to be {what}." if what else ""),
        hint=hint.format(
            place=literal(join(repo_id.rstrip("/"), path)),
            repo=literal(repo_id),
            folder=f"{literal(repo_id)}, subfolder={literal(inner)}" if inner else literal(repo_id),
        )
        or "If a class of diffusers reads it, name that and where its configuration is: "
        'nbloader.load(..., cls=..., loader_kwargs={"config": "org/name"}).',
    )


def _seems(names: Mapping[str, object]) -> tuple[str, str]:
    for pattern, what, hint in _NAMED:
        matches = re.compile(pattern).fullmatch
        if any(matches(name) for name in names):
            return what, hint
    return "", ""
