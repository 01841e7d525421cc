"""How the functions that users call show themselves, and what they do about wrong arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

from nbloader.notebook import import_modules

if TYPE_CHECKING:
    from nbloader.checks import JointReport, PreflightReport

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)


def explains(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function name the argument that is meant, where it is called by one it does not have.

    Type checkers and notebooks see the function as it is.
    """
    parameters = tuple(signature(function).parameters)

    @wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        # Only then: what the function does first is not to wait for imports.
        if not keywords.keys() <= set(parameters):
            prepare(function.__name__, keywords, parameters)
        return function(*args, **keywords)

    return call


if TYPE_CHECKING:

    class _OneOrSeveral(Protocol[P, R_co, S_co]):
        """A function of one repository, or of a list of them in its place."""

        @overload
        def __call__(self, *args: P.args, **keywords: P.kwargs) -> R_co: ...

        @overload
        def __call__(
            self, repo_id: list[str] | tuple[str, ...], *args: Any, **keywords: Any
        ) -> S_co: ...


def or_paths(function: Callable[P, Path]) -> _OneOrSeveral[P, Path, list[Path]]:
    """Show type checkers that a function takes a list of ids, too, and gives a list of paths."""
    return cast("_OneOrSeveral[P, Path, list[Path]]", function)


def or_reports(
    function: Callable[P, PreflightReport],
) -> _OneOrSeveral[P, PreflightReport, JointReport]:
    """Show type checkers that a function takes a list of ids, too, and gives one report."""
    return cast("_OneOrSeveral[P, PreflightReport, JointReport]", function)


def like(other: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Show a function with the parameters of another one, which it takes as its keywords."""

    def show(function: Callable[..., R]) -> Callable[P, R]:
        result = signature(function).return_annotation
        vars(function)["__signature__"] = signature(other).replace(return_annotation=result)
        return function

    return show


def import_for_arguments() -> None:
    """Import what the arguments of a call are checked with, and the worker is asked."""
    import_modules("nbloader.request", "nbloader.settings", "nbloader.transfer.protocol")


def import_needed() -> None:
    """Import what any call needs, where an interrupt cannot break it."""
    import_modules("nbloader.stages", "nbloader.transfer.supervisor", "nbloader.settings")


def prepare(function: str, names: Collection[str], parameters: Collection[str]) -> None:
    """Import what a call needs, and refuse unknown names."""
    import_needed()
    from nbloader.request import refuse_unknown

    refuse_unknown(function, names, parameters)
