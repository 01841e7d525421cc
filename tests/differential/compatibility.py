"""The page that says what was compared, and with which versions. Pure, but for `versions`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["PARTS", "page", "versions"]

PARTS = ("newest", "oldest")
"""Of the page, each with versions of its own."""

_TITLES = {
    "newest": "## The versions of constraints.txt",
    "oldest": "## The oldest versions that are allowed",
}

_HEAD = """\
# What was compared

Written by the tests (`make test-models`, `make test-library-versions`), not by hand.

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


def page(
    old: str, part: str, versions: Mapping[str, str], outcomes: Sequence[Mapping[str, Any]]
) -> str:
    """Return the page with one part written anew and the other as it is.

    Args:
        old: the page as it was; empty if there was none.
        outcomes: as `harness.Outcome` has them, without differences.
    """
    parts = {name: _cut(old, title) for name, title in _TITLES.items()}
    parts[part] = f"{_TITLES[part]}\n\n{_part(versions, outcomes)}"
    return "\n".join([_HEAD, *(text for text in parts.values() if text)])


def _cut(old: str, title: str) -> str:
    """Take a part out of a page, up to the next."""
    _, found, rest = old.partition(f"{title}\n")
    if not found:
        return ""
    for other in _TITLES.values():
        rest = rest.partition(f"\n{other}\n")[0]
    return f"{title}\n{rest.rstrip()}\n"


def _part(versions: Mapping[str, str], outcomes: Sequence[Mapping[str, Any]]) -> str:
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
