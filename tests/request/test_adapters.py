"""`adapters`, as people write it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from nbloader.errors import InvalidArgumentError
from nbloader.records import AdapterRequest, Source
from nbloader.request.adapters import read_adapters


def read(given: object) -> tuple[AdapterRequest, ...]:
    return read_adapters(given, endpoint=None)


def on_the_hub(where: str = "adapters", **given: Any) -> AdapterRequest:
    place = {key: given.pop(key) for key in ("revision", "subfolder", "filename") if key in given}
    return AdapterRequest(where=where, source=Source(repo_id="org/name", **place), **given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ()),
        ("org/name", (on_the_hub(),)),
        ("org/name@v1", (on_the_hub(revision="v1"),)),
        ("org/name@main", (on_the_hub(),)),
        ("org/name/a.safetensors", (on_the_hub(filename="a.safetensors"),)),
        (
            "org/name@v1/inner/a.safetensors",
            (on_the_hub(revision="v1", subfolder="inner", filename="a.safetensors"),),
        ),
        (
            "https://huggingface.co/org/name/blob/main/a.safetensors",
            (on_the_hub(filename="a.safetensors"),),
        ),
        (
            {
                "repo_id": "org/name",
                "weight_name": "inner/a.safetensors",
                "adapter_name": "ink",
                "scale": 1,
            },
            (on_the_hub(subfolder="inner", filename="a.safetensors", name="ink", scale=1.0),),
        ),
        (
            [{"repo_id": "org/name", "image_encoder_folder": None}, "org/name@v1"],
            (
                on_the_hub("adapters[0]", image_encoder=None),
                on_the_hub("adapters[1]", revision="v1"),
            ),
        ),
        (
            {"repo_id": "org/name", "image_encoder_folder": "models/image_encoder"},
            (on_the_hub(image_encoder="models/image_encoder"),),
        ),
        ({"repo_id": "org/name", "token": "<cat>"}, (on_the_hub(token="<cat>"),)),
    ],
)
def test_places_on_the_hub(given: object, expected: tuple[AdapterRequest, ...]) -> None:
    assert read(given) == expected


def test_places_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    expected = (AdapterRequest(where="adapters", path=str(file), root=str(tmp_path)),)
    for given in (file, tmp_path, str(file), "./a.safetensors", "a.safetensors", "."):
        assert read(given) == expected
    named = {"repo_id": tmp_path, "weight_name": "a.safetensors"}
    assert read(named) == expected
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"")
    (one,) = read(tmp_path)
    assert one.path.endswith("pytorch_lora_weights.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    (one,) = read(tmp_path)
    assert one.path == str(tmp_path)


@pytest.mark.parametrize(
    ("given", "text", "hint"),
    [
        (3, "adapters: 3 names no adapter", 'Pass "org/name"'),
        ([], "adapters=[] names no adapter", "Leave it out."),
        ("", "names no adapter", "Pass"),
        ("name", "adapters: 'name' is not a repository id", 'Pass "org/name"'),
        ("org/name/../a.safetensors", "can be in no repository", "named from the root"),
        ({"repo_id": "org/name", "subfolder": ".."}, "is not a folder of", "Name it from the root"),
        ({"repo_id": "org/name", "weight": 1}, "an adapter has no 'weight'", "scale"),
        ({"weight_name": "a"}, "names no adapter", "Pass"),
        ({"repo_id": "org/name", "weight_name": 3}, "weight_name=3 is not a text", "weight_name"),
        ({"repo_id": "org/name", "scale": "big"}, "scale='big' is not a number", "0.8"),
        ({"repo_id": "org/name", "scale": math.nan}, "nan is not a finite number", "0.8"),
        ({"repo_id": "org/name", "scale": 10**400}, "is not a finite number", "0.8"),
        ({"repo_id": "org/name", "scale": True}, "scale=True is not a number", "0.8"),
        ({"repo_id": "org/name", "adapter_name": "a.b"}, "can be no name", "letters, digits"),
        ({"repo_id": "org/name", "token": ""}, "is no word for a prompt", "<cat-toy>"),
        (
            {"repo_id": "org/name/a.safetensors", "weight_name": "b.safetensors"},
            "weight_name='b.safetensors' is not the one of",
            "Leave one of the two out.",
        ),
        (["org/name", "org/name"], "adapters[0] and adapters[1] are the same", "Name it once"),
        (
            [{"repo_id": "org/a", "adapter_name": "x"}, {"repo_id": "org/b", "adapter_name": "x"}],
            "adapters= has two with the name 'x'",
            "adapter_name of its own",
        ),
        ("./not/there", "adapters: there is no folder './not/there'", "check the path"),
        (Path("/not/there.safetensors"), "there is no file '/not/there", "check the path"),
        ({"repo_id": ".", "revision": "v1"}, "'.' is a folder", "the id of the repository"),
    ],
)
def test_what_can_be_no_adapter(given: object, text: str, hint: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read(given)
    assert text in caught.value.message
    assert hint in caught.value.hint


def test_a_folder_with_several(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InvalidArgumentError) as caught:
        read(tmp_path)
    assert "'a.safetensors', 'b.safetensors'" in caught.value.hint
    with pytest.raises(InvalidArgumentError, match="has no file 'c'"):
        read({"repo_id": tmp_path, "weight_name": "c"})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidArgumentError, match="has no adapter"):
        read(empty)
