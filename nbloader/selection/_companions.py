"""Other repositories that a selection needs files of: code, or the base model of an adapter.

How a selector asks for one: `companion(repo, Reference(repo_id=..., role=...))`. None says that it
is not listed yet: the selector goes on with what it knows, and is asked again. A `Repo` is selected
as the selection's own is, with `other.root` for the folder of the root (`config_files(other,
other.root)`); its paths begin with its id, so they go into components as they are. A selector
checks what it takes a name from itself; that a name can be a repository is checked here.

Python files are only ever asked for with trust_remote_code=True: `code_of` is for them.
"""

from __future__ import annotations

import re

from nbloader.errors import UnsupportedRepoError
from nbloader.hub_names import folder_and_name, is_repo_id, is_revision, join
from nbloader.quoting import quote
from nbloader.records import Reference
from nbloader.selection._repo import Repo, malformed

__all__ = ["CODE", "MAX_COMPANIONS", "code_of", "companion", "split_reference"]

CODE = "code"
"""The role of a repository that Python files come from."""

MAX_COMPANIONS = 4
"""More than any published repository names."""

MAX_DEPTH = 2
"""The code of a base model is two references away."""

_MODULE = re.compile(r"(?:\w[\w-]*/){0,8}\w[\w-]*", re.ASCII)
_MAX_MODULE = 128


def companion(repo: Repo, reference: Reference, *, where: str) -> Repo | None:
    """Give a repository that `repo` refers to; None as long as it is not listed.

    A reference to the selection's own repository is one to its own files.

    Args:
        where: the file that names it.

    Raises:
        MalformedFileError: the name, or the revision, can be none.
        UnsupportedRepoError: there are too many, or one is named at two revisions.
    """
    if not is_repo_id(reference.repo_id):
        raise malformed(where, f"names {quote(reference.repo_id)}, which is no repository")
    if reference.revision is not None and not is_revision(reference.revision):
        raise malformed(where, f"names the revision {quote(reference.revision)}, which is none")
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
    others = {one.repo_id for one in family.references.values()} - {own}
    revisions = {
        one.revision for one in family.references.values() if one.repo_id == reference.repo_id
    }
    if revisions - {reference.revision}:
        raise UnsupportedRepoError(
            f"{quote(reference.repo_id)} is needed at two revisions: the file {quote(where)} "
            "names another one than before.",
            hint="Load it with the library itself.",
        )
    if reference.repo_id in {own, *others}:
        return
    if len(others) >= MAX_COMPANIONS:
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
    """Give the Python files of a repository that hold a module and whatever it may import.

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
        raise malformed(where, f"names the code {quote(module)}, which can be no module")
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
