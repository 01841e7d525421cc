"""Tensors that are on their device already, handed to a library where it opens a file.

Nothing of how a library builds a model is done here. Its own `from_pretrained` runs as ever: it
makes the modules, renames and converts keys, casts, ties, reports what is missing. Only where it
would open a file of weights does it get what was read from that file. So what comes out is what
the library makes of the file, and a file that was not read is opened by the library.

Both libraries open files by functions that they look up by name in their modules, in diffusers
from 0.37 to 0.42 and in transformers from 5.0 to 5.23. One that is not found there is left alone.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from nbloader.errors import ModelLoadError
from nbloader.loaders.reading import Reading

_STATE_DICTS = (
    ("diffusers.models.modeling_utils", "load_state_dict"),
    ("diffusers.models.model_loading_utils", "load_state_dict"),
)
"""Of diffusers: where it opens the only file of a model, and a shard."""

_OPENED = (("transformers.modeling_utils", "safe_open"),)
"""Of transformers, which takes tensors out of its open files one by one."""

_WARMING = (
    ("diffusers.models.modeling_utils", "_caching_allocator_warmup"),
    ("transformers.modeling_utils", "caching_allocator_warmup"),
)
"""Before they read, both ask a GPU for the memory of the whole model; it is taken already."""

_PLAIN = frozenset({"disable_mmap", "dduf_entries"})
"""Arguments of diffusers that say nothing of what is to come of the file."""


@contextmanager
def handed(reading: Reading) -> Iterator[None]:
    """Let the libraries take what was read, on this thread, until the end of the block."""
    seam = _Seam(reading)
    makers = ((_STATE_DICTS, seam.load), (_OPENED, seam.open), (_WARMING, seam.warm))
    with ExitStack() as stack:
        stack.callback(seam.end)
        for places, make in makers:
            for module_name, name in places:
                if module_name.partition(".")[0] in sys.modules:
                    stack.enter_context(_replaced(module_name, name, make))
        yield


@contextmanager
def _replaced(
    module_name: str, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    module = importlib.import_module(module_name)
    original = getattr(module, name, None)
    if not callable(original):
        yield
        return
    setattr(module, name, make(original))
    try:
        yield
    finally:
        setattr(module, name, original)


class _Seam:
    """What stands in the place of the libraries' functions.

    A module that is imported meanwhile may keep it. It then does what the original does.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading: Reading | None = reading
        self._thread = threading.get_ident()

    def end(self) -> None:
        self._reading = None

    def _here(self, file: Any) -> Reading | None:
        """Return what was read, for the thread that builds: others read their own files.

        What only stands for a file is nobody else's, so there any thread belongs to the build, such
        as those with which diffusers loads shards.
        """
        reading = self._reading
        if reading is None or threading.get_ident() == self._thread:
            return reading
        return reading if _stands_in(reading, file) else None

    def load(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Stand for a function that reads all tensors of a file."""

        def load_state_dict(file: Any, *arguments: Any, **options: Any) -> Any:
            reading = self._here(file)
            plainly = _is_safetensors(file) and not arguments and options.keys() <= _PLAIN
            if reading is not None and plainly and (tensors := reading.take(file)) is not None:
                return tensors
            _check_there(reading, file)
            return original(file, *arguments, **options)

        return load_state_dict

    def open(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Stand for `safe_open`."""

        def safe_open(file: Any, *arguments: Any, **options: Any) -> Any:
            reading = self._here(file)
            if reading is None:
                return original(file, *arguments, **options)
            place = reading.outline(file) if _stands_in(reading, file) else file
            return _Opened(original(place, *arguments, **options), reading, file)

        return safe_open

    def warm(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Stand for a function that asks for memory."""

        def warm_up(*arguments: Any, **options: Any) -> Any:
            reading = self._reading if threading.get_ident() == self._thread else None
            if reading is None or reading.problem:
                return original(*arguments, **options)
            return None

        return warm_up


def _check_there(reading: Reading | None, file: Any) -> None:
    """See that a file is opened which is more than a header.

    Raises:
        ModelLoadError: it is not.
    """
    if reading is not None and _stands_in(reading, file):
        raise ModelLoadError(
            "the library reads weights in a way that `keep_files=False` cannot follow",
            hint="Load without `keep_files=False`.",
        )


def _stands_in(reading: Reading, file: Any) -> bool:
    return isinstance(file, str | os.PathLike) and reading.stands_in(file)


def _is_safetensors(file: Any) -> bool:
    return not isinstance(file, dict) and str(file).endswith(".safetensors")


class _Opened:
    """An open file of safetensors, of which tensors come from what was read."""

    def __init__(self, opened: Any, reading: Reading, file: Any) -> None:
        self._opened, self._reading, self._file = opened, reading, file
        self._stands_in = _stands_in(reading, file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    def __enter__(self) -> _Opened:
        self._opened.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._opened.__exit__(*error)

    def get_tensor(self, name: str) -> Any:
        """Return a tensor, as the original does."""
        if self._stands_in:
            return self._reading.take_one(self._file, name)
        return self._opened.get_tensor(name)

    def get_slice(self, name: str) -> _Slice:
        """Return a tensor that is not there yet, as the original does."""
        original = self._opened.get_slice(name)
        return _Slice(original, self._reading, self._file, name, stands_in=self._stands_in)


class _Slice:
    """A tensor of a file that nobody has asked for yet.

    One that is asked for twice is read from the file the second time, so that nothing is shared
    that would not be.
    """

    def __init__(
        self, original: Any, reading: Reading, file: Any, name: str, *, stands_in: bool
    ) -> None:
        self._original, self._reading, self._file, self._name = original, reading, file, name
        self._stands_in = stands_in

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __getitem__(self, index: Any) -> Any:
        if index is Ellipsis or self._stands_in:
            tensor = self._reading.take_one(self._file, self._name)
            if tensor is not None:
                return tensor[index] if self._stands_in else tensor
        return self._original[index]
