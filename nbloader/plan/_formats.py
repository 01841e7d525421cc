"""What a repository seems to be when it cannot be loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nbloader.errors import NoWeightsError, RepoError, UnsupportedRepoError
from nbloader.hub_names import folder_and_name
from nbloader.plan._repo import Repo
from nbloader.quoting import quote

__all__ = ["has_foreign_weights", "no_weights", "unsupported"]

_FORMATS: tuple[tuple[str, str, str], ...] = (
    (
        r"adapter_config\.json|adapter_model\.(safetensors|bin)|pytorch_lora_weights\.\w+",
        "an adapter (LoRA)",
        "Load the base model that its card names, then add the adapter to it.",
    ),
    (
        r".*\.gguf",
        "GGUF weights for llama.cpp",
        "Load the repository that they were made from; its card names it.",
    ),
    (
        r"modular_model_index\.json",
        "a modular diffusers pipeline",
        "Load it with diffusers.ModularPipeline.",
    ),
    (
        r".*\.onnx(_data)?",
        "an export to ONNX",
        "Load the repository that it was made from; its card names it.",
    ),
    (r"openvino_.*", "an export to OpenVINO", "Load the repository that it was made from."),
    (
        r"tf_model.*\.h5|flax_model.*\.msgpack|diffusion_flax_model.*\.msgpack|rust_model\.ot",
        "weights for another framework than PyTorch",
        "Look for a repository with safetensors weights.",
    ),
    (
        r"consolidated.*\.(safetensors|pth)",
        "weights in their author's own format",
        "Look for the repository with the same name and the ending -hf.",
    ),
)
_BARE = (
    r".*\.(ckpt|safetensors|pt|pth|bin)",
    "a bare checkpoint without a configuration",
    "Load it with the library's own from_single_file.",
)
_UNKNOWN = "Name the library with kind='diffusers', 'sentence-transformers' or 'transformers'."


def unsupported(repo: Repo, missing: str) -> UnsupportedRepoError:
    """The error for a repository that no loader fits; `missing` is the file that would tell it."""
    if not any(not path.startswith(".") for path in repo.paths):
        return UnsupportedRepoError(
            f"{quote(repo.repo_id)} has no files.", hint="Check the name and the revision."
        )
    what, hint = _seems(repo.paths, (*_FORMATS, _BARE))
    what = f" It seems to be {what}." if what else ""
    return UnsupportedRepoError(
        f"{quote(repo.repo_id)} cannot be loaded: it has no {missing}.{what}", hint=hint or _UNKNOWN
    )


def has_foreign_weights(repo: Repo, folder: str) -> bool:
    """Whether `folder` has weights of any kind, loadable or not."""
    return _seems(repo.names(folder), (*_FORMATS, _BARE)) != ("", "")


def no_weights(repo: Repo, folder: str) -> RepoError:
    """The error for a model whose `folder` has no weights that its library loads."""
    # Exports of a whole repository stand in folders of their own.
    what, hint = _seems(repo.names(folder) if folder else repo.paths, _FORMATS)
    if what and not folder:
        return UnsupportedRepoError(
            f"{quote(repo.repo_id)} has no PyTorch weights. It seems to be {what}.", hint=hint
        )
    place = (
        f"the folder {quote(folder)} of {quote(repo.repo_id)}" if folder else quote(repo.repo_id)
    )
    found = f" There is {what}." if what else ""
    return NoWeightsError(
        f"There are no weights in {place} that could be loaded.{found}",
        hint="Try another revision (revision=...), or a repository with safetensors weights.",
    )


def _seems(paths: Iterable[str], formats: Iterable[tuple[str, str, str]]) -> tuple[str, str]:
    names = {folder_and_name(path)[1] for path in paths}
    for pattern, what, hint in formats:
        matches = re.compile(pattern).fullmatch
        if any(matches(name) for name in names):
            return what, hint
    return "", ""
