"""The servers of two front ends: JupyterLab, and the classic notebook with Colab's versions."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from tests.notebook_runs import ROOT

__all__ = ["FrontEnd", "Server", "serving"]

START_TIMEOUT_S = 120
END_TIMEOUT_S = 20
IDLE_LIMIT_S = 300
"""A server and a kernel end by themselves if nobody is left to end them."""

CLASSIC_PYTHON = ROOT / ".venv/classic/bin/python"


class FrontEnd(StrEnum):
    """What shows the notebook."""

    LAB = "lab"
    CLASSIC = "classic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server on loopback.

    Attributes:
        url: ends with a slash.
        folder: the notebooks that it shows.
        python: of its kernels.
    """

    front_end: FrontEnd
    url: str
    token: str
    folder: Path
    python: Path


@contextmanager
def serving(front_end: FrontEnd, home: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """Start a server, with the settings that it comes with.

    Args:
        home: an empty folder for all that it writes.
        environment: that of its kernels.
    """
    token = secrets.token_hex(16)
    folder, config, runtime = (home / name for name in ("notebooks", "config", "runtime"))
    folder.mkdir()
    config.mkdir()
    own = {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_SETTINGS_DIR": str(config / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(config / "workspaces"),
    }
    options: dict[str, object] = {"MappingKernelManager.cull_idle_timeout": IDLE_LIMIT_S}
    if front_end is FrontEnd.LAB:
        _no_news(config)
        python, module = Path(sys.executable), "jupyterlab"
        options |= _common("ServerApp")
        options |= {
            "IdentityProvider.token": token,
            "LabApp.expose_app_in_browser": True,
            "LabApp.news_url": None,
            "ServerApp.root_dir": str(folder),
        }
    else:
        if not CLASSIC_PYTHON.exists():
            pytest.fail("The classic notebook is missing. Run: make test-browser")
        python, module = CLASSIC_PYTHON, "notebook"
        options |= _common("NotebookApp")
        options |= {
            "NotebookApp.notebook_dir": str(folder),
            "NotebookApp.show_banner": False,
            "NotebookApp.token": token,
        }
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(python), "-m", module, *(f"--{name}={value}" for name, value in options.items())],
            env={**environment, **own},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            url = _address(process, runtime, log)
            yield Server(front_end=front_end, url=url, token=token, folder=folder, python=python)
        finally:
            process.terminate()
            try:
                process.wait(timeout=END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _common(application: str) -> dict[str, object]:
    """Return what both applications have under the same names."""
    return {
        f"{application}.allow_root": True,
        f"{application}.ip": "127.0.0.1",
        f"{application}.open_browser": False,
        f"{application}.port": _free_port(),
        f"{application}.shutdown_no_activity_timeout": IDLE_LIMIT_S,
    }


def _free_port() -> int:
    """Find a port: the classic notebook does not tell which one it was given for 0.

    Should another process take it first, both servers try the ports after it, and tell.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _no_news(config: Path) -> None:
    """Keep JupyterLab from asking for news and updates over the internet."""
    overrides = config / "labconfig/default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    notification = {"fetchNews": "false", "checkForUpdates": False}
    overrides.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": notification}))


def _address(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Wait until the server has written down where it listens."""
    files = [runtime / f"{kind}-{process.pid}.json" for kind in ("jpserver", "nbserver")]
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        for file in files:
            try:
                return str(json.loads(file.read_text())["url"])
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.05)
    pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")
