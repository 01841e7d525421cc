"""Classes in the files of peft: its `__init__.py` imports every public one by name."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from nbloader.libraries.sources import Sources, root_of
from nbloader.records import Form

_ROOTS = {
    "PeftConfigMixin": Form.PART,
    "PeftMixedModel": Form.ADAPTED,
    "PeftModel": Form.ADAPTED,
    "_BaseAutoPeftModel": Form.ADAPTED,
}
"""The classes whose `from_pretrained` the others inherit."""

_FILES = tuple(
    PurePosixPath(name) for name in ("auto.py", "peft_model.py", "mixed_model.py", "config.py")
)
_TUNERS = "tuners"

_IMPORTS = re.compile(r"^from \.[\w.]* import (\([^)]*\)|.*)", re.MULTILINE)
_CLASS_NAMES = re.compile(r"\b[A-Z]\w*[a-z]\w*\b")


def form_of(sources: Sources, name: str) -> Form | None:
    """Say what a public class makes of a repository; None if there is none of that name with
    `from_pretrained`.
    """
    if name not in class_names(sources):
        return None
    files = [file for file in _FILES if f"\nclass {name}(" in sources.text(file)]
    file = next(iter(files or sources.defining(name, _TUNERS)), None)
    root = root_of(sources, file, name, _ROOTS)
    return _ROOTS[root] if root else None


def class_names(sources: Sources) -> set[str]:
    """Return the public names that can be those of classes."""
    imports = _IMPORTS.findall(sources.text("__init__.py"))
    return {name for names in imports for name in _CLASS_NAMES.findall(names)}
