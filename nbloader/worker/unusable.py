"""Files and folders of this machine that cannot be used: which one, why, and what cures it.

The cache is one of them, and not the one at fault where the token's file may not be read, a
certificate is not there, or one folder in the cache belongs to somebody else.
"""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path

from huggingface_hub import constants

from nbloader.errors import (
    CacheNotWritableError,
    HubUnreachableError,
    InvalidTokenError,
    NbloaderError,
)
from nbloader.redaction import short_path

CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name certificates. Who opens them does not say what it could not open."""

_IN_THE_WAY = frozenset(
    {errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL, errno.ENXIO}
)


def unusable(error: OSError, local_dir: str | None = None) -> NbloaderError:
    """Make the error for what the system refuses.

    Args:
        local_dir: the folder of the user's own that files go to; None for the Hub's cache.
    """
    place = _place(error)
    why = error.strerror or type(error).__name__
    if place is None:
        return _no_certificates() or cache_not_writable(local_dir)
    if str(place) in (constants.HF_TOKEN_PATH, getattr(constants, "HF_STORED_TOKENS_PATH", None)):
        return InvalidTokenError(
            f"the token's file {short_path(place)} cannot be read: {why}",
            hint=f"{_cure(place)}, or pass `token=`; `token=False` goes without one.",
        )
    fault = place
    while not os.path.lexists(fault) and fault != fault.parent:
        fault = fault.parent
    root = Path(local_dir or constants.HF_HUB_CACHE)
    if root.is_relative_to(fault):
        return cache_not_writable(local_dir)
    argument = "local_dir" if local_dir else "cache_dir"
    other = f"pass a folder of your own as `{argument}=`."
    if error.errno in _IN_THE_WAY:
        return CacheNotWritableError(
            f"{short_path(fault)} is in the way: {why}", hint=f"Move it away, or {other}"
        )
    if error.errno == errno.EROFS:
        return CacheNotWritableError(
            f"{short_path(fault)} cannot be written: {why}",
            hint=f"{other[0].upper()}{other[1:]}",
        )
    what = "written" if os.access(fault, os.R_OK) else "read"
    if what == "read":
        fault = fault.resolve()  # A name in a snapshot may be read by all; what counts is the blob.
    return CacheNotWritableError(
        f"{short_path(fault)} cannot be {what}: {why}", hint=f"{_cure(fault)}, or {other}"
    )


def cache_not_writable(local_dir: str | None = None) -> CacheNotWritableError:
    """Make the error for the folder of this process that cannot be used: the cache, or another."""
    if local_dir is not None:
        return CacheNotWritableError(
            f"the folder {short_path(local_dir)} cannot be written",
            hint="Pass another one as `local_dir=`.",
        )
    return CacheNotWritableError(
        f"the cache folder {short_path(constants.HF_HUB_CACHE)} cannot be written",
        hint="Pass a folder of your own as `cache_dir=`, or set HF_HOME.",
    )


def _place(error: OSError) -> Path | None:
    """Return the file that an error names; None if it names none, or where is not known."""
    name = error.filename
    if not isinstance(name, str | bytes):
        return None
    place = Path(os.fsdecode(name))
    return place if place.is_absolute() else None


def _cure(place: Path) -> str:
    """Say how this user gets the right to a file or folder that is there."""
    named = shlex.quote(str(place))
    try:
        owner = place.stat().st_uid
    except OSError:
        return f"See who owns it (ls -ld {named})"
    if owner == os.geteuid():
        return f"Give yourself the right (chmod -R u+rwX {named})"
    return f'It belongs to {_name_of(owner)}. Take it over (sudo chown -R "$(id -un)" {named})'


def _name_of(owner: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(owner).pw_name
    except (ImportError, KeyError):
        return f"user {owner}"


def _no_certificates() -> NbloaderError | None:
    """Say which variable names certificates that are not there; None if none does."""
    for variable in CERTIFICATES:
        place = os.environ.get(variable)
        if place and not os.access(place, os.R_OK):
            return HubUnreachableError(
                f"{variable} names {short_path(place)}, which cannot be read",
                hint=f"Mend the path, or remove the variable: unset {variable}",
            )
    return None
