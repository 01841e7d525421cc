"""Which ways to compute attention the installed libraries and their classes have.

Read from the files of the installed packages, without an import.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from nbloader.libraries import transformers
from nbloader.libraries.attention import (
    ATTENTIONS,
    attention_library,
    attention_named,
    is_denoiser,
    takes_xformers,
)
from nbloader.libraries.packages import package_folder
from nbloader.libraries.sources import Sources, is_class_name
from nbloader.records import AttentionFacts, Component, Kind, Selection

_DISPATCH = "models/attention_dispatch.py"
_BACKEND = re.compile(r'^    \w+ = "(\w+)"$', re.MULTILINE)
_MODELING = "modeling_utils.py"
_TABLE = re.compile(
    r"^class AttentionInterface\b.*?_global_mapping = \{(.*?)\n    \}", re.MULTILINE | re.DOTALL
)
_KEY = re.compile(r'^ +"([\w|]+)":', re.MULTILINE)

_OWN = "_attention_backend"
"""The attribute of a processor of attention that `set_attention_backend` of diffusers sets; those
without it compute as they always do."""
_OF_ALL = frozenset(
    {"attention.py", "attention_dispatch.py", "attention_processor.py", "modeling_utils.py"}
)
"""Modules of diffusers that name it for all classes."""
_RELATIVE = re.compile(r"^from (\.+)([\w.]+) import", re.MULTILINE)

_OF_FLASH = ("_supports_flash_attn", "_supports_flash_attn_2")
_FLAGS: Mapping[str, tuple[str, ...]] = {
    # `get_correct_attn_implementation` of transformers asks the class for them; of flash attention
    # version 4 has the second.
    "eager": (),
    "flash_attention_2": _OF_FLASH,
    "flash_attention_3": _OF_FLASH,
    "flash_attention_4": _OF_FLASH,
    "flex_attention": ("_supports_flex_attn",),
    "sdpa": ("_supports_sdpa",),
}
_FLASHES = "_compatible_flash_implementations"
"""The only ones that a class of transformers takes of the ways that are called so."""
_BASE = "PreTrainedModel"
_WITHOUT_FLAGS = frozenset({"ABC", "GenerationMixin", "Module", "object"})
_MOST_BASES = 20


def attention_facts(
    selection: Selection, name: str, *, find: Callable[[str], Path | None] = package_folder
) -> AttentionFacts:
    """Look for a way to compute attention in what builds a selection.

    Args:
        name: one of `ATTENTIONS`.
        find: gives the folder of a package by the name of its import.
    """
    library = attention_library(selection)
    folder = find(library)
    way = attention_named(name)
    if folder is None or way is None:
        return AttentionFacts(name=name)
    sources = Sources(folder)
    names = _in_diffusers(sources) if library == "diffusers" else _in_transformers(sources)
    takes = _taken_in_diffusers if library == "diffusers" else _taken_in_transformers
    return AttentionFacts(
        name=name,
        offered=None if names is None else way.of(library) in names,
        classes=tuple((each, takes(sources, each)) for each in _classes(selection, sources)),
    )


def _classes(selection: Selection, sources: Sources) -> list[str]:
    """Name the classes whose attention is meant."""
    if selection.custom_code and selection.kind is not Kind.DIFFUSERS:
        return []
    found = (_class(selection, each, sources) for each in selection.components)
    return list(dict.fromkeys(name for name in found if name and is_class_name(name)))


def _class(selection: Selection, part: Component, sources: Sources) -> str | None:
    """Name the class of a component if its attention is meant, and if that is known."""
    if attention_library(selection) == "diffusers":
        # Those of transformers beside them are text encoders; one that is asked for alone is meant.
        alone = selection.kind is Kind.CLASSES and part.weights
        meant = part.library == "diffusers" and (alone or is_denoiser(part.class_name or ""))
        return part.class_name if meant else None
    name = part.class_name if part.library == "transformers" and part.weights else None
    if selection.kind is Kind.SENTENCE_TRANSFORMERS or (name or "").startswith("Auto"):
        # The library takes the class of the family, whichever was trained.
        return transformers.base_class(sources, part.model_type) if part.model_type else None
    return name


# -- diffusers -------------------------------------------------------------------------------------


def _in_diffusers(sources: Sources) -> frozenset[str] | None:
    """Return what `set_attention_backend` takes; None if the file cannot be read."""
    body = sources.text(_DISPATCH).partition("\nclass AttentionBackendName")[2]
    return frozenset(_BACKEND.findall(body.partition("\nclass ")[0])) if body else None


def _taken_in_diffusers(sources: Sources, name: str) -> frozenset[str] | None:
    """Return the ways that a class can be told to take; None if that cannot be told.

    Where its processors are those of `attention_processor.py`, it is torch's own and no other, and
    for some xformers.
    """
    found = sources.listed(name)
    if found is None or found.file is None:
        return None
    if any(_OWN in sources.text(path) for path in _with_imports(sources, found.file)):
        return frozenset(each.name for each in ATTENTIONS if each.diffusers)
    return frozenset({"sdpa", "xformers"} if takes_xformers(name) else {"sdpa"})


def _with_imports(sources: Sources, file: PurePosixPath) -> Iterator[PurePosixPath]:
    """Yield a module and those that it imports from beside it, but for what all classes share."""
    yield file
    for dots, module in _RELATIVE.findall(sources.text(file)):
        folder = file.parent
        for _ in dots[1:]:
            folder = folder.parent
        path = folder.joinpath(*module.split(".")).with_suffix(".py")
        if path.name not in _OF_ALL:
            yield path


# -- transformers ----------------------------------------------------------------------------------


def _in_transformers(sources: Sources) -> frozenset[str] | None:
    """Return what `attn_implementation` takes; None if the table cannot be read."""
    table = _TABLE.search(sources.text(_MODELING))
    return frozenset({"eager", *_KEY.findall(table[1])}) if table else None


def _taken_in_transformers(sources: Sources, name: str) -> frozenset[str] | None:
    """Return the ways that a class says it supports; None if that cannot be told."""
    found = transformers.find_class(sources, name)
    if found is None or found.file is None:
        return None
    said = _Attributes(sources).of(found.file, name)
    if said is None:
        return None
    flashes = said.get(_FLASHES)
    return frozenset(
        way.name
        for way in ATTENTIONS
        if way.transformers
        and (way.name == "eager" or any(said.get(flag) for flag in _FLAGS[way.name]))
        and (not isinstance(flashes, list) or "flash" not in way.name or way.name in flashes)
    )


class _Attributes:
    """The attributes of classes of transformers that say what they support."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._trees: dict[PurePosixPath, ast.Module | None] = {}

    def of(self, file: PurePosixPath, name: str) -> dict[str, object] | None:
        """Return those that a class has, by their names; None if not all bases can be read."""
        said: dict[str, object] = {}
        left = [(file, name)]
        for _ in range(_MOST_BASES):
            if not left:
                return said
            file, name = left.pop(0)
            if name in _WITHOUT_FLAGS or name == _BASE:
                continue
            node = self._defined(file, name)
            if node is None:
                return None
            for entry in node.body:
                for key, value in _said(entry):
                    said.setdefault(key, value)
            left[:0] = [(self._place(file, each), each) for each in map(_called, node.bases)]
        return None

    def _tree(self, file: PurePosixPath) -> ast.Module | None:
        if file not in self._trees:
            try:
                self._trees[file] = ast.parse(self._sources.text(file))
            except (SyntaxError, ValueError, RecursionError):
                self._trees[file] = None
        return self._trees[file]

    def _defined(self, file: PurePosixPath, name: str) -> ast.ClassDef | None:
        tree = self._tree(file)
        classes = (each for each in (tree.body if tree else ()) if isinstance(each, ast.ClassDef))
        return next((each for each in classes if each.name == name), None)

    def _place(self, file: PurePosixPath, name: str) -> PurePosixPath:
        """Return the file that a base is imported from; the file itself if it is not."""
        tree = self._tree(file)
        for entry in tree.body if tree else ():
            if isinstance(entry, ast.ImportFrom) and any(each.name == name for each in entry.names):
                folder = file.parent
                for _ in range(entry.level - 1):
                    folder = folder.parent
                return folder.joinpath(*(entry.module or "").split(".")).with_suffix(".py")
        return file


def _called(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")


def _said(entry: ast.stmt) -> Iterator[tuple[str, object]]:
    """Yield what a statement of a class gives a name; an ellipsis for what is not written out."""
    if isinstance(entry, ast.FunctionDef):
        yield entry.name, ...
    targets = entry.targets if isinstance(entry, ast.Assign) else [getattr(entry, "target", None)]
    value = getattr(entry, "value", None)
    for target in targets:
        if isinstance(target, ast.Name) and isinstance(value, ast.expr):
            try:
                yield target.id, ast.literal_eval(value)
            except (ValueError, TypeError):
                yield target.id, ...
