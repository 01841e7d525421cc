"""One load, in a process of its own: `python ready_client.py PEER KIND REPO_ID ROUTE [CHART]`.

Says in a line of JSON when the model was ready, by the clock that all processes of a machine share,
and what the process and its children have taken of the CPU. Nothing is imported before the load but
what any script imports.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time


def main() -> None:
    """Load once, and tell."""
    peer, kind, repo_id, route, *chart = sys.argv[1:]
    sys.path.pop(0)
    told: list[tuple[float, object]] = []
    if peer == "nbloader":
        import nbloader

        model = nbloader.load(
            repo_id,
            device="cpu",
            view="none",
            settings={"route": route},
            on_event=lambda event: told.append((time.monotonic(), event)),
        )
    elif kind == "pipeline":
        import torch
        from diffusers import DiffusionPipeline

        model = DiffusionPipeline.from_pretrained(repo_id, torch_dtype=torch.float32)
    else:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(repo_id, device="cpu")
    ready_at = time.monotonic()
    answer = {"ready_at": ready_at, "cpu_s": _cpu_s(), **_of_events(told, ready_at)}
    del model
    if chart:
        _draw(repo_id, told, chart[0])
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # The end of torch is not what is measured.


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _of_events(told: list[tuple[float, object]], ready_at: float) -> dict[str, object]:
    """Say when the last byte came, and how much had come when the last but one was built."""
    done = [at for at, event in told if type(event).__name__ == "FileDone"]
    if not done:
        return {}
    built = [at for at, event in told if type(event).__name__ == "ComponentLoaded"]
    last = max((at for at in built if at < done[-1]), default=done[-1])
    arrived: dict[str, int] = {}
    for at, event in told:
        if type(event).__name__ == "FileProgress" and at <= last:
            arrived[event.path] = event.completed  # type: ignore[attr-defined]
    return {"left_s": ready_at - done[-1], "ahead_bytes": sum(arrived.values())}


def _draw(repo_id: str, told: list[tuple[float, object]], place: str) -> None:
    from nbloader.state import JobState, apply
    from nbloader.views.chart import plot_job

    first = told[0][0]
    state = JobState(repo_id=repo_id, started_at=first, updated_at=first)
    for at, event in told:
        state = apply(state, event, at)  # type: ignore[arg-type]
    plot_job(state).savefig(place, dpi=120, bbox_inches="tight")


main()
