from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given

from nbloader.assess import judge
from nbloader.checks import CHECKS, Facts, PreflightReport, run_checks
from nbloader.errors import (
    CacheNotWritableError,
    DiskFullError,
    DiskSpaceError,
    DoesNotFitError,
    GatedRepoError,
    HubUnreachableError,
    MissingPackageError,
    NbloaderError,
    NoWeightsError,
    PickledWeightsError,
    PreflightError,
    RepoError,
    TransferError,
)
from nbloader.fit import fit
from nbloader.records import (
    CheckResult,
    CheckStatus,
    Component,
    ComponentWeights,
    DiskFacts,
    Fit,
    GpuFacts,
    HubFacts,
    Kind,
    LoadedModel,
    MachineFacts,
    MemoryFacts,
    Method,
    PackageFacts,
    PickleFacts,
    Placement,
    RateLimitFacts,
    RepoFile,
    Selection,
    TokenFacts,
    TorchFacts,
    XetFacts,
)
from tests.jobs import texts
from tests.samples import MB, SELECTION

P, W, F, S = (
    CheckStatus.PASSED,
    CheckStatus.WARNING,
    CheckStatus.FAILED,
    CheckStatus.SKIPPED,
)
GB = 1000 * MB
HUB = HubFacts(
    endpoint="https://huggingface.co",
    cache_dir="/cache",
    answer_s=0.12,
    license="apache-2.0",
    xet=XetFacts(host="https://cas-server.xethub.hf.co", answer_s=0.2),
    rate_limit=RateLimitFacts(kind="api", remaining=489, limit=500, window_s=300, reset_s=183),
)
DISK = DiskFacts(folder="/cache", free=50 * GB, total=100 * GB, writable=True)
PACKAGES = {
    name: PackageFacts(name=name, installed=version)
    for name, version in (
        ("torch", "2.13.0"),
        ("diffusers", "0.42.1"),
        ("transformers", "5.23.0"),
        ("accelerate", "1.15.0"),
    )
}
CPU = MachineFacts(memory=MemoryFacts(available=20 * GB, total=24 * GB), packages=PACKAGES)
WEIGHTS = (
    ComponentWeights(name="transformer", bytes_by_dtype={"F32": 80 * MB}),
    ComponentWeights(name="vae", bytes_by_dtype={"F32": 20 * MB}),
)
L4 = GpuFacts(name="NVIDIA L4", free=23 * GB, total=24 * GB, capability=(8, 9))
CUDA = TorchFacts(version="2.13.0+cu130", cuda=(13, 0), archs=("sm_75", "sm_80", "sm_86"))


def facts_on(machine: MachineFacts, weights: tuple[ComponentWeights, ...] = WEIGHTS) -> Facts:
    return Facts(
        repo_id="org/name",
        hub=HUB,
        selection=SELECTION,
        weights=weights,
        disk=DISK,
        packages=PACKAGES,
        machine=machine,
        fit=fit(SELECTION, weights, machine),
    )


def weighing(total: int) -> tuple[ComponentWeights, ...]:
    return (
        ComponentWeights(
            name="transformer", bytes_by_dtype={"F32": total}, largest_tensor=total // 100
        ),
    )


GOOD = facts_on(CPU)
FROM_CACHE = replace(HUB, answer_s=None, license=None, xet=None, rate_limit=None)
PICKLED = replace(
    SELECTION,
    components=(
        replace(SELECTION.components[1], weights=("transformer/pytorch_model.bin",)),
        *SELECTION.components[2:],
    ),
)
TENSORS = PickleFacts(path="transformer/pytorch_model.bin", tensors_only=True)
HARMFUL = replace(TENSORS, tensors_only=False, refused=("os.system", "posix.\x1b[2J"))
OLD_FORMAT = replace(TENSORS, tensors_only=False, format="old", problem="it is old")
WITH_CODE = replace(
    SELECTION,
    files=(*SELECTION.files, RepoFile(path="pipeline.py", size=9, etag="5" * 40)),
    custom_code=True,
)
USUAL = {check.name: P for check in CHECKS if check.asked(GOOD)} | {"vram": S}
AFTER_FILES = dict.fromkeys(("safety", "xet", "packages", "placement", "vram", "ram"), S)
AFTER_ACCESS = dict.fromkeys(("license", "rate-limit", "files", "cache", "disk"), S) | AFTER_FILES


def error(kind: type[NbloaderError]) -> NbloaderError:
    return kind("what happened", hint="do this")


def stopped(kind: type[NbloaderError]) -> Facts:
    return Facts(repo_id="a/b", problem=error(kind))


def subclasses(kind: type[NbloaderError]) -> list[type[NbloaderError]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in subclasses(child))]


@pytest.mark.parametrize(
    ("facts", "other"),
    [
        (GOOD, {}),
        (facts_on(replace(CPU, gpus=(L4,))), {"vram": P}),
        # the Hub
        (replace(GOOD, check_network=False), {"hub": S}),
        (replace(GOOD, hub=replace(HUB, endpoint="https://mirror.example")), {}),
        (replace(GOOD, hub=FROM_CACHE), {"hub": S, "license": S, "xet": S, "rate-limit": S}),
        (replace(GOOD, hub=replace(HUB, token_refused=True)), {"access": W}),
        (replace(GOOD, hub=replace(HUB, xet=XetFacts(host="https://cas.example"))), {"xet": W}),
        (
            replace(
                GOOD,
                hub=replace(
                    HUB,
                    rate_limit=RateLimitFacts(
                        kind="api", remaining=3, limit=500, window_s=300, reset_s=9
                    ),
                ),
            ),
            {"rate-limit": W},
        ),
        # the files
        (replace(GOOD, selection=PICKLED), {"safety": F}),
        (replace(GOOD, selection=PICKLED, allow_pickle=True), {"safety": W}),
        (replace(GOOD, selection=PICKLED, pickles=(TENSORS,)), {}),
        (replace(GOOD, selection=PICKLED, pickles=(HARMFUL,)), {"safety": F}),
        (replace(GOOD, selection=PICKLED, pickles=(HARMFUL,), allow_pickle=True), {"safety": F}),
        (replace(GOOD, selection=PICKLED, pickles=(OLD_FORMAT,), allow_pickle=True), {"safety": W}),
        (replace(GOOD, selection=WITH_CODE), {"safety": W}),
        # the disk
        (replace(GOOD, disk=replace(DISK, free=99 * MB)), {"disk": F}),
        (replace(GOOD, disk=replace(DISK, free=600 * MB)), {"disk": W}),
        (replace(GOOD, disk=replace(DISK, free=0), check_disk_space=False), {"disk": S}),
        (replace(GOOD, required_disk_bytes=10**12), {"disk": F}),
        (
            replace(
                GOOD,
                required_disk_bytes=10**12,
                cached=frozenset(file.path for file in SELECTION.files),
            ),
            {},
        ),
        (replace(GOOD, disk=replace(DISK, writable=False)), {"cache": F}),
        # the packages
        (
            replace(
                GOOD,
                packages={**PACKAGES, "diffusers": PackageFacts(name="diffusers", installed=None)},
            ),
            {"packages": F},
        ),
        # the memory
        (facts_on(CPU, weighing(20 * GB)), {"placement": F, "vram": S, "ram": S}),
        (facts_on(CPU, weighing(4 * GB)), {"placement": W}),
        (facts_on(replace(CPU, memory=MemoryFacts(available=22 * GB, total=24 * GB)), ()), {}),
        (facts_on(replace(CPU, gpus=(replace(L4, free=16 * GB),)), weighing(18 * GB)), {"vram": W}),
        (
            facts_on(replace(CPU, gpus=(replace(L4, capability=(6, 0)),), torch=CUDA)),
            {"placement": W},
        ),
        (
            replace(facts_on(CPU, weighing(20 * GB)), places_itself=True),
            dict.fromkeys(("placement", "ram"), S),
        ),
        # nothing is loaded
        (
            replace(GOOD, loads=False, packages={}, machine=None, fit=None),
            dict.fromkeys(("safety", "packages", "placement", "ram"), S),
        ),
        # the worker has ended
        (stopped(HubUnreachableError), {"hub": F, "access": S} | AFTER_ACCESS),
        (stopped(GatedRepoError), {"access": F} | AFTER_ACCESS),
        (
            stopped(NoWeightsError),
            {"files": F, "cache": S, "disk": S, "license": S, "rate-limit": S} | AFTER_FILES,
        ),
        (
            stopped(CacheNotWritableError),
            {"files": S, "cache": F, "disk": S, "license": S, "rate-limit": S} | AFTER_FILES,
        ),
        (
            stopped(DiskFullError),
            {"files": S, "cache": S, "disk": F, "license": S, "rate-limit": S} | AFTER_FILES,
        ),
    ],
)
def test_what_the_checks_find(facts: Facts, other: dict[str, CheckStatus]) -> None:
    results = run_checks(facts)
    assert {result.name: result.status for result in results} == USUAL | other
    assert [result.name for result in results] == list(USUAL)
    for result in results:
        assert bool(result.reference) >= (result.status is F)
        assert bool(result.hint) == (result.status in (F, W))


@pytest.mark.parametrize("kind", [*subclasses(RepoError), *subclasses(TransferError)])
def test_whatever_stops_the_worker_is_a_failure_of_the_report(kind: type[NbloaderError]) -> None:
    report = PreflightReport(repo_id="a/b", results=run_checks(stopped(kind)))
    assert [failure.reference for failure in report.failures] == [kind.reference]


def test_the_results_of_a_good_case() -> None:
    messages = {result.name: result.message for result in run_checks(GOOD)}
    del messages["packages"]  # see test_packages.py
    assert messages == {
        "hub": "https://huggingface.co answers in 0.1 s",
        "access": "org/name is public and can be read",
        "license": "apache-2.0",
        "rate-limit": "489 of 500 api requests left, new ones in 3:03",
        "files": "SomePipeline of diffusers: 4 files, 100 MB to download",
        "safety": "safetensors weights, no code",
        "xet": "https://cas-server.xethub.hf.co answers in 0.2 s",
        "cache": "/cache",
        "disk": "100 MB required, 50.0 GB available at /cache",
        "placement": "cpu in float32, the fastest that fits",
        "vram": "no GPU is used",
        "ram": messages["ram"],
    }
    assert re.fullmatch(
        r"needs [\d.]+ .B during inference and 100 MB read in place, 20\.0 GB available",
        messages["ram"],
    )


def found(facts: Facts, name: str) -> CheckResult:
    return next(result for result in run_checks(facts) if result.name == name)


OLD_TORCH = {**PACKAGES, "torch": PackageFacts(name="torch", installed="2.5.1+cu124")}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            replace(GOOD, pickles=(TENSORS,)),
            "pickled, looked through: tensors only (transformer/pytorch_model.bin); no code",
        ),
        (
            replace(GOOD, packages={}, pickles=(TENSORS,)),
            "pickled, looked through: tensors only (transformer/pytorch_model.bin); no code",
        ),
        (
            replace(GOOD, packages=OLD_TORCH, pickles=(TENSORS,)),
            "the weights are pickled, and can run code when they are loaded: "
            "transformer/pytorch_model.bin (torch 2.5.1+cu124 is not safe there, >=2.6 is)",
        ),
        (
            replace(GOOD, pickles=(HARMFUL,)),
            "the weights are pickled, and can run code when they are loaded: "
            r"transformer/pytorch_model.bin (it names 'os.system', 'posix.\x1b[2J')",
        ),
        (
            replace(GOOD, pickles=(replace(HARMFUL, refused=(), problem="it is a tar"),)),
            "the weights are pickled, and can run code when they are loaded: "
            "transformer/pytorch_model.bin (it is a tar)",
        ),
        (
            replace(GOOD, pickles=(replace(TENSORS, path="another.bin"),)),
            "the weights are pickled, and can run code when they are loaded: "
            "transformer/pytorch_model.bin (not looked through)",
        ),
        (
            replace(GOOD, pickles=(OLD_FORMAT,), allow_pickle=True),
            "pickled weights will be loaded: transformer/pytorch_model.bin (it is old)",
        ),
    ],
)
def test_of_pickled_weights_it_is_told_what_they_hold(facts: Facts, message: str) -> None:
    assert found(replace(facts, selection=PICKLED), "safety").message == message


SEARCH = "Look for a repository or a revision with safetensors weights"
ALLOW = f"{SEARCH}. If you trust this one, pass `allow_pickle=True`."
BY_NAME = (
    f"{SEARCH}: diffusers loads pickles with `weights_only=True` alone, which takes what this one "
    "names only after `torch.serialization.add_safe_globals`."
)
NEVER = f"{SEARCH}: diffusers loads pickles with `weights_only=True` alone, which refuses this one."
BY_TRANSFORMERS = replace(PICKLED, kind=Kind.TRANSFORMERS)


@pytest.mark.parametrize(
    ("pickles", "more", "hint"),
    [
        (OLD_FORMAT, {}, ALLOW),
        (replace(OLD_FORMAT, format="tar"), {}, NEVER),
        (replace(OLD_FORMAT, format="TorchScript"), {"allow_pickle": True}, NEVER),
        (replace(OLD_FORMAT, format="opcodes"), {"allow_pickle": True}, NEVER),
        (HARMFUL, {}, BY_NAME),
        (HARMFUL, {"allow_pickle": True}, BY_NAME),
        (replace(HARMFUL, refused=("__builtin__.set",)), {}, ALLOW),
        (HARMFUL, {"safe_globals": frozenset(HARMFUL.refused)}, ALLOW),
        (HARMFUL, {"safe_globals": frozenset(HARMFUL.refused[:1])}, BY_NAME),
    ],
)
def test_what_is_said_of_pickles_is_what_the_library_then_does(
    pickles: PickleFacts, more: dict[str, Any], hint: str
) -> None:
    result = found(replace(GOOD, selection=PICKLED, pickles=(pickles,), **more), "safety")
    assert (result.status, result.hint) == (F, hint)


def test_pickles_want_a_torch_that_is_safe() -> None:
    facts = replace(GOOD, packages=OLD_TORCH, pickles=(TENSORS,))
    result = found(replace(facts, selection=PICKLED), "safety")
    assert (result.status, '"torch>=2.6"' in result.hint) == (F, True)
    # diffusers goes on below, if it may; transformers does not.
    allowed = replace(facts, allow_pickle=True)
    assert found(replace(allowed, selection=PICKLED), "safety").status is W
    assert found(replace(allowed, selection=BY_TRANSFORMERS), "safety").status is F


def test_a_shortage_names_required_and_available_and_a_bigger_disk() -> None:
    small = replace(DISK, free=30 * MB)
    assert found(replace(GOOD, disk=small), "disk") == CheckResult(
        name="disk",
        status=F,
        message="not enough disk space: 100 MB required, 30.0 MB available at /cache",
        hint="Free 70.0 MB there (`nbloader.cache(cache_dir='/cache')` shows what can go), or pass "
        "a folder on another disk as `cache_dir=`.",
        reference="not-enough-disk",
        forceable=True,
    )
    others = (replace(DISK, folder="/tiny", free=MB), replace(DISK, folder="/mnt/big"))
    hint = found(replace(GOOD, disk=small, bigger_disks=others), "disk").hint
    assert hint.endswith("or pass `cache_dir='/mnt/big'`, where 50.0 GB are free.")


def test_two_files_of_one_content_are_downloaded_once() -> None:
    twin = replace(SELECTION.files[2], path="transformer/again.safetensors")
    selection = replace(SELECTION, files=(*SELECTION.files, twin))
    assert replace(GOOD, selection=selection).missing_bytes == GOOD.missing_bytes == 100 * MB + 2000
    partly = replace(GOOD, partial={"transformer/model.safetensors": 30 * MB})
    assert partly.missing_bytes == 70 * MB + 2000


def test_the_token_is_named_by_its_source() -> None:
    facts = replace(
        GOOD, hub=replace(HUB, token_sent=True, gated=True), token=TokenFacts(source="HF_TOKEN")
    )
    message = found(facts, "access").message
    assert message == "org/name is gated and can be read, with a token (HF_TOKEN)"


def one_model(model_type: str, total: int, machine: MachineFacts) -> Facts:
    """The facts of a model of transformers in bfloat16, of some layers."""
    component = Component(
        name="model",
        library="transformers",
        model_type=model_type,
        paths=("model.safetensors",),
        weights=("model.safetensors",),
    )
    selection = replace(SELECTION, kind=Kind.TRANSFORMERS, class_name=None, components=(component,))
    weights = ComponentWeights(
        name="model",
        bytes_by_dtype={"BF16": total},
        largest_tensor=total // 50,
        largest_block=total // 30,
    )
    return replace(
        GOOD,
        selection=selection,
        weights=(weights,),
        machine=machine,
        fit=fit(selection, (weights,), machine),
    )


@pytest.mark.parametrize(
    ("model_type", "used_for"),
    [
        ("vit", "one image of 224 x 224"),
        ("wav2vec2", "30 s of speech at 16 kHz"),
        ("videomae", "16 frames of 224 x 224"),
        ("vits", "10 s of speech"),
        ("llama", "4096 tokens of context"),
    ],
)
def test_the_peak_is_told_for_what_a_model_is_used_for(model_type: str, used_for: str) -> None:
    result = found(one_model(model_type, GB, replace(CPU, gpus=(L4,))), "vram")
    assert result.status is P
    assert result.message.endswith(f", for {used_for}")


def test_layers_that_wait_in_memory_are_told_of_as_slow() -> None:
    memory = MemoryFacts(available=120 * GB, total=128 * GB)
    plain = {"accelerate": PackageFacts(name="accelerate", installed="1.12.0")}
    machine = replace(CPU, gpus=(L4,), memory=memory, packages=plain)
    result = found(one_model("llama", 30 * GB, machine), "placement")
    assert result.status is W
    assert re.fullmatch(
        r"1\d\.\d GB of the weights come to the GPU anew for each step, which is slow",
        result.message,
    )
    assert result.hint.startswith("With bitsandbytes, 4-bit fits: run `%pip install bitsandbytes`")
    large = found(one_model("llama", 90 * GB, machine), "placement")
    assert "come to the GPU anew for each step" in large.message
    assert large.hint == "A GPU with more memory or a smaller model is many times faster."


def test_what_does_not_fit_is_refused_with_the_figures() -> None:
    result = found(facts_on(CPU, weighing(20 * GB)), "placement")
    assert result.reference == "does-not-fit"
    assert result.message.startswith("the model does not fit here (19.5 GB of RAM available): cpu ")


FIRST = LoadedModel(repo_id="org/large", device="cuda", bytes=9 * GB)


@pytest.mark.parametrize(
    ("free", "status"),
    [
        pytest.param(15 * GB, P, id="there is room for both"),
        pytest.param(8 * GB, W, id="only with offload"),
        pytest.param(GB // 10, F, id="only on the CPU"),
    ],
)
def test_a_second_load_does_not_end_on_a_slow_device(free: int, status: CheckStatus) -> None:
    weights = weighing(5 * GB)
    full, empty = replace(CPU, gpus=(replace(L4, free=free),)), replace(CPU, gpus=(L4,))
    facts = replace(
        facts_on(full, weights), fit_without_loaded=fit(SELECTION, weights, empty), loaded=(FIRST,)
    )
    result = found(facts, "placement")
    assert result.status is status
    assert ("gpu would fit without what is loaded" in result.message) == (status is not P)
    assert ("To free it" in result.hint) == (status is not P)


def test_a_model_that_is_loaded_already_is_named_where_the_next_does_not_fit() -> None:
    facts = replace(facts_on(CPU, weighing(20 * GB)), loaded=(FIRST,))
    assert found(facts, "placement").hint.startswith(
        "org/large is loaded in this process already and takes 9.0 GB (cuda). To free it, run "
    )


def test_no_model_is_to_be_freed_where_memory_is_not_what_is_lacking() -> None:
    asked = fit(SELECTION, WEIGHTS, CPU, method=Method.GPU)
    result = found(replace(GOOD, fit=asked, loaded=(FIRST,)), "placement")
    assert (result.status, result.message, result.hint) == (
        F,
        "plan=gpu does not work here: no NVIDIA GPU",
        'Pass plan="cpu", which fits, or leave plan= out.',
    )


@pytest.mark.parametrize(
    ("figures", "needed"),
    [
        ({}, "nothing of its own"),
        ({"ram_loading": MB}, "1.0 MB while loading"),
        ({"ram_after": 2 * MB}, "2.0 MB during inference"),
        ({"mapped": 3 * MB}, "3.0 MB read in place"),
        ({"ram_loading": MB, "ram_after": 2 * MB}, "1.0 MB while loading, 2.0 MB during inference"),
        (
            {"ram_loading": MB, "ram_after": 2 * MB, "mapped": 3 * MB},
            "1.0 MB while loading, 2.0 MB during inference and 3.0 MB read in place",
        ),
    ],
)
def test_memory_is_told_by_when_it_is_needed(figures: dict[str, Any], needed: str) -> None:
    placement = Placement(method=Method.CPU, device="cpu", dtype="float32", **figures)
    facts = replace(GOOD, fit=Fit(chosen=placement, placements=(placement,)))
    assert found(facts, "ram").message == f"needs {needed}, 20.0 GB available"


def test_a_gpu_without_kernels_is_named() -> None:
    p100 = replace(L4, name="Tesla P100-PCIE-16GB", capability=(6, 0))
    result = found(facts_on(replace(CPU, gpus=(p100,), torch=CUDA)), "placement")
    assert result.message == (
        "the GPU cannot be used: torch 2.13.0+cu130 has no kernels for Tesla P100-PCIE-16GB "
        "(compute capability 6.0)"
    )


def test_quantizing_is_told_with_the_way_around_it() -> None:
    packages = {**PACKAGES, "bitsandbytes": PackageFacts(name="bitsandbytes", installed="0.48")}
    roomy = MemoryFacts(available=90 * GB, total=100 * GB)
    machine = replace(CPU, memory=roomy, gpus=(L4,), packages=packages)
    result = found(facts_on(machine, weighing(60 * GB)), "placement")
    assert result.status is W
    assert result.message == "the large components lose precision"
    assert result.hint == 'For exact weights, pass `plan="group-offload"`, which is slower.'


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (replace(GOOD, disk=replace(DISK, free=0)), DiskSpaceError),
        (
            replace(GOOD, packages={"torch": PackageFacts(name="torch", installed=None)}),
            MissingPackageError,
        ),
        (replace(GOOD, selection=PICKLED), PickledWeightsError),
        (facts_on(CPU, weighing(20 * GB)), DoesNotFitError),
        (stopped(GatedRepoError), GatedRepoError),
        (replace(GOOD, disk=replace(DISK, free=0), selection=PICKLED), PreflightError),
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
    assert len(str(caught.value).splitlines()) <= 6


# -- the report ------------------------------------------------------------------------------------


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def seen(markup: str) -> _Text:
    parser = _Text()
    parser.feed(markup)
    return parser


def bare(text: str) -> str:
    """Leave out what a form may write in its own way: blanks, and the marks of code."""
    return "".join(text.replace("`", "").split())


@pytest.mark.parametrize(
    "facts",
    [
        GOOD,
        facts_on(replace(CPU, gpus=(L4, L4))),
        facts_on(CPU, weighing(20 * GB)),
        replace(GOOD, selection=PICKLED),
    ],
)
def test_text_html_and_json_have_the_same_content(facts: Facts) -> None:
    report = judge(facts)
    told = json.loads(json.dumps(report.to_json()))
    text, html = bare(str(report)), bare(seen(report._repr_html_()).text)
    assert told["ok"] is report.ok
    assert [row["name"] for row in told["checks"]] == list(USUAL)
    assert len(told["placements"]) == len(Method)
    skipped = [row for row in told["checks"] if row["status"] == "skipped"]
    is_well = {row["status"] for row in told["checks"]} <= {"passed", "skipped"}
    for shown in (text, html):
        assert bare(told["verdict"].removeprefix("org/name ")) in shown
        for row in told["checks"]:
            if is_well and shown is text and row in skipped:
                assert f"– {len(skipped)} not checked" in str(report).splitlines()
                continue
            assert row["name"] in shown or row["message"] in told["verdict"]
            # Text has no folds, so what passed is named there alone.
            assert bare(row["message"]) in shown or (row["status"] == "passed" and shown is text)
            assert bare(row["hint"]) in shown
            assert row["link"] in shown
        for part in told["components"]:
            assert part["name"] in shown
        for row in told["placements"]:
            assert row["method"] in shown
            assert bare(row["reason"]) in shown or row["method"] == told["plan"]


def test_where_a_model_is_placed_is_called_a_plan_as_in_the_call() -> None:
    lines = str(judge(facts_on(CPU, weighing(20 * GB)))).splitlines()
    (title,) = (number for number, line in enumerate(lines) if line.startswith("No plan fits"))
    assert lines[title + 1].split()[:2] == ["plan", "dtype"]


@given(name=texts, message=texts, hint=texts, link=texts)
def test_foreign_text_adds_no_element(name: str, message: str, hint: str, link: str) -> None:
    result = CheckResult(name=name, status=W, message=message, hint=hint, link=link)
    part = ComponentWeights(name=name, bytes_by_dtype={message: 1}, quantization=hint or None)
    selection: Selection = replace(
        SELECTION, components=(replace(SELECTION.components[1], name=name),)
    )
    report = PreflightReport(
        repo_id=name, results=(result,), weights=(part,), fit=fit(selection, (part,), CPU)
    )
    parsed = seen(report._repr_html_())
    ours = "a b code details div span summary table thead tbody tr th td"
    assert parsed.tags <= set(ours.split())
    assert "a" not in parsed.tags or link.startswith("https://")
    assert str(report).isprintable() or "\n" in str(report)
    json.dumps(report.to_json())


def test_a_pickled_report_leaves_out_what_its_buttons_do() -> None:
    report = PreflightReport(
        repo_id="org/name",
        results=(CheckResult(name="hub", status=W, message="slow"),),
        _again=lambda: report,
        _line=str,
    )
    copy = pickle.loads(pickle.dumps(report))
    assert copy == report
    assert (copy._again, copy._line) == (None, None)
