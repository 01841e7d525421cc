"""Views: functions of a `JobState`. A view starts nothing and decides nothing.

What chooses a view and makes it is exported here, and the form that reports of all kinds have. The
views themselves are imported from their modules where they are made, because most jobs show one of
them, and some show none.
"""

from __future__ import annotations

from nbloader.views.markup import pasted
from nbloader.views.sections import (
    Row,
    Section,
    SectionsReport,
    ShownReport,
    sections_html,
    sections_json,
    sections_text,
)
from nbloader.views.verdict import what_it_is
from nbloader.views.view import (
    FrontEnd,
    NoView,
    View,
    ViewName,
    choose_view,
    front_end,
    has_controls,
    make_view,
)
from nbloader.views.words import ICONS, counted

__all__ = [
    "ICONS",
    "FrontEnd",
    "NoView",
    "Row",
    "Section",
    "SectionsReport",
    "ShownReport",
    "View",
    "ViewName",
    "choose_view",
    "counted",
    "front_end",
    "has_controls",
    "make_view",
    "pasted",
    "sections_html",
    "sections_json",
    "sections_text",
    "what_it_is",
]
