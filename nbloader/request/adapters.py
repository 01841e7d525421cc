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
from nbloader.request.parts import check_inner, read_source
from nbloader.text import quote

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
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_TOKEN = 64
_SAMPLE = '"org/name", "org/name/file.safetensors" or {"repo_id": "org/name", "scale": 0.8}'
# What the libraries leave beside the weights, and the one name that each looks for first.
_USUAL = ("pytorch_lora_weights.safetensors", "learned_embeds.safetensors")
_CONFIG = "adapter_config.json"
_MAIN = "main"
"""What is meant where no revision is named."""


def read_adapters(given: object) -> tuple[AdapterRequest, ...]:
    """Read `adapters`: a place, or a mapping with one and how it is put in, or several in a list.

    A place is a text as those of `components`, or a path of this machine.

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
        _read(f"adapters[{number}]" if several else "adapters", one)
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


def _read(where: str, given: object) -> AdapterRequest:
    mapping: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"repo_id": given}
    if unknown := [key for key in mapping if key not in _KEYS]:
        raise InvalidArgumentError(
            f"{where}: an adapter has no {quote(str(unknown[0]))}",
            hint=f"It has {', '.join(_KEYS)}.",
        )
    place = mapping.get("repo_id")
    if not isinstance(place, (str, os.PathLike)) or not os.fspath(place):
        raise InvalidArgumentError(
            f"{where}: {quote(given)} names no adapter", hint=f"Pass {_SAMPLE}."
        )
    texts = {
        key: _text(where, key, mapping.get(key)) for key in ("weight_name", "subfolder", "revision")
    }
    path = root = ""
    source = None
    if _is_local(place):
        path, root = _on_this_machine(where, Path(place).expanduser(), texts)
    else:
        source = _on_the_hub(where, os.fspath(place), texts)
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


def _text(where: str, key: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise InvalidArgumentError(
        f"{where}: {key}={quote(value)} is not a text", hint=f'Pass {{"{key}": "..."}}.'
    )


def _on_the_hub(where: str, place: str, texts: Mapping[str, str]) -> Source:
    source = read_source(where, place)
    inner, name, revision = texts["subfolder"], texts["weight_name"], texts["revision"]
    for key, said, once_more in (
        ("subfolder", source.subfolder, inner),
        ("weight_name", source.filename, name),
        ("revision", source.revision, revision),
    ):
        if said and once_more and said != once_more:
            raise InvalidArgumentError(
                f"{where}: {key}={quote(once_more)} is not the one of {quote(place)}",
                hint="Leave one of the two out.",
            )
    folder, _, filename = check_inner(where, name or source.filename).rpartition("/")
    subfolder = check_inner(where, inner or source.subfolder)
    return read_source(
        where,
        {
            "repo_id": source.repo_id,
            "revision": None
            if _MAIN in (revision, source.revision)
            else revision or source.revision,
            "subfolder": "/".join(filter(None, (subfolder, folder))),
            "filename": filename,
        },
    )


# -- on this machine -------------------------------------------------------------------------------


def _is_local(place: str | os.PathLike[str]) -> bool:
    """Say whether a place is one of this machine: a path that cannot be an id, or that is there."""
    if isinstance(place, os.PathLike):
        return True
    starts = (".", "~", "/", "\\")
    return place.startswith(starts) or Path(place).is_absolute() or Path(place).is_file()


def _on_this_machine(where: str, place: Path, texts: Mapping[str, str]) -> tuple[str, str]:
    """Return the file, or the folder of one of PEFT, and where it was looked for."""
    root = place.absolute()
    if root.is_file():
        return str(root), str(root.parent)
    folder = root.joinpath(*texts["subfolder"].split("/")) if texts["subfolder"] else root
    if not folder.is_dir():
        raise InvalidArgumentError(
            f"{where}: there is nothing at {quote(str(folder))}",
            hint="Pass the path of a file or of a folder, or the id of a repository of the Hub.",
        )
    if texts["weight_name"]:
        file = folder / texts["weight_name"]
        if not file.is_file():
            raise InvalidArgumentError(
                f"{where}: {quote(str(folder))} has no file {quote(texts['weight_name'])}",
                hint=f"It has {_listed(folder)}.",
            )
        return str(file), str(root)
    if (folder / _CONFIG).is_file():
        return str(folder), str(root)
    found = [folder / name for name in _USUAL if (folder / name).is_file()] or sorted(
        path for path in folder.iterdir() if path.name.endswith(_FILES)
    )
    if len(found) != 1:
        what = "several files that may be meant" if found else "no adapter"
        raise InvalidArgumentError(
            f"{where}: {quote(str(folder))} has {what}",
            hint=f"Name the file (weight_name). There are {_listed(folder)}."
            if found
            else "Pass the path of its file.",
        )
    return str(found[0]), str(root)


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
