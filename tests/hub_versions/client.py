"""What is asked of one environment, by `python -P client.py WORK REPO_ID [ARGUMENTS]`.

The answer is one line of JSON on stdout. Only nbloader and huggingface_hub are needed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import version


def versions(_repo_id: str) -> dict[str, str]:
    return {name: version(name) for name in ("huggingface_hub", "hf-xet")}


def download(repo_id: str) -> dict[str, object]:
    """Let nbloader download; give the folder and the files of its selection."""
    import nbloader
    from nbloader.records import Event, Selected

    selections: list[Selected] = []

    def keep(event: Event) -> None:
        if isinstance(event, Selected):
            selections.append(event)

    folder = nbloader.download(repo_id, view="none", on_event=keep)
    (selected,) = selections
    return {"folder": str(folder), "files": [file.path for file in selected.selection.files]}


def snapshot(repo_id: str, local_files_only: str, *patterns: str) -> str:
    """Let the Hub's own library find or fetch the files."""
    from huggingface_hub import snapshot_download

    return str(
        snapshot_download(
            repo_id,
            local_files_only=json.loads(local_files_only),
            allow_patterns=list(patterns),
        )
    )


def scan(repo_id: str) -> dict[str, object]:
    """Return what the Hub's library finds in the cache."""
    from huggingface_hub import scan_cache_dir

    found = scan_cache_dir()
    (repo,) = (repo for repo in found.repos if repo.repo_id == repo_id)
    (revision,) = repo.revisions
    return {
        "warnings": [str(warning) for warning in found.warnings],
        "refs": sorted(revision.refs),
        "files": {
            file.file_path.relative_to(revision.snapshot_path).as_posix(): file.size_on_disk
            for file in revision.files
        },
    }


def local(repo_id: str, library: str, folder: str, *patterns: str) -> str:
    """Let nbloader, or the Hub's own library, fetch files into a folder that is no cache."""
    wanted = list(patterns)
    if library == "nbloader":
        import nbloader

        return str(nbloader.download(repo_id, allow_patterns=wanted, local_dir=folder, view="none"))
    from huggingface_hub import snapshot_download

    return str(snapshot_download(repo_id, allow_patterns=wanted, local_dir=folder))


_WORKS: dict[str, Callable[..., object]] = {
    work.__name__: work for work in (versions, download, snapshot, scan, local)
}

if __name__ == "__main__":
    work, repo_id, *arguments = sys.argv[1:]
    sys.stdout.write(json.dumps(_WORKS[work](repo_id, *arguments)) + "\n")
