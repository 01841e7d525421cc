"""How much memory the processes take, whatever comes from a Hub that means harm."""

from __future__ import annotations

import gzip
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.hub import CONFIG, FILES, REPO_ID, Change, HostileHub, Said
from tests.servers import Server

MOST_BYTES = 400_000_000
SECONDS = 120

CALL = f"""
import json, resource, nbloader
try:
    nbloader.download({REPO_ID!r}, view="none", settings={{"max_retries": 1}})
    told = "done"
except nbloader.errors.NbloaderError as error:
    told = error.reference
# That of this process by `getrusage` is no less than what its parent held when it was started.
rows = dict(line.split(":", 1) for line in open("/proc/self/status"))
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([told, 1024 * int(rows["VmHWM"].split()[0]), 1024 * children]))
"""


def peaks(endpoint: str, home: Path) -> tuple[str, int, int]:
    """Download, and return how it ended, and the most memory of the process and of its worker."""
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CALL],
        env=env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    told, own, worker = json.loads(done.stdout)
    return told, own, worker


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 X\r\nConnection: close\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 20))


def test_an_error_without_an_end(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    server = Server(endless)
    try:
        told, *found = peaks(server.url.removesuffix("/a"), tmp_path)
    finally:
        server.close()
    record_property("peak_bytes", max(found))
    assert told != "done"
    assert max(found) < MOST_BYTES


def bomb() -> bytes:
    """Four gigabytes, packed three times."""
    megabyte = gzip.compress(bytes(1 << 20), 9)
    return gzip.compress(gzip.compress(megabyte * 4096, 9), 9)


def packed(asked: str, said: Said) -> Said:
    if asked != "info":
        return said
    headers = (("Content-Encoding", "gzip, gzip, gzip"),)
    return replace(said, status=400, body=bomb(), headers=headers)


def listed(asked: str, said: Said) -> Said:
    """The same page again and again, each time as the next."""
    if asked != "tree":
        return said
    page = [{"type": "file", "path": f"{n}/f", "size": 1, "oid": "0" * 40} for n in range(50_000)]
    link = f'</api/models/{REPO_ID}/tree/{"a" * 40}?more>; rel="next"'
    return replace(said, body=page, headers=(("Link", link),))


def _with(files: Mapping[str, bytes]) -> tuple[Change, Mapping[str, bytes]]:
    return (lambda asked, said: said), {**FILES, **files}


def indexed() -> tuple[Change, Mapping[str, bytes]]:
    shards = {f"w{number}": "model-00001-of-00001.safetensors" for number in range(480_000)}
    index = json.dumps({"metadata": {}, "weight_map": shards}).encode()
    return _with({"model.safetensors.index.json": index})


def of_many_parts() -> tuple[Change, Mapping[str, bytes]]:
    parts = {f"p{number}": ["diffusers", "UNet2DModel"] for number in range(240_000)}
    return _with({"model_index.json": json.dumps({"_class_name": "A", **parts}).encode()})


def of_many_values() -> tuple[Change, Mapping[str, bytes]]:
    return _with({"config.json": json.dumps(CONFIG | {"x": [{} for _ in range(480_000)]}).encode()})


def of_many_tensors() -> tuple[Change, Mapping[str, bytes]]:
    tensors = {
        f"t{number}": {"dtype": "U8", "shape": [1], "data_offsets": [number, number + 1]}
        for number in range(160_000)
    }
    header = json.dumps(tensors).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(len(tensors))
    return _with({"model.safetensors": content})


CASES: Mapping[str, Any] = {
    "an error packed three times": lambda: (packed, FILES),
    "a listing without an end": lambda: (listed, FILES),
    "an index of many tensors": indexed,
    "a pipeline of many parts": of_many_parts,
    "a configuration of many values": of_many_values,
    "a header of many tensors": of_many_tensors,
}


@pytest.mark.parametrize("case", CASES)
def test_the_peak_of_both_processes(
    tmp_path: Path, case: str, record_property: Callable[[str, object], None]
) -> None:
    change, files = CASES[case]()
    hub = HostileHub(change, files)
    try:
        told, own, worker = peaks(hub.endpoint, tmp_path)
    finally:
        hub.close()
    record_property("peak_bytes", {"process": own, "worker": worker})
    assert told
    assert {"process": own < MOST_BYTES, "worker": worker < MOST_BYTES} == {
        "process": True,
        "worker": True,
    }, (told, own, worker)
