"""The checks as they are shown: the verdict first, and everything once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.records import (
    CheckResult,
    CheckStatus,
    ComponentWeights,
    Failed,
    Fit,
    Form,
    Kind,
    Method,
    PlacedComponent,
    Placement,
    Selection,
    Target,
)
from nbloader.views.checks import (
    checks_lines,
    checks_markup,
    joint_html,
    joint_text,
    report_html,
    report_text,
)
from nbloader.views.verdict import Verdict, joint_verdict, room, verdict, what_it_is
from tests import jobs
from tests.samples import MB, SELECTION
from tests.views.test_html_view import Reader

GB = 1000 * MB
P, W, F, S = (
    CheckStatus.PASSED,
    CheckStatus.WARNING,
    CheckStatus.FAILED,
    CheckStatus.SKIPPED,
)


@dataclass(frozen=True)
class Shown:
    """What a report shows."""

    repo_id: str = "org/name"
    results: Sequence[CheckResult] = ()
    selection: Selection | None = SELECTION
    weights: Sequence[ComponentWeights] = ()
    fit: Fit | None = None
    missing_bytes: int = 0


def placed(method: Method, *parts: tuple[str, int], **figures: Any) -> Placement:
    return Placement(
        method=method,
        device="cuda",
        dtype="float16",
        components=tuple(
            PlacedComponent(name=str(number), device=device, dtype="float16", bytes=size)
            for number, (device, size) in enumerate(parts)
        ),
        **figures,
    )


T4 = ("Tesla T4", 15_500 * MB)
FOUR_BIT = placed(Method.FOUR_BIT, ("cuda:0", 12 * GB), vram=(14_200 * MB,), ram_loading=GB)
OFFLOAD = placed(Method.MODEL_OFFLOAD, ("cpu", 38 * GB), vram=(9 * GB,), ram_after=38 * GB)
ON_CPU = placed(Method.CPU, ("cpu", 2 * GB), ram_after=100 * MB, mapped=2 * GB)
ON_BOTH = placed(Method.MULTI_GPU, ("cuda:0", GB), ("cuda:1", GB), vram=(14 * GB, 13 * GB))


def fitting(chosen: Placement, *gpus: tuple[str, int]) -> Fit:
    return Fit(chosen=chosen, placements=(chosen,), gpus=gpus, memory=50 * GB, workload="one image")


def result(name: str, status: CheckStatus, message: str = "", **more: Any) -> CheckResult:
    return CheckResult(name=name, status=status, message=message or f"what {name} says", **more)


HUB, FILES, SPACE = (result(name, P) for name in ("hub", "files", "disk"))
PLACED = result("placement", P)
SLOW = result("placement", W, "it is slow", hint="take another")
FULL = result("disk", F, "not enough disk space", hint="free some", link="https://a.b/c")
NO_PLAN = result("placement", F, "plan=gpu does not work here", hint='pass plan="cpu"')
NO_XET = result("xet", S, "nothing comes from there")

VERDICTS: dict[str, tuple[Shown, Verdict]] = {
    "all is well": (
        Shown(
            results=(HUB, FILES, PLACED),
            fit=fitting(FOUR_BIT, T4),
            selection=replace(SELECTION, class_name="QwenImageEditPlusPipeline"),
            missing_bytes=SELECTION.total,
        ),
        Verdict(
            status=P,
            subject="org/name",
            what="QwenImageEditPlusPipeline of diffusers",
            says="can be loaded here: 100 MB to download, 4-bit on cuda, needs 14.2 of the 15.5 GB "
            "that are free on the Tesla T4",
        ),
    ),
    "some of it is cached": (
        Shown(results=(HUB, SLOW), fit=fitting(ON_CPU, T4), missing_bytes=40 * MB),
        Verdict(
            status=W,
            subject="org/name",
            what="SomePipeline of diffusers",
            says="can be loaded here: 40.0 of 100 MB to download, all on the CPU in float16, needs "
            "2.1 of the 50.0 GB of RAM that are free",
        ),
    ),
    "all of it is cached, and the caller places it": (
        Shown(results=(result("placement", S),), fit=fitting(ON_CPU)),
        Verdict(
            status=P,
            subject="org/name",
            what="SomePipeline of diffusers",
            says="can be loaded here: nothing to download, all 100 MB are cached, placed by "
            "`loader_kwargs`",
        ),
    ),
    "a folder": (
        Shown(results=(PLACED,), selection=replace(SELECTION, folder="/here")),
        Verdict(
            status=P,
            subject="org/name",
            what="SomePipeline of diffusers",
            says="can be loaded here: nothing to download, all 100 MB are there",
        ),
    ),
    "one check failed": (
        Shown(results=(HUB, SLOW, FULL), fit=fitting(ON_CPU)),
        Verdict(
            status=F,
            subject="org/name",
            what="SomePipeline of diffusers",
            says="cannot be loaded here: not enough disk space",
            failure=FULL,
        ),
    ),
    "it is not known what it is": (
        Shown(
            results=(result("access", F, "no such repository", hint="check it"),), selection=None
        ),
        Verdict(
            status=F,
            subject="org/name",
            says="cannot be loaded here: no such repository",
            failure=result("access", F, "no such repository", hint="check it"),
        ),
    ),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_what_the_verdict_is(case: str) -> None:
    shown, expected = VERDICTS[case]
    assert verdict(shown) == expected


@pytest.mark.parametrize(
    ("fit", "text"),
    [
        (None, ""),
        (Fit(chosen=None, placements=()), ""),
        (fitting(FOUR_BIT, T4), "needs 14.2 of the 15.5 GB that are free on the Tesla T4"),
        (
            fitting(OFFLOAD, T4),
            "needs 9.0 of the 15.5 GB that are free on the Tesla T4 and 38.0 of the 50.0 GB of RAM "
            "that are free",
        ),
        (fitting(ON_CPU, T4), "needs 2.1 of the 50.0 GB of RAM that are free"),
        (replace(fitting(ON_CPU), memory=2100 * MB), "needs all 2.1 GB of RAM that are free"),
        (replace(fitting(ON_CPU), memory=GB), "needs 2.1 GB of the 1.0 GB of RAM that are free"),
        (replace(fitting(ON_CPU), memory=0), ""),
        (
            fitting(ON_BOTH, T4, T4),
            "needs up to 14.0 of the 15.5 GB that are free on each of 2 Tesla T4",
        ),
        (
            fitting(ON_BOTH, T4, ("NVIDIA L4", 22 * GB)),
            "needs 14.0 of the 15.5 GB that are free on the Tesla T4 and 13.0 of the 22.0 GB that "
            "are free on the NVIDIA L4",
        ),
    ],
)
def test_what_a_placement_takes_of_what_is_free(fit: Fit | None, text: str) -> None:
    assert room(fit) == text


def test_what_it_is() -> None:
    plain = replace(SELECTION, kind=Kind.TRANSFORMERS, class_name=None)
    targets = (
        Target(library="transformers", class_name="AutoModel", form=Form.MODEL),
        Target(library="sentence_transformers.models", class_name="Pooling", form=Form.MODEL),
    )
    assert [
        what_it_is(SELECTION),
        what_it_is(plain),
        what_it_is(replace(plain, kind=Kind.FILES)),
        what_it_is(replace(SELECTION, targets=targets)),
    ] == [
        "SomePipeline of diffusers",
        "a model of transformers",
        "",
        "AutoModel and Pooling of transformers, sentence-transformers",
    ]


REPORT = Shown(
    results=(
        HUB,
        FILES,
        SPACE,
        result("placement", W, "the large components lose precision", hint="take model-offload"),
        NO_XET,
        result("license", S, "its card names none"),
        result("rate-limit", S, "nothing comes from there"),
    ),
    fit=Fit(
        chosen=FOUR_BIT,
        placements=(FOUR_BIT, replace(OFFLOAD, reason="fits, slower")),
        gpus=(T4,),
        workload="one image",
    ),
    weights=(ComponentWeights(name="unet", bytes_by_dtype={"BF16": 8 * GB}),),
    missing_bytes=SELECTION.total,
)


def test_a_report_as_text_and_as_html() -> None:
    sentence = (
        "⚠\ufe0e org/name (SomePipeline of diffusers) can be loaded here: 100 MB to download, "
        "4-bit on cuda, needs 14.2 of the 15.5 GB that are free on the Tesla T4"
    )
    assert report_text(REPORT).splitlines() == [
        sentence,
        "⚠\ufe0e placement: the large components lose precision",
        "  take model-offload",
        "✓ 3 checks passed: hub, files, disk",
        "– not checked: xet, rate-limit (nothing comes from there), license (its card names none)",
        "",
        "Weights as they are stored: 8.0 GB",
        "  component  weights  formats",
        "  unet       8.0 GB   BF16 8.0 GB",
        "",
        "1 other plan fits (for one image)",
        "  plan           dtype    VRAM    RAM while loading  RAM during inference",
        "  model-offload  float16  9.0 GB  –                  38.0 GB               fits, slower",
    ]
    assert Reader(report_html(REPORT)).lines == [
        sentence,
        "⚠\ufe0e placement: the large components lose precision",
        "take model-offload",
        "✓ 3 checks passed · 3 not checked",
        "✓ hub: what hub says",
        "✓ files: what files says",
        "✓ disk: what disk says",
        "– not checked: xet, rate-limit (nothing comes from there), license (its card names none)",
        "Weights as they are stored: 8.0 GB",
        "component | weights | formats",
        "unet | 8.0 GB | BF16 8.0 GB",
        "1 other plan fits (for one image)",
        "plan | dtype | VRAM | RAM while loading | RAM during inference",
        "model-offload | float16 | 9.0 GB | – | 38.0 GB | fits, slower",
    ]


def test_what_is_stored_is_told_apart_from_the_files_that_it_is_in() -> None:
    stored = (ComponentWeights(name="model", bytes_by_dtype={"F32": 90 * MB}),)
    for shown in (Shown(weights=stored), Shown(weights=stored, selection=None)):
        files = "; with all other files 100 MB" if shown.selection else ""
        assert f"Weights as they are stored: 90.0 MB{files}" in report_text(shown).splitlines()


def test_where_all_is_well_what_was_not_checked_is_counted_and_its_causes_are_folded() -> None:
    well = replace(REPORT, results=(HUB, FILES, NO_XET), weights=(), fit=None)
    verdict_line = "✓ org/name (SomePipeline of diffusers) can be loaded here: 100 MB to download"
    assert report_text(well).splitlines() == [
        verdict_line,
        "✓ 2 checks passed: hub, files",
        "– 1 not checked",
    ]
    assert Reader(report_html(well)).lines == [
        verdict_line,
        "✓ 2 checks passed · 1 not checked",
        "✓ hub: what hub says",
        "✓ files: what files says",
        "– not checked: xet (nothing comes from there)",
    ]
    assert report_html(well).rpartition("</details>")[2] == "</div>"


@pytest.mark.parametrize("form", [report_text, report_html])
def test_the_chosen_plan_stands_once(form: Callable[[Shown], str]) -> None:
    assert form(REPORT).count("4-bit") == 1


def test_a_failure_is_told_with_its_cure_and_then_what_else_failed() -> None:
    shown = Shown(results=(SLOW, FULL, HUB, replace(NO_PLAN, name="placement")))
    assert report_text(shown).splitlines() == [
        "✗ org/name (SomePipeline of diffusers) cannot be loaded here: not enough disk space",
        "  free some",
        "  https://a.b/c",
        "✗ placement: plan=gpu does not work here",
        '  pass plan="cpu"',
        "⚠\ufe0e placement: it is slow",
        "  take another",
        "✓ 1 check passed: hub",
    ]
    assert Reader(report_html(shown)).lines[:3] == [
        "✗ org/name (SomePipeline of diffusers) cannot be loaded here: not enough disk space",
        "free some https://a.b/c",
        "✗ placement: plan=gpu does not work here",
    ]


def test_only_what_asks_for_something_is_open() -> None:
    markup = report_html(replace(REPORT, results=(*REPORT.results, FULL)))
    opened = [part.split("</summary>")[0] for part in markup.split("<details open>")[1:]]
    assert [Reader(f"{part}</summary>").lines for part in opened] == [
        ["⚠\ufe0e placement: the large components lose precision"]
    ]


def test_where_a_plan_was_asked_for_that_does_not_fit_the_others_are_seen_at_once() -> None:
    others = Fit(chosen=None, placements=(replace(ON_CPU, reason="fits"),), workload="one image")
    markup = report_html(Shown(results=(NO_PLAN,), fit=others))
    (opened,) = markup.split("<details open>")[1:]
    title = opened.partition("</summary>")[0]
    assert Reader(f"{title}</summary>").lines == ["1 plan fits (for one image)"]


def test_only_the_mark_of_a_failure_has_a_colour() -> None:
    for status, colored in ((P, False), (W, False), (F, True)):
        markup = report_html(Shown(results=(result("hub", status, hint="h"),)))
        assert ("color:var(--jp-error-color1,inherit)" in markup) is colored
        assert "border-left:3px solid var(--jp-" in markup


# -- several ---------------------------------------------------------------------------------------

OTHER = replace(REPORT, repo_id="org/other")
FAILING = Shown(repo_id="org/bad", results=(HUB, NO_PLAN))


def test_the_verdict_over_several_repositories() -> None:
    def over(*reports: Shown) -> Verdict:
        return joint_verdict(reports, missing_bytes=3 * GB, shared_bytes=GB)

    assert over(REPORT, OTHER) == Verdict(
        status=W,
        subject="2 repositories",
        says="can be loaded here, each by itself: 3.0 GB to download, 1.0 GB less than one by one",
    )
    assert over(REPORT, FAILING) == Verdict(
        status=F, subject="1 of 2 repositories", says="cannot be loaded here"
    )
    full = [replace(each, results=(HUB, FULL)) for each in (REPORT, OTHER, FAILING)]
    assert over(*full) == Verdict(
        status=F,
        subject="3 repositories",
        says="cannot be loaded here: not enough disk space",
        failure=FULL,
    )


def test_reports_of_several_begin_with_the_verdict_over_all() -> None:
    figures = {"missing_bytes": 3 * GB, "shared_bytes": 0}
    text = joint_text([OTHER, FAILING], **figures).splitlines()
    assert text[0] == "✗ 1 of 2 repositories cannot be loaded here"
    assert text[2].startswith("⚠\ufe0e org/other (SomePipeline of diffusers) can be loaded here")
    lines = Reader(joint_html([OTHER, FAILING], **figures)).lines
    assert lines[:2] == [text[0], text[2]]
    assert (
        "✗ org/bad (SomePipeline of diffusers) cannot be loaded here: plan=gpu does not work here"
        in lines
    )
    full = [replace(each, results=(HUB, FULL)) for each in (REPORT, OTHER)]
    for form in (joint_text(full, **figures), joint_html(full, **figures)):
        assert form.count("not enough disk space") == form.count("free some") == 1


# -- the checks of a job ---------------------------------------------------------------------------


def test_the_checks_of_a_job_are_one_line_but_for_what_asks_for_something() -> None:
    assert checks_lines(REPORT.results, REPORT.fit) == [
        "⚠\ufe0e placement: the large components lose precision",
        "  take model-offload",
        "✓ 3 checks passed · needs 14.2 of the 15.5 GB that are free on the Tesla T4",
    ]
    assert Reader(checks_markup(REPORT.results, REPORT.fit)).lines == [
        "⚠\ufe0e placement: the large components lose precision",
        "take model-offload",
        "✓ 3 checks passed · needs 14.2 of the 15.5 GB that are free on the Tesla T4",
        "✓ hub: what hub says",
        "✓ files: what files says",
        "✓ disk: what disk says",
        "– not checked: xet, rate-limit (nothing comes from there), license (its card names none)",
    ]
    assert (checks_lines(()), checks_markup(())) == ([], "")


def test_a_failure_that_the_job_tells_is_not_told_by_its_checks() -> None:
    results = (HUB, FULL, NO_PLAN)
    ended = Failed(reference="not-enough-disk", message=FULL.message, hint=FULL.hint)
    assert checks_lines(results, None, ended) == [
        "✗ placement: plan=gpu does not work here",
        '  pass plan="cpu"',
        "✓ 1 check passed",
    ]
    assert FULL.message not in checks_markup(results, None, ended)


# -- whatever comes --------------------------------------------------------------------------------

RESULTS = st.lists(
    st.builds(
        CheckResult,
        name=jobs.texts,
        status=st.sampled_from(CheckStatus),
        message=jobs.texts,
        hint=jobs.texts,
    ),
    max_size=40,
)


@given(RESULTS, jobs.texts)
def test_nothing_foreign_becomes_markup_and_the_verdict_stands_first(
    results: list[CheckResult], repo_id: str
) -> None:
    shown = Shown(results=results, repo_id=repo_id)
    found = verdict(shown)
    failures = [each for each in results if each.status is F]
    assert (found.status is F) is bool(failures)
    assert found.failure == (failures[0] if failures else None)
    text, markup = report_text(shown), report_html(shown)
    assert Reader(markup).seen <= {"div", "b", "span", "code", "details", "summary"}
    assert all(each.isprintable() for each in text.split("\n"))
    assert text.startswith(("✓", "⚠", "✗"))
    joint = joint_html([shown, shown], missing_bytes=1, shared_bytes=1)
    assert Reader(joint).seen <= {"div", "b", "span", "code", "details", "summary"}


def test_of_very_many_checks_some_are_shown() -> None:
    many = Shown(results=[result(f"check {number}", W, hint="h") for number in range(60)])
    assert report_text(many).splitlines()[-1] == "and 30 more"
    assert Reader(report_html(many)).lines[-1] == "and 30 more"
