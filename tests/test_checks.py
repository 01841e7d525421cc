from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nbloader.checks import CHECKS, Facts, PreflightReport, required_packages, run_checks
from nbloader.errors import (
    CacheNotWritableError,
    DiskFullError,
    DiskSpaceError,
    GatedRepoError,
    HubUnreachableError,
    MissingPackageError,
    NbloaderError,
    NoWeightsError,
    PreflightError,
    RepoError,
    TransferError,
    UnsupportedClassError,
)
from nbloader.records import CheckResult, CheckStatus, Component, DiskFacts, HubFacts, Kind
from tests.samples import MB, PLAN

P, W, F, S = (
    CheckStatus.PASSED,
    CheckStatus.WARNING,
    CheckStatus.FAILED,
    CheckStatus.SKIPPED,
)
HUB = HubFacts(endpoint="https://huggingface.co", cache_dir="/cache", answer_s=0.12)
DISK = DiskFacts(folder="/cache", free=50_000 * MB, total=100_000 * MB, writable=True)
PACKAGES = {"torch": "2.13.0", "diffusers": "0.42.1"}
GOOD = Facts(
    repo_id="org/name",
    hub=HUB,
    plan=PLAN,
    disk=DISK,
    packages=PACKAGES,
    pipelines=frozenset({"SomePipeline"}),
)


def error(kind: type[NbloaderError]) -> NbloaderError:
    return kind("what happened", hint="do this")


def subclasses(kind: type[NbloaderError]) -> list[type[NbloaderError]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in subclasses(child))]


@pytest.mark.parametrize(
    ("facts", "statuses"),
    [
        (GOOD, (P, P, P, P, P, P)),
        (replace(GOOD, hub=replace(HUB, answer_s=None)), (S, P, P, P, P, P)),
        (replace(GOOD, check_network=False), (S, P, P, P, P, P)),
        (replace(GOOD, hub=replace(HUB, token_refused=True)), (P, W, P, P, P, P)),
        (replace(GOOD, disk=replace(DISK, free=99 * MB)), (P, P, P, P, F, P)),
        (replace(GOOD, disk=replace(DISK, free=600 * MB)), (P, P, P, P, W, P)),
        (replace(GOOD, disk=replace(DISK, free=0), check_disk_space=False), (P, P, P, P, S, P)),
        (replace(GOOD, required_disk_bytes=10**12), (P, P, P, P, F, P)),
        (
            replace(
                GOOD,
                required_disk_bytes=10**12,
                cached=frozenset(file.path for file in PLAN.files),
            ),
            (P, P, P, P, P, P),
        ),
        (replace(GOOD, disk=replace(DISK, writable=False)), (P, P, P, F, P, P)),
        (replace(GOOD, packages={**PACKAGES, "accelerate": None}), (P, P, P, P, P, F)),
        (replace(GOOD, packages={}), (P, P, P, P, P, S)),
        (replace(GOOD, pipelines=frozenset({"Other"})), (P, P, P, P, P, F)),
        (replace(GOOD, pipelines=None), (P, P, P, P, P, P)),
        (Facts(repo_id="a/b", problem=error(HubUnreachableError)), (F, S, S, S, S, S)),
        (Facts(repo_id="a/b", problem=error(GatedRepoError)), (P, F, S, S, S, S)),
        (Facts(repo_id="a/b", problem=error(NoWeightsError)), (P, P, F, S, S, S)),
        (Facts(repo_id="a/b", problem=error(CacheNotWritableError)), (P, P, S, F, S, S)),
        (Facts(repo_id="a/b", problem=error(DiskFullError)), (P, P, S, S, F, S)),
    ],
)
def test_what_the_checks_find(facts: Facts, statuses: tuple[CheckStatus, ...]) -> None:
    results = run_checks(facts)
    assert tuple(result.status for result in results) == statuses
    assert [result.name for result in results] == [check.name for check in CHECKS]
    for result in results:
        assert bool(result.reference) >= (result.status is F)
        assert bool(result.hint) == (result.status in (F, W))


@pytest.mark.parametrize("kind", [*subclasses(RepoError), *subclasses(TransferError)])
def test_whatever_stops_the_worker_is_a_failure_of_the_report(kind: type[NbloaderError]) -> None:
    report = PreflightReport(
        repo_id="a/b", results=run_checks(Facts(repo_id="a/b", problem=error(kind)))
    )
    assert [failure.reference for failure in report.failures] == [kind.reference]


def test_the_results_of_a_good_case() -> None:
    messages = {result.name: result.message for result in run_checks(GOOD)}
    assert messages == {
        "hub": "https://huggingface.co answers in 0.1 s",
        "access": "org/name is public and can be read",
        "files": "SomePipeline of diffusers: 4 files, 100 MB, 100 MB to download",
        "cache": "/cache",
        "disk": "100 MB required, 50.0 GB available at /cache",
        "packages": "torch 2.13.0, diffusers 0.42.1",
    }


def test_a_shortage_names_required_and_available() -> None:
    disk = run_checks(replace(GOOD, disk=replace(DISK, free=30 * MB)))[4]
    assert disk == CheckResult(
        name="disk",
        status=F,
        message="not enough disk space: 100 MB required, 30.0 MB available at /cache",
        hint="Free 70.0 MB there, or pass a folder on another disk as `cache_dir=`.",
        reference="not-enough-disk",
    )


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (replace(GOOD, disk=replace(DISK, free=0)), DiskSpaceError),
        (replace(GOOD, packages={"torch": None}), MissingPackageError),
        (replace(GOOD, pipelines=frozenset({"Other"})), UnsupportedClassError),
        (Facts(repo_id="a/b", problem=error(GatedRepoError)), GatedRepoError),
        (
            replace(GOOD, disk=replace(DISK, free=0), packages={"torch": None}),
            PreflightError,
        ),
    ],
)
def test_a_failure_is_raised_as_the_error_that_it_is(
    facts: Facts, kind: type[NbloaderError]
) -> None:
    report = PreflightReport(repo_id="org/name", results=run_checks(facts))
    assert not report.ok
    with pytest.raises(kind) as caught:
        report.raise_for_failures()
    assert type(caught.value) is kind


def test_a_good_report_raises_nothing_and_shows_itself() -> None:
    report = PreflightReport(
        repo_id="org/name", results=run_checks(GOOD), plan=PLAN, missing_bytes=GOOD.missing_bytes
    )
    report.raise_for_failures()
    assert report.ok
    assert str(report).splitlines()[0] == "✓ hub: https://huggingface.co answers in 0.1 s"
    assert "https://huggingface.co answers in 0.1 s" in report._repr_html_()
    assert json.loads(json.dumps(report.to_json())) == {
        "repo_id": "org/name",
        "ok": True,
        "commit_hash": "c" * 40,
        "kind": "diffusers",
        "total_bytes": 100 * MB + 2000,
        "missing_bytes": 100 * MB + 2000,
        "checks": [
            {
                "name": result.name,
                "status": "passed",
                "message": result.message,
                "hint": "",
                "reference": "",
            }
            for result in report.results
        ],
    }


@pytest.mark.parametrize(
    ("kind", "class_name", "paths", "packages"),
    [
        (Kind.SENTENCE_TRANSFORMERS, None, (), ("torch", "sentence_transformers")),
        (Kind.TRANSFORMERS, None, (), ("torch", "transformers")),
        (
            Kind.DIFFUSERS,
            "Qwen2VLProcessor",
            (),
            ("torch", "diffusers", "transformers", "accelerate", "torchvision", "PIL"),
        ),
        (
            Kind.DIFFUSERS,
            "CLIPImageProcessor",
            (),
            ("torch", "diffusers", "transformers", "accelerate", "PIL"),
        ),
        (
            Kind.DIFFUSERS,
            "T5Tokenizer",
            ("tokenizer/spiece.model",),
            ("torch", "diffusers", "transformers", "accelerate", "sentencepiece"),
        ),
        (
            Kind.DIFFUSERS,
            "T5TokenizerFast",
            ("tokenizer/spiece.model", "tokenizer/tokenizer.json"),
            ("torch", "diffusers", "transformers", "accelerate"),
        ),
    ],
)
def test_packages_that_a_plan_needs(
    kind: Kind, class_name: str | None, paths: tuple[str, ...], packages: tuple[str, ...]
) -> None:
    part = Component(name="part", class_name=class_name, paths=paths)
    assert required_packages(replace(PLAN, kind=kind, components=(part,))) == packages


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        (["torch"], '%pip install "nbloader-hub[diffusers]"'),
        (["torchvision"], '%pip install "nbloader-hub[diffusers]"'),
        (["sentencepiece"], "%pip install sentencepiece"),
        (["diffusers", "PIL"], '%pip install "nbloader-hub[diffusers]" pillow'),
    ],
)
def test_one_line_installs_all_that_is_missing(missing: list[str], line: str) -> None:
    result = run_checks(replace(GOOD, packages=dict.fromkeys(missing)))[-1]
    assert result.hint == f"Run this and restart the kernel: {line}"
