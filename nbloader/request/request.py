"""The arguments of a call, checked and completed before anything is started."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbloader.errors import InvalidArgumentError
from nbloader.hub_names import TOKEN_VARIABLES
from nbloader.libraries import package_facts
from nbloader.machine import offline_variable
from nbloader.paths import absolute
from nbloader.records import Event, Kind, Method, RepoType, SelectionRequest, TokenFacts
from nbloader.request.adapters import read_adapters
from nbloader.request.backends import read_backend, runs_on_cpu
from nbloader.request.call import Call, DownloadCall
from nbloader.request.files import file_choice
from nbloader.request.loader_kwargs import taken_over
from nbloader.request.parts import Parts, check_of_classes, read_classes, read_components
from nbloader.request.places import check_inner, read_repository
from nbloader.request.values import (
    check_attention,
    check_device,
    check_dtype,
    check_endpoint,
    check_flag,
    check_folder,
    check_method,
    check_revision,
    check_task,
    check_token,
    check_variant,
    is_text,
    one_of,
)
from nbloader.request.variables import check_variables
from nbloader.text import quote, quote_path
from nbloader.tokens import Token, find_token
from nbloader.views import ViewName

if TYPE_CHECKING:
    from nbloader.settings import Settings


class _KindName(StrEnum):
    AUTO = "auto"
    DIFFUSERS = "diffusers"
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    TRANSFORMERS = "transformers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a call asks for; the fields are the arguments of `nbloader.load`.

    Attributes:
        repo_id: the id that was meant by what the call has in its place; of a folder, its path as
            it was written.
        folder: the absolute path of the folder to load; None for a repository.
        is_path: whether that was given as a path, so that no repository can be meant.
        repo_type: what the repository is to the Hub.
        local_dir: a folder of the user's own for the files; None for the Hub's cache.
        selection: how the files are chosen.
        method: the only way to place the model; None for the fastest that fits.
        attention: how attention is computed, by a name of `libraries.ATTENTIONS`; None for the
            library's own choice.
        token_facts: where the token comes from.
    """

    repo_id: str
    folder: str | None = None
    is_path: bool = False
    revision: str
    repo_type: RepoType
    local_dir: str | None
    selection: SelectionRequest
    settings: Settings
    device: str
    dtype: str
    method: Method | None
    attention: str | None
    allow_pickle: bool
    cache_dir: str | None
    endpoint: str | None
    token: str | bool | None = field(repr=False)
    token_facts: TokenFacts
    local_files_only: bool
    verify: bool
    force: bool
    replace: bool
    keep_files: bool
    loader_kwargs: Mapping[str, Any]
    view: ViewName
    on_event: Callable[[Event], object] | None

    @property
    def named(self) -> str:
        """What of its repository is meant: a file, or a folder; empty for all that is needed."""
        choice = self.selection.files
        if choice is None:
            return self.selection.checkpoint
        one = choice.allow if choice.allow is not None and len(choice.allow) == 1 else ("",)
        return choice.filename or one[0]

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from the others of one list, whose other arguments are the same."""
        return self.repo_id, self.revision, self.named

    def place_in(self, folder: Path) -> Path:
        """Return what a download gives: the folder of its files, or the path of the only one."""
        choice = self.selection.files
        if choice is None or choice.filename is None:
            return folder
        return folder.joinpath(*choice.filename.split("/"))


def several(call: Call) -> list[Call] | None:
    """Return a call for each id, where a call has a list of them in the place of one; else None.

    Raises:
        InvalidArgumentError: it is empty, or all would go into one folder.
    """
    given: object = call.repo_id
    if isinstance(given, (str, bytes, os.PathLike, Mapping)) or not isinstance(given, Iterable):
        return None
    ids = list(given)
    if not ids:
        raise InvalidArgumentError(
            "repo_id is an empty list", hint='Pass ids, such as ["org/name", "org/other"].'
        )
    if isinstance(call, DownloadCall) and call.local_dir is not None:
        raise InvalidArgumentError(
            "local_dir= is one folder, and the files of several repositories would meet there",
            hint="Call once for each of them, with a folder of its own.",
        )
    return [replace(call, repo_id=each) for each in ids]


def checked(call: Call) -> Request:
    """Check everything that can be checked before anything is started.

    Raises:
        InputError: names the argument, the setting or the variable that is wrong.
    """
    check_variables(os.environ)
    passed_on = _mapping("loader_kwargs", call.loader_kwargs)
    nested = _mapping("loader_kwargs['model_kwargs']", passed_on.get("model_kwargs"))
    taken = taken_over(call, passed_on)
    call, passed_on = taken.call, dict(taken.passed_on)
    custom_pipeline = _custom_pipeline(passed_on.get("custom_pipeline"))
    if custom_pipeline is not None:
        # The library takes no path but a text, and the trial runs in another folder.
        passed_on["custom_pipeline"] = custom_pipeline
    _check_original_config(passed_on.get("original_config"))
    backend = read_backend(passed_on, nested)
    kind = _kind(call.kind, call.task)
    repo_type, files, local_dir = RepoType.MODEL, None, None
    if isinstance(call, DownloadCall):
        if call.repo_type is not None:  # as the Hub's library takes it
            repo_type = one_of("repo_type", call.repo_type, RepoType)
        # The worker is told of it in lines of UTF-8; of the cache, by a variable.
        local_dir = check_folder("local_dir", call.local_dir, is_text)
    endpoint = check_endpoint(call.endpoint)
    default = check_endpoint(os.environ.get("HF_ENDPOINT", "").strip() or None, "HF_ENDPOINT")
    asked = endpoint or default
    fetched = isinstance(call, DownloadCall)
    place = read_repository(
        call.repo_id, endpoint=asked, kind=kind, repo_type=repo_type, fetched=fetched
    )
    if (folder := place.folder) is not None:
        _check_folder(folder.name, call.revision, fetched=fetched)
    if isinstance(call, DownloadCall):
        files = file_choice(call, repo_type, place)
    classes = read_classes(call.cls, kind=kind, task=call.task)
    check_of_classes(classes, passed_on)
    revision = _revision(call.revision, place.revision)
    parts = read_components(
        call.components, repo_id=place.repo_id, revision=revision, endpoint=asked
    )
    _check_said_once(parts, passed_on)
    passed_on |= parts.handed_in
    token = _token(check_token(call.token))
    offline = check_flag("local_files_only", call.local_files_only)
    offline = offline or bool(offline_variable(os.environ))
    return Request(
        repo_id=place.repo_id,
        folder=folder.path if folder else None,
        is_path=folder is not None and folder.is_path,
        revision=revision,
        repo_type=repo_type,
        local_dir=local_dir,
        selection=SelectionRequest(
            kind=kind,
            variant=check_variant(call.variant),
            trust_remote_code=check_flag("trust_remote_code", call.trust_remote_code),
            task=check_task(call.task),
            safetensors_only=taken.safetensors_only,
            custom_pipeline=custom_pipeline,
            custom_revision=_custom_revision(passed_on.get("custom_revision")),
            library_version=_diffusers_version(custom_pipeline),
            handed_in=tuple(sorted(passed_on)),
            left_out=tuple(sorted(name for name, value in passed_on.items() if value is None)),
            files=files,
            targets=classes.targets,
            as_tuple=classes.as_tuple,
            subfolder=check_inner("subfolder", call.subfolder),
            components=parts.sources,
            component_lists=parts.lists,
            component_names=(*parts.sources, *parts.handed_in),
            checkpoint=_checkpoint(call, place.path or taken.filename) if not files else "",
            config=taken.config,
            adapters=read_adapters(call.adapters, endpoint=asked),
            backend=backend,
        ),
        settings=_settings(call.settings),
        device="cpu" if runs_on_cpu(backend, call.device, nested) else check_device(call.device),
        dtype=_dtype(check_dtype(call.dtype), nested),
        method=check_method(call.plan),
        attention=check_attention(call.attention),
        allow_pickle=check_flag("allow_pickle", call.allow_pickle),
        cache_dir=check_folder("cache_dir", call.cache_dir),
        endpoint=endpoint,
        token=token.value,
        token_facts=TokenFacts(source=token.source),
        local_files_only=offline,
        verify=check_flag("verify", call.verify),
        force=check_flag("force", call.force),
        replace=check_flag("replace", call.replace),
        keep_files=_keep_files(call),
        loader_kwargs=passed_on,
        view=one_of("view", call.view, ViewName),
        on_event=_callable("on_event", call.on_event),
    )


def _check_said_once(parts: Parts, passed_on: Mapping[str, Any]) -> None:
    for name in sorted({*parts.sources, *parts.handed_in} & passed_on.keys()):
        raise InvalidArgumentError(
            f"components[{name!r}] and loader_kwargs[{name!r}] are both given",
            hint="Leave out one of them.",
        )


def _checkpoint(call: Call, filename: str) -> str:
    """Return the file that is loaded; empty for a whole repository.

    Raises:
        InvalidArgumentError: the call has arguments that are for a whole repository.
    """
    given = {"variant": call.variant, "subfolder": call.subfolder, "task": call.task}
    given["kind"] = None if call.kind == _KindName.AUTO else call.kind
    for name, value in given.items():
        if filename and value is not None:
            raise InvalidArgumentError(
                f"{name}= is for a whole repository, and {quote(filename)} is one file of it",
                hint=f"Leave out {name}=, or the file.",
            )
    return filename


def _kind(kind: object, task: object) -> Kind | None:
    """Return the library that was asked for; None if the files decide."""
    name = one_of("kind", kind, _KindName)
    if name is _KindName.AUTO:
        return None
    if task is not None and name is not _KindName.TRANSFORMERS:
        raise InvalidArgumentError(
            f"task= is for models of transformers, and kind={str(name)!r} was asked for",
            hint="Leave one of the two out.",
        )
    return Kind(name)


def _revision(given: object, in_address: str | None) -> str:
    """Return the revision, of which the address that was pasted may hold one, too."""
    if in_address is None:
        return check_revision(given)
    if given is not None and check_revision(given) != in_address:
        raise InvalidArgumentError(
            f"revision={quote(given)} is not the one of the address, which is {quote(in_address)}",
            hint="Leave one of the two out.",
        )
    return in_address


def _check_folder(name: str, revision: object, *, fetched: bool) -> None:
    """Refuse a folder where only a repository has something that could be meant.

    Args:
        fetched: whether the call is one of `download`.
    """
    if fetched:
        raise InvalidArgumentError(
            f"{quote(name)} is a folder: there is nothing to download",
            hint=f"Load it: nbloader.load({json.dumps(name)}).",
        )
    if revision is not None:
        # The libraries would pass over it without a word.
        raise InvalidArgumentError(
            f"revision={quote(revision)} is for a repository, and {quote(name)} is a folder",
            hint="Leave it out, or pass the id of the repository.",
        )


def _dtype(dtype: str, nested: Mapping[str, Any]) -> str:
    """Return the number format; what the caller tells the model's own loader counts, too."""
    for name in ("dtype", "torch_dtype"):
        if dtype == "auto" and name in nested:
            with contextlib.suppress(InvalidArgumentError):  # A mapping, or one we do not plan for.
                dtype = check_dtype(nested[name])
    return dtype


def _custom_pipeline(given: object) -> str | None:
    """Return the place of a pipeline's code; a path of this machine in full, so that it is one."""
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
        return str(absolute(path))
    if name.endswith(".py") or path.is_absolute() or name.startswith("."):
        raise InvalidArgumentError(
            f"loader_kwargs['custom_pipeline']={quote(given)}: there is no file {quote_path(file)}",
            hint="Pass the path of a Python file, or of a folder with a pipeline.py.",
        )
    return name


def _check_original_config(given: object) -> None:
    """See that the configuration of a checkpoint's authors is there. An address is not looked at.

    Raises:
        InvalidArgumentError: it is a path, and there is no such file.
    """
    if isinstance(given, str) and "://" not in given and not Path(given).is_file():
        raise InvalidArgumentError(
            f"loader_kwargs['original_config']={quote(given)}: there is no such file",
            hint="Pass the path of the YAML file of the checkpoint's authors, or its address.",
        )


def _custom_revision(given: object) -> str | None:
    """Return the revision of a pipeline's code; None if it is not said."""
    return None if given is None else check_revision(given)


def _diffusers_version(custom_pipeline: str | None) -> str | None:
    """Return the installed version of diffusers, where code is for one; None if it is not there."""
    return package_facts(["diffusers"])["diffusers"].installed if custom_pipeline else None


def _settings(given: Settings | Mapping[str, Any] | None) -> Settings:
    from nbloader.settings import Settings

    return given if isinstance(given, Settings) else Settings(**_mapping("settings", given))


def _keep_files(call: Call) -> bool:
    """Check whether what is downloaded stays."""
    keeps = check_flag("keep_files", call.keep_files)
    if not keeps and call.replace:
        raise InvalidArgumentError(
            "replace=True keeps the old model until all files of the new one are there, and "
            "keep_files=False never has them all",
            hint="Free the old one first, with nbloader.unload(...), and leave out replace=True.",
        )
    return keeps


def _mapping(name: str, given: object) -> Mapping[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
        return given
    raise InvalidArgumentError(
        f"{name} must be a mapping of names to values, not {quote(given)}",
        hint=f'Pass {name}={{"name": 1}}.',
    )


def _callable(name: str, given: object) -> Callable[[Event], object] | None:
    if given is None or callable(given):
        return given
    raise InvalidArgumentError(
        f"{name}={quote(given)} cannot be called", hint="Pass a function of one argument."
    )


def _token(given: str | bool | None) -> Token:
    """Find the token; that of a variable is checked here, since its user did not pass it."""
    token = find_token(given)
    if token.source not in TOKEN_VARIABLES:
        return token
    try:
        return Token(token.source, check_token(token.value))
    except InvalidArgumentError:
        raise InvalidArgumentError(
            f"the variable {token.source} holds no token",
            hint=f"Set it right, or remove it: unset {token.source}",
        ) from None
