"""Whether attention can be computed as the caller asks, from facts alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbloader.checks import Facts, run_checks
from nbloader.fit import fit
from nbloader.libraries import ATTENTIONS
from nbloader.records import (
    AttentionFacts,
    CheckResult,
    CheckStatus,
    Component,
    ComponentWeights,
    GpuFacts,
    Kind,
    MachineFacts,
    MemoryFacts,
    PackageFacts,
    TorchFacts,
)
from nbloader.wording import Reader
from tests.checks.test_checks import CPU, GOOD
from tests.samples import MB, SELECTION

GB = 1000 * MB
T4, L4, H100 = (
    GpuFacts(name=name, free=15 * GB, total=16 * GB, capability=capability)
    for name, capability in (("Tesla T4", (7, 5)), ("NVIDIA L4", (8, 9)), ("NVIDIA H100", (9, 0)))
)
LANGUAGE = replace(
    SELECTION,
    kind=Kind.TRANSFORMERS,
    class_name="LlamaForCausalLM",
    components=(
        Component(name="config", paths=("model_index.json",)),
        Component(
            name="model",
            library="transformers",
            class_name="LlamaForCausalLM",
            model_type="llama",
            paths=("transformer/model.safetensors", "vae/model.safetensors"),
            weights=("transformer/model.safetensors", "vae/model.safetensors"),
        ),
    ),
)
EVERY = frozenset(way.name for way in ATTENTIONS)
HAVE = {
    "flash_attn": "2.8.3",
    "flash_attn_interface": "3.0.0",
    "flash_attn.cute": "4.0.0",
    "sageattention": "2.2.0",
    "torch": "2.13.0",
    "xformers": "0.0.33",
}


def facts_of(
    name: str,
    gpus: tuple[GpuFacts, ...] = (),
    *,
    kind: Kind = Kind.TRANSFORMERS,
    dtype: str = "auto",
    takes: frozenset[str] | None = EVERY,
    offered: bool | None = True,
    **packages: str | None,
) -> Facts:
    """What is known of a load with a way to compute attention, on a machine with these GPUs."""
    installed = {
        each: PackageFacts(name=each, installed=version)
        for each, version in {**HAVE, **packages}.items()
    }
    selection = SELECTION if kind is Kind.DIFFUSERS else replace(LANGUAGE, kind=kind)
    weights = tuple(
        ComponentWeights(name=each.name, bytes_by_dtype={"F32": 80 * MB})
        for each in selection.components
        if each.weights
    )
    torch = TorchFacts(version="2.13.0", cuda=(13, 0), archs=("sm_75", "sm_80", "sm_90"))
    machine = MachineFacts(
        memory=MemoryFacts(available=20 * GB, total=24 * GB),
        gpus=gpus,
        torch=torch,
        packages={**CPU.packages, **installed},
    )
    return replace(
        GOOD,
        selection=selection,
        weights=weights,
        packages=machine.packages,
        machine=machine,
        fit=fit(selection, weights, machine, dtype=dtype),
        attention=AttentionFacts(name=name, offered=offered, classes=(("SomeModel", takes),)),
        reader=Reader.SCRIPT,
    )


def found(facts: Facts) -> CheckResult:
    (result,) = (each for each in run_checks(facts) if each.name == "attention")
    return result


def test_it_is_checked_only_where_it_is_asked_for() -> None:
    assert "attention" not in {each.name for each in run_checks(GOOD)}
    assert found(replace(facts_of("sdpa"), loads=False)).status is CheckStatus.SKIPPED


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (facts_of("sdpa"), "sdpa"),
        (facts_of("eager"), "eager"),
        (facts_of("flex_attention"), "flex_attention (torch 2.13.0)"),
        (facts_of("sdpa", kind=Kind.DIFFUSERS), "sdpa"),
        (facts_of("flash_attention_2", (L4,)), "flash_attention_2 (flash-attn 2.8.3)"),
        (facts_of("flash_attention_2", (L4,), takes=None), "flash_attention_2 (flash-attn 2.8.3)"),
        (facts_of("flash_attention_2", (L4,), flash_attn="2.4"), "flash_attention_2 (flash-attn 2"),
        (facts_of("flash_attention_3", (H100,)), "flash_attention_3 (flash-attn-3 3.0.0)"),
        (facts_of("flash_attention_4", (H100,)), "flash_attention_4 (flash-attn-4 4.0.0)"),
        (facts_of("sage", (L4,), kind=Kind.DIFFUSERS), "sage (sageattention 2.2.0)"),
        (facts_of("xformers", (T4,), kind=Kind.DIFFUSERS), "xformers (xformers 0.0.33)"),
        # On the GPU that it is placed on, whatever else there is.
        (facts_of("flash_attention_2", (L4, T4)), "flash_attention_2 (flash-attn 2.8.3)"),
    ],
)
def test_what_can_be_is_passed(facts: Facts, message: str) -> None:
    result = found(facts)
    assert result.status is CheckStatus.PASSED
    assert result.message.startswith(message)


INSTEAD = 'Pass attention="sdpa".'


@pytest.mark.parametrize(
    ("facts", "reference", "message", "hint"),
    [
        (
            facts_of("flash_attention_2", (T4,)),
            "does-not-fit",
            "flash_attention_2 needs an NVIDIA GPU of compute capability 8.0 or newer, and Tesla T4"
            " has 7.5",
            INSTEAD,
        ),
        (
            facts_of("flash_attention_2"),
            "does-not-fit",
            "flash_attention_2 needs an NVIDIA GPU of compute capability 8.0 or newer, and the "
            "model goes to none",
            INSTEAD,
        ),
        (
            facts_of("xformers", kind=Kind.DIFFUSERS),
            "does-not-fit",
            "xformers needs an NVIDIA GPU, and the model goes to none",
            INSTEAD,
        ),
        (
            facts_of("_sage_qk_int8_pv_fp8_cuda_sm90", (L4,), kind=Kind.DIFFUSERS),
            "does-not-fit",
            "_sage_qk_int8_pv_fp8_cuda_sm90 needs an NVIDIA GPU of compute capability 9.0 or newer,"
            " and NVIDIA L4 has 8.9",
            INSTEAD,
        ),
        (
            facts_of("flash_attention_2", (L4,), flash_attn=None),
            "missing-package",
            "flash_attention_2 needs flash-attn>=2.3.3, which is not installed",
            f"{INSTEAD}\nRun this: pip install --no-build-isolation "
            '"flash-attn>=2.3.3" torch==2.13.0 ',
        ),
        (
            # Without metadata neither library sees it.
            facts_of("flash_attention_2", (L4,), kind=Kind.DIFFUSERS, flash_attn="?"),
            "missing-package",
            "flash_attention_2 needs flash-attn>=2.6.3, which is not installed",
            INSTEAD,
        ),
        (
            facts_of("flash_attention_2", (L4,), kind=Kind.DIFFUSERS, flash_attn="2.4"),
            "missing-package",
            "flash_attention_2 needs flash-attn>=2.6.3, and 2.4 is installed",
            INSTEAD,
        ),
        (
            facts_of("flash_attention_3", (H100,), flash_attn_interface=None),
            "missing-package",
            "flash_attention_3 needs flash-attn-3, which is not installed",
            f"{INSTEAD}\nOr build flash-attn-3 from its sources: "
            "https://github.com/Dao-AILab/flash-attention",
        ),
        (
            facts_of("flash_attention_2", (L4,), dtype="float32"),
            "invalid-argument",
            "flash_attention_2 computes in bfloat16 or float16, and the model would be in float32",
            f'Pass dtype="bfloat16", or: {INSTEAD}',
        ),
        (
            facts_of("sage", (L4,)),
            "invalid-argument",
            "attention='sage' is none of transformers, which builds org/name",
            INSTEAD,
        ),
        (
            facts_of("eager", kind=Kind.DIFFUSERS),
            "invalid-argument",
            "attention='eager' is none of diffusers, which builds org/name",
            INSTEAD,
        ),
        (
            facts_of("xformers", kind=Kind.SENTENCE_TRANSFORMERS),
            "invalid-argument",
            "attention='xformers' is none of transformers, which builds org/name",
            INSTEAD,
        ),
        (
            facts_of("sage_varlen", (L4,), kind=Kind.DIFFUSERS, offered=False),
            "unsupported-class",
            "diffusers 0.42.1 has no attention 'sage_varlen'",
            f'{INSTEAD} Run this: pip install "diffusers>0.42.1" ',
        ),
        (
            facts_of("sdpa", takes=frozenset({"eager"})),
            "unsupported-class",
            "'SomeModel' cannot compute attention as 'sdpa'",
            'Pass attention="eager".',
        ),
        (
            facts_of("flash_attention_2", (L4,), takes=frozenset({"flash_attention_4"})),
            "unsupported-class",
            "'SomeModel' cannot compute attention as 'flash_attention_2'",
            "Leave attention= out: the library takes the best that the model has.",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_works_here(
    facts: Facts, reference: str, message: str, hint: str
) -> None:
    result = found(facts)
    assert (result.status, result.reference, result.message) == (
        CheckStatus.FAILED,
        reference,
        message,
    )
    assert result.hint.startswith(hint)


def test_what_may_not_work_is_a_warning() -> None:
    result = found(facts_of("flash_attention_3", (L4,)))
    assert result.status is CheckStatus.WARNING
    assert result.message == (
        "flash_attention_3 is made for GPUs of compute capability 9.x, and NVIDIA L4 has 8.9"
    )
    classes = (("SomeModel", EVERY), ("OtherModel", frozenset({"sdpa"})))
    facts = facts_of("sage", (L4,), kind=Kind.DIFFUSERS)
    result = found(
        replace(facts, attention=AttentionFacts(name="sage", offered=True, classes=classes))
    )
    assert (result.status, result.message) == (
        CheckStatus.WARNING,
        "'OtherModel' cannot compute attention as 'sage': that part computes as it always does",
    )


def test_where_the_caller_places_the_model_the_best_gpu_counts() -> None:
    facts = replace(facts_of("flash_attention_2", (T4, L4)), places_itself=True)
    assert found(facts).status is CheckStatus.PASSED
    facts = replace(facts_of("flash_attention_2", (T4, T4)), places_itself=True)
    assert found(facts).reference == "does-not-fit"
