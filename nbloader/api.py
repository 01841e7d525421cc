"""What users call: `load`, `aload`, `start`, `download`, `preflight`, `unload`."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nbloader.notebook import import_modules, running_loop
from nbloader.signatures import (
    explains,
    import_for_arguments,
    import_needed,
    like,
    or_paths,
    or_reports,
    prepare,
)

if TYPE_CHECKING:
    import torch

    from nbloader.checks import PreflightReport
    from nbloader.job import Job
    from nbloader.loaders import Freed
    from nbloader.records import Event
    from nbloader.request import Call, Request
    from nbloader.settings import Settings
    from nbloader.stages import Work
    from nbloader.transfer.child import Standby

__all__ = ["aload", "download", "load", "preflight", "start", "unload"]

T = TypeVar("T")

WAKE_EVERY_S = 0.2

MAX_IDS = 3
"""So many of several repositories are named in the head of their view."""


@explains
def load(
    repo_id: str | os.PathLike[str],
    *,
    cls: str | type | Sequence[str | type] | None = None,
    subfolder: str | None = None,
    components: Mapping[str, Any] | None = None,
    adapters: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | None = None,
    revision: str | None = None,
    variant: str | None = None,
    kind: str = "auto",
    task: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    plan: str = "auto",
    attention: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    verify: bool = False,
    force: bool = False,
    replace: bool = False,
    keep_files: bool = True,
    settings: Settings | Mapping[str, Any] | None = None,
    view: str = "auto",
    on_event: Callable[[Event], object] | None = None,
    loader_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Download a model into the Hub's cache, load it on the device, test it, and return it.

    Args:
        repo_id: the Hub's name of the model, such as `Qwen/Qwen-Image-Edit-2509`. What people paste
            in its place is read as well: the address of a page, with the revision in it, and
            `hf://org/name@revision`. A bare name such as `all-MiniLM-L6-v2` is completed as
            sentence-transformers does it; the old bare ids such as `gpt2` stay what they are.
            Or the path of a folder of this machine, as text or as any `os.PathLike`: `./folder`,
            `~/folder`. What could be both an id and a path, as `org/name`, is the folder where one
            of that name holds a model, and `hf://org/name` always the repository. A file behind an
            id, as `org/name/file.safetensors`, is a checkpoint or GGUF by itself.
        cls: what to make of it, where that is another class than the files name: the name of a
            class of diffusers, transformers, sentence-transformers or peft that has
            `from_pretrained`, or the class itself, such as `AutoPipelineForInpainting`,
            `ControlNetModel`, `AutoModelForCausalLM` or `AutoTokenizer`. Several in a tuple give a
            tuple. It is `cls.from_pretrained(repo_id)` with all that `load` adds to it.
        subfolder: the folder of the repository with what is loaded, such as `transformer`. Without
            `cls` it is of the class that the files name.
        components: parts of a pipeline of diffusers that are elsewhere, by the pipeline's names. A
            text is a repository, as `org/name`, `org/name@revision` or `org/name/folder`, a file of
            one, as `org/name/file.gguf`, or a folder of this machine; a list of them several models
            for one part. None leaves a part out, and its files are not fetched; anything else is
            handed to the pipeline as it is.
        adapters: a LoRA, LoKr, IP-Adapter or textual inversion to put into the model, or several in
            a list: a repository as `org/name`, `org/name@revision` or `org/name/file.safetensors`,
            a path of this machine, or a mapping with `repo_id` and perhaps `weight_name`,
            `subfolder`, `revision`, `adapter_name`, `scale`, of an IP-Adapter
            `image_encoder_folder`, and of a textual inversion `token`. What each is, and whether it
            fits the model, is read from its header before the download.
        revision: a branch, a tag or a commit; `main` by default.
        variant: a variant of the weights, such as `fp16`.
        kind: `diffusers`, `sentence-transformers`, `transformers`, or `auto`: the files decide.
        task: what a model of transformers is for, as `transformers.pipeline` names it, such as
            `text-generation`; None lets the Hub and the files decide.
        device: `cuda`, `cuda:1`, `mps`, `cpu`, or `auto`: the best there is.
        dtype: `bfloat16`, `float16`, `float32`, or `auto`: bfloat16 on CUDA from compute
            capability 8.0, float16 on older CUDA and on MPS (float32 where the model overflows in
            float16), float32 on the CPU, or bfloat16 where only that has room.
        plan: how the model is placed, by the name of a `records.Method` such as `model-offload`,
            or `auto`: the fastest that fits. `preflight` shows them all.
        attention: how attention is computed, by the name that transformers or diffusers has for it:
            `sdpa`, `eager`, `flex_attention`, `flash_attention_2`, `flash_attention_3`, `sage`,
            `xformers`, ...; or `auto`: as the library does. Each library gets its own name for it,
            and whether package, GPU and number format fit is checked before the download.
        cache_dir: the Hub's cache folder; by default where every library looks.
        endpoint: the address of the Hub; by default HF_ENDPOINT or huggingface.co.
        token: a token of the Hub; None for the one that is stored on this machine, False for none.
        local_files_only: use the cache only, no network.
        trust_remote_code: allow Python files of the repository to be fetched and run.
        allow_pickle: allow pickled weights (`.bin`) that hold, or may hold, more than tensors, so
            that loading them could run code. Those that hold tensors alone need no leave.
        verify: hash what the cache holds already, too. Downloads are always hashed.
        force: go on although a check failed (disk space, packages, memory), or the files lack
            tensors, which are then random.
        replace: unload what this process has loaded of the same repository before, as
            `nbloader.unload` does, once everything else is ready: for a cell that is run twice.
        keep_files: False for a disk that is smaller than the model: each file of weights is deleted
            once it is loaded, and the next load downloads it again. What was in the cache before,
            and what other commits share, stays. A load that is killed goes on from what is there.
        settings: `Settings` or a mapping of their fields.
        view: `auto` (a widget in a notebook, a bar on a terminal, text elsewhere), `widget`,
            `html`, `text`, `tqdm`, `none`.
        on_event: called with every record of `records.Event`, from the thread that loads.
        loader_kwargs: passed on to the library's own loader. What is an argument of `load` under
            the library's name for it (`revision`, `torch_dtype`, `use_auth_token`, ...) is taken as
            that, and what would be for nothing there (`proxies`, `mirror`, ...) is refused.

    Returns:
        What `cls` names, in a tuple where it is one. Else the diffusers pipeline, or model of a
        repository that is one; the SentenceTransformer, CrossEncoder, SparseEncoder or
        MultiVectorEncoder; the transformers pipeline, or the model itself where no pipeline takes
        it, with a notice.

    Raises:
        InputError: an argument or a setting is wrong, or unknown.
        NbloaderError: with a reference and a hint; see `nbloader.errors`.
        KeyboardInterrupt: passed on after the download process was ended.
    """
    with _standby(endpoint, cache_dir) as standby:
        import_for_arguments()
        from nbloader.request import Call, checked
        from nbloader.transfer.protocol import start_of

        call = Call(
            repo_id,
            cls=cls,
            subfolder=subfolder,
            components=components,
            adapters=adapters,
            revision=revision,
            variant=variant,
            kind=kind,
            task=task,
            device=device,
            dtype=dtype,
            plan=plan,
            attention=attention,
            cache_dir=cache_dir,
            endpoint=endpoint,
            token=token,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            verify=verify,
            force=force,
            replace=replace,
            keep_files=keep_files,
            settings=settings,
            view=view,
            on_event=on_event,
            loader_kwargs=loader_kwargs,
        )
        request = checked(call)
        # The worker asks the Hub while this process imports the rest.
        standby.ask(start_of(request, request.settings.policy()))
        import_needed()
        from nbloader import stages

        return _run(request, stages.load, standby=standby)


@like(load)
async def aload(repo_id: str | os.PathLike[str], **keywords: Any) -> Any:
    """Do what `load` does without holding the event loop. Takes the same arguments.

    `on_event` and the view are called from another thread. Cancelling the task ends the download
    process; what is being loaded is loaded to its end first, because neither library can stop
    there: a component, or the model where its library loads it in one go.
    """
    import asyncio

    request = _request("aload", repo_id, keywords)
    from nbloader import stages

    cancelled = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_run, request, stages.load, cancelled))
    try:
        while not work.done():
            # In short steps: a kernel's interrupt cancels the task without waking an idle loop.
            await asyncio.wait({work}, timeout=WAKE_EVERY_S)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait({work})
        if not work.cancelled():
            work.exception()
        raise
    return work.result()


@like(load)
def start(repo_id: str | os.PathLike[str], **keywords: Any) -> Job:
    """Begin what `load` does, and return at once. Takes the same arguments.

    The cell is over while the model is on its way, so the buttons of its view work: cancel, retry,
    go on despite failed checks, choose another plan. `job.result()` waits for the model; so does
    `await job`. Imports and the construction of the model need the kernel between two cells.

    `on_event` is called from the job's thread. In a notebook there is no `keep_files=False`: the
    model is built while it is downloaded, and no cell could run all that time.

    Raises:
        InputError: an argument or a setting is wrong. All that comes later is raised by
            `job.result()`.
    """
    request = _request("start", repo_id, keywords)
    if not request.keep_files and running_loop() is not None:
        from nbloader.errors import InvalidArgumentError

        raise InvalidArgumentError(
            "keep_files=False builds the model while it is downloaded, and no cell can run beside "
            "that",
            hint="Use nbloader.load(...), which waits for it.",
        )
    from nbloader.job import Job

    return Job(request)


@or_paths
@explains
def download(
    repo_id: str | os.PathLike[str],
    filename: str | None = None,
    *,
    allow_patterns: str | Iterable[str] | None = None,
    ignore_patterns: str | Iterable[str] | None = None,
    repo_type: str | None = "model",
    local_dir: str | os.PathLike[str] | None = None,
    cls: str | type | Sequence[str | type] | None = None,
    subfolder: str | None = None,
    components: Mapping[str, Any] | None = None,
    adapters: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | None = None,
    revision: str | None = None,
    variant: str | None = None,
    kind: str = "auto",
    task: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    verify: bool = False,
    force: bool = False,
    settings: Settings | Mapping[str, Any] | None = None,
    view: str = "auto",
    on_event: Callable[[Event], object] | None = None,
) -> Path:
    """Download exactly the files that `load` would use, and return the snapshot folder.

    Or the files that are named: what `snapshot_download` and `hf_hub_download` of the Hub's library
    bring, for the same arguments, and gone on with, verified and shown as a load is. Imports none
    of the libraries that build models. Other arguments and errors are those of `load`, and
    a folder is refused: what would be fetched is there.

    Args:
        repo_id: as `load` takes it; or a list of such ids. Then all are checked together, the disk
            for their sum, before they come one after the other; what two of them have comes once.
            The page of a file or a folder stands for that alone, the page of a model's weights for
            the model.
        filename: the only file to bring, by its path inside the repository.
        allow_patterns: bring the files whose paths match one of these, such as `*.json`; a folder
            ends with a slash, and `*` is all of them.
        ignore_patterns: leave out those that match one of these.
        repo_type: `model`, `dataset` or `space`. Of the last two, all files are brought that the
            patterns let.
        local_dir: a folder for the files themselves, in place of the cache, laid out as the Hub's
            library does it.

    Returns:
        The folder: the snapshot in the cache, or `local_dir`. With `filename`, the path of the
        file. For a list of ids, a list of these.
    """
    import_needed()
    from nbloader import stages
    from nbloader.request import DownloadCall, checked, several

    call = DownloadCall(
        repo_id,
        cls=cls,
        subfolder=subfolder,
        components=components,
        adapters=adapters,
        revision=revision,
        variant=variant,
        kind=kind,
        task=task,
        cache_dir=cache_dir,
        endpoint=endpoint,
        token=token,
        local_files_only=local_files_only,
        trust_remote_code=trust_remote_code,
        verify=verify,
        force=force,
        settings=settings,
        view=view,
        on_event=on_event,
        repo_type=repo_type,
        allow_patterns=allow_patterns,
        ignore_patterns=ignore_patterns,
        filename=filename,
        local_dir=local_dir,
    )
    calls = several(call)
    return _run(checked(call), stages.download) if calls is None else _download_all(calls)


@or_reports
@explains
def preflight(
    repo_id: str | os.PathLike[str],
    *,
    cls: str | type | Sequence[str | type] | None = None,
    subfolder: str | None = None,
    components: Mapping[str, Any] | None = None,
    adapters: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | None = None,
    revision: str | None = None,
    variant: str | None = None,
    kind: str = "auto",
    task: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    plan: str = "auto",
    attention: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    keep_files: bool = True,
    settings: Settings | Mapping[str, Any] | None = None,
    loader_kwargs: Mapping[str, Any] | None = None,
) -> PreflightReport:
    """Make the checks of `load` and nothing more: no weight is fetched, nothing is raised by them.

    Arguments are those of `load`; `repo_id` may be a list of ids.

    Returns:
        The report; `ok` says whether `load` would go on, `raise_for_failures()` raises as it would.
        For a list, one report over all, with that of each in `reports`: the disk is checked for
        their sum, memory for each.

    Raises:
        InputError: an argument or a setting is wrong.
        WorkerDiedError, ProtocolError: the checks could not be made.
    """
    import_needed()
    from nbloader import stages
    from nbloader.request import Call, checked, load_line, several

    call = Call(
        repo_id,
        cls=cls,
        subfolder=subfolder,
        components=components,
        adapters=adapters,
        revision=revision,
        variant=variant,
        kind=kind,
        task=task,
        device=device,
        dtype=dtype,
        plan=plan,
        attention=attention,
        cache_dir=cache_dir,
        endpoint=endpoint,
        token=token,
        local_files_only=local_files_only,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        keep_files=keep_files,
        settings=settings,
        loader_kwargs=loader_kwargs,
    )
    quiet = dataclasses.replace(call, view="none")
    calls = several(quiet)
    if calls is not None:
        report: Any = stages.check_several(_each_once(calls))
        return report  # type: ignore[no-any-return]
    return stages.check(checked(quiet), partial(load_line, call))


def unload(model: Any) -> Freed:
    """Give back the memory of a model on GPU and CPU, whoever still refers to it.

    `del` is not enough in a notebook: `Out[]`, a traceback or a job may keep the model. So its
    tensors are taken out of it, and what torch holds for later use is returned. The model cannot be
    used any more. What another loaded model uses as well stays.

    Args:
        model: what `load` has returned, or any pipeline or `torch.nn.Module`; a list of them; or
            `"all"` for every model that this process has loaded and that is still alive.

    Returns:
        What was given back, by device.

    Raises:
        InvalidArgumentError: it is no model.
    """
    import_modules("nbloader.loaders")
    from nbloader import loaders

    return loaders.unload(model)


def _standby(endpoint: object, cache_dir: object) -> Standby:
    """Start a worker as the first act of a call; it ends if the arguments turn out to be wrong."""
    from nbloader.transfer.child import Standby

    places = (endpoint, cache_dir)
    texts = [str(place) if isinstance(place, (str, os.PathLike)) else None for place in places]
    return Standby(endpoint=texts[0], cache_dir=texts[1])


def _request(
    function: str, repo_id: str | os.PathLike[str], keywords: Mapping[str, Any]
) -> Request:
    """Check a call that takes the arguments of `load`."""
    prepare(function, keywords, tuple(signature(load).parameters))
    from nbloader.request import Call, checked

    return checked(Call(repo_id, **keywords))


def _each_once(calls: Iterable[Call]) -> list[Request]:
    """Check calls, and leave out what comes a second time."""
    from nbloader.request import checked

    requests = [checked(call) for call in calls]
    return list({each.key: each for each in requests}.values())


def _download_all(calls: Sequence[Call]) -> Any:
    """Download several repositories, and return a path for each call."""
    from nbloader import stages
    from nbloader.request import checked

    requests = _each_once(calls)
    shown = ", ".join(each.repo_id for each in requests[:MAX_IDS])
    more = len(requests) - MAX_IDS
    places = _run(
        requests[0],
        partial(stages.download_several, requests=requests),
        name=f"{shown} and {more} more" if more > 0 else shown,
    )
    found = {each.key: place for each, place in zip(requests, places, strict=True)}
    return [found[checked(call).key] for call in calls]


def _run(
    request: Request,
    work: Work[T],
    cancelled: threading.Event | None = None,
    *,
    name: str | None = None,
    standby: Standby | None = None,
) -> T:
    from nbloader import stages
    from nbloader.reporter import Reporter
    from nbloader.wording import reader_here

    reporter = Reporter(
        name or request.repo_id,
        stages.view_of(request),
        request.on_event,
        reader=reader_here(),
    )
    run = stages.Run(
        request=request,
        reporter=reporter,
        cancelled=cancelled or threading.Event(),
        standby=standby,
    )
    return stages.carry_out(run, work)
