"""What holds of placements on any machine, for any model."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nbloader.fit import fit, next_method
from nbloader.records import (
    Component,
    ComponentWeights,
    Fit,
    GpuFacts,
    Kind,
    MachineFacts,
    MemoryFacts,
    Method,
    Selection,
)
from tests.fit.machines import TORCH_126, machine, with_bitsandbytes
from tests.fit.test_table import ORDER, WITHOUT_PINNED_MEMORY, assert_possible

MB, GB = 1_000_000, 1_000_000_000
sizes = st.one_of(
    st.integers(min_value=MB, max_value=3 * GB), st.integers(min_value=MB, max_value=90 * GB)
)
capabilities = st.sampled_from([(6, 0), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)])
dtypes = st.sampled_from(["float32", "float16", "bfloat16"])


@st.composite
def gpus(draw: st.DrawFn) -> GpuFacts:
    total = draw(st.integers(min_value=2 * GB, max_value=90 * GB))
    free = draw(st.integers(min_value=0, max_value=total))
    return GpuFacts(name="GPU", free=free, total=total, capability=draw(capabilities))


@st.composite
def machines(draw: st.DrawFn) -> MachineFacts:
    total = draw(st.integers(min_value=GB, max_value=300 * GB))
    available = draw(st.integers(min_value=0, max_value=total))
    there = draw(st.lists(gpus(), max_size=4))
    # No Mac has an NVIDIA GPU.
    facts = machine(
        total, available, *there, torch=TORCH_126, mps=not there and draw(st.booleans())
    )
    return with_bitsandbytes(facts) if draw(st.booleans()) else facts


CLASSES = [
    ("transformers", "T5EncoderModel"),
    ("transformers", "CLIPTextModel"),
    ("transformers", "Qwen2ForCausalLM"),
    ("diffusers", "FluxTransformer2DModel"),
    ("diffusers", "UNet2DConditionModel"),
    ("diffusers", "AutoencoderKL"),
    (None, None),
]


@st.composite
def models(draw: st.DrawFn) -> tuple[Selection, tuple[ComponentWeights, ...]]:
    # Files alone are loaded by nothing, and have no fit.
    kind = draw(st.sampled_from([each for each in Kind if each is not Kind.FILES]))
    count = draw(st.integers(min_value=1, max_value=5 if kind is Kind.DIFFUSERS else 1))
    components, weights = [], []
    for number in range(count):
        name = f"part_{number}"
        library, class_name = draw(st.sampled_from(CLASSES))
        stored = draw(
            st.dictionaries(
                st.sampled_from(["F32", "F16", "BF16", "I64", "F8_E4M3"]), sizes, min_size=1
            )
        )
        total = sum(stored.values())
        largest = draw(st.integers(min_value=0, max_value=total))
        components.append(
            Component(name=name, library=library, class_name=class_name, paths=(f"{name}.bin",))
        )
        weights.append(
            ComponentWeights(
                name=name,
                bytes_by_dtype=stored,
                largest_tensor=largest,
                largest_block=draw(st.integers(min_value=0, max_value=total)),
                quantization=draw(st.sampled_from([None, None, None, "bitsandbytes"])),
                counted=draw(st.booleans()),
            )
        )
    classes = ["FluxPipeline", "QwenImagePipeline", "NewPipeline"]
    selection = Selection(
        repo_id="org/name",
        revision="main",
        commit_hash="0" * 40,
        kind=kind,
        class_name=draw(st.sampled_from(classes)) if kind is Kind.DIFFUSERS else None,
        components=tuple(components),
        files=(),
    )
    return selection, tuple(weights)


@given(models(), machines())
def test_never_more_than_the_machine_has(
    model: tuple[Selection, tuple[ComponentWeights, ...]], facts: MachineFacts
) -> None:
    found = fit(*model, facts)

    for row in found.placements:
        if not row.fits:
            continue
        assert_possible(row, facts)
        assert len(row.vram) in (0, len(facts.gpus))
        assert all(
            peak <= gpu.free for peak, gpu in zip(row.vram, facts.gpus, strict=False) if peak
        )
        assert max(row.ram_loading, row.ram_after) <= facts.memory.available
        for number, peak in enumerate(row.vram):
            resting = sum(part.bytes for part in row.components if part.device == f"cuda:{number}")
            assert peak >= resting


@given(models(), machines())
def test_layers_are_dealt_out_only_to_where_there_is_room(
    model: tuple[Selection, tuple[ComponentWeights, ...]], facts: MachineFacts
) -> None:
    row = next(row for row in fit(*model, facts).placements if row.method is Method.CPU_OFFLOAD)
    if not row.components:
        return
    total = sum(part.bytes for part in row.components)
    for number, (peak, gpu) in enumerate(zip(row.vram, facts.gpus, strict=True)):
        most = row.max_memory.get(f"cuda:{number}", 0)
        assert min(most, total) < peak <= gpu.free or most == peak == 0
    # Together they can hold all of it, and what is left for memory is counted there.
    assert sum(row.max_memory.values()) >= total
    on_gpus = sum(size for name, size in row.max_memory.items() if name != "cpu")
    assert row.ram_after + row.mapped >= total - on_gpus - 1
    if row.fits:
        assert max(row.ram_loading, row.ram_after) + row.mapped <= facts.memory.available


@given(models(), machines())
def test_a_plan_for_a_full_gpu_is_a_row_that_fits(
    model: tuple[Selection, tuple[ComponentWeights, ...]], facts: MachineFacts
) -> None:
    found = fit(*model, facts)
    rows = {row.method: row for row in found.placements}

    for failed in found.placements:
        if failed.fits and (other := next_method(found, failed)):
            assert rows[other].fits
            assert rows[other].rank > failed.rank
            assert max(rows[other].vram, default=0) < max(failed.vram)


@given(models(), machines())
def test_the_fastest_that_fits(
    model: tuple[Selection, tuple[ComponentWeights, ...]], facts: MachineFacts
) -> None:
    found = fit(*model, facts)

    # Group offload is faster than model offload where its weights can be pinned, slower elsewhere.
    assert [row.method for row in found.placements] in (ORDER, WITHOUT_PINNED_MEMORY)
    assert found.chosen == next((row for row in found.placements if row.fits), None)
    assert bool(found.problem) == (found.chosen is None)


@given(models(), machines(), sizes)
def test_more_memory_is_never_slower(
    model: tuple[Selection, tuple[ComponentWeights, ...]], facts: MachineFacts, more: int
) -> None:
    richer = replace(
        facts,
        memory=MemoryFacts(
            available=facts.memory.available + more, total=facts.memory.total + more
        ),
        gpus=tuple(
            replace(gpu, free=gpu.free + more, total=gpu.total + more) for gpu in facts.gpus
        ),
    )

    assert _speed(fit(*model, richer)) <= _speed(fit(*model, facts))


def _speed(found: Fit) -> float:
    """The rank of what was chosen; past the last if nothing was."""
    return math.inf if found.chosen is None else found.chosen.rank


@given(models(), machines(), dtypes)
def test_a_number_format_that_was_asked_for_is_kept(
    model: tuple[Selection, tuple[ComponentWeights, ...]], facts: MachineFacts, dtype: str
) -> None:
    for row in fit(*model, facts, dtype=dtype).placements:
        assert row.dtype == dtype
        assert {part.dtype for part in row.components} <= {dtype}


@given(models(), machines(), st.data())
def test_a_device_that_was_asked_for_is_kept(
    model: tuple[Selection, tuple[ComponentWeights, ...]], facts: MachineFacts, data: st.DataObject
) -> None:
    cuda = [f"cuda:{number}" for number in range(len(facts.gpus))]
    there = [*cuda, *(["cuda"] if cuda else []), *(["mps"] if facts.mps else []), "cpu"]
    device = data.draw(st.sampled_from(there))
    found = fit(*model, facts, device=device)

    for row in found.placements:
        if row.fits and device in cuda:
            # torch's plain `cuda` is its first.
            assert row.device == device or (row.device, device) == ("cuda", "cuda:0")
            assert [number for number, peak in enumerate(row.vram) if peak] == [cuda.index(device)]
        elif row.fits:
            assert row.device.partition(":")[0] == device


@given(models(), machines(), st.sampled_from(list(Method)))
def test_a_method_that_was_asked_for_is_kept(
    model: tuple[Selection, tuple[ComponentWeights, ...]], facts: MachineFacts, method: Method
) -> None:
    found = fit(*model, facts, method=method)
    free = fit(*model, facts)
    asked = next(row for row in free.placements if row.method is method)

    assert (found.chosen is not None) == asked.fits
    if found.chosen is not None:
        assert found.chosen.method is method
    # The others are worked out all the same, so that one of them can be chosen.
    others = [[replace(row, reason="") for row in each.placements] for each in (found, free)]
    assert others[0] == others[1]
    if found.chosen is None and free.chosen is not None:
        assert found.hint.startswith(f'Pass plan="{free.chosen.method}", which fits')
