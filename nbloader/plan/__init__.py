"""Which files of a repository will be loaded, and by what.

Pure: no network, disk or clock. A caller asks `reads` which small files decide the plan, fetches
them, asks again until there are none, and then calls `make_plan`. All of them belong to the plan,
so nothing is fetched in vain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nbloader.errors import NoWeightsError, UnsupportedRepoError
from nbloader.plan._diffusers import plan_diffusers
from nbloader.plan._formats import unsupported
from nbloader.plan._paths import check_portable
from nbloader.plan._repo import Repo
from nbloader.plan._sentence_transformers import plan_sentence_transformers
from nbloader.plan._transformers import plan_transformers
from nbloader.quoting import quote
from nbloader.records import Component, Kind, Listing, Plan, PlanRequest

__all__ = ["make_plan", "reads"]

_PLANNERS = {
    Kind.DIFFUSERS: plan_diffusers,
    Kind.SENTENCE_TRANSFORMERS: plan_sentence_transformers,
    Kind.TRANSFORMERS: plan_transformers,
}
# The files that tell a kind, in the order in which they are looked for; a repository of
# sentence-transformers has a config.json too.
_MARKS = {
    Kind.DIFFUSERS: ("model_index.json",),
    Kind.SENTENCE_TRANSFORMERS: ("modules.json", "config_sentence_transformers.json"),
    Kind.TRANSFORMERS: ("config.json",),
}


def reads(listing: Listing, request: PlanRequest, known: Mapping[str, bytes]) -> tuple[str, ...]:
    """The files to read next before the plan can be made, sorted; empty when enough is known.

    Args:
        known: content of the files that were read so far, by path.

    Raises:
        RepoError: what is known already shows that there can be no plan; see `make_plan`.
    """
    repo = Repo(listing, request, known)
    _PLANNERS[_kind(repo, request)](repo)
    return tuple(sorted(repo.missing))


def make_plan(listing: Listing, request: PlanRequest, known: Mapping[str, bytes]) -> Plan:
    """Exactly the files that the library will open to load the model, and their parts.

    Args:
        known: content of every file that `reads` asked for, by path.

    Raises:
        UnsupportedRepoError: no loader fits, or the load would run code that is not trusted.
        NoWeightsError: a component that needs weights has none that could be loaded, or none in
            the format that was asked for.
        VariantNotFoundError: nothing has weights of the variant.
        MalformedFileError: a file that decides the plan is wrong.
        UnsafePathError: a file name could leave its folder.
        ValueError: `reads` still asks for a file.
    """
    repo = Repo(listing, request, known)
    kind = _kind(repo, request)
    class_name, components = _PLANNERS[kind](repo)
    if repo.missing:
        raise ValueError(f"not read yet: {', '.join(sorted(repo.missing))}")
    wanted = {path for component in components for path in component.paths}
    check_portable(sorted(wanted))
    if request.safetensors_only:
        _check_format(repo, components)
    custom_pipeline = kind is Kind.DIFFUSERS and (
        request.custom_pipeline is not None
        or any(path.endswith(".py") and "/" not in path for path in wanted)
    )
    return Plan(
        repo_id=listing.repo_id,
        revision=listing.revision,
        commit_hash=listing.commit_hash,
        kind=kind,
        class_name=class_name,
        components=tuple(component for component in components if _is_part(component)),
        files=tuple(
            sorted((file for file in listing.files if file.path in wanted), key=lambda f: f.path)
        ),
        custom_code=custom_pipeline or any(path.endswith(".py") for path in wanted),
        custom_pipeline=custom_pipeline,
        written_with=repo.written_with,
        variant=repo.variant,
        task=repo.task if kind is Kind.TRANSFORMERS else None,
        task_asked=kind is Kind.TRANSFORMERS and request.task is not None,
    )


def _is_part(component: Component) -> bool:
    return component.name != "config" or bool(component.paths)


def _check_format(repo: Repo, components: Iterable[Component]) -> None:
    """See that all weights are safetensors, where no others were asked for."""
    for component in components:
        for path in component.weights:
            if not path.endswith(".safetensors"):
                raise NoWeightsError(
                    f"{quote(path)} of {quote(repo.repo_id)} is no safetensors file, and "
                    "use_safetensors=True asks for nothing else.",
                    hint="Leave it out, or look for a revision with safetensors weights.",
                )


def _kind(repo: Repo, request: PlanRequest) -> Kind:
    """The kind that was asked for, or that the files show."""
    kind = _kind_of_files(repo, request.kind)
    if request.task is not None and kind is not Kind.TRANSFORMERS:
        alone = not repo.paths.isdisjoint(_MARKS[Kind.TRANSFORMERS])
        raise UnsupportedRepoError(
            f"task= is for models of transformers, and {quote(repo.repo_id)} is one of {kind}.",
            hint="Leave out task=."
            + (" For the model inside it, pass kind='transformers' too." if alone else ""),
        )
    return kind


def _kind_of_files(repo: Repo, kind: Kind | None) -> Kind:
    kinds = [kind for kind, marks in _MARKS.items() if not repo.paths.isdisjoint(marks)]
    if kind is None:
        if not kinds:
            raise unsupported(repo, "model_index.json, modules.json or config.json")
        return kinds[0]
    # sentence-transformers can make an embedding model of any transformers model.
    fits = kind in kinds or (kind is Kind.SENTENCE_TRANSFORMERS and Kind.TRANSFORMERS in kinds)
    if not fits and kinds:
        raise UnsupportedRepoError(
            f"{quote(repo.repo_id)} has no {_MARKS[kind][0]}, so {kind} cannot load it.",
            hint=f"Its files are for {kinds[0]}: leave out kind=.",
        )
    if not fits:
        raise unsupported(repo, _MARKS[kind][0])
    return kind
