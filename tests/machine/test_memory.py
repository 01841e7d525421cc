from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.machine.disk import _IN_MEMORY, _kind, _kinds
from nbloader.machine.memory import memory_facts, within_cgroups
from nbloader.records import MemoryFacts
from tests.machine.machines import GIB, UNLIMITED_V1, v1, v2, write

MACHINE = MemoryFacts(available=50 * GIB, total=64 * GIB)

TABLE = {
    "no cgroups, as on a Mac": ({}, MACHINE),
    "v2, the limit of its own": (
        v2("/job", {"/job": (str(8 * GIB), 3 * GIB, "")}),
        MemoryFacts(available=5 * GIB, total=8 * GIB, source="cgroup v2, limit of /job"),
    ),
    "v2, the file cache is not used": (
        v2(
            "/job",
            {
                "/job": (
                    str(8 * GIB),
                    7 * GIB,
                    f"anon {GIB}\nfile {6 * GIB}\ninactive_file {4 * GIB}\nactive_file {GIB}\n"
                    f"workingset_refault_file {99 * GIB}\n",
                )
            },
        ),
        MemoryFacts(available=6 * GIB, total=8 * GIB, source="cgroup v2, limit of /job"),
    ),
    "v2, a limit far above": (
        v2(
            "/kubepods/pod/container",
            {
                "/kubepods/pod/container": ("max", GIB, ""),
                "/kubepods/pod": (str(4 * GIB), GIB, ""),
                "/kubepods": (str(32 * GIB), 30 * GIB, ""),
            },
        ),
        # The outer cgroup has less left, the inner one the lower limit.
        MemoryFacts(available=2 * GIB, total=4 * GIB, source="cgroup v2, limit of /kubepods"),
    ),
    "v2, a lower limit above": (
        v2("/a/b", {"/a/b": (str(16 * GIB), GIB, ""), "/a": (str(8 * GIB), 2 * GIB, "")}),
        MemoryFacts(available=6 * GIB, total=8 * GIB, source="cgroup v2, limit of /a"),
    ),
    "v2, limits that limit nothing": (
        v2("/job", {"/job": ("max", GIB, ""), "/": (str(64 * GIB), GIB, "")}),
        MACHINE,
    ),
    "v2, the machine has less than the limit": (
        v2("/job", {"/job": (str(60 * GIB), GIB, "")}),
        MemoryFacts(available=50 * GIB, total=60 * GIB, source="cgroup v2, limit of /job"),
    ),
    "v2, more used than allowed": (
        v2("/job", {"/job": (str(GIB), 2 * GIB, "")}),
        MemoryFacts(available=0, total=GIB, source="cgroup v2, limit of /job"),
    ),
    "v2, a path outside of what is mounted": (
        v2("/../other", {"/": (str(GIB), 0, "")}),
        MemoryFacts(available=GIB, total=GIB, source="cgroup v2, limit of /"),
    ),
    "v2, nonsense": (v2("/job", {"/job": ("many", 5, "inactive_file x\nno\n\n")}), MACHINE),
    "v2, nonsense in the statistics": (
        v2("/job", {"/job": (str(GIB), 5, "inactive_file -3\nactive_file\n\x00\n")}),
        MemoryFacts(available=GIB - 5, total=GIB, source="cgroup v2, limit of /job"),
    ),
    "v1, a container that sees the host's path": (
        v1("/docker/abc", {"/": (str(2 * GIB), GIB, "")}, inside="/docker/abc"),
        MemoryFacts(available=GIB, total=2 * GIB, source="cgroup v1, limit of /"),
    ),
    "v1, nested, the file cache of all below": (
        v1(
            "/slurm/job/step",
            {
                "/slurm/job/step": (UNLIMITED_V1.strip(), GIB, ""),
                "/slurm/job": (
                    str(16 * GIB),
                    15 * GIB,
                    f"inactive_file 1\ntotal_inactive_file {3 * GIB}\ntotal_active_file {GIB}\n",
                ),
                "/": (UNLIMITED_V1.strip(), GIB, ""),
            },
        ),
        MemoryFacts(available=5 * GIB, total=16 * GIB, source="cgroup v1, limit of /slurm/job"),
    ),
    "v1, no limit": (v1("/", {"/": (UNLIMITED_V1.strip(), GIB, "")}), MACHINE),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_memory_within_limits(name: str, tmp_path: Path) -> None:
    files, expected = TABLE[name]
    assert within_cgroups(MACHINE, write(tmp_path, files)) == expected


@pytest.mark.parametrize("file", ["cgroup", "mountinfo"])
@given(content=st.binary(max_size=200) | st.text(":/,- \n0123memorycgroup2.", max_size=200))
def test_what_the_kernel_would_never_write(
    tmp_path_factory: pytest.TempPathFactory, file: str, content: bytes | str
) -> None:
    root = tmp_path_factory.mktemp("root")
    write(root, v2("/job", {"/": (str(GIB), 0, ""), "/job": (str(GIB), 0, "")}))
    write(root, {f"proc/self/{file}": content})
    found = within_cgroups(MACHINE, root)
    assert (found.available, found.total) in {(GIB, GIB), (MACHINE.available, MACHINE.total)}


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup for memory below this process's own."""
    own = Path("/proc/self/cgroup")
    lines = own.read_text().splitlines() if own.exists() else []
    paths = [line.split(":", 2)[2] for line in lines if "memory" in line.split(":")[1].split(",")]
    above = Path("/sys/fs/cgroup/memory") / paths[0].lstrip("/") if paths else None
    if above is None:
        above = Path("/sys/fs/cgroup", *[line[4:] for line in lines if line.startswith("0::/")])
    folder = above / f"nbloader-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        yield folder
    finally:
        folder.rmdir()


def test_a_real_limit(cgroup: Path, tmp_path: Path) -> None:
    if _kind(tmp_path.resolve(), _kinds(Path("/"))) in _IN_MEMORY:
        pytest.skip("files of tests are in memory, which is no file cache")
    limit = 256 * 2**20
    files = [cgroup / name for name in ("memory.limit_in_bytes", "memory.max")]
    setting = [file for file in files if file.exists()]
    if not setting:
        pytest.skip("the controller for memory is not on for cgroups below this one")
    setting[0].write_text(str(limit))
    code = """
import json, os, sys
cgroup, file = sys.argv[1:]
open(cgroup + "/cgroup.procs", "w").write(str(os.getpid()))
from nbloader.machine.disk import _IN_MEMORY, _kind, _kinds
from nbloader.machine.memory import memory_facts
with open(file, "wb") as content:  # fills the file cache, which counts as used
    for _ in range(100):
        content.write(bytes(2**20))
    content.flush()
    os.fsync(content.fileno())
kept = b"x" * 50 * 2**20
facts = memory_facts()
names = "memory.usage_in_bytes", "memory.current"
used = next(path for name in names if os.path.exists(path := f"{cgroup}/{name}"))
print(json.dumps([facts.available, facts.total, facts.source, int(open(used).read())]))
"""
    command = [sys.executable, "-c", code, str(cgroup), str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    available, total, source, used = json.loads(done.stdout)
    assert total == limit
    assert source.endswith(f"/{cgroup.name}")
    assert used > 150 * 2**20
    # 50 MiB are kept; what else the process and the kernel need there is a few.
    assert limit - 90 * 2**20 < available < limit - 50 * 2**20


def test_this_machine_has_memory() -> None:
    found = memory_facts()
    assert 0 < found.available <= found.total
