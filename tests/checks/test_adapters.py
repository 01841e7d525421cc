"""Does what is put into a model fit it? A table of facts and what the check says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbloader.checks import Facts, required_packages, run_checks
from nbloader.checks.adapters import adapters
from nbloader.errors import UnsupportedRepoError
from nbloader.records import (
    AdapterFacts,
    AdapterKind,
    CheckResult,
    CheckStatus,
    ChosenAdapter,
    PackageFacts,
)
from tests.samples import SELECTION

CHOSEN = ChosenAdapter(
    component="adapter ink",
    kind=AdapterKind.LORA,
    path="org/ink:ink.safetensors",
    repo_id="org/ink",
    folder="",
    filename="ink.safetensors",
)
ADAPTED = replace(SELECTION, adapters=(CHOSEN,))
GOOD = AdapterFacts(
    path=CHOSEN.path,
    name="ink",
    kind=AdapterKind.LORA,
    format="kohya",
    made_for="FLUX.1",
    base="FLUX.1",
    matched=304,
    ranks=(16,),
    size=9,
)


def checked(*found: AdapterFacts) -> CheckResult:
    return adapters(Facts(repo_id="org/name", selection=ADAPTED, adapters=found))


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (
            GOOD,
            CheckResult(
                name="adapters",
                status=CheckStatus.PASSED,
                message="ink: LoRA in the format of kohya, rank 16, 304 of 304 layers matched",
            ),
        ),
        (
            replace(GOOD, format="diffusers", matched=0, unknown=304, ranks=(4, 8, 16)),
            CheckResult(
                name="adapters",
                status=CheckStatus.PASSED,
                message="ink: LoRA, rank 4 to 16, 304 layers not compared",
            ),
        ),
        (
            replace(GOOD, kind=AdapterKind.TEXTUAL_INVERSION, format="", matched=1, ranks=()),
            CheckResult(
                name="adapters",
                status=CheckStatus.PASSED,
                message="ink: textual inversion, 1 of 1 embeddings matched",
            ),
        ),
        (
            replace(GOOD, unmatched=4, example="this model has no 'x'"),
            CheckResult(
                name="adapters",
                status=CheckStatus.WARNING,
                message="ink: LoRA in the format of kohya, rank 16, 304 of 308 layers matched",
                hint="What has no place is left out: this model has no 'x'. If the result is not "
                "what you expect, look for an adapter of FLUX.1.",
            ),
        ),
        (
            replace(GOOD, made_for="Stable Diffusion XL", matched=0, unmatched=722),
            CheckResult(
                name="adapters",
                status=CheckStatus.FAILED,
                message="'ink' is a LoRA made for Stable Diffusion XL, and org/name is FLUX.1",
                hint="Look for one that was made for FLUX.1, or load it with a model of Stable "
                "Diffusion XL.",
                reference=UnsupportedRepoError.reference,
                forceable=True,
            ),
        ),
        (
            replace(GOOD, mismatched=1, example="'x' is 768 to 320 wide, and 2048 to 320 here"),
            CheckResult(
                name="adapters",
                status=CheckStatus.FAILED,
                message="'ink' does not fit org/name: 1 of its 305 layers has no place in it; "
                "'x' is 768 to 320 wide, and 2048 to 320 here",
                hint="Look for one that was made for this model of FLUX.1.",
                reference=UnsupportedRepoError.reference,
            ),
        ),
        (
            replace(GOOD, problem="diffusers loads no LoHa"),
            CheckResult(
                name="adapters",
                status=CheckStatus.FAILED,
                message="'ink': diffusers loads no LoHa",
                hint="Look for a file of FLUX.1 in another format: names that begin with "
                "`transformer.` or `unet.` are those of diffusers.",
                reference=UnsupportedRepoError.reference,
                forceable=True,
            ),
        ),
        (
            AdapterFacts(path="x", name="ink", kind=None),
            CheckResult(
                name="adapters",
                status=CheckStatus.FAILED,
                message="'ink' is no adapter: its tensors are neither those of a LoRA, a LoKr or "
                "an IP-Adapter, nor those of new words",
                hint="A whole model is loaded by its own id. If a repository has several files, "
                "name the one that is meant, as org/name/file.safetensors.",
                reference=UnsupportedRepoError.reference,
                forceable=True,
            ),
        ),
    ],
)
def test_what_the_check_says(found: AdapterFacts, result: CheckResult) -> None:
    assert checked(found) == result


def test_an_adapter_of_the_same_layers_is_one_for_the_model() -> None:
    """One for another family that has all of its layers is put in, as the library does."""
    chroma = replace(GOOD, base="Chroma")
    assert checked(chroma).status is CheckStatus.PASSED
    other = replace(GOOD, made_for="FLUX.2")
    assert checked(other).status is CheckStatus.PASSED


def test_one_that_does_not_tell_is_counted() -> None:
    result = checked()
    assert (result.status, result.message) == (
        CheckStatus.PASSED,
        "1 adapter does not tell what is in it",
    )


def test_the_report_has_it_where_there_are_adapters() -> None:
    for selection, there in ((ADAPTED, True), (SELECTION, False), (None, False)):
        names = [each.name for each in run_checks(Facts(repo_id="org/name", selection=selection))]
        assert ("adapters" in names) is there


def test_a_lora_needs_peft_and_an_ip_adapter_does_not() -> None:
    assert "peft" in required_packages(ADAPTED)
    seeing = replace(CHOSEN, kind=AdapterKind.IP_ADAPTER)
    assert "peft" not in required_packages(replace(SELECTION, adapters=(seeing,)))
    there = {"torch": "2.13.0", "diffusers": "0.42.1", "peft": None}
    packages = {name: PackageFacts(name=name, installed=there[name]) for name in there}
    facts = Facts(repo_id="org/name", selection=ADAPTED, packages=packages)
    (result,) = (each for each in run_checks(facts) if each.name == "packages")
    assert result.status is CheckStatus.FAILED
    assert "peft" in result.message
