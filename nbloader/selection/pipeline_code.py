"""Where the code of a pipeline of diffusers is that is not the library's.

It is a file of the repository, or of a place that `custom_pipeline` names: a path of this machine,
another repository, or a pipeline of the community by its name. Those stand in a data set on the
Hub, in a folder for each version of the library (`get_cached_module_file` of diffusers 0.42). The
library asks the package index which versions there are; here the folders say it. It takes them
without asking for trust; here they are code like any other.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from nbloader.errors import UnsupportedRepoError
from nbloader.hub_names import folder_and_name, is_repo_id, join
from nbloader.records import Reference, RepoType
from nbloader.selection.repo import CODE, Repo, companion, is_name, malformed
from nbloader.text import quote

COMMUNITY = "diffusers/community-pipelines-mirror"
"""`COMMUNITY_PIPELINES_MIRROR_ID` of diffusers."""

_NEWEST = "main"
"""The folder of what is not in a version yet."""

_CUSTOM_CODE = "pipeline.py"  # `CUSTOM_PIPELINE_FILE_NAME` of diffusers

# `get_relative_imports` of diffusers.
_RELATIVE_IMPORT = re.compile(r"^\s*(?:import\s+\.(\S+)\s*$|from\s+\.(\S+)\s+import)", re.MULTILINE)


def check_custom_pipeline(repo: Repo) -> None:
    """Refuse code that can be none, or is not trusted.

    Raises:
        UnsupportedRepoError: says which.
    """
    custom = repo.custom_pipeline
    if custom is None or f"{custom}.py" in repo.paths:
        return
    if _is_of_this_machine(custom) or _is_repository(custom):
        what = "is code that would run"
    elif is_name(custom):
        what = "names a pipeline of the community, whose code would run"
    else:
        raise UnsupportedRepoError(
            f"custom_pipeline={quote(custom)} is neither a file of {quote(repo.repo_id)} nor the "
            "name of a pipeline of the community.",
            hint="Pass a name as diffusers lists it, the id of a repository, or a path.",
        )
    if not repo.trust_remote_code:
        where = f" in https://huggingface.co/datasets/{COMMUNITY}" if is_name(custom) else ""
        raise UnsupportedRepoError(
            f"custom_pipeline={quote(custom)} {what}.",
            hint=f"Read it{where}; if you trust it, pass trust_remote_code=True.",
        )


def _is_of_this_machine(custom: str) -> bool:
    """Say whether `custom_pipeline` is a path; a call gives paths in full."""
    return custom.endswith(".py") or "\\" in custom or ("/" in custom and not is_repo_id(custom))


def _is_repository(custom: str) -> bool:
    return "/" in custom and is_repo_id(custom)


def code_elsewhere(repo: Repo, custom: str) -> list[str]:
    """The code of a pipeline that is not in its repository; none for a path of this machine.

    Of a repository it is all Python files in its root.

    Raises:
        UnsupportedRepoError: there is none.
    """
    if _is_of_this_machine(custom):
        return []
    if not _is_repository(custom):
        return _of_the_community(repo, custom)
    reference = Reference(repo_id=custom, role=CODE, revision=repo.family.request.custom_revision)
    other = companion(repo, reference, where="custom_pipeline")
    if other is None:
        return []
    if not other.existing(other.root, _CUSTOM_CODE):
        raise UnsupportedRepoError(
            f"custom_pipeline={quote(custom)} names a repository without a {_CUSTOM_CODE}.",
            hint="Check its name and its revision (custom_revision).",
        )
    names = [name for name in other.names(other.root) if name.endswith(".py")]
    return other.existing(other.root, *names)


def _of_the_community(repo: Repo, name: str) -> list[str]:
    reference = Reference(repo_id=COMMUNITY, role=CODE, repo_type=RepoType.DATASET)
    other = companion(repo, reference, where="custom_pipeline")
    if other is None:
        return []
    folder = _folder_of_version(repo, other)
    found = other.existing(join(other.root, folder), f"{name}.py")
    if found:
        return code_at(other, found[0])
    known = [file.removesuffix(".py") for file in other.names(join(other.root, folder))]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    raise UnsupportedRepoError(
        f"custom_pipeline={quote(name)}: the community of diffusers has no pipeline of that name "
        f"in {quote(folder)}, and {quote(repo.repo_id)} has no {quote(f'{name}.py')}.",
        hint=f"Is one of these meant? {', '.join(map(quote, near))}"
        if near
        else f"They are in https://huggingface.co/datasets/{COMMUNITY}.",
    )


def _folder_of_version(repo: Repo, mirror: Repo) -> str:
    """The folder of the version that is asked for, else of the installed one, else the newest."""
    request = repo.family.request
    asked, installed = request.custom_revision, request.library_version
    if asked is None:
        folder = f"v{'.'.join(installed.split('.')[:3])}" if installed else _NEWEST
        return folder if folder in mirror.top_folders else _NEWEST
    folder = asked if asked == _NEWEST else f"v{asked.removeprefix('v')}"
    if folder not in mirror.top_folders:
        raise UnsupportedRepoError(
            f"custom_revision={quote(asked)}: the community of diffusers has no pipelines for that "
            "version.",
            hint=f"Leave it out for the installed version, or pass {_latest(mirror.top_folders)}.",
        )
    return folder


def _latest(folders: Iterable[str]) -> str:
    """Name what a version can be, newest first."""
    numbers = [
        tuple(map(int, folder[1:].split(".")))
        for folder in folders
        if re.fullmatch(r"v\d{1,4}\.\d{1,4}\.\d{1,4}", folder)
    ]
    versions = [".".join(map(str, each)) for each in sorted(numbers, reverse=True)[:3]]
    return " or ".join(map(quote, [*versions, _NEWEST]))


def code_at(repo: Repo, path: str) -> list[str]:
    """The Python file at `path`, and those that it imports by relative names.

    Raises:
        UnsupportedRepoError: the repository's code is not trusted.
    """
    if not repo.trust_remote_code:
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} brings code of its own: {quote(path)}.",
            hint="Read that file on the Hub; if you trust it, pass trust_remote_code=True.",
        )
    text = repo.read_text(path) or ""
    folder, _ = folder_and_name(path)
    files = [path]
    for match in _RELATIVE_IMPORT.finditer(text):
        module = match[1] or match[2]
        found = repo.existing(folder, f"{module.replace('.', '/')}.py")
        if module.startswith(".") or not found:
            raise malformed(path, f"imports {quote(f'.{module}')}, which is not there")
        files += found
    return list(dict.fromkeys(files))
