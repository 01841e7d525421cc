"""Arguments that a call does not have: which one was meant, or where it goes."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields

from nbloader.errors import InvalidArgumentError
from nbloader.request.call import OF_DOWNLOAD, Call
from nbloader.text import quote

# Names that other loaders have for what is here called by another.
_MEANT: Mapping[str, str] = {
    "attention_backend": "attention",
    "attn_implementation": "attention",
    "cache_folder": "cache_dir",
    "compute_dtype": "dtype",
    "force_download": "verify",
    "hf_token": "token",
    "mirror": "endpoint",
    "offline": "local_files_only",
    "torch_device": "device",
    "torch_dtype": "dtype",
    "use_auth_token": "token",
}
_IDS = frozenset(
    {"model", "model_id", "model_name", "model_name_or_path", "pretrained_model_name_or_path"}
)
_PLACES: Mapping[str, str] = {
    # Arguments of `from_pretrained` that `pipeline` and SentenceTransformer take for the model.
    "ignore_mismatched_sizes": '{"model_kwargs": {"ignore_mismatched_sizes": ...}}',
    "num_labels": '{"model_kwargs": {"num_labels": ...}}',
}
_SAYS: Mapping[str, str] = {
    "device_map": 'How a model is placed is chosen by plan=, such as plan="multi-gpu"; a map of '
    'your own goes to the library: loader_kwargs={"device_map": ...}.',
    "load_in_4bit": 'Pass plan="4-bit".',
    "load_in_8bit": 'Pass plan="8-bit".',
    "resume_download": "Downloads are always gone on with: leave it out.",
}


def refuse_unknown(call: str, names: Iterable[str], parameters: Collection[str]) -> None:
    """Refuse the first name that a function has no argument of, and say which is meant.

    Args:
        call: the name of the function.
        names: what it was called with.
        parameters: what it takes, `repo_id` among it.

    Raises:
        InvalidArgumentError: there is one.
    """
    for name in names:
        if name not in parameters:
            known = [each for each in parameters if each != "repo_id"]
            raise InvalidArgumentError(
                f"{call} has no argument {quote(name)}", hint=_hint(call, name, known)
            )


def _hint(call: str, name: str, known: Collection[str]) -> str:
    meant = _MEANT.get(name)
    if meant in known:
        return f"It is called {meant} here: nbloader.{call}(..., {meant}=...)."
    if name in _IDS:
        return f'The id stands first, without a name: nbloader.{call}("org/name").'
    if name in OF_DOWNLOAD:
        only = "Only models can be loaded: leave it out. " if name == "repo_type" else ""
        return f'{only}nbloader.download("org/name", {name}=...) takes it, and brings files alone.'
    if name in {each.name for each in fields(Call)}:
        return f"It is one of load, and {call} builds no model: leave it out."
    if name in _SAYS:
        return _SAYS[name]
    if name not in _PLACES and (near := difflib.get_close_matches(name, known, n=1, cutoff=0.75)):
        return f"Is {near[0]} meant? nbloader.{call}(..., {near[0]}=...)."
    if "loader_kwargs" not in known:
        return f"It has these: {', '.join(sorted(known))}."
    place = _PLACES.get(name) or (f'{{"{name}": ...}}' if name.isidentifier() else "{...}")
    return f"An argument of the library's own loader goes there: loader_kwargs={place}."
