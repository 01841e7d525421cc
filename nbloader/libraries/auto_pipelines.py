"""Which pipeline the auto classes of diffusers make of a repository."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nbloader.libraries.packages import package_folder
from nbloader.libraries.sources import Sources

_FILE = "pipelines/auto_pipeline.py"
_ALL_TABLES = "SUPPORTED_TASKS_MAPPINGS"
_CHOOSING = "_get_task_class"

_OWN_PREFIXES = {"AutoPipelineForImage2Image": "Img2Img", "AutoPipelineForInpainting": "Inpaint"}
"""How the names of the pipelines of an auto class end before `Pipeline`."""


def auto_pipeline(
    auto: str,
    class_name: str,
    *,
    controlnet: bool = False,
    union: bool = False,
    pag: bool = False,
    find: Callable[[str], Path | None] = package_folder,
) -> str | None:
    """Return the pipeline that an auto class of diffusers makes of a repository.

    It is `from_pretrained` of that class: the pipeline's name is changed by what is handed in, its
    row found in all tables, and the same row taken from the auto class's own. None if that has no
    such row, if there is no such auto class, or if diffusers is not installed.

    Args:
        auto: the auto class, such as `AutoPipelineForImage2Image`.
        class_name: what the `model_index.json` of the repository names.
        controlnet: whether a `controlnet` is handed in.
        union: whether that is one `ControlNetUnionModel`.
        pag: whether `enable_pag=True` is.
        find: gives the folder of a package by the name of its import.
    """
    folder = find("diffusers")
    read = _read(Sources(folder).text(_FILE)) if folder is not None else None
    own = read.own.get(auto) if read else None
    if read is None or own is None:
        return None
    if auto in read.renaming:
        class_name = _renamed(auto, class_name, controlnet=controlnet, union=union, pag=pag)
    for table in read.order:
        for row, name in read.tables[table].items():
            if name == class_name:
                return read.tables[own].get(row)
    return None


@dataclass(frozen=True, slots=True)
class _Read:
    """What the module of the auto classes says.

    Attributes:
        tables: all tables by name: the name of the class by that of its row.
        order: the names of the tables in the order in which a row is looked for.
        own: the name of the table that an auto class takes its classes from.
        renaming: the auto classes that look at what is handed in.
    """

    tables: dict[str, dict[str, str]]
    order: tuple[str, ...]
    own: dict[str, str]
    renaming: frozenset[str]


@lru_cache(maxsize=1)
def _read(text: str) -> _Read | None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    tables = _tables(tree)
    makers = {
        node.name: making
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for making in node.body
        if isinstance(making, ast.FunctionDef) and making.name == "from_pretrained"
    }
    own = {name: table for name, making in makers.items() if (table := _table_of(making)) in tables}
    return _Read(
        tables=tables,
        order=tuple(name for name in _in_order(tree) if name in tables),
        own=own,
        renaming=frozenset(name for name in own if _looks_at_controlnet(makers[name])),
    )


def _looks_at_controlnet(making: ast.FunctionDef) -> bool:
    return any(
        isinstance(each, ast.Constant) and each.value == "controlnet" for each in ast.walk(making)
    )


def _renamed(auto: str, name: str, *, controlnet: bool, union: bool, pag: bool) -> str:
    """The name of the pipeline that is looked for in the tables in place of that of the index."""
    own = _OWN_PREFIXES.get(auto, "")
    if own and own in name:
        ending = f"{own}Pipeline"
    elif "ControlPipeline" in name:
        ending = "ControlPipeline"
    else:
        ending = "Pipeline"
    if controlnet:
        kind = "ControlNetUnion" if union else "ControlNet"
        # The auto class for text to image takes `Control` out of the name, the others keep it.
        name = name.replace(ending, kind + (ending if own else "Pipeline"))
    if pag:
        name = name.replace(ending, "PAG" + (ending if own else "Pipeline"))
    if own and ending == "ControlPipeline":
        name = name.replace(ending, f"Control{own}Pipeline")
    return name


def _tables(tree: ast.Module) -> dict[str, dict[str, str]]:
    """Read the tables. Rows that are there only with another package are taken in: that it is
    missing is said of the class."""
    tables: dict[str, dict[str, str]] = {}
    for entry in ast.walk(tree):
        if not isinstance(entry, ast.Assign):
            continue
        match entry.targets[0], entry.value:
            case ast.Name(id=name), ast.Call(args=[ast.List(elts=rows)]):
                tables[name] = dict(filter(None, map(_row, rows)))
            case (
                ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(row))),
                ast.Name(id=made),
            ):
                tables.setdefault(name, {})[row] = made
    return tables


def _row(row: ast.expr) -> tuple[str, str] | None:
    match row:
        case ast.Tuple(elts=[ast.Constant(value=str(name)), ast.Name(id=made)]):
            return name, made
    return None


def _in_order(tree: ast.Module) -> list[str]:
    for entry in tree.body:
        match entry:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.List(elts=tables)) if (
                name == _ALL_TABLES
            ):
                return [each.id for each in tables if isinstance(each, ast.Name)]
    return []


def _table_of(making: ast.FunctionDef) -> str:
    """The name of the table that a `from_pretrained` takes its class from."""
    for each in ast.walk(making):
        match each:
            case ast.Call(func=ast.Name(id=name), args=[ast.Name(id=table), *_]) if (
                name == _CHOOSING
            ):
                return table
    return ""
