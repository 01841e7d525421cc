"""The id of a repository, as people bring it along: pasted, abbreviated, or out of date."""

from __future__ import annotations

import re
from dataclasses import dataclass
from glob import escape
from urllib.parse import SplitResult, unquote, urlsplit

from nbloader.errors import InvalidRepoIdError
from nbloader.hub_names import HUB, is_repo_id
from nbloader.records import Kind, RepoType
from nbloader.request.folders import WEIGHTS
from nbloader.request.values import check_repo_id, check_revision
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
_MAX_PATH = 1024
_ALONE = 'Pass the id alone, such as "Qwen/Qwen-Image-Edit-2509".'

# A file that `from_pretrained` of its repository opens.
_OF_A_MODEL = re.compile(r"((diffusion_)?pytorch_model|model|adapter_model)\b.*")


@dataclass(frozen=True, slots=True)
class RepoAddress:
    """What was meant by the text in the place of a repository's id.

    Attributes:
        revision: where the text names one; else None.
        filename: the file with a model of its own that the text leads to; empty if it leads to a
            whole repository.
        page: the file that the page is of, or with a slash at its end the folder; empty if it is
            the page of a repository, and where no files are fetched by their names.
    """

    repo_id: str
    revision: str | None = None
    filename: str = ""
    page: str = ""


def read_repo_id(
    given: object,
    *,
    endpoint: str | None,
    kind: Kind | None,
    repo_type: RepoType = RepoType.MODEL,
    fetched: bool = False,
) -> RepoAddress:
    """Read an id, or what people paste in its place; behind it a file, where one is meant.

    That is the address of a page of the Hub, of the endpoint that is asked or of huggingface.co
    (which the endpoint stands for), with the revision in it; `hf://org/name@revision`; and either
    of them in blanks or quotes. A bare name is completed as sentence-transformers does it, unless
    it is one of the old ids without an organization, or the model is for another library.

    Args:
        endpoint: the address of the Hub that will be asked; None for huggingface.co.
        kind: the library that was asked for; None lets the files decide.
        repo_type: what it is to the Hub; a dataset or a space is never completed.
        fetched: whether files are fetched, of which the page of one names that.

    Raises:
        InvalidRepoIdError: it is no id, or leads to something that is no model of that Hub.
    """
    if not isinstance(given, str):
        return RepoAddress(check_repo_id(given))
    text = _unwrapped(given)
    if repo_type is not RepoType.MODEL:
        text = _without_type(text, repo_type)
    address = _address(text)
    if address is not None:
        return _of_address(address, endpoint or HUB, fetched=fetched)
    for scheme in _SCHEMES:
        if text.startswith(scheme):
            path = text.removeprefix(scheme)
            _refuse_other_types(given, path.split("/"))
            text = path.removeprefix("models/").removesuffix(".git")
    page = _path_of_a_page(text)
    if page is not None:
        return _of_address(urlsplit(f"{HUB}/{page}"), endpoint or HUB, fetched=fetched)
    inside = _INSIDE.fullmatch(text)
    if inside is not None and repo_type is RepoType.MODEL and WEIGHTS.fullmatch(inside["path"]):
        revision = inside["revision"]
        return RepoAddress(
            check_repo_id(inside["repo_id"]),
            _revision(given, revision) if revision else None,
            _inner(given, inside["path"]),
        )
    if inside is not None and is_repo_id(inside["repo_id"]):
        raise _with_more(given, inside, repo_type, fetched=fetched)
    repo_id, at, revision = text.partition("@")
    repo_id = check_repo_id(repo_id if at and revision else text)
    if repo_type is RepoType.MODEL:
        repo_id = _completed(repo_id, kind)
    return RepoAddress(repo_id, _revision(given, revision) if revision else None)


def _without_type(text: str, repo_type: RepoType) -> str:
    """Take the kind of a repository out of its address: `datasets/org/name` is `org/name` then."""
    return re.sub(
        rf"^((?:(?:[a-z]+:)?//)?[^/]*[.:][^/]*/|hf://|)(?:api/)?{repo_type}s/(?=.)", r"\1", text
    )


_INSIDE = re.compile(r"(?P<repo_id>[^/@\s]+/[^/@\s]+)(?:@(?P<revision>[^/]+))?/(?P<path>[^?#]+)")


def _inner(given: object, path: str) -> str:
    """Return the path of a file in a repository, once it is seen to be one."""
    if (
        len(path) > _MAX_PATH
        or not {"", ".", ".."}.isdisjoint(path.split("/"))
        or not path.isprintable()
        or not {"\\", ":"}.isdisjoint(path)
    ):
        raise InvalidRepoIdError(
            f"{quote(given)} names a file that can be in no repository",
            hint='A file is named from the root of its repository: "org/name/file.safetensors".',
        )
    return path


def _with_more(
    given: object, inside: re.Match[str], repo_type: RepoType, *, fetched: bool
) -> InvalidRepoIdError:
    """The error for a path behind an id, with the line in which it is an argument of its own."""
    repo_id, path = inside["repo_id"], inside["path"].rstrip("/")
    if repo_type is RepoType.MODEL:
        _refuse_other_types(str(given), [*repo_id.split("/"), *path.split("/")])
    arguments = [quote(repo_id)]
    if "." in path.rpartition("/")[2]:
        arguments.append(quote(path))
    elif fetched:
        arguments.append(f"allow_patterns={quote(f'{escape(path)}/')}")
    else:
        arguments.append(f"subfolder={quote(path)}")
    if inside["revision"]:
        arguments.append(f"revision={quote(inside['revision'])}")
    if repo_type is not RepoType.MODEL:
        arguments.append(f"repo_type={quote(repo_type.value)}")
    loads = "subfolder" in arguments[1]
    return InvalidRepoIdError(
        f"{quote(given)} is not a repository id",
        hint=f"What stands behind an id is an argument of its own: nbloader."
        f"{'load' if loads else 'download'}({', '.join(arguments)}).",
    )


def _unwrapped(text: str) -> str:
    text = text.strip()
    while len(text) > 1 and _WRAPPERS.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def _path_of_a_page(text: str) -> str | None:
    """Return the path of a page of the Hub that lacks the address; None for a text that is none."""
    path = text.rstrip("/").removeprefix("models/")
    segments = path.split("/")
    is_page = len(segments) > 3 and segments[2] in _AT_REVISION
    return path if (path != text and len(segments) == 2) or is_page else None


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


def _of_address(address: SplitResult, endpoint: str, *, fetched: bool) -> RepoAddress:
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
        or (bare and public and repo_id not in _WITHOUT_ORGANIZATION)
    ):
        raise InvalidRepoIdError(f"{quote(shown)} is not the page of a model", hint=_ALONE)
    rest = segments[1 if bare else 2 :]
    if len(rest) < 2 or rest[0] in _PAGES:
        return RepoAddress(repo_id)
    action, revision, *inside = rest
    if action not in _AT_REVISION:
        raise InvalidRepoIdError(
            f"{quote(shown)} is not the page of a model", hint=f'Pass the id alone: "{repo_id}".'
        )
    if revision == "refs" and len(inside) >= 2:
        # The Hub's own references, such as those of pull requests: refs/pr/1.
        revision, inside = "/".join([revision, *inside[:2]]), inside[2:]
    path = "/".join(inside)
    if path and action not in _OF_ONE_FILE and not (fetched and action == "tree"):
        raise _folder(shown, repo_id, path)
    alone = (
        action in _OF_ONE_FILE and WEIGHTS.fullmatch(path) and not _OF_A_MODEL.fullmatch(inside[-1])
    )
    page = _inner(shown, path) if path and (fetched or alone) else ""
    return RepoAddress(
        repo_id,
        _revision(shown, revision),
        filename=page if alone else "",
        page=f"{page}/" if page and action == "tree" else page if fetched else "",
    )


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


def _refuse_other_types(given: str, segments: list[str]) -> None:
    what = _OTHER_TYPES.get(segments[0]) if len(segments) > 1 else None
    if what is not None:
        raise InvalidRepoIdError(
            f"{quote(given)} is a {what}, and only models can be loaded",
            hint="Pass the id of a model; the page of a Space lists those that it uses. For the "
            f'files: nbloader.download({"/".join(segments[1:3])!r}, repo_type="{what.lower()}").',
        )


def _folder(given: str, repo_id: str, path: str) -> InvalidRepoIdError:
    """The error for an address that leads to a folder: the whole does not load from there."""
    return InvalidRepoIdError(
        f"{quote(given)} leads to the folder {quote(path)}, and a model is loaded from the "
        "root of its repository",
        hint=f'Pass the id alone for what is in the root: "{repo_id}"; for what is in the folder '
        f"that and subfolder={quote(path)}.",
    )


def _revision(given: str, revision: str) -> str:
    try:
        return check_revision(revision)
    except ValueError:
        raise InvalidRepoIdError(
            f"{quote(given)} names {quote(revision)}, which is not a branch, tag or commit",
            hint="Pass the id alone, and the revision as revision=.",
        ) from None


# -- bare names ------------------------------------------------------------------------------------

# `ORIGINAL_TRANSFORMER_MODELS` of sentence_transformers/util/misc.py (6.2): the ids without an
# organization that the Hub still knows. A test compares it with the installed version.
_WITHOUT_ORGANIZATION = frozenset(
    """
    albert-base-v1 albert-base-v2 albert-large-v1 albert-large-v2 albert-xlarge-v1 albert-xlarge-v2
    albert-xxlarge-v1 albert-xxlarge-v2 bert-base-cased bert-base-cased-finetuned-mrpc
    bert-base-chinese bert-base-german-cased bert-base-german-dbmdz-cased
    bert-base-german-dbmdz-uncased bert-base-multilingual-cased bert-base-multilingual-uncased
    bert-base-uncased bert-large-cased bert-large-cased-whole-word-masking
    bert-large-cased-whole-word-masking-finetuned-squad bert-large-uncased
    bert-large-uncased-whole-word-masking bert-large-uncased-whole-word-masking-finetuned-squad
    camembert-base ctrl distilbert-base-cased distilbert-base-cased-distilled-squad
    distilbert-base-german-cased distilbert-base-multilingual-cased distilbert-base-uncased
    distilbert-base-uncased-distilled-squad distilbert-base-uncased-finetuned-sst-2-english
    distilgpt2 distilroberta-base gpt2 gpt2-large gpt2-medium gpt2-xl openai-gpt roberta-base
    roberta-base-openai-detector roberta-large roberta-large-mnli roberta-large-openai-detector
    t5-11b t5-3b t5-base t5-large t5-small transfo-xl-wt103 xlm-clm-ende-1024 xlm-clm-enfr-1024
    xlm-mlm-100-1280 xlm-mlm-17-1280 xlm-mlm-en-2048 xlm-mlm-ende-1024 xlm-mlm-enfr-1024
    xlm-mlm-enro-1024 xlm-mlm-tlm-xnli15-1024 xlm-mlm-xnli15-1024 xlm-roberta-base
    xlm-roberta-large xlm-roberta-large-finetuned-conll02-dutch
    xlm-roberta-large-finetuned-conll02-spanish xlm-roberta-large-finetuned-conll03-english
    xlm-roberta-large-finetuned-conll03-german xlnet-base-cased xlnet-large-cased
    """.split()  # noqa: SIM905 - a page of names reads better as words
)

# `default_huggingface_organization` of the classes of sentence-transformers. Only the names of its
# own cross-encoders can be told from those of its embedders.
_ORGANIZATION = "sentence-transformers"
_CROSS_ENCODERS = re.compile(r"(ms-marco|mmarco)-.+", re.IGNORECASE)


def _completed(repo_id: str, kind: Kind | None) -> str:
    """Complete a bare name as the library would that it is for.

    The other libraries complete none: they ask for it as it is, and only the old ids are found.
    """
    if "/" in repo_id or repo_id.lower() in _WITHOUT_ORGANIZATION:
        return repo_id
    if kind not in (None, Kind.SENTENCE_TRANSFORMERS):
        return repo_id
    organization = "cross-encoder" if _CROSS_ENCODERS.fullmatch(repo_id) else _ORGANIZATION
    return f"{organization}/{repo_id}"
