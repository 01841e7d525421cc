"""Where something is, as callers write it: one grammar for all arguments that name a place.

On the Hub that is `org/name`, then perhaps `@` and a revision, then perhaps a folder or a file,
with or without `hf://` before it; or the address of a page of the Hub, be it the endpoint that is
asked or huggingface.co, which the endpoint stands for. On this machine it is the path of a folder,
or of a file of weights. What is on the Hub may come in blanks or quotes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from nbloader.errors import InvalidArgumentError, InvalidRepoIdError
from nbloader.hub_names import HUB, is_repo_id, is_revision
from nbloader.records import Kind, RepoType
from nbloader.request.bare_names import completed, is_old
from nbloader.request.folders import WEIGHTS, NamedFolder, no_folder, read_file, read_folder
from nbloader.request.values import check_repo_id
from nbloader.text import quote

_HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
"""The names of the Hub itself; a mirror (`endpoint`) serves what stands there."""

_WRAPPERS = {'"': '"', "'": "'", "`": "`", "<": ">"}
# Of HfFileSystem, of timm, of open_clip, of git.
_SCHEMES = ("hf://", "hf-hub:", "hf_hub:", "git@hf.co:", "git@huggingface.co:")
_OTHER_TYPES = {"datasets": "dataset", "spaces": "Space"}
_AT_REVISION = frozenset({"tree", "blob", "resolve", "raw", "commit", "commits"})
_OF_ONE_FILE = frozenset({"blob", "resolve", "raw"})
_PAGES = frozenset({"discussions", "settings"})
_NO_OWNERS = frozenset(
    {
        "api",
        "blog",
        "collections",
        "docs",
        "join",
        "learn",
        "login",
        "new",
        "organizations",
        "papers",
        "posts",
        "pricing",
        "settings",
        "tasks",
    }
)
# The revisions of the Hub's own that have slashes are those of HfFileSystem: `refs/pr/1`.
_ON_THE_HUB = re.compile(
    r"(?P<repo_id>[^/@]+(/[^/@]+)?)(@(?P<revision>refs/[^/]+/[^/]+|[^/]+))?(/(?P<path>.+))?"
)
_UNSAFE = re.compile(r"[\\:*?\"<>|]")
_MAX_PATH = 1024
_KEYS = ("repo_id", "revision", "subfolder", "filename")
_ALONE = 'Pass the id alone, such as "Qwen/Qwen-Image-Edit-2509".'

# A file that `from_pretrained` of its repository opens.
_OF_A_MODEL = re.compile(r"((diffusion_)?pytorch_model|model|adapter_model)\b.*")


@dataclass(frozen=True, slots=True)
class Place:
    """A repository, or a folder of this machine, and what is meant in it.

    Attributes:
        repo_id: the id; of a folder its path, as it was written.
        revision: where one is named; else None.
        subfolder: the folder in it; empty for its root.
        filename: the file in that folder, where one of weights is meant; else empty.
        folder: the folder of this machine; None for the Hub.
        page: of the address of a page, what that is, such as `tree` or `blob`; else empty.
        shown: of a page, the file that it is of, or with a slash at its end the folder.
    """

    repo_id: str
    revision: str | None = None
    subfolder: str = ""
    filename: str = ""
    folder: NamedFolder | None = None
    page: str = ""
    shown: str = ""

    @property
    def path(self) -> str:
        """The path in the repository; empty for all of it."""
        return "/".join(filter(None, (self.subfolder, self.filename)))


# -- for the arguments -----------------------------------------------------------------------------


def read_repository(
    given: object,
    *,
    endpoint: str | None,
    kind: Kind | None,
    repo_type: RepoType = RepoType.MODEL,
    fetched: bool = False,
) -> Place:
    """Read what is loaded: a whole repository or folder, or a file with a model of its own.

    A bare name is completed as sentence-transformers does it, unless it is one of the old ids
    without an organization, or the model is for another library. The page of a file that is a part
    of the whole repository stands for that.

    Args:
        endpoint: the address of the Hub that will be asked; None for huggingface.co.
        kind: the library that was asked for; None lets the files decide.
        repo_type: what it is to the Hub; a dataset or a space is never completed.
        fetched: whether it is only fetched. What can be an id is the repository then, also where
            there is a folder of that name.

    Raises:
        InvalidRepoIdError: it is no id, or leads to something that is no model of that Hub.
    """
    place = None if fetched and is_repo_id(given) else _read_local(given, files=not fetched)
    if place is not None:
        return place
    place = read_on_hub(given, endpoint=endpoint, repo_type=repo_type)
    of_file = place.page in _OF_ONE_FILE
    is_one = place.filename and repo_type is RepoType.MODEL
    if place.page and not (is_one and of_file and not _OF_A_MODEL.fullmatch(place.filename)):
        if place.path and not of_file and not (fetched and place.page == "tree"):
            raise _folder(place)
        return replace(place, subfolder="", filename="")
    if place.path and not is_one:
        if str(given).startswith(f"{place.repo_id}/") and Path(place.repo_id).is_dir():
            raise no_folder(given, Path(str(given)))
        raise _with_more(str(given), place, repo_type, fetched=fetched)
    if repo_type is not RepoType.MODEL or place.page:
        return place
    return replace(place, repo_id=completed(place.repo_id, kind))


def read_part(where: str, given: object, *, endpoint: str | None, file: str = "filename") -> Place:
    """Read where a part of a model is: a text, a path, or a mapping with `repo_id` and more.

    Args:
        where: the argument that names it, for errors.
        endpoint: the address of the Hub that will be asked; None for huggingface.co.
        file: what a mapping calls the name of the file.

    Raises:
        InvalidArgumentError: it can be none.
    """
    keys = (*_KEYS[:-1], file)
    said: Mapping[Any, Any] = given if isinstance(given, Mapping) else {"repo_id": given}
    unknown = [key for key in said if key not in keys]
    if unknown or not isinstance(said.get("repo_id"), (str, os.PathLike)):
        what = f"has no {quote(str(unknown[0]))}" if unknown else "needs a repo_id"
        raise InvalidArgumentError(
            f"{where}: a place {what}",
            hint=f"It has {', '.join(keys)}; the last three may be left out.",
        )
    with _named(where):
        place = _read_local(said["repo_id"]) or read_on_hub(said["repo_id"], endpoint=endpoint)
        whole = "/" in place.repo_id or place.page or place.folder is not None
        if not whole and not is_old(place.repo_id):
            raise InvalidRepoIdError(
                f"{quote(place.repo_id)} is not a repository id",
                hint='Pass "org/name", "org/name@revision", "org/name/folder", "./folder" or the '
                "address of a page.",
            )
    texts = {key: _text(where, key, said.get(key)) for key in keys[1:]}
    found = {"revision": place.revision, "subfolder": place.subfolder, file: place.filename}
    for key, once_more in texts.items():
        if found[key] and once_more and found[key] != once_more:
            raise InvalidArgumentError(
                f"{where}: {key}={quote(once_more)} is not the one of the place, which is "
                f"{quote(found[key])}",
                hint="Leave one of the two out.",
            )
    revision = texts["revision"] or place.revision
    if revision is not None and not is_revision(revision):
        raise InvalidArgumentError(
            f"{where}: revision={quote(revision)} is not the name of a branch, tag or commit",
            hint='Leave it out for "main", or pass a branch, a tag or a commit of 40 hex digits.',
        )
    if revision is not None and place.folder is not None:
        raise InvalidArgumentError(
            f"{where}: revision={quote(revision)} is for a repository, and "
            f"{quote(place.repo_id)} is a folder",
            hint="Leave it out, or pass the id of the repository.",
        )
    inner, _, name = check_inner(where, texts[file] or place.filename).rpartition("/")
    outer = check_inner(where, texts["subfolder"] or place.subfolder)
    subfolder = "/".join(filter(None, (outer, inner)))
    return replace(place, revision=revision, subfolder=subfolder, filename=name)


def check_inner(where: str, path: object) -> str:
    """Return a path inside of a repository, or the empty text. Raises InvalidArgumentError."""
    if path in (None, ""):
        return ""
    text = path.strip("/") if isinstance(path, str) else ""
    if not _is_inner(text):
        raise InvalidArgumentError(
            f"{where}={quote(path)} is not a folder of a repository",
            hint='Name it from the root of the repository, such as "unet" or "sdxl/vae".',
        )
    return text


def _is_inner(path: str) -> bool:
    """Say whether a path can be one inside of a repository."""
    return (
        0 < len(path) <= _MAX_PATH
        and path.isprintable()
        and not _UNSAFE.search(path)
        and {"", ".", ".."}.isdisjoint(path.split("/"))
    )


def _text(where: str, key: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise InvalidArgumentError(
        f"{where}: {key}={quote(value)} is not a text", hint=f'Pass {{"{key}": "..."}}.'
    )


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name the argument in what is said of its place."""
    try:
        yield
    except InvalidRepoIdError as error:
        raise InvalidArgumentError(f"{where}: {error.message}", hint=error.hint) from None


# -- on this machine -------------------------------------------------------------------------------


def _read_local(given: object, *, files: bool = True) -> Place | None:
    """Read a path of this machine; None for what is on the Hub.

    Raises:
        InvalidRepoIdError: it is a path, and nothing is there that can be loaded.
    """
    file = read_file(given) if files else None
    if file is not None:
        folder, name = file
        return Place(folder.name, filename=name, folder=folder)
    found = read_folder(given)
    return None if found is None else Place(found.name, folder=found)


# -- on the Hub ------------------------------------------------------------------------------------


def read_on_hub(
    given: object, *, endpoint: str | None, repo_type: RepoType = RepoType.MODEL
) -> Place:
    """Read a place on the Hub; see the head of this module.

    Args:
        endpoint: the address of the Hub that will be asked; None for huggingface.co.
        repo_type: what it is to the Hub.

    Raises:
        InvalidRepoIdError: it is none, or is on another host, or of another type.
    """
    if not isinstance(given, str):
        check_repo_id(os.fspath(given) if isinstance(given, os.PathLike) else given)
    text = _unwrapped(str(given))
    if repo_type is not RepoType.MODEL:
        text = _without_type(text, repo_type)
    address = _address(text)
    if address is not None:
        return _of_address(address, endpoint or HUB)
    scheme = next((scheme for scheme in _SCHEMES if text.startswith(scheme)), "")
    text = text.removeprefix(scheme)
    text = text.rstrip("/")
    if scheme or text.count("/") > 1:
        _refuse_other_types(str(given), text.split("/"))
    if scheme and text.count("/") == 1:
        text = text.removesuffix(".git")
    if text.count("/") > 1:
        text = text.removeprefix("models/")
    segments = text.split("/")
    if len(segments) > 3 and segments[2] in _AT_REVISION:  # a page without its address
        return _of_address(urlsplit(f"{HUB}/{text}"), endpoint or HUB)
    match = _ON_THE_HUB.fullmatch(text)
    repo_id = check_repo_id(match["repo_id"] if match else text)
    assert match is not None  # What is an id matches.
    revision, path = match["revision"], match["path"] or ""
    return Place(
        repo_id,
        _revision(str(given), unquote(revision)) if revision else None,
        *_apart(str(given), path, is_file=False),
    )


def _apart(given: str, path: str, *, is_file: bool) -> tuple[str, str]:
    """Take a path in a repository apart: its folder, and its file if that is one of weights.

    Args:
        is_file: whether it is one of a file in any case.

    Raises:
        InvalidRepoIdError: no repository can hold it.
    """
    if path and not _is_inner(path):
        raise InvalidRepoIdError(
            f"{quote(given)} names a path that can be in no repository",
            hint="A file or a folder is named from the root of its repository: "
            '"org/name/file.safetensors".',
        )
    folder, _, name = path.rpartition("/")
    if WEIGHTS.fullmatch(name):
        return folder, name
    return (folder, "") if is_file else (path, "")


def _without_type(text: str, repo_type: RepoType) -> str:
    """Take the kind of a repository out of its address: `datasets/org/name` is `org/name` then."""
    return re.sub(
        rf"^((?:(?:[a-z]+:)?//)?[^/]*[.:][^/]*/|hf://|)(?:api/)?{repo_type}s/(?=.)", r"\1", text
    )


def _unwrapped(text: str) -> str:
    text = text.strip()
    while len(text) > 1 and _WRAPPERS.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def _address(text: str) -> SplitResult | None:
    """Split the address of a page; None for a text that is none."""
    text = text.removeprefix("//")
    if text.partition("/")[0].lower() in _HUB_HOSTS and "/" in text:
        text = f"https://{text}"
    if not text.lower().startswith(("http://", "https://")):
        return None
    try:
        return urlsplit(text)
    except ValueError:
        return None


def _of_address(address: SplitResult, endpoint: str) -> Place:
    path, public = _path_at_hub(address, endpoint)
    # Neither a password nor a signature in the address is shown.
    shown = f"{address.scheme}://{address.hostname}{address.path}"
    segments = [unquote(segment) for segment in path.split("/") if segment]
    if segments[:2] == ["api", "models"]:
        del segments[0]
    if segments[:1] == ["models"]:
        del segments[0]
    _refuse_other_types(shown, segments)
    bare = len(segments) < 2 or segments[1] in _AT_REVISION | _PAGES
    repo_id = "/".join(segments[: 1 if bare else 2]).removesuffix(".git")
    if (
        not is_repo_id(repo_id)
        or segments[0] in _NO_OWNERS
        or (bare and public and not is_old(repo_id))
    ):
        raise InvalidRepoIdError(f"{quote(shown)} is not the page of a model", hint=_ALONE)
    rest = segments[1 if bare else 2 :]
    if len(rest) < 2 or rest[0] in _PAGES:
        return Place(repo_id, page="model")
    action, revision, *inside = rest
    if action not in _AT_REVISION:
        raise InvalidRepoIdError(
            f"{quote(shown)} is not the page of a model", hint=f'Pass the id alone: "{repo_id}".'
        )
    if revision == "refs" and len(inside) >= 2:
        # The Hub's own references, such as those of pull requests: refs/pr/1.
        revision, inside = "/".join([revision, *inside[:2]]), inside[2:]
    path, of_file = "/".join(inside), action in _OF_ONE_FILE
    where = _apart(shown, path, is_file=of_file)
    path = path if of_file or not path else f"{path}/"
    return Place(repo_id, _revision(shown, revision), *where, page=action, shown=path)


def _path_at_hub(address: SplitResult, endpoint: str) -> tuple[str, bool]:
    """Return the path of an address at the Hub that is asked, and whether it is the public one's.

    Raises:
        InvalidRepoIdError: it is at another host.
    """
    home, host = urlsplit(endpoint), (address.hostname or "").lower()
    if host in _HUB_HOSTS:
        return address.path, True
    root = home.path.rstrip("/")
    where = address.netloc.rpartition("@")[2].lower()
    if where == home.netloc.lower() and address.path.startswith(f"{root}/"):
        return address.path.removeprefix(root), False
    named = re.fullmatch(r"[\w.-]+(:\d+)?", where, re.ASCII)
    raise InvalidRepoIdError(
        f"the address is at {quote(where)}, and the Hub that is asked at {quote(home.hostname)}",
        hint=f'{_ALONE} If that is a Hub, too, pass endpoint="{address.scheme}://{where}".'
        if named
        else _ALONE,
    )


# -- what is refused -------------------------------------------------------------------------------


def other_type_of(repo_id: str) -> str:
    """Return what an id seems to be of that begins with the name of another type; else nothing."""
    return _OTHER_TYPES.get(repo_id.partition("/")[0], "").lower()


def _refuse_other_types(given: str, segments: list[str]) -> None:
    what = _OTHER_TYPES.get(segments[0]) if len(segments) > 1 else None
    if what is None:
        return
    inside = "" if segments[3:4] and segments[3] in _AT_REVISION else "/".join(segments[3:])
    names = ["/".join(segments[1:3]), *([inside] if inside else [])]
    arguments = [*map(json.dumps, names), f'repo_type="{what.lower()}"']
    models = " Its page lists the models that it uses." if what == "Space" else ""
    raise InvalidRepoIdError(
        f"{quote(given)} is a {what}, and no model",
        hint=f"For its files: nbloader.download({', '.join(arguments)}).{models}",
    )


def _folder(place: Place) -> InvalidRepoIdError:
    """The error for an address that leads to a folder: the whole does not load from there.

    The address itself is not shown: it may hold a password or a signature.
    """
    repo_id, path = quote(place.repo_id), quote(place.path)
    return InvalidRepoIdError(
        f"the page of {repo_id} leads to the folder {path}, and a model is loaded from the root of "
        "its repository",
        hint=f"Pass the id alone for what is in the root: {repo_id}; for what is in the folder "
        f"that and subfolder={path}.",
    )


def _with_more(
    given: str, place: Place, repo_type: RepoType, *, fetched: bool
) -> InvalidRepoIdError:
    """The error for a path behind an id, with the line in which it is an argument of its own."""
    repo_id, path, revision = place.repo_id, place.path, place.revision
    arguments = [quote(repo_id)]
    loads = "." not in path.rpartition("/")[2] and not fetched
    if loads:
        arguments.append(f"subfolder={quote(path)}")
    elif "." in path.rpartition("/")[2]:
        arguments.append(quote(path))
    else:
        arguments.append(f"allow_patterns={quote(f'{escape(path)}/')}")
    if revision:
        arguments.append(f"revision={quote(revision)}")
    if repo_type is not RepoType.MODEL:
        arguments.append(f"repo_type={quote(repo_type.value)}")
    branch = f"{revision}/{path}"
    slashes = f" A branch with slashes is revision={quote(branch)}." if revision else ""
    return InvalidRepoIdError(
        f"{quote(given)} is not a repository id",
        hint="What stands behind an id is an argument of its own: nbloader."
        f"{'load' if loads else 'download'}({', '.join(arguments)}).{slashes}",
    )


def _revision(given: str, revision: str) -> str:
    if is_revision(revision):
        return revision
    raise InvalidRepoIdError(
        f"{quote(given)} names {quote(revision)}, which is not a branch, tag or commit",
        hint="Pass the id alone, and the revision as revision=.",
    )
