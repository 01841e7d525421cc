"""The values of arguments, one by one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar
from urllib.parse import urlsplit

from nbloader.errors import InvalidArgumentError, InvalidRepoIdError
from nbloader.hub_names import is_repo_id, is_revision
from nbloader.libraries import attention_named, is_hub_kernel, near_attentions
from nbloader.paths import from_root
from nbloader.records import Method
from nbloader.text import quote

_E = TypeVar("_E", bound=StrEnum)

_TASK = re.compile(r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)
_SAMPLE = 'Ids look like "Qwen/Qwen-Image-Edit-2509".'


def check_repo_id(repo_id: object) -> str:
    """Return the id if it can be one. Raises InvalidRepoIdError."""
    if is_repo_id(repo_id):
        return repo_id
    hint = _SAMPLE
    if isinstance(repo_id, str):
        found = re.search(r"huggingface\.co/([\w.\-]+/[\w.\-]+)", repo_id, re.ASCII)
        if found:
            hint = f'Pass the id alone: "{found[1]}".'
        elif repo_id.startswith((".", "/", "~")) or "\\" in repo_id:
            hint = f"It is a path, and not an id. {_SAMPLE}"
    raise InvalidRepoIdError(f"{quote(repo_id)} is not a repository id", hint=hint)


def check_revision(revision: object) -> str:
    """Return the branch, tag or commit, `main` for None. Raises InvalidArgumentError."""
    if revision is None:
        return "main"
    if is_revision(revision):
        return revision
    raise InvalidArgumentError(
        f"revision={quote(revision)} is not the name of a branch, tag or commit",
        hint='Leave it out for "main", or pass a branch, a tag or a commit of 40 hex digits.',
    )


def check_variant(variant: object) -> str | None:
    """Return the variant of the weights, or None. Raises InvalidArgumentError."""
    if variant is None or (
        isinstance(variant, str) and re.fullmatch(r"[\w\-]{1,64}", variant, re.ASCII)
    ):
        return variant
    raise InvalidArgumentError(
        f"variant={quote(variant)} is not the name of a variant",
        hint='Variants look like "fp16" or "bf16"; leave it out for the plain weights.',
    )


def check_endpoint(endpoint: object, name: str = "endpoint") -> str | None:
    """Return the address of the Hub, or None for the default. Raises InvalidArgumentError.

    The address is not shown where it is refused: it may hold a password.
    """
    if endpoint is None:
        return None
    if isinstance(endpoint, str):
        try:
            parts = urlsplit(endpoint)
            _ = parts.port
        except ValueError:
            parts = urlsplit("")
        if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc:
            return endpoint.rstrip("/")
    raise InvalidArgumentError(
        f"{name} is not the address of a Hub",
        hint='It looks like "https://huggingface.co", without a name and a password.',
    )


def one_of(name: str, value: object, choices: type[_E]) -> _E:
    """Return the member of `choices` that `value` names. Raises InvalidArgumentError."""
    try:
        return choices(str(value))
    except ValueError:
        allowed = ", ".join(repr(str(choice)) for choice in choices)
        raise InvalidArgumentError(
            f"{name}={quote(value)} is not allowed", hint=f"Choose one of {allowed}."
        ) from None


def check_token(token: object) -> str | bool | None:
    """Return the token, True, False or None. Raises InvalidArgumentError, without it."""
    if token is None or isinstance(token, bool):
        return token
    if isinstance(token, str) and re.fullmatch(r"[!-~]{1,512}", token.strip()):
        return token.strip()
    raise InvalidArgumentError(
        f"token= is not a token ({type(token).__name__})",
        hint="Pass the text of a token of the Hub, None for the one that is stored, or False.",
    )


def check_task(task: object) -> str | None:
    """Return the name of a task, or None. Raises InvalidArgumentError.

    Which there are, the installed transformers knows; `translation_en_to_fr` and aliases, such as
    `ner`, are among them.
    """
    if task is None or (isinstance(task, str) and _TASK.fullmatch(task)):
        return task
    raise InvalidArgumentError(
        f"task={quote(task)} is not the name of a task",
        hint='Tasks are named as transformers.pipeline takes them, such as "text-generation".',
    )


def check_device(device: object) -> str:
    """Return the name of a device of torch, or `auto`. Raises InvalidArgumentError.

    A number is that of a GPU, and -1 the CPU, as `transformers.pipeline` takes them.
    """
    name = str(device)
    if isinstance(device, int) and not isinstance(device, bool):
        name = "cpu" if device == -1 else f"cuda:{device}"
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", name, re.ASCII):
        return name
    raise InvalidArgumentError(
        f"device={quote(device)} is not known",
        hint='Choose "cuda", "cuda:1", "mps", "cpu", or leave it out for the best there is.',
    )


_DTYPES = {
    "bf16": "bfloat16",
    "float": "float32",
    "fp16": "float16",
    "fp32": "float32",
    "half": "float16",
}


def check_dtype(dtype: object) -> str:
    """Return the name of a dtype of torch, or `auto`, for a dtype or one of its usual names.

    Raises:
        InvalidArgumentError: it is none that a model is loaded in.
    """
    name = str(dtype).lower().removeprefix("torch.")
    name = _DTYPES.get(name, name)
    if name in {"auto", *_DTYPES.values()}:
        return name
    raise InvalidArgumentError(
        f"dtype={quote(dtype)} is not known",
        hint='Choose "bfloat16" (or "bf16"), "float16" ("fp16", "half"), "float32" ("fp32", '
        '"float"), or leave it out.',
    )


def check_attention(attention: object) -> str | None:
    """Return the name of a way to compute attention, or None for the library's own choice.

    Raises:
        InvalidArgumentError: there is none of that name, or it is code that is fetched unchecked.
    """
    if attention == "auto":
        return None
    if isinstance(attention, str) and (way := attention_named(attention)):
        return way.name
    if isinstance(attention, str) and is_hub_kernel(attention):
        line = (
            f"pipe.model.set_attn_implementation({quote(attention)})"
            if "/" in attention
            else f"pipe.transformer.set_attention_backend({quote(attention)})"
        )
        raise InvalidArgumentError(
            f"attention={quote(attention)} is a kernel of the Hub: code that the library itself "
            "fetches in the middle of a load and runs, past all checks, whatever is trusted",
            hint="Leave it out; if you trust that code, let the library fetch it afterwards: "
            f"{line}.",
        )
    near = near_attentions(attention) if isinstance(attention, str) else near_attentions("")
    raise InvalidArgumentError(
        f"attention={quote(attention)} is not known",
        hint=f"Choose one of {', '.join(map(repr, near))}, or leave it out.",
    )


def check_method(plan: object) -> Method | None:
    """Return how a model is placed, or None for the fastest way. Raises InvalidArgumentError."""
    if plan == "auto":
        return None
    try:
        return Method(str(plan))
    except ValueError:
        allowed = ", ".join(repr(str(method)) for method in Method)
        raise InvalidArgumentError(
            f"plan={quote(plan)} is not allowed",
            hint=f"Leave it out for the fastest that fits, or choose one of {allowed}.",
        ) from None


def is_text(value: str) -> bool:
    """Say whether a name can be one of a file: it is text in UTF-8, and has no zero in it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _is_path(value: str) -> bool:
    """Say whether the system can be asked for a path; on Linux its bytes need not be UTF-8."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def check_folder(
    name: str, folder: object, allowed: Callable[[str], bool] = _is_path
) -> str | None:
    """Return the absolute path of a folder, or None.

    Args:
        allowed: says which paths can be one; by default all that the system can be asked for.

    Raises:
        InvalidArgumentError: it is none.
    """
    if folder is None:
        return None
    try:
        path = os.fspath(folder)  # type: ignore[call-overload]
    except TypeError:
        path = b""
    if not isinstance(path, str) or not path or not allowed(path):
        raise InvalidArgumentError(
            f"{name}={quote(folder)} is not a folder", hint=f'Pass a path, as {name}="models".'
        )
    # Not resolve(): the links of a path belong to the user.
    found = from_root(os.path.expanduser(path))  # noqa: PTH111
    if not os.path.isabs(found):  # noqa: PTH117
        raise InvalidArgumentError(
            f"{name}={quote(folder)} is relative, and the folder that this process runs in was "
            "removed",
            hint=f'Pass the whole path, as {name}="/data/models", or go to another folder: '
            'os.chdir("/tmp").',
        )
    return found


def check_flag(name: str, value: object) -> bool:
    """Return a bool. Raises InvalidArgumentError: the text "no" would count as true."""
    if isinstance(value, bool):
        return value
    raise InvalidArgumentError(
        f"{name} must be a bool, not {quote(value)}", hint="Pass True or False."
    )
