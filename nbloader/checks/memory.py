"""Where the model goes, and whether the memory there is enough."""

from __future__ import annotations

from nbloader.checks.facts import Facts, failed, passed, skipped, warned
from nbloader.errors import DoesNotFitError
from nbloader.fit import gpu_problem, next_method
from nbloader.machine import HOW_TO_FREE
from nbloader.records import CheckResult, Fit, MachineFacts, Method, Placement
from nbloader.text import format_bytes
from nbloader.wording import GET_GPU

SLOW_ON_CPU_BYTES = 2_000_000_000
"""From this size on a model on the CPU takes minutes for what a GPU does in seconds."""

TIGHT = 0.9
"""Beyond this share of what is there, a larger input than the usual one may not fit."""


def placement(facts: Facts) -> CheckResult:
    """Is there a way to place the model that fits?"""
    name = "placement"
    if not facts.loads or facts.fit is None:
        return skipped(name, "nothing is loaded")
    if facts.places_itself:
        return skipped(name, "`loader_kwargs` settle it")
    chosen = facts.fit.chosen
    if chosen is None:
        return failed(
            name,
            DoesNotFitError,
            facts.fit.problem,
            hint=_hint(facts, facts.fit),
            forceable=facts.fit.nearest is not None,
        )
    if better := _without_loaded(facts, chosen):
        hint = _hint(facts, facts.fit)
        message = f"{better} would fit without what is loaded already"
        if chosen.method is Method.CPU:
            message = f"only {chosen.method} fits, and {message}"
            return failed(name, DoesNotFitError, message, hint=hint, forceable=True)
        return warned(name, message, hint=hint)
    if chosen.method is Method.CPU and (problem := _gpu_problem(facts.machine)):
        return warned(
            name,
            f"the GPU cannot be used: {problem}",
            hint="Install a build of torch for this GPU (https://pytorch.org/get-started) and "
            f"restart the kernel. {_other_gpu(facts.machine)}".strip(),
            link="https://pytorch.org/get-started/locally/",
        )
    if any(part.quantization for part in chosen.components):
        return warned(
            name,
            "the large components lose precision",
            hint=_exact(facts.fit, chosen),
        )
    if facts.fit.caution:
        return warned(
            name,
            facts.fit.caution,
            hint="Leave `dtype=` out for the number format that suits model and machine.",
        )
    if chosen.method is Method.CPU_OFFLOAD:
        waiting = format_bytes(chosen.ram_after + chosen.mapped)
        return warned(
            name,
            f"{waiting} of the weights come to the GPU anew for each step, which is slow",
            hint=facts.fit.hint
            or "A GPU with more memory or a smaller model is many times faster.",
        )
    size = sum(part.bytes for part in chosen.components)
    if chosen.method is Method.CPU and size >= SLOW_ON_CPU_BYTES:
        return warned(
            name,
            f"a model of {format_bytes(size)} is slow on a CPU",
            hint=facts.fit.hint or _any_gpu(facts.machine),
        )
    return passed(name, f"{chosen.method} in {chosen.dtype}, {chosen.reason}")


def _other_gpu(machine: MachineFacts | None) -> str:
    """Say how another GPU is had here; empty if nobody can say."""
    how = GET_GPU.get(machine.place.place, "") if machine else ""
    return f"Or take another one. {how}" if how else ""


def _any_gpu(machine: MachineFacts | None) -> str:
    """Say where a GPU is to be had."""
    how = GET_GPU.get(machine.place.place, "") if machine else ""
    return how or "A machine with a GPU is many times faster, and so is a smaller model."


def _without_loaded(facts: Facts, chosen: Placement) -> Method | None:
    """Return the faster method that there would be room for if this process freed its models."""
    other = facts.fit_without_loaded.chosen if facts.fit_without_loaded else None
    return other.method if other is not None and other.rank < chosen.rank else None


def _hint(facts: Facts, fit: Fit) -> str:
    if not facts.loaded or not (fit.chosen or fit.nearest):  # It is not memory that is lacking.
        return fit.hint
    model = facts.loaded[0]
    return (
        f"{model.repo_id} is loaded in this process already and takes {format_bytes(model.bytes)} "
        f"({model.device}). {HOW_TO_FREE} "
        f"{'' if fit.chosen else fit.hint}"
    ).strip()


def _gpu_problem(machine: MachineFacts | None) -> str:
    """Say why no GPU of the machine can be used; empty if one can, or if there is none."""
    problems = [gpu_problem(gpu, machine) for gpu in machine.gpus] if machine else []
    return problems[0] if problems and all(problems) else ""


def _exact(fit: Fit, chosen: Placement) -> str:
    """Name the fastest way to keep the weights as they are."""
    for row in fit.placements:
        if row.fits and row is not chosen and not any(part.quantization for part in row.components):
            slower = ", which is slower" if row.rank > chosen.rank else ""
            return f'For exact weights, pass `plan="{row.method}"`{slower}.'
    return "No way to keep the weights as they are fits here."


def vram(facts: Facts) -> CheckResult:
    """Is there room on each GPU for the peak of the chosen placement?"""
    machine, chosen = facts.machine, facts.fit.chosen if facts.fit else None
    if machine is None or chosen is None or facts.places_itself:
        return skipped("vram", _not_placed(facts))
    if not any(chosen.vram):
        return skipped("vram", "no GPU is used")
    assert facts.fit is not None
    pairs = [pair for pair in zip(chosen.vram, machine.gpus, strict=True) if pair[0]]
    figures = ", ".join(
        f"{format_bytes(needed)} of {format_bytes(gpu.free)} free on {gpu.name}"
        for needed, gpu in pairs
    )
    message = f"needs {figures}, for {facts.fit.workload}"
    if any(needed > TIGHT * gpu.free for needed, gpu in pairs):
        return warned(
            "vram",
            message,
            hint=f"More at once may not fit.{_next_plan(facts.fit, chosen)}",
        )
    return passed("vram", message)


def _next_plan(fit: Fit, chosen: Placement) -> str:
    method = next_method(fit, chosen)
    return f' Should it not, pass `plan="{method}"`.' if method else ""


def _not_placed(facts: Facts) -> str:
    """Say why there is no peak to look at."""
    return "`loader_kwargs` settle it" if facts.places_itself else "nothing is loaded"


def ram(facts: Facts) -> CheckResult:
    """Is there room in memory for the peak of loading?"""
    machine, chosen = facts.machine, facts.fit.chosen if facts.fit else None
    if machine is None or chosen is None or facts.places_itself:
        return skipped("ram", _not_placed(facts))
    if not machine.memory.total:
        return skipped("ram", "how much there is is not known")
    needed = chosen.ram_peak
    message = f"needs {_in_memory(chosen)}, {format_bytes(machine.memory.available)} available"
    if needed + chosen.mapped > TIGHT * machine.memory.available:
        return warned(
            "ram",
            message,
            hint="Close what else runs here: the kernel is ended without a word when memory runs "
            "out.",
        )
    return passed("ram", message)


def _in_memory(chosen: Placement) -> str:
    """Write when a placement takes how much; what is nothing is left out."""
    own = [
        f"{format_bytes(size)} {when}"
        for size, when in (
            (chosen.ram_loading, "while loading"),
            (chosen.ram_after, "during inference"),
        )
        if size
    ]
    mapped = [f"{format_bytes(chosen.mapped)} read in place"] if chosen.mapped else []
    return " and ".join(filter(None, (", ".join(own), *mapped))) or "nothing of its own"
