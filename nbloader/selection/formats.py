"""What a repository seems to be when it cannot be loaded, and what loads it.

Told by what the Hub names as its library, and by the names of its files, as they are in real
repositories. The lines are those that the Hub shows under "Use this model"
(https://github.com/huggingface/huggingface.js/blob/main/packages/tasks/src/model-libraries-snippets.ts)
and those of the libraries' own documentation.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from nbloader.errors import NoWeightsError, RepoError, UnsupportedRepoError
from nbloader.hub_names import folder_and_name
from nbloader.selection.lines import (
    bases_of,
    card_of,
    filled,
    gguf,
    ip_adapter,
    literal,
    lora,
    made_from,
    single_file,
    single_part,
    textual_inversion,
    textual_inversion_of,
)
from nbloader.selection.repo import Repo, is_name
from nbloader.text import quote

MAX_NAMED = 3

_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|ckpt|pt|pth|h5|msgpack|ot|gguf|onnx|onnx_data|npz|pdparams|nemo|keras)"
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a repository seems to be.

    Attributes:
        what: a few words, with an article.
        hint: how it is loaded.
    """

    what: str
    hint: str


def unsupported(repo: Repo, missing: str) -> UnsupportedRepoError:
    """The error for a repository that no loader fits; `missing` is the file that would tell it."""
    if not any(not path.startswith(".") for path in repo.paths):
        return UnsupportedRepoError(
            f"{quote(repo.repo_id)} has no files.", hint="Check the name and the revision."
        )
    seen = _seems(repo)
    what = f" It seems to be {seen.what}." if seen else ""
    return UnsupportedRepoError(
        f"{quote(repo.repo_id)} cannot be loaded: it has no {missing}.{what}",
        hint=seen.hint if seen else f"{card_of(repo)} says what it is.",
    )


_ALSO_OF_TRANSFORMERS = ("sam2",)
"""Libraries whose name is that of a family of models of transformers, too."""


def refuse_other_libraries(repo: Repo, config: Mapping[str, object]) -> None:
    """Refuse a repository whose `config.json` is none of transformers.

    Raises:
        UnsupportedRepoError: it is one model of diffusers, or one of another library.
    """
    if "model_type" not in config and (
        "_diffusers_version" in config or isinstance(config.get("_class_name"), str)
    ):
        raise _one_model_of_diffusers(repo, config.get("_class_name"))
    quantized = config.get("quantization_config")
    method = quantized.get("quant_method") if isinstance(quantized, Mapping) else None
    by_mlx = config.get("quantization")
    told = isinstance(by_mlx, Mapping) and not by_mlx.keys().isdisjoint(("bits", "group_size"))
    if told and method is None:
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} is quantized by MLX, which transformers cannot load.",
            hint=f"Load it with MLX: mlx_lm.load({literal(repo.repo_id)}).{made_from(repo)}",
        )
    if "pretrained_cfg" in config:
        return  # transformers wraps the models of timm.
    family = config.get("model_type")
    own = _normal(repo.library_name or "")
    taken_over = family in _ALSO_OF_TRANSFORMERS
    if own in libraries() and (family is None or (_normal(str(family)) == own and not taken_over)):
        seen = _of_library(repo)
        assert seen is not None
        raise UnsupportedRepoError(f"{quote(repo.repo_id)} is {seen.what}.", hint=seen.hint)


def has_foreign_weights(repo: Repo, folder: str) -> bool:
    """Whether `folder` has weights of any kind, loadable or not."""
    return any(_WEIGHTS.fullmatch(name) for name in repo.names(folder))


def no_weights(repo: Repo, folder: str) -> RepoError:
    """The error for a model whose `folder` has no weights that its library loads."""
    if folder == repo.root:
        seen = _of_files(repo, _exports()) or _of_library(repo)
        if seen is None and not has_foreign_weights(repo, folder):
            seen = _of_processing(repo)
        if seen is not None:
            return UnsupportedRepoError(
                f"{quote(repo.repo_id)} has no PyTorch weights. It seems to be {seen.what}.",
                hint=seen.hint,
            )
    # Exports of a whole repository stand in folders of their own.
    what = next((what for what, find, _ in _exports() if find(repo.names(folder))), "")
    place = (
        f"the folder {quote(folder)} of {quote(repo.repo_id)}"
        if folder != repo.root
        else quote(repo.repo_id)
    )
    found = f" There is {what}." if what else ""
    return NoWeightsError(
        f"There are no weights in {place} that could be loaded.{found}",
        hint="Try another revision (revision=...), or a repository with safetensors weights.",
    )


# -- looking ---------------------------------------------------------------------------------------

_Find = Callable[[Iterable[str]], str | None]
"""Returns the first of the paths that shows a format."""

_Format = tuple[str, _Find, Callable[[Repo, str], str]]
"""What it is, what shows it, and the hint for a repository and the path that shows it."""


def _seems(repo: Repo) -> _Seen | None:
    return (
        _of_files(repo, _PARTS)
        or _of_library(repo)
        or _of_files(repo, _exports())
        or _of_folders(repo)
        or _of_other_library(repo)
        or _of_lone_weights(repo)
        or _of_processing(repo)
    )


def _of_files(repo: Repo, formats: Iterable[_Format]) -> _Seen | None:
    paths = sorted(repo.paths)
    for what, find, hint in formats:
        if (path := find(paths)) is not None:
            return _Seen(what, hint(repo, path.removeprefix(repo.root)))
    return None


def _named(pattern: str) -> _Find:
    """Look for the name of a file, in any folder."""
    matches = re.compile(pattern, re.IGNORECASE).fullmatch
    return lambda paths: next((path for path in paths if matches(folder_and_name(path)[1])), None)


def _within(pattern: str) -> _Find:
    """Look for a part of a path."""
    search = re.compile(pattern, re.IGNORECASE).search
    return lambda paths: next((path for path in paths if search(path)), None)


def _all_of(patterns: Sequence[str]) -> _Find:
    """Look for several whole paths, and give the one of the first pattern."""
    matches = [re.compile(pattern).fullmatch for pattern in patterns]

    def find(paths: Iterable[str]) -> str | None:
        there = list(paths)
        found = [next((path for path in there if match(path)), None) for match in matches]
        return found[0] if all(found) else None

    return find


def _of_library(repo: Repo) -> _Seen | None:
    """What the Hub names as the library, where that is one with a line of its own."""
    what, hint = libraries().get(_normal(repo.library_name or ""), ("", ""))
    if not what:
        return None
    return _Seen(f"a model of {what}", f"Load it with {what}: {filled(hint, repo)}.")


def _of_other_library(repo: Repo) -> _Seen | None:
    name = repo.library_name
    if name is None or _normal(name) in _OURS:
        return None
    return _Seen(
        f"for the library {quote(name)}", f"Load it with that library. {card_of(repo)} says how."
    )


def _of_folders(repo: Repo) -> _Seen | None:
    """Models that stand in folders, and none in the root."""
    marks = ("model_index.json", "config.json")
    found = sorted(
        (path.count("/"), path) for path in repo.paths if folder_and_name(path)[1] in marks
    )
    if not found:
        return None
    paths = [path.removeprefix(repo.root) for _, path in found]
    shown = ", ".join(quote(path) for path in paths[:MAX_NAMED])
    more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
    folder, name = folder_and_name(paths[0])
    if name == "model_index.json":
        line = (
            f"folder = huggingface_hub.snapshot_download({literal(repo.repo_id)}, "
            f"allow_patterns={literal(f'{folder}/*')}); "
            f'diffusers.DiffusionPipeline.from_pretrained(f"{{folder}}/{folder}")'
        )
    else:
        arguments = f"from_pretrained({literal(repo.repo_id)}, subfolder={literal(folder)})"
        line = (
            f"diffusers.AutoModel.{arguments}"
            if repo.library_name == "diffusers"
            else f"transformers.AutoModel.{arguments}, or diffusers.AutoModel for a part of a "
            "pipeline"
        )
    return _Seen(
        f"one whose models stand in folders: {shown}{more}",
        f"Only what is in the root of a repository is loaded here. The library loads a folder: "
        f"{line}.",
    )


def _of_lone_weights(repo: Repo) -> _Seen | None:
    """Weights without a configuration: a part or an add-on of diffusers, or a whole checkpoint."""
    paths = sorted(repo.paths)
    weights = [path for path in paths if _CHECKPOINT.fullmatch(path)]
    weights = weights or [path for path in paths if _PICKLES.fullmatch(path)]
    if not weights:
        return None
    largest = max(weights, key=repo.size_of)
    for what, find, hint in _SINGLE_PARTS:
        if find([largest]):
            return _Seen(what, hint(repo, largest))
    if not _CHECKPOINT.fullmatch(largest):
        return _Seen(
            "weights of PyTorch without a configuration",
            f"Only the code that they were made with loads them. {card_of(repo)} may name it.",
        )
    is_small = repo.size_of(largest) < _LEAST_CHECKPOINT_BYTES and bool(bases_of(repo))
    if is_small or "lora" in f"{repo.repo_id}/{largest}".lower():
        return _Seen("a LoRA of diffusers", lora(repo, largest))
    return _Seen("a bare checkpoint without a configuration", single_file(repo, largest))


def _of_processing(repo: Repo) -> _Seen | None:
    """What stands around a model, where there is none."""
    return _of_files(repo, _PROCESSING)


_CHECKPOINT = re.compile(r".*\.(safetensors|ckpt)")
_PICKLES = re.compile(r".*\.(pt|pth|bin)")
_LEAST_CHECKPOINT_BYTES = 1_600_000_000
"""Half a Stable Diffusion 1.5; the largest published LoRAs take less."""


# -- one model of diffusers ------------------------------------------------------------------------

# By a part of its name, the argument under which a pipeline takes a model.


def _one_model_of_diffusers(repo: Repo, named: object) -> UnsupportedRepoError:
    hint = f"{card_of(repo)} names the pipeline that it is for."
    if is_name(named):
        hint = f"Leave out kind= and task=: nbloader.load({literal(repo.repo_id)}) loads it."
    return UnsupportedRepoError(
        f"{quote(repo.repo_id)} is one model of diffusers, not of transformers: {quote(named)}.",
        hint=hint,
    )


# -- the tables ------------------------------------------------------------------------------------

_PARTS: tuple[_Format, ...] = (
    (
        "a modular diffusers pipeline",
        _named(r"modular_model_index\.json"),
        lambda repo, _: (
            f"Load it with diffusers.ModularPipeline.from_pretrained({literal(repo.repo_id)})."
        ),
    ),
    ("a LoRA of diffusers", _named(r"pytorch_lora_weights\.(safetensors|bin)"), lora),
    (
        "an adapter (LoRA)",
        _named(r"adapter_model\.(safetensors|bin)"),
        lambda repo, _: (
            "Load its base model with PEFT: "
            f"peft.AutoPeftModel.from_pretrained({literal(repo.repo_id)})."
        ),
    ),
    ("an IP-Adapter of diffusers", _named(r"ip[-_]adapter.*\.(safetensors|bin)"), ip_adapter),
    (
        "a textual inversion of diffusers",
        _named(r"learned_embeds.*\.(safetensors|bin|pt)"),
        textual_inversion,
    ),
)
"""What is added to a model of diffusers, or put together in another way."""

_PROCESSING: tuple[_Format, ...] = (
    (
        "a processor alone, without a model",
        _named(r"(pre)?processor_config\.json"),
        lambda repo, _: (
            f"Load it with transformers.AutoProcessor.from_pretrained({literal(repo.repo_id)})."
        ),
    ),
    (
        "a tokenizer alone, without a model",
        _named(
            r"tokenizer(_config)?\.json|tokenizer\.model|spiece\.model|"
            r"sentencepiece\.(bpe\.)?model|vocab\.(json|txt)"
        ),
        lambda repo, _: (
            f"Load it with transformers.AutoTokenizer.from_pretrained({literal(repo.repo_id)})."
        ),
    ),
    (
        "a scheduler of diffusers alone",
        _named(r"scheduler_config\.json"),
        lambda repo, _: (
            "Load it with the class that its scheduler_config.json names: "
            f"diffusers.DPMSolverMultistepScheduler.from_pretrained({literal(repo.repo_id)}), or "
            "another."
        ),
    ),
)
"""What stands around models."""

_SINGLE_PARTS: tuple[_Format, ...] = (
    (
        "a ControlNet of diffusers in one file",
        _named(r"(.*[-_])?(control(net)?[-_](?!lora).*|controlnet)\.(safetensors|pth|ckpt)"),
        single_part("controlnet"),
    ),
    (
        "a motion adapter of diffusers in one file",
        _named(r"(mm[-_]sd|.*motion[-_]?(adapter|module)).*\.(safetensors|pth|ckpt)"),
        single_part("motion_adapter"),
    ),
    (
        "a VAE of diffusers in one file",
        _named(r"(.*[-_])?vae([-_](?!fix|baked).*)?\.(safetensors|pth|ckpt|pt)"),
        single_part("vae"),
    ),
    (
        "a textual inversion of diffusers",
        _named(r"(.*[-_ ])?(embed(ding)?s?|easynegative.*|.*negative.*)\.(safetensors|pt|bin)"),
        textual_inversion_of,
    ),
)
"""What is one file, and is told by its name."""

_OURS = frozenset(
    {"diffusers", "diffusion-single-file", "peft", "sentence-transformers", "transformers"}
)


@cache
def libraries() -> Mapping[str, tuple[str, str]]:
    """Read how each library is called, and the line that loads, by the Hub's name of it."""
    return {name: (entry["name"], entry["load"]) for name, entry in _table()["library"].items()}


@cache
def _exports() -> tuple[_Format, ...]:
    """Return the weights that are for another library, by the names of their files."""
    return (
        ("GGUF weights", _named(r".*\.gguf"), gguf),
        *((entry["what"], _find_of(entry), _hint_of(entry)) for entry in _table()["export"]),
    )


def _find_of(entry: Mapping[str, Any]) -> _Find:
    if "all" in entry:
        return _all_of(entry["all"])
    return _named(entry["file"]) if "file" in entry else _within(entry["path"])


def _hint_of(entry: Mapping[str, Any]) -> Callable[[Repo, str], str]:
    """Make the hint for an export: the line that loads it, and what it was made from."""

    def hint(repo: Repo, path: str) -> str:
        source = made_from(repo) if entry.get("made_from", True) else ""
        return f"{filled(entry['load'], repo, path)}{source}"

    return hint


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("formats.toml").read_text("utf-8"))


def _normal(library: str) -> str:
    return library.lower().replace("_", "-")
