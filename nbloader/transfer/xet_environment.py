"""The settings of hf_xet, which it reads from the environment when its first session is made."""

from __future__ import annotations

from collections.abc import Mapping

from nbloader.limits import CONNECT_TIMEOUT_S

__all__ = ["xet_environment"]


def xet_environment(stall_timeout_s: float) -> Mapping[str, str]:
    """Give the variables that hf_xet reads when its first session is made.

    Its own waits would hide a failure for minutes; attempts are ours to make and to show. Its
    buffers take up to 1 GB unless they are bounded (measured on a file of 1 GB: 298 MB with these,
    at the same speed).
    """
    seconds = max(1, round(stall_timeout_s))
    return {
        # The unit is needed: a bare number is ignored.
        "HF_XET_CLIENT_READ_TIMEOUT": f"{seconds}s",
        "HF_XET_CLIENT_CONNECT_TIMEOUT": f"{min(CONNECT_TIMEOUT_S, seconds):g}s",
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "0",
        "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_SIZE": "64mb",
        "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_LIMIT": "64mb",
    }
