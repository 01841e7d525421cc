"""The arguments of a call, checked and completed before anything is started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from nbloader import arguments
from nbloader.environment import place
from nbloader.errors import InvalidArgumentError
from nbloader.quoting import quote
from nbloader.records import Event, Kind, Method, SelectionRequest, TokenFacts
from nbloader.settings import Settings
from nbloader.tokens import colab_token, token_origin
from nbloader.views import ViewName

__all__ = ["Request", "checked"]

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})  # as the Hub's library reads its own switches


class _KindName(StrEnum):
    AUTO = "auto"
    DIFFUSERS = "diffusers"
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    TRANSFORMERS = "transformers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a call asks for; the fields are the arguments of `nbloader.load`.

    Attributes:
        repo_id: the id that was meant by what the call has in its place.
        selection: how the files are chosen.
        method: the only way to place the model; None for the fastest that fits.
        token_facts: where the token comes from.
    """

    repo_id: str
    revision: str
    selection: SelectionRequest
    settings: Settings
    device: str
    dtype: str
    method: Method | None
    allow_pickle: bool
    cache_dir: str | None
    endpoint: str | None
    token: str | bool | None = field(repr=False)
    token_facts: TokenFacts
    local_files_only: bool
    verify: bool
    force: bool
    loader_kwargs: Mapping[str, Any]
    view: ViewName
    on_event: Callable[[Event], object] | None


def checked(
    *,
    repo_id: object,
    revision: object = None,
    variant: object = None,
    kind: object = "auto",
    task: object = None,
    device: object = "auto",
    dtype: object = "auto",
    plan: object = "auto",
    cache_dir: object = None,
    endpoint: object = None,
    token: object = None,
    local_files_only: object = False,
    trust_remote_code: object = False,
    allow_pickle: object = False,
    verify: object = False,
    force: object = False,
    settings: object = None,
    view: object = "auto",
    on_event: object = None,
    loader_kwargs: object = None,
) -> Request:
    """Check everything that can be checked before anything is started.

    Raises:
        InputError: names the argument, the setting or the variable that is wrong.
    """
    passed_on = _mapping("loader_kwargs", loader_kwargs)
    nested = _mapping("loader_kwargs['model_kwargs']", passed_on.get("model_kwargs"))
    taken = arguments.taken_over(
        {
            "cache_dir": cache_dir,
            "device": device,
            "dtype": dtype,
            "endpoint": endpoint,
            "local_files_only": local_files_only,
            "repo_id": repo_id,
            "revision": revision,
            "task": task,
            "token": token,
            "trust_remote_code": trust_remote_code,
            "variant": variant,
        },
        passed_on,
    )
    own = taken.arguments
    chosen = _kind(kind, own["task"])
    hub = arguments.check_endpoint(own["endpoint"])
    default = arguments.check_endpoint(os.environ.get("HF_ENDPOINT") or None, "HF_ENDPOINT")
    address = arguments.read_repo_id(repo_id, endpoint=hub or default, kind=chosen)
    given = arguments.check_token(own["token"])
    offline = arguments.check_flag("local_files_only", own["local_files_only"]) or _offline()
    return Request(
        repo_id=address.repo_id,
        revision=_revision(own["revision"], address.revision),
        selection=SelectionRequest(
            kind=chosen,
            variant=arguments.check_variant(own["variant"]),
            trust_remote_code=arguments.check_flag("trust_remote_code", own["trust_remote_code"]),
            task=arguments.check_task(own["task"]),
            safetensors_only=taken.safetensors_only,
            custom_pipeline=_custom_pipeline(taken.passed_on.get("custom_pipeline")),
            custom_revision=_custom_revision(taken.passed_on.get("custom_revision")),
            handed_in=tuple(sorted(taken.passed_on)),
        ),
        settings=_settings(settings),
        device=arguments.check_device(own["device"]),
        dtype=_dtype(arguments.check_dtype(own["dtype"]), nested),
        method=arguments.check_method(plan),
        allow_pickle=arguments.check_flag("allow_pickle", allow_pickle),
        cache_dir=arguments.check_folder("cache_dir", own["cache_dir"]),
        endpoint=hub,
        token=_token(given),
        token_facts=token_origin(given),
        local_files_only=offline,
        verify=arguments.check_flag("verify", verify),
        force=arguments.check_flag("force", force),
        loader_kwargs=taken.passed_on,
        view=arguments.one_of("view", view, ViewName),
        on_event=_callable("on_event", on_event),
    )


def _kind(kind: object, task: object) -> Kind | None:
    """Give the library that was asked for; None if the files decide."""
    name = arguments.one_of("kind", kind, _KindName)
    if name is _KindName.AUTO:
        return None
    if task is not None and name is not _KindName.TRANSFORMERS:
        raise InvalidArgumentError(
            f"task= is for models of transformers, and kind={str(name)!r} was asked for",
            hint="Leave one of the two out.",
        )
    return Kind(name)


def _revision(given: object, in_address: str | None) -> str:
    """Give the revision, of which the address that was pasted may hold one, too."""
    if in_address is None:
        return arguments.check_revision(given)
    if given is not None and arguments.check_revision(given) != in_address:
        raise InvalidArgumentError(
            f"revision={quote(given)} is not the one of the address, which is {quote(in_address)}",
            hint="Leave one of the two out.",
        )
    return in_address


def _dtype(dtype: str, nested: Mapping[str, Any]) -> str:
    """Give the number format; what the caller tells the model's own loader counts, too."""
    for name in ("dtype", "torch_dtype"):
        if dtype == "auto" and name in nested:
            with contextlib.suppress(InvalidArgumentError):  # A mapping, or one we do not plan for.
                dtype = arguments.check_dtype(nested[name])
    return dtype


def _custom_pipeline(given: object) -> str | None:
    """Give the place of a pipeline's code; a path of this machine in full, so that it is one."""
    if given is None:
        return None
    if not isinstance(given, (str, os.PathLike)):
        raise InvalidArgumentError(
            f"loader_kwargs['custom_pipeline']={quote(given)} names no code",
            hint="Pass a path, the id of a repository, or the name of a file of this one.",
        )
    name = os.fspath(given)
    path = Path(name)
    file = path if name.endswith(".py") else path / "pipeline.py"
    if file.is_file():
        return str(path.absolute())
    if name.endswith(".py") or path.is_absolute() or name.startswith("."):
        raise InvalidArgumentError(
            f"loader_kwargs['custom_pipeline']={quote(given)}: there is no file {quote(str(file))}",
            hint="Pass the path of a Python file, or of a folder with a pipeline.py.",
        )
    return name


def _custom_revision(given: object) -> str | None:
    """Give the revision of a pipeline's code; None if it is not said."""
    return None if given is None else arguments.check_revision(given)


def _settings(given: object) -> Settings:
    return given if isinstance(given, Settings) else Settings(**_mapping("settings", given))


def _mapping(name: str, given: object) -> Mapping[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
        return given
    raise InvalidArgumentError(
        f"{name}={quote(given)} is no mapping of names to values",
        hint=f'Pass {name}={{"name": 1}}.',
    )


def _callable(name: str, given: object) -> Callable[[Event], object] | None:
    if given is None or callable(given):
        return given
    raise InvalidArgumentError(
        f"{name}={quote(given)} cannot be called", hint="Pass a function of one argument."
    )


def _offline() -> bool:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in _TRUE for name in names)


def _token(token: str | bool | None) -> str | bool | None:
    """Complete the token from the environment or from Colab; the worker looks elsewhere."""
    if isinstance(token, str) or token is False:
        return token
    if token is None and os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _TRUE:
        return False
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if value := os.environ.get(variable, "").strip():
            try:
                return arguments.check_token(value)
            except InvalidArgumentError:
                raise InvalidArgumentError(
                    f"the variable {variable} holds no token", hint="Set it right, or unset it."
                ) from None
    return colab_token(place(os.environ)) or token
