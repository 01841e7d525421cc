"""What has happened in a job, to look at when it is over, or before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbloader.state import JobState
from nbloader.views.sections import ShownReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["JobReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport(ShownReport):
    """A job as it stood at a moment. Shows itself in a notebook, and as text by `str`."""

    state: JobState

    def plot(self) -> Figure:
        """Draw the bytes over time with retries, stalls and changes of route, and what overlapped.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        from nbloader.views.chart import plot_job

        return plot_job(self.state)

    def __str__(self) -> str:
        from nbloader.views.text import render

        return render(self.state)

    def _repr_html_(self) -> str:
        from nbloader.views.html import render

        return render(self.state)
