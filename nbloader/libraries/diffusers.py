"""Classes in the files of diffusers (from 0.30): its `__init__.py` lists every public one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from nbloader.libraries.sources import Found, Sources, backends_of, public_names, root_of
from nbloader.records import Form

_GUARDED_IMPORT = re.compile(r"^if is_(\w+?)_available\(\):\n((?:[ \t].*\n|\n)+)", re.MULTILINE)
_NOT_NEEDED = frozenset({"torch_xla", "torch_npu", "flax"})
"""Other hardware and frameworks: the rest of the file works without."""

SUCCESSORS = {
    # "has been renamed to", in their `__init__` up to 0.37 and later.
    "Lumina2Text2ImgPipeline": "Lumina2Pipeline",
    "LuminaText2ImgPipeline": "LuminaPipeline",
}
"""Pipelines that were taken out, with the name that the same class has."""

_BASE = "DiffusionPipeline"
_MOST_BASES = 20
"""Classes on the way from a pipeline to its `__init__`; there are three at most."""

_ROOTS = {
    "BaseGuidance": Form.PART,
    "DiffusionPipeline": Form.PIPELINE,
    "ModelMixin": Form.MODEL,
    "SchedulerMixin": Form.PART,
}
"""The classes whose `from_pretrained` the others inherit."""


_AUTO_PIPELINE = "AutoPipelineFor"
_FOLDERS = ("pipelines", "models", "schedulers", "guiders")

_DEPRECATIONS = "utils/deprecation_utils.py"
_REMAPPED = re.compile(r'"(\w+)": \{\s*"new_class": "(\w+)"')


def form_of(sources: Sources, found: Found, name: str) -> Form | None:
    """Say what a public class makes of a repository; None if it has no `from_pretrained` that loads
    a pipeline, or a model or part of one, with torch.
    """
    if name.startswith(_AUTO_PIPELINE):
        return Form.PIPELINE
    if name == "AutoModel":
        return Form.MODEL
    file = found.file
    if file is None or f"\nclass {name}" not in sources.text(file):
        # The lists of names do not tell where all of them are.
        places = (place for folder in _FOLDERS for place in sources.defining(name, folder))
        file = next(places, None)
    root = root_of(sources, file, name, _ROOTS)
    return _ROOTS[root] if root else None


def class_names(sources: Sources) -> set[str]:
    """Return the public names that can be those of classes."""
    return set(public_names(sources.text("__init__.py")))


def find_in_pipeline(sources: Sources, folder: str, name: str) -> Found | None:
    """Find a class that belongs to the pipelines in one folder."""
    path = f"pipelines/{folder}"
    return sources.listed(name, path) or sources.defined(name, path)


def needs_of(sources: Sources, found: Found, name: str) -> frozenset[str]:
    """Return the backends that a class needs."""
    if found.file is None:
        return found.backends
    text = sources.text(found.file)
    return found.backends | backends_of(text, name) | _used_unasked(text)


def renamed_classes(sources: Sources) -> dict[str, str]:
    """Return the classes of transformers that diffusers takes for others that are gone."""
    return dict(_REMAPPED.findall(sources.text(_DEPRECATIONS)))


def adds_to_transformers(sources: Sources, name: str) -> bool:
    """Say whether diffusers makes a class itself and puts it among those of transformers.

    So the encoder of T5Gemma, with the pipelines in the folder `prx`.
    """
    added = f"transformers.{name} = "
    return any(
        added in sources.text(f"pipelines/{folder}/__init__.py")
        for folder in sources.names("pipelines")
    )


def required_by(sources: Sources, found: Found, name: str) -> tuple[tuple[str, str], ...] | None:
    """Read which components a pipeline cannot do without; None where the files do not tell it.

    Sorted, each with the class that it should be of, which is empty where it is none that can be
    named in a word.

    It is `_get_signature_keys` of the library and what follows it: a parameter without a default is
    a component; it may be left out only where `_optional_components` names it.
    """
    read = _signature(sources, found, name)
    if read is None:
        return None
    parameters, optional = read
    needed = {
        each.arg: _of_class(each.annotation)
        for each, has_default in parameters
        if not has_default and each.arg not in optional
    }
    return tuple(sorted(needed.items()))


def components_of(
    sources: Sources, found: Found, name: str
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Read which components a pipeline takes, and which of those may be left out.

    In the order of its `__init__`; None where the files do not tell it. What has a default and is
    not in `_optional_components` is a setting.
    """
    read = _signature(sources, found, name)
    if read is None:
        return None
    parameters, optional = read
    takes = [
        each.arg for each, has_default in parameters if not has_default or each.arg in optional
    ]
    return tuple(takes), tuple(each for each in takes if each in optional)


def _signature(
    sources: Sources, found: Found, name: str
) -> tuple[list[tuple[ast.arg, bool]], frozenset[str]] | None:
    """The parameters of a pipeline's `__init__`, each with whether it has a default, and its
    `_optional_components`; None where the files do not tell it."""
    making: ast.FunctionDef | None = None
    optional: frozenset[str] | None = None
    for node in _lineage(sources, found.file, name):
        if node is None:
            return None
        for entry in node.body:
            if making is None and isinstance(entry, ast.FunctionDef) and entry.name == "__init__":
                making = entry
            if optional is None and (value := _assigned(entry, "_optional_components")):
                optional = _texts(value)
                if optional is None:
                    return None
        if making is not None and optional is not None:
            break
    if making is None or making.args.vararg is not None:
        return None
    arguments = making.args
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    parameters = [(each, at >= first_default) for at, each in enumerate(positional)][1:]
    only = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    parameters += [(each, value is not None) for each, value in only]
    return parameters, optional or frozenset()


def _of_class(annotation: ast.expr | None) -> str:
    return annotation.id if isinstance(annotation, ast.Name) else ""


def _lineage(
    sources: Sources, file: PurePosixPath | None, name: str
) -> Iterator[ast.ClassDef | None]:
    """Yield the definitions of a class and its bases, nearest first; None for one not found.

    Mixins are passed over: they hold nothing of what is looked for. The base of all pipelines,
    which takes nothing, ends a line.
    """
    left: list[tuple[PurePosixPath | None, str]] = [(file, name)]
    for _ in range(_MOST_BASES):
        if not left:
            return
        file, name = left.pop(0)
        if name in (_BASE, "object"):
            continue
        tree = _tree(sources, file)
        node = _defined(tree, name)
        if node is None:
            # The lists of names do not tell where all of them are.
            places = list(sources.defining(name, "pipelines"))
            file = places[0] if len(places) == 1 else None
            tree = _tree(sources, file)
            node = _defined(tree, name)
        if node is None or tree is None or file is None:
            yield None
            return
        yield node
        left[:0] = [
            (_place(tree, file, base), _called(base))
            for base in node.bases
            if not _called(base).endswith("Mixin")
        ]


def _tree(sources: Sources, file: PurePosixPath | None) -> ast.Module | None:
    try:
        return ast.parse(sources.text(file)) if file is not None else None
    except (SyntaxError, ValueError, RecursionError):
        return None


def _defined(tree: ast.Module | None, name: str) -> ast.ClassDef | None:
    for each in tree.body if tree else ():
        if isinstance(each, ast.ClassDef) and each.name == name:
            return each
    return None


def _called(base: ast.expr) -> str:
    """The name of a base, without what stands before its last dot."""
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")


def _place(tree: ast.Module, file: PurePosixPath, base: ast.expr) -> PurePosixPath | None:
    """The file that a base is imported from by a relative name; the file itself where it is not."""
    name = _called(base)
    for entry in tree.body:
        if isinstance(entry, ast.ImportFrom) and any(each.name == name for each in entry.names):
            folder = file.parent
            for _ in range(entry.level - 1):
                folder = folder.parent
            if entry.level == 0 or not entry.module:
                return None
            return folder.joinpath(*entry.module.split(".")).with_suffix(".py")
    return file


def _assigned(entry: ast.stmt, name: str) -> ast.expr | None:
    """The value that a statement of a class gives to `name`."""
    targets = entry.targets if isinstance(entry, ast.Assign) else [getattr(entry, "target", None)]
    named = any(isinstance(each, ast.Name) and each.id == name for each in targets)
    return getattr(entry, "value", None) if named else None


def _texts(value: ast.expr) -> frozenset[str] | None:
    """The texts of a list that is written out; None for anything else."""
    try:
        found = ast.literal_eval(value)
    except ValueError:
        return None
    listed = isinstance(found, (list, tuple)) and all(isinstance(each, str) for each in found)
    return frozenset(found) if listed else None


def _used_unasked(text: str) -> frozenset[str]:
    """The packages that a file imports where they are there, and then uses without asking again.

    So `ftfy` in the pipelines of Wan: without it the first prompt ends in a NameError.
    """
    return frozenset(
        match[1]
        for match in _GUARDED_IMPORT.finditer(text)
        if match[1] not in _NOT_NEEDED
        and "import " in match[2]
        and text.count(f"is_{match[1]}_available()") == 1
    )
