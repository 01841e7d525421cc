"""The page that says what was compared and run, with which versions. Pure, but for `versions`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["PARTS", "PLACES", "compared", "page", "places", "versions"]

PARTS = ("newest", "oldest")
"""Of the page, what was compared, each with versions of its own."""

PLACES = "places"
"""Of the page, what was run with the versions of other places."""

_TITLES = {
    "newest": "## The versions of constraints.txt",
    "oldest": "## The oldest versions that are allowed",
    PLACES: "## Where notebooks run",
}

_HEAD = """\
# What was compared

Written by the tests (`make test-models`, `make test-library-versions`, `make test-compat`), not by
hand.

Each case is a tiny model with random numbers of a fixed seed. It is published on a Hub of this
machine, loaded with `nbloader.load` and with the library's own call, and compared: class, every
tensor bit for bit with dtype, device, tying and `requires_grad`, mode and hooks, configurations,
tokenizers, processors, schedulers, prompts, and the output of one seeded call. What the library
cannot load has to be refused by name, and `nbloader.preflight` has to foresee it. All on a CPU.
"""

_PACKAGES = (
    "torch",
    "transformers",
    "diffusers",
    "sentence-transformers",
    "huggingface_hub",
    "accelerate",
    "peft",
    "timm",
    "tokenizers",
    "safetensors",
)


def versions() -> dict[str, str]:
    """Return the versions of the packages here that matter; without what names a build."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def page(old: str, part: str, text: str) -> str:
    """Return the page with one part written anew and the others as they are.

    Args:
        old: the page as it was; empty if there was none.
        part: one of `PARTS`, or `PLACES`.
        text: what stands below its title.
    """
    parts = {name: _cut(old, title) for name, title in _TITLES.items()}
    parts[part] = f"{_TITLES[part]}\n\n{text}"
    return "\n".join([_HEAD, *(text for text in parts.values() if text)])


def _cut(old: str, title: str) -> str:
    """Take a part out of a page, up to the next."""
    _, found, rest = old.partition(f"{title}\n")
    if not found:
        return ""
    for other in _TITLES.values():
        rest = rest.partition(f"\n{other}\n")[0]
    return f"{title}\n{rest.rstrip()}\n"


def compared(versions: Mapping[str, str], outcomes: Sequence[Mapping[str, Any]]) -> str:
    """Say what was compared.

    Args:
        outcomes: as `harness.Outcome` has them, without differences.
    """
    kinds = sorted({str(outcome["kind"]) for outcome in outcomes})
    lines = [
        ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        "",
        "| Library | Loaded and compared | With a call | Classes | Refused, as it has to be | "
        "Differences |",
        "|---|---|---|---|---|---|",
    ]
    for kind in kinds:
        found = [outcome for outcome in outcomes if outcome["kind"] == kind]
        loaded = [outcome for outcome in found if outcome["made"]]
        lines.append(
            f"| {kind} | {len(loaded)} | {sum(bool(each['called']) for each in loaded)} | "
            f"{len({each['made'] for each in loaded})} | {len(found) - len(loaded)} | none |"
        )
    for kind in kinds:
        groups = Counter(each["group"] for each in outcomes if each["kind"] == kind)
        named = ", ".join(
            f"{group} ({count})" if count > 1 else group for group, count in sorted(groups.items())
        )
        lines += ["", f"**{kind}**: {named}."]
    return "\n".join(lines) + "\n"


_PLACES = """\
Environments with a Python and versions of their own, made by `make test-compat`. In each: the demo,
the tutorials as a batch run, models compared as above, all views, and front ends by their variables
and the modules of their secrets. torch is a build of the index; the hosted services have builds for
their drivers.
"""

_SHOWN = {
    "ipywidgets": "ipywidgets",
    "huggingface-hub": "huggingface_hub",
    "hf-xet": "hf-xet",
    "transformers": "transformers",
    "diffusers": "diffusers",
    "sentence-transformers": "sentence-transformers",
    "torch": "torch",
}


def places(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what was run where.

    Args:
        rows: as tests/compat gathers them, of environments in which everything was right.
    """
    columns = {
        "Environment": [row["name"] for row in rows],
        "Python": [row["versions"]["python"].rpartition(".")[0] for row in rows],
        **{
            title: [row["versions"][name].partition("+")[0] for row in rows]
            for name, title in _SHOWN.items()
        },
        "Changed by installing nbloader": [", ".join(row["changed"]) or "nothing" for row in rows],
        "Demo": ["runs" for _ in rows],
        "Tutorials": [f"{row['tutorials']} run" for row in rows],
        "Models": [f"{row['models']} the same, {row['refused']} refused" for row in rows],
        "Views, front ends": ["pass" for _ in rows],
    }
    # A row for each thing: there are more things than environments.
    names, *things = columns.items()
    lines = [["", *names[1]], ["---"] * (len(rows) + 1)]
    lines += [[title, *cells] for title, cells in things]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{_PLACES}\n{table}\n"
