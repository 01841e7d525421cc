"""Text for people: foreign names made safe to show, and bytes, durations and rates."""

from __future__ import annotations

import math

__all__ = [
    "format_bytes",
    "format_duration",
    "format_share",
    "format_speed",
    "middle",
    "plain",
    "printable",
    "quote",
]

_BYTE_UNITS = ("kB", "MB", "GB", "TB", "PB")


def quote(name: object) -> str:
    """Return a foreign name as a literal: escaped, in quotes, at most about 80 characters."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


def quote_path(path: object) -> str:
    """Return a path of this machine as a literal, whole if that is possible: its end is what was
    looked for, and from a beginning alone nobody can take out the home folder."""
    return middle(repr(str(path)), 300)


def plain(text: str, limit: int = 300) -> str:
    """Make foreign text fit for one line: bounded, printable, with single blanks."""
    text = " ".join(printable(text[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def middle(text: str, limit: int) -> str:
    """Shorten a name in its middle: what tells files of one folder apart stands at the end.

    >>> middle("transformer/diffusion_pytorch_model-00003-of-00004.safetensors", 32)
    'transformer/d…-00004.safetensors'
    """
    if len(text) <= limit:
        return text
    kept = limit - 1
    return f"{text[: kept - kept * 3 // 5]}…{text[-(kept * 3 // 5) :]}"


def printable(text: str) -> str:
    """Return the lines of foreign text, with a blank for every character that cannot be printed.

    Unicode counts as unprintable what steers a terminal or the direction of text, what cannot be
    seen, and halves of surrogate pairs, which JSON can carry and UTF-8 cannot. Whatever breaks a
    line becomes a line feed; one at the end is left out.
    """
    if text.isprintable():
        return text
    return "\n".join(
        "".join(character if character.isprintable() else " " for character in line)
        for line in text.splitlines()
    )


def format_bytes(count: float) -> str:
    """Write a number of bytes with three digits, in powers of 1000 as the Hub's pages do.

    >>> format_bytes(999), format_bytes(90_868_376), format_bytes(57_700_000_000)
    ('999 B', '90.9 MB', '57.7 GB')
    """
    if abs(count) < 999.5:
        return f"{count:.0f} B"
    value = float(count)
    for unit in _BYTE_UNITS:
        value /= 1000
        # 999.95 would be written as "1000.0"; the next unit is the right one from there on.
        if abs(value) < 999.5 or unit == _BYTE_UNITS[-1]:
            digits = 0 if abs(value) >= 99.95 else 1
            return f"{value:.{digits}f} {unit}"
    raise AssertionError("unreachable")


def format_share(there: int, total: int) -> str:
    """Write how many of some bytes are there; a unit that both have once, and all of them once.

    >>> format_share(57_600_000, 94_500_000), format_share(512, 1_000), format_share(9, 9)
    ('57.6 of 94.5 MB', '512 B of 1.0 kB', '9 B')
    """
    part, whole = format_bytes(there), format_bytes(total)
    if there >= total or part == whole:
        return whole
    number, _, unit = part.partition(" ")
    return f"{number if whole.endswith(f' {unit}') else part} of {whole}"


def format_speed(bytes_per_second: float | None) -> str:
    """Write a speed; an unknown one is a dash.

    >>> format_speed(12_300_000), format_speed(None)
    ('12.3 MB/s', '– MB/s')
    """
    if bytes_per_second is None or not math.isfinite(bytes_per_second):
        return "– MB/s"
    return f"{format_bytes(bytes_per_second)}/s"


def format_duration(seconds: float | None) -> str:
    """Write a duration; an unknown one is a dash.

    >>> format_duration(0.42), format_duration(75), format_duration(3_725), format_duration(None)
    ('0.4 s', '1:15', '1:02:05', '–')
    """
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
