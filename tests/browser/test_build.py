"""What stands on the screen while a thread blocks: a model is built, and no message can be sent."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from tests.browser.conftest import OpenNotebook
from tests.browser.looks import Watch

MB = 1_000_000
BLOCKS_S = 5
LINK = Fault(RequestClass.CDN_GET, total_bytes_per_second=40 * MB)

LOAD = """\
import ctypes

import nbloader
from sentence_transformers import SentenceTransformer

begun = []


def note(event):
    if getattr(event, "stage", None) == "initialise":
        begun.append(event)


def build(self, *args, whole=SentenceTransformer.__init__, **kwargs):
    if begun:  # not where it is only tried, while the files come
        ctypes.PyDLL(None).sleep({seconds})  # without letting go of the interpreter
    whole(self, *args, **kwargs)


SentenceTransformer.__init__ = build
model = nbloader.load("{repo}", cache_dir={cache!r}, device="cpu", on_event=note)"""


def test_while_a_build_blocks_only_what_is_true_is_shown(
    open_cells: OpenNotebook, cache: Path, demo_hub: LocalHub
) -> None:
    demo_hub.set_faults([LINK])
    notebook = open_cells(LOAD.format(repo=MINILM, cache=str(cache), seconds=BLOCKS_S))
    notebook.run()
    notebook.wait_live()
    watch = Watch(notebook)
    notebook.wait_for_text(r"ready in \d")
    samples = watch.samples()
    ends = [*[sample["time"] for sample in samples[1:]], float("inf")]
    frozen, _ = max(
        (
            (sample, until - sample["time"])
            for sample, until in zip(samples[:-1], ends, strict=False)
        ),
        key=lambda pair: pair[1],
    )
    assert frozen["bars"]["bytes"] == 100
    text = frozen["text"].partition("fastest")[0]
    assert re.search(r"100 %\s+91\.6 MB\s+building", text), text
    assert not re.search(r"left|B/s|of 91\.6", text), text
    shares = [sample["bars"]["bytes"] for sample in samples]
    assert all(before <= after for before, after in pairwise(shares))
