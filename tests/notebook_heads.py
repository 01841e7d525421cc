"""What notebooks begin with: badges that open them elsewhere, and a cell that installs nbloader.

The repository and its branch stand here alone. `python -m tests.notebook_runs` writes the heads,
and `tests/test_notebooks.py` and `tests/test_readme.py` compare with them.
"""

from __future__ import annotations

from urllib.parse import quote

from nbformat import NotebookNode

__all__ = ["INSTALL", "PAGES", "badges", "put_head"]

REPOSITORY, BRANCH = "nbloader/nbloader", "main"

PAGES = f"https://github.com/{REPOSITORY}/blob/{BRANCH}/"
"""Where the files of the repository are read."""

# It cannot ask nbloader where it runs. torch and what else is there stay as they are.
INSTALL = """\
import os

if "COLAB_RELEASE_TAG" in os.environ or "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
    %pip install --quiet nbloader-hub"""


def badges(name: str) -> str:
    """Return a line of Markdown that opens a notebook on Colab, Kaggle and Binder.

    Args:
        name: of its file in the folder `notebooks`.
    """
    path = f"notebooks/{name}"
    colab = f"https://colab.research.google.com/github/{REPOSITORY}/blob/{BRANCH}/{path}"
    kaggle = f"https://kaggle.com/kernels/welcome?src={PAGES}{path}"
    binder = f"https://mybinder.org/v2/gh/{REPOSITORY}/{BRANCH}?labpath={quote(path, safe='')}"
    return "\n".join(
        f"[![{text}]({image})]({address})"
        for text, image, address in (
            ("Colab", "https://colab.research.google.com/assets/colab-badge.svg", colab),
            ("Kaggle", "https://kaggle.com/static/images/open-in-kaggle.svg", kaggle),
            ("Binder", "https://mybinder.org/badge_logo.svg", binder),
        )
    )


def put_head(notebook: NotebookNode, name: str) -> None:
    """Write the badges above the title, and the cell that installs.

    Raises:
        StopIteration: there is no cell `intro` or `install`, or no title.
    """
    intro = next(cell for cell in notebook.cells if cell.id == "intro")
    install = next(cell for cell in notebook.cells if cell.id == "install")
    lines = intro.source.splitlines()
    title = next(number for number, line in enumerate(lines) if line.startswith("# "))
    intro.source = "\n".join([badges(name), "", *lines[title:]])
    install.source = INSTALL
