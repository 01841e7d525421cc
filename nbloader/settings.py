"""What can be tuned, and where it may be written.

Arguments > environment > `nbloader.yaml` > `config.yaml` > `[tool.nbloader]` > defaults.

The files are looked for in the working folder. `nbloader.yaml` and `config.yaml` hold the keys
under `download:`; in `pyproject.toml` they stand under `[tool.nbloader]`. A `config.yaml` belongs
to others too, so its `download:` mapping is read only if a key there is ours, and foreign keys in
it are left alone unless one looks like a misspelling of ours.

Whoever cloned a repository has its files in the working folder. So they are read as foreign ones:
regular files of a few kilobytes, without aliases, and nothing of what a link leads to is quoted.

`endpoint`, `token` and `trust_remote_code` are arguments of the call and never settings: a foreign
file in the working folder could otherwise send the token away.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from nbloader.errors import InvalidSettingError
from nbloader.records import Route, TransferPolicy
from nbloader.small_files import read_small

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["Settings", "bounds"]

_ENV_PREFIX = "NBLOADER_"
_DAY_S = 86_400

_COMMON = frozenset({"timeout", "route"})
"""Keys that any program may use: by themselves they do not make a `download:` mapping ours."""

_SIGNS = (("ge", "from"), ("gt", "over"), ("le", "to"), ("lt", "under"))
"""The bounds of pydantic's fields, and how they are told."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""That of the C library where PyYAML was built with it: ten times as fast."""

_MOST_BYTES = 64 * 1024
"""Of a file of ours; a hundred times what all keys take."""

_MOST_SHARED_BYTES = 256 * 1024
"""Of one that holds other things, too."""

_DEEPEST = 16
"""Levels of YAML, and parts of a key of TOML. Both parsers take the square of their number: two
brackets or one dot again and again, in 64 KB, keep them busy for minutes."""

_KEY = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_DEEP_KEY = re.compile(rf"(?<![\w-])(?:{_KEY}){{{_DEEPEST}}}")

_WORKS = "A file that works:\n\n    download:\n      max_retries: 5\n"


class Settings(BaseSettings):
    """What can be tuned. Every field can be set in the environment, as `NBLOADER_MAX_RETRIES=3`.

    The unit of a field stands in its `json_schema_extra`.

    Raises:
        InvalidSettingError: a key is unknown or a value is not allowed; the text names the place.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=_ENV_PREFIX, extra="forbid", frozen=True
    )

    max_retries: int = Field(
        5,
        ge=1,
        le=100,
        json_schema_extra={"unit": "attempts"},
        description="Attempts in a row that may bring nothing, for each file or call.",
    )
    retry_delay_min: float = Field(
        5.0,
        ge=0,
        le=3600,
        json_schema_extra={"unit": "seconds"},
        description="Seconds before the second attempt; doubles from there.",
    )
    retry_delay_max: float = Field(
        60.0,
        ge=0,
        le=3600,
        json_schema_extra={"unit": "seconds"},
        description="The longest wait between two attempts, in seconds.",
    )
    timeout: float = Field(
        300.0,
        gt=0,
        le=_DAY_S,
        json_schema_extra={"unit": "seconds"},
        description="The longest that a file may make no progress over all its attempts, in "
        "seconds.",
    )
    large_file_timeout: float = Field(
        1800.0,
        gt=0,
        le=_DAY_S,
        json_schema_extra={"unit": "seconds"},
        description="The same for files over 10 GB, in seconds.",
    )
    stall_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        json_schema_extra={"unit": "seconds"},
        description="A connection that brings nothing for so many seconds is given up.",
    )
    min_speed: float = Field(
        10_000.0,
        ge=0,
        json_schema_extra={"unit": "bytes per second"},
        description="A connection that is slower than this over that time is given up, too, in "
        "bytes per second.",
    )
    route: Literal["auto", "http", "xet"] = Field(
        "auto", description="The way of the bytes: auto measures which is faster."
    )
    max_workers: int = Field(
        4,
        ge=1,
        le=32,
        json_schema_extra={"unit": "files"},
        description="Files downloaded at the same time.",
    )
    check_network: bool = Field(
        True, description="Check that the Hub answers within 5 s before anything is fetched."
    )
    check_disk_space: bool = Field(
        True, description="Check the free space on the disk of the cache before the download."
    )
    required_disk_space_gb: float | None = Field(
        None,
        ge=0,
        json_schema_extra={"unit": "GB"},
        description="Free space to ask for, in GB (10^9 bytes); unset, the exact missing bytes.",
    )
    show_download_speed: bool = Field(True, description="Show the speed of the download.")
    show_eta: bool = Field(True, description="Show the time left.")

    def __init__(self, **values: Any) -> None:
        _reject_unknown_variables(os.environ)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explain(error, values) from None

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Settings:
        if self.retry_delay_min > self.retry_delay_max:
            raise ValueError(
                f"retry_delay_min ({self.retry_delay_min:g}) is above retry_delay_max "
                f"({self.retry_delay_max:g})"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the files of the working folder behind arguments and environment."""
        del dotenv_settings, file_secret_settings
        files = (InitSettingsSource(settings_cls, found.values) for found in _files())
        return (init_settings, env_settings, *files)

    def policy(self) -> TransferPolicy:
        """Return the part of the settings that the worker needs."""
        return TransferPolicy(
            max_retries=self.max_retries,
            retry_delay_min_s=self.retry_delay_min,
            retry_delay_max_s=self.retry_delay_max,
            timeout_s=self.timeout,
            large_file_timeout_s=self.large_file_timeout,
            stall_timeout_s=self.stall_timeout_s,
            min_speed=self.min_speed,
            route=None if self.route == "auto" else Route(self.route),
            check_disk_space=self.check_disk_space,
            max_workers=self.max_workers,
            answer_timeout_s=5.0 if self.check_network else 60.0,
        )


def _reject_unknown_variables(environ: Mapping[str, str]) -> None:
    """Find misspelled variables, which pydantic-settings passes over."""
    for variable in environ:
        key = variable.upper().removeprefix(_ENV_PREFIX).lower()
        if variable.upper().startswith(_ENV_PREFIX) and key not in Settings.model_fields:
            near = _nearest(key)
            known = ", ".join(_ENV_PREFIX + name.upper() for name in Settings.model_fields)
            raise InvalidSettingError(
                f"environment variable {variable[:80]} is not one that nbloader knows",
                hint=f"Did you mean {_ENV_PREFIX}{near.upper()}?" if near else f"Known: {known}.",
            )


@dataclass(frozen=True)
class _Found:
    """The values that one file holds.

    Attributes:
        linked: whether it is a link. It may lead to a secret, of which no error shows anything.
    """

    place: str
    values: dict[str, Any]
    linked: bool


def _files() -> list[_Found]:
    """Read the files of the working folder that may hold settings, strongest first.

    A working folder that was removed, or may not be entered, has none.
    """
    found = []
    for name, section, most in (
        ("nbloader.yaml", _own_yaml, _MOST_BYTES),
        ("config.yaml", _shared_yaml, _MOST_BYTES),
        ("pyproject.toml", _pyproject, _MOST_SHARED_BYTES),
    ):
        try:
            linked = stat.S_ISLNK(os.lstat(name).st_mode)
        except OSError:
            continue
        try:
            text = read_small(name, most).decode("utf-8-sig")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            if name != "nbloader.yaml":
                continue  # Not ours to complain about.
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise InvalidSettingError(
                f"{name} cannot be read: {why}", hint=f"Mend or remove {_absolute(name)}."
            ) from None
        try:
            values = section(text)
        except InvalidSettingError:
            if linked:
                raise InvalidSettingError(
                    f"{name} is a link to a file that holds no settings",
                    hint=f"Remove {_absolute(name)}. {_WORKS}",
                ) from None
            raise
        if values:
            found.append(_Found(name, values, linked))
    return found


def _absolute(name: str) -> str:
    return os.path.abspath(name)  # noqa: PTH100 - it is not to follow the link


def _mapping(value: object) -> dict[str, Any] | None:
    """Return `value` if it is a mapping from text."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return value
    return None


class _RefusedError(yaml.YAMLError):
    """YAML that is not taken, whatever it says.

    Args:
        why: as the rest of a sentence about the file.
    """

    def __init__(self, why: str, mark: object) -> None:
        self.why = why
        self.problem_mark = mark


def _load(text: str) -> object:
    """Read YAML.

    Aliases are refused: with some hundred bytes of them a file names more than memory holds.

    Raises:
        Exception: it is not valid. The library raises a dozen kinds: a date that does not exist is
            a bare ValueError, a number that is too large an OverflowError.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise _RefusedError("has an alias", event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise _RefusedError("is nested too deeply", event.start_mark)
    return yaml.load(text, Loader=_LOADER)  # noqa: S506 - it is a safe one


def _where(error: Exception) -> str:
    """Say in which line YAML is wrong, without a word of it."""
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f": line {mark.line + 1}, column {mark.column + 1}"


def _own_yaml(text: str) -> dict[str, Any]:
    try:
        document = _load(text)
    except Exception as error:
        what = error.why if isinstance(error, _RefusedError) else "is not valid YAML"
        raise InvalidSettingError(f"nbloader.yaml {what}{_where(error)}", hint=_WORKS) from None
    if document is None:
        return {}
    sections = _mapping(document)
    if sections is None or set(sections) - {"download"}:
        wrong = ", ".join(sorted(set(sections) - {"download"})) if sections else "no mapping"
        raise InvalidSettingError(
            f"nbloader.yaml may hold only the section `download:`, but has: {wrong[:200]}",
            hint="Put the keys under `download:`:\n\n    download:\n      max_retries: 5\n",
        )
    section = sections["download"]
    values = {} if section is None else _mapping(section)
    if values is None:
        raise InvalidSettingError(
            "nbloader.yaml: `download:` must be a mapping of keys to values", hint=_WORKS
        )
    return values


def _shared_yaml(text: str) -> dict[str, Any]:
    if not any(key in text for key in Settings.model_fields if key not in _COMMON):
        return {}  # It is another program's, and need not be parsed.
    try:
        document = _mapping(_load(text))
    except Exception:  # It is another program's.
        return {}
    values = _mapping(document.get("download")) if document else None
    if not values or not set(values) & (set(Settings.model_fields) - _COMMON):
        return {}
    return {
        key: value for key, value in values.items() if key in Settings.model_fields or _nearest(key)
    }


def _pyproject(text: str) -> dict[str, Any]:
    if "nbloader" not in text or _DEEP_KEY.search(text):
        return {}
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}
    tool = document.get("tool")
    return (_mapping(tool.get("nbloader")) if isinstance(tool, dict) else None) or {}


def _nearest(key: str) -> str | None:
    return next(iter(difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.8)), None)


def _place(key: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
    """Name the source that a value came from, and say whether it is a link."""
    if key in arguments:
        return "settings", False
    variable = _ENV_PREFIX + key.upper()
    if any(name.upper() == variable for name in os.environ):
        return f"environment variable {variable}", False
    for found in _files():
        if key in found.values:
            return found.place, found.linked
    return "settings", False


def _shown(value: object) -> str:
    """Write a value for an error: of a structure its kind alone, however large it is."""
    if not isinstance(value, str | int | float | bool | None):
        return f"a {type(value).__name__}"
    try:
        return repr(value[:80] if isinstance(value, str) else value)[:80]
    except ValueError:  # Python writes no number of thousands of digits.
        return "a number of thousands of digits"


def bounds(field: FieldInfo) -> str:
    """Say which numbers a setting takes; empty where it takes none, or all."""
    words = [
        f"{word} {getattr(bound, sign):,g}"
        for sign, word in _SIGNS
        for bound in field.metadata
        if hasattr(bound, sign)
    ]
    return " ".join(words)


def _taken(field: FieldInfo) -> str:
    """Say what a setting takes."""
    kinds = {int: "a whole number", float: "a number", bool: "true or false"}
    kind = field.annotation if field.annotation in kinds else float
    if names := [each for each in get_args(field.annotation) if isinstance(each, str)]:
        return f"one of {', '.join(names)}"
    return " ".join(filter(None, (kinds[kind], bounds(field))))


def _explain(error: ValidationError, arguments: Mapping[str, Any]) -> InvalidSettingError:
    """Turn pydantic's findings into one text with place, key and what is allowed."""
    lines: list[str] = []
    hints: list[str] = []
    for finding in error.errors(include_url=False):
        key = str(finding["loc"][0]) if finding["loc"] else ""
        place, linked = _place(key, arguments)
        if finding["type"] == "extra_forbidden":
            lines.append(f"{place}: unknown key" + ("" if linked else f" {key[:80]!r}"))
            near = _nearest(key)
            hints.append(
                f"Did you mean {near}?"
                if near
                else f"Known keys: {', '.join(Settings.model_fields)}."
            )
        elif key:
            given = "" if linked else f" = {_shown(finding['input'])}"
            field = Settings.model_fields[key]
            lines.append(f"{place}: {key}{given} is not {_taken(field)}")
            hints.append(f"{key}: {field.description} Default: {field.default}.")
        else:
            lines.append(finding["msg"].removeprefix("Value error, "))
            hints.append("Swap the two values, or leave one out.")
    return InvalidSettingError("; ".join(lines), hint=" ".join(dict.fromkeys(hints)))
