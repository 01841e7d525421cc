"""The package as a type checker sees it in a user's code. Nothing here is run: `mypy` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import nbloader
from nbloader import (
    CacheReport,
    CheckResult,
    Deletion,
    DoctorReport,
    Event,
    Freed,
    Job,
    JobReport,
    JobState,
    JointReport,
    PreflightReport,
)


def shows(event: Event) -> None:
    assert_type(event.type == "ready", bool)


async def results(folder: Path) -> None:
    """What the calls return."""
    assert_type(nbloader.load("org/name"), Any)
    assert_type(await nbloader.aload("org/name"), Any)
    assert_type(nbloader.start("org/name"), Job)
    assert_type(nbloader.download("org/name"), Path)
    assert_type(nbloader.download("org/name", "config.json"), Path)
    assert_type(nbloader.download(["org/name", "org/other"]), list[Path])
    assert_type(nbloader.preflight("org/name"), PreflightReport)
    assert_type(nbloader.preflight(("org/name", "org/other")), JointReport)
    assert_type(nbloader.preflight("org/name").failures, tuple[CheckResult, ...])
    assert_type(nbloader.cache(folder), CacheReport)
    assert_type(nbloader.cache(folder).delete(), Deletion)
    assert_type(nbloader.doctor("org/name"), DoctorReport)
    assert_type(nbloader.unload("all"), Freed)
    assert_type(nbloader.__version__, str)


async def jobs(job: Job) -> None:
    """What a job returns."""
    assert_type(job.result(timeout=60), Any)
    assert_type(await job, Any)
    assert_type(job.done(), bool)
    assert_type(job.state, JobState)
    assert_type(job.report, JobReport)
    assert_type(job.diagnostics(), str)


async def arguments(folder: Path) -> None:
    """All that the calls take."""
    import torch

    nbloader.load(
        repo_id="org/name",
        revision="main",
        variant="fp16",
        kind="diffusers",
        task=None,
        device=torch.device("cuda", 1),
        dtype=torch.bfloat16,
        plan="model-offload",
        cache_dir=folder,
        endpoint="https://huggingface.co",
        token=False,
        local_files_only=True,
        trust_remote_code=True,
        allow_pickle=True,
        verify=True,
        force=True,
        replace=True,
        settings=nbloader.Settings(max_retries=3),
        view="text",
        on_event=shows,
        loader_kwargs={"attn_implementation": "sdpa"},
    )
    nbloader.start("org/name", device="cuda:1", settings={"max_retries": 3}, view="none")
    await nbloader.aload("org/name", dtype="float16", token="hf_x")
    nbloader.download("org/name", verify=True, cache_dir="~/models")
    nbloader.preflight("org/name", plan="4-bit", loader_kwargs={"vae": None})


async def mistakes() -> None:
    """What a type checker says before the line is run: each of these errors has to be there."""
    nbloader.load()  # type: ignore[call-arg]
    nbloader.load("org/name", "main")  # type: ignore[call-arg]
    nbloader.load("org/name", torch_dtype="float16")  # type: ignore[call-arg]
    nbloader.load("org/name", device_map="auto")  # type: ignore[call-arg]
    nbloader.load("org/name", verify="yes")  # type: ignore[arg-type]
    nbloader.start("org/name", "main")  # type: ignore[call-arg]
    nbloader.start("org/name", colour="red")  # type: ignore[call-arg]
    nbloader.start("org/name", device=1.5)  # type: ignore[arg-type]
    await nbloader.aload("org/name", cache_folder="models")  # type: ignore[call-arg]
    await nbloader.aload("org/name", settings=3)  # type: ignore[arg-type]
    nbloader.download("org/name", device="cpu")  # type: ignore[call-overload]
    nbloader.preflight("org/name", force=True)  # type: ignore[call-overload]
    nbloader.download("org/name").suffixed()  # type: ignore[attr-defined]
    nbloader.laod("org/name")  # type: ignore[attr-defined]
