"""Classes and families of models in the files of transformers (from 4.40).

Version 4 lists every public name in its `__init__.py`. Version 5 lists those of the models nowhere:
on import it reads the `__all__` and the decorators of all their modules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from nbloader.libraries.sources import (
    Found,
    Sources,
    backends_of,
    body_of,
    public_names,
    root_of,
)
from nbloader.records import Form

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

_MODEL_ROOTS = frozenset({"PreTrainedModel", "_BaseAutoModelClass", "_BaseAutoBackboneClass"})
_PART_ROOTS = frozenset(
    {
        "AutoConfig",
        "AutoFeatureExtractor",
        "AutoImageProcessor",
        "AutoProcessor",
        "AutoTokenizer",
        "AutoVideoProcessor",
        "DecisionConfig",
        "FeatureExtractionMixin",
        "GenerationConfig",
        "ImageProcessingMixin",
        "PreTrainedConfig",
        "PreTrainedTokenizerBase",
        "PretrainedConfig",
        "ProcessorMixin",
        "RagTokenizer",
    }
)
"""The classes that have `from_pretrained` of their own; others inherit it from one of them.

Left out is `RagRetriever`, which loads a data set."""

_OTHER_FRAMEWORKS = re.compile(r"TF[A-Z]|Flax[A-Z]")
"""How the classes for TensorFlow and JAX of version 4 begin."""

_IMPORTS = "utils/import_utils.py"
_CONVERTERS = "convert_slow_tokenizer.py"


def find_class(sources: Sources, name: str, *, thorough: bool = True) -> Found | None:
    """Find a public class; None if the library has none of that name, nor takes another for it.

    Args:
        thorough: whether all modules are looked through for one that is not where its name or the
            tables of the auto classes tell. That takes up to 0.2 s.
    """
    found = sources.listed(name)
    if found is not None or "define_import_structure" not in sources.text("__init__.py"):
        return found
    found = _in_models(sources, name, thorough)
    if found is not None:
        return found
    imports = sources.text(_IMPORTS)
    for suffix in _ALIASES:
        if name.endswith(suffix) and f'endswith("{suffix}")' in imports:
            plain = _in_models(sources, name.removesuffix("Fast"), thorough)
            if plain is not None:
                # Asked for by this name, there is no falling back to Pillow.
                more = {"torchvision"} if suffix.startswith("Image") else frozenset()
                return Found(plain.file, plain.backends | more)
    tokenizer = name.removesuffix("Fast")
    if "SLOW_TO_FAST_CONVERTERS" in imports and f'"{tokenizer}":' in sources.text(_CONVERTERS):
        return Found(None)  # It has no class of its own: the converter of another makes it.
    return None


def form_of(sources: Sources, found: Found, name: str) -> Form | None:
    """Say what a class that was found makes of a repository; None if it has no `from_pretrained`
    that loads a model or a part of one with torch.
    """
    if _OTHER_FRAMEWORKS.match(name):
        return None
    if found.file is None:
        # The lists of names have all but the tokenizers that a converter makes.
        return Form.PART if name.removesuffix("Fast").endswith("Tokenizer") else None
    root = root_of(sources, found.file, name, _MODEL_ROOTS | _PART_ROOTS)
    if root is None and name.endswith(_ALIASES):
        root = root_of(sources, found.file, name.removesuffix("Fast"), _PART_ROOTS)
    if root is None:
        return None
    return Form.MODEL if root in _MODEL_ROOTS else Form.PART


def class_names(sources: Sources) -> set[str]:
    """Return the public names that can be those of classes. It reads all modules of the models."""
    named = set(public_names(sources.text("__init__.py")))
    if "define_import_structure" in sources.text("__init__.py"):
        for path in sources.modules("models"):
            if not path.name.startswith(_GENERATED_FROM):
                exported = sources.text(path).rpartition("\n__all__")[2]
                named.update(each for each in _TEXTS.findall(exported) if each[0].isupper())
    return named


def _in_models(sources: Sources, name: str, thorough: bool) -> Found | None:
    plain = name.lower().replace("_", "")
    folders = [
        folder for folder in sources.names("models") if plain.startswith(folder.replace("_", ""))
    ]
    for folder in sorted(folders, key=len, reverse=True):
        for file in sources.names(f"models/{folder}"):
            if file.endswith(".py") and _exports(sources, f"models/{folder}/{file}", name):
                return _with_file(sources, PurePosixPath("models", folder, file), name)
    if not thorough:
        return None
    # The name of the folder is not the beginning of the class's: all modules then, first those in
    # folders of the same initial (`ASTModel` in `audio_spectrogram_transformer`).
    folders = sorted(sources.names("models"), key=lambda folder: folder[:1] != plain[:1])
    for folder in folders:
        for path in sources.holding(name, f"models/{folder}"):
            if _exports(sources, str(path), name):
                return _with_file(sources, path, name)
    return None


def _exports(sources: Sources, path: str, name: str) -> bool:
    """Say whether a module exports a name: by its `__all__`, or by a decorator of the class."""
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
    """Return the backends that a class needs.

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
    """Say whether a family is among the keys of `CONFIG_MAPPING_NAMES`."""
    text = "".join(sources.text(f"models/auto/{file}") for file in _FAMILIES)
    if "CONFIG_MAPPING_NAMES" not in text:
        return None
    entry = rf'"{re.escape(model_type)}"(?:, |: )"\w+Config"'
    return re.search(entry, text) is not None


def base_class(sources: Sources, model_type: str) -> str | None:
    """Name the class that `AutoModel` builds for a family; None if its tables have none."""
    table = _body_of_table(sources.text(_AUTO), "MODEL_MAPPING_NAMES")
    found = re.search(rf'"{re.escape(model_type)}", \(?"(\w+)"', table)
    return found[1] if found else None


# -- tasks -----------------------------------------------------------------------------------------

_PIPELINES = "pipelines/__init__.py"
_AUTO = "models/auto/modeling_auto.py"

_TASK = re.compile(r'^    "([a-z0-9-]+)": \{\n(.*?)^    \},', re.MULTILINE | re.DOTALL)
_AUTO_CLASS = re.compile(r"\bAutoModel\w*\b")
_ALIAS = re.compile(r'^    "([\w-]+)": "([\w-]+)",', re.MULTILINE)
_REPLACED = re.compile(r'if task == "([\w-]+)":.*?return "([\w-]+)"', re.DOTALL)
_INCLUDED = re.compile(r"\*list\((\w+)\.items\(\)\)")
_ALWAYS_REQUIRED = re.compile(r'^        requires_backends\(self, "(\w+)"\)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Task:
    """A task that the library has a pipeline for.

    Attributes:
        name: in the library's own spelling.
        needs: backends without which the pipeline cannot be made or called.
        classes: the tables of the classes that its auto classes build, as text.
    """

    name: str
    needs: frozenset[str]
    classes: str

    def takes(self, model_type: str | None) -> bool:
        """Say whether a family is in its tables."""
        return model_type is not None and f'"{model_type}"' in self.classes

    def builds(self, class_name: str | None) -> bool:
        """Say whether a class is in its tables."""
        return class_name is not None and f'"{class_name}"' in self.classes


def tasks(sources: Sources) -> dict[str, Task] | None:
    """Return the tasks of the library, aliases too, in its own order; None if unreadable."""
    text = sources.text(_PIPELINES)
    listed = text.partition("\nSUPPORTED_TASKS = {")[2].partition("\nPIPELINE_REGISTRY")[0]
    found = {name: _task(sources, name, body) for name, body in _TASK.findall(listed)}
    aliases = text.partition("\nTASK_ALIASES = {")[2].partition("\n}")[0]
    replaced = text.partition("def _resolve_deprecated_task")[2].partition("\ndef ")[0]
    for other, name in (*_ALIAS.findall(aliases), *_REPLACED.findall(replaced)):
        if name in found:
            found[other] = found[name]
    return found or None


def _task(sources: Sources, name: str, body: str) -> Task:
    code = sources.text(f"pipelines/{name.replace('-', '_')}.py")  # so are they all named
    autos = dict.fromkeys(_AUTO_CLASS.findall(body))
    return Task(
        name=name,
        needs=frozenset(_ALWAYS_REQUIRED.findall(code)),
        classes="".join(_table(sources, auto) for auto in autos),
    )


def _table(sources: Sources, auto: str) -> str:
    """Return the text of the table that an auto class takes its classes from."""
    text = sources.text(_AUTO)
    mapping = re.search(
        rf"^class {auto}\(.*?_model_mapping = (\w+)", text, re.MULTILINE | re.DOTALL
    )
    if mapping is None:
        return ""
    table = _body_of_table(text, f"{mapping[1]}_NAMES")
    included = (_body_of_table(text, name) for name in _INCLUDED.findall(table))
    return "".join((table, *included))


def auto_takes(sources: Sources, auto: str, model_type: str) -> bool | None:
    """Say whether an auto class builds models of a family; None if its table cannot be read."""
    table = _table(sources, auto)
    return f'"{model_type}"' in table if table else None


def _body_of_table(text: str, name: str) -> str:
    return text.partition(f"\n{name} = OrderedDict(")[2].partition("\n)\n")[0]
