"""Which files of a repository will be loaded, and by what.

Pure: no network, disk or clock. A caller asks what is `needed`: which other repositories are to be
listed, which small files and which headers of weights decide the selection. It finds that out, asks
again until there is nothing left, and then calls `select`. All of it belongs to the selection, so
nothing is fetched in vain. What its weights take is worked out in the same way, by `header_reads`
and `component_weights`.
"""

from nbloader.selection.adapter_families import are_other_models
from nbloader.selection.adapter_match import adapter_facts
from nbloader.selection.described import describe, described_headers, format_of, with_taken
from nbloader.selection.files import Needed, needed, select
from nbloader.selection.joining import joining
from nbloader.selection.pickles import LookedThrough, look_through, pickled, sketched, torch_refuses
from nbloader.selection.sizes import (
    FIRST_READ_BYTES,
    Header,
    StoredTensor,
    component_weights,
    header_end,
    header_reads,
    parse_header,
    stored_tensors,
)

__all__ = [
    "FIRST_READ_BYTES",
    "Header",
    "LookedThrough",
    "Needed",
    "StoredTensor",
    "adapter_facts",
    "are_other_models",
    "component_weights",
    "describe",
    "described_headers",
    "format_of",
    "header_end",
    "header_reads",
    "joining",
    "look_through",
    "needed",
    "parse_header",
    "pickled",
    "select",
    "sketched",
    "stored_tensors",
    "torch_refuses",
    "with_taken",
]
