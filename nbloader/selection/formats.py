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
from nbloader.hub_names import folder_and_name, is_repo_id
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
        hint=seen.hint if seen else f"{_card(repo)} says what it is.",
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
            hint=f"Load it with MLX: mlx_lm.load({_line(repo.repo_id)}).{_made_from(repo)}",
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
    return _Seen(f"a model of {what}", f"Load it with {what}: {_filled(hint, repo)}.")


def _of_other_library(repo: Repo) -> _Seen | None:
    name = repo.library_name
    if name is None or _normal(name) in _OURS:
        return None
    return _Seen(
        f"for the library {quote(name)}", f"Load it with that library. {_card(repo)} says how."
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
            f"folder = huggingface_hub.snapshot_download({_line(repo.repo_id)}, "
            f"allow_patterns={_line(f'{folder}/*')}); "
            f'diffusers.DiffusionPipeline.from_pretrained(f"{{folder}}/{folder}")'
        )
    else:
        line = (
            f"transformers.AutoModel.from_pretrained({_line(repo.repo_id)}, "
            f"subfolder={_line(folder)}), or diffusers.AutoModel for a part of a pipeline"
        )
    return _Seen(
        f"one whose models stand in folders: {shown}{more}",
        f"Only what is in the root of a repository is loaded here. The library loads a folder: "
        f"{line}.",
    )


def _of_lone_weights(repo: Repo) -> _Seen | None:
    """Weights without a configuration: an add-on of diffusers, a whole checkpoint, or neither."""
    weights = [path for path in sorted(repo.paths) if _CHECKPOINT.fullmatch(path)]
    if not weights:
        weights = [path for path in sorted(repo.paths) if _PICKLES.fullmatch(path)]
        if not weights:
            return None
        return _Seen(
            "weights of PyTorch without a configuration",
            f"Only the code that they were made with loads them. {_card(repo)} may name it.",
        )
    largest = max(weights, key=repo.size_of)
    is_small = repo.size_of(largest) < _LEAST_CHECKPOINT_BYTES and bool(_bases(repo))
    if is_small or "lora" in f"{repo.repo_id}/{largest}".lower():
        return _Seen("a LoRA of diffusers", _lora(repo, largest))
    return _Seen("a bare checkpoint without a configuration", _single_file(repo, largest))


_CHECKPOINT = re.compile(r"[^/]*\.(safetensors|ckpt)")
_PICKLES = re.compile(r".*\.(pt|pth|bin|ckpt|safetensors)")
_LEAST_CHECKPOINT_BYTES = 1_600_000_000
"""Half a Stable Diffusion 1.5; the largest published LoRAs take less."""


# -- lines -----------------------------------------------------------------------------------------


def _line(value: str) -> str:
    """Return a text as it stands in a line to paste."""
    return f'"{value}"' if re.fullmatch(r"[\w./:* -]{1,300}", value, re.ASCII) else quote(value)


def _filled(line: str, repo: Repo, path: str = "") -> str:
    """Put what the tables leave open into a line."""
    name = repo.repo_id.rpartition("/")[2]
    return line.format(repo=_line(repo.repo_id), id=repo.repo_id, name=name, path=path)


def _card(repo: Repo) -> str:
    return f"Its card at https://huggingface.co/{repo.repo_id}"


def _bases(repo: Repo) -> list[str]:
    return [name for name in repo.base_models if is_repo_id(name)]


def _base(repo: Repo) -> str:
    """Return the id of the base model, as it stands in a line."""
    return _line(next(iter(_bases(repo)), "the base model that its card names"))


def _made_from(repo: Repo) -> str:
    bases = _bases(repo)
    return f" Or load what it was made from: nbloader.load({_line(bases[0])})." if bases else ""


def _pipe(repo: Repo, call: str) -> str:
    return f"Add it to its base model: pipe = nbloader.load({_base(repo)}); pipe.{call}"


def _lora(repo: Repo, path: str) -> str:
    folder, name = folder_and_name(path)
    more = "" if name.startswith("pytorch_lora_weights.") else f", weight_name={_line(name)}"
    more += f", subfolder={_line(folder)}" if folder else ""
    return _pipe(repo, f"load_lora_weights({_line(repo.repo_id)}{more})")


def _ip_adapter(repo: Repo, path: str) -> str:
    folder, name = folder_and_name(path)
    return _pipe(
        repo,
        f"load_ip_adapter({_line(repo.repo_id)}, subfolder={_line(folder)}, "
        f"weight_name={_line(name)})",
    )


def _textual_inversion(repo: Repo, path: str) -> str:
    del path
    return _pipe(repo, f"load_textual_inversion({_line(repo.repo_id)})")


def _single_file(repo: Repo, path: str) -> str:
    address = _line(f"https://huggingface.co/{repo.repo_id}/blob/main/{path}")
    return (
        "Load it with the pipeline of diffusers that it is for: "
        f"diffusers.StableDiffusionXLPipeline.from_single_file({address}), or that of another "
        "class."
    )


_PICTURES = frozenset({"image-to-image", "image-to-video", "text-to-image", "text-to-video"})


def _gguf(repo: Repo, path: str) -> str:
    """Language models are for llama.cpp; what makes pictures, for diffusers."""
    if repo.pipeline_tag in _PICTURES or repo.library_name == "diffusers":
        address = _line(f"https://huggingface.co/{repo.repo_id}/blob/main/{path}")
        return (
            "Load it with the class of diffusers that it is for, such as "
            f"diffusers.FluxTransformer2DModel.from_single_file({address}, "
            "quantization_config=diffusers.GGUFQuantizationConfig()), and hand it to the pipeline "
            f"as transformer.{_made_from(repo)}"
        )
    return (
        f"Load it with llama.cpp: llama_cpp.Llama.from_pretrained({_line(repo.repo_id)}, "
        f"filename={_line(path)}).{_made_from(repo)}"
    )


# -- one model of diffusers ------------------------------------------------------------------------

# By a part of its name, the argument under which a pipeline takes a model.
_ARGUMENTS: tuple[tuple[str, str], ...] = (
    ("ControlNet", "controlnet"),
    ("Autoencoder", "vae"),
    ("VQModel", "vqvae"),
    ("MotionAdapter", "motion_adapter"),
    ("T2IAdapter", "adapter"),
    ("MultiAdapter", "adapter"),
    ("UNet", "unet"),
    ("Prior", "prior"),
    ("Transformer", "transformer"),
)


def _one_model_of_diffusers(repo: Repo, named: object) -> UnsupportedRepoError:
    line = "its class"
    hint = f"{_card(repo)} names the pipeline that it is for."
    if is_name(named):
        line = f"diffusers.{named}.from_pretrained({_line(repo.repo_id)})"
        argument = next((name for part, name in _ARGUMENTS if part in named), None)
        hint = f"Load it by itself: {line}"
        if argument is not None:
            hint = (
                f"Load it by itself and hand it to its pipeline: {argument} = {line}; "
                f'nbloader.load({_base(repo)}, loader_kwargs={{"{argument}": {argument}}})'
            )
    return UnsupportedRepoError(
        f"{quote(repo.repo_id)} is one model of diffusers, not a whole pipeline: {quote(named)}.",
        hint=hint,
    )


# -- the tables ------------------------------------------------------------------------------------

_PARTS: tuple[_Format, ...] = (
    (
        "a modular diffusers pipeline",
        _named(r"modular_model_index\.json"),
        lambda repo, _: (
            f"Load it with diffusers.ModularPipeline.from_pretrained({_line(repo.repo_id)})."
        ),
    ),
    ("a LoRA of diffusers", _named(r"pytorch_lora_weights\.(safetensors|bin)"), _lora),
    (
        "an adapter (LoRA)",
        _named(r"adapter_model\.(safetensors|bin)"),
        lambda repo, _: (
            "Load its base model with PEFT: "
            f"peft.AutoPeftModel.from_pretrained({_line(repo.repo_id)})."
        ),
    ),
    ("an IP-Adapter of diffusers", _named(r"ip[-_]adapter.*\.(safetensors|bin)"), _ip_adapter),
    (
        "a textual inversion of diffusers",
        _named(r"learned_embeds.*\.(safetensors|bin|pt)"),
        _textual_inversion,
    ),
)
"""What is added to a model of diffusers, or put together in another way."""

_OURS = frozenset({"diffusers", "peft", "sentence-transformers", "transformers"})


@cache
def libraries() -> Mapping[str, tuple[str, str]]:
    """Read how each library is called, and the line that loads, by the Hub's name of it."""
    return {name: (entry["name"], entry["load"]) for name, entry in _table()["library"].items()}


@cache
def _exports() -> tuple[_Format, ...]:
    """Return the weights that are for another library, by the names of their files."""
    return (
        ("GGUF weights", _named(r".*\.gguf"), _gguf),
        *((entry["what"], _find_of(entry), _hint_of(entry)) for entry in _table()["export"]),
    )


def _find_of(entry: Mapping[str, Any]) -> _Find:
    if "all" in entry:
        return _all_of(entry["all"])
    return _named(entry["file"]) if "file" in entry else _within(entry["path"])


def _hint_of(entry: Mapping[str, Any]) -> Callable[[Repo, str], str]:
    """Make the hint for an export: the line that loads it, and what it was made from."""

    def hint(repo: Repo, path: str) -> str:
        made_from = _made_from(repo) if entry.get("made_from", True) else ""
        return f"{_filled(entry['load'], repo, path)}{made_from}"

    return hint


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("formats.toml").read_text("utf-8"))


def _normal(library: str) -> str:
    return library.lower().replace("_", "-")
