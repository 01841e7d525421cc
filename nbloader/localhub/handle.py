"""The handle: starts the server as a process, and speaks to its control routes.

Uploads run the real client in a process of its own (`xet.__main__`): it reads its settings once a
process, keeps the memory that it has taken, and has a folder of known shards, which would belong to
one server only.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self
from urllib.parse import quote, urlsplit

from nbloader.localhub.records import KEY_HEADER, Access, Counters, Fault, LoggedRequest, Token

_CONTROL_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0
_STDERR_TAIL = 4000

_XET_SETTINGS = {
    "HF_XET_TELEMETRY_ENABLED": "false",
    # The default of 8 takes more than 1 GB of memory, and is no faster on two cores.
    "HF_XET_DATA_MAX_CONCURRENT_FILE_INGESTION": "2",
}


class LocalHubError(RuntimeError):
    """The server did not start, or refused what the handle asked for."""


class LocalHub:
    """A running server. Make one by `LocalHub.start`, end it by `stop` or by leaving `with`.

    The server also ends with this process, however that ends.

    Attributes:
        endpoint: URL of the Hub, for `HF_ENDPOINT` or `endpoint=`.
        cdn: URL of the CDN.
        cas: URL of Xet storage.
        authority: over TLS, the file that clients need as `SSL_CERT_FILE`; None otherwise.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], stderr: IO[bytes], addresses: dict[str, Any]
    ) -> None:
        self._process = process
        self._stderr = stderr
        self._control = urlsplit(addresses["control"]).netloc
        self._key = addresses["key"]
        self.endpoint: str = addresses["endpoint"]
        self.cdn: str = addresses["cdn"]
        self.cas: str = addresses["cas"]
        self.authority: str | None = addresses["authority"]

    @classmethod
    def start(
        cls,
        root: str | os.PathLike[str],
        *,
        demo: bool = False,
        page_size: int = 1000,
        signature_seconds: int = 3600,
        resolve_cache: bool = True,
        xet_token_seconds: int = 3600,
        xet_v2: bool = True,
        tls: bool = False,
        max_seconds: float = 3600.0,
        start_timeout_s: float = 300.0,
    ) -> Self:
        """Start a server for the repositories under `root`, and wait until it listens.

        Args:
            root: folder with `models/<org>/<name>/`; made if it is missing.
            demo: publish the demo repositories there first, unless they are there already.
            page_size: entries of a page of the tree.
            signature_seconds: how long the URLs of CDN and xorbs are valid.
            resolve_cache: redirect small files to `/api/resolve-cache` first, as the Hub does.
            xet_token_seconds: how long the tokens of Xet storage are valid.
            xet_v2: answer reconstructions of version 2; without, clients fall back to version 1.
            tls: serve over TLS; `openssl` has to be there.
            max_seconds: the server ends after this time whatever happens.
            start_timeout_s: how long to wait for it; publishing the demo takes most of that.

        Raises:
            LocalHubError: the process ended, or is not ready in time; with the end of its stderr.
        """
        Path(root).mkdir(parents=True, exist_ok=True)
        command = [
            *_module_command("nbloader.localhub"),
            *("--root", os.fspath(root)),
            *("--page-size", str(page_size)),
            *("--signature-seconds", str(signature_seconds)),
            *("--max-seconds", str(max_seconds)),
            *("--xet-token-seconds", str(xet_token_seconds)),
            "--resolve-cache" if resolve_cache else "--no-resolve-cache",
            "--xet-v2" if xet_v2 else "--no-xet-v2",
            "--until-stdin-closes",
            *(["--demo"] if demo else []),
            *(["--tls"] if tls else []),
        ]
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=_child_environment(os.environ),
            # The interrupt of a notebook's kernel goes to its process group; this is not for us.
            start_new_session=True,
        )
        try:
            addresses = _read_addresses(process, stderr, start_timeout_s)
            return cls(process, stderr, addresses)
        except BaseException:
            _end(process, stderr)
            raise

    @property
    def pid(self) -> int:
        """The id of the server's process."""
        return self._process.pid

    def stop(self) -> None:
        """End the server; harmless if it has ended."""
        _end(self._process, self._stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def set_faults(self, faults: Iterable[Fault]) -> None:
        """Put these faults in the place of all that were set; each starts to count anew."""
        self._call("PUT", "/faults", [fault.to_json() for fault in faults])

    def clear_faults(self) -> None:
        """Remove all faults. Answers that stall already go on stalling."""
        self.set_faults([])

    def counters(self) -> Counters:
        """Return what was served since the start or the last reset."""
        return Counters.from_json(self._call("GET", "/counters"))

    def requests(self) -> list[LoggedRequest]:
        """Return the latest 10,000 requests to Hub and CDN, in the order of their arrival."""
        return [LoggedRequest.from_json(item) for item in self._call("GET", "/requests")]

    def reset_counters(self) -> None:
        """Set the counters to zero and empty the log."""
        self._call("DELETE", "/traffic")

    def set_access(
        self,
        repo_id: str,
        *,
        private: bool = False,
        gated: Literal[False, "auto", "manual"] = False,
    ) -> None:
        """Say who may read a repository; goes before its access file while the server runs."""
        access = Access(private=private, gated=gated)
        self._call("PUT", f"/access/{quote(repo_id)}", access.to_json())

    def add_token(
        self,
        token: str,
        *,
        name: str = "user",
        repos: Iterable[str] = (),
        stale: bool = False,
        fine_grained: bool = False,
        reads_gated: bool = False,
    ) -> None:
        """Make a token known; see `Token` for the arguments."""
        record = Token(
            name=name,
            repos=frozenset(repos),
            stale=stale,
            fine_grained=fine_grained,
            reads_gated=reads_gated,
        )
        self._call("PUT", "/tokens", {"value": token, "token": record.to_json()})

    def set_rate_limits(self, quotas: Mapping[str, int], *, window_s: int = 300) -> None:
        """Limit the requests of a window, and tell of it in the answers; counts from zero.

        Args:
            quotas: by kind, `api` or `resolvers`; other kinds are not limited. None at all is how
                the server starts.
            window_s: length of a window, seconds.
        """
        self._call("PUT", "/rate-limits", {"quotas": dict(quotas), "window_s": window_s})

    def set_ref(
        self,
        repo_id: str,
        name: str,
        *,
        commit_hash: str | None = None,
        kind: Literal["branch", "tag", "pull-request"] = "branch",
    ) -> str:
        """Name a commit (default: that of `main` now); return its hash."""
        ref = {"name": name, "sha": commit_hash, "kind": kind}
        answer = self._call("PUT", f"/refs/{quote(repo_id)}", ref)
        return str(answer["sha"])

    def add_old_name(self, repo_id: str, old: str) -> None:
        """Let requests by an old name of a repository be redirected to its own.

        Args:
            old: `org/name`, or `name` alone, as the oldest repositories are called.
        """
        self._call("PUT", f"/renamed/{quote(repo_id)}", old)

    def upload_to_xet(
        self, repo_id: str, paths: Iterable[str] | None = None, *, timeout_s: float = 600.0
    ) -> None:
        """Upload the large files of a repository to Xet storage, with the real client (hf_xet).

        From then on the Hub offers these contents over Xet, in all repositories and revisions that
        have them, also after a restart. Other files are served over HTTP only. The requests of the
        upload are counted, as `RequestClass.XET_OTHER`.

        Args:
            repo_id: the repository; the files of `main` as they are now are uploaded.
            paths: which of its large files; None for all.
            timeout_s: how long the upload may take; a gigabyte takes about three seconds.

        Raises:
            LocalHubError: a path is no large file of the repository, or the client failed.
        """
        plan = self._call("POST", f"/xet-uploads/{quote(repo_id)}")
        if paths is not None:
            wanted = set(paths)
            plan["files"] = [file for file in plan["files"] if file["path"] in wanted]
            if missing := wanted - {file["path"] for file in plan["files"]}:
                raise LocalHubError(f"no large files of {repo_id}: {', '.join(sorted(missing))}")
        try:
            _upload(plan, self.authority, timeout_s)
        except subprocess.CalledProcessError as error:
            tail = error.stderr.decode(errors="replace")[-_STDERR_TAIL:]
            raise LocalHubError(f"the upload to Xet storage failed:\n{tail}") from error
        except subprocess.TimeoutExpired as error:
            raise LocalHubError(f"the upload took longer than {timeout_s:.0f} s") from error

    def list_also(self, repo_id: str, paths: Sequence[str]) -> None:
        """Let the listings of a repository name paths for which there is no file.

        For what a hostile Hub might say, such as `../outside`, which no folder can hold.
        """
        self._call("PUT", f"/listed/{quote(repo_id)}", list(paths))

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(self._control, timeout=_CONTROL_TIMEOUT_S)
        try:
            connection.request(
                method,
                path,
                body=None if body is None else json.dumps(body),
                headers={KEY_HEADER: self._key, "Content-Type": "application/json"},
            )
            response = connection.getresponse()
            content = response.read()
        except OSError as error:
            raise LocalHubError(f"the local Hub does not answer: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise LocalHubError(f"the local Hub refused: {content.decode(errors='replace')}")
        return json.loads(content) if content else None


def _read_addresses(
    process: subprocess.Popen[bytes], stderr: IO[bytes], timeout_s: float
) -> dict[str, Any]:
    assert process.stdout is not None
    deadline = time.monotonic() + timeout_s
    line = b""
    # Read from the descriptor: select knows nothing of what a buffer holds.
    descriptor = process.stdout.fileno()
    while not line.endswith(b"\n"):
        left = max(0.0, deadline - time.monotonic())
        if not select.select([descriptor], [], [], left)[0]:
            raise LocalHubError(f"not ready after {timeout_s:.0f} s{_tail(stderr)}")
        chunk = os.read(descriptor, 4096)
        if not chunk:
            status = process.wait(_STOP_TIMEOUT_S)
            raise LocalHubError(f"the local Hub ended with status {status}{_tail(stderr)}")
        line += chunk
    addresses: dict[str, Any] = json.loads(line)
    return addresses


def _tail(stderr: IO[bytes]) -> str:
    """Return the last of what the process wrote to its stderr, on lines of its own."""
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _STDERR_TAIL))
    text = stderr.read().decode(errors="replace").strip()
    return f":\n{text}" if text else ""


def _end(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    stderr.close()


def _module_command(module: str) -> list[str]:
    """Return the command that runs a module; modules in the working folder cannot shadow others."""
    return [sys.executable, "-P", "-m", module]


def _child_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which this package is found, which `-P` may prevent otherwise."""
    paths = [str(Path(__file__).parents[2]), inherited.get("PYTHONPATH", "")]
    return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _upload(plan: Mapping[str, Any], authority: str | None, timeout_s: float) -> None:
    """Upload the files of a plan: what the control route for uploads answers.

    Raises:
        subprocess.CalledProcessError: the client failed; `stderr` has its words.
        subprocess.TimeoutExpired: it took longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="localhub-xet-") as home:
        inherited = {name: os.environ[name] for name in os.environ if not name.startswith("HF_")}
        if authority is not None:
            inherited["SSL_CERT_FILE"] = authority
        subprocess.run(
            _module_command("nbloader.localhub.xet"),
            input=json.dumps(plan).encode(),
            capture_output=True,
            env=_child_environment(inherited | _XET_SETTINGS | {"HF_HOME": home}),
            timeout=timeout_s,
            check=True,
        )
