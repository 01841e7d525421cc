"""The folders that a load reads from, and the names of repositories that it leaves in their place.

The other repositories of a selection lie in the same cache as its own, under their commits, so the
libraries need no network for any of them.

They find the base model of an adapter of PEFT by the name in `adapter_config.json`, and ask the Hub
for it; the first of transformers 5 do so even where the base lies beside. Here they find a folder:
the adapter is handed to them in a folder of its own, whose configuration names the snapshot of the
base.

The libraries write the paths that they are given down: into configurations, and from there into
whatever is saved of the model. After a download of their own the repository's id would stand there,
so it is put there. Of a folder of the user's, it is the path as it was written.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbloader.hub_names import cache_folder
from nbloader.records import Selection
from nbloader.small_files import read_small


def snapshot_of(selection: Selection, folder: Path, repo_id: str) -> Path:
    """Return the folder of another repository of a selection.

    Args:
        folder: that of the selection's own, such as
            `<cache>/models--org--name/snapshots/<commit>`.
    """
    other = next(one for one in selection.companions if one.repo_id == repo_id)
    if other.folder is not None:
        return Path(other.folder)
    if repo_id == selection.repo_id:
        return folder
    name = cache_folder(repo_id, other.repo_type)
    return _cache(selection, folder) / name / "snapshots" / other.commit_hash


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is none."""
    try:
        value = json.loads(read_small(file, MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def code_arguments(selection: Selection, folder: Path) -> dict[str, Any]:
    """Return the arguments that let transformers find code that is named with its repository.

    It looks for `org/code--module.Class` in the Hub's cache; with the commit it asks nobody.
    """
    code = (one for one in selection.companions if one.role == "code" and one.folder is None)
    commit = next((one.commit_hash for one in code), None)
    if commit is None:
        return {}
    return {"code_revision": commit, "cache_dir": str(_cache(selection, folder))}


def _cache(selection: Selection, folder: Path) -> Path:
    return Path(selection.cache_dir) if selection.cache_dir else folder.parents[2]


# -- adapters --------------------------------------------------------------------------------------

_CONFIG = "adapter_config.json"

MAX_CONFIG_BYTES = 16 << 20
"""Configurations take kilobytes; those with a vocabulary in them some megabytes."""
_PICKLED = "adapter_model.bin"
_BASE_NAME = "base_model_name_or_path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a model is loaded from.

    Attributes:
        model: what `from_pretrained` of a model is given.
        base: the folder of the configuration, of the tokenizer and of the processors.
        base_id: the repository that `base` is of.
        own: whether `base` is a folder of the user's.
        revision: what was asked for of it.
        base_name: what an adapter calls its base.
    """

    model: Path
    base: Path
    base_id: str
    own: bool
    revision: str
    base_name: object = None

    def rename(self, loaded: Any) -> None:
        """Put ids of repositories wherever a folder stands for one."""
        rename(loaded, self.base, self.base_id, own=self.own)
        for model in (loaded, getattr(loaded, "model", loaded)):
            for config in getattr(model, "peft_config", {}).values():
                if getattr(config, _BASE_NAME, None) == str(self.base):
                    setattr(config, _BASE_NAME, self.base_name)


@contextmanager
def adapted(selection: Selection, folder: Path, *, beside: Iterable[str] = ()) -> Iterator[Places]:
    """Yield where the model of a selection is loaded from, while it is built.

    A model without an adapter is loaded from its own folder.

    Args:
        beside: further files that are to lie in the folder of the adapter, where they do so in the
            repository.
    """
    parts = [part for part in selection.components if part.library == "peft"]
    adapter = next((part for part in parts if part.weights), None)
    if adapter is None:
        yield Places(
            model=folder,
            base=folder,
            base_id=selection.repo_id,
            own=selection.folder is not None,
            revision=selection.revision,
        )
        return
    other = next((one for one in selection.companions if one.role == "base-model"), None)
    paths = (path for part in parts for path in part.paths)  # It may be asked for by itself, too.
    place = next(path for path in paths if path.rpartition("/")[2] == _CONFIG)
    inner = place.rpartition("/")[0]
    own = folder / inner
    base = snapshot_of(selection, folder, other.repo_id) if other else own
    # Links: the weights stay where they are, and mapped, when the folder is gone.
    private = Path(tempfile.mkdtemp(prefix="nbloader-adapter-"))
    try:
        config = json.loads(read_small(own / _CONFIG, MAX_CONFIG_BYTES))
        (private / _CONFIG).write_text(json.dumps(config | {_BASE_NAME: str(base)}), "utf-8")
        for path in adapter.weights:
            _put(folder / path, private / path.rpartition("/")[2])
        for path in beside:
            target = private / path.removeprefix(f"{inner}/" if inner else "")
            if path != place and (not inner or path.startswith(f"{inner}/")):
                target.parent.mkdir(parents=True, exist_ok=True)
                link(folder / path, target)
        yield Places(
            model=private,
            base=base,
            base_id=other.repo_id if other else selection.repo_id,
            own=(other or selection).folder is not None,
            revision=other.revision if other else selection.revision,
            base_name=config.get(_BASE_NAME),
        )
    finally:
        # A system that keeps files that are mapped keeps this one until it cleans up by itself.
        shutil.rmtree(private, ignore_errors=True)


@contextmanager
def whole_folder(selection: Selection, folder: Path) -> Iterator[Path]:
    """Yield a folder of a selection's files, in which an adapter names the snapshot of its base.

    It is `folder` where no other repository has the base.
    """
    named = next((one for one in selection.companions if one.role == "base-model"), None)
    pickled = any(file.path.rpartition("/")[2] == _PICKLED for file in selection.files)
    if named is None and not pickled:
        yield folder
        return
    base = snapshot_of(selection, folder, named.repo_id) if named else None
    private = Path(tempfile.mkdtemp(prefix="nbloader-adapter-"))
    try:
        for path in (file.path for file in selection.files if not file.repo_id):
            (private / path).parent.mkdir(parents=True, exist_ok=True)
            if base is not None and path.rpartition("/")[2] == _CONFIG:
                config = json.loads(read_small(folder / path, MAX_CONFIG_BYTES))
                (private / path).write_text(json.dumps(config | {_BASE_NAME: str(base)}), "utf-8")
            else:
                _put(folder / path, private / path)
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)


def as_safetensors(adapter: Path, private: Path) -> None:
    """Make a pickled adapter of PEFT appear in another folder, in a format that is taken there."""
    for name in (_CONFIG, _PICKLED):
        _put(adapter / name, private / name)


def replaced_modules(model: Any) -> frozenset[str]:
    """Name the modules of a model that an adapter brings whole, such as a new head."""
    parts = model.modules() if hasattr(model, "modules") else (model,)
    found = (getattr(part, "peft_config", None) for part in parts)
    return frozenset(
        name
        for configs in found
        if isinstance(configs, dict)
        for config in configs.values()
        for name in getattr(config, "modules_to_save", None) or ()
    )


def _put(source: Path, target: Path) -> None:
    """Make a file appear at another place; the pickled weights of an adapter in another format.

    transformers looks for pickled ones in a repository only: in a folder it takes for granted that
    those in safetensors are there.
    """
    if target.name != _PICKLED:
        link(source, target)
        return
    import torch
    from safetensors.torch import save_file

    tensors = torch.load(source, map_location="cpu", weights_only=True)
    # Those that share memory cannot be written.
    apart = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
    save_file(apart, target.with_suffix(".safetensors"), metadata={"format": "pt"})


def link(source: Path, target: Path) -> None:
    """Make a file appear at another place, at the least cost that the file system allows."""
    source = source.resolve()
    for make in (target.symlink_to, target.hardlink_to):
        try:
            make(source)
        except OSError:
            continue
        return
    shutil.copyfile(source, target)


# -- names -----------------------------------------------------------------------------------------

_NAMES = ("_name_or_path", "name_or_path")
_LOAD_ID = "_diffusers_load_id"
"""What `AutoModel` of diffusers writes down: repository, folder, variant and revision."""

_OF_FOLDERS = frozenset({"is_local", "local_files_only"})
"""What a tokenizer writes down, and saves, of having been read from a folder."""

_LIBRARIES = (
    "accelerate",
    "diffusers",
    "onnxruntime",
    "optimum",
    "peft",
    "sentence_transformers",
    "transformers",
)
"""With the modules that they make of a repository's own code, such as `diffusers_modules`."""

_ON_DISK = "safetensors_file"

_DEEPEST = 4
"""Levels of objects below a model that are looked at: a processor has a tokenizer, a configuration
has others."""


def rename(loaded: Any, folder: Path, repo_id: str, *, own: bool = False) -> None:
    """Put the repository's id wherever a path of `folder` stands for it; other names stay.

    Args:
        loaded: a pipeline, a model, a tokenizer, a processor.
        own: whether it is a folder of the user's. Then `repo_id` is the path as it was written, and
            what follows it stays.
    """
    seen: set[int] = set()
    if not own or repo_id != str(folder):
        _rename(loaded, _Name(str(folder), repo_id, own), seen, 0)


@dataclass(frozen=True, slots=True)
class _Name:
    """What stands for a folder."""

    folder: str
    repo_id: str
    own: bool

    def of(self, path: Any) -> str:
        return f"{self.repo_id}{str(path)[len(self.folder) :]}" if self.own else self.repo_id


def _rename(thing: Any, name: _Name, seen: set[int], depth: int) -> None:
    if id(thing) in seen or depth > _DEEPEST:
        return
    seen.add(id(thing))
    held = getattr(thing, "__dict__", {})
    for key in _NAMES:
        if _inside(held.get(key), name.folder):
            setattr(thing, key, name.of(held[key]))
    made_of = held.get(_LOAD_ID)
    if isinstance(made_of, str) and made_of.startswith(f"{name.folder}|"):
        setattr(thing, _LOAD_ID, f"{name.repo_id}{made_of[len(name.folder) :]}")
    # A tokenizer keeps its arguments for when it is saved.
    arguments = held.get("init_kwargs")
    if isinstance(arguments, dict) and _inside(arguments.get("name_or_path"), name.folder):
        arguments["name_or_path"] = name.of(arguments["name_or_path"])
        if not name.own:
            arguments.update(dict.fromkeys(_OF_FOLDERS & arguments.keys(), False))
    # diffusers: a mapping that cannot be written to, replaced as a whole by its own method.
    settings = held.get("_internal_dict")
    if settings is not None and _inside(settings.get("_name_or_path"), name.folder):
        thing.register_to_config(_name_or_path=name.of(settings["_name_or_path"]))
    for part in _parts(thing):
        # The modules of a model are on its own level, however deep they are in it.
        down = not (_is_module(thing) and _is_module(part))
        _rename(part, name, seen, depth + down)


def move_paths(loaded: Any, folder: Path, now: Path) -> None:
    """Let paths of files in a folder that goes lead to another one, with the same files.

    A tokenizer keeps them for when it is saved, and a model of which weights stay on the disk for
    when it is called.

    Args:
        loaded: as for `rename`; or several.
    """
    seen: set[int] = set()
    for each in loaded if isinstance(loaded, tuple) else (loaded,):
        _move_paths(each, _Name(str(folder), str(now), own=True), seen, 0)


def _move_paths(thing: Any, name: _Name, seen: set[int], depth: int) -> None:
    if id(thing) in seen or depth > _DEEPEST:
        return
    seen.add(id(thing))
    held = getattr(thing, "__dict__", {})
    arguments = held.get("init_kwargs")
    for values in (held, arguments if isinstance(arguments, dict) else {}):
        for key, value in values.items():
            if isinstance(value, (str, Path)) and _inside(value, name.folder):
                values[key] = type(value)(name.of(value))
    # accelerate: where the weights are that stay on the disk, by their names.
    index = held.get("index")
    for place in index.values() if isinstance(index, dict) else ():
        if isinstance(place, dict) and _inside(place.get(_ON_DISK), name.folder):
            place[_ON_DISK] = name.of(place[_ON_DISK])
    for part in _parts(thing):
        down = not (_is_module(thing) and _is_module(part))
        _move_paths(part, name, seen, depth + down)


def _inside(name: Any, folder: str) -> bool:
    if not isinstance(name, (str, Path)):
        return False
    path = str(name)
    return path == folder or path.startswith((f"{folder}/", f"{folder}\\"))


def _parts(thing: Any) -> Iterator[Any]:
    """Yield what keeps names inside a thing: its parts, and their configurations."""
    if _is_module(thing):
        for module in thing.modules():
            if module is not thing:
                yield module
    for value in list(getattr(thing, "__dict__", {}).values()):
        if isinstance(value, (list, tuple)):
            yield from (part for part in value if _is_named(part))
        elif _is_named(value):
            yield value


def _is_module(value: Any) -> bool:
    import torch

    return isinstance(value, torch.nn.Module)


def _is_named(value: Any) -> bool:
    """Say whether a value is an object of the libraries that may keep a name."""
    return type(value).__module__.startswith(_LIBRARIES)
