"""Places and classes that a call names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nbloader.errors import InvalidArgumentError
from nbloader.records import Form, Kind, Source
from nbloader.request.parts import (
    Classes,
    Parts,
    check_of_classes,
    read_classes,
    read_components,
)


def test_components_are_places_objects_or_left_out() -> None:
    made = object()
    given = {
        "vae": "org/vae",
        "controlnet": ["org/a", {"repo_id": "org/b"}],
        "safety_checker": None,
        "text_encoder": made,
        "image_encoder": [made],
    }
    assert read_components(given, repo_id="org/base", revision="main", endpoint=None) == Parts(
        sources={
            "vae": (Source(repo_id="org/vae"),),
            "controlnet": (Source(repo_id="org/a"), Source(repo_id="org/b")),
        },
        lists=("controlnet",),
        handed_in={"safety_checker": None, "text_encoder": made, "image_encoder": [made]},
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a b": "org/x"}, "not the name of a component"),
        ({"_class_name": "org/x"}, "not the name of a component"),
        ({"vae": "org/base@v1"}, "another revision"),
        ({"controlnet": ["org/a", "org/a"]}, "names a place twice"),
        ({"vae": ["org/a", "org/b"]}, "a pipeline has one vae"),
        ({"controlnet": ["org/a", object()]}, "places and objects side by side"),
        ({"controlnet": []}, "is an empty list"),
        ({"controlnet": [object(), 1.5]}, "=1.5 is no component"),
        ({"safety_checker": False}, "=False is no component"),
        ({"vae": dict}, "is the class dict, and no object of it"),
        ({"vae": torch.nn.Linear(2, 2)}, "is a Linear of torch, which is no component"),
        ({"controlnet": [torch.nn.Identity()]}, "is a Identity of torch"),
        ({1: "org/vae"}, "does not say by names"),
        ([("vae", "org/vae")], "does not say by names"),
        ("org/vae", "does not say by names"),
    ],
)
def test_components_that_cannot_be_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read_components(given, repo_id="org/base", revision="main", endpoint=None)


def test_arguments_of_a_class_that_is_not_asked_for_are_refused() -> None:
    given = {"AutoTokenizer": {"padding_side": "left"}, "num_labels": 2, "id2label": {0: "a"}}
    both = read_classes(("AutoModel", "AutoTokenizer"), kind=None, task=None)
    check_of_classes(both, given)
    check_of_classes(Classes(), given)
    with pytest.raises(InvalidArgumentError, match="cls= names no such class") as caught:
        check_of_classes(both, {"AutoProcessor": {"use_fast": True}})
    assert "It names AutoModel, AutoTokenizer" in caught.value.hint


def test_classes_are_looked_up_in_their_order() -> None:
    assert read_classes(None, kind=None, task=None) == Classes()
    both = read_classes(("AutoModelForCausalLM", "AutoTokenizer"), kind=None, task=None)
    assert both.as_tuple
    assert [group[0].form for group in both.targets] == [Form.MODEL, Form.PART]
    one = read_classes(["AutoModel"], kind=None, task=None)
    assert one.as_tuple
    assert [each.library for each in one.targets[0]] == ["transformers", "diffusers"]
    assert not read_classes("AutoModel", kind=None, task=None).as_tuple


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        ((), {}, "names no class"),
        (3, {}, "cls="),
        ("AutoModle", {}, "no such class"),
        ("AutoModel", {"kind": Kind.DIFFUSERS}, "say the same in two ways"),
        ("AutoModel", {"task": "fill-mask"}, "say the same in two ways"),
        (("AutoModel", "AutoModel"), {}, "names a class twice"),
        (("DiffusionPipeline", "AutoTokenizer"), {}, "is a whole model"),
    ],
)
def test_classes_that_cannot_be_are_refused(given: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        read_classes(given, **{"kind": None, "task": None, **more})
    assert caught.value.hint
