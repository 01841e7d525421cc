"""Lines of code that load what is none of ours.

Each is for a repository, and the file that shows what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nbloader.hub_names import folder_and_name, is_repo_id
from nbloader.selection.repo import Repo
from nbloader.text import quote


def literal(value: str) -> str:
    """Return a text as it stands in a line to paste."""
    return f'"{value}"' if re.fullmatch(r"[\w./:* -]{1,300}", value, re.ASCII) else quote(value)


def filled(line: str, repo: Repo, path: str = "") -> str:
    """Put what the tables leave open into a line."""
    name = repo.repo_id.rpartition("/")[2]
    return line.format(repo=literal(repo.repo_id), id=repo.repo_id, name=name, path=path)


def address_of(repo: Repo, path: str) -> str:
    """Return where a file is, as it stands in a line."""
    if repo.folder is not None:
        return literal(f"{repo.repo_id.rstrip('/')}/{path}")
    return literal(f"https://huggingface.co/{repo.repo_id}/blob/main/{path}")


def card_of(repo: Repo) -> str:
    if repo.folder is not None:
        return "Its README.md" if "README.md" in repo.paths else "Who made it"
    return f"Its card at https://huggingface.co/{repo.repo_id}"


def bases_of(repo: Repo) -> list[str]:
    return [name for name in repo.base_models if is_repo_id(name)]


def base_of(repo: Repo) -> str:
    """Return the id of the base model, as it stands in a line."""
    return literal(next(iter(bases_of(repo)), "the base model that its card names"))


def made_from(repo: Repo) -> str:
    bases = bases_of(repo)
    return f" Or load what it was made from: nbloader.load({literal(bases[0])})." if bases else ""


def pipe(repo: Repo, call: str) -> str:
    return f"Add it to its base model: pipe = nbloader.load({base_of(repo)}); pipe.{call}"


def lora(repo: Repo, path: str) -> str:
    folder, name = folder_and_name(path)
    more = "" if name.startswith("pytorch_lora_weights.") else f", weight_name={literal(name)}"
    more += f", subfolder={literal(folder)}" if folder else ""
    return pipe(repo, f"load_lora_weights({literal(repo.repo_id)}{more})")


def ip_adapter(repo: Repo, path: str) -> str:
    folder, name = folder_and_name(path)
    return pipe(
        repo,
        f"load_ip_adapter({literal(repo.repo_id)}, subfolder={literal(folder)}, "
        f"weight_name={literal(name)})",
    )


def textual_inversion(repo: Repo, path: str) -> str:
    del path
    return pipe(repo, f"load_textual_inversion({literal(repo.repo_id)})")


def textual_inversion_of(repo: Repo, path: str) -> str:
    folder, name = folder_and_name(path)
    more = f", weight_name={literal(name)}" + (f", subfolder={literal(folder)}" if folder else "")
    return pipe(repo, f"load_textual_inversion({literal(repo.repo_id)}{more})")


# What makes a pipeline that takes such a part of one that does not, and would ignore it.
_JOINING = {
    "adapter": "StableDiffusionAdapterPipeline",
    "controlnet": "AutoPipelineForText2Image",
    "motion_adapter": "AnimateDiffPipeline",
}


def handing_in(repo: Repo, argument: str) -> str:
    """Return the line that loads the base model with a part, which is in a variable `argument`."""
    if (joining := _JOINING.get(argument)) is not None:
        return (
            f"pipe = nbloader.load({base_of(repo)}); "
            f"pipe = diffusers.{joining}.from_pipe(pipe, {argument}={argument})"
        )
    return f'nbloader.load({base_of(repo)}, loader_kwargs={{"{argument}": {argument}}})'


def single_part(argument: str, class_name: str) -> Callable[[Repo, str], str]:
    """Make the hint for a part of a pipeline in one file, which a pipeline takes as `argument`."""

    def hint(repo: Repo, path: str) -> str:
        address = address_of(repo, path)
        return (
            f"Load it by itself and hand it to its pipeline: {argument} = "
            f"diffusers.{class_name}.from_single_file({address}); {handing_in(repo, argument)}"
        )

    return hint


def single_file(repo: Repo, path: str) -> str:
    named = transformer(repo, path)
    if named is not None:
        return single_part("transformer", named)(repo, path)
    address = address_of(repo, path)
    pipeline = "StableDiffusion" if _OF_SD.search(path) else "StableDiffusionXL"
    return (
        "Load it with the pipeline of diffusers that it is for: "
        f"diffusers.{pipeline}Pipeline.from_single_file({address}), or that of another class."
    )


_OF_SD = re.compile(r"\b(sd[-_]?)?v?[12][-_.][0-9]|sd[-_]?v?[12](?!\d)|768", re.IGNORECASE)
"""In the name of a checkpoint of Stable Diffusion 1 or 2."""

_PICTURES = frozenset({"image-to-image", "image-to-video", "text-to-image", "text-to-video"})


# By what stands in the names of a file, its repository or its base models.
_TRANSFORMERS: tuple[tuple[str, str], ...] = (
    ("auraflow", "AuraFlowTransformer2DModel"),
    ("chroma", "ChromaTransformer2DModel"),
    ("hidream", "HiDreamImageTransformer2DModel"),
    ("hunyuan[-_]?video", "HunyuanVideoTransformer3DModel"),
    ("ltx[-_]?v", "LTXVideoTransformer3DModel"),
    ("lumina", "Lumina2Transformer2DModel"),
    ("qwen[-_]?image", "QwenImageTransformer2DModel"),
    ("sd3|stable[-_]?diffusion[-_]?3", "SD3Transformer2DModel"),
    (r"\bwan[-_.]?[12v]", "WanTransformer3DModel"),
    ("z[-_]image", "ZImageTransformer2DModel"),
    (r"flux[-_.]?2\b", "Flux2Transformer2DModel"),
    (r"\bflux", "FluxTransformer2DModel"),
)


def transformer(repo: Repo, path: str) -> str | None:
    """Return the class of diffusers that the transformer in a file is of, as its names tell."""
    names = " ".join((path, repo.repo_id, *bases_of(repo)))
    return next(
        (name for part, name in _TRANSFORMERS if re.search(part, names, re.IGNORECASE)), None
    )


def gguf(repo: Repo, path: str) -> str:
    """Language models are for llama.cpp; what makes pictures, for diffusers."""
    named = transformer(repo, path)
    unsaid = repo.pipeline_tag is None and named is not None
    if unsaid or repo.pipeline_tag in _PICTURES or repo.library_name == "diffusers":
        address = address_of(repo, path)
        return (
            f"Load it with the class of diffusers that it is for{':' if named else ', such as'} "
            f"diffusers.{named or 'FluxTransformer2DModel'}.from_single_file({address}, "
            "quantization_config=diffusers.GGUFQuantizationConfig()), and hand it to the pipeline "
            f"as transformer.{made_from(repo)}"
        )
    return (
        f"Load it with llama.cpp: llama_cpp.Llama.from_pretrained({literal(repo.repo_id)}, "
        f"filename={literal(path)}).{made_from(repo)}"
    )
