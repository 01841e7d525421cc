"""Names in the files of a repository that are none, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

import nbloader
from nbloader.errors import MalformedFileError
from nbloader.localhub import LocalHub
from nbloader.selection.repo import check_name, is_dotted_name, is_name
from tests.conftest import Publish

NO_NAMES = ["", "Be\ud800rt", "a b", "a\n", "a/b", "<b>", "a" * 129, "a..b", ".a", "a."]


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "_A", "a" * 128, "Ä"])
def test_names_of_classes(name: str) -> None:
    assert check_name(name, "model_index.json") == name


@pytest.mark.parametrize("name", ["diffusers", "a.b_c.d", "xlm-roberta", "a" * 128, "3d"])
def test_names_of_libraries(name: str) -> None:
    assert check_name(name, "model_index.json", dotted=True) == name


def test_all_families_of_transformers_have_a_name() -> None:
    assert [name for name in CONFIG_MAPPING_NAMES if not is_dotted_name(name)] == []


@pytest.mark.parametrize("name", [*NO_NAMES, "a.b", "a-b", "3d"])
def test_what_is_no_name_of_a_class(name: str) -> None:
    with pytest.raises(MalformedFileError, match=r"^The file 'model_index.json' .* not a name"):
        check_name(name, "model_index.json")


@pytest.mark.parametrize("name", [*NO_NAMES, "Ä"])
def test_what_is_no_name_of_a_library(name: str) -> None:
    with pytest.raises(MalformedFileError, match=r"^The file 'model_index.json' .* not a name"):
        check_name(name, "model_index.json", dotted=True)


@pytest.mark.parametrize("value", [None, 3, ["a"], {"a": 1}, b"a"])
def test_what_is_no_text(value: object) -> None:
    assert not is_name(value)
    assert not is_dotted_name(value)


UNET = ["diffusers", "UNet2DConditionModel"]


@pytest.mark.parametrize(
    "index",
    [
        {"_class_name": "Be\ud800rt", "unet": UNET},
        {"_class_name": ["modu\ud800le", "Pipeline"], "unet": UNET},
        {"_class_name": "Pipeline", "unet": ["diffu\ud800sers", "UNet"]},
        {"_class_name": "Pipeline", "unet": ["diffusers", "UN\ud800et"]},
        {"_class_name": "Pipeline", "un\ud800et": UNET},
    ],
)
def test_half_a_character_in_a_name_is_told_by_the_file(
    hub: LocalHub, publish: Publish, tmp_path: Path, index: dict[str, object]
) -> None:
    repo_id = publish({"model_index.json": json.dumps(index).encode(), "unet/config.json": b"{}"})
    report = nbloader.preflight(repo_id, endpoint=hub.endpoint, cache_dir=tmp_path)
    [failure] = report.failures
    assert failure.reference in ("malformed-file", "unsafe-path")
    assert "model_index.json" in failure.message
    assert failure.message.isprintable()
