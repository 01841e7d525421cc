"""Print what the imported libraries say of their public classes, as JSON.

It runs in a process of its own: it imports nearly every module of four libraries.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from typing import Any

_ROOTS = {
    "DiffusionPipeline": "pipeline",
    "ModelMixin": "model",
    "PreTrainedModel": "model",
    "_BaseAutoModelClass": "model",
    "PeftModel": "adapted",
    "PeftMixedModel": "adapted",
    "_BaseAutoPeftModel": "adapted",
    "BaseGuidance": "part",
    "DecisionConfig": "part",
    "FeatureExtractionMixin": "part",
    "GenerationConfig": "part",
    "ImageProcessingMixin": "part",
    "PeftConfigMixin": "part",
    "PreTrainedConfig": "part",
    "PreTrainedTokenizerBase": "part",
    "ProcessorMixin": "part",
    "SchedulerMixin": "part",
}


def main() -> None:
    """Print the form of each class, None without one, and what each pipeline takes."""
    forms: dict[str, str | None] = {}
    unjudged: list[str] = []
    takes: dict[str, tuple[list[str], list[str]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library in ("diffusers", "transformers", "sentence_transformers", "peft"):
            module = importlib.import_module(library)
            for name in dir(module):
                each = getattr(module, name) if name.isidentifier() else None
                if not isinstance(each, type) or name.startswith("_"):
                    continue
                key = f"{library}.{name}"
                if "_backends" in vars(each):  # It stands for one that needs another package.
                    unjudged.append(key)
                    continue
                forms[key] = _form(each)
                if forms[key] == "pipeline" and "." in each.__module__:
                    takes[key] = _taken(each)
    sys.stdout.write(json.dumps({"forms": forms, "stand_ins": unjudged, "takes": takes}))


def _form(each: type) -> str | None:
    if not hasattr(each, "from_pretrained"):
        return None
    found = (_ROOTS[base.__name__] for base in each.__mro__ if base.__name__ in _ROOTS)
    return next(found, "another")


def _taken(each: Any) -> tuple[list[str], list[str]]:
    """The components in the order of the signature, and those that may be left out."""
    expected, _settings = each._get_signature_keys(each)
    taken = [name for name in each._get_signature_types() if name in expected]
    assert sorted(taken) == expected, each
    return taken, [name for name in taken if name in each._optional_components]


if __name__ == "__main__":
    main()
