"""What models take on a GPU, measured, beside what `nbloader.fit` predicts.

    python -m benchmarks.memory [NAME ...]

builds the true architectures with random weights on the first GPU, one component at a time, and
runs one step of each at the workload of its family. `--count` needs no GPU: it counts the live
tensors of the same steps without computing anything (torch's meta device). `--tiny` runs small
models of the same shape on the CPU, to try the script.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.architectures import ARCHITECTURES, Architecture, Part
from nbloader.fit import fit
from nbloader.fit.families import activation_bytes, family_of
from nbloader.fit.question import CUDA_BYTES
from nbloader.fit.weights import width
from nbloader.machine.gpus import gpu_facts, read_nvml
from nbloader.records import (
    Component,
    ComponentWeights,
    GpuFacts,
    Kind,
    MachineFacts,
    MemoryFacts,
    Method,
    Selection,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FusedAttention", "LiveBytes", "Row", "default_dtype", "main", "measure", "render"]

_STORED = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_ROOMY = 1 << 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A component, or a whole model, measured and predicted. All sizes are bytes.

    Attributes:
        part: empty for the whole.
        weights, activations: each measured, then predicted. Those of the whole are its weights
            with all that CUDA takes, and the largest activations of its parts.
    """

    model: str
    part: str
    weights: tuple[int, int]
    activations: tuple[int, int]


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts the bytes of live tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: dict[int, int] = {}
        self._live = 0
        self.peak = 0

    def leave_out(self, tensor: Tensor) -> None:
        """Count a tensor that is there already as nothing."""
        self._sizes[id(tensor.untyped_storage())] = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) in self._sizes:
            return
        self._sizes[id(storage)] = storage.nbytes()
        self._live += storage.nbytes()
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._drop, id(storage))

    def _drop(self, key: int) -> None:
        self._live -= self._sizes.pop(key)


class FusedAttention(TorchFunctionMode):
    """Attention that keeps no matrix of scores, as the kernels on GPUs do."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs or {})
        query, value = named["query"], named["value"]
        return query.new_empty(*query.shape[:-1], value.shape[-1])


def measure(
    architecture: Architecture, *, device: str, dtype: torch.dtype, tiny: bool
) -> Iterator[Row]:
    """Measure the components of a model one after another, then what it takes as a whole.

    Args:
        device: `cuda` measures, in a process that has not used the GPU for anything else: what CUDA
            takes grows with each kernel. On `meta` and `cpu` live tensors are counted.
    """
    _free_before(device)
    selection = _selection(architecture)
    family = family_of(selection)
    name = str(dtype).removeprefix("torch.")
    stored: list[ComponentWeights] = []
    rows: list[Row] = []
    for part in architecture.parts:
        upcast = part.name in family.float32_components and dtype == torch.float16
        weights, activations, described = _measure_part(
            part, device, torch.float32 if upcast else dtype, tiny
        )
        stored.append(described)
        if part.step is not None:
            (component,) = (each for each in selection.components if each.name == part.name)
            predicted = activation_bytes(family, name, component, width=width(described))
            rows.append(
                Row(
                    model=architecture.repo_id,
                    part=part.name,
                    weights=(weights, described.total),
                    activations=(activations, predicted),
                )
            )
    yield from rows
    gpu = GpuFacts(name="GPU", free=_ROOMY, total=_ROOMY, capability=(9, 0))
    machine = MachineFacts(memory=MemoryFacts(available=_ROOMY, total=_ROOMY), gpus=(gpu,))
    placed = fit(selection, stored, machine, dtype=name, method=Method.GPU).chosen
    assert placed is not None
    largest = max(row.activations[0] for row in rows)
    held = CUDA_BYTES + sum(part.bytes for part in placed.components)
    total = sum(part.total for part in stored) + _context_bytes(device)
    yield Row(
        model=architecture.repo_id,
        part="",
        weights=(total, held),
        activations=(largest, placed.vram[0] - held),
    )


def _measure_part(
    part: Part, device: str, dtype: torch.dtype, tiny: bool
) -> tuple[int, int, ComponentWeights]:
    with torch.device(device), default_dtype(dtype), torch.no_grad():
        before = _allocated(device)
        model = part.build(tiny).eval()
        tensors = [*model.parameters(), *model.buffers()]
        held = sum(tensor.nbytes for tensor in tensors)
        weights = _allocated(device) - before if device == "cuda" else held
        described = ComponentWeights(
            name=part.name,
            bytes_by_dtype={_STORED[dtype]: sum(tensor.nbytes for tensor in model.parameters())},
            largest_tensor=max(tensor.nbytes for tensor in model.parameters()),
            largest_block=_largest_block(model),
        )
        activations = 0 if part.step is None else _peak(part.step, model, device, tiny)
        del model, tensors
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return weights, activations, described


def _largest_block(model: Any) -> int:
    """Bytes of the largest of the repeated blocks, whose names end in a number; 0 without any."""
    sizes: Counter[str] = Counter()
    for name, tensor in model.named_parameters():
        if block := re.match(r"(?:[^.]*\.)*?\d+(?=\.)", name):
            sizes[block[0]] += tensor.nbytes
    return max(sizes.values(), default=0)


def _peak(step: Callable[..., object], model: Any, device: str, tiny: bool) -> int:
    """What a step takes beside the weights, at its peak."""

    def make(*shape: int, kind: str = "") -> Tensor:
        if kind == "ids":
            return torch.zeros(shape, dtype=torch.int64)
        return torch.zeros(shape)

    if device == "cuda":
        step(model, make, tiny)  # Loads the kernels, and their work space.
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(model, make, tiny)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    counter = LiveBytes()
    for tensor in [*model.parameters(), *model.buffers()]:
        counter.leave_out(tensor)
    with FusedAttention(), counter:
        step(model, make, tiny)
    return counter.peak


def _allocated(device: str) -> int:
    return torch.cuda.memory_allocated() if device == "cuda" else 0


def _context_bytes(device: str) -> int:
    """What the process takes on the GPU beside what torch has reserved for tensors."""
    if device != "cuda":
        return 0
    return _free_before(device) - _free_bytes() - torch.cuda.memory_reserved()


@cache
def _free_before(device: str) -> int:
    """What was free on the GPU before this process used it."""
    return _free_bytes() if device == "cuda" else 0


def _free_bytes() -> int:
    shared = MemoryFacts(available=0, total=0)
    return gpu_facts(read_nvml(), os.environ, shared)[0].free


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _selection(architecture: Architecture) -> Selection:
    return Selection(
        repo_id=architecture.repo_id,
        revision="main",
        commit_hash="0" * 40,
        kind=Kind(architecture.kind),
        class_name=architecture.class_name,
        components=tuple(
            Component(
                name=part.name,
                library=part.library,
                class_name=part.class_name,
                model_type=part.model_type,
                paths=(),
            )
            for part in architecture.parts
        ),
        files=(),
    )


def render(rows: Iterator[Row]) -> Iterator[str]:
    """A table in Markdown, a line at a time; sizes in GB."""
    yield "| model | component | weights | predicted | activations | predicted | peak predicted |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        measured = row.weights[0] + row.activations[0]
        predicted = row.weights[1] + row.activations[1]
        sizes = " | ".join(f"{size / 1e9:.2f}" for size in (*row.weights, *row.activations))
        share = f"{predicted / measured - 1:+.0%}"
        yield f"| {row.model} | {row.part or '**all**'} | {sizes} | {share} |"


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of the models to measure")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"])
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--count", action="store_true", help="count live tensors, without a GPU")
    how.add_argument("--tiny", action="store_true", help="try it with small models, on the CPU")
    options = parser.parse_args(arguments)
    device = "meta" if options.count else "cpu" if options.tiny else "cuda"
    dtype = options.dtype
    if dtype is None:
        old = device == "cuda" and torch.cuda.get_device_capability() < (8, 0)
        dtype = "float16" if old else "bfloat16"

    def rows() -> Iterator[Row]:
        for architecture in ARCHITECTURES:
            if not options.names or any(name in architecture.repo_id for name in options.names):
                yield from measure(
                    architecture, device=device, dtype=getattr(torch, dtype), tiny=options.tiny
                )

    for line in render(rows()):
        print(line, flush=True)  # noqa: T201 - a script


if __name__ == "__main__":
    main()
