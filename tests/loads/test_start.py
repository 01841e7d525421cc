"""A load in the background, with real downloads from a local Hub."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text

import nbloader
from nbloader.errors import (
    CancelledError,
    DiskSpaceError,
    DoesNotFitError,
    DownloadError,
    InvalidArgumentError,
)
from nbloader.loaders import placing
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import MINILM, QWEN_IMAGE_EDIT
from nbloader.records import ComponentLoaded, Event, Method, Stage, StageStarted
from nbloader.state import Status, Step

WAIT_S = 120


class Gate:
    """Lets a test wait for an event of a job, and hold the job there."""

    def __init__(self, wanted: Callable[[Event], bool], *, hold: bool = False) -> None:
        self._wanted = wanted
        self.reached = threading.Event()
        self.go_on = threading.Event()
        if not hold:
            self.go_on.set()

    def __call__(self, event: Event) -> None:
        if self._wanted(event):
            self.reached.set()
            assert self.go_on.wait(WAIT_S)


def begins(stage: Stage) -> Callable[[Event], bool]:
    return lambda event: event == StageStarted(stage=stage)


def start(demo_hub: LocalHub, cache: Path, **keywords: Any) -> nbloader.job.Job:
    return nbloader.start(
        MINILM, endpoint=demo_hub.endpoint, cache_dir=cache, **{"view": "none", **keywords}
    )


def test_it_returns_at_once_and_the_result_is_the_model(demo_hub: LocalHub, tmp_path: Path) -> None:
    gate = Gate(begins(Stage.DOWNLOAD), hold=True)
    job = start(demo_hub, tmp_path, on_event=gate)
    assert not job.done()
    assert gate.reached.wait(WAIT_S)
    with pytest.raises(TimeoutError, match="not ready after 0"):
        job.result(timeout=0)
    gate.go_on.set()
    model = job.result(timeout=WAIT_S)
    assert type(model).__name__ == "SentenceTransformer"
    assert job.result() is model
    assert job.done()
    assert job.state.status is Status.READY
    assert job.state.importing is not None
    assert str(job.report).endswith("SentenceTransformer on cpu, float32")
    assert repr(job) == f"<Job {MINILM}: ready, 100 %>"


def test_a_second_load_tells_when_it_will_be_ready(demo_hub: LocalHub, tmp_path: Path) -> None:
    first = start(demo_hub, tmp_path / "first")
    first.result(timeout=WAIT_S)
    assert (first.state.past, first.state.time_to_ready) == ((), None)
    demo_hub.set_faults([Fault(RequestClass.CDN_GET, total_bytes_per_second=20_000_000)])
    told: list[float | None] = []
    begun: list[nbloader.job.Job] = []  # The first events come before `start` has returned.
    second = start(
        demo_hub,
        tmp_path / "second",
        on_event=lambda _: told.extend(job.state.time_to_ready for job in begun),
    )
    begun.append(second)
    second.result(timeout=WAIT_S)
    assert len(second.state.past) == 1
    built_s = second.state.past[0].build_s
    assert built_s is not None
    assert second.state.expected.build_s == pytest.approx(built_s)
    assert second.state.expected.same
    assert any(told)


def test_it_can_be_awaited(demo_hub: LocalHub, tmp_path: Path) -> None:
    async def awaited() -> Any:
        return await start(demo_hub, tmp_path)

    assert type(asyncio.run(awaited())).__name__ == "SentenceTransformer"


def test_cancelled_it_keeps_what_has_arrived(demo_hub: LocalHub, tmp_path: Path) -> None:
    demo_hub.set_faults([Fault(RequestClass.CDN_GET, total_bytes_per_second=20_000_000)])
    gate = Gate(lambda event: event.type == "file-progress" and event.completed > 10_000_000)
    job = start(demo_hub, tmp_path, on_event=gate)
    assert gate.reached.wait(WAIT_S)
    job.cancel()
    with pytest.raises(CancelledError, match="what has arrived is kept"):
        job.result(timeout=WAIT_S)
    failure = job.state.failure
    assert failure is not None
    assert (failure.reference, failure.forceable) == ("cancelled", False)
    assert job.state.there > 10_000_000
    demo_hub.clear_faults()
    again = start(demo_hub, tmp_path)
    again.result(timeout=WAIT_S)
    assert again.state.cached_bytes > 10_000_000


def test_it_can_be_cancelled_between_two_components(
    demo_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where it is spread over GPUs or quantized.
    monkeypatch.setattr(placing, "_BY_PARTS", frozenset({Method.CPU}))
    loaded: list[str] = []
    gate = Gate(lambda event: event.type == "component-loaded", hold=True)

    def note(event: Event) -> None:
        if isinstance(event, ComponentLoaded):
            loaded.append(event.name)
        gate(event)

    job = nbloader.start(
        QWEN_IMAGE_EDIT,
        endpoint=demo_hub.endpoint,
        cache_dir=tmp_path,
        device="cpu",
        view="none",
        on_event=note,
    )
    assert gate.reached.wait(WAIT_S)
    (first,) = loaded
    steps = {part.name: part.step for part in job.state.components}
    assert steps.pop(first) is Step.READY
    assert Step.READY not in steps.values(), "the others"
    job.cancel()
    gate.go_on.set()
    with pytest.raises(CancelledError, match="what has arrived is kept"):
        job.result(timeout=WAIT_S)
    assert loaded == [first]


def test_a_failed_job_can_be_tried_again(demo_hub: LocalHub, tmp_path: Path) -> None:
    demo_hub.set_faults([Fault(RequestClass.CDN_GET, status=503)])
    fast = {"max_retries": 1, "retry_delay_min": 0, "retry_delay_max": 0}
    job = start(demo_hub, tmp_path, settings=fast)
    for _ in range(2):  # An error that was raised once is raised anew, with its message.
        with pytest.raises(DownloadError):
            job.result(timeout=WAIT_S)
    demo_hub.clear_faults()
    job.choose("auto")
    job.retry()
    assert type(job.result(timeout=WAIT_S)).__name__ == "SentenceTransformer"
    job.retry()  # What is ready is not loaded again.
    assert job.done()


def test_failed_checks_can_be_passed_over(demo_hub: LocalHub, tmp_path: Path) -> None:
    job = start(demo_hub, tmp_path, settings={"required_disk_space_gb": 1_000_000})
    with pytest.raises(DiskSpaceError):
        job.result(timeout=WAIT_S)
    assert job.state.failure is not None
    assert job.state.failure.forceable
    job.download_anyway()
    assert type(job.result(timeout=WAIT_S)).__name__ == "SentenceTransformer"


def test_a_retry_does_not_pass_over_a_check(demo_hub: LocalHub, tmp_path: Path) -> None:
    begun = []

    def note(event: Event) -> None:
        if isinstance(event, StageStarted):
            begun.append(event.stage)

    settings = {"required_disk_space_gb": 1_000_000}
    job = start(demo_hub, tmp_path, settings=settings, on_event=note)
    with pytest.raises(DiskSpaceError):
        job.result(timeout=WAIT_S)
    first = list(begun)
    job.retry()
    with pytest.raises(DiskSpaceError):
        job.result(timeout=WAIT_S)
    assert begun == first * 2
    assert Stage.DOWNLOAD not in first


def test_a_retry_after_the_error_was_raised_is_shown_anew(
    demo_hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo_hub.set_faults([Fault(RequestClass.CDN_GET, status=503)])
    fast = {"max_retries": 1, "retry_delay_min": 0, "retry_delay_max": 0}
    job = start(demo_hub, tmp_path, settings=fast, view="text")
    with pytest.raises(DownloadError):
        job.result(timeout=WAIT_S)
    *_, last = capsys.readouterr().out.splitlines()
    assert last.lstrip().startswith("failed after ")
    demo_hub.clear_faults()
    job.retry()
    job.result(timeout=WAIT_S)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("connect: ")
    assert last.startswith("ready in ")


def test_what_was_forced_stays_forced(demo_hub: LocalHub, tmp_path: Path) -> None:
    demo_hub.set_faults([Fault(RequestClass.CDN_GET, status=503)])
    job = start(
        demo_hub,
        tmp_path,
        force=True,
        settings={
            "required_disk_space_gb": 1_000_000,
            "max_retries": 1,
            "retry_delay_min": 0,
            "retry_delay_max": 0,
        },
    )
    with pytest.raises(DownloadError):
        job.result(timeout=WAIT_S)
    demo_hub.clear_faults()
    job.retry()
    assert type(job.result(timeout=WAIT_S)).__name__ == "SentenceTransformer"


def test_a_plan_that_does_not_fit_is_refused(demo_hub: LocalHub, tmp_path: Path) -> None:
    gate = Gate(begins(Stage.DOWNLOAD), hold=True)
    job = start(demo_hub, tmp_path, on_event=gate)
    assert gate.reached.wait(WAIT_S)
    with pytest.raises(InvalidArgumentError, match="'gpu' does not fit here") as found:
        job.choose("gpu")
    assert found.value.hint == "These fit: cpu."
    with pytest.raises(InvalidArgumentError, match="plan="):
        job.choose("fastest")
    job.choose("cpu")
    gate.go_on.set()
    job.result(timeout=WAIT_S)
    with pytest.raises(InvalidArgumentError, match="comes too late"):
        job.choose("cpu")


def test_where_a_plan_that_was_asked_for_does_not_fit_another_can_be_chosen(
    demo_hub: LocalHub, tmp_path: Path
) -> None:
    job = start(demo_hub, tmp_path, plan="gpu")
    with pytest.raises(DoesNotFitError, match="no NVIDIA GPU") as found:
        job.result(timeout=WAIT_S)
    assert found.value.hint == 'Pass plan="cpu", which fits, or leave plan= out.'
    assert job.state.fit is not None
    assert [str(row.method) for row in job.state.fit.placements if row.fits] == ["cpu"]
    job.choose("cpu")
    job.retry()
    assert type(job.result(timeout=WAIT_S)).__name__ == "SentenceTransformer"


def test_its_diagnostics_tell_of_the_job_and_of_no_secret(
    demo_hub: LocalHub, tmp_path: Path
) -> None:
    token = "hf_" + "q" * 34
    gate = Gate(begins(Stage.DOWNLOAD), hold=True)
    job = start(demo_hub, tmp_path, token=token, settings={"max_retries": 7}, on_event=gate)
    assert gate.reached.wait(WAIT_S)
    lines = job.diagnostics().splitlines()
    gate.go_on.set()
    assert lines[0].startswith("```")
    assert lines[1].startswith(f"job: {MINILM} at main, running in download after ")
    assert "token passed" in lines
    assert "max_retries=7" in lines
    assert any(line.startswith("cache_dir=") for line in lines)
    assert any(line.startswith("nbloader ") for line in lines)
    assert token not in "\n".join(lines)
    job.result(timeout=WAIT_S)


def test_an_unknown_keyword_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="start has no argument 'plans'"):
        nbloader.start(MINILM, plans="cpu")  # type: ignore[call-arg]


def test_the_chart_of_a_job(demo_hub: LocalHub, tmp_path: Path) -> None:
    job = start(demo_hub, tmp_path)
    job.result(timeout=WAIT_S)
    figure = job.report.plot()
    figure.savefig(tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    written = {each.get_text() for each in figure.findobj(Text)}
    components = {part.name for part in job.state.components}
    assert components
    assert {MINILM, "connect", "download"} | components <= written
    (line,) = (each for each in figure.findobj(Line2D) if each.get_gid() == "bytes")
    assert isinstance(line, Line2D)
    assert np.asarray(line.get_ydata())[-1] == job.state.fetched > 0
