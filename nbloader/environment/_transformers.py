"""Classes and families of models in the files of transformers (from 4.40).

Version 4 lists every public name in its `__init__.py`. Version 5 lists those of the models nowhere:
on import it reads the `__all__` and the decorators of all their modules.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from nbloader.environment._sources import Found, Sources, backends_of, body_of

__all__ = ["find_class", "has_family", "needs_of"]

_TEXTS = re.compile(r"[\"'](\w+)[\"']")
_WORDS = re.compile(r"\w+")
_BASES = re.compile(r"^class \w+\(([^)]*)\)")
_PARAMETERS = re.compile(r"^    def __init__\(([^)]*)", re.MULTILINE)
_ATTRIBUTES = re.compile(r"^    attributes = \[([^\]]*)\]", re.MULTILINE)
_BY_TORCHVISION = re.compile(r"^class\s+\w+\s*\([^)]*\bTorchvisionBackend\b", re.MULTILINE)
_FAMILIES = ("auto_mappings.py", "configuration_auto.py")

_GENERATED_FROM = ("convert_", "modular_")
"""Modules that the library itself leaves out of its lists (`create_import_structure_from_path`)."""

_ALIASES = ("TokenizerFast", "ImageProcessorFast")
"""Names that version 5 gives to the classes without `Fast` (`_LazyModule.__getattr__`)."""

_IMPORTS = "utils/import_utils.py"
_CONVERTERS = "convert_slow_tokenizer.py"


def find_class(sources: Sources, name: str) -> Found | None:
    """Find a public class; None if the library has none of that name, nor takes another for it."""
    found = sources.listed(name)
    if found is not None or "define_import_structure" not in sources.text("__init__.py"):
        return found
    found = _in_models(sources, name)
    if found is not None:
        return found
    imports = sources.text(_IMPORTS)
    for suffix in _ALIASES:
        if name.endswith(suffix) and f'endswith("{suffix}")' in imports:
            plain = _in_models(sources, name.removesuffix("Fast"))
            if plain is not None:
                # Asked for by this name, there is no falling back to Pillow.
                more = {"torchvision"} if suffix.startswith("Image") else frozenset()
                return Found(plain.file, plain.backends | more)
    tokenizer = name.removesuffix("Fast")
    if "SLOW_TO_FAST_CONVERTERS" in imports and f'"{tokenizer}":' in sources.text(_CONVERTERS):
        return Found(None)  # It has no class of its own: the converter of another makes it.
    return None


def _in_models(sources: Sources, name: str) -> Found | None:
    plain = name.lower().replace("_", "")
    folders = [
        folder for folder in sources.names("models") if plain.startswith(folder.replace("_", ""))
    ]
    for folder in sorted(folders, key=len, reverse=True):
        for file in sources.names(f"models/{folder}"):
            if file.endswith(".py") and _exports(sources, f"models/{folder}/{file}", name):
                return _with_file(sources, PurePosixPath("models", folder, file), name)
    # The name of the folder is not the beginning of the class's: all modules then.
    for path in sources.holding(name, "models"):
        if _exports(sources, str(path), name):
            return _with_file(sources, path, name)
    return None


def _exports(sources: Sources, path: str, name: str) -> bool:
    """Tell whether a module exports a name: by its `__all__`, or by a decorator of the class."""
    if path.rpartition("/")[2].startswith(_GENERATED_FROM):
        return False
    text = sources.text(path)
    if f'"{name}"' in text.rpartition("\n__all__")[2]:
        return "\n__all__" in text
    return f"class {name}" in text and "@requires" in body_of(text, name)[0]


def _with_file(sources: Sources, path: PurePosixPath, name: str) -> Found:
    """Add what a module needs by its own name (`BASE_FILE_REQUIREMENTS`)."""
    module, text = path.stem, sources.text(path)
    needs: set[str] = set()
    if module.startswith("modeling_"):
        needs = {"torch"}
    elif module.startswith("video_processing_"):
        needs = {"vision", "torch", "torchvision"}
    elif module.startswith("image_processing_"):
        needs = {"vision"}
        by_torchvision = module.endswith("_fast") or _BY_TORCHVISION.search(text)
        # Without torchvision the library takes the processor for Pillow, where there is one.
        if by_torchvision and not _has_pillow_twin(sources, path.parent, name):
            needs |= {"torch", "torchvision"}
    return Found(path, frozenset(needs))


def _has_pillow_twin(sources: Sources, folder: PurePosixPath, name: str) -> bool:
    return any(
        file.startswith("image_processing_pil_") and f'"{name}Pil"' in sources.text(folder / file)
        for file in sources.names(folder)
    )


def needs_of(sources: Sources, found: Found, name: str, depth: int = 3) -> frozenset[str]:
    """Give the backends that a class needs.

    Args:
        depth: how many classes up a processor's parts are looked for.
    """
    if found.file is None:
        return found.backends
    text = sources.text(found.file)
    needs = found.backends | backends_of(text, name)
    if not name.endswith("Processor") or not found.file.stem.startswith("processing_"):
        return needs
    parts = _parts_of_processor(text, name)
    if not parts and depth:
        for base in _WORDS.findall(_bases(text, name)):
            inherited = find_class(sources, base) if base.endswith("Processor") else None
            if inherited is not None:
                needs |= needs_of(sources, inherited, base, depth - 1)
    # A processor loads its parts by the auto classes, whose tables want these packages.
    if "video_processor" in parts:
        needs |= {"vision", "torchvision"}
    if "image_processor" in parts:
        needs |= {"vision"}
    return needs


def _bases(text: str, name: str) -> str:
    opening = _BASES.match(body_of(text, name)[1])
    return opening[1] if opening else ""


def _parts_of_processor(text: str, name: str) -> frozenset[str]:
    """The parts that a processor loads: its `attributes`, or the arguments that it is made with."""
    body = body_of(text, name)[1]
    if attributes := _ATTRIBUTES.search(body):
        return frozenset(_TEXTS.findall(attributes[1]))
    parameters = _PARAMETERS.search(body)
    return frozenset(re.findall(r"\b\w+_processor\b", parameters[1])) if parameters else frozenset()


def has_family(sources: Sources, model_type: str) -> bool | None:
    """Tell whether a family is among the keys of `CONFIG_MAPPING_NAMES`."""
    text = "".join(sources.text(f"models/auto/{file}") for file in _FAMILIES)
    if "CONFIG_MAPPING_NAMES" not in text:
        return None
    entry = rf'"{re.escape(model_type)}"(?:, |: )"\w+Config"'
    return re.search(entry, text) is not None
