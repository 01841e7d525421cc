"""What was found out about the machine, its packages and the Hub, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nbloader.records.repo import AdapterKind


class Place(StrEnum):
    """A hosted notebook service, or none of those we know."""

    COLAB = "Colab"
    KAGGLE = "Kaggle"
    BINDER = "Binder"
    OTHER = "other"


class Interface(StrEnum):
    """What the user sits at."""

    TERMINAL = "terminal"
    JUPYTER = "Jupyter"
    VS_CODE = "VS Code"
    BATCH = "batch run"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFacts:
    """Where this process runs.

    Attributes:
        source: the variable or the state that told it.
    """

    place: Place = Place.OTHER
    interface: Interface = Interface.TERMINAL
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """The file system that a folder is on, or would be on.

    Attributes:
        free, total: bytes, as an ordinary user may use them.
        writable: whether a file could be made there just now.
        source: where the figures come from, such as a quota that the file system does not show.
        open_to_all: whether every user of this machine may write there, and remove what others
            have put there.
    """

    folder: str
    free: int
    total: int
    writable: bool
    source: str = "disk_usage"
    open_to_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """Memory of the machine, or of the container if that has less. Sizes are bytes."""

    available: int
    total: int
    source: str = "psutil"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """One NVIDIA GPU, in the order in which torch counts them. Sizes are bytes.

    Attributes:
        unified: whether it has no memory of its own: `free` and `total` are those of the machine,
            and what it takes is gone from there.
    """

    name: str
    free: int
    total: int
    capability: tuple[int, int]
    source: str = "NVML"
    unified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """The NVIDIA driver.

    Attributes:
        version: such as `570.124.06`.
        cuda: the newest version of CUDA that it runs, such as (12, 8).
    """

    version: str
    cuda: tuple[int, int]
    source: str = "NVML"


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFacts:
    """The installed build of torch.

    Attributes:
        cuda: the version of CUDA that it was built with; None for a build without.
        archs: what its kernels were compiled for, such as `sm_80`; None if that is not known.
        hip: whether it is a build for AMD's GPUs.
    """

    version: str
    cuda: tuple[int, int] | None = None
    archs: tuple[str, ...] | None = None
    hip: bool = False
    source: str = "files of the installed package"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFacts:
    """A package of Python.

    Attributes:
        name: as it is imported.
        installed: its version; None where it is missing.
        imported: the version that this process has imported; None if it has not.
        editable: whether it is installed as a link to its sources, so that `installed` is what they
            were when that was done.
        compiled: whether its bytecode is there, without which an import takes three times as long
            (torch, transformers and diffusers: 10.8 s instead of 3.8).
    """

    name: str
    installed: str | None
    imported: str | None = None
    editable: bool = False
    compiled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PickleFacts:
    """What a file of pickled weights holds, as parts of it tell that were read and never run.

    Attributes:
        tensors_only: whether all that it would make are tensors and plain values, so that torch's
            restricted unpickler (`weights_only=True`) loads it.
        format: `zip`, `TorchScript`, `old`, `tar`, `unknown`; `opcodes` for a zip whose pickle has
            opcodes that torch's restricted unpickler does not take.
        refused: what else it names, such as `os.system`; at most a few.
        problem: why it cannot be vouched for, as a clause; empty where `refused` tells it all.
        bytes_read: of the file, to find that out.
    """

    path: str
    tensors_only: bool
    format: str = "zip"
    refused: tuple[str, ...] = ()
    problem: str = ""
    bytes_read: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFacts:
    """What a file of weights changes in the model that it is put into, as its header tells.

    Attributes:
        path: of the file, in its repository or on this machine.
        name: as it is shown.
        kind: None if it is no adapter.
        format: who writes the names in it so, such as `kohya`; empty if that is not known.
        made_for: the models that it was trained on, such as `FLUX.1`; empty if that cannot be told.
        base: the same of the model that it is put into.
        matched: layers of it that this model has, in the same widths.
        unmatched: layers of it that this model has not.
        mismatched: layers of it that this model has in other widths.
        unknown: layers of it of which that cannot be told.
        example: the first layer that is not matched, and what is wrong with it; empty if none is.
        ranks: of its matrices, sorted; several where layers differ.
        size: bytes.
        problem: why the library cannot load it, as a clause; empty if it can.
        lacks: the component that it changes and that the caller leaves out; empty if there is none.
    """

    path: str
    name: str = ""
    kind: AdapterKind | None
    format: str = ""
    made_for: str = ""
    base: str = ""
    matched: int = 0
    unmatched: int = 0
    mismatched: int = 0
    unknown: int = 0
    example: str = ""
    ranks: tuple[int, ...] = ()
    size: int = 0
    problem: str = ""
    lacks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmetRequirement:
    """A requirement of an installed package that what is installed does not meet.

    Attributes:
        package, version: which package requires it, by the name on the package index.
        requirement: as its metadata write it, such as `huggingface-hub<2.0,>=1.5`.
        installed: the version that is there; None where it is missing.
    """

    package: str
    version: str
    requirement: str
    installed: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFacts:
    """A class that a selection needs, as the files of the installed library tell without an import.

    Attributes:
        found: whether the library has it; None if that cannot be told.
        needs: packages, as they are imported, without which it cannot be used.
        components: what a pipeline cannot do without, each with the class that it should be of
            (empty where that cannot be told).
        takes: all components of a pipeline; None where that cannot be told, and for all else.
        successor: the class that took its place, where it is not found and that is known.
        unfit: why the class, which is there, cannot be made of the files, where that is so.
    """

    library: str
    name: str
    found: bool | None
    needs: tuple[str, ...] = ()
    components: tuple[tuple[str, str], ...] = ()
    takes: tuple[str, ...] | None = None
    successor: str = ""
    unfit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFacts:
    """What the files of the installed library tell of a way to compute attention.

    Attributes:
        name: of the way.
        offered: whether the library knows it; None if that cannot be told.
        classes: those of the selection whose attention is meant, each with the names of the ways
            that it takes; None where that cannot be told.
    """

    name: str
    offered: bool | None = None
    classes: tuple[tuple[str, frozenset[str] | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """The token of the Hub; never the token itself.

    Attributes:
        source: where it comes from, such as `HF_TOKEN`; empty if there is none.
    """

    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedModel:
    """A model that a hosted service has put into a folder of this machine."""

    folder: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that this process has loaded before and that is still alive.

    Attributes:
        device: where it computes, by torch's name.
        bytes: of its tensors.
    """

    repo_id: str
    device: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What this machine is and has.

    Attributes:
        driver: None without an NVIDIA GPU.
        torch: None if it is not installed.
        mps: whether this is a Mac whose GPU torch can use; it shares the memory of the machine.
    """

    memory: MemoryFacts
    place: PlaceFacts = field(default_factory=PlaceFacts)
    gpus: tuple[GpuFacts, ...] = ()
    driver: DriverFacts | None = None
    torch: TorchFacts | None = None
    mps: bool = False
    packages: Mapping[str, PackageFacts] = field(default_factory=dict)

    def has(self, package: str) -> bool:
        """Say whether a package is installed."""
        found = self.packages.get(package)
        return found is not None and found.installed is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitFacts:
    """How many more requests the Hub answers in its present window, as its headers say.

    Attributes:
        kind: of requests: `api`, `resolvers`, `pages`.
        limit: requests in a window of `window_s` seconds.
        reset_s: seconds until the window ends.
    """

    kind: str
    remaining: int
    limit: int | None
    window_s: int | None
    reset_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class XetFacts:
    """Whether Xet storage can be reached.

    Attributes:
        host: its address, without path.
        answer_s: seconds until it answered; None if it did not.
    """

    host: str
    answer_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFacts:
    """What the worker found out about the Hub and the access to the repository.

    Attributes:
        endpoint: the address of the Hub.
        cache_dir: the folder of the Hub's cache, or where the files go else.
        local: whether it is a folder of the user's own, and no cache.
        answer_s: seconds until the first answer; None if the selection was made from the cache
            alone.
        token_sent: whether the calls carry a token.
        token_refused: whether the Hub refused the token, and the calls go on without it.
        license: as the repository's card names it; None if it names none or that is not known.
        xet: None if nothing has to come from Xet storage, or it was not asked.
        rate_limit: None if the Hub did not tell.
    """

    endpoint: str
    cache_dir: str
    local: bool = False
    answer_s: float | None = None
    private: bool = False
    gated: bool = False
    token_sent: bool = False
    token_refused: bool = False
    license: str | None = None
    xet: XetFacts | None = None
    rate_limit: RateLimitFacts | None = None
