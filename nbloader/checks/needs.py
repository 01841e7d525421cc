"""The packages that a load needs, by the names of their imports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from nbloader.libraries import RELATED, conflicts, pip_hint
from nbloader.records import (
    AdapterKind,
    ClassFacts,
    ComponentWeights,
    Kind,
    PackageFacts,
    Selection,
)

_BY_KIND: Mapping[Kind, tuple[str, ...]] = {
    Kind.DIFFUSERS: ("torch", "diffusers"),
    Kind.SENTENCE_TRANSFORMERS: ("torch", "sentence_transformers"),
    Kind.TRANSFORMERS: ("torch", "transformers"),
    Kind.CLASSES: ("torch",),
}

# Components that need more than their library. The files of the library tell it too, but only where
# it is installed; this table completes the line that installs it.
_BY_CLASS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\w*VLProcessor|\w*VideoProcessor", ("torchvision", "PIL")),
    (r"\w*(ImageProcessor(Fast)?|FeatureExtractor)", ("PIL",)),
)

# By the `quant_method` of a configuration: what `validate_environment` of a library's quantizer
# asks for (`AUTO_QUANTIZER_MAPPING` of diffusers 0.42 and transformers 5.23; of the second also
# what it took before); each is loaded with accelerate. bitsandbytes_4bit and bitsandbytes_8bit are
# bitsandbytes. fp8 and mxfp4 want no more.
_BY_QUANTIZATION: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "diffusers": {
        "auto-round": ("auto_round",),
        "bfl": (),
        "bitsandbytes": ("bitsandbytes",),
        "gguf": ("gguf",),
        "modelopt": ("modelopt",),
        "nunchaku-lite": ("kernels",),
        "quanto": ("optimum.quanto",),
        "sdnq": ("sdnq",),
        "torchao": ("torchao",),
    },
    "transformers": {
        "aqlm": ("aqlm",),
        "auto-round": ("auto_round",),
        "awq": ("gptqmodel",),
        "bitnet": (),
        "bitsandbytes": ("bitsandbytes",),
        "compressed-tensors": ("compressed_tensors",),
        "eetq": ("kernels",),
        "fbgemm-fp8": ("kernels",),
        "fouroversix": ("fouroversix",),
        "fp-quant": ("fp_quant",),
        "fp8": (),
        "gptq": ("optimum", "gptqmodel"),
        "hqq": ("hqq",),
        "metal": ("kernels",),
        "mxfp4": (),
        "nvfp4": ("kernels",),
        "quanto": ("optimum.quanto",),
        "quark": ("quark",),
        "sdnq": ("sdnq",),
        "sinq": ("sinq",),
        "spqr": ("spqr_quant",),
        "torchao": ("torchao",),
        "vptq": ("vptq",),
    },
}

INSTEAD: Mapping[str, tuple[str, ...]] = {"gptqmodel": ("awq", "auto_gptq")}
"""What transformers 4 takes in place of a package that version 5 wants."""

_BY_PEFT = frozenset({AdapterKind.LORA, AdapterKind.LOHA, AdapterKind.LOKR})
"""What both libraries leave to peft."""

Quantizations: TypeAlias = Iterable[tuple[str, str]]
"""Libraries, each with a method that it has to read quantized weights of."""


def quantizations_of(
    selection: Selection, weights: Iterable[ComponentWeights]
) -> list[tuple[str, str]]:
    """Name the methods that weights of the selection are quantized with, by the library that reads
    them.

    Args:
        weights: what the tensors of each component take.
    """
    libraries = {
        part.name: "diffusers" if part.library == "diffusers" else "transformers"
        for part in selection.components
    }
    found = [
        (libraries.get(part.name, "transformers"), part.quantization)
        for part in weights
        if part.quantization
    ]
    return list(dict.fromkeys(found))


def required_packages(
    selection: Selection, classes: Iterable[ClassFacts] = (), quantizations: Quantizations = ()
) -> tuple[str, ...]:
    """Name the packages, as they are imported, that the load of a selection needs.

    Args:
        classes: those that the selection names, as the installed libraries have them.
        quantizations: those of `quantizations_of`.
    """
    more = [
        name
        for component in selection.components
        for pattern, names in _BY_CLASS
        if re.fullmatch(pattern, component.class_name or "")
        for name in names
    ]
    return tuple(dict.fromkeys((*indispensable_packages(selection, classes, quantizations), *more)))


def indispensable_packages(
    selection: Selection, classes: Iterable[ClassFacts] = (), quantizations: Quantizations = ()
) -> tuple[str, ...]:
    """Name those of the required packages without which not even a forced load goes on.

    The others are what a class is known by its name to want, in some versions of its library.
    Arguments are those of `required_packages`.
    """
    more: list[str] = []
    for component in selection.components:
        more.extend(component.needs)
        if (component.library or "").partition(".")[0] == "transformers":
            more.append("transformers")
    for fact in classes:
        more.extend(fact.needs)
    for library, method in quantizations:
        more.extend(_for_quantization(library, method))
    if any(one.kind in _BY_PEFT for one in selection.adapters):
        more.append("peft")
    libraries = (target.library.partition(".")[0] for target in selection.targets)
    return tuple(dict.fromkeys((*_BY_KIND[selection.kind], *libraries, *more)))


def inspected_packages(
    selection: Selection, classes: Iterable[ClassFacts] = (), quantizations: Quantizations = ()
) -> tuple[str, ...]:
    """Name the packages, as they are imported, whose versions `check_packages` looks at."""
    required = required_packages(selection, classes, quantizations)
    instead = (other for name in required for other in INSTEAD.get(name, ()))
    conflicting = (name for conflict in conflicts() for name in conflict.packages)
    return tuple(dict.fromkeys((*required, *instead, *RELATED, *conflicting)))


def install_hint(
    missing: Iterable[str], packages: Mapping[str, PackageFacts], *, notebook: bool = True
) -> str:
    """Return the line to paste that installs what is missing, by the names of the imports.

    Args:
        packages: those of `inspected_packages`.
        notebook: whether the line is for a cell, and not for a terminal.
    """
    return pip_hint(dict.fromkeys(missing, ""), packages, notebook=notebook)


def _for_quantization(library: str, method: str) -> tuple[str, ...]:
    known = _BY_QUANTIZATION.get(library, {})
    name = method_name(method)
    return (*known[name], "accelerate") if name in known else ()


def method_name(name: str) -> str:
    """Return the one form of a method's name: `bitsandbytes` of `bitsandbytes_4bit`."""
    name = name.lower().replace("_", "-")
    return "bitsandbytes" if name.startswith("bitsandbytes") else name
