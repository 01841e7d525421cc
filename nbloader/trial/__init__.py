"""A trial of the build, before a weight is fetched: would the library make a model of these files?

What a model needs is known to nobody but the library: it compares the names and shapes of tensors
with those in the files while it loads. So it is let load, in a process of its own, from a copy of
the repository in which the small files are whole, and files of weights have their true header and
no bytes on the disk behind it (a sparse file reads as zeros). The tensors keep their stored dtype,
so that nothing is cast, and memory holds next to nothing of them.
"""

from __future__ import annotations

from nbloader.trial.process import Trial, verdict
from nbloader.trial.task import Task, task_of

__all__ = ["Task", "Trial", "task_of", "verdict"]
