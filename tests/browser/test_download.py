"""What a user sees while files come over a slow link that stalls, and what an interrupt leaves."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from nbloader.localhub import Cut, Fault, LocalHub, RequestClass
from nbloader.localhub.demo import QWEN_IMAGE_EDIT
from tests.browser.conftest import OpenNotebook, Served
from tests.browser.looks import Looks, Watch
from tests.browser.notebooks import LIVE, WAIT_MS, Notebook
from tests.browser.saved import assert_static, figures_in_order

MB = 1_000_000
STALL_SHOWS_S = 2.0
BACK_S = 1.0

ASKED_AGAIN = MB // 2
"""Bytes that are read anew for the selection: small files, and the heads of the weights."""


SLOW = Fault(RequestClass.CDN_GET, total_bytes_per_second=3 * MB)
# Every connection goes silent in its middle, however many there are.
STALL = Fault(RequestClass.CDN_GET, path="*/transformer/*", cut=Cut.STALL, after_bytes=6 * MB)
BUSY = Fault(RequestClass.CDN_GET, path="*/text_encoder/*", times=1, status=503)

DOWNLOAD = """\
import nbloader

folder = nbloader.download(
    "{repo}", cache_dir={cache!r},
    settings={{"stall_timeout_s": 10, "retry_delay_min": 1, "retry_delay_max": 1}},
)"""


def test_a_slow_link_a_stall_a_retry_and_an_interrupt(
    open_cells: OpenNotebook,
    look: Callable[[Notebook], Looks],
    cache: Path,
    demo_hub: LocalHub,
    served: Served,
) -> None:
    notebook = open_cells(DOWNLOAD.format(repo=QWEN_IMAGE_EDIT, cache=str(cache)))
    looks = look(notebook)
    demo_hub.set_faults([SLOW, STALL])
    notebook.run()
    notebook.wait_live()
    watch = Watch(notebook)

    # The bars move.
    first = overall(notebook)
    notebook.page.wait_for_function(
        "([bar, first]) => document.querySelector(bar)?.ariaValueNow > first + 5",
        arg=[f"{LIVE} [role=progressbar][aria-label=bytes]", first],
        timeout=WAIT_MS,
    )
    notebook.wait_for_text(r"\d MB/s")
    notebook.wait_for_text(r"download (\d+(\.\d)? s|\d+:\d\d) left")
    looks.at("running")

    # The stall shows.
    notebook.wait_for_text(r"no bytes for \d+ s")
    demo_hub.set_faults([SLOW, BUSY])  # for what is asked for after the stall
    looks.at("stalled")

    # The retry shows, in a few words, and the bytes come again.
    notebook.wait_for_text(r"pieces? fell silent and w\w+ asked again")
    retried = overall(notebook)
    notebook.page.wait_for_function(
        "([bar, first]) => document.querySelector(bar)?.ariaValueNow > first + 2",
        arg=[f"{LIVE} [role=progressbar][aria-label=bytes]", retried],
        timeout=WAIT_MS,
    )
    looks.at("retried")

    # The interrupt ends it, and keeps what came.
    pressed = time.monotonic()
    notebook.interrupt()
    notebook.wait()
    back = time.monotonic() - pressed
    kept_text = notebook.wait_for_text(r"[\d.]+ of 94\.5 MB are kept; run the cell again to go on")
    samples = watch.samples()
    assert back <= BACK_S, f"the cell came back {back:.2f} s after the interrupt"
    assert notebook.live().count() == 0, "the widget is still there after the interrupt"
    (output,) = notebook.outputs()
    assert output.output_type == "display_data", "a stop is shown as an error"
    looks.at("interrupted")
    assert_static(notebook.save(), 0)

    # Running again goes on from there.
    kept = float(re.findall(r"[\d.]+", kept_text)[0]) * MB
    before = demo_hub.counters().file_bytes
    demo_hub.clear_faults()
    notebook.run()
    notebook.wait()
    notebook.wait_for_text(r"ready in")
    served_again = demo_hub.counters().file_bytes - before
    looks.at("ready")
    saved = notebook.save()
    assert_static(saved, 0)
    figures_in_order(
        saved, 0, notebook.python, (QWEN_IMAGE_EDIT, "ready in", "MB downloaded", "transformer")
    )
    rest = 94.502178 * MB - kept
    assert served_again <= rest + ASKED_AGAIN, (
        f"{kept / MB:.1f} MB were kept, and {served_again / MB:.1f} MB were served again, "
        f"of which {rest / MB:.1f} MB were missing"
    )

    assert_stall_showed_in_time(samples, served)
    assert_nothing_jumped(samples)
    assert_the_bar_never_went_back(samples)
    assert not looks.faults, "\n".join(looks.faults)


def overall(notebook: Notebook) -> float:
    bar = notebook.live().locator("[role=progressbar][aria-label=bytes]")
    return float(bar.get_attribute("aria-valuenow", timeout=WAIT_MS) or "nan")


def assert_stall_showed_in_time(samples: list[dict[str, Any]], served: Served) -> None:
    """From the last byte that the Hub served on, the text was there within two seconds."""
    shown = [
        sample["time"] for sample in samples if re.search(r"no bytes for \d+ s", sample["text"])
    ]
    assert shown, "the stall never showed"
    # The longest silence of the Hub in that time; before the first file it was silent, too.
    _, begun = max(
        (ended - begun, begun)
        for (begun, count), (ended, _) in pairwise(served.history)
        if count > MB and ended < samples[-1]["time"]
    )
    late = min((time for time in shown if time >= begun), default=float("inf")) - begun
    assert late <= STALL_SHOWS_S, f"the stall showed {late:.2f} s after the last byte"


def assert_the_bar_never_went_back(samples: list[dict[str, Any]]) -> None:
    shares = [sample["bars"]["bytes"] for sample in samples if "bytes" in sample["bars"]]
    assert shares == sorted(shares)


def assert_nothing_jumped(samples: list[dict[str, Any]]) -> None:
    """While files came, each section stayed where it was, at each width of the page.

    Only one that came anew did so, below all others.
    """
    loading = [sample for sample in samples if re.search(r"\d [kM]B/s", sample["text"])]
    assert loading, "no sample of a running download"
    for width in {sample["width"] for sample in loading}:
        seen = {tuple(sample["tops"]) for sample in loading if sample["width"] == width}
        longest = max(seen, key=len)
        moved = [
            (sample["tops"], sample["text"])
            for sample in loading
            if sample["width"] == width and sample["tops"] != [*longest[: len(sample["tops"])]]
        ]
        assert not moved, f"at {width} px the sections stood at {longest}, and once at {moved[0]}"
