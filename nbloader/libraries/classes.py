"""Do the installed libraries have the classes of a selection, and what do those need?

Read from the files of the installed packages, without an import.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from nbloader.libraries import diffusers, peft, transformers
from nbloader.libraries.auto_pipelines import auto_pipeline
from nbloader.libraries.files import gguf_families, reads_checkpoints
from nbloader.libraries.packages import package_folder
from nbloader.libraries.sources import Sources, is_class_name, quantizers
from nbloader.records import ClassFacts, Kind, Selection

_Find = Callable[[str], Path | None]

_PACKAGES = {
    "invisible_watermark": "imwatermark",
    "jinja": "jinja2",
    "levenshtein": "Levenshtein",
    "mistral-common": "mistral_common",
    "onnx": "onnxruntime",
    "opencv": "cv2",
    "protobuf": "google.protobuf",
    "vision": "PIL",
}
"""The libraries' own names of packages (`BACKENDS_MAPPING`, `is_opencv_available`), as they are
imported; most have that name already."""

_UNREADABLE = {
    # It makes a CLIPProcessor from the folder of the module, whatever is encoded later.
    ("sentence_transformers", "CLIPModel"): ("PIL",),
}
"""What a class needs although its own file does not say so."""

_AUTO_PIPELINE = "AutoPipelineFor"

_REGISTERED = frozenset({"sdnq"})
"""Methods that a package of the same name adds to those of a library when it is imported."""

_OF_PROCESSOR = re.compile(r"processor_config\.json$|^(tokenizer|vocab|spiece)\b")
_MODEL_TYPE = re.compile(r"[a-zA-Z0-9][\w.-]{0,63}", re.ASCII)

_WORDS = re.compile(r"\w+")
_INSIDE = "sentence_transformers."
_OLD_PATHS = "util/deprecated_import.py"

_MODULE_FOLDERS = (
    "models",
    "base/modules",
    "sentence_transformer/modules",
    "sparse_encoder/models",
    "sparse_encoder/modules",
    "multi_vector_encoder/modules",
    "cross_encoder/modules",
)


def class_facts(
    selection: Selection,
    quantizations: Iterable[tuple[str, str]] = (),
    *,
    find: _Find = package_folder,
) -> tuple[ClassFacts, ...]:
    """Look for the classes that a selection names, for its families of models, and for quantizers.

    A family (`model_type`) stands among the classes of transformers, by its own name. With custom
    code, what is not found may be in the repository: its `found` is None. Of a pipeline, what comes
    from code is left out.

    Args:
        quantizations: libraries, each with a method that it has to read quantized weights of; they
            stand among the classes by the method's name.
        find: gives the folder of a package by the name of its import.
    """
    libraries = _Libraries(find)
    facts: list[ClassFacts] = []
    if selection.kind is Kind.DIFFUSERS and not selection.custom_pipeline:
        facts += libraries.of_pipeline(selection)
    facts += [
        libraries.family(name) if is_family else libraries.facts(library, name)
        for library, name, is_family in dict.fromkeys(_wanted(selection))
    ]
    if selection.kind is Kind.TRANSFORMERS:
        facts += libraries.of_task(selection)
    if selection.kind is Kind.CLASSES:
        facts += libraries.of_auto_class(selection)
    facts += libraries.of_files(selection)
    if selection.custom_code and selection.kind is not Kind.DIFFUSERS:
        facts = [fact if fact.found else replace(fact, found=None) for fact in facts]
    facts += [libraries.quantizer(library, method) for library, method in quantizations]
    return tuple(facts)


def _wanted(selection: Selection) -> Iterator[tuple[str, str, bool]]:
    """Library, name, and whether it is that of a family of models."""
    if selection.kind is Kind.SENTENCE_TRANSFORMERS and selection.class_name:
        yield "sentence_transformers", selection.class_name, False
    for component in selection.components:
        if selection.kind is Kind.DIFFUSERS and any(
            path.endswith(".py") for path in component.paths
        ):
            continue
        # transformers takes the class that its tables name for the family, whatever the
        # configuration names.
        by_family = selection.kind is Kind.TRANSFORMERS and component.model_type
        if component.library and component.class_name and not by_family:
            yield component.library, component.class_name, False
        if component.model_type and not component.checkpoint:
            yield "transformers", component.model_type, True


def _is_among(method: str, known: frozenset[str]) -> bool:
    """Say whether a method is known, by this name or as one of 4 or 8 bits."""
    forms = (method, f"{method}_4bit", f"{method}_8bit")
    return not {form.replace("_", "-") for form in forms}.isdisjoint(
        name.replace("_", "-") for name in known
    )


def _has_processor(selection: Selection) -> bool:
    """Say whether the root has a file that a processor or tokenizer is made of."""
    return any("/" not in file.path and _OF_PROCESSOR.search(file.path) for file in selection.files)


class _Libraries:
    """The installed libraries, each opened once."""

    def __init__(self, find: _Find) -> None:
        self._find = find
        self._sources: dict[str, Sources | None] = {}

    def family(self, name: str) -> ClassFacts:
        """Look for a family of models."""
        sources = self._open("transformers")
        found = None
        if sources is not None:
            found = bool(_MODEL_TYPE.fullmatch(name)) and transformers.has_family(sources, name)
        return ClassFacts(library="transformers", name=name, found=found)

    def quantizer(self, library: str, method: str) -> ClassFacts:
        """Look for what reads weights that a method has quantized."""
        sources = self._open(library)
        known = quantizers(sources) if sources is not None else None
        # In transformers it is its own package that makes it known.
        found = None if known is None or method in _REGISTERED else _is_among(method, known)
        return ClassFacts(library=library, name=method, found=found)

    def of_pipeline(self, selection: Selection) -> list[ClassFacts]:
        """Look for the class that a pipeline will be of: the caller's, else that of the files."""
        name = selection.built_class
        if name is None:
            return []
        if not name.startswith(_AUTO_PIPELINE) or not selection.class_name:
            return [self.pipeline(name)]
        handed = {part.argument or part.name: part.class_name for part in selection.components}
        chosen = auto_pipeline(
            name,
            selection.class_name,
            controlnet="controlnet" in handed,
            union=handed.get("controlnet") == "ControlNetUnionModel",
            find=self._find,
        )
        if chosen is not None:
            return [self.pipeline(chosen)]
        found = None if self._open("diffusers") is None else False
        why = f"diffusers makes none of a {selection.class_name}"
        return [ClassFacts(library="diffusers", name=name, found=found, unfit=why)]

    def of_auto_class(self, selection: Selection) -> list[ClassFacts]:
        """Look whether an auto class that is named builds models of the family of the files."""
        sources = self._open("transformers")
        model = next((part for part in selection.components if part.model_type), None)
        if sources is None or model is None or model.model_type is None or selection.custom_code:
            return []
        if model.checkpoint:
            return []  # The families of GGUF have names of their own.
        name = model.class_name or ""
        if not name.startswith("AutoModel") or name == "AutoModel":
            return []
        if transformers.auto_takes(sources, name, model.model_type) is not False:
            return []
        why = f"it builds no models of the family {model.model_type}"
        return [ClassFacts(library="transformers", name=name, found=False, unfit=why)]

    def of_files(self, selection: Selection) -> list[ClassFacts]:
        """Look for what reads the components that are taken from files of their own."""
        facts = []
        for component in selection.components:
            library, name = component.library or "", component.class_name or ""
            sources = self._open(library) if component.checkpoint and component.weights else None
            if sources is None:
                continue
            if library == "diffusers":
                what, found = f"reader of files for {name}", reads_checkpoints(sources, name)
            elif library == "transformers" and component.model_type:
                what = f"reader of GGUF for {component.model_type}"
                found = component.model_type in gguf_families(sources)
            else:
                continue
            facts.append(ClassFacts(library=library, name=what, found=found))
        return facts

    def pipeline(self, name: str) -> ClassFacts:
        """Look for the class of a pipeline, and for what it cannot do without."""
        fact = self.facts("diffusers", name)
        sources = self._open("diffusers")
        if sources is None or not fact.found:
            return replace(fact, successor=diffusers.SUCCESSORS.get(name, ""))
        found = sources.listed(name)
        required = diffusers.required_by(sources, found, name) if found else None
        known = diffusers.components_of(sources, found, name) if found else None
        return replace(fact, components=required or (), takes=known[0] if known else None)

    def facts(self, library: str, name: str) -> ClassFacts:
        """Look for a class."""
        top = library.partition(".")[0]
        look = {
            "diffusers": self._in_diffusers,
            "peft": self._in_peft,
            "transformers": self._in_transformers,
            "sentence_transformers": self._in_sentence_transformers,
        }.get(top, self._in_pipeline)
        found, needs = look(library, name) if is_class_name(name) else (False, ())
        packages = {_PACKAGES.get(need, need) for need in needs} - {top}
        return ClassFacts(
            library=library,
            name=name,
            found=found,
            needs=tuple(sorted(packages)),
            successor=self._successor(name) if found is False and top == "transformers" else "",
        )

    def _successor(self, name: str) -> str:
        """The image processor in place of a feature extractor: transformers 5 has few of those."""
        sources = self._open("transformers")
        successor = name.replace("FeatureExtractor", "ImageProcessor")
        if sources is None or not is_class_name(name) or successor == name:
            return ""
        return successor if transformers.find_class(sources, successor) else ""

    def of_task(self, selection: Selection) -> list[ClassFacts]:
        """Look for what the task of a selection needs, and for the class where no task names
        another.

        A task that the caller asks for is among the facts by its own name. The Hub's is not: where
        the library has none of that name, the class decides, which then has to be there. Packages
        are told only where the pipeline can be made of the files; else the model comes alone.
        """
        sources = self._open("transformers")
        known = transformers.tasks(sources) if sources is not None else None
        component = next((part for part in selection.components if part.name == "model"), None)
        if sources is None or known is None or component is None:
            return []
        named, family = component.class_name, component.model_type
        chosen = known.get(selection.task) if selection.task else None
        facts = []
        if selection.task_asked and selection.task:
            facts.append(
                ClassFacts(library="transformers", name=selection.task, found=chosen is not None)
            )
        elif chosen is None or not chosen.takes(family):
            chosen = next((task for task in known.values() if task.builds(named)), None)
            # Without a family the class was looked for already.
            if chosen is None and family is not None and named is not None:
                facts.append(replace(self.facts("transformers", named), needs=()))
        if chosen is not None and chosen.needs and _has_processor(selection):
            needs = sorted(_PACKAGES.get(need, need) for need in chosen.needs - {"torch"})
            name = f"the pipeline {chosen.name}"
            facts.append(
                ClassFacts(library="transformers", name=name, found=True, needs=tuple(needs))
            )
        return facts

    def _open(self, library: str) -> Sources | None:
        if library not in self._sources:
            folder = self._find(library)
            self._sources[library] = None if folder is None else Sources(folder)
        return self._sources[library]

    def _in_diffusers(self, _library: str, name: str) -> tuple[bool | None, Iterable[str]]:
        sources = self._open("diffusers")
        if sources is None:
            return None, ()
        found = sources.listed(name)
        return found is not None, diffusers.needs_of(sources, found, name) if found else ()

    def _in_pipeline(self, library: str, name: str) -> tuple[bool | None, Iterable[str]]:
        """Look for a class that belongs to one pipeline: its library is a folder of `pipelines`.

        diffusers takes classes of no other library than these and those above.
        """
        sources = self._open("diffusers")
        if sources is None:
            return None, ()
        if not is_class_name(library) or not sources.names(f"pipelines/{library}"):
            return False, ()
        found = diffusers.find_in_pipeline(sources, library, name)
        return found is not None, diffusers.needs_of(sources, found, name) if found else ()

    def _in_transformers(self, _library: str, name: str) -> tuple[bool | None, Iterable[str]]:
        sources = self._open("transformers")
        if sources is None:
            return None, ()
        found = transformers.find_class(sources, name)
        others = self._open("diffusers") if found is None else None
        renamed = diffusers.renamed_classes(others).get(name) if others else None
        if renamed is not None:
            name, found = renamed, transformers.find_class(sources, renamed)
        if found is None and others and diffusers.adds_to_transformers(others, name):
            return True, ()
        return found is not None, transformers.needs_of(sources, found, name) if found else ()

    def _in_peft(self, _library: str, name: str) -> tuple[bool | None, Iterable[str]]:
        sources = self._open("peft")
        return None if sources is None else peft.form_of(sources, name) is not None, ()

    def _in_sentence_transformers(
        self, library: str, name: str
    ) -> tuple[bool | None, Iterable[str]]:
        sources = self._open("sentence_transformers")
        if sources is None:
            return None, ()
        top, _, module = library.partition(".")
        found = _has_class(sources, module, name)
        return found, _UNREADABLE.get((top, name), ()) if found else ()


def _has_class(sources: Sources, module: str, name: str) -> bool:
    """Say whether a class can be imported from a module, by its path inside the package.

    New versions know the old paths; old ones do not know the new. Without a path, a class of a
    whole model or of a module is meant, wherever it is.
    """
    if not module:
        return _exports(sources, "__init__.py", name) or any(
            _defines(sources, folder, name) for folder in _MODULE_FOLDERS
        )
    if not all(part.isidentifier() for part in module.split(".")):
        return False
    path = module.replace(".", "/")
    if not _is_module(sources, path):
        # Old paths were those of single classes, and of packages of them.
        moved = re.search(
            rf'"{re.escape(_INSIDE + module)}":\s*"{_INSIDE}([\w.]+)"', sources.text(_OLD_PATHS)
        )
        if moved is None:
            return False
        path = moved[1].replace(".", "/")
    return _exports(sources, f"{path}.py", name) or _defines(sources, path, name)


def _is_module(sources: Sources, path: str) -> bool:
    return bool(sources.text(f"{path}.py") or sources.text(f"{path}/__init__.py"))


def _defines(sources: Sources, folder: str, name: str) -> bool:
    return sources.defined(name, folder) is not None or _exports(
        sources, f"{folder}/__init__.py", name
    )


def _exports(sources: Sources, file: str, name: str) -> bool:
    return name in _WORDS.findall(sources.text(file))
