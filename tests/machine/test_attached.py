from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbloader.machine import attached_models, looks_like, matching
from nbloader.machine import places as module
from nbloader.records import AttachedModel
from tests.machine.machines import write

PIPELINE = json.dumps({"_class_name": "QwenImageEditPlusPipeline", "vae": ["diffusers", "X"]})
MODULES = json.dumps([{"idx": 0, "type": "sentence_transformers.models.Transformer"}])
CONFIG = json.dumps({"model_type": "qwen3"})


def found(root: Path) -> dict[str, str]:
    return {
        str(Path(model.folder).relative_to(root)): model.kind for model in attached_models(root)
    }


def test_what_kaggle_attaches(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "qwen-image-edit/diffusers/2509/1/model_index.json": PIPELINE,
            "qwen-image-edit/diffusers/2509/1/transformer/config.json": CONFIG,
            "qwen-3/transformers/0.6b/1/config.json": CONFIG,
            "all-minilm-l6-v2/modules.json": MODULES,
            "all-minilm-l6-v2/config.json": CONFIG,
            "models/qwen-lm/qwen-3/transformers/4b/1/config.json": CONFIG,
            "data/models--org--name/snapshots/abc/config.json": CONFIG,
            "data/pictures/1.png": "",
            "data/config.json": json.dumps({"batch_size": 3}),
            "config.json": CONFIG,
        },
    )
    assert found(tmp_path) == {
        "all-minilm-l6-v2": "sentence-transformers",
        "qwen-3/transformers/0.6b/1": "transformers",
        "qwen-image-edit/diffusers/2509/1": "diffusers",
        "data/models--org--name/snapshots/abc": "transformers",
        "models/qwen-lm/qwen-3/transformers/4b/1": "transformers",
    }


def test_no_such_folder(tmp_path: Path) -> None:
    assert attached_models(tmp_path / "input") == ()


def test_hostile_folders(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a-file": "",
            "bomb/config.json": "[" * 500_000,
            "list/config.json": "[1]",
            "text/config.json": '"model_type"',
            "empty/model_index.json": "",
            "bytes/modules.json": b"\xff\xfe\x00",
            "numbers/modules.json": "[1, 2]",
            "none/modules.json": "[]",
            "large/config.json": '{"model_type": "' + "x" * 2_000_000 + '"}',
            "folder/config.json/config.json": CONFIG,
            "<b>&\n/config.json": CONFIG,
        },
    )
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert found(tmp_path) == {"<b>&\n": "transformers", "folder/config.json": "transformers"}


def test_the_search_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        {
            "/".join(["deep"] * 8) + "/config.json": CONFIG,
            "/".join(["x", *["deep"] * 8]) + "/config.json": CONFIG,
            **{f"many/{number}": "" for number in range(50)},
            "many/model/config.json": CONFIG,
            "z/config.json": CONFIG,
        },
    )
    deep = "/".join(["deep"] * 8)
    whole = {deep: "transformers", "many/model": "transformers", "z": "transformers"}
    assert found(tmp_path) == whole
    # A folder with too much in it hides what is in there, and nothing else.
    monkeypatch.setattr(module, "MOST_ENTRIES", 10)
    (tmp_path / "many" / "model").rename(tmp_path / "many-model")
    write(tmp_path, {f"y/{number:02}/{number}": "" for number in range(50)})
    assert "z" in found(tmp_path)
    monkeypatch.setattr(module, "MOST_FOLDERS", 3)
    assert deep not in found(tmp_path)


def test_the_time_is_bounded(tmp_path: Path) -> None:
    write(tmp_path, {f"{name}/config.json": CONFIG for name in "abcdef"})
    ticks = iter(range(100))
    models = attached_models(tmp_path, clock=lambda: next(ticks) * 0.4)
    assert [Path(model.folder).name for model in models] == ["a"]


def model(folder: str) -> AttachedModel:
    return AttachedModel(folder=f"/kaggle/input/{folder}", kind="transformers")


@pytest.mark.parametrize(
    ("repo_id", "fitting", "others"),
    [
        (
            "Qwen/Qwen-Image-Edit-2509",
            [
                "qwen-image-edit-2509/diffusers/default/1",
                "backup-qwen-image-edit-2509-fp8",
                "qwen-image-edit/diffusers/2509/1",
            ],
            ["qwen-image/diffusers/2509/1", "qwen-3/transformers/0.6b/1"],
        ),
        (
            "sentence-transformers/all-MiniLM-L6-v2",
            [
                "models--sentence-transformers--all-MiniLM-L6-v2/snapshots/abc",
                "sentence-transformersall-minilm-l6-v2",
                "minilm/all/l6-v2",
            ],
            ["all-minilm-l12-v2", "all"],
        ),
        (
            "Qwen/Qwen3-0.6B",
            ["models/qwen-lm/qwen-3/transformers/0.6b/1"],
            ["models/qwen-lm/qwen-3/transformers/4b/1"],
        ),
        ("org/t5", ["t5", "org-t5"], ["great500", "t500"]),
        ("org/---", [], ["", "a"]),
    ],
)
def test_models_that_look_like_the_repository(
    repo_id: str, fitting: list[str], others: list[str]
) -> None:
    expected = [model(folder) for folder in fitting + others]
    shuffled = [model(folder) for folder in others] + [model(folder) for folder in fitting]
    assert list(matching(shuffled, repo_id)) == expected
    assert [m for m in expected if looks_like(m, repo_id)] == expected[: len(fitting)]
