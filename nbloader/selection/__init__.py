"""Which files of a repository will be loaded, and by what.

Pure: no network, disk or clock. A caller asks `references` which other repositories are to be
listed, `reads` which small files decide the selection, and `first_headers` which headers of weights
do; does all three, asks again until there is nothing left, and then calls `select`. All of them
belong to the selection, so nothing is fetched in vain. What its weights take is worked out in the
same way, by `header_reads` and `component_weights`.
"""

from nbloader.selection.adapter_families import are_other_models
from nbloader.selection.adapter_match import adapter_facts
from nbloader.selection.described import describe, described_headers, format_of, with_taken
from nbloader.selection.files import first_headers, reads, references, select
from nbloader.selection.pickles import LookedThrough, look_through, pickled, sketched, torch_refuses
from nbloader.selection.sizes import (
    FIRST_READ_BYTES,
    Header,
    component_weights,
    header_end,
    header_reads,
    parse_header,
)

__all__ = [
    "FIRST_READ_BYTES",
    "Header",
    "LookedThrough",
    "adapter_facts",
    "are_other_models",
    "component_weights",
    "describe",
    "described_headers",
    "first_headers",
    "format_of",
    "header_end",
    "header_reads",
    "look_through",
    "parse_header",
    "pickled",
    "reads",
    "references",
    "select",
    "sketched",
    "torch_refuses",
    "with_taken",
]
