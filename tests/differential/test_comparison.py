"""The comparison sees what differs: each change of a copy is told, and a copy alone is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.differential.comparison import differences, paths_in


class Model(torch.nn.Module):
    steps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = torch.nn.Linear(3, 4)
        self.second = torch.nn.Linear(3, 4, bias=False)
        self.first.weight = torch.nn.Parameter(torch.randn(4, 3, generator=generator))
        self.first.bias = torch.nn.Parameter(torch.zeros(4))
        self.second.weight = self.first.weight
        self.register_buffer("steps", torch.arange(3.0), persistent=False)
        self.config: dict[str, Any] = {
            "layers": 2,
            "inner": {"scale": float("nan")},
            "_name_or_path": "here",
        }
        self.prompts = ["query: "]

    def see(self, *_arguments: object) -> None:
        pass


def untie(model: Model) -> None:
    model.second.weight = torch.nn.Parameter(model.first.weight.detach().clone())


def flip(model: Model) -> None:
    with torch.no_grad():
        model.first.weight[0, 0] = torch.nextafter(model.first.weight[0, 0], torch.tensor(9.0))


def sign_of_zero(model: Model) -> None:
    with torch.no_grad():
        model.first.bias[0] = -0.0


def turned(model: Model) -> None:
    model.steps = torch.stack([torch.arange(3.0)] * 2, dim=1)[:, 0]


CHANGES: dict[str, Callable[[Model], object]] = {
    ".first.weight: other numbers": flip,
    ".first.bias: other numbers": sign_of_zero,
    " (tied)": untie,
    ".steps: strides": turned,
    ".steps: dtype": lambda m: setattr(m, "steps", m.steps.double()),
    ".steps: device": lambda m: setattr(m, "steps", m.steps.to("meta")),
    ".steps: shape": lambda m: setattr(m, "steps", m.steps[:2]),
    " (not saved)": lambda m: m.register_buffer("steps", m.steps),
    "requires_grad": lambda m: m.first.bias.requires_grad_(False),
    ".first.training": lambda m: m.first.eval(),
    " (hooks)": lambda m: m.register_forward_hook(m.see),
    ".config.layers: 3 instead of 2": lambda m: m.config.update(layers=3),
    ".config.inner.scale": lambda m: m.config["inner"].update(scale=1.0),
    ".config.more": lambda m: m.config.update(more=1),
    ".prompts[0]": lambda m: m.prompts.__setitem__(0, ""),
    ".prompts: 2 instead of 1 entries": lambda m: m.prompts.append(""),
    ".second: torch.nn": lambda m: setattr(m, "second", torch.nn.Identity()),
    ".third: the module is surplus": lambda m: setattr(m, "third", torch.nn.Identity()),
    ".first: the module is missing": lambda m: delattr(m, "first"),
}


@pytest.mark.parametrize("told", CHANGES)
def test_a_change_of_a_model_is_told(told: str) -> None:
    ours, theirs = Model(), Model()
    assert differences(ours, theirs) == []
    CHANGES[told](ours)
    found = differences(ours, theirs)
    assert any(told in line for line in found), found


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (torch.zeros(2), torch.zeros(2), True),
        (torch.zeros(2), torch.tensor([0.0, 1e-45]), False),
        (np.array([float("nan")]), np.array([float("nan")]), True),
        (np.zeros(2, np.float32), np.zeros(2), False),
        (Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2)), True),
        (Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2), "red"), False),
        ([{"score": 0.5}], [{"score": 0.5}], True),
        ([{"score": 0.5}], [{"score": 0.25}], False),
        ((1,), [1], False),
        (True, 1, False),
        ({1, 2}, {2, 1}, True),
        (SimpleNamespace(a=1), SimpleNamespace(a=2), False),
        ("org/name", "/a/folder", True),
        ("org/name", "org/other", False),
    ],
)
def test_outputs_are_compared(ours: Any, theirs: Any, same: bool) -> None:
    assert (differences(ours, theirs) == []) is same


def test_the_paths_that_an_object_holds_are_told() -> None:
    model = Model()
    model.config["_name_or_path"] = "/cache/models/a"
    model.first.loaded_from = Path("/cache/models/b")  # type: ignore[assignment]
    found = paths_in({"model": [model], "vocab_file": "/cache/vocab.txt"}, Path("/cache"))
    assert found == [
        ".model.0._modules.first.loaded_from: /cache/models/b",
        ".model.0.config._name_or_path: /cache/models/a",
    ]
