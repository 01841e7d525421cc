"""What a pickle of torch would make, worked out on descriptions: nothing of it is run.

It follows torch's restricted unpickler (`torch/_weights_only_unpickler.py`, what
`torch.load(weights_only=True)` uses), opcode by opcode, and is stricter: it takes only what
`torch.save` writes for tensors and plain values, with arguments of the right types, storages that
are in the archive, and tensors that lie inside their storage. So what passes here loads there.
"""

from __future__ import annotations

import math
import pickle as opcodes
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from nbloader.selection.archive import Unclear

MAX_OPCODES = 2_000_000
"""What describes 50,000 tensors; bounds the time and the memory that a hostile file takes."""

_MAX_NUMBER = 2**63
_MAX_SIDES = 32

STORAGES = {
    "torch.BFloat16Storage": ("BF16", 2),
    "torch.BoolStorage": ("BOOL", 1),
    "torch.ByteStorage": ("U8", 1),
    "torch.CharStorage": ("I8", 1),
    "torch.ComplexDoubleStorage": ("C128", 16),
    "torch.ComplexFloatStorage": ("C64", 8),
    "torch.DoubleStorage": ("F64", 8),
    "torch.FloatStorage": ("F32", 4),
    "torch.HalfStorage": ("F16", 2),
    "torch.IntStorage": ("I32", 4),
    "torch.LongStorage": ("I64", 8),
    "torch.ShortStorage": ("I16", 2),
    "torch.storage.UntypedStorage": ("U8", 1),
}
"""Classes of storages, each with its dtype by the name of safetensors, and bytes of an element."""

DTYPES = {
    "torch.bfloat16": ("BF16", 2),
    "torch.bool": ("BOOL", 1),
    "torch.complex128": ("C128", 16),
    "torch.complex64": ("C64", 8),
    "torch.float16": ("F16", 2),
    "torch.float32": ("F32", 4),
    "torch.float64": ("F64", 8),
    "torch.float8_e4m3fn": ("F8_E4M3", 1),
    "torch.float8_e4m3fnuz": ("F8_E4M3FNUZ", 1),
    "torch.float8_e5m2": ("F8_E5M2", 1),
    "torch.float8_e5m2fnuz": ("F8_E5M2FNUZ", 1),
    "torch.int16": ("I16", 2),
    "torch.int32": ("I32", 4),
    "torch.int64": ("I64", 8),
    "torch.int8": ("I8", 1),
    "torch.uint8": ("U8", 1),
}
"""The same of dtypes."""

_WITH_GRADIENT = frozenset({"BF16", "C128", "C64", "F16", "F32", "F64"})


class Refused(Exception):  # noqa: N818 - no fault of the program, but an answer
    """The pickle names something that is neither a tensor nor a plain value.

    Attributes:
        name: as the pickle writes it, such as `os.system`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that the pickle describes.

    Attributes:
        dtype: by the name of safetensors.
        storage: the key of what holds its elements.
        start: of its elements in there, in elements.
        size: bytes.
    """

    dtype: str
    storage: str
    start: int
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    element: int
    key: str
    count: int
    untyped: bool


@dataclass(frozen=True, slots=True)
class _Parameter:
    tensor: Tensor


@dataclass(eq=False, slots=True)
class _Dict:
    """A dictionary.

    Attributes:
        ordered: whether it is a `collections.OrderedDict`.
        closed: whether it is in a place that has to stay empty.
    """

    ordered: bool = False
    closed: bool = False
    items: dict[object, object] = field(default_factory=dict)


class _Unpickler:
    """The machine that a pickle is a program for, on descriptions of its values."""

    def __init__(self, content: bytes, storages: Mapping[str, int]) -> None:
        self._content = content
        self._storages = storages
        self._position = 0
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._seen: dict[str, _Storage] = {}

    def value(self) -> Any:
        """Run to the end, and give the value."""
        if self._take(2) not in (b"\x80\2", b"\x80\3"):
            raise Unclear("its data.pkl is of a protocol that torch does not load")
        for _ in range(MAX_OPCODES):
            opcode = self._take(1)
            if opcode == opcodes.STOP:
                break
            step = _STEPS.get(opcode)
            if step is None:
                raise Unclear("its data.pkl has an opcode that torch does not load")
            step(self)
        else:
            raise Unclear("its data.pkl is too long to look through")
        if len(self._stack) != 1 or self._marks or self._position != len(self._content):
            raise Unclear("its data.pkl does not end where it should")
        return self._stack[0]

    # -- bytes and stack -------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        end = self._position + count
        taken = self._content[self._position : end]
        if len(taken) < count:
            _broken()
        self._position = end
        return taken

    def _line(self) -> str:
        end = self._content.index(b"\n", self._position)
        line = self._content[self._position : end]
        self._position = end + 1
        return line.decode()

    def _number(self, format: str) -> Any:  # noqa: A002 - that of struct
        (number,) = struct.unpack(format, self._take(struct.calcsize(format)))
        return number

    def _to_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    # -- one for each opcode ---------------------------------------------------------------

    def mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def global_(self) -> None:
        name = f"{self._line()}.{self._line()}"
        if name not in ALLOWED:
            raise Refused(name)
        self._stack.append(_Global(name))

    def reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        call = _CALLS.get(function.name) if type(function) is _Global else None
        if call is None or type(arguments) is not tuple:
            raise Unclear("its data.pkl calls something that makes no tensor")
        try:
            self._stack.append(call(*arguments))
        except TypeError:
            raise Unclear(
                f"its data.pkl calls {function.name} with more or less than torch writes"
            ) from None

    def build(self) -> None:
        state, value = self._stack.pop(), self._stack[-1]
        # The `_metadata` of a state dict is an attribute of it.
        if type(value) is not _Dict or not value.ordered or value.closed:
            raise Unclear("its data.pkl sets the state of something that is not a dictionary")
        if type(state) is not _Dict or set(state.items) != {"_metadata"}:
            raise Unclear("its data.pkl sets attributes that torch does not write")

    def storage(self) -> None:
        identity = self._stack.pop()
        match identity if type(identity) is tuple else None:
            case ("storage", _Global(name), str(key), str(), int(count)) if name in STORAGES:
                dtype, element = STORAGES[name]
            case _:
                raise Unclear("its data.pkl asks for something that is not a storage")
        untyped = name == "torch.storage.UntypedStorage"
        found = _Storage(dtype, element, key, count, untyped)
        # torch takes what it has by that key already, whatever its dtype is said to be now.
        if self._seen.setdefault(key, found) != found:
            raise Unclear("its data.pkl describes a storage in two ways")
        if type(count) is not int or self._storages.get(key) != element * count:
            raise Unclear("its data.pkl names a storage that is not there, or of another size")
        self._stack.append(found)

    def append(self) -> None:
        item = self._stack.pop()
        self._list().append(item)

    def appends(self) -> None:
        items = self._to_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        if type(target := self._stack[-1]) is not list:
            raise Unclear("its data.pkl appends to something that is not a list")
        return target

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self) -> None:
        self._set(self._to_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not _Dict or target.closed or len(items) % 2:
            raise Unclear("its data.pkl sets items of something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # No tuples: to hash one that holds itself many times over takes for ever.
            if type(key) not in (str, int, float, bool, bytes, type(None)):
                raise Unclear("its data.pkl has a dictionary with odd keys")
            target.items[key] = value

    def tuple_(self) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            _broken()
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def text(self) -> None:
        self._stack.append(str(self._take(self._number("<I")), "utf-8", "surrogatepass"))

    def long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._number("B")), "little", signed=True))

    def get(self, format: str) -> None:  # noqa: A002 - that of struct
        self._stack.append(self._memo[self._number(format)])

    def put(self, format: str) -> None:  # noqa: A002 - that of struct
        self._memo[self._number(format)] = self._stack[-1]

    def push(self, make: Callable[[], object]) -> None:
        self._stack.append(make())

    def push_number(self, format: str) -> None:  # noqa: A002 - that of struct
        self._stack.append(self._number(format))


# The opcodes of protocol 2 that `torch.save` writes.
_STEPS: dict[bytes, Callable[[_Unpickler], None]] = {
    opcodes.APPEND: _Unpickler.append,
    opcodes.APPENDS: _Unpickler.appends,
    opcodes.BINFLOAT: lambda machine: machine.push_number(">d"),
    opcodes.BINGET: lambda machine: machine.get("B"),
    opcodes.BININT1: lambda machine: machine.push_number("B"),
    opcodes.BININT2: lambda machine: machine.push_number("<H"),
    opcodes.BININT: lambda machine: machine.push_number("<i"),
    opcodes.BINPERSID: _Unpickler.storage,
    opcodes.BINPUT: lambda machine: machine.put("B"),
    opcodes.BINUNICODE: _Unpickler.text,
    opcodes.BUILD: _Unpickler.build,
    opcodes.EMPTY_DICT: lambda machine: machine.push(_Dict),
    opcodes.EMPTY_LIST: lambda machine: machine.push(list),
    opcodes.EMPTY_TUPLE: lambda machine: machine.push(tuple),
    opcodes.GLOBAL: _Unpickler.global_,
    opcodes.LONG1: _Unpickler.long,
    opcodes.LONG_BINGET: lambda machine: machine.get("<I"),
    opcodes.LONG_BINPUT: lambda machine: machine.put("<I"),
    opcodes.MARK: _Unpickler.mark,
    opcodes.NEWFALSE: lambda machine: machine.push(lambda: False),
    opcodes.NEWTRUE: lambda machine: machine.push(lambda: True),
    opcodes.NONE: lambda machine: machine.push(lambda: None),
    opcodes.REDUCE: _Unpickler.reduce,
    opcodes.SETITEM: _Unpickler.set_item,
    opcodes.SETITEMS: _Unpickler.set_items,
    opcodes.TUPLE1: lambda machine: machine.tuple_of(1),
    opcodes.TUPLE2: lambda machine: machine.tuple_of(2),
    opcodes.TUPLE3: lambda machine: machine.tuple_of(3),
    opcodes.TUPLE: _Unpickler.tuple_,
}

TAKEN = frozenset(
    {*_STEPS, opcodes.STOP, opcodes.PROTO}
    # What makes an object without its constructor, what torch 2.7 added, and text of Python 2.
    | {opcodes.NEWOBJ, opcodes.EMPTY_SET, opcodes.SHORT_BINSTRING}
)
"""All opcodes that some version of torch's unpickler takes. Protocols 4 and 5 have others, such as
MEMOIZE in place of BINPUT."""


# -- what a pickle of tensors calls --------------------------------------------------------


def _ordered_dict() -> _Dict:
    return _Dict(ordered=True)


def _tensor(storage: Any, start: Any, shape: Any, stride: Any) -> Tensor:
    if type(storage) is not _Storage:
        _odd_tensor()
    return _view(storage, storage.dtype, storage.element, start, shape, stride)


def _tensor_v2(
    storage: Any, start: Any, shape: Any, stride: Any, gradient: Any, hooks: Any
) -> Tensor:
    tensor = _tensor(storage, start, shape, stride)
    _check_gradient(gradient, tensor.dtype)
    _check_hooks(hooks)
    return tensor


def _tensor_v3(
    storage: Any, start: Any, shape: Any, stride: Any, gradient: Any, hooks: Any, dtype: Any
) -> Tensor:
    if type(storage) is not _Storage or type(dtype) is not _Global or gradient is not False:
        _odd_tensor()
    if not storage.untyped or dtype.name not in DTYPES:
        _odd_tensor()
    _check_hooks(hooks)
    return _view(storage, *DTYPES[dtype.name], start, shape, stride)


def _parameter(tensor: Any, gradient: Any, hooks: Any) -> _Parameter:
    if type(tensor) is not Tensor:
        _odd_tensor()
    _check_gradient(gradient, tensor.dtype)
    _check_hooks(hooks)
    return _Parameter(tensor)


def _parameter_with_state(tensor: Any, gradient: Any, hooks: Any, state: Any) -> _Parameter:
    # transformers leaves this mark on the parameters that it has loaded.
    if type(state) is not _Dict or state.items != {"_is_hf_initialized": True}:
        raise Unclear("its data.pkl sets attributes that torch does not write")
    return _parameter(tensor, gradient, hooks)


def _view(
    storage: _Storage, dtype: str, element: int, start: Any, shape: Any, stride: Any
) -> Tensor:
    """Return the tensor that lies in a storage so, once it is seen to lie inside it."""
    sides, steps = _numbers(shape), _numbers(stride)
    if len(sides) != len(steps) or len(sides) > _MAX_SIDES:
        _odd_tensor()
    if type(start) is not int or not 0 <= start < _MAX_NUMBER:
        _odd_tensor()
    count = math.prod(sides)
    last = start + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
    if (last + 1 if count else start) * element > storage.count * storage.element:
        _odd_tensor()
    return Tensor(dtype, storage.key, start, sides, count * element)


def _numbers(value: Any) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > _MAX_SIDES:
        _odd_tensor()
    if not all(type(number) is int and 0 <= number < _MAX_NUMBER for number in value):
        _odd_tensor()
    return value


def _check_gradient(value: Any, dtype: str) -> None:
    if type(value) is not bool or (value and dtype not in _WITH_GRADIENT):
        _odd_tensor()


def _check_hooks(value: Any) -> None:
    """Hooks are called by autograd: there may be none, now or later."""
    if type(value) is not _Dict or not value.ordered or value.items:
        _odd_tensor()
    value.closed = True


def _size(numbers: Any) -> tuple[int, ...]:
    return _numbers(numbers)


def _device(kind: Any, index: Any = 0) -> str:
    if kind not in ("cpu", "cuda", "meta") or type(index) is not int or not 0 <= index < 64:
        raise Unclear("its data.pkl names an odd device")
    return str(kind)


def _bytes(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise Unclear("its data.pkl encodes text in an odd way")
    return text.encode("latin1")


_CALLS: dict[str, Callable[..., object]] = {
    "_codecs.encode": _bytes,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter_with_state,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch.device": _device,
}

ALLOWED = frozenset({*_CALLS, *STORAGES, *DTYPES})
"""What a pickle may name. A part of `_get_allowed_globals()` in torch 2.6's
`torch/_weights_only_unpickler.py`, the first that is safe (CVE-2025-32434); left out is what no
checkpoint of a model has: sparse, quantized, nested and wrapped tensors, sets, dtypes that came
later."""


MAX_DEPTH = 4
"""How many dictionaries lie in each other at most; they may hold themselves."""


def value_of(content: bytes, storages: Mapping[str, int]) -> object:
    """Return a description of what a pickle would make.

    A dictionary is a `dict`, as are those in it; deeper than state dicts lie they are empty. A
    tensor or a parameter is a `Tensor`.

    Args:
        storages: bytes of each storage in the archive, by its key.

    Raises:
        Refused: it names what is not in `ALLOWED`.
        Unclear: it is not what `torch.save` writes.
    """
    try:
        value = _Unpickler(content, storages).value()
    except (IndexError, KeyError, TypeError, ValueError):
        # Too few values, nothing by that number, a key that is none, no UTF-8.
        _broken()
    return _plain(value, MAX_DEPTH)


def _plain(value: object, depth: int) -> object:
    if type(value) is _Parameter:
        return value.tensor
    if type(value) is not _Dict:
        return value
    return {key: _plain(item, depth - 1) for key, item in value.items.items()} if depth else {}


def _broken() -> NoReturn:
    raise Unclear("its data.pkl is broken")


def _odd_tensor() -> NoReturn:
    raise Unclear("its data.pkl describes a tensor in an odd way")
