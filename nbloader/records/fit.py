"""What weights take, and where they can go on a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentWeights:
    """The tensors of a component, as they are stored.

    Attributes:
        bytes_by_dtype: by the names of safetensors, such as `BF16`. Of a pickled file that cannot
            be looked through only its size is known, which then stands under the dtype that its
            configuration names, or under `F32`.
        largest_tensor: bytes of the largest tensor whose size is known.
        largest_block: bytes of the largest of its repeated blocks (`blocks.0`, `blocks.1`, ...);
            0 if it has none.
        quantization: the method that the weights are quantized with already, such as
            `bitsandbytes`, `gptq`, `awq`, `fp8`; None if they are not.
        counted: whether the bytes are those of the tensors themselves, not of the files.
    """

    name: str
    bytes_by_dtype: Mapping[str, int]
    largest_tensor: int = 0
    largest_block: int = 0
    quantization: str | None = None
    counted: bool = True

    @property
    def total(self) -> int:
        """Bytes of all tensors as they are stored."""
        return sum(self.bytes_by_dtype.values())


class Quantization(StrEnum):
    """Weights made smaller while they are loaded (bitsandbytes)."""

    FOUR_BIT = "4-bit"
    EIGHT_BIT = "8-bit"


class Method(StrEnum):
    """The ways to place a model on a machine, from the fastest to the slowest at their best."""

    GPU = "gpu"
    MULTI_GPU = "multi-gpu"
    FOUR_BIT = "4-bit"
    FOUR_BIT_MULTI_GPU = "4-bit-multi-gpu"
    EIGHT_BIT = "8-bit"
    GROUP_OFFLOAD = "group-offload"
    MODEL_OFFLOAD = "model-offload"
    FOUR_BIT_MODEL_OFFLOAD = "4-bit-model-offload"
    SEQUENTIAL_OFFLOAD = "sequential-offload"
    CPU_OFFLOAD = "cpu-offload"
    MPS = "mps"
    CPU = "cpu"


_LAST_OF_WHOLE = Method.FOUR_BIT_MODEL_OFFLOAD
"""The slowest way that moves whole components."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedComponent:
    """A component where it rests while the model is used.

    Attributes:
        device: torch's name, such as `cuda:0`; several, with commas, where its layers are dealt
            out; with offload `cpu`, from where it is moved for use.
        dtype: torch's name, such as `bfloat16`.
        bytes: of its tensors there.
    """

    name: str
    device: str
    dtype: str
    bytes: int
    quantization: Quantization | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One way to place a model, and what it takes. All sizes are bytes.

    Attributes:
        device: where the model computes, by torch's name, such as `cuda`, `cuda:1`, `mps`, `cpu`.
        dtype: the number format that it computes in, by torch's name.
        components: those that have weights.
        vram: the peak on each GPU of the machine while the model is used, in their order.
        ram_loading: the peak of memory of this process's own (anonymous) while it is loaded, above
            what the process has then.
        ram_after: what of that stays while the model is used.
        mapped: weights that are read from the disk's cache in place. They need no memory of their
            own, but are slow where they do not fit beside the rest.
        fits: whether the machine has all that.
        reason: why it was or was not chosen, a few words with the figures.
        group_stream: with group offload, whether there is memory for all weights to wait in pinned
            memory, from where the GPU copies the next layer while it computes.
        max_memory: how much of the weights each device may get where the library deals out the
            layers of a model, by torch's names; empty where it does not, or does so evenly.
    """

    method: Method
    device: str
    dtype: str
    components: tuple[PlacedComponent, ...] = ()
    vram: tuple[int, ...] = ()
    ram_loading: int = 0
    ram_after: int = 0
    mapped: int = 0
    fits: bool = True
    reason: str = ""
    group_stream: bool = False
    max_memory: Mapping[str, int] = field(default_factory=dict)

    @property
    def ram_peak(self) -> int:
        """The most memory of its own that it takes, while it is loaded or after."""
        return max(self.ram_loading, self.ram_after)

    @property
    def rank(self) -> int:
        """Where it stands among all ways, from the fastest on.

        Without pinned memory, group offload copies every layer twice at each step; model offload
        moves a component once for a whole picture.
        """
        through_memory = self.method is Method.GROUP_OFFLOAD and not self.group_stream
        order = list(Method)
        return 2 * order.index(_LAST_OF_WHOLE if through_memory else self.method) + through_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """All ways to place a model on a machine, and the one to take.

    Attributes:
        chosen: the first of `placements` that fits and was allowed; None if there is none.
        placements: every method that could be asked for, from the fastest to the slowest.
        nearest: where none fits, the one that lacks the least; None if no method applies.
        workload: what the peaks are for, such as `one image of 1024 x 1024`.
        caution: what speaks against the chosen number format; empty for nothing.
        problem: why `chosen` is None, one line with the figures.
        hint: what to do about that, or for something faster.
        gpus: the name and the free bytes of each GPU of the machine, as `Placement.vram` has them.
        memory: bytes of memory that are available; 0 if that is not known.
    """

    chosen: Placement | None
    placements: tuple[Placement, ...]
    nearest: Placement | None = None
    workload: str = ""
    caution: str = ""
    problem: str = ""
    hint: str = ""
    gpus: tuple[tuple[str, int], ...] = ()
    memory: int = 0
