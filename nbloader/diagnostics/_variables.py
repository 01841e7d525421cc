"""The environment variables that matter, and what the Hub's library makes of them in a load."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from nbloader.redaction import Redactor
from nbloader.sections import Row

__all__ = ["hub_rows", "redacted", "variable_rows"]

_SHOWN = re.compile(
    r"(HF|HUGGING_?FACE|NBLOADER|XDG_CACHE|CUDA_(VISIBLE|DEVICE_ORDER)|TRANSFORMERS_OFFLINE"
    r"|PYTORCH_\w*ALLOC|(HTTPS?|ALL|NO)_PROXY)\w*",
    re.IGNORECASE,
)
_HUB = re.compile(r"HF_|HUGGING_?FACE", re.IGNORECASE)
_SECRET = re.compile(r"TOKEN(?!_PATH)|SECRET|PASSWORD|KEY", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"@|\bhf_\w{4,}|bearer|basic ", re.IGNORECASE)
_SET = "(set)"
_HUB_ADDRESS = "https://huggingface.co"


def redacted(environ: Mapping[str, str], redact: Redactor) -> dict[str, str]:
    """Pick the variables that matter: secrets become `(set)`, addresses lose what they carry."""
    return {name: _value(name, environ[name], redact) for name in sorted(environ) if _shown(name)}


def _shown(name: str) -> bool:
    return _SHOWN.fullmatch(name) is not None


def _value(name: str, value: str, redact: Redactor) -> str:
    if "://" in value and " " not in value and "," not in value:
        try:
            parts = urlsplit(value)
        except ValueError:
            return _SET
        value = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    # What still looks like a secret, or could hold one, is not shown at all.
    if _SECRET.search(name) or _SECRET_VALUE.search(value):
        return _SET
    return redact(value)[:200]


def variable_rows(environ: Mapping[str, str], redact: Redactor) -> Iterable[Row]:
    """Give the variables that are none of the Hub's."""
    for name, value in redacted(environ, redact).items():
        if not _HUB.match(name):
            yield Row(name=name, text=value)


def hub_rows(
    environ: Mapping[str, str], worker: Mapping[str, str], cache_dir: str, redact: Redactor
) -> Iterable[Row]:
    """Give the settings of the Hub's library and of Xet as a download process has them.

    Args:
        environ: of this process.
        worker: of the download process that would be started.
        cache_dir: where the cache is, whatever says so.
    """
    unset = {"HF_ENDPOINT": _HUB_ADDRESS, "HF_HUB_CACHE": cache_dir}
    # The worker gets its token in another way, and no variable of that name.
    shown = redacted(unset, redact) | redacted(environ, redact) | redacted(worker, redact)
    for name in sorted(filter(_HUB.match, shown)):
        by, text = "environment", shown[name]
        if name in worker and environ.get(name) != worker[name]:
            by, text = "nbloader", f"{text} (set by nbloader)"
        elif name not in environ:
            by, text = "default", f"{text} (default)"
        yield Row(name=name, text=text, data={"value": shown[name], "set_by": by})
