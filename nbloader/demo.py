"""The whole path without internet: a local Hub, two models, a table and a picture."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TextIO

from nbloader.errors import MissingPackageError

__all__ = ["run"]

SENTENCES = (
    "A man is playing the guitar on stage.",
    "Someone performs music in front of a crowd.",
    "The stock market fell sharply on Monday.",
    "Shares lost a tenth of their value this week.",
)
PROMPT = "Make the circle blue"
STEPS = 2
SEED = 7


def run(folder: Path, out: TextIO) -> None:
    """Load both demo models into an empty cache, print similarities and edit a picture.

    Args:
        folder: takes the picture; the served repositories are kept in it for the next run.
        out: takes the table and the explanations.

    Raises:
        MissingPackageError: the extra `demo` is not installed.
    """
    try:
        from nbloader.localhub import LocalHub
        from nbloader.localhub.demo import MINILM, QWEN_IMAGE_EDIT, publish

        out.write("Publishing two demo repositories on a local Hub ...\n")
        publish(folder / "hub", [MINILM, QWEN_IMAGE_EDIT])
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"the demo needs the package {error.name}",
            hint='Install it with: pip install "nbloader-hub[demo]"',
        ) from error
    with (
        tempfile.TemporaryDirectory(prefix="nbloader-demo-") as cache,
        LocalHub.start(folder / "hub") as hub,
    ):
        _embeddings(MINILM, hub.endpoint, cache, out)
        _edit(QWEN_IMAGE_EDIT, hub.endpoint, cache, folder, out)


def _embeddings(repo_id: str, endpoint: str, cache: str, out: TextIO) -> None:
    from nbloader.api import load

    out.write(f'\nmodel = nbloader.load("{repo_id}")\n')
    model = load(repo_id, endpoint=endpoint, cache_dir=cache, token=False)
    scores = model.similarity(model.encode(SENTENCES), model.encode(SENTENCES))
    out.write("\nCosine similarity of the sentences:\n")
    for number, (sentence, row) in enumerate(zip(SENTENCES, scores.tolist(), strict=True), 1):
        cells = " ".join(f"{score:5.2f}" for score in row)
        out.write(f"  {number}  {cells}   {sentence}\n")


def _edit(repo_id: str, endpoint: str, cache: str, folder: Path, out: TextIO) -> None:
    from nbloader.api import load
    from nbloader.localhub.demo import example_image

    out.write(f'\npipe = nbloader.load("{repo_id}")\n')
    pipe = load(repo_id, endpoint=endpoint, cache_dir=cache, token=False)
    import torch

    before = example_image()
    pipe.set_progress_bar_config(disable=True)
    after = pipe(
        image=[before],
        prompt=PROMPT,
        height=before.height,
        width=before.width,
        num_inference_steps=STEPS,
        true_cfg_scale=1.0,
        generator=torch.Generator("cpu").manual_seed(SEED),
    ).images[0]
    target = folder / "edited.png"
    after.save(target)
    out.write(
        f'\npipe(image, prompt="{PROMPT}") wrote {target} ({after.width}x{after.height}).\n'
        "The stand-in has random weights, so the picture is noise; the real model edits.\n"
    )
