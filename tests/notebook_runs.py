"""Run the notebooks against a local Hub, as a batch run does.

`python -m tests.notebook_runs` stores the outputs in the notebooks;
`python -m tests.notebook_runs 01_embeddings` those of the ones that are named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.localhub.demo import (
    MINILM,
    QWEN_IMAGE_EDIT,
    publish,
    repo_folder,
    write_emoji_edit,
    write_missing,
)
from tests.notebook_heads import put_head
from tests.sketches import SKETCHES

__all__ = [
    "NOTEBOOKS",
    "ROOT",
    "as_python",
    "execute",
    "for_one",
    "notebook_environment",
    "serving",
]

ROOT = Path(__file__).parents[1]
NOTEBOOKS = tuple(sorted((ROOT / "notebooks").glob("*.ipynb")))

LINK = Fault(RequestClass.CDN_GET, total_bytes_per_second=40e6)
"""Slow enough for what runs beside a download to be seen."""

RERANKER = "cross-encoder/ms-marco-TinyBERT-L2-v2"

CELL_TIMEOUT_S = 300
MAX_RUN_S = 1800


def notebook_environment(endpoint: str, home: Path) -> dict[str, str]:
    """Return variables for kernels: the Hub at `endpoint`, an empty cache, nothing of this machine.

    Args:
        endpoint: URL of the Hub.
        home: an empty folder for all that the libraries write.
    """
    own = ("HF_", "HUGGING", "TRANSFORMERS_", "NBLOADER_", "SENTENCE_TRANSFORMERS_")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(own)}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "huggingface"),
        "IPYTHONDIR": str(home / "ipython"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "CUDA_VISIBLE_DEVICES": "",  # the stored outputs name the device
    }
    # Done in a cell, it may take long enough for matplotlib to write a notice there.
    subprocess.run(
        [sys.executable, "-c", "import matplotlib.font_manager"],
        check=True,
        env=environment,
        timeout=120,
    )
    return environment


def for_one(environment: Mapping[str, str], path: Path) -> dict[str, str]:
    """Return the environment with a cache that only one notebook has.

    What it prints of its downloads is the same then, whichever ran before it.
    """
    return {**environment, "HF_HOME": str(Path(environment["HF_HOME"]).with_name(path.stem))}


def _write_reranker(root: Path, folder: Path) -> None:
    """Write a stand-in of `RERANKER` with random weights, and the tokenizer of MiniLM."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(repo_folder(root, MINILM)).save_pretrained(folder)


@contextmanager
def serving(root: Path) -> Iterator[dict[str, str]]:
    """Serve the repositories of the notebooks under `root`, and yield the environment for kernels.

    The repositories that are missing are published first. It is no root of the demo's, which has
    another stand-in of `QWEN_IMAGE_EDIT`.
    """
    publish(root, [MINILM])
    others: dict[str, Callable[[Path], None]] = {
        RERANKER: partial(_write_reranker, root),
        QWEN_IMAGE_EDIT: write_emoji_edit,  # an edit that can be seen
        **SKETCHES,
    }
    write_missing(root, others)
    with (
        tempfile.TemporaryDirectory(prefix="nbloader-notebooks-") as home,
        LocalHub.start(root, max_seconds=MAX_RUN_S) as hub,
    ):
        for repo_id in SKETCHES:  # It hashes them at the first request, for many seconds.
            with urlopen(f"{hub.endpoint}/api/models/{repo_id}", timeout=MAX_RUN_S):
                pass
        hub.set_faults([LINK])
        yield notebook_environment(hub.endpoint, Path(home))


def execute(
    path: Path, environment: dict[str, str], notebook: nbformat.NotebookNode | None = None
) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of its own, and return it with its outputs.

    Args:
        notebook: what to run; None for what `path` holds.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = notebook or nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
    )
    return client.execute(env=for_one(environment, path))


def as_python(cell: str) -> str:
    """Return the source of a cell as Python alone, without what IPython adds to it."""
    manager = TransformerManager()  # type: ignore[no-untyped-call]
    return str(manager.transform_cell(cell))


def main() -> None:
    """Store the outputs in the notebooks: in all, or in those that are named.

    Raises:
        KeyError: there is no notebook of that name.
    """
    named = {path.stem: path for path in NOTEBOOKS}
    paths = [named[name] for name in sys.argv[1:] or named]
    with serving(ROOT / "demo/tutorials") as environment:
        for path in paths:
            notebook = nbformat.read(path, as_version=4)
            put_head(notebook, path.name)
            execute(path, environment, notebook)
            # The version of Python in it would change with each machine.
            notebook.metadata.language_info = {"name": "python"}
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
