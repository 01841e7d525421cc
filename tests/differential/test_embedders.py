"""The cases of sentence-transformers are about all that the installed version has."""

from __future__ import annotations

import importlib
import inspect
from functools import partial
from typing import Any

from tests.differential.cases.embedders import CASES, MODULES

_PACKAGES = (
    "base",
    "cross_encoder",
    "multi_vector_encoder",
    "sentence_transformer",
    "sparse_encoder",
)
_CANNOT_BE_SAVED = {"LambdaTokenPooling"}  # it holds a function of the caller's


def _saved(save: Any) -> Any:
    """Return the function that makes the modules of a case."""
    modules = save.args[0] if isinstance(save, partial) and save.args else save
    return _made(modules)


def test_every_class_of_a_module_has_a_case() -> None:
    from sentence_transformers.base.modules.module import Module

    found = {
        value.__name__
        for package in _PACKAGES
        for value in vars(
            importlib.import_module(f"sentence_transformers.{package}.modules")
        ).values()
        if inspect.isclass(value) and issubclass(value, Module) and not inspect.isabstract(value)
    }
    assert found - _CANNOT_BE_SAVED == MODULES.keys()
    made = {_saved(case.save) for case in CASES}
    assert {name for name, modules in MODULES.items() if _made(modules) not in made} == set()


def _made(modules: Any) -> Any:
    return modules.func if isinstance(modules, partial) else modules


def test_every_class_of_a_model_has_a_case() -> None:
    import sentence_transformers
    from sentence_transformers.base.model import BaseModel

    found = {
        name
        for name, value in vars(sentence_transformers).items()
        if inspect.isclass(value) and issubclass(value, BaseModel)
    }
    assert found <= {case.group for case in CASES}
