"""The facts of this machine and of a selection put together, and judged: can this work here?"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from nbloader.checks import (
    LOW_DISK_BYTES,
    Facts,
    PreflightReport,
    inspected_packages,
    quantizations_of,
    run_checks,
)
from nbloader.errors import (
    HubUnreachableError,
    NbloaderError,
    NoWeightsError,
    RepoNotFoundError,
    UnsupportedRepoError,
    error_from_parts,
)
from nbloader.fit import fit, next_method
from nbloader.hub_cache import PassingFiles
from nbloader.hub_names import successor_of
from nbloader.libraries import (
    attention_facts,
    attention_named,
    class_facts,
    package_facts,
    unmet_requirements,
)
from nbloader.loaders import (
    asked_quantizations,
    devices,
    loaded,
    places_itself,
    spare_bytes,
    versions,
    way_of_passing,
)
from nbloader.machine import (
    attached_models,
    bigger_disks,
    disk_facts_or_none,
    holds_model,
    home_of_environment,
    looks_like,
    machine_facts,
    matching,
    own_bytes,
    place,
)
from nbloader.notebook import Background
from nbloader.records import (
    AttachedModel,
    ComponentWeights,
    DiskFacts,
    Fit,
    LoadedModel,
    MachineFacts,
    Method,
    Place,
    Placement,
    Selected,
    Selection,
)
from nbloader.request import Request, other_type_of
from nbloader.text import quote
from nbloader.wording import reader_here

__all__ = ["Survey", "assess", "fallback", "gather", "gather_joint", "helped", "judge"]

_PLACING = ("accelerate", "bitsandbytes", "kernels", "triton")
"""Packages that decide which placements there are, and what they take."""


class Survey(Background):
    """The facts of this machine, gathered while the worker asks the Hub."""

    def __init__(self) -> None:
        self._found: MachineFacts | None = None
        super().__init__(self._gather, imports=False)

    def _gather(self) -> None:
        found = machine_facts()
        self._found = found if found.gpus else replace(found, gpus=devices(found.torch))

    def machine(self) -> MachineFacts:
        """Wait for them, and give them."""
        self.wait()
        assert self._found is not None
        return self._found


def assess(
    request: Request,
    *,
    survey: Survey | None,
    selected: Selected | None = None,
    problem: NbloaderError | None = None,
) -> PreflightReport:
    """Put the facts together and make the checks.

    Arguments and errors are those of `gather`.
    """
    facts = gather(request, survey=survey, selected=selected, problem=problem)
    return replace(judge(facts), _on=partial(judge_on, request, facts))


def gather(
    request: Request,
    *,
    survey: Survey | None,
    selected: Selected | None = None,
    problem: NbloaderError | None = None,
) -> Facts:
    """Put together what the checks look at.

    Args:
        survey: of this machine; None if nothing will be loaded, so that packages and memory do not
            matter.
        selected: what the worker found out; None if it ended before with `problem`.

    Raises:
        InvalidArgumentError: the device that was asked for is not there.
    """
    if problem is not None:
        problem = helped(problem, request, fetched=survey is None)
    facts = _facts(request, survey, selected, problem)
    small = facts.disk is not None and facts.disk.free < facts.room_bytes
    if selected is not None and facts.fit is not None and (small or not request.keep_files):
        facts = _with_passing(facts, request, selected)
    return _with_bigger_disks(facts)


def _with_passing(facts: Facts, request: Request, selected: Selected) -> Facts:
    """Find out which weights can go once they are loaded.

    Those of the selection's own repository can that were not in the cache before, other than by a
    load that keeps no files.
    """
    facts = replace(facts, passes=not request.keep_files)
    selection, placement = selected.selection, facts.fit.chosen if facts.fit else None
    if request.folder is not None:
        return replace(facts, stays="a folder of yours is loaded")
    if placement is None:
        return replace(facts, stays="there is no plan for it")
    if request.local_files_only:
        return replace(facts, stays="nothing is downloaded")
    way = way_of_passing(selection, placement, request.loader_kwargs, versions())
    if way.reason:
        return replace(facts, stays=way.reason)
    notes = PassingFiles.beside(selected.folder, home_of_environment(os.environ), os.getpid())
    quantized = {part.name for part in selected.weights if part.quantization}
    files = {file.path: file for file in selection.files}
    etags = Counter(file.etag for file in selection.files)
    uses = Counter(path for component in selection.components for path in component.paths)
    paths = frozenset(
        path
        for component, _ in way.components
        if component.name not in quantized
        for path in component.weights
        if etags[files[path].etag] == 1 == uses[path]
        and not files[path].repo_id  # The libraries find those of others where they lie.
        and path not in selected.copied  # They are elsewhere, too, and take no room.
        and (path not in selected.cached or notes.may_go(selection.commit_hash, files[path]))
    )
    stays = "" if paths else "all weights are there already, or are quantized"
    return replace(facts, passing=paths, stays=stays)


def gather_joint(every: Sequence[Facts], joint: Selected) -> Facts:
    """Put together what the check of the disk looks at for several repositories.

    Args:
        every: those of each, as far as its files are known.
        joint: the files of all; each has a component of its own.
    """
    labelled = zip(every, joint.selection.components, strict=True)
    joint_facts = replace(
        every[0],
        passing=frozenset(
            f"{one.name}:{path}" for facts, one in labelled for path in facts.passing
        ),
        stays=next((facts.stays for facts in every if facts.stays), ""),
        selection=joint.selection,
        cached=frozenset(joint.cached),
        partial=joint.partial,
        copied=joint.copied,
        bigger_disks=(),
    )
    return _with_bigger_disks(joint_facts)


def _with_bigger_disks(facts: Facts) -> Facts:
    """Look for other disks if that of the cache is too small, or will be almost full."""
    if facts.disk and facts.disk.free < facts.required_bytes + LOW_DISK_BYTES:
        # Only now, because each place is tried by writing a file.
        others = bigger_disks(Path(facts.disk.folder), os.environ)
        facts = replace(facts, bigger_disks=others)
    return facts


def judge_on(
    request: Request, facts: Facts, machine: MachineFacts, disk: DiskFacts | None
) -> PreflightReport:
    """Make the checks for another machine, where nothing of the model is yet. Pure.

    Args:
        disk: of the cache there; None for the one of `facts`.

    Raises:
        InvalidArgumentError: the device that was asked for is not there.
    """
    assert facts.selection is not None
    packages = {**facts.packages, **machine.packages}
    machine = replace(machine, packages=packages)
    there = replace(
        facts,
        machine=machine,
        packages=packages,
        disk=disk or facts.disk,
        cached=frozenset(),
        partial={},
        copied={},
        passing=frozenset(),
        stays="which weights could go is not known for another machine",
        bigger_disks=(),
        loaded=(),
        fit=_fit(request, facts.selection, facts.weights, machine),
        fit_without_loaded=None,
    )
    return judge(there)


def judge(facts: Facts) -> PreflightReport:
    """Make the checks. Pure."""
    return PreflightReport(
        repo_id=facts.repo_id,
        results=run_checks(facts),
        selection=facts.selection,
        weights=facts.weights,
        fit=facts.fit,
        machine=facts.machine,
        disk=facts.disk,
        missing_bytes=facts.missing_bytes,
    )


def fallback(request: Request, facts: Facts, failed: Placement) -> Method | None:
    """Name the plan to try where a GPU is full despite all that was reckoned; None for none.

    It is the next that fits, whether or not the call has asked for the one that failed.
    """
    if facts.selection is None or facts.machine is None:
        return None
    free = replace(request, method=None)
    return next_method(_fit(free, facts.selection, facts.weights, facts.machine), failed)


def _facts(
    request: Request,
    survey: Survey | None,
    selected: Selected | None,
    problem: NbloaderError | None,
) -> Facts:
    loads = survey is not None
    selection = selected.selection if selected else None
    hub = selected.hub if selected else None
    required = request.settings.required_disk_space_gb
    weights = selected.weights if selected else ()
    quantized = quantizations_of(selection, weights) if selection else []
    asked = asked_quantizations(selection, request.loader_kwargs) if selection else ()
    classes = class_facts(selection, quantized) if selection and loads else ()
    names = (
        (*inspected_packages(selection, classes, (*quantized, *asked)), *_PLACING)
        if selection and loads
        else ()
    )
    way = attention_named(request.attention) if request.attention and names else None
    packages = package_facts((*names, way.package) if way and way.package else names)
    machine = replace(survey.machine(), packages=packages) if selection and survey else None
    alive = loaded()
    going: tuple[LoadedModel, ...] = ()
    if request.replace and selection:
        going = tuple(model for model in alive if model.repo_id == selection.repo_id)
        alive = tuple(model for model in alive if model not in going)
    chosen: Fit | None = None
    without: Fit | None = None
    if selection and machine:
        machine = _with_more(machine, enumerate(spare_bytes()))
        machine = _without(machine, going)
        chosen = _fit(request, selection, weights, machine)
        if on_gpus := _on_gpus(alive):
            without = _fit(request, selection, weights, _with_more(machine, on_gpus))
    return Facts(
        repo_id=request.repo_id,
        repo_type=request.repo_type,
        folder=request.folder,
        is_path=request.is_path,
        loads=loads,
        hub=hub,
        token=request.token_facts,
        selection=selection,
        weights=weights,
        pickles=selected.pickles if selected else (),
        adapters=selected.adapters if selected else (),
        cached=frozenset(selected.cached if selected else ()),
        partial=selected.partial if selected else {},
        copied=selected.copied if selected else {},
        problem=problem,
        disk=disk_facts_or_none(Path(hub.cache_dir)) if hub else None,
        packages=packages,
        classes=classes,
        unmet=unmet_requirements(names) if loads else (),
        machine=machine,
        fit=chosen,
        fit_without_loaded=without,
        loaded=alive,
        places_itself=places_itself(request.loader_kwargs),
        attention=attention_facts(selection, way.name) if selection and way else None,
        asked=asked,
        handed_in=frozenset(request.selection.handed_in),
        named=request.selection.component_names,
        allow_pickle=request.allow_pickle,
        safe_globals=_safe_globals(),
        check_network=request.settings.check_network,
        check_disk_space=request.settings.check_disk_space,
        required_disk_bytes=None if required is None else int(required * 1e9),
        reader=reader_here(),
    )


def _safe_globals() -> frozenset[str]:
    """Return the names that this process has added with `torch.serialization.add_safe_globals`.

    Without an import: before torch is imported, there are none.
    """
    serialization = getattr(sys.modules.get("torch"), "serialization", None)
    get = getattr(serialization, "get_safe_globals", list)
    return frozenset(
        each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__qualname__}"
        for each in get()
    )


def _fit(
    request: Request,
    selection: Selection,
    weights: Sequence[ComponentWeights],
    machine: MachineFacts,
) -> Fit:
    return fit(
        selection,
        weights,
        machine,
        device=request.device,
        dtype=request.dtype,
        method=request.method,
    )


def _with_more(machine: MachineFacts, more: Iterable[tuple[int, int]]) -> MachineFacts:
    """Return the machine with so many more bytes free on GPUs, by their numbers."""
    gpus = list(machine.gpus)
    for number, size in more:
        if number < len(gpus):
            gpu = gpus[number]
            gpus[number] = replace(gpu, free=min(gpu.total, gpu.free + size))
    return replace(machine, gpus=tuple(gpus))


def _without(machine: MachineFacts, models: Sequence[LoadedModel]) -> MachineFacts:
    """Return the machine as it is once models are unloaded.

    In memory they give back at most what this process has of its own: weights that are mapped from
    files count as available already.
    """
    machine = _with_more(machine, _on_gpus(models))
    memory, on_cpu = machine.memory, sum(each.bytes for each in models if each.device == "cpu")
    if not on_cpu:
        return machine
    available = min(memory.total, memory.available + min(on_cpu, own_bytes()))
    return replace(machine, memory=replace(memory, available=available))


def _on_gpus(models: Iterable[LoadedModel]) -> list[tuple[int, int]]:
    return [(number, model.bytes) for model in models for number in _numbers(model)]


def _numbers(model: LoadedModel) -> list[int]:
    """Return the GPU that a model computes on, if it does on one."""
    kind, _, index = model.device.partition(":")
    return [int(index or 0)] if kind == "cuda" else []


def helped(error: NbloaderError, request: Request, *, fetched: bool = False) -> NbloaderError:
    """Add to the hint of an error of the worker what only this process knows.

    Where the Hub cannot be reached, that is the models that are attached to a Kaggle notebook;
    where it has no such repository, the one that a well-known model has moved to, or the line for
    what is no model; where a folder is no model, those below it; where files are fetched for a load
    that cannot be, the line for the files alone.

    Args:
        fetched: whether the call is one of `download`.
    """
    more, repo_id = "", request.repo_id
    if isinstance(error, HubUnreachableError) and place(os.environ) is Place.KAGGLE:
        more = _offer(matching(attached_models(), repo_id), repo_id)
    elif isinstance(error, RepoNotFoundError) and (successor := successor_of(repo_id)):
        more = f'This model is kept as "{successor}" now: nbloader.load("{successor}").'
        return error_from_parts(error.reference, error.message, more)
    elif isinstance(error, RepoNotFoundError) and (what := other_type_of(repo_id)):
        name = json.dumps(repo_id.partition("/")[2])
        more = f'For a {what}: nbloader.download({name}, repo_type="{what}").'
        return error_from_parts(error.reference, error.message, more)
    elif isinstance(error, UnsupportedRepoError) and request.folder is not None:
        below = [model.folder for model in attached_models(Path(request.folder))]
        if below and not holds_model(Path(request.folder)):
            lines = [f"nbloader.load({json.dumps(each)})" for each in below[:_MAX_BELOW]]
            rest = len(below) - len(lines)
            more = "Models stand below it" if below[1:] else "There is a model below it"
            more += f" ({rest} more than these)" if rest else ""
            message = f"{quote(repo_id)} is a folder of models, and none itself"
            return error_from_parts(error.reference, message, f"{more}: {', or '.join(lines)}.")
    elif fetched and request.selection.files is None and isinstance(error, _NO_LOAD):
        more = _for_the_files(request)
    return (
        error_from_parts(error.reference, error.message, f"{error.hint} {more}") if more else error
    )


_MAX_BELOW = 3
"""Models below a folder that are named."""

_NO_LOAD = (UnsupportedRepoError, NoWeightsError)
"""What is said of files that cannot be loaded, and can be fetched."""


def _for_the_files(request: Request) -> str:
    one = request.selection.checkpoint
    at = "" if request.revision == "main" else f", revision={json.dumps(request.revision)}"
    what = json.dumps(one, ensure_ascii=False) if one else 'allow_patterns="*"'
    words = "For the file itself" if one else "For all of its files"
    return f"{words}: nbloader.download({json.dumps(request.repo_id)}, {what}{at})."


def _offer(models: Sequence[AttachedModel], repo_id: str) -> str:
    """Say how to load a model that is attached, that with the repository's name first."""
    if not models:
        return ""
    first = models[0]
    line = f"nbloader.load({json.dumps(first.folder)})"
    what = "It is attached" if looks_like(first, repo_id) else "Attached here"
    more = f" ({len(models) - 1} more are attached)" if len(models) > 1 else ""
    return f"{what} at {first.folder}: `{line}` loads it without a network{more}."
