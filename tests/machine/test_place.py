from __future__ import annotations

from pathlib import Path

import pytest

from nbloader.machine import how_to_connect, place_facts
from nbloader.machine.places import place_from
from nbloader.notebook.kernel import Kernel
from nbloader.records import Interface, Place, PlaceFacts
from tests.notebook_fakes import running_kernel

OPEN = Kernel(names=["In", "Out", "model"])
OF_VS_CODE = Kernel(names=["In", "__vsc_ipynb_file__"])
BATCH = Kernel(asks=False, names=["__vsc_ipynb_file__"])


@pytest.mark.parametrize(
    ("environ", "kernel", "place", "interface", "source"),
    [
        ({}, None, Place.OTHER, Interface.TERMINAL, "no kernel"),
        ({}, OPEN, Place.OTHER, Interface.JUPYTER, "kernel"),
        ({}, OF_VS_CODE, Place.OTHER, Interface.VS_CODE, "__vsc_ipynb_file__"),
        ({"VSCODE_PID": "1"}, OPEN, Place.OTHER, Interface.VS_CODE, "VSCODE_PID"),
        # JupyterLab that was started from VS Code's terminal.
        ({"TERM_PROGRAM": "vscode"}, OPEN, Place.OTHER, Interface.JUPYTER, "kernel"),
        ({"VSCODE_PID": "1"}, None, Place.OTHER, Interface.TERMINAL, "no kernel"),
        ({}, BATCH, Place.OTHER, Interface.BATCH, "kernel without stdin"),
        (
            {"COLAB_RELEASE_TAG": "x"},
            OF_VS_CODE,
            Place.COLAB,
            Interface.VS_CODE,
            "COLAB_RELEASE_TAG, __vsc_ipynb_file__",
        ),
        (
            {"COLAB_GPU": "1", "KAGGLE_KERNEL_RUN_TYPE": "Interactive"},
            OPEN,
            Place.KAGGLE,
            Interface.JUPYTER,
            "KAGGLE_KERNEL_RUN_TYPE, kernel",
        ),
        # Kaggle runs scripts in a batch as well.
        (
            {"KAGGLE_KERNEL_RUN_TYPE": "Batch"},
            None,
            Place.KAGGLE,
            Interface.BATCH,
            "KAGGLE_KERNEL_RUN_TYPE",
        ),
        # The credentials of Kaggle's command line are no Kaggle.
        (
            {"KAGGLE_USERNAME": "x", "KAGGLE_KEY": "x"},
            OPEN,
            Place.OTHER,
            Interface.JUPYTER,
            "kernel",
        ),
        (
            {"BINDER_REQUEST": "x", "BINDER_LAUNCH_HOST": "x"},
            OPEN,
            Place.BINDER,
            Interface.JUPYTER,
            "BINDER_LAUNCH_HOST, kernel",
        ),
    ],
)
def test_the_place(
    environ: dict[str, str],
    kernel: Kernel | None,
    place: Place,
    interface: Interface,
    source: str,
) -> None:
    expected = PlaceFacts(place=place, interface=interface, source=source)
    assert place_from(environ, kernel) == expected


def test_a_plain_process() -> None:
    assert place_facts({}) == PlaceFacts(interface=Interface.TERMINAL, source="no kernel")


def test_a_real_kernel(tmp_path: Path) -> None:
    code = "from nbloader.machine import place_facts; place_facts({}).interface.name"
    with running_kernel(tmp_path) as (client, _):
        found = []
        for before, allow_stdin in (("", True), ("", False), ("__vsc_ipynb_file__ = 1; ", True)):
            message = client.execute_interactive(
                before + code,
                allow_stdin=allow_stdin,
                timeout=60,
                output_hook=lambda message: found.append(
                    message["content"].get("data", {}).get("text/plain")
                ),
            )
            assert message["content"]["status"] == "ok"
    assert [text for text in found if text] == ["'JUPYTER'", "'BATCH'", "'VS_CODE'"]


def test_where_kaggles_internet_is_switched_on() -> None:
    hint = how_to_connect(Place.KAGGLE)
    assert "Session options > Internet" in hint
    assert "panel on the right" in hint
    assert "phone" in hint
    assert hint.count(". ") < 2
    assert "Kaggle" not in how_to_connect(Place.OTHER)
