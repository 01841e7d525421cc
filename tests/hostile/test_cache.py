"""Caches that others may write to, with something at each place that should not be there.

A download into one ends with the right bytes or an error of ours, and soon; what a link leads to is
neither changed nor quoted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.hub import HostileHub
from tests.hostile.places import KINDS, PLACES
from tests.hostile.watch import unchanged

PRECIOUS = b"PRECIOUS DATA: s3cret"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_at_a_place_of_the_cache(tmp_path: Path, kind: str) -> None:
    if kind == "a link to a folder" and os.geteuid() != 0:
        pytest.skip("one's own links are followed where folders go: those of others take root")
    victim = tmp_path / "victim"
    (victim / "folder").mkdir(parents=True)
    (victim / "precious").write_bytes(PRECIOUS)
    (victim / "folder/config.json").write_bytes(PRECIOUS)
    (tmp_path / "homes").mkdir()
    hub = HostileHub(lambda about, said: said)
    try:
        with unchanged(victim):
            done = subprocess.run(
                [sys.executable, "-m", "tests.hostile.places", kind, hub.endpoint, str(tmp_path)],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
    finally:
        hub.close()
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["place"] for each in told] == list(PLACES), done.stderr[-2000:]
    assert [each for each in told if each["ended"] == "wrong bytes"] == []
    assert [each for each in told if each["seconds"] > 20] == []
    assert [each for each in told if each["touched"]] == []
    assert [each for each in told if "s3cret" in each["ended"]] == []
    assert "s3cret" not in done.stderr
