"""A Hub on loopback, for the tutorials, the tests and offline work.

`LocalHub` starts the server (`python -m nbloader.localhub`) as a process of its own and speaks to
its control routes. Unmodified clients of the Hub use it once `HF_ENDPOINT` names its endpoint:

    with LocalHub.start(root) as hub:
        hub.set_faults([Fault(RequestClass.CDN_GET, cut=Cut.RESET, after_bytes=9_000_000, times=2)])
        snapshot_download("org/name", endpoint=hub.endpoint)
        print(hub.counters().of(RequestClass.CDN_GET).body_bytes)

Repositories are plain folders, `<root>/models/<org>/<name>/`; `store` has the rules for their
files. Files are served over plain HTTP, large ones by redirect to a CDN of another name and port,
and over Xet as well once `hub.upload_to_xet` has brought them there, from a third port (see `xet`).
With `tls=True` all of that is over TLS, for clients that have `SSL_CERT_FILE=hub.authority`.

This module and what it imports need the standard library only; the server needs aiohttp.
"""

from nbloader.localhub.handle import LocalHub, LocalHubError
from nbloader.localhub.records import (
    Access,
    Counters,
    Cut,
    Fault,
    LoggedRequest,
    RequestClass,
    Token,
    Traffic,
)

__all__ = [
    "Access",
    "Counters",
    "Cut",
    "Fault",
    "LocalHub",
    "LocalHubError",
    "LoggedRequest",
    "RequestClass",
    "Token",
    "Traffic",
]
