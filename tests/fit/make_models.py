"""Write the tensors of well-known models, name by name, into `models/`.

    python -m tests.fit.make_models

They are those of the true classes with the published configurations. The names are the classes'
own in the installed versions; a few stored files have others for the same tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.architectures import ARCHITECTURES, Architecture, Part

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FOLDER", "describe", "file_name"]

FOLDER = Path(__file__).parent / "models"

_STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def file_name(repo_id: str) -> str:
    """The file of a repository in `FOLDER`."""
    return f"{repo_id.replace('/', '--')}.json"


def describe(architecture: Architecture) -> dict[str, Any]:
    """What is written of a repository: JSON values only."""
    return {
        "repo_id": architecture.repo_id,
        "kind": architecture.kind,
        "class_name": architecture.class_name,
        "published": dict(architecture.published),
        "dtypes": {variant: _STORED[dtype] for variant, dtype in architecture.dtypes.items()},
        "components": [_component(part) for part in architecture.parts],
    }


def _component(part: Part) -> dict[str, Any]:
    import torch

    with torch.device("meta"):
        shapes = _shapes(part.build(False))
    return {
        "name": part.name,
        "library": part.library,
        "class_name": part.class_name,
        "model_type": part.model_type,
        "tensors": _groups(shapes),
        "extra": {name: [dtype, list(shape)] for name, (dtype, shape) in part.extra.items()},
    }


def _shapes(model: nn.Module) -> dict[str, list[int]]:
    """The tensors that a file holds: a tied one stands there once."""
    stored = model.state_dict()
    named = {name: parameter for name, parameter in model.named_parameters() if name in stored}
    return {name: list(tensor.shape) for name, tensor in named.items()}


def _groups(shapes: Mapping[str, list[int]]) -> dict[str, Any]:
    """Equal blocks together: `blocks.3.weight` stands under `blocks`, with the numbers of all."""
    blocks: dict[str, dict[int, dict[str, list[int]]]] = {}
    plain: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        parts = name.split(".")
        place = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
        if place is None:
            plain[name] = shape
        else:
            prefix, rest = ".".join(parts[:place]), ".".join(parts[place + 1 :])
            blocks.setdefault(prefix, {}).setdefault(int(parts[place]), {})[rest] = shape
    groups: list[dict[str, Any]] = []
    for prefix, numbered in blocks.items():
        for number, inner in numbered.items():
            tensors = _groups(inner)
            if groups and groups[-1]["prefix"] == prefix and groups[-1]["tensors"] == tensors:
                groups[-1]["numbers"].append(number)
            else:
                groups.append({"prefix": prefix, "numbers": [number], "tensors": tensors})
    return {"shapes": plain, "groups": groups} if groups else {"shapes": plain}


def main() -> None:
    """Write all files anew."""
    FOLDER.mkdir(exist_ok=True)
    for architecture in ARCHITECTURES:
        text = json.dumps(describe(architecture), separators=(",", ":"))
        # One group a line, so that a change can be read.
        text = text.replace('{"prefix"', '\n{"prefix"').replace('{"name"', '\n{"name"')
        path = FOLDER / file_name(architecture.repo_id)
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
