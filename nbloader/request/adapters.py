"""What a call says of adapters: `adapters`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbloader.errors import InvalidArgumentError
from nbloader.records import AdapterRequest, Source
from nbloader.request.places import check_inner, read_part
from nbloader.text import quote, quote_path

_FILES = (".safetensors", ".bin", ".pt")
_KEYS = (
    "repo_id",
    "weight_name",
    "subfolder",
    "adapter_name",
    "scale",
    "revision",
    "image_encoder_folder",
    "token",
)
_OF_A_PLACE = ("repo_id", "revision", "subfolder", "weight_name")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_TOKEN = 64
_SAMPLE = '"org/name", "org/name/file.safetensors" or {"repo_id": "org/name", "scale": 0.8}'
# What the libraries leave beside the weights, and the one name that each looks for first.
_USUAL = ("pytorch_lora_weights.safetensors", "learned_embeds.safetensors")
_CONFIG = "adapter_config.json"
_MAIN = "main"
"""What is meant where no revision is named."""


def read_adapters(given: object, *, endpoint: str | None) -> tuple[AdapterRequest, ...]:
    """Read `adapters`: a place, or a mapping with one and how it is put in, or several in a list.

    Args:
        endpoint: the address of the Hub that will be asked; None for huggingface.co.

    Raises:
        InvalidArgumentError: one of them can be no adapter, or two have one name.
    """
    if given is None:
        return ()
    several = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
    wanted = list(given) if isinstance(given, Sequence) and several else [given]
    if not wanted:
        raise InvalidArgumentError("adapters=[] names no adapter", hint="Leave it out.")
    read = tuple(
        _read(f"adapters[{number}]" if several else "adapters", one, endpoint)
        for number, one in enumerate(wanted)
    )
    for number, one in enumerate(read):
        for before in read[:number]:
            if one.name and one.name == before.name:
                raise InvalidArgumentError(
                    f"adapters= has two with the name {quote(one.name)}",
                    hint="Give each of them an adapter_name of its own.",
                )
            if (one.source, one.path) == (before.source, before.path):
                raise InvalidArgumentError(
                    f"{before.where} and {one.where} are the same",
                    hint="Name it once, with a scale if it is to count more.",
                )
    return read


def _read(where: str, given: object, endpoint: str | None) -> AdapterRequest:
    mapping: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"repo_id": given}
    if unknown := [key for key in mapping if key not in _KEYS]:
        raise InvalidArgumentError(
            f"{where}: an adapter has no {quote(str(unknown[0]))}",
            hint=f"It has {', '.join(_KEYS)}.",
        )
    named = mapping.get("repo_id")
    if not isinstance(named, (str, os.PathLike)) or not os.fspath(named):
        raise InvalidArgumentError(
            f"{where}: {quote(given)} names no adapter", hint=f"Pass {_SAMPLE}."
        )
    said = {key: mapping[key] for key in _OF_A_PLACE if key in mapping}
    place = read_part(where, said, endpoint=endpoint, file="weight_name")
    path = root = ""
    source = None
    if place.folder is not None:
        root = place.folder.path
        path = _on_this_machine(where, Path(root, place.subfolder), place.filename)
    else:
        source = Source(
            repo_id=place.repo_id,
            revision=None if place.revision == _MAIN else place.revision,
            subfolder=place.subfolder,
            filename=place.filename,
        )
    return AdapterRequest(
        where=where,
        source=source,
        path=path,
        root=root,
        name=_name(where, mapping.get("adapter_name")),
        scale=_scale(where, mapping.get("scale")),
        image_encoder=_image_encoder(where, mapping),
        token=_token(where, mapping.get("token")),
    )


# -- on this machine -------------------------------------------------------------------------------


def _on_this_machine(where: str, folder: Path, name: str) -> str:
    """Return the file that is meant in a folder, or the folder itself, if it is one of PEFT."""
    if not folder.is_dir():
        raise InvalidArgumentError(
            f"{where}: there is no folder {quote_path(folder)}", hint="Check the subfolder."
        )
    if name:
        file = folder / name
        if not file.is_file():
            raise InvalidArgumentError(
                f"{where}: {quote_path(folder)} has no file {quote(name)}",
                hint=f"It has {_listed(folder)}.",
            )
        return str(file)
    if (folder / _CONFIG).is_file():
        return str(folder)
    found = [folder / name for name in _USUAL if (folder / name).is_file()] or sorted(
        path for path in folder.iterdir() if path.name.endswith(_FILES)
    )
    if len(found) != 1:
        what = "several files that may be meant" if found else "no adapter"
        raise InvalidArgumentError(
            f"{where}: {quote_path(folder)} has {what}",
            hint=f"Name the file (weight_name). There are {_listed(folder)}."
            if found
            else "Pass the path of its file.",
        )
    return str(found[0])


def _listed(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(_FILES))
    return ", ".join(map(quote, names[:8])) or "none"


# -- how it is put in ------------------------------------------------------------------------------


def _name(where: str, given: object) -> str:
    if given is None:
        return ""
    if isinstance(given, str) and _NAME.fullmatch(given):
        return given
    raise InvalidArgumentError(
        f"{where}: adapter_name={quote(given)} can be no name of an adapter",
        hint="Use letters, digits, _ and -: it becomes the name of a part of the model.",
    )


def _scale(where: str, given: object) -> float | None:
    if given is None:
        return None
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if isinstance(given, (int, float)) and is_number and _is_finite(given):
        return float(given)
    raise InvalidArgumentError(
        f"{where}: scale={quote(given)} is not a {'finite ' if is_number else ''}number",
        hint="Pass a number such as 0.8. Scales for single blocks are set on the pipeline: "
        "pipe.set_adapters(...), pipe.set_ip_adapter_scale(...).",
    )


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # of a huge int
        return False


def _image_encoder(where: str, mapping: Mapping[str, Any]) -> str | None:
    if "image_encoder_folder" not in mapping:
        return "image_encoder"
    folder = mapping["image_encoder_folder"]
    if folder is None:
        return None
    return check_inner(f"{where}: image_encoder_folder", folder) or None


def _token(where: str, given: object) -> str:
    if given is None:
        return ""
    if isinstance(given, str) and 0 < len(given.strip()) <= _MAX_TOKEN and given.isprintable():
        return given
    raise InvalidArgumentError(
        f"{where}: token={quote(given)} is no word for a prompt",
        hint='Pass a word that prompts do not have otherwise, such as "<cat-toy>".',
    )
