"""The selection itself: the kind of a repository, and the files that its selector names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from nbloader.errors import NoWeightsError, UnsupportedRepoError
from nbloader.records import (
    Companion,
    Component,
    Form,
    Kind,
    Listing,
    Reference,
    Selection,
    SelectionRequest,
)
from nbloader.selection.adapter_files import select_adapters
from nbloader.selection.checkpoints import select_checkpoint
from nbloader.selection.classes import is_one_model, part_of_pipelines, select_classes
from nbloader.selection.diffusers import select_diffusers
from nbloader.selection.encoder_classes import is_encoder
from nbloader.selection.formats import unsupported
from nbloader.selection.needs import with_needs
from nbloader.selection.plain import select_plain
from nbloader.selection.repo import Family, Repo, check_portable, is_code
from nbloader.selection.sentence_transformers import select_sentence_transformers
from nbloader.selection.transformers import ADAPTER_CONFIG, select_adapted
from nbloader.text import quote

if TYPE_CHECKING:
    from nbloader.selection.sizes import Header

_Headers = Mapping[str, "Header | None"]
_NO_HEADERS: _Headers = MappingProxyType({})

_SELECTORS = {
    Kind.DIFFUSERS: select_diffusers,
    Kind.SENTENCE_TRANSFORMERS: select_sentence_transformers,
    Kind.TRANSFORMERS: select_adapted,
    Kind.CLASSES: select_classes,
}
# The files that tell a kind, in the order in which they are looked for; a repository of
# sentence-transformers has a config.json too.
_MARKS = {
    Kind.DIFFUSERS: ("model_index.json",),
    Kind.SENTENCE_TRANSFORMERS: ("modules.json", "config_sentence_transformers.json"),
    Kind.TRANSFORMERS: ("config.json", ADAPTER_CONFIG),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What has to be found out next before the selection can be made; nothing once it can.

    Attributes:
        references: the other repositories to list, each once.
        reads: the files to read, sorted.
        headers: the files of weights whose headers to read, sorted. They are adapters, which may
            bring other files with them; those of this machine are named by their whole paths.
    """

    references: tuple[Reference, ...] = ()
    reads: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.references or self.reads or self.headers)


def needed(
    listing: Listing,
    request: SelectionRequest,
    known: Mapping[str, bytes],
    others: Mapping[str, Listing] = MappingProxyType({}),
    headers: _Headers = _NO_HEADERS,
) -> Needed:
    """Say what has to be found out next before the selection can be made.

    Args:
        known: content of the files that were read so far, by path; see `RepoFile.path`.
        others: the listings of other repositories that were named so far, by id.
        headers: those that were named so far, by path; None for one that cannot be read.

    Raises:
        RepoError: what is known already shows that there can be no selection; see `select`.
    """
    if request.files is not None:
        return Needed()
    family = Family(request=request, known=known, listings=others, headers=headers)
    _selected(listing, family)
    return _needed(listing, family)


def _needed(listing: Listing, family: Family) -> Needed:
    """What the selectors have asked for and is not known yet."""
    listed = {listing.repo_id, *family.listings}
    unlisted = {one.repo_id: one for one in family.references.values() if one.repo_id not in listed}
    return Needed(
        references=tuple(unlisted.values()),
        reads=tuple(sorted(family.missing)),
        headers=tuple(sorted(family.unread_headers)),
    )


def select(
    listing: Listing,
    request: SelectionRequest,
    known: Mapping[str, bytes],
    others: Mapping[str, Listing] = MappingProxyType({}),
    headers: _Headers = _NO_HEADERS,
) -> Selection:
    """Exactly the files that the library will open to load the model, and their parts.

    Where the caller chooses files by their names, it is those.

    Args:
        known, others, headers: all that `needed` has named.

    Raises:
        UnsupportedRepoError: no loader fits, or the load would run code that is not trusted.
        NoWeightsError: a component that needs weights has none that could be loaded, or none in
            the format that was asked for.
        VariantNotFoundError: nothing has weights of the variant.
        MalformedFileError: a file that decides the selection is wrong.
        UnsafePathError: a file name could leave its folder.
        ValueError: something is needed still.
    """
    if request.files is not None:
        return select_plain(listing, request.files)
    family = Family(request=request, known=known, listings=others, headers=headers)
    repo, kind, class_name, components = _selected(listing, family)
    if left := _needed(listing, family):
        unread = [*left.reads, *left.headers, *(one.repo_id for one in left.references)]
        raise ValueError(f"not read yet: {', '.join(sorted(unread))}")
    wanted = {path for component in components for path in component.paths}
    files = [
        *(file for file in listing.files if file.path in wanted),
        *(
            replace(file, path=path, repo_id=other.repo_id)
            for other in others.values()
            for file in other.files
            if (path := f"{other.repo_id}:{file.path}") in wanted
        ),
    ]
    check_portable(sorted(file.path_in_repo for file in files))
    is_model = kind is Kind.TRANSFORMERS
    if request.safetensors_only:
        _check_format(repo, components)
    code = {path for path in wanted if is_code(path)}
    if code and not request.trust_remote_code:
        # Whatever a selector took it for: a library that finds it may run it.
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} has its model in code of its own: {quote(min(code))}.",
            hint="Read that file on the Hub; if you trust it, pass trust_remote_code=True.",
        )
    custom_pipeline = kind is Kind.DIFFUSERS and (
        request.custom_pipeline is not None or any("/" not in path for path in code)
    )
    return Selection(
        repo_id=listing.repo_id,
        revision=listing.revision,
        commit_hash=listing.commit_hash,
        kind=kind,
        class_name=class_name,
        components=tuple(component for component in components if _is_part(component)),
        files=tuple(sorted(files, key=lambda file: file.path)),
        # The one place that decides it: all of the loaders ask for this.
        custom_code=request.trust_remote_code and (custom_pipeline or repo.runs_code or bool(code)),
        custom_pipeline=custom_pipeline,
        written_with=repo.written_with,
        variant=repo.variant,
        task=repo.task if is_model else None,
        task_asked=is_model and request.task is not None,
        companions=tuple(
            Companion(
                repo_id=one.repo_id,
                role=one.role,
                revision=found.revision,
                commit_hash=found.commit_hash,
                folder=found.folder,
                repo_type=one.repo_type,
            )
            for one in family.references.values()
            for found in [listing if one.repo_id == listing.repo_id else others[one.repo_id]]
        ),
        targets=repo.targets,
        as_tuple=request.as_tuple,
        backend=request.backend.name if request.backend else None,
        folder=listing.folder,
        checkpoint=request.checkpoint,
        adapters=repo.adapters,
    )


def _selected(
    listing: Listing, family: Family
) -> tuple[Repo, Kind, str | None, Sequence[Component]]:
    """What the selector of the kind makes of what is known so far."""
    repo = Repo(listing, family)
    if family.request.checkpoint:
        kind, class_name, components = select_checkpoint(repo)
        if kind is Kind.DIFFUSERS:
            components = with_needs(repo, kind, components)
        adapters, repo.adapters = select_adapters(repo, kind, components)
        return repo, kind, class_name, [*components, *adapters]
    kind = _kind(repo, family.request)
    if family.request.component_names and kind is not Kind.DIFFUSERS:
        raise UnsupportedRepoError(
            f"components= is for pipelines of diffusers, and {quote(repo.repo_id)} is loaded as "
            f"{kind}.",
            hint="Leave it out, or name the class of the pipeline: cls=...",
        )
    if family.request.backend and kind is not Kind.SENTENCE_TRANSFORMERS:
        raise UnsupportedRepoError(
            f"backend= is for models of sentence-transformers, and {quote(repo.repo_id)} is loaded "
            f"as {kind}.",
            hint='Leave it out, or name the class: cls="SentenceTransformer".',
        )
    class_name, components = _SELECTORS[kind](repo)
    components = with_needs(repo, kind, components)
    adapters, repo.adapters = select_adapters(repo, kind, components)
    return repo, kind, class_name, [*components, *adapters]


def _is_part(component: Component) -> bool:
    return component.name != "config" or bool(component.paths)


def _check_format(repo: Repo, components: Iterable[Component]) -> None:
    """See that all weights are safetensors, where no others were asked for."""
    for component in components:
        for path in component.weights:
            if not path.endswith(".safetensors"):
                raise NoWeightsError(
                    f"{quote(path)} of {quote(repo.repo_id)} is not a safetensors file, and "
                    "use_safetensors=True asks for nothing else.",
                    hint="Leave it out, or look for a revision with safetensors weights.",
                )


_OF_FORMS = {Form.PIPELINE: Kind.DIFFUSERS, Form.ENCODER: Kind.SENTENCE_TRANSFORMERS}


def _kind(repo: Repo, request: SelectionRequest) -> Kind:
    """The kind that was asked for, or that the files show."""
    if request.subfolder and request.task is not None:
        raise UnsupportedRepoError(
            f"task= is for the model in the root of a repository, and "
            f"subfolder={quote(request.subfolder)} was given.",
            hint="Leave out task=: what is in the folder comes by itself.",
        )
    if request.targets or request.subfolder:
        forms = {group[0].form for group in request.targets}
        kind = _OF_FORMS.get(forms.pop(), Kind.CLASSES) if len(forms) == 1 else Kind.CLASSES
        _check_takes(repo, kind)
        return kind
    kind = _kind_of_files(repo, request)
    if request.task is not None and kind is not Kind.TRANSFORMERS:
        alone = not repo.paths.isdisjoint(_MARKS[Kind.TRANSFORMERS])
        raise UnsupportedRepoError(
            f"task= is for models of transformers, and {quote(repo.repo_id)} is one of {kind}.",
            hint="Leave out task=."
            + (" For the model inside it, pass kind='transformers' too." if alone else ""),
        )
    return kind


def _check_takes(repo: Repo, kind: Kind) -> None:
    """Refuse a repository that a class for whole models cannot take.

    Raises:
        UnsupportedRepoError: it is none of its library, or a folder in it is meant.
    """
    request = repo.family.request
    marks = _MARKS.get(kind)
    if marks is None:
        return
    name = request.targets[0][0].class_name
    if request.subfolder:
        raise UnsupportedRepoError(
            f"{name} takes a whole repository, and subfolder={quote(request.subfolder)} was given.",
            hint="Leave it out, or name the class of what is in that folder.",
        )
    # sentence-transformers can make an embedding model of any transformers model.
    alone = kind is Kind.SENTENCE_TRANSFORMERS
    if repo.paths.isdisjoint((*marks, *(_MARKS[Kind.TRANSFORMERS] if alone else ()))):
        raise UnsupportedRepoError(
            f"{name} does not take {quote(repo.repo_id)}: it has no {marks[0]}.",
            hint="Leave cls= out for what the files name, or name a class that they are for.",
        )


def _is_one_model(repo: Repo) -> bool:
    """Say whether a repository is one model of diffusers; False as long as that is not known."""
    if "config.json" not in repo.paths or ADAPTER_CONFIG in repo.paths:
        return False
    config = repo.read_object("config.json") or {}
    return is_one_model(config) or part_of_pipelines(config) is not None


def _kind_of_files(repo: Repo, request: SelectionRequest) -> Kind:
    kind = request.kind
    kinds = [kind for kind, marks in _MARKS.items() if not repo.paths.isdisjoint(marks)]
    if kind is None:
        if not kinds:
            raise unsupported(repo, "model_index.json, modules.json or config.json")
        if kinds[0] is Kind.TRANSFORMERS and request.task is None and is_encoder(repo):
            return Kind.SENTENCE_TRANSFORMERS
        return Kind.CLASSES if kinds[0] is Kind.TRANSFORMERS and _is_one_model(repo) else kinds[0]
    # sentence-transformers can make an embedding model of any transformers model.
    fits = kind in kinds or (kind is Kind.SENTENCE_TRANSFORMERS and Kind.TRANSFORMERS in kinds)
    if kind is Kind.DIFFUSERS and kinds == [Kind.TRANSFORMERS]:
        if _is_one_model(repo):
            return Kind.CLASSES
        if repo.family.missing:
            return Kind.TRANSFORMERS  # It is asked again once the file is known.
    if not fits and kinds:
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} has no {_MARKS[kind][0]}, so {kind} cannot load it.",
            hint=f"Its files are for {kinds[0]}: leave out kind=.",
        )
    if not fits:
        raise unsupported(repo, _MARKS[kind][0])
    return kind
