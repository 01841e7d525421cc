"""Two objects of the libraries compared as whole records: what differs, and where.

`differences` walks through both at once: modules by their tensors, hooks and attributes, then
whatever hangs on them: configurations, tokenizers, processors, schedulers, prompts, and plain
values. What a library or a load gives anew each time (names, paths, the commit) is left out.
`paths_in` walks through one and gives the places where a path of this machine stands.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

__all__ = ["differences", "paths_in"]

_MOST = 40
"""Differences that are told; a model of another class has thousands."""

_NAMES = frozenset(
    {
        # Where it came from.
        "_name_or_path",
        "name_or_path",
        "_commit_hash",
        "_internal_dict",  # a configuration of diffusers once more, names and all
        "base_model",
        "base_model_revision",
        "model_id",
        "model_name",
        # Who called it, and what it counted meanwhile.
        "call_count",
        "_generator",
        "_load_report",
    }
)

_FILES = re.compile(r"_files?$|^(?:vocab|merges|tokenizer|spm|name)_file$|^(?:_?cache_dir)$")
"""Attributes that hold the path of a file that was read, in the libraries' own downloads too."""

_PATH = re.compile(r"/[^/\s]+/\S*")

_SAMPLE = "A good cat, bad mats: 12 ünd [MASK]."

_DYNAMIC = re.compile(r"^(transformers_modules|diffusers_modules)\..*$")
"""Code of a repository becomes a module with a name of its own."""


def differences(ours: Any, theirs: Any) -> list[str]:
    """Say in what two objects differ, the first 40 differences; an empty list if in nothing.

    Of the same class, with the same tensors in every module: bit for bit, with dtype, shape,
    device, strides, `requires_grad` and the same ones tied; in the same mode, with the same hooks;
    and with the same configurations, tokenizers, processors, schedulers, prompts and other
    attributes. Outputs are compared as well: tensors, arrays, pictures, and what holds them.
    """
    walk = _Comparison()
    walk.compare("", ours, theirs)
    return walk.found[:_MOST]


class _Comparison:
    def __init__(self) -> None:
        self.found: list[str] = []
        self._seen: dict[tuple[int, int], tuple[Any, Any]] = {}

    def tell(self, path: str, what: str) -> None:
        self.found.append(f"{path or '.'}: {what}")

    def compare(self, path: str, ours: Any, theirs: Any) -> None:
        key = (id(ours), id(theirs))
        if ours is theirs or key in self._seen or len(self.found) >= _MOST:
            return
        self._seen[key] = ours, theirs  # kept, so that no other object takes the same id
        if _type(ours) != _type(theirs):
            self.tell(path, f"{_type(ours)} instead of {_type(theirs)}")
            return
        for is_one, compare in _RULES:
            if is_one(theirs):
                compare(self, path, ours, theirs)
                return
        self._attributes(path, ours, theirs)

    # -- values ----------------------------------------------------------------------------

    def values(self, path: str, ours: Any, theirs: Any) -> None:
        if ours != theirs and not (ours != ours and theirs != theirs):
            self.tell(path, f"{_short(ours)} instead of {_short(theirs)}")

    def texts(self, path: str, ours: str, theirs: str) -> None:
        # The plain load was from a folder, which ours must not be: `paths_in` sees to that.
        if ours != theirs and not _PATH.fullmatch(theirs):
            self.tell(path, f"{_short(ours)} instead of {_short(theirs)}")

    def mappings(self, path: str, ours: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> None:
        mine = {_plain_key(key): value for key, value in ours.items() if key not in _NAMES}
        other = {_plain_key(key): value for key, value in theirs.items() if key not in _NAMES}
        for key in sorted(mine.keys() | other.keys(), key=repr):
            place = f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]"
            if key not in other:
                self.tell(place, f"{_short(mine[key])} instead of nothing")
            elif key not in mine:
                self.tell(place, f"nothing instead of {_short(other[key])}")
            else:
                self.compare(place, mine[key], other[key])

    def sequences(self, path: str, ours: Sequence[Any], theirs: Sequence[Any]) -> None:
        if len(ours) != len(theirs):
            self.tell(path, f"{len(ours)} instead of {len(theirs)} entries")
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
            self.compare(f"{path}[{number}]", mine, other)

    def sets(self, path: str, ours: Set[Any], theirs: Set[Any]) -> None:
        self.compare(path, sorted(ours, key=repr), sorted(theirs, key=repr))

    def arrays(self, path: str, ours: Any, theirs: Any) -> None:
        import numpy as np

        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            self.tell(path, f"{ours.dtype}{ours.shape} instead of {theirs.dtype}{theirs.shape}")
        elif ours.dtype.hasobject:
            self.compare(path, ours.tolist(), theirs.tolist())
        elif ours.tobytes() != theirs.tobytes():
            count = np.count_nonzero(ours != theirs)
            self.tell(path, f"{count} of {ours.size} numbers are others")

    def pictures(self, path: str, ours: Any, theirs: Any) -> None:
        mine, other = ((p.mode, p.size, p.tobytes()) for p in (ours, theirs))
        if mine != other:
            self.tell(path, f"another picture: {mine[:2]} instead of {other[:2]}")

    def functions(self, path: str, ours: Any, theirs: Any) -> None:
        if _named(ours) != _named(theirs):
            self.tell(path, f"{_named(ours)} instead of {_named(theirs)}")

    def nothing(self, path: str, ours: Any, theirs: Any) -> None:
        """Compare what has no content beyond its class."""

    def dataclasses(self, path: str, ours: Any, theirs: Any) -> None:
        mine, other = _fields(ours), _fields(theirs)
        self.mappings(path, *({**f, "local_files_only": None} for f in (mine, other)))

    def _attributes(self, path: str, ours: Any, theirs: Any) -> None:
        """Compare what an object carries; what is no Python object, by how it shows itself."""
        if hasattr(theirs, "__dict__") or hasattr(type(theirs), "__slots__"):
            self.mappings(path, _carried(ours), _carried(theirs))
        else:
            mine, other = (re.sub(r" at 0x\w+", "", repr(each)) for each in (ours, theirs))
            self.values(path, mine, other)

    # -- torch -----------------------------------------------------------------------------

    def tensors(self, path: str, ours: Any, theirs: Any) -> None:
        mine, other = _facts(ours), _facts(theirs)
        if mine != other:
            told = [
                f"{key} {mine[key]} instead of {other[key]}"
                for key in mine
                if mine[key] != other[key]
            ]
            self.tell(path, ", ".join(told))
        elif other["device"] != "meta" and not _same_bits(ours, theirs):
            self.tell(path, f"other numbers: {_first(ours)} instead of {_first(theirs)}")

    def modules(self, path: str, ours: Any, theirs: Any) -> None:
        """Compare all modules inside two models, then what hangs on each."""
        mine = dict(ours.named_modules(remove_duplicate=False))
        other = dict(theirs.named_modules(remove_duplicate=False))
        for name in sorted(mine.keys() ^ other.keys()):
            whose = "is surplus" if name in mine else "is missing"
            self.tell(_join(path, name), f"the module {whose}")
        self.values(f"{path} (tied)", _tied(ours), _tied(theirs))
        for name in mine:
            if name in other:
                self._module(_join(path, name), mine[name], other[name])

    def _module(self, path: str, ours: Any, theirs: Any) -> None:
        if _type(ours) != _type(theirs):
            self.tell(path, f"{_type(ours)} instead of {_type(theirs)}")
            return
        self._seen[id(ours), id(theirs)] = ours, theirs
        for each in ("_parameters", "_buffers"):
            self.mappings(path, getattr(ours, each), getattr(theirs, each))
        self.values(
            f"{path} (not saved)",
            sorted(ours._non_persistent_buffers_set),
            sorted(theirs._non_persistent_buffers_set),
        )
        self.values(f"{path} (hooks)", _hooks(ours), _hooks(theirs))
        self.mappings(path, _carried(ours), _carried(theirs))

    # -- transformers, diffusers -----------------------------------------------------------

    def configurations(self, path: str, ours: Any, theirs: Any) -> None:
        self.compare(path, ours.to_dict(), theirs.to_dict())
        self._attributes(path, ours, theirs)

    def tokenizers(self, path: str, ours: Any, theirs: Any) -> None:
        for what, read in _OF_TOKENIZERS.items():
            self.compare(f"{path} ({what})", *(_tried(read, each) for each in (ours, theirs)))

    def serialized(self, path: str, ours: Any, theirs: Any) -> None:
        """Compare the core of a fast tokenizer."""
        self.values(path, ours.to_str(), theirs.to_str())


def _plain_key(key: Any) -> Any:
    return (
        key
        if isinstance(key, Hashable) and not isinstance(key, (type, types.FunctionType))
        else _named(key)
    )


def _type(value: Any) -> str:
    found = type(value)
    return f"{_module(found)}.{found.__qualname__}"


def _module(value: Any) -> str:
    return _DYNAMIC.sub(r"\1", getattr(value, "__module__", None) or "")


def _named(value: Any) -> str:
    """Name a class or a function; what was bound or partly applied, with what it holds."""
    inner = getattr(value, "func", None) or getattr(value, "__func__", None) or value
    return f"{_module(inner)}.{getattr(inner, '__qualname__', type(inner).__name__)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:160]}..."


def _fields(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}


_OF_MODULES = frozenset({"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})


def _carried(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, without those that are compared in another way."""
    found = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                found[name] = getattr(value, name)
    return {
        key: each
        for key, each in found.items()
        if isinstance(key, str)
        and key not in _OF_MODULES
        and key not in _NAMES
        and not key.startswith("__")
        and not (key.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")))
        and not _FILES.search(key)
    }


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if name else path


def _facts(tensor: Any) -> dict[str, str]:
    return {
        "class": type(tensor).__name__,
        "dtype": str(tensor.dtype),
        "shape": str(tuple(tensor.shape)),
        "strides": _strides(tensor),
        "device": str(tensor.device),
        "requires_grad": str(tensor.requires_grad),
    }


def _strides(tensor: Any) -> str:
    import torch

    return str(tuple(tensor.stride())) if tensor.layout == torch.strided else str(tensor.layout)


def _same_bits(ours: Any, theirs: Any) -> bool:
    import torch

    if theirs.layout != torch.strided:
        ours, theirs = ours.to_dense(), theirs.to_dense()
    mine, other = (
        t.detach().cpu().contiguous().flatten().view(torch.uint8) for t in (ours, theirs)
    )
    return bool(torch.equal(mine, other))


def _first(tensor: Any) -> str:
    return str(tensor.detach().to_dense().flatten()[:3].tolist())


def _tied(model: Any) -> list[list[str]]:
    """Return the groups of names that stand for one piece of memory."""
    groups: dict[tuple[str, int], list[str]] = defaultdict(list)
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in named:
        if tensor.device.type == "meta" or not tensor.numel():
            continue
        groups[str(tensor.device), tensor.data_ptr()].append(name)
    return sorted(sorted(names) for names in groups.values() if len(names) > 1)


def _hooks(module: Any) -> dict[str, list[str]]:
    return {
        kind: [_named(hook) for hook in vars(module).get(kind, {}).values()]
        for kind in (
            "_forward_hooks",
            "_forward_pre_hooks",
            "_backward_hooks",
            "_backward_pre_hooks",
        )
    }


_OF_TOKENIZERS: Mapping[str, Callable[[Any], Any]] = {
    "vocabulary": lambda t: t.get_vocab(),
    "special tokens": lambda t: t.special_tokens_map,
    "added tokens": lambda t: {key: str(value) for key, value in t.added_tokens_decoder.items()},
    "options": lambda t: {
        key: value
        for key, value in t.init_kwargs.items()
        if key not in ("is_local", "local_files_only") and not _FILES.search(key)
    },
    "length": lambda t: t.model_max_length,
    "sides": lambda t: (t.padding_side, t.truncation_side),
    "template": lambda t: t.chat_template,
    "sample": lambda t: dict(t(_SAMPLE)),
    "core": lambda t: getattr(t, "backend_tokenizer", None),
}


def _tried(read: Callable[[Any], Any], value: Any) -> Any:
    """Read something; where the library itself cannot, give the kind of the error."""
    try:
        return read(value)
    except Exception as error:
        return type(error).__name__


def _is(module: str, name: str) -> Callable[[Any], bool]:
    """Return a test of whether a value is of a class, without importing its library."""
    return lambda value: any(
        base.__name__ == name and base.__module__.partition(".")[0] == module
        for base in type(value).__mro__
    )


def _is_any(*classes: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, classes)


_FUNCTIONS = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodWrapperType,
    type,
    types.ModuleType,
)

_RULES: tuple[tuple[Callable[[Any], bool], Callable[..., None]], ...] = (
    (_is_any(str), _Comparison.texts),
    (_is_any(bool, int, float, complex, bytes, type(None), enum.Enum), _Comparison.values),
    (_is_any(Path), _Comparison.nothing),
    (_is_any(*_FUNCTIONS), _Comparison.functions),
    (lambda value: hasattr(value, "func") and callable(value), _Comparison.functions),
    (_is("torch", "Tensor"), _Comparison.tensors),
    (_is("torch", "Module"), _Comparison.modules),
    (_is("torch", "Generator"), _Comparison.nothing),
    (_is("transformers", "PreTrainedTokenizerBase"), _Comparison.tokenizers),
    (_is("tokenizers", "Tokenizer"), _Comparison.serialized),
    (_is("transformers", "PreTrainedConfig"), _Comparison.configurations),
    (_is("numpy", "ndarray"), _Comparison.arrays),
    (_is("PIL", "Image"), _Comparison.pictures),
    (_is_any(Mapping), _Comparison.mappings),
    (_is_any(list, tuple), _Comparison.sequences),
    (_is_any(Set), _Comparison.sets),
    (lambda value: dataclasses.is_dataclass(value), _Comparison.dataclasses),
)


# -- paths -----------------------------------------------------------------------------------------


def paths_in(value: Any, folder: Path) -> list[str]:
    """Say where in an object stands a path below `folder`, sorted.

    Attributes that name the file from which a tokenizer was read are left out: the libraries' own
    downloads leave them, too.
    """
    found: list[str] = []
    seen: dict[int, Any] = {}
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        path, each = left.pop()
        if isinstance(each, (str, Path)):
            if str(folder) in str(each):
                found.append(f"{path}: {each}")
        elif id(each) not in seen:
            seen[id(each)] = each
            left.extend((f"{path}.{name}", inner) for name, inner in _inner(each))
    return sorted(found)


_LEAVES = (*_FUNCTIONS, bool, int, float, complex, bytes, type(None))


def _inner(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what hangs on an object."""
    if isinstance(value, _LEAVES) or _is("torch", "Tensor")(value):
        return
    if isinstance(value, Mapping):
        yield from (
            (str(key), each) for key, each in list(value.items()) if not _FILES.search(str(key))
        )
    elif isinstance(value, (list, tuple, Set)):
        yield from ((str(number), each) for number, each in enumerate(value))
    else:
        carried = dict(getattr(value, "__dict__", {}))
        yield from ((name, each) for name, each in carried.items() if not _FILES.search(name))
