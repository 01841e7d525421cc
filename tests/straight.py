"""Weights read straight to the CPU, as they are to a GPU where there is one."""

from __future__ import annotations

import pytest

from nbloader.loaders import direct
from nbloader.records import Kind, Method


def straight_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every build read its weights so."""
    monkeypatch.setattr(direct, "_DEVICES", frozenset({"cpu"}))
    monkeypatch.setattr(direct, "_METHODS", frozenset(Method))
    monkeypatch.setattr(direct, "_KINDS", frozenset(Kind) - {Kind.FILES})
