"""Variables of the Hub's libraries, checked where those would end a process without naming them."""

from __future__ import annotations

from collections.abc import Mapping

from nbloader.errors import InvalidSettingError
from nbloader.paths import FOLDER_VARIABLES
from nbloader.request.values import is_text
from nbloader.text import quote

_SECONDS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")
"""What the Hub's library makes a whole number of when it is imported."""


def check_variables(environ: Mapping[str, str]) -> None:
    """See that the variables which every call depends on can be read.

    Raises:
        InvalidSettingError: names the first that cannot.
    """
    for name in FOLDER_VARIABLES:
        if not is_text(environ.get(name, "")):
            raise InvalidSettingError(
                f"environment variable {name} names a folder whose name is not text in UTF-8",
                hint=f"Name another one, before anything is imported: %env {name}=/tmp/huggingface",
            )
    for name in _SECONDS:
        value = environ.get(name)
        if value is None:
            continue
        try:
            int(value)
        except ValueError:
            raise InvalidSettingError(
                f"environment variable {name} is {quote(value)}, and not a whole number of seconds",
                hint=f"Set it without a unit, or unset it, and restart the kernel: %env {name}=30",
            ) from None
