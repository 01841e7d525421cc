"""`python -m tests.hostile.places KIND ENDPOINT FOLDER`: downloads into caches prepared by others.

At each place of a cache, one after the other, stands something of a kind that should not be there.
A line tells of each how the download ended. Run as a process, so that one that hangs can be ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from nbloader.errors import NbloaderError
from nbloader.records import TransferPolicy
from tests.hostile.hub import COMMIT, FILES, REPO_ID, TOKEN, entry
from tests.hostile.watch import watched
from tests.sessions import Worker

__all__ = ["KINDS", "PLACES"]

NOBODY = 65534

_REPO = "hub/models--org--name"
_CONFIG = entry("config.json", FILES["config.json"])["oid"]
_WEIGHTS = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
_LOCKS = "hub/.locks/models--org--name"

PLACES = (
    *("hub", _REPO, f"{_REPO}/blobs", f"{_REPO}/refs", f"{_REPO}/snapshots"),
    *(f"{_REPO}/blobs/{name}" for name in (_CONFIG, _WEIGHTS)),
    *(f"{_REPO}/blobs/{_WEIGHTS}{end}" for end in (".incomplete", ".nbloader.incomplete")),
    *(f"{_REPO}/blobs/{_CONFIG}{end}" for end in (".incomplete", ".nbloader.incomplete")),
    f"{_REPO}/refs/main",
    f"{_REPO}/snapshots/{COMMIT}",
    *(f"{_REPO}/snapshots/{COMMIT}/{name}" for name in FILES),
    *("hub/.locks", _LOCKS, f"{_LOCKS}/{_CONFIG}.lock", f"{_LOCKS}/{_WEIGHTS}.lock"),
    *("nbloader", "nbloader/listings", "nbloader/listings/models--org--name"),
    f"nbloader/listings/models--org--name/{COMMIT}.json",
    "nbloader/passing",
)
"""Below HF_HOME."""


def _link(to: str) -> Callable[[Path, Path], object]:
    return lambda place, victim: place.symlink_to(victim / to)


def _sparse(place: Path, victim: Path) -> None:
    with place.open("wb") as file:
        file.truncate(1 << 40)


KINDS: Mapping[str, Callable[[Path, Path], object]] = {
    "a link to a file": _link("precious"),
    "a link to a folder": _link("folder"),
    "a link to nothing": _link("new"),
    "a link to itself": lambda place, victim: place.symlink_to(place.name),
    "a link to what never ends": lambda place, victim: place.symlink_to("/dev/zero"),
    "a hard link": lambda place, victim: place.hardlink_to(victim / "precious"),
    "a pipe": lambda place, victim: os.mkfifo(place),
    "a folder": lambda place, victim: place.mkdir(),
    "other bytes": lambda place, victim: place.write_bytes(b"\0\xff{" * 50),
    "nothing in it": lambda place, victim: place.write_bytes(b""),
    "a file of a terabyte": _sparse,
    "a link up": lambda place, victim: place.symlink_to("../" * 12 + str(victim / "precious")[1:]),
}


def attempts(kind: str, endpoint: str, folder: Path) -> Iterator[dict[str, object]]:
    """Download once for each place."""
    victim = folder / "victim"
    for number, place in enumerate(PLACES):
        home = folder / "homes" / str(number)
        path = home / place
        path.parent.mkdir(parents=True)
        KINDS[kind](path, victim)
        if path.is_symlink() and os.geteuid() == 0:
            os.lchown(path, NOBODY, NOBODY)  # One's own links are followed where folders go.
        began = time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nbloader.worker.hub.CALL_TIMEOUT_S", 1.0)
            with watched(home) as touched:
                ended = _download(endpoint, home, patch)
        seconds = time.monotonic() - began
        yield {"place": place, "ended": ended, "seconds": seconds, "touched": touched}
        shutil.rmtree(home, ignore_errors=True)


def _download(endpoint: str, home: Path, patch: pytest.MonkeyPatch) -> str:
    class Hub:
        pass

    Hub.endpoint = endpoint  # type: ignore[attr-defined]
    worker = Worker(Hub, home, patch)  # type: ignore[arg-type]
    try:
        policy = TransferPolicy(max_retries=2, stall_timeout_s=1.0, retry_delay_max_s=1.0)
        session = worker.session(REPO_ID, token=TOKEN, policy=policy)
        session.select()
        place = session.fetch()
        right = all((place / path).read_bytes() == content for path, content in FILES.items())
    except NbloaderError as error:
        return f"{error.reference}: {error}"
    except OSError as error:
        return f"OSError {error}"  # The worker tells it as a cache that cannot be written.
    return "done" if right else "wrong bytes"


if __name__ == "__main__":
    for told in attempts(sys.argv[1], sys.argv[2], Path(sys.argv[3])):
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
