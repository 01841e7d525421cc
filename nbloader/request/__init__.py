"""What a call asks for: each of its arguments declared once (`Call`) and checked once (`Request`).

Everything that can be checked is checked here, before anything is started.
"""

from __future__ import annotations

from nbloader.request.call import Call, DownloadCall, load_line
from nbloader.request.places import other_type_of
from nbloader.request.request import Request, checked, several
from nbloader.request.unknown import refuse_unknown
from nbloader.request.values import check_folder, check_method, check_repo_id

__all__ = [
    "Call",
    "DownloadCall",
    "Request",
    "check_folder",
    "check_method",
    "check_repo_id",
    "checked",
    "load_line",
    "other_type_of",
    "refuse_unknown",
    "several",
]
