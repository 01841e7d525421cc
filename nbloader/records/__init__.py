"""Frozen records that pass between the parts of nbloader.

`_repo`, `_facts` and `_fit` describe *what is there and what will be done* (listing, selection,
machine, placement), `_transfer` how files are brought, `_checks` what checks found; `_events` is
*what happens*: events that the worker, the loaders and the job publish, that `state` folds, and
that reach a caller's `on_event`. Events carry a `type`, so that they survive a trip through JSON.

All sizes are bytes, all durations seconds, all times seconds since the epoch (UTC).
"""

from __future__ import annotations

from nbloader.records._checks import (
    CheckResult,
    CheckStatus,
)
from nbloader.records._events import (
    Checked,
    ComponentLoaded,
    Event,
    Failed,
    FileDone,
    FileProgress,
    LibrariesImported,
    Notice,
    Ready,
    Retry,
    Selected,
    Stage,
    StageStarted,
)
from nbloader.records._facts import (
    AttachedModel,
    ClassFacts,
    DiskFacts,
    DriverFacts,
    GpuFacts,
    HubFacts,
    Interface,
    LoadedModel,
    MachineFacts,
    MemoryFacts,
    PackageFacts,
    PickleFacts,
    Place,
    PlaceFacts,
    RateLimitFacts,
    TokenFacts,
    TorchFacts,
    UnmetRequirement,
    XetFacts,
)
from nbloader.records._fit import (
    ComponentWeights,
    Fit,
    Method,
    PlacedComponent,
    Placement,
    Quantization,
)
from nbloader.records._repo import (
    Companion,
    Component,
    Kind,
    Listing,
    Reference,
    RepoFile,
    Selection,
    SelectionRequest,
)
from nbloader.records._transfer import (
    LARGE_FILE_BYTES,
    Route,
    TransferPolicy,
)

__all__ = [
    "LARGE_FILE_BYTES",
    "AttachedModel",
    "CheckResult",
    "CheckStatus",
    "Checked",
    "ClassFacts",
    "Companion",
    "Component",
    "ComponentLoaded",
    "ComponentWeights",
    "DiskFacts",
    "DriverFacts",
    "Event",
    "Failed",
    "FileDone",
    "FileProgress",
    "Fit",
    "GpuFacts",
    "HubFacts",
    "Interface",
    "Kind",
    "LibrariesImported",
    "Listing",
    "LoadedModel",
    "MachineFacts",
    "MemoryFacts",
    "Method",
    "Notice",
    "PackageFacts",
    "PickleFacts",
    "Place",
    "PlaceFacts",
    "PlacedComponent",
    "Placement",
    "Quantization",
    "RateLimitFacts",
    "Ready",
    "Reference",
    "RepoFile",
    "Retry",
    "Route",
    "Selected",
    "Selection",
    "SelectionRequest",
    "Stage",
    "StageStarted",
    "TokenFacts",
    "TorchFacts",
    "TransferPolicy",
    "UnmetRequirement",
    "XetFacts",
]
