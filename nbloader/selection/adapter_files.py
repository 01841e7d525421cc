"""Which files of the adapters that a caller names are fetched, and what they are put into.

Of a repository with adapters one file is wanted, as the libraries take one: that of the name that
the caller gives, else the one of the libraries' own name, else the only one there is. Its header
tells what it is; an IP-Adapter may bring an image encoder along. Adapters for models of
transformers are folders of PEFT.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from nbloader.errors import InvalidArgumentError, NoWeightsError, UnsupportedRepoError
from nbloader.hub_names import folder_and_name, is_repo_id, join
from nbloader.records import (
    AdapterKind,
    AdapterRequest,
    ChosenAdapter,
    Component,
    Form,
    Kind,
    Reference,
    Source,
)
from nbloader.selection.adapters import Adapter, recognised
from nbloader.selection.formats import no_weights
from nbloader.selection.lines import literal
from nbloader.selection.repo import ADAPTER, Repo, companion
from nbloader.selection.transformers import ADAPTER_CONFIG, adapter
from nbloader.selection.weights import TRANSFORMERS, find_weights
from nbloader.text import quote

ADAPTER_COMPONENT = "adapter"
"""The first word of the name of a component that is one."""

_LORA = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
_WORDS = ("learned_embeds.safetensors", "learned_embeds.bin")
_NO_NAMES = frozenset({"adapter_model", "learned_embeds", "pytorch_lora_weights"})
"""Names of files that say nothing of what is in them."""

# `_best_guess_weight_name` of diffusers: what stands beside a LoRA after training.
_NOT_MEANT = ("scheduler", "optimizer", "checkpoint")
_MAX_NAMED = 8
_IMAGE_ENCODER = "image_encoder"


def select_adapters(
    repo: Repo, kind: Kind, components: Sequence[Component]
) -> tuple[list[Component], tuple[ChosenAdapter, ...]]:
    """The files of the adapters, a component for each, and how each is put in.

    What is not known yet is asked for and left out.

    Args:
        components: those of the model.

    Raises:
        InvalidArgumentError: two have one name, or one is told what is for others.
        NoWeightsError: there is no file of the name, or none that could be meant.
        UnsupportedRepoError: several files could be meant, or the model takes no adapters.
    """
    wanted = repo.family.request.adapters
    if wanted:
        _check_model(repo, kind)
        own = next((part for part in components if part.library == "peft" and part.weights), None)
        if own is not None:
            _refuse_adapter(repo, own, wanted[0])
            return [], ()
    found: list[Component] = []
    chosen: list[ChosenAdapter] = []
    taken: set[str] = set()
    loras = 0
    for one in wanted:
        made = _in_pipeline(repo, one, components) if kind is Kind.DIFFUSERS else _peft(repo, one)
        if made is None:
            continue
        part, choice = made
        if not choice.name and choice.kind not in _NAMELESS:
            # As the libraries name them.
            first = "default_0" if kind is Kind.DIFFUSERS else "default"
            choice = replace(choice, name=f"default_{loras}" if loras else first)
        loras += choice.kind not in _NAMELESS
        _check_settings(one, choice, chosen)
        if part is not None:
            part = _named(part, [*components, *found])
            choice = replace(choice, component=part.name)
            found.append(
                replace(
                    part,
                    paths=tuple(path for path in part.paths if path not in taken),
                    weights=tuple(path for path in part.weights if path not in taken),
                )
            )
            taken.update(part.paths)
        chosen.append(choice)
    return found, tuple(chosen)


_NAMELESS = frozenset({AdapterKind.IP_ADAPTER, AdapterKind.TEXTUAL_INVERSION})


def _check_settings(
    wanted: AdapterRequest, choice: ChosenAdapter, before: Iterable[ChosenAdapter]
) -> None:
    """Refuse what the library would pass over, or stumble on. Raises InvalidArgumentError."""
    if choice.kind not in _NAMELESS and choice.name in {each.name for each in before}:
        raise InvalidArgumentError(
            f"adapters= has two with the name {quote(choice.name)}: one is called so because it "
            "has none",
            hint="Give each of them an adapter_name of its own.",
        )
    of_words = choice.kind is AdapterKind.TEXTUAL_INVERSION
    if of_words and wanted.scale is not None:
        raise InvalidArgumentError(
            f"{wanted.where}: scale= is for adapters that change layers, and "
            f"{quote(choice.filename)} brings words",
            hint="Leave scale out; how much a word counts is said in the prompt.",
        )
    if wanted.token and not of_words:
        raise InvalidArgumentError(
            f"{wanted.where}: token= is for a textual inversion, and {quote(choice.filename)} is "
            "none",
            hint="Leave token out.",
        )


def _check_model(repo: Repo, kind: Kind) -> None:
    """Refuse models that no adapter is put into. Raises UnsupportedRepoError."""
    if repo.family.request.checkpoint and kind is not Kind.DIFFUSERS:
        raise UnsupportedRepoError(
            "adapters= is for pipelines, and the file that is named is a single model.",
            hint="Hand it to its pipeline (components=...), and pass adapters= there.",
        )
    if kind is not Kind.CLASSES or not repo.targets:
        return
    model = next((each for each in repo.targets if each.form is not Form.PART), None)
    if model is None:
        raise UnsupportedRepoError(
            "adapters= is for models, and what cls= names has no weights.",
            hint="Leave adapters= out.",
        )
    if model.library == "diffusers":
        raise UnsupportedRepoError(
            f"adapters= is for pipelines, and {quote(repo.repo_id)} is loaded as a single "
            f"{model.class_name}.",
            hint="Load the pipeline with it (components=...), and pass adapters= there.",
        )


def _refuse_adapter(repo: Repo, own: Component, wanted: AdapterRequest) -> None:
    """Refuse a repository that is an adapter itself, once its base is known.

    Raises:
        UnsupportedRepoError: it is known.
    """
    path = next(path for path in own.paths if path.endswith(ADAPTER_CONFIG))
    config = repo.read_object(path)
    if config is None:
        return  # It is asked again once the file is known.
    base, place = config.get("base_model_name_or_path"), folder_and_name(path)[0]
    own_place = join(repo.repo_id, place) if place else repo.repo_id
    source = wanted.source
    named = (source.repo_id, source.subfolder, source.filename) if source else (wanted.path,)
    other = "/".join(filter(None, named))
    raise UnsupportedRepoError(
        f"{wanted.where}: {quote(repo.repo_id)} is an adapter itself.",
        hint="Load its base with both: nbloader.load("
        f"{literal(base) if is_repo_id(base) else 'BASE'}, "
        f"adapters=[{literal(own_place)}, {literal(other)}]).",
    )


def _named(part: Component, others: Iterable[Component]) -> Component:
    """Give a component a name that no other has."""
    names = {each.name for each in others}
    name, number = part.name, 2
    while name in names:
        name, number = f"{part.name} ({number})", number + 1
    return replace(part, name=name)


# -- pipelines of diffusers ------------------------------------------------------------------------

_Made = tuple[Component | None, ChosenAdapter]


def _in_pipeline(
    repo: Repo, wanted: AdapterRequest, components: Sequence[Component]
) -> _Made | None:
    if wanted.source is None:
        return _of_this_machine(repo, wanted, components)
    other = _repository(repo, wanted, wanted.source)
    if other is None:
        return None
    path = file_of(other, wanted.source, wanted.where)
    if path not in repo.family.headers:
        repo.family.unread_headers.add(path)
        return None
    found, kind = _kind_of(repo, path)
    folder, name = folder_and_name(path)
    encoder = _image_encoder(repo, components, wanted) if kind is AdapterKind.IP_ADAPTER else None
    paths, weights = [path], [path]
    if encoder is not None:
        more = _encoder_files(other, folder, encoder, wanted)
        paths += more
        weights += [each for each in more if not each.endswith(".json")]
    inner = folder.removeprefix(other.root)
    component = Component(
        name=f"{ADAPTER_COMPONENT} {_shown(wanted, name, wanted.source)}",
        paths=tuple(sorted(set(paths))),
        weights=tuple(dict.fromkeys(weights)),
        repo_id=wanted.source.repo_id,
        folder=inner,
    )
    return component, ChosenAdapter(
        component=component.name,
        kind=kind,
        path=path,
        repo_id=wanted.source.repo_id,
        folder=inner,
        filename=name,
        words=tuple(found.widths) if found else (),
        name=wanted.name,
        scale=wanted.scale,
        image_encoder=encoder,
        token=wanted.token,
    )


def _of_this_machine(
    repo: Repo, wanted: AdapterRequest, components: Sequence[Component]
) -> _Made | None:
    path = wanted.path
    if path not in repo.family.headers:
        repo.family.unread_headers.add(path)
        return None
    found, kind = _kind_of(repo, path)
    folder, _, name = path.replace("\\", "/").rpartition("/")
    is_ip = kind is AdapterKind.IP_ADAPTER
    return None, ChosenAdapter(
        component="",
        kind=kind,
        path=path,
        repo_id="",
        folder=folder,
        filename=name,
        words=tuple(found.widths) if found else (),
        name=wanted.name,
        scale=wanted.scale,
        image_encoder=_image_encoder(repo, components, wanted) if is_ip else None,
        token=wanted.token,
    )


def _kind_of(repo: Repo, path: str) -> tuple[Adapter | None, AdapterKind]:
    """What a file is; where its header does not tell, by its name what it would be loaded as."""
    header = repo.family.headers[path]
    found = recognised(header.shapes) if header is not None else None
    if found is not None:
        return found, found.kind
    name = folder_and_name(path)[1].lower()
    if "ip-adapter" in name or "ip_adapter" in name:
        return None, AdapterKind.IP_ADAPTER
    is_words = name in _WORDS or name.endswith(".pt")
    return None, AdapterKind.TEXTUAL_INVERSION if is_words else AdapterKind.LORA


def _shown(wanted: AdapterRequest, filename: str, source: Source) -> str:
    """The name of an adapter in views: the caller's, its file's, or its repository's."""
    stem = filename.rpartition(".")[0]
    own = source.repo_id.rpartition("/")[2] if stem in _NO_NAMES or not stem else stem
    return wanted.name or own


def _repository(repo: Repo, wanted: AdapterRequest, source: Source) -> Repo | None:
    reference = Reference(repo_id=source.repo_id, role=ADAPTER, revision=source.revision)
    return companion(repo, reference, where=wanted.where)


def file_of(repo: Repo, source: Source, where: str) -> str:
    """The path of the one file that a caller means.

    Args:
        where: the argument that names it, for errors.

    Raises:
        NoWeightsError: there is none.
        UnsupportedRepoError: there are several.
    """
    folder = join(repo.root, source.subfolder) if source.subfolder else repo.root
    if source.filename:
        if found := repo.existing(folder, source.filename):
            return found[0]
        raise NoWeightsError(
            f"{where}: {quote(repo.repo_id)} has no file "
            f"{quote(join(source.subfolder, source.filename))}.",
            hint=_near(repo, source.filename),
        )
    if found := repo.existing(folder, *_LORA[:1], *_WORDS[:1]):
        return found[0]
    names = repo.names(folder)
    for ends in ((".safetensors",), (".bin", ".pt")):
        meant = [
            name
            for name in names
            if name.endswith(ends) and not any(each in name for each in _NOT_MEANT)
        ]
        usual = [name for name in meant if name in (*_LORA, *_WORDS)]
        if len(usual or meant) == 1:
            return repo.existing(folder, *(usual or meant))[0]
        if meant:
            raise UnsupportedRepoError(
                f"{where}: {quote(repo.repo_id)} has {len(meant)} files that may be meant.",
                hint=f"Name the file, such as {_line(repo, source, meant[0])}. There are "
                f"{_listed(meant)}.",
            )
    raise NoWeightsError(
        f"{where}: {quote(repo.repo_id)} has no adapter"
        f"{f' in {quote(source.subfolder)}' if source.subfolder else ' in its root'}.",
        hint=_near(repo, "pytorch_lora_weights.safetensors"),
    )


def _line(repo: Repo, source: Source, name: str) -> str:
    return quote("/".join(filter(None, (repo.repo_id, source.subfolder, name))))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(map(quote, names[:_MAX_NAMED])) + (f" and {more} more" if more > 0 else "")


def _near(repo: Repo, name: str) -> str:
    """Name files that may be meant."""
    all_of_them = sorted(
        path.removeprefix(repo.root)
        for path in repo.paths
        if path.endswith((".safetensors", ".bin", ".pt"))
    )
    near = difflib.get_close_matches(name, all_of_them, n=3, cutoff=0.5) or all_of_them
    return f"It has {_listed(near)}." if near else "Look at its files on the Hub."


# -- image encoders of IP-Adapters -----------------------------------------------------------------


def _image_encoder(
    repo: Repo, components: Sequence[Component], wanted: AdapterRequest
) -> str | None:
    """The folder of the image encoder to load; None where the pipeline has one, or none is
    wanted."""
    there = {part.argument or part.name for part in components} | repo.handed_in
    return None if _IMAGE_ENCODER in there else wanted.image_encoder


def _encoder_files(repo: Repo, folder: str, encoder: str, wanted: AdapterRequest) -> list[str]:
    """Its configuration and weights; `load_ip_adapter` looks beside the file for a bare name."""
    place = join(repo.root, encoder) if "/" in encoder else join(folder, encoder)
    config = repo.existing(place, "config.json")
    weights = find_weights(repo, place, TRANSFORMERS, None)
    if weights is None or not config:
        raise UnsupportedRepoError(
            f"{wanted.where}: {quote(repo.repo_id)} has no image encoder in "
            f"{quote(place.removeprefix(repo.root))}.",
            hint="Name its folder in the repository "
            '({"image_encoder_folder": "models/image_encoder", ...}), or pass None there to '
            "load the adapter without one.",
        )
    return [*config, *weights.paths]


# -- models of transformers ------------------------------------------------------------------------


def _peft(repo: Repo, wanted: AdapterRequest) -> _Made | None:
    """An adapter of PEFT, which `load_adapter` of transformers takes as a folder."""
    choice = ChosenAdapter(
        component="",
        kind=AdapterKind.LORA,
        path=wanted.path,
        repo_id="",
        folder=wanted.path,
        filename="",
        name=wanted.name,
    )
    if wanted.scale is not None:
        raise UnsupportedRepoError(
            f"{wanted.where}: adapters of PEFT have no scale when they are loaded.",
            hint="Leave out `scale`; PEFT scales the layers of a model that is loaded.",
        )
    if wanted.source is None:
        return None, choice
    other = _repository(repo, wanted, wanted.source)
    if other is None:
        return None
    inner = wanted.source.subfolder
    folder = join(other.root, inner) if inner else other.root
    part = adapter(other, folder)
    if part is None:
        raise UnsupportedRepoError(
            f"{wanted.where}: {quote(other.repo_id)} has no {ADAPTER_CONFIG}"
            f"{f' in {quote(inner)}' if inner else ''}, and this is a model of transformers.",
            hint="Name a folder of an adapter of PEFT, or the pipeline that the adapter is for.",
        )
    if not part.weights:
        raise no_weights(other, folder)
    shown = wanted.name or (inner or other.repo_id).rpartition("/")[2]
    part = replace(
        part,
        name=f"{ADAPTER_COMPONENT} {shown}",
        library=None,
        repo_id=other.repo_id,
        folder=inner,
    )
    return part, replace(
        choice,
        component=part.name,
        path=part.weights[0],
        repo_id=other.repo_id,
        folder=inner,
    )
