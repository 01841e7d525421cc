"""Lines of code that load what is none of ours.

Each is for a repository, and the file that shows what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nbloader.hub_names import folder_and_name, is_repo_id
from nbloader.selection.joining import joining
from nbloader.selection.repo import Repo
from nbloader.text import quote


def literal(value: str) -> str:
    """Return a text as it stands in a line to paste."""
    return f'"{value}"' if re.fullmatch(r"[\w./:* -]{1,300}", value, re.ASCII) else quote(value)


def filled(line: str, repo: Repo, path: str = "") -> str:
    """Put what the tables leave open into a line."""
    name = repo.repo_id.rpartition("/")[2]
    return line.format(repo=literal(repo.repo_id), id=repo.repo_id, name=name, path=path)


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


def with_adapter(repo: Repo, adapter: str) -> str:
    return f"Add it to its base model: pipe = nbloader.load({base_of(repo)}, adapters={adapter})"


def lora(repo: Repo, path: str) -> str:
    folder, name = folder_and_name(path)
    usual = name.startswith("pytorch_lora_weights.") and not folder
    return with_adapter(repo, literal(repo.repo_id if usual else f"{repo.repo_id}/{path}"))


def ip_adapter(repo: Repo, path: str) -> str:
    return with_adapter(repo, literal(f"{repo.repo_id}/{path}"))


def textual_inversion(repo: Repo, path: str) -> str:
    del path
    return with_adapter(repo, literal(repo.repo_id))


def textual_inversion_of(repo: Repo, path: str) -> str:
    return with_adapter(repo, literal(f"{repo.repo_id}/{path}"))


def single_part(argument: str) -> Callable[[Repo, str], str]:
    """Make the hint for a part of a pipeline in one file, which a pipeline takes as `argument`."""

    def hint(repo: Repo, path: str) -> str:
        is_xl = any("xl" in base.lower() for base in bases_of(repo))
        class_name = joining(argument, is_xl=is_xl)
        cls = f"cls={literal(class_name)}, " if class_name else ""
        return (
            f"Load its pipeline with it: nbloader.load({base_of(repo)}, {cls}"
            f'components={{"{argument}": {file_of(repo, path)}}}).'
        )

    return hint


def file_of(repo: Repo, path: str) -> str:
    """Return the place of a file, as it stands in a line."""
    return literal(f"{repo.repo_id}/{path}")


def single_file(repo: Repo, path: str) -> str:
    return f"Load the file: nbloader.load({file_of(repo, path)})."


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
    """What makes pictures is a part of a pipeline; language models are for llama.cpp, too."""
    named = transformer(repo, path)
    unsaid = repo.pipeline_tag is None and named is not None
    if unsaid or repo.pipeline_tag in _PICTURES or repo.library_name == "diffusers":
        return (
            f"Load its pipeline with it: nbloader.load({base_of(repo)}, "
            f'components={{"transformer": {file_of(repo, path)}}}).'
        )
    return (
        f"Load the file, which transformers unpacks: nbloader.load({file_of(repo, path)}). Or, "
        f"packed as it is, with llama.cpp: llama_cpp.Llama.from_pretrained("
        f"{literal(repo.repo_id)}, filename={literal(path)}).{made_from(repo)}"
    )
