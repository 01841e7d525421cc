"""`start()`: the cell is over, and the buttons act; while another cell runs, they rest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from nbloader.views.controls import AFTER_IMPORT, BUTTONS
from tests.browser.conftest import OpenNotebook
from tests.browser.looks import Looks
from tests.browser.notebooks import WAIT_MS, Notebook
from tests.browser.saved import assert_static, figures_in_order

MB = 1_000_000
SLOW = Fault(RequestClass.CDN_GET, total_bytes_per_second=2 * MB)
BROKEN = Fault(RequestClass.CDN_GET, status=503)

START = """\
import os

os.environ["CUDA_VISIBLE_DEVICES"] = {gpus!r}
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
import nbloader

job = nbloader.start("{repo}", cache_dir={cache!r}, settings={settings!r})"""

RESULT = """\
model = job.result()
print(type(model).__name__, model.device)"""

WORKERS = """\
import json, psutil

commands = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
print(json.dumps([job.done(), sum("nbloader.worker " in line for line in commands)]))"""


def start(cache: Path, *, gpus: str = "", settings: Mapping[str, object] | None = None) -> str:
    """Write the cell."""
    return START.format(repo=MINILM, cache=str(cache), gpus=gpus, settings=dict(settings or {}))


def test_cancel_ends_the_worker_and_leaves_static_html(
    open_cells: OpenNotebook,
    look: Callable[[Notebook], Looks],
    cache: Path,
    demo_hub: LocalHub,
) -> None:
    demo_hub.set_faults([SLOW])
    notebook = open_cells(start(cache), WORKERS)
    looks = look(notebook)
    notebook.run()
    notebook.wait()
    notebook.wait_for_text(re.escape(AFTER_IMPORT))
    looks.at("importing", themes=[False])
    notebook.wait_for_text(r"\d [kM]B/s")
    notebook.wait_buttons(["Cancel", "Diagnostics"])
    looks.at("start")

    notebook.press("Diagnostics")
    notebook.page.wait_for_function(
        "root => root.querySelector('textarea')?.value.includes('nbloader')",
        arg=notebook.wait_live().element_handle(),
        timeout=WAIT_MS,
    )
    looks.at("diagnostics", themes=[False])

    notebook.press("Cancel")
    notebook.wait_static()
    assert "of 91.6 MB are kept; run the cell again to go on" in notebook.text()
    notebook.run(1)
    told = notebook.wait_for_text(r"\[.*\]", 1)
    assert json.loads(told) == [True, 0], "done, and how many workers are left"
    assert_static(notebook.save(), 0)
    assert not looks.faults, "\n".join(looks.faults)


def test_a_failed_check_can_be_passed_over_and_a_cell_can_wait(
    open_cells: OpenNotebook,
    look: Callable[[Notebook], Looks],
    cache: Path,
    demo_hub: LocalHub,
) -> None:
    demo_hub.set_faults([SLOW])
    notebook = open_cells(start(cache, settings={"required_disk_space_gb": 1e6}), RESULT)
    looks = look(notebook)
    notebook.run()
    notebook.wait()
    notebook.wait_buttons(["Retry", "Download anyway", "Diagnostics"])
    assert "disk" in notebook.text()
    looks.at("failed-check")
    notebook.press("Download anyway")
    notebook.wait_for_text(r"\d [kM]B/s")

    notebook.run(1)
    notebook.wait_for_text(r"the buttons rest")
    notebook.wait_buttons([])
    looks.at("waited-for", themes=[False])
    demo_hub.clear_faults()
    notebook.wait(1)
    assert notebook.text(1).strip() == "SentenceTransformer cpu"
    notebook.wait_static()
    saved = notebook.save()
    assert_static(saved, 0)
    figures_in_order(saved, 0, notebook.python, (MINILM, "ready in", "MB downloaded"))
    assert not looks.faults, "\n".join(looks.faults)


def test_another_plan_can_be_chosen(
    open_cells: OpenNotebook,
    look: Callable[[Notebook], Looks],
    cache: Path,
    demo_hub: LocalHub,
) -> None:
    # The driver that stands in tells of a GPU: there are its plan, that of both, and the CPU's.
    demo_hub.set_faults([SLOW])
    notebook = open_cells(start(cache, gpus="0"), RESULT)
    looks = look(notebook)
    notebook.run()
    notebook.wait()
    notebook.wait_for_text(r"\d [kM]B/s")
    assert "on cuda" in head_of(notebook), head_of(notebook)
    plans = notebook.wait_live().locator("select")
    options = plans.locator("option").all_inner_texts()
    assert len(options) == 3, f"the plans to choose from: {options}"
    (cpu,) = (number for number, option in enumerate(options) if "CPU" in option)
    plans.select_option(index=cpu)
    # All that stands above the buttons: the plans to choose from name both devices.
    notebook.page.wait_for_function(
        f"root => /on the CPU/.test(root.innerText.split('{BUTTONS['cancel']}')[0])",
        arg=notebook.wait_live().element_handle(),
        timeout=WAIT_MS,
    )
    assert "cuda" not in head_of(notebook), head_of(notebook)
    looks.at("plan", themes=[False])
    demo_hub.clear_faults()
    notebook.run(1)
    notebook.wait(1)
    assert notebook.text(1).strip() == "SentenceTransformer cpu"
    notebook.wait_static()
    assert_static(notebook.save(), 0)
    assert not looks.faults, "\n".join(looks.faults)


def test_what_the_server_refused_can_be_retried(
    open_cells: OpenNotebook, cache: Path, demo_hub: LocalHub
) -> None:
    demo_hub.set_faults([BROKEN])
    settings = {"max_retries": 1, "retry_delay_min": 0, "retry_delay_max": 0}
    notebook = open_cells(start(cache, settings=settings))
    notebook.run()
    notebook.wait()
    notebook.wait_buttons(["Retry", "Diagnostics"])
    assert "503" in notebook.text()
    demo_hub.clear_faults()
    notebook.press("Retry")
    notebook.wait_static()
    saved = notebook.save()
    assert_static(saved, 0)
    figures_in_order(saved, 0, notebook.python, (MINILM, "ready in"))


def head_of(notebook: Notebook) -> str:
    """Return the first lines of the live view, which name the plan."""
    return "\n".join(notebook.wait_live().inner_text().splitlines()[:6])
