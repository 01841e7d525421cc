"""A listing and the small files read so far, as the selectors look at them.

A repository may need others: for code, or for the base model of an adapter. How a selector asks for
one: `companion(repo, Reference(repo_id=..., role=...))`. None says that it is not listed yet: the
selector goes on with what it knows, and is asked again. Such a `Repo` is selected as the
selection's own is, with `other.root` for the folder of the root (`config_files(other,
other.root)`); its paths begin with its id, so they go into components as they are. A selector
checks what it takes a name from itself; that a name can be a repository is checked here.

Python files are only ever asked for with trust_remote_code=True: `code_of` is for them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeGuard

from nbloader.bounds import MAX_JSON_BYTES, json_value
from nbloader.errors import MalformedFileError, UnsafePathError, UnsupportedRepoError
from nbloader.hub_names import folder_and_name, is_path, is_repo_id, is_revision, join
from nbloader.records import ChosenAdapter, Listing, Reference, SelectionRequest, Target
from nbloader.text import quote

if TYPE_CHECKING:
    from nbloader.selection.sizes import Header

# -- names from outside, checked before they become a path -----------------------------------------

_MAX_LENGTH = 1024
# Control characters, the backslash (a separator on Windows) and lone surrogates (no file system
# and no JSON can hold them).
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:")
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_RESERVED = re.compile(
    r'(?i)(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?|.*[<>:"|?*].*|.*[ .]', re.DOTALL
)
WINDOWS = os.name == "nt"
_HINT = "Do not use this repository, and report it to the Hub."


def check_safe(path: str, *, where: str) -> None:
    """Refuse a path that could leave the folder that it is put in.

    Args:
        where: what the path was read from, for the error's text.

    Raises:
        UnsafePathError: absolute, with a drive, `..`, an empty segment, a backslash or a control
            character, or too long.
    """
    if (
        not 0 < len(path) <= _MAX_LENGTH
        or _FORBIDDEN.search(path)
        or _DRIVE.match(path)
        or not {"", ".", ".."}.isdisjoint(path.split("/"))
    ):
        raise UnsafePathError(f"{where} has an unsafe file name: {quote(path)}.", hint=_HINT)


_CODE = re.compile(r"(?i).*\.(py[cdiow]?|so|dll|dylib)", re.DOTALL)


def is_code(path: str) -> bool:
    """Say whether Python would import a file of this name, in whatever case a disk keeps it."""
    return _CODE.fullmatch(path) is not None


def check_portable(paths: Iterable[str]) -> None:
    """Refuse files that this system could not hold, or would take for a device.

    A colon is refused anywhere: it tells the files of other repositories (see `hub_names`).

    Raises:
        UnsafePathError: such a name is among `paths`.
    """
    for path in paths:
        if ":" in path or (WINDOWS and any(map(_RESERVED.fullmatch, path.split("/")))):
            raise UnsafePathError(
                f"The repository has a file name that cannot be taken here: {quote(path)}.",
                hint="Ask its author to rename the file, or load it on another system, such as "
                "Windows' own Linux (WSL).",
            )


# -- a repository ----------------------------------------------------------------------------------

_MAX_NAME = 128
_DOTTED_NAME = re.compile(rf"(?=.{{1,{_MAX_NAME}}}\Z)[\w-]+(?:\.[\w-]+)*", re.ASCII)


def malformed(path: str, what: str) -> MalformedFileError:
    """The error for a file that decides the selection and says something impossible."""
    return MalformedFileError(
        f"The file {quote(path)} of the repository {what}.",
        hint="Try another revision (revision=...), or tell the repository's author.",
    )


def is_name(value: object) -> TypeGuard[str]:
    """Say whether a foreign value can be the name of a class, as Python writes it."""
    return isinstance(value, str) and len(value) <= _MAX_NAME and value.isidentifier()


def is_dotted_name(value: object) -> TypeGuard[str]:
    """Say whether a foreign value can be the name of a library, a module or a family of models.

    Those of modules and families that come with a repository may have hyphens.
    """
    return isinstance(value, str) and _DOTTED_NAME.fullmatch(value) is not None


def check_name(value: str, path: str, *, dotted: bool = False) -> str:
    """Return a name that decides the selection, once it is seen to be one.

    Args:
        path: the file that it was read from.
        dotted: whether it is one of a library or a module, and not of a class.

    Raises:
        MalformedFileError: it is none.
    """
    if not (is_dotted_name(value) if dotted else is_name(value)):
        raise malformed(path, f"names {quote(value)}, which is not a name in Python")
    return value


@dataclass(slots=True, kw_only=True)
class Family:
    """The repositories that one selection takes files from.

    Attributes:
        request: what the caller wants.
        known: content of the files that were read so far.
        listings: those of the other repositories that were listed so far, by id.
        references: what the selectors asked for, by id and role, in that order.
        repos: the repositories by id, that of the selection first.
        missing: files that a selector asked for and that are not known yet.
        headers: of the files of weights that decide, by path; None for one that cannot be read.
        unread_headers: those that a selector asked for and that are not known yet.
    """

    request: SelectionRequest
    known: Mapping[str, bytes]
    listings: Mapping[str, Listing]
    references: dict[tuple[str, str], Reference] = field(default_factory=dict)
    repos: dict[str, Repo] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    headers: Mapping[str, Header | None] = field(default_factory=dict)
    unread_headers: set[str] = field(default_factory=set)


class Repo:
    """The files of a repository, and what is known of their content.

    Paths are those of a selection: in a repository that is not the selection's own, they begin with
    its id and a colon.

    Args:
        depth: how many references led to it; 0 for the selection's own.

    Attributes:
        folder: see `Listing`.
        root: the folder of the root: empty, or the id and a colon.
        paths: every file.
        top_folders: folders in the root.
        variant: the variant of the weights that was asked for; None for the plain ones.
        task: what the caller, or else the Hub, says that the model is for; None if neither does.
        task_asked: whether the caller names the task.
        pipeline_tag, library_name, base_models: what the Hub says; see `Listing`.
        handed_in: components that the caller hands in, or leaves out.
        custom_pipeline: where the caller says that the code of a pipeline is; None for none.
        written_with: the version of the library that wrote the repository, where a selector has
            read it.
        targets: the classes to build, once a selector has chosen them.
        adapters: what is put into the model, once that is chosen.
        runs_code: whether a selector has found that the load imports what the repository names,
            from its own files or from an installed package.

    Raises:
        UnsafePathError: the listing has a file name that could leave its folder, or one twice.
    """

    def __init__(self, listing: Listing, family: Family, *, depth: int = 0) -> None:
        request = family.request
        self.repo_id = listing.repo_id
        self.folder = listing.folder
        self.root = f"{listing.repo_id}:" if depth else ""
        self.depth = depth
        self.family = family
        self.variant = request.variant or None
        self.task = request.task or listing.pipeline_tag
        self.task_asked = request.task is not None
        self.pipeline_tag = listing.pipeline_tag
        self.library_name = listing.library_name
        self.base_models = listing.base_models
        self.trust_remote_code = request.trust_remote_code
        self.handed_in = frozenset(request.handed_in)
        self.custom_pipeline = request.custom_pipeline
        self.written_with: str | None = None
        self.targets: tuple[Target, ...] = ()
        self.adapters: tuple[ChosenAdapter, ...] = ()
        self.runs_code = False
        self._sizes: dict[str, int] = {}
        self._names: dict[str, set[str]] = {}
        tops: set[str] = set()
        for file in listing.files:
            check_safe(file.path, where="The repository")
            folder, _, name = file.path.rpartition("/")
            if folder:
                tops.add(folder.partition("/")[0])
            folder, path = f"{self.root}{folder}", f"{self.root}{file.path}"
            if path in self._sizes:
                raise UnsafePathError(
                    f"The repository lists the file {quote(file.path)} twice.",
                    hint="Try again; if it stays so, do not use this repository.",
                )
            self._sizes[path] = file.size
            self._names.setdefault(folder, set()).add(name)
        self.paths = frozenset(self._sizes)
        self.top_folders = frozenset(tops)
        family.repos.setdefault(self.repo_id, self)

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in `folder`, sorted; see `root` for that of the root."""
        return sorted(self._names.get(folder, ()))

    def existing(self, folder: str, *names: str) -> list[str]:
        """Paths of those of `names` that `folder` has, in their order."""
        return [path for name in names if (path := join(folder, name)) in self.paths]

    def size_of(self, path: str) -> int:
        """Bytes of a file of the listing."""
        return self._sizes[path]

    def leave_out(self, paths: Iterable[object]) -> None:
        """Treat `paths` as if the repository did not have them."""
        for path in self.paths.intersection(path for path in paths if isinstance(path, str)):
            folder, name = folder_and_name(path)
            self._names[folder].discard(name)
            self.paths -= {path}

    def read(self, path: str) -> object:
        """The JSON value in a file of the listing; None, and a note of it, if not known yet.

        Raises:
            MalformedFileError: the file is no JSON, or too large to be a configuration.
        """
        text = self.read_text(path)
        if text is None:
            return None
        try:
            value: object = json_value(text)
        except RecursionError:
            raise malformed(path, "is nested too deeply") from None
        except ValueError:
            raise malformed(path, "is not valid JSON") from None
        if value is None:
            raise malformed(path, "holds null")
        return value

    def read_text(self, path: str) -> str | None:
        """The text of a small file of the listing; None, and a note, as `read` does.

        Raises:
            MalformedFileError: the file is no text, or too large to be a configuration.
        """
        if self._sizes[path] > MAX_JSON_BYTES:
            raise malformed(path, f"is too large to be read as JSON ({self._sizes[path]:,} bytes)")
        if path not in self.family.known:
            self.family.missing.add(path)
            return None
        try:
            return self.family.known[path].decode("utf-8")
        except UnicodeDecodeError:
            raise malformed(path, "is not UTF-8 text") from None

    def read_object(self, path: str) -> dict[str, object] | None:
        """Like `read`, for a file that must hold a JSON object."""
        value = self.read(path)
        if value is not None and not isinstance(value, dict):
            raise malformed(path, "does not hold a JSON object")
        return value


# -- other repositories ----------------------------------------------------------------------------

CODE = "code"
"""The role of a repository that Python files come from."""

COMPONENT = "component"
"""The role of a repository that the caller names for a part of a pipeline."""

CONFIGURATION = "configuration"
"""The role of a repository that the configuration of a checkpoint is taken from."""
ADAPTER = "adapter"
"""The role of a repository that the caller names for what is put into a model."""

_NAMED_BY_CALLER = frozenset({COMPONENT, ADAPTER})

MAX_COMPANIONS = 4
"""More than any published repository names; the caller may name more."""

MAX_DEPTH = 2
"""The code of a base model is two references away."""

_MODULE = re.compile(r"(?:\w[\w-]*/){0,8}\w[\w-]*", re.ASCII)
_MAX_MODULE = 128


def companion(repo: Repo, reference: Reference, *, where: str) -> Repo | None:
    """Return a repository that `repo` refers to; None as long as it is not listed.

    A reference to the selection's own repository is one to its own files.

    Args:
        where: the file that names it.

    Raises:
        MalformedFileError: the name, or the revision, can be none.
        UnsupportedRepoError: there are too many, or one is named at two revisions.
    """
    # Only what lies on this machine, or its user, may name a folder of it.
    may_be_folder = repo.folder is not None or reference.role == COMPONENT
    if not (is_repo_id(reference.repo_id) or (may_be_folder and is_path(reference.repo_id))):
        raise malformed(where, f"names {quote(reference.repo_id)}, which is not a repository")
    if reference.revision is not None and not is_revision(reference.revision):
        raise malformed(where, f"names the revision {quote(reference.revision)}, which is not one")
    family = repo.family
    _check_bounds(repo, reference, where)
    family.references.setdefault((reference.repo_id, reference.role), reference)
    if (known := family.repos.get(reference.repo_id)) is not None:
        return known
    listing = family.listings.get(reference.repo_id)
    return None if listing is None else Repo(listing, family, depth=repo.depth + 1)


def _check_bounds(repo: Repo, reference: Reference, where: str) -> None:
    family = repo.family
    own = next(iter(family.repos))
    by_files = {
        one.repo_id for one in family.references.values() if one.role not in _NAMED_BY_CALLER
    } - {own}
    revisions = {
        one.revision for one in family.references.values() if one.repo_id == reference.repo_id
    }
    if revisions - {reference.revision}:
        raise UnsupportedRepoError(
            f"{quote(reference.repo_id)} is needed at two revisions: the file {quote(where)} "
            "names another one than before.",
            hint="Load it with the library itself.",
        )
    if reference.repo_id in {own, *by_files} or reference.role in _NAMED_BY_CALLER:
        return
    if len(by_files) >= MAX_COMPANIONS:
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} needs more than {MAX_COMPANIONS} other repositories.",
            hint="Load it with the library itself, if you trust it.",
        )
    if repo.depth >= MAX_DEPTH:
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} needs {quote(reference.repo_id)}, and was itself needed by "
            "another repository that was needed by a third.",
            hint="Load it with the library itself, if you trust it.",
        )


def split_reference(reference: str) -> tuple[str, str, str]:
    """Take apart the name of a class: repository (empty for its own), module, class.

    `org/code--sub/module.Class` is how the libraries write it.
    """
    place, _, name = reference.rpartition("--")
    module, _, class_name = name.rpartition(".")
    return place, module, class_name


def code_of(repo: Repo, repo_id: str, module: str, *, where: str) -> list[str]:
    """Return the Python files of a repository that hold a module and whatever it may import.

    That is all that stand in the folder of the module. The caller trusts the code.

    Args:
        repo: that refers to it.
        repo_id: the repository of the code; perhaps that of `repo`.
        module: its path in there, without `.py`.
        where: the file that names it.

    Raises:
        MalformedFileError: the repository or the module can be none, or is not there.
        UnsupportedRepoError: code of a second repository is needed; see `companion`, too.
    """
    if len(module) > _MAX_MODULE or not _MODULE.fullmatch(module):
        raise malformed(where, f"names the code {quote(module)}, which cannot be a module")
    named = {name for name, role in repo.family.references if role == CODE} | {repo_id}
    if len(named) > 1:
        # The libraries take one commit for all code that is named with its repository.
        raise UnsupportedRepoError(
            f"The code of {quote(repo.repo_id)} is in several repositories: "
            f"{', '.join(map(quote, sorted(named)))}.",
            hint="Load it with the library itself, if you trust all of them.",
        )
    known = [one for (name, _), one in repo.family.references.items() if name == repo_id]
    revision = known[0].revision if known else None
    other = companion(repo, Reference(repo_id=repo_id, role=CODE, revision=revision), where=where)
    if other is None:
        return []
    folder, name = folder_and_name(join(other.root, f"{module}.py"))
    if not other.existing(folder, name):
        raise malformed(
            where, f"names code that is not there: {quote(f'{module}.py')} of {quote(repo_id)}"
        )
    names = [name for name in other.names(folder) if name.endswith(".py")]
    return other.existing(folder, *names)
