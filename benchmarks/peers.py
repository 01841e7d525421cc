"""Who is measured, and how each is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmarks import client
from benchmarks.repos import ModelRepo

__all__ = ["PEERS", "Peer", "Route", "command", "environment"]


class Route(StrEnum):
    """The way of the bytes that a peer is told to take, by nbloader's names for it."""

    AUTO = "auto"
    HTTP = "http"
    XET = "xet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A tool with the options that it is measured with.

    Attributes:
        name: the row of the table.
        tool: `nbloader`, `snapshot_download`, `hf_xet`, or a program: `aria2`, `curl`, `wget`.
        connections: connections a file, for aria2, which has to be told.
        files: files at the same time, for aria2.
        header_reads: it reads the header of each file with weights by a request of its own first.
        resumes: it can be told to go on where it was ended; otherwise it is timed only.
    """

    name: str
    tool: str
    route: Route = Route.HTTP
    connections: int = 1
    files: int = 1
    header_reads: bool = False
    resumes: bool = True

    @property
    def program(self) -> str | None:
        """The program that it is; None for a Python tool."""
        return {"aria2": "aria2c", "curl": "curl", "wget": "wget"}.get(self.tool)

    @property
    def speaks(self) -> bool:
        """Whether it waits for the word to begin, and says how it ended."""
        return self.program is None


PEERS = {
    peer.name: peer
    for peer in (
        Peer(name="nbloader auto", tool="nbloader", route=Route.AUTO, header_reads=True),
        Peer(name="nbloader http", tool="nbloader", header_reads=True),
        Peer(name="nbloader xet", tool="nbloader", route=Route.XET, header_reads=True),
        Peer(name="snapshot http", tool="snapshot_download"),
        Peer(name="snapshot xet", tool="snapshot_download", route=Route.XET),
        Peer(name="hf_xet", tool="hf_xet", route=Route.XET, resumes=False),
        Peer(name="curl", tool="curl", resumes=False),
        Peer(name="wget", tool="wget", resumes=False),
        Peer(name="aria2 -x8", tool="aria2", connections=8, files=5),
        Peer(name="one stream", tool="aria2"),
    )
}
"""By name, in the order of the table. `one stream` is a single connection, file after file."""


_AUTHORITY = ("SSL_CERT_FILE", "CURL_CA_BUNDLE")
"""Variables that name the certificates to trust; the second is for curl."""


def command(
    peer: Peer, repo: ModelRepo, endpoint: str, home: Path, *, authority: str | None = None
) -> list[str]:
    """Return the command line that downloads a repository once.

    Args:
        home: the folder that this download may write to; what aria2 reads is put there.
        authority: file of the certificate to trust, where the Hub speaks TLS.
    """
    if peer.speaks:
        return [sys.executable, "-P", client.__file__, peer.tool, peer.route, repo.repo_id]
    urls = [f"{endpoint}/{repo.repo_id}/resolve/main/{name}" for name in repo.files]
    if peer.tool == "curl":
        folder = home / "files"
        targets = [
            part
            for name, url in zip(repo.files, urls, strict=True)
            for part in ("--output", str(folder / name), url)
        ]
        return [
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--location",
            "--create-dirs",
            "--parallel",
            *targets,
        ]
    if peer.tool == "wget":
        trusted = [] if authority is None else [f"--ca-certificate={authority}"]
        return ["wget", "--quiet", *trusted, f"--directory-prefix={home / 'files'}", *urls]
    wanted = home / "wanted.txt"
    wanted.write_text(
        "".join(f"{url}\n out={name}\n" for name, url in zip(repo.files, urls, strict=True))
    )
    return [
        "aria2c",
        "--no-conf",
        *([] if authority is None else [f"--ca-certificate={authority}"]),
        "--quiet",
        f"--input-file={wanted}",
        f"--dir={home / 'files'}",
        f"--max-concurrent-downloads={peer.files}",
        f"--max-connection-per-server={peer.connections}",
        f"--split={peer.connections}",
        "--min-split-size=1M",
        "--file-allocation=none",
        # What it needs to go on after a kill and after errors, as well as it can.
        "--continue=true",
        "--auto-save-interval=1",
        "--max-tries=0",
        "--retry-wait=1",
    ]


def environment(
    peer: Peer,
    endpoint: str,
    home: Path,
    parent: Mapping[str, str],
    *,
    authority: str | None = None,
) -> dict[str, str]:
    """Return the environment: that of this process without its settings of the tools.

    Args:
        authority: file of the certificate to trust, where the Hub speaks TLS.
    """
    kept = {
        name: value
        for name, value in parent.items()
        if not name.startswith(("HF_", "HUGGING", "NBLOADER_"))
    }
    package = str(Path(client.__file__).parents[1])
    trusted = {} if authority is None else dict.fromkeys(_AUTHORITY, authority)
    return (
        kept
        | trusted
        | {
            # nbloader itself may not be installed, but lies beside this package.
            "PYTHONPATH": os.pathsep.join(filter(None, [package, kept.get("PYTHONPATH", "")])),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            # nbloader is told by its own setting.
            "HF_HUB_DISABLE_XET": "0"
            if peer.tool == "nbloader" or peer.route is Route.XET
            else "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
    )
