"""From a folder of files to a model that works."""

from nbloader.loaders.ahead import Arrivals
from nbloader.loaders.arguments import DTYPES, PLACING, places_itself
from nbloader.loaders.build import Building, check_arguments, holders, modules_of
from nbloader.loaders.device import (
    alive,
    bytes_of,
    check_device,
    copies,
    devices,
    loaded,
    remember,
    spare_bytes,
)
from nbloader.loaders.direct import Direct, Passing, way_of_passing
from nbloader.loaders.first_use import use_first
from nbloader.loaders.folders import link, move_paths, snapshot_of
from nbloader.loaders.imports import Import, torch_is_imported
from nbloader.loaders.offline import offline
from nbloader.loaders.quantization import asked_quantizations
from nbloader.loaders.reports import quiet
from nbloader.loaders.self_test import as_it_was, check_call, check_embeddings, check_modules
from nbloader.loaders.unloading import Freed, unload
from nbloader.loaders.versions import versions

__all__ = [
    "DTYPES",
    "PLACING",
    "Arrivals",
    "Building",
    "Direct",
    "Freed",
    "Import",
    "Passing",
    "alive",
    "as_it_was",
    "asked_quantizations",
    "bytes_of",
    "check_arguments",
    "check_call",
    "check_device",
    "check_embeddings",
    "check_modules",
    "copies",
    "devices",
    "holders",
    "link",
    "loaded",
    "modules_of",
    "move_paths",
    "offline",
    "places_itself",
    "quiet",
    "remember",
    "snapshot_of",
    "spare_bytes",
    "torch_is_imported",
    "unload",
    "use_first",
    "versions",
    "way_of_passing",
]
