"""The stages put together: `load`, `aload`, `download`, `preflight`. It alone knows them all."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nbloader.assess import Survey, assess, with_attached
from nbloader.background import import_modules
from nbloader.checks import PreflightReport
from nbloader.errors import (
    RUN_AGAIN,
    DoesNotFitError,
    HubUnreachableError,
    Interrupted,
    NbloaderError,
    ProtocolError,
    RepoError,
    TransferError,
    WorkerDiedError,
)
from nbloader.history import remember
from nbloader.records import (
    Checked,
    Event,
    Fit,
    Kind,
    LoadedModel,
    Notice,
    Placement,
    Plan,
    Planned,
    Ready,
    Stage,
    TransferPolicy,
)
from nbloader.redaction import short_path
from nbloader.reporter import Reporter
from nbloader.units import format_bytes
from nbloader.views.base import View
from nbloader.views.choose import choose, front_end, make

if TYPE_CHECKING:
    import torch

    from nbloader.request import Request
    from nbloader.settings import Settings

__all__ = ["aload", "download", "load", "preflight"]

WAKE_EVERY_S = 0.2


def load(
    repo_id: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    kind: str = "auto",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    plan: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    verify: bool = False,
    force: bool = False,
    settings: Settings | Mapping[str, Any] | None = None,
    view: str = "auto",
    on_event: Callable[[Event], object] | None = None,
    loader_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Download a model into the Hub's cache, load it on the device, test it, and return it.

    Args:
        repo_id: the Hub's name of the model, such as `Qwen/Qwen-Image-Edit-2509`.
        revision: a branch, a tag or a commit; `main` by default.
        variant: a variant of the weights, such as `fp16`.
        kind: `diffusers`, `sentence-transformers`, `transformers`, or `auto`: the files decide.
        device: `cuda`, `cuda:1`, `mps`, `cpu`, or `auto`: the best there is.
        dtype: `bfloat16`, `float16`, `float32`, or `auto`: bfloat16 on CUDA from compute
            capability 8.0, float16 on older CUDA and on MPS (float32 where the model overflows in
            float16), float32 on the CPU, or bfloat16 where only that has room.
        plan: how the model is placed, by the name of a `records.Method` such as `model-offload`,
            or `auto`: the fastest that fits. `preflight` shows them all.
        cache_dir: the Hub's cache folder; by default where every library looks.
        endpoint: the address of the Hub; by default HF_ENDPOINT or huggingface.co.
        token: a token of the Hub; None for the one that is stored on this machine, False for none.
        local_files_only: use the cache only, no network.
        trust_remote_code: allow Python files of the repository to be fetched and run.
        allow_pickle: allow weights that can run code when they are loaded (`.bin`).
        verify: hash what the cache holds already, too. Downloads are always hashed.
        force: go on although a check failed (disk space, packages, memory).
        settings: `Settings` or a mapping of their fields.
        view: `auto` (a widget in a notebook, text elsewhere), `widget`, `html`, `text`, `tqdm`,
            `none`.
        on_event: called with every record of `records.Event`, from the thread that loads.
        loader_kwargs: passed on to the library's own loader.

    Returns:
        The diffusers pipeline, the SentenceTransformer, or the transformers pipeline.

    Raises:
        NbloaderError: with a reference and a hint; see `nbloader.errors`.
        KeyboardInterrupt: passed on after the download process was ended.
    """
    request = _request(**locals())
    return _run(request, _load, threading.Event())


async def aload(repo_id: str, **keywords: Any) -> Any:
    """Do what `load` does without holding the event loop. Takes the same arguments.

    `on_event` and the view are called from another thread. Cancelling the task ends the download
    process; a model that is being built is built to its end first, because neither library can
    stop there.
    """
    import asyncio

    known = load.__kwdefaults__ or {}
    for name in keywords:
        if name not in known:
            raise TypeError(f"aload() got an unexpected keyword argument {name!r}")
    cancelled = threading.Event()
    request = _request(repo_id=repo_id, **keywords)
    work = asyncio.ensure_future(asyncio.to_thread(_run, request, _load, cancelled))
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


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    kind: str = "auto",
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

    Imports none of the libraries that build models. Arguments and errors are those of `load`.
    """
    request = _request(**locals())
    folder: Path = _run(request, _download, threading.Event())
    return folder


def preflight(
    repo_id: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    kind: str = "auto",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    plan: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    settings: Settings | Mapping[str, Any] | None = None,
    loader_kwargs: Mapping[str, Any] | None = None,
) -> PreflightReport:
    """Make the checks of `load` and nothing more: no weight is fetched, nothing is raised by them.

    Arguments are those of `load`.

    Returns:
        The report; `ok` says whether `load` would go on, `raise_for_failures()` raises as it would.

    Raises:
        InputError: an argument or a setting is wrong.
        WorkerDiedError, ProtocolError: the checks could not be made.
    """
    request = _request(**locals(), view="none")
    # Nobody is told of retries here, so there are few and short ones.
    policy = replace(
        request.settings.policy(),
        max_retries=min(2, request.settings.max_retries),
        retry_delay_min_s=1.0,
        retry_delay_max_s=1.0,
        max_wait_s=2.0,
    )
    survey = Survey()
    found: list[Planned] = []

    class Enough(Exception):  # noqa: N818 - the way out, not an error
        pass

    def stop(planned: Planned) -> None:
        found.append(planned)
        raise Enough

    try:
        _transfer(
            request,
            policy,
            publish=lambda event: None,  # noqa: ARG005 - nobody is told
            approve=stop,
            check=lambda: None,
            cancelled=threading.Event(),
        )
    except Enough:
        pass
    except (ProtocolError, WorkerDiedError):
        raise
    except (RepoError, TransferError) as error:
        return assess(request, survey=survey, problem=error)
    return assess(request, survey=survey, planned=found[0])


def _request(**keywords: object) -> Request:
    """Check the arguments. What that needs is imported where an interrupt cannot break it."""
    import_modules("nbloader.request", "nbloader.transfer.supervisor")
    from nbloader.request import checked

    return checked(**keywords)


# -- the stages ----------------------------------------------------------------------------------


_Work: TypeAlias = "Callable[[Request, Reporter, threading.Event], tuple[Any, str]]"


def _run(request: Request, work: _Work, cancelled: threading.Event) -> Any:
    """Do the work, show it, and keep what came of it for `doctor`."""
    reporter = Reporter(request.repo_id, _view(request), request.on_event)
    try:
        return _done(request, work, reporter, cancelled)
    finally:
        remember(reporter.state)


def _done(request: Request, work: _Work, reporter: Reporter, cancelled: threading.Event) -> Any:
    """Do the work, and see that the view learns of its end, whatever it is."""
    from nbloader.transfer.supervisor import Cancelled

    try:
        result, summary = work(request, reporter, cancelled)
    except NbloaderError as error:
        reporter.fail(error.reference, error.message, error.hint)
        raise
    except KeyboardInterrupt:
        reporter.fail("interrupted", "stopped", RUN_AGAIN)
        raise Interrupted from None
    except Cancelled:
        reporter.fail("interrupted", "stopped", RUN_AGAIN)
        raise
    except BaseException as error:
        with contextlib.suppress(Exception):  # The view may be what failed.
            reporter.fail("internal-error", type(error).__name__, RUN_AGAIN)
        raise
    reporter.finish(Ready(summary=summary))
    return result


def _view(request: Request) -> View:
    return make(
        choose(request.view, front_end()),
        stream=sys.stdout,
        speed=request.settings.show_download_speed,
        eta=request.settings.show_eta,
    )


def _transfer(
    request: Request,
    policy: TransferPolicy,
    *,
    publish: Callable[[Event], object],
    approve: Callable[[Planned], object],
    check: Callable[[], object],
    cancelled: threading.Event,
) -> Path:
    """Run the worker for a request."""
    from nbloader.transfer.protocol import Start
    from nbloader.transfer.supervisor import transfer

    return transfer(
        Start(
            repo_id=request.repo_id,
            revision=request.revision,
            request=request.plan,
            policy=policy,
            token=request.token,
            local_files_only=request.local_files_only,
            verify=request.verify,
        ),
        endpoint=request.endpoint,
        cache_dir=request.cache_dir,
        publish=publish,
        approve=approve,
        check=check,
        cancelled=cancelled,
    )


class _Loading:
    """What a load learns on its way to the model.

    Attributes:
        importing: the import of the libraries, which begins with the download.
        placement: where the model goes.
    """

    def __init__(self, request: Request, planned: Planned, fit: Fit) -> None:
        from nbloader.loaders import Import

        placement = fit.chosen or fit.nearest  # the second only if it is forced
        if placement is None:
            raise DoesNotFitError(fit.problem, hint=fit.hint)
        self.placement: Placement = placement
        self.importing = Import(planned.plan, forced=request.force, notebook=front_end().kernel)


def _fetch(
    request: Request,
    reporter: Reporter,
    cancelled: threading.Event,
    loading: list[_Loading] | None = None,
) -> Path:
    """Check, then bring the files of the plan into the cache.

    Args:
        loading: gets what the load needs to know; None if nothing will be loaded.
    """
    survey = Survey() if loading is not None else None

    def approve(planned: Planned) -> None:
        report = assess(request, survey=survey, planned=planned)
        reporter.publish(Checked(results=report.results, fit=report.fit))
        report.raise_for_failures(force=request.force)
        if loading is not None:
            assert report.fit is not None
            loading.append(_Loading(request, planned, report.fit))
        reporter.begin(Stage.DOWNLOAD)

    device_is_there = False

    def may_go_on() -> None:
        nonlocal device_is_there
        reporter.tick()
        if loading and loading[0].importing.check() and not device_is_there:
            # A device that is not there is told as soon as torch can say so.
            from nbloader.loaders import check_device

            check_device(loading[0].placement)
            device_is_there = True

    reporter.begin(Stage.CONNECT)
    try:
        return _transfer(
            request,
            request.settings.policy(),
            publish=reporter.publish,
            approve=approve,
            check=may_go_on,
            cancelled=cancelled,
        )
    except HubUnreachableError as error:
        raise with_attached(error, request.repo_id) from error


def _download(request: Request, reporter: Reporter, cancelled: threading.Event) -> tuple[Path, str]:
    folder = _fetch(request, reporter, cancelled)
    reporter.begin(Stage.FINISH)
    return folder, short_path(folder)


def _load(request: Request, reporter: Reporter, cancelled: threading.Event) -> tuple[Any, str]:
    from nbloader import loaders
    from nbloader.transfer.supervisor import Cancelled

    loading: list[_Loading] = []
    folder = _fetch(request, reporter, cancelled, loading)
    plan = reporter.state.plan
    assert plan is not None
    reporter.begin(Stage.INITIALISE)
    if not loading[0].importing.wait(cancelled):
        raise Cancelled
    placement = loading[0].placement
    loaders.check_device(placement)
    key = (plan, placement.method, placement.device, placement.dtype, repr(request.loader_kwargs))
    for size in loaders.copies(key)[:1]:
        reporter.publish(_second_copy(plan, placement.device, size))
    model = loaders.load(plan, folder, placement, request.loader_kwargs)
    modules = loaders.modules_of(model, plan)
    size = loaders.bytes_of(modules.values())
    loaders.remember(
        key, LoadedModel(repo_id=plan.repo_id, device=placement.device, bytes=size), model
    )
    reporter.begin(Stage.SELF_TEST)
    spread = loaders.places_itself(request.loader_kwargs)
    loaders.check_modules(modules, None if spread else placement)
    if plan.kind is Kind.SENTENCE_TRANSFORMERS:
        reporter.begin(Stage.TEST_EMBEDDINGS)
        loaders.check_embeddings(model)
    if cancelled.is_set():
        raise Cancelled
    reporter.begin(Stage.FINISH)
    return model, f"{type(model).__name__} on {placement.device}, {placement.dtype}"


def _second_copy(plan: Plan, device: str, size: int) -> Notice:
    where = "memory" if device == "cpu" else f"memory of {device}"
    return Notice(
        reference="already-loaded",
        message=f"{plan.repo_id} is loaded in this process already; a second copy takes another "
        f"{format_bytes(size)} of {where}",
        hint="To free the first, run `%xdel pipe` with its name: `del` leaves what IPython keeps."
        if front_end().kernel
        else "To free the first, delete every name that holds it (`del pipe`).",
    )
