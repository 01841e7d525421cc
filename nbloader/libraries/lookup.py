"""The class that a caller names: which library has it, and what it makes of a repository.

Read from the files of the installed packages, without an import.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from nbloader.errors import InvalidArgumentError, MissingPackageError
from nbloader.libraries import diffusers, peft, sentence_transformers, transformers
from nbloader.libraries.packages import package_facts, package_folder
from nbloader.libraries.pip import RELATED, pip_hint
from nbloader.libraries.sources import Sources, is_class_name
from nbloader.records import Form, Target
from nbloader.text import quote

_Find = Callable[[str], Path | None]

_LIBRARIES = ("transformers", "diffusers", "sentence_transformers", "peft")
"""Where a class is looked for; the first stands first where several have it."""

_BASES = {
    "ModelMixin": "diffusers",
    "PreTrainedModel": "transformers",
    "ProcessorMixin": "transformers",
    "SchedulerMixin": "diffusers",
}
"""Classes whose `from_pretrained` only those that are made from them can do."""

_REMOTE = ("transformers_modules", "diffusers_modules")
"""The packages that the libraries put the code of repositories in."""

_LIKELY = (
    ("peft", re.compile(r"Peft|Lora|LoRA")),
    ("sentence_transformers", re.compile(r"SentenceTransformer|(Cross|Sparse|Vector)Encoder$")),
    (
        "diffusers",
        re.compile(
            r"Pipeline|Scheduler$|^Autoencoder|^UNet|ControlNet|Transformer[123]DModel|^MotionAdapter"
        ),
    ),
    (
        "transformers",
        re.compile(r"^Auto|For[A-Z]|Tokenizer|Processor|FeatureExtractor|Config$|Model$"),
    ),
)
"""Which library a name sounds like, where one of them is not installed."""

_NEAR = 0.7
_MOST_NEAR = 3
_MOST_JUDGED = 12


def look_up(
    cls: str | type, *, find: _Find = package_folder, notebook: bool = True
) -> tuple[Target, ...]:
    """Find the class that a caller names; one target for each library that has it.

    A name that several libraries have, such as `AutoModel`, gives several: transformers first.

    Args:
        cls: the name of a public class (`"AutoModel"`), the same with its library in front
            (`"diffusers.AutoModel"`), or the class. A class of a repository's own code stands under
            the library that it is made from; what it takes is not known.
        find: gives the folder of a package by the name of its import.
        notebook: whether hints are lines for a cell.

    Raises:
        InvalidArgumentError: no library has such a class, or it is none that can be loaded.
        MissingPackageError: the library that has it, or may have it, is not installed.
    """
    libraries = _Installed(find, notebook)
    if isinstance(cls, type):
        return libraries.of_object(cls)
    if not isinstance(cls, str):
        raise InvalidArgumentError(
            f"cls= is of the type {type(cls).__name__}",
            hint='Pass a class or its name: cls="AutoModelForCausalLM".',
        )
    library, _, name = cls.strip().rpartition(".")
    library = library.partition(".")[0]
    if not is_class_name(name) or (library and library not in _LIBRARIES):
        raise InvalidArgumentError(
            f"cls={quote(cls)} is no class of a library that nbloader knows",
            hint=f"Pass the name of a class of {', '.join(_LIBRARIES[:-1])} or {_LIBRARIES[-1]}: "
            'cls="AutoModelForCausalLM" or cls="diffusers.AutoModel".',
        )
    return libraries.named(name, library)


class _Installed:
    """The installed libraries, each opened once."""

    def __init__(self, find: _Find, notebook: bool) -> None:
        self._notebook = notebook
        folders = {library: find(library) for library in _LIBRARIES}
        self._sources = {
            library: Sources(folder) for library, folder in folders.items() if folder is not None
        }

    def named(self, name: str, library: str = "") -> tuple[Target, ...]:
        """Return the targets for a name, in one library or in all."""
        if library and library not in self._sources:
            raise self._missing(f"cls={quote(f'{library}.{name}')}: {library}", library)
        wanted = [library] if library else list(_LIBRARIES)
        if name in _BASES and _BASES[name] in wanted:
            raise InvalidArgumentError(
                f"cls={quote(name)}: other classes are made from it, and by itself it loads "
                "nothing",
                hint='Pass the class that is meant, or one that chooses it: cls="AutoModel".',
            )
        found = [each for one in wanted if (each := self._target(one, name))]
        if not found and "transformers" in wanted and "transformers" in self._sources:
            # Last, because it looks through all modules.
            late = self._target("transformers", name, thorough=True)
            found = [late] if late else []
        if found:
            return tuple(found)
        raise self._unknown(name, wanted)

    def of_object(self, cls: type) -> tuple[Target, ...]:
        """Return the target for a class that was imported."""
        package, name = _package(cls), cls.__qualname__
        if package in _LIBRARIES:
            return self.named(name, package) if is_class_name(name) else self._refused(cls)
        if package in _REMOTE and is_class_name(name) and (base := self._base(cls)) is not None:
            return (Target(library=base.library, class_name=name, form=base.form),)
        return self._refused(cls)

    def _refused(self, cls: type) -> tuple[Target, ...]:
        name = quote(f"{cls.__module__}.{cls.__qualname__}")
        if not any("from_pretrained" in vars(each) for each in cls.__mro__):
            raise InvalidArgumentError(
                f"cls= is the class {name}, which has no from_pretrained",
                hint='Pass a class that has it: cls="AutoModel".',
            )
        raise InvalidArgumentError(
            f"cls= is the class {name}, which is none of the public ones of "
            f"{', '.join(_LIBRARIES[:-1])} or {_LIBRARIES[-1]}",
            hint="Load it with its own from_pretrained: "
            f'{cls.__name__}.from_pretrained(nbloader.download("org/name")).',
        )

    def _base(self, cls: type) -> Target | None:
        """The nearest class of a library among those that a class is made from."""
        for each in cls.__mro__[1:]:
            if _package(each) in self._sources and is_class_name(each.__qualname__):
                target = self._target(_package(each), each.__qualname__, thorough=True)
                if target is not None:
                    return target
        return None

    def _target(self, library: str, name: str, *, thorough: bool = False) -> Target | None:
        sources = self._sources.get(library)
        if sources is None:
            return None
        form: Form | None
        match library:
            case "transformers":
                found = transformers.find_class(sources, name, thorough=thorough)
                form = transformers.form_of(sources, found, name) if found else None
            case "diffusers":
                return _of_diffusers(sources, name)
            case "sentence_transformers":
                form = sentence_transformers.form_of(sources, name)
            case _:
                form = peft.form_of(sources, name)
        return Target(library=library, class_name=name, form=form) if form else None

    # -- what is said where there is none ----------------------------------------------------------

    def _unknown(self, name: str, wanted: Sequence[str]) -> Exception:
        names = {library: self._names(library) for library in wanted if library in self._sources}
        having = next((library for library, known in names.items() if name in known), None)
        of_task = having == "transformers" and name.endswith("Pipeline")
        if of_task or name == "pipeline":
            return InvalidArgumentError(
                f"cls={quote(name)} is no class with from_pretrained",
                hint='Leave it out, and name the task: nbloader.load(..., task="text-generation").',
            )
        if having:
            return InvalidArgumentError(
                f"cls={quote(name)}: what {having} has under this name is no pipeline, model, "
                "tokenizer, processor, scheduler or configuration with from_pretrained",
                hint=f"Take it from {having} itself, with the files that "
                'nbloader.download("org/name") brings.',
            )
        others = (one for one in _LIBRARIES if one not in wanted)
        if other := next((one for one in others if self._target(one, name, thorough=True)), None):
            return InvalidArgumentError(
                f"cls={quote(name)}: {wanted[0]} has no such class",
                hint=f'It is one of {other}: cls="{other}.{name}".',
            )
        likely = next((one for one, pattern in _LIKELY if pattern.search(name)), None)
        if likely and likely in wanted and likely not in self._sources:
            return self._missing(f"cls={quote(name)} may be of {likely}, which", likely)
        versions = package_facts(names)
        told = ", ".join(f"{each} {versions[each].installed or '?'}" for each in names)
        return InvalidArgumentError(
            f"cls={quote(name)}: no such class in {told or 'any installed library'}",
            hint=self._near(name, names)
            or 'Pass a name as the library exports it: cls="AutoModelForCausalLM".',
        )

    def _near(self, name: str, names: Mapping[str, Collection[str]]) -> str:
        """Ask whether one of the nearest names of classes that can be loaded is meant."""
        by_lower: dict[str, list[tuple[str, str]]] = {}
        for library, known in names.items():
            for each in known:
                by_lower.setdefault(each.lower(), []).append((library, each))
        close = difflib.get_close_matches(name.lower(), by_lower, n=_MOST_JUDGED, cutoff=_NEAR)
        near = dict.fromkeys(
            quote(each)
            for lower in close
            for library, each in by_lower[lower]
            if self._target(library, each, thorough=True)
        )
        listed = " or ".join(f"cls={each}" for each in list(near)[:_MOST_NEAR])
        return f"Is one of these meant? {listed}" if near else ""

    def _names(self, library: str) -> set[str]:
        sources = self._sources[library]
        match library:
            case "transformers":
                return transformers.class_names(sources)
            case "diffusers":
                return diffusers.class_names(sources)
            case "sentence_transformers":
                return sentence_transformers.class_names(sources)
        return peft.class_names(sources)

    def _missing(self, what: str, library: str) -> MissingPackageError:
        line = pip_hint({library: ""}, package_facts(RELATED), notebook=self._notebook)
        return MissingPackageError(f"{what} is not installed", hint=line)


def _package(cls: type) -> str:
    return str(cls.__module__).partition(".")[0]


def _of_diffusers(sources: Sources, name: str) -> Target | None:
    found = sources.listed(name)
    form = diffusers.form_of(sources, found, name) if found else None
    if found is None or form is None:
        return None
    read = diffusers.components_of(sources, found, name) if form is Form.PIPELINE else None
    takes, optional = read or (None, ())
    return Target(library="diffusers", class_name=name, form=form, takes=takes, optional=optional)
