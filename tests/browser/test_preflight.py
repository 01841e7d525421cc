"""`preflight()`: its checks can be made again, and its plans can be looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM
from tests.browser.conftest import OpenNotebook
from tests.browser.looks import Looks
from tests.browser.notebooks import Notebook
from tests.browser.saved import assert_static, figures_in_order

PREFLIGHT = """\
import os

os.environ["CUDA_VISIBLE_DEVICES"] = "0"
import nbloader

nbloader.preflight("{repo}", cache_dir={cache!r})"""


def test_check_again_and_the_plans(
    open_cells: OpenNotebook,
    look: Callable[[Notebook], Looks],
    cache: Path,
    demo_hub: LocalHub,
) -> None:
    notebook = open_cells(PREFLIGHT.format(repo=MINILM, cache=str(cache)), "1 + 1")
    looks = look(notebook)
    demo_hub.set_faults([Fault(RequestClass.MODEL_INFO, status=404)])
    notebook.run()
    notebook.wait()
    notebook.wait_live()
    broken = notebook.text()
    looks.at("preflight-failed")

    demo_hub.clear_faults()
    notebook.press("Check again")
    notebook.wait_for_text(r"can be loaded here")
    assert "91.6 MB" in notebook.text(), f"before:\n{broken}\nnow:\n{notebook.text()}"
    looks.at("preflight")

    choose = notebook.live().locator("select")
    options = choose.locator("option").all_inner_texts()
    assert len(options) >= 2, f"the plans to choose from: {options}"
    (cpu,) = (number for number, option in enumerate(options) if "CPU" in option)
    choose.select_option(index=cpu)
    notebook.wait_for_text(r"nbloader\.load\(.*plan=.cpu.\)")
    looks.at("preflight-plan")

    # It becomes static with the next cell.
    notebook.run(1)
    notebook.wait(1)
    notebook.wait_static()
    saved = notebook.save()
    assert_static(saved, 0)
    figures_in_order(saved, 0, notebook.python, ("can be loaded here", "91.6 MB", "plan"))
    assert not looks.faults, "\n".join(looks.faults)
