"""What the files of an installed package say about its classes, read as text.

Importing diffusers or transformers takes seconds; these files are read in milliseconds. Both keep
lists of their public names for lazy imports, and say in a few fixed ways what a class needs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath

_MOST_BYTES = 4_000_000
"""The largest file of these libraries has 400 kB."""

_ENTRY = re.compile(r'^\s*_import_structure\["([\w.]+)"\]|^ {4}"([\w.]+)": \[', re.MULTILINE)
_ENTRY_REACH = 60_000
"""Characters before a name in which its entry begins; the longest entry has 17,000."""

_STATEMENT = re.compile(r"^[^\s)\]}#].*$", re.MULTILINE)
_CONDITION = re.compile(r"^\s*if .*$", re.MULTILINE)
_AVAILABLE = re.compile(r"\bis_(\w+?)_available\(\)")
_REQUIRES = re.compile(r"@requires\(\s*backends=[(\[]([^)\]]*)[)\]]")
_REQUIRES_BACKENDS = re.compile(r"\brequires_backends\(\s*(?:self|cls)\s*,\s*([^)]*)\)")
_QUANTIZERS = "quantizers/auto.py"
_TABLE = re.compile(r"^AUTO_QUANTIZER_MAPPING\b[^{]*\{(.*?)^\}", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r"""^\s*["']([\w.-]+)["']\s*:""", re.MULTILINE)

_NAMES = re.compile(r"[\"']([A-Za-z_][\w-]*)")
_INSIDE_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_IMPORT = re.compile(r"^[ \t]*from (\.*)([\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)
_MOST_CLASSES = 60
"""Classes on the way from one to its root, all its bases counted; there are about ten."""

_METHOD = re.compile(r"^    (?:async )?def (\w+)\(", re.MULTILINE)
_MAKING = frozenset({"__init__", "from_pretrained", "from_config", "_from_config", "from_dict"})
"""The methods that a load calls; what others need is needed by who calls them."""


def is_class_name(name: str) -> bool:
    """Say whether a foreign name can be that of a class of these libraries."""
    return name.isascii() and name.isidentifier() and len(name) <= 100


@dataclass(frozen=True, slots=True)
class Found:
    """Where a class is defined.

    Attributes:
        file: path inside the package; None if only the lists of names have it.
        backends: what has to be installed before the package offers it, by the package's own names.
    """

    file: PurePosixPath | None
    backends: frozenset[str] = frozenset()


class Sources:
    """The text of the files of one package, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: dict[PurePosixPath, str] = {}

    @property
    def package(self) -> str:
        """The name of the package, as it is imported."""
        return self._folder.name

    def text(self, path: str | PurePosixPath) -> str:
        """Return the text of a file; empty if it cannot be read."""
        path = PurePosixPath(path)
        if path not in self._texts:
            try:
                with (self._folder / path).open("rb") as file:
                    self._texts[path] = file.read(_MOST_BYTES).decode("utf-8", "replace")
            except OSError:
                self._texts[path] = ""
        return self._texts[path]

    def names(self, folder: str | PurePosixPath) -> list[str]:
        """Name what is in a folder, sorted; empty if it cannot be read."""
        try:
            return sorted(entry.name for entry in (self._folder / folder).iterdir())
        except OSError:
            return []

    def holding(self, name: str, folder: str) -> Iterator[PurePosixPath]:
        """Look through all modules below a folder for those in which a name stands as a text."""
        return self._with(f'"{name}"', folder)

    def defining(self, name: str, folder: str) -> Iterator[PurePosixPath]:
        """Look through all modules below a folder for those that define a class with bases."""
        return self._with(f"\nclass {name}(", folder)

    def modules(self, folder: str) -> Iterator[PurePosixPath]:
        """Yield the paths of all modules below a folder, sorted."""
        for file in sorted((self._folder / folder).rglob("*.py")):
            yield PurePosixPath(file.relative_to(self._folder).as_posix())

    def _with(self, text: str, folder: str) -> Iterator[PurePosixPath]:
        wanted = text.encode()
        for path in self.modules(folder):
            try:
                found = wanted in (self._folder / path).read_bytes()
            except OSError:
                continue
            if found:
                yield path

    def listed(self, name: str, folder: str = "") -> Found | None:
        """Find a name in the lists of lazy imports, from the `__init__.py` of a folder downwards.

        None if that one does not have it.
        """
        init = self.text(PurePosixPath(folder, "__init__.py")).partition("\nif TYPE_CHECKING")[0]
        # As a key it stands in a table of stand-ins, beside the list of another module.
        entry = re.search(rf'"{re.escape(name)}"(?!:)', init)
        if entry is None:
            return None
        at = entry.start()
        backends = _condition(init[:at])
        entries = _ENTRY.findall(init[max(0, at - _ENTRY_REACH) : at])
        if not entries:
            return Found(None, backends)
        inner = PurePosixPath(folder, *"".join(entries[-1]).split("."))
        if self.text(f"{inner}.py"):
            return Found(PurePosixPath(f"{inner}.py"), backends)
        deeper = self.listed(name, str(inner)) or self.defined(name, str(inner))
        return Found(deeper.file, backends | deeper.backends) if deeper else Found(None, backends)

    def defined(self, name: str, folder: str) -> Found | None:
        """Find the module of a folder that defines a class."""
        opening = re.compile(rf"^class {name}\b", re.MULTILINE)
        for file in self.names(folder):
            path = PurePosixPath(folder, file)
            if file.endswith(".py") and opening.search(self.text(path)):
                return Found(path)
        return None


def public_names(text: str) -> list[str]:
    """Return the names in an `__init__.py`'s lists of lazy imports that can be those of classes."""
    return re.findall(r'"([A-Z]\w*)"', text.partition("\nif TYPE_CHECKING")[0])


def root_of(
    sources: Sources, file: PurePosixPath | None, name: str, roots: Collection[str]
) -> str | None:
    """Find the first of `roots` among a class and its bases; None if there is none of them.

    Args:
        file: where the class is defined; None if that is not known.
    """
    left = [(file, name)]
    for _ in range(_MOST_CLASSES):
        if not left:
            return None
        file, name = left.pop(0)
        if name in roots:
            return name
        if file is None:
            continue
        text = sources.text(file)
        bases = _bases(text, name)
        if bases is None:
            left.append(_imported_from(sources, file, name))
        else:
            left[:0] = [(file, base) for base in bases]
    return None


def _bases(text: str, name: str) -> list[str] | None:
    """The bases of a class, or what it is another name of; None if the text does not tell it."""
    opening = re.search(rf"^class {name}\b\s*(?:\(([^)]*)\))?", text, re.MULTILINE)
    if opening is None:
        other = re.search(rf"^{name} = (\w+)$", text, re.MULTILINE)
        return [other[1]] if other else None
    listed = _INSIDE_BRACKETS.sub("", opening[1] or "")
    listed = re.sub(r"#.*", "", listed)
    named = (each.strip().rpartition(".")[2] for each in listed.split(",") if "=" not in each)
    return [each for each in named if each.isidentifier()]


def _imported_from(
    sources: Sources, file: PurePosixPath, name: str
) -> tuple[PurePosixPath | None, str]:
    """The module of the package that a module imports a name from, and the name that it has there.

    The module is None where it is of another package.
    """
    for dots, module, names in _IMPORT.findall(sources.text(file)):
        imported = re.search(rf"(?:\b(\w+) as )?\b{name}\b(?! as\b)", names)
        if imported is None:
            continue
        name = imported[1] or name
        folder, within = file.parent, module
        for _ in dots[1:]:
            folder = folder.parent
        if not dots:
            package, _, within = module.partition(".")
            if package != sources.package:
                return None, name
            folder = PurePosixPath()
        inner = folder.joinpath(*within.split(".")) if within else folder
        if sources.text(f"{inner}.py"):
            return PurePosixPath(f"{inner}.py"), name
        found = sources.listed(name, str(inner)) or sources.defined(name, str(inner))
        return found.file if found and found.file else inner / "__init__.py", name
    return None, name


def quantizers(sources: Sources) -> frozenset[str] | None:
    """Name the methods of quantization that diffusers or transformers knows; None if unreadable."""
    table = _TABLE.search(sources.text(_QUANTIZERS))
    return frozenset(_KEY.findall(table[1])) if table else None


def _condition(before: str) -> frozenset[str]:
    """The backends on which a list of names depends, from the text before one of them."""
    statement = _last(_STATEMENT, before)
    if statement.startswith("else"):
        # try: if not is_torch_available(): raise ... / except: ... / else: the list
        statement = _last(_CONDITION, before[before.rfind("\ntry:") :])
    elif not statement.startswith("if"):
        return frozenset()
    return frozenset(_AVAILABLE.findall(statement))


def _last(pattern: re.Pattern[str], text: str) -> str:
    """The last line that matches; looked for from the end, because these texts are long."""
    for start in range(len(text), 0, -4000):
        # From the line that holds the place, so that no line is seen in part.
        begin = text.rfind("\n", 0, max(0, start - 4000)) + 1
        found = pattern.findall(text[begin:])
        if found:
            return str(found[-1])
    return ""


def body_of(text: str, name: str) -> tuple[str, str]:
    """Return what stands directly above a class (its decorators), and its own lines.

    Both are empty if the text does not define it.
    """
    opening = re.search(rf"^class {name}\b.*$", text, re.MULTILINE)
    if opening is None:
        return "", ""
    above = text[: opening.start()]
    rest = text[opening.end() :]
    end = re.search(r"^[A-Za-z_@]", rest, re.MULTILINE)
    return above[above.rfind("\n\n") :], opening[0] + (rest[: end.start()] if end else rest)


def backends_of(text: str, name: str) -> frozenset[str]:
    """Return the backends that a class asks for itself, when it is exported or made."""
    above, body = body_of(text, name)
    named = _REQUIRES.findall(above)
    methods = list(_METHOD.finditer(body))
    for method, following in zip_longest(methods, methods[1:]):
        if method[1] in _MAKING:
            own = body[method.start() : following.start() if following else None]
            named += _REQUIRES_BACKENDS.findall(own)
    return frozenset(backend for text in named for backend in _NAMES.findall(text))
