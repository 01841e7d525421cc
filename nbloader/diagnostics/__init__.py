"""Diagnostics to paste into a report of a problem: facts, versions, settings, the last jobs, the
cache; without secrets."""

from __future__ import annotations

from nbloader.diagnostics.gather import DoctorReport, doctor, issue_of_job

__all__ = ["DoctorReport", "doctor", "issue_of_job"]
