"""One download by a Python tool, in a process of its own.

Run by its path: `python -P client.py TOOL ROUTE REPO_ID`. It imports the tool and says
`{"ready": true}` in a line of JSON, waits for a line on stdin, downloads, and says how that ended.
Address and folders come by `HF_ENDPOINT` and `HF_HOME`; the Hub's library is told of its route by
`HF_HUB_DISABLE_XET`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["main"]


def main() -> int:
    """Download once; the exit status is 0 where that worked."""
    # Whatever else is printed must not reach the one who reads the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**answer: object) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    tool, route, repo_id = sys.argv[1:]
    try:
        download = _TOOLS[tool](repo_id, route)
        say(ready=True)
        sys.stdin.readline()
        folder = download()
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
        return 1
    say(folder=str(folder), ended_at=time.monotonic())
    return 0


def _nbloader(repo_id: str, route: str) -> Callable[[], Path]:
    import nbloader

    download = nbloader.download  # its modules are imported when the name is first used
    return lambda: download(repo_id, settings={"route": route}, view="none")


def _snapshot_download(repo_id: str, _route: str) -> Callable[[], str]:
    from huggingface_hub import snapshot_download

    return lambda: snapshot_download(repo_id)


def _hf_xet(repo_id: str, _route: str) -> Callable[[], Path]:
    """Large files by the client of Xet storage alone, the others by the Hub's library."""
    import hf_xet
    from huggingface_hub import HfApi, constants, get_session, hf_hub_download
    from huggingface_hub.hf_api import RepoFile

    def download() -> Path:
        folder = Path(os.environ["HF_HOME"], "files")
        folder.mkdir()
        url = f"{constants.ENDPOINT}/api/models/{repo_id}/xet-read-token/main"
        access = get_session().get(url).json()
        group = hf_xet.XetSession().new_file_download_group(
            endpoint=access["casUrl"],
            token=access["accessToken"],
            token_expiry_unix_secs=access["exp"],
        )
        for entry in HfApi().list_repo_tree(repo_id, recursive=True):
            if not isinstance(entry, RepoFile):
                continue
            if entry.xet_hash is None:
                hf_hub_download(repo_id, entry.path, local_dir=folder)
                continue
            group.start_download_file(
                hf_xet.XetFileInfo(entry.xet_hash, entry.size), str(folder / entry.path)
            )
        group.wait_to_finish()
        return folder

    return download


_TOOLS: dict[str, Callable[[str, str], Callable[[], Path | str]]] = {
    "nbloader": _nbloader,
    "snapshot_download": _snapshot_download,
    "hf_xet": _hf_xet,
}

if __name__ == "__main__":
    sys.exit(main())
