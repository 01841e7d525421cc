"""The installed build of torch, read from its files: importing it takes seconds."""

from __future__ import annotations

import ast
import mmap
import re
from pathlib import Path

from nbloader.libraries import package_folder
from nbloader.records import TorchFacts

_VERSION_FILE_BYTES = 65_536
_LIBRARIES = ("libtorch_python.so", "torch_python.dll")
"""What holds the list that `torch.cuda.get_arch_list()` gives. A Mac's build has none."""

_ARCH = rb"(?:sm|compute)_\d{2,3}[af]?"
_ARCH_LIST = re.compile(rb"%s(?: %s)*\0" % (_ARCH, _ARCH))
_LONGEST = 64
"""Bytes of PTX (`compute_..`) that may stand in a list before the first machine code."""


def torch_facts(folder: Path | None = None) -> TorchFacts | None:
    """Read version, CUDA and kernels of the installed torch; None if there is none.

    Args:
        folder: of the package; None to look where Python would import it from.
    """
    folder = folder or package_folder("torch")
    if folder is None or not folder.is_dir():
        return None
    values = _assigned(folder / "version.py")
    version, cuda = values.get("__version__"), _version_of_cuda(values.get("cuda"))
    return TorchFacts(
        version=version or "?",
        cuda=cuda,
        archs=_archs(folder / "lib") if cuda else None,
        hip=bool(values.get("hip")),
    )


def _assigned(file: Path) -> dict[str, str]:
    """Give the names that a module of Python sets to a text, without running it."""
    try:
        with file.open("rb") as content:
            tree = ast.parse(content.read(_VERSION_FILE_BYTES))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets: list[ast.expr] = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= {t.id: node.value.value for t in targets if isinstance(t, ast.Name)}
    return found


def _version_of_cuda(text: str | None) -> tuple[int, int] | None:
    parts = re.match(r"(\d{1,3})\.(\d{1,3})", text or "")
    return (int(parts[1]), int(parts[2])) if parts else None


def _archs(folder: Path) -> tuple[str, ...] | None:
    """Find the list of architectures in the library, where it is a text of its own."""
    for name in _LIBRARIES:
        try:
            with (
                (folder / name).open("rb") as library,
                mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                return _arch_list(content)
        except (OSError, ValueError):  # not there, or empty
            continue
    return None


def _arch_list(content: mmap.mmap) -> tuple[str, ...] | None:
    longest = b""
    # Plain bytes are searched for, because a regular expression takes ten times as long.
    at = content.find(b"sm_")
    while at >= 0:
        start = content.rfind(b"\0", max(0, at - _LONGEST), at) + 1
        found = _ARCH_LIST.match(content, start)
        if found and len(found[0]) > len(longest):
            longest = found[0]
        at = content.find(b"sm_", max(at + 1, found.end() if found else 0))
    return tuple(longest[:-1].decode("ascii").split()) or None
