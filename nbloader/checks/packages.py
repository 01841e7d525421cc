"""Are the libraries there that a selection needs, new enough, and do they fit together?"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from packaging.version import InvalidVersion, Version

from nbloader.checks.facts import Facts, failed, passed, skipped, warned
from nbloader.checks.findings import Finding
from nbloader.checks.needs import (
    INSTEAD,
    Quantizations,
    indispensable_packages,
    method_name,
    quantizations_of,
    required_packages,
)
from nbloader.checks.parts import incomplete, not_taken, of_other_kinds
from nbloader.errors import (
    ConflictingPackagesError,
    DoesNotFitError,
    InvalidArgumentError,
    MissingPackageError,
    RestartNeededError,
    UnsupportedClassError,
    UnsupportedRepoError,
)
from nbloader.libraries import (
    NOT_RELEASED,
    RELATED,
    changed_since_import,
    distribution_name,
    found_conflicts,
    import_name,
    merged,
    normal_name,
    pip_hint,
)
from nbloader.records import (
    CheckResult,
    ClassFacts,
    Kind,
    PackageFacts,
    Selection,
    UnmetRequirement,
)
from nbloader.text import quote

_FASTER: Mapping[Kind, tuple[str, ...]] = {Kind.DIFFUSERS: ("accelerate",)}
"""Without them the library loads in another way, that takes longer and more memory. A placement
that needs them is left out by the fit."""

_OTHERS: Mapping[Kind, frozenset[str]] = {
    Kind.DIFFUSERS: frozenset({"sentence_transformers"}),
    Kind.SENTENCE_TRANSFORMERS: frozenset({"diffusers"}),
    Kind.TRANSFORMERS: frozenset({"diffusers", "peft", "sentence_transformers"}),
    Kind.CLASSES: frozenset({"sentence_transformers"}),
}
"""The related packages that a load does not import; the libraries import all the others, as far as
they are installed."""

_ENFORCED: Mapping[str, frozenset[str]] = {
    # `pkgs_to_check_at_runtime` in their dependency_versions_check.py, of diffusers 0.30 to 0.42
    # and transformers 4.44 to 5.23: with another version, their import fails.
    "diffusers": frozenset({"filelock", "numpy", "requests"}),
    "transformers": frozenset(
        {
            "filelock",
            "huggingface-hub",
            "numpy",
            "packaging",
            "pyyaml",
            "regex",
            "requests",
            "safetensors",
            "tokenizers",
            "tqdm",
        }
    ),
    "optimum-onnx": frozenset({"transformers"}),  # It imports what later ones have no more.
    # Its operators are compiled for one version of torch; with another one they are not there.
    "torchvision": frozenset({"torch"}),
}
"""The requirements that really have to be met. Others are written down with care, and most loads
work without them."""

# Its metadata stay what they were when the link was made, and pip does not write them anew.
_LINKED = "It is a link to its sources (editable): restart only if they changed since the import."

_UNDERNEATH = ("transformers", "huggingface_hub", "tokenizers", "safetensors")
"""What each of them is built on, so that its requirements matter as well."""

_WITH_GPU: Mapping[str, frozenset[str]] = {
    "diffusers": frozenset({"bitsandbytes", "nunchaku-lite"}),
}
"""Methods whose weights a library does not even load without a GPU."""


def packages(facts: Facts) -> CheckResult:
    """Are the packages there, and do they fit together?"""
    if facts.selection is None or not facts.loads or not facts.packages:
        return skipped("packages", "nothing is loaded")
    return check_packages(
        facts.selection,
        facts.packages,
        facts.classes,
        facts.unmet,
        quantizations=quantizations_of(facts.selection, facts.weights),
        asked=facts.asked,
        gpu=facts.machine is None or bool(facts.machine.gpus) or facts.machine.mps,
        handed_in=facts.handed_in,
        named=facts.named,
        notebook=facts.in_notebook,
    )


def check_packages(
    selection: Selection,
    packages: Mapping[str, PackageFacts],
    classes: Iterable[ClassFacts] = (),
    unmet: Iterable[UnmetRequirement] = (),
    *,
    quantizations: Quantizations = (),
    asked: Quantizations = (),
    gpu: bool = True,
    handed_in: Collection[str] = (),
    named: Collection[str] = (),
    notebook: bool = True,
) -> CheckResult:
    """Judge the installed packages; all that stops the load is mended by the one line of the hint.

    Args:
        packages: those of `inspected_packages`; one that is left out is not judged.
        classes: those that the selection names, as the installed libraries have them.
        unmet: requirements of `packages` that are not met.
        quantizations: those of `quantizations_of`.
        asked: libraries, each with a method that the caller asks it to quantize with.
        gpu: whether there is one.
        handed_in: names that the caller passes on to the library.
        named: the components that the caller names.
        notebook: whether the line is for a cell, and not for a terminal.
    """
    classes, quantizations, asked = tuple(classes), tuple(quantizations), tuple(asked)
    required = required_packages(selection, classes, (*quantizations, *asked))
    faster = _FASTER.get(selection.kind, ())
    found = [
        *_missing(
            required,
            faster,
            packages,
            indispensable_packages(selection, classes, (*quantizations, *asked)),
        ),
        *_unsupported(
            selection, classes, packages, frozenset(method for _, method in quantizations)
        ),
        *(() if gpu else _without_gpu(selection, quantizations, asked)),
        *incomplete(selection, classes, handed_in),
        *not_taken(selection, classes, named),
        *of_other_kinds(selection),
        *_unmet(unmet, required),
        *_conflicting(selection, packages),
        *_upgraded(selection, packages),
        *_uncompiled(packages),
    ]
    stopping = [finding for finding in found if finding.stops]
    told = stopping or found
    if not told:
        return passed("packages", _versions((*required, *faster), packages))
    message = "; ".join(finding.message for finding in told)
    hint = _hint(told, packages, notebook=notebook)
    link = next((finding.link for finding in told if finding.link), "")
    error = told[0].error
    if stopping:
        goes_on = not any(finding.certain for finding in stopping)
        return failed("packages", error, message, hint=hint, link=link, forceable=goes_on)
    return warned("packages", message, hint=hint, reference=error.reference, link=link)


# -- what can be wrong -----------------------------------------------------------------------------


def _hint(told: Iterable[Finding], packages: Mapping[str, PackageFacts], *, notebook: bool) -> str:
    """Say what mends all of it: one line to run, and one of advice."""
    change = merged(finding.change for finding in told)
    advice = " ".join(dict.fromkeys(finding.advice for finding in told if finding.advice))
    runs = change or any(finding.restart for finding in told)
    line = pip_hint(change, packages, notebook=notebook) if runs else ""
    return "\n".join(filter(None, (line, advice)))


def _missing(
    required: Iterable[str],
    faster: Iterable[str],
    packages: Mapping[str, PackageFacts],
    indispensable: Collection[str],
) -> Iterator[Finding]:
    missing = _not_installed(required, packages)
    slow = [name for name in _not_installed(faster, packages) if name not in missing]
    if missing:
        yield Finding(
            error=MissingPackageError,
            message=f"not installed: {_names(missing)}",
            certain=not set(missing).isdisjoint(indispensable),
            change=dict.fromkeys((*missing, *slow), ""),
        )
    if slow:
        yield Finding(
            error=MissingPackageError,
            message=f"not installed: {_names(slow)}; without it, loading is slower and takes more "
            "memory",
            stops=False,
            change=dict.fromkeys(slow, ""),
        )


_COMPILE = (
    "python -m compileall -q -j 0 "
    "$(python -c \"import sysconfig; print(sysconfig.get_path('purelib'))\")"
)
_LARGE = frozenset({"diffusers", "sentence_transformers", "torch", "transformers"})


def _uncompiled(packages: Mapping[str, PackageFacts]) -> Iterator[Finding]:
    """Find large packages without bytecode, which each process then compiles for itself."""
    slow = [
        name
        for name, found in packages.items()
        if name in _LARGE and not found.compiled and found.imported is None
    ]
    if slow:
        yield Finding(
            error=MissingPackageError,
            message=f"{_names(slow)} {'is' if len(slow) == 1 else 'are'} not compiled, so that "
            "imports take three times as long",
            stops=False,
            advice=f"Compile them once: {_COMPILE}",
        )


def _not_installed(names: Iterable[str], packages: Mapping[str, PackageFacts]) -> list[str]:
    return [
        name
        for name in names
        if name in packages
        and not any(_is_installed(packages, one) for one in (name, *INSTEAD.get(name, ())))
    ]


def _names(names: Iterable[str]) -> str:
    return ", ".join(distribution_name(name) for name in names)


def _unsupported(
    selection: Selection,
    classes: Iterable[ClassFacts],
    packages: Mapping[str, PackageFacts],
    methods: Collection[str] = (),
) -> Iterator[Finding]:
    families = {component.model_type for component in selection.components}
    code = {
        name: part.code
        for part in selection.components
        for name in (part.model_type, part.class_name)
        if part.code and name
    }
    lacking: dict[str, list[str]] = {}
    for fact in classes:
        if fact.found is False:
            # A class that belongs to one pipeline has the pipeline's folder for its library.
            top = fact.library.partition(".")[0]
            library = top if top in RELATED else "diffusers"
            kind = "model type " if fact.name in families else ""
            kind = "quantization " if fact.name in methods else kind
            what = f"{kind}{quote(fact.name)}"
            if fact.unfit:
                yield Finding(
                    error=UnsupportedRepoError,
                    certain=True,
                    message=f"{fact.name} does not take {selection.repo_id}: {fact.unfit}",
                    advice="Leave cls= out for what the files name, or name another class.",
                )
                continue
            if selection.task_asked and fact.name == selection.task:
                yield Finding(
                    error=InvalidArgumentError,
                    certain=True,
                    message=f"transformers {_version(packages, library) or '?'} has no pipeline "
                    f"for the task {what}",
                    advice="Leave out task= to get what the files name, or name another.",
                )
            elif library == "transformers" and fact.name in code:
                version = _version(packages, library) or "?"
                yield _own_code(selection, f"transformers {version} has no {what}", code[fact.name])
            elif fact.successor:
                yield _renamed(selection, fact, library, _version(packages, library) or "?")
            else:
                lacking.setdefault(library, []).append(what)
    for library, names in lacking.items():
        installed = _version(packages, library)
        if installed is not None:
            message = f"{distribution_name(library)} {installed} has no {', '.join(names[:4])}"
            if library == "diffusers" and _is_older(selection.written_with, installed):
                yield _removed(selection, message)
                continue
            yield Finding(
                error=UnsupportedClassError,
                certain=True,
                message=message,
                change={library: "" if installed == "?" else f">{installed.partition('+')[0]}"},
                advice="" if installed == "?" else NOT_RELEASED,
            )


def _is_older(written_with: str | None, installed: str) -> bool:
    """Say whether a repository was written with an older release than the installed one.

    A version of the sources between two releases counts as the later of them.
    """
    try:
        return Version(Version(written_with or "").base_version) < Version(installed)
    except InvalidVersion:
        return False


def _removed(selection: Selection, lacking: str) -> Finding:
    """Say of a class that an upgrade brings no more where an older version had it."""
    before = Version(selection.written_with or "").base_version
    return Finding(
        error=UnsupportedClassError,
        certain=True,
        message=f"{lacking}: {selection.repo_id} was written with diffusers "
        f"{selection.written_with}, and the class was renamed or taken out since",
        advice=f'An environment with "diffusers=={before}" has it: load it there with diffusers '
        "itself. Or look for a newer repository of the same model.",
    )


def _renamed(selection: Selection, fact: ClassFacts, library: str, installed: str) -> Finding:
    """Say of a class that is gone what took its place, and how to load it so."""
    successor = quote(fact.successor)
    part = next((each.name for each in selection.components if each.class_name == fact.name), None)
    if selection.kind is not Kind.DIFFUSERS:
        advice = f"Load it with {library}.{fact.successor}.from_pretrained({selection.repo_id!r})."
    elif part is None:
        advice = f"diffusers.{fact.successor}.from_pretrained({selection.repo_id!r}) loads it."
    else:
        advice = (
            f"Leave the part out, and put it in afterwards: "
            f'pipe = nbloader.load("{selection.repo_id}", loader_kwargs={{"{part}": None}}); '
            f"pipe.register_modules({part}=transformers.{fact.successor}.from_pretrained("
            f'"{selection.repo_id}", subfolder="{part}"))'
        )
    return Finding(
        error=UnsupportedClassError,
        certain=True,
        message=f"{distribution_name(library)} {installed} has no {quote(fact.name)}: {successor} "
        "took its place",
        advice=advice,
    )


def _without_gpu(
    selection: Selection, quantizations: Quantizations, asked: Quantizations
) -> Iterator[Finding]:
    """Find weights that cannot be loaded, or quantized, where there is no GPU."""
    for library, method in asked:
        if method_name(method) in _WITH_GPU.get(library, ()):
            yield Finding(
                error=DoesNotFitError,
                certain=True,
                message=f"{library} quantizes with {quote(method)} only where there is a GPU",
                advice="Use a machine with a GPU, or leave quantization_config out.",
            )
    for library, method in quantizations:
        if method_name(method) in _WITH_GPU.get(library, ()):
            yield Finding(
                error=DoesNotFitError,
                certain=True,
                message=f"weights of {selection.repo_id} are quantized with {quote(method)}, which "
                f"{library} loads only where there is a GPU",
                advice="Use a machine with a GPU, or look for a repository whose weights are not "
                "quantized.",
            )


def _own_code(selection: Selection, lacking: str, code: tuple[str, ...]) -> Finding:
    """Say that the repository names code for what transformers lacks."""
    files = ", ".join(quote(path) for path in code[:4])
    elsewhere = ", in another repository" if any("--" in path for path in code) else ""
    return Finding(
        error=UnsupportedRepoError,
        certain=True,
        message=f"{lacking}, and {selection.repo_id} names code of its own for it{elsewhere}: "
        f"{files}",
        advice="Read its code on the Hub; if you trust it, pass trust_remote_code=True.",
    )


def _unmet(unmet: Iterable[UnmetRequirement], required: Iterable[str]) -> Iterator[Finding]:
    # What torch requires is its build's own affair: Colab and Kaggle bring CUDA in other ways than
    # by the packages that its metadata name.
    own = {normal_name(distribution_name(name)) for name in (*required, *_UNDERNEATH)} - {"torch"}
    for fact in unmet:
        package = normal_name(fact.package)
        wanted = re.split(r"[^\w.-]", fact.requirement, maxsplit=1)[0]
        is_there = f"{fact.installed} is installed" if fact.installed else "it is not installed"
        enforced = package in own and normal_name(wanted) in _ENFORCED.get(package, ())
        yield Finding(
            error=ConflictingPackagesError,
            message=f"{fact.package} {fact.version} requires {fact.requirement}, but {is_there}",
            stops=enforced,
            certain=enforced,
            change=dict.fromkeys((import_name(package), import_name(wanted)), ""),
        )


def _conflicting(selection: Selection, packages: Mapping[str, PackageFacts]) -> Iterator[Finding]:
    for conflict in found_conflicts(packages):
        if conflict.kinds and selection.kind not in conflict.kinds:
            continue
        versions = " and ".join(
            f"{distribution_name(name)} {_version(packages, name)}" for name in conflict.packages
        )
        yield Finding(
            error=ConflictingPackagesError,
            message=f"{versions}: {conflict.why}",
            stops=bool(conflict.kinds),
            certain=bool(conflict.kinds),
            change=conflict.change,
            link=conflict.link,
        )


def _upgraded(selection: Selection, packages: Mapping[str, PackageFacts]) -> Iterator[Finding]:
    # Others may write their version differently in their metadata and in their code (`cv2`).
    for name in RELATED:
        fact = packages.get(name)
        if fact is not None and changed_since_import(fact):
            yield Finding(
                error=RestartNeededError,
                message=f"{distribution_name(name)} {fact.imported} is imported, but "
                f"{fact.installed} is installed",
                stops=name not in _OTHERS[selection.kind] and not fact.editable,
                restart=not fact.editable,
                advice=_LINKED if fact.editable else "",
            )


# -- names and versions ----------------------------------------------------------------------------


def _is_installed(packages: Mapping[str, PackageFacts], name: str) -> bool:
    return _version(packages, name) is not None


def _version(packages: Mapping[str, PackageFacts], name: str) -> str | None:
    fact = packages.get(name)
    return None if fact is None else fact.installed


def _versions(required: Iterable[str], packages: Mapping[str, PackageFacts]) -> str:
    return ", ".join(
        f"{distribution_name(name)} {_version(packages, name)}"
        for name in required
        if _is_installed(packages, name)
    )
