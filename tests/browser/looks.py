"""How a view looks: what is cut off, what cannot be read, what moves; and pictures of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browser.notebooks import WAIT_MS, Notebook

if TYPE_CHECKING:
    from playwright.sync_api import Locator

__all__ = ["LEAST_CONTRAST", "WIDTHS", "Looks", "Watch"]

WIDTHS = (400, 540, 1100)
"""Of the output, without the prompt beside it; pixels."""

LEAST_CONTRAST = 4.5
"""Of text to what is behind it: https://www.w3.org/TR/WCAG22/#contrast-minimum"""

LEAST_CONTRAST_OF_MARKS = 3.0
"""Of what is no text: https://www.w3.org/TR/WCAG22/#non-text-contrast"""

_DRAWN = """
() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))
"""

_WIDTH = "content => content.clientWidth"

_FAULTS = """
(root, [leastOfText, leastOfMarks]) => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = color => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const light = color => {
    const [red, green, blue] = color.map(part => part / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ancestors = element => {
    const all = [];
    for (; element; element = element.parentElement) all.push(element);
    return all;
  };
  const contrast = element => {
    const chain = ancestors(element);
    let behind = [255, 255, 255];
    for (const one of [...chain].reverse()) {
      behind = over(rgba(getComputedStyle(one).backgroundColor), behind);
    }
    const colour = rgba(getComputedStyle(element).color);
    // Near enough for a text whose own background is that of what stands behind it.
    colour[3] *= chain.reduce((share, one) => share * getComputedStyle(one).opacity, 1);
    const [dark, bright] = [light(over(colour, behind)), light(behind)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const name = element => `${element.tagName.toLowerCase()} ${JSON.stringify(
    (element.innerText ?? element.textContent ?? "").trim().slice(0, 60))}`;
  const faults = new Set();
  if (root.scrollWidth > root.clientWidth) {
    faults.add(`the view is ${root.scrollWidth} wide in ${root.clientWidth}`);
  }
  const frame = root.getBoundingClientRect();
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("svg, style, script, select, [disabled]")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    const style = getComputedStyle(element);
    if (!box.width || !box.height || style.visibility !== "visible") continue;
    // Only for screen readers.
    if (ancestors(element).some(one => one.getBoundingClientRect().width <= 1)) continue;
    const ratio = contrast(element);
    const least = /[\\p{L}\\p{N}]/u.test(node.data) ? leastOfText : leastOfMarks;
    if (ratio < least) faults.add(`contrast ${ratio.toFixed(2)} of ${name(element)}`);
    const scrolls = one => /auto|scroll/.test(getComputedStyle(one).overflowX);
    for (const one of ancestors(element)) {
      if (one === root || scrolls(one)) break;
      const cuts = /hidden|clip/.test(getComputedStyle(one).overflowX);
      if (cuts && one.scrollWidth > one.clientWidth) {
        faults.add(`cut off ${one.scrollWidth} > ${one.clientWidth}: ${name(one)}`);
      }
    }
    if (!ancestors(element).some(one => root.contains(one) && one !== root && scrolls(one))
        && (box.left < frame.left - 1 || box.right > frame.right + 1)) {
      faults.add(`outside the view ${box.left - frame.left}..${box.right - frame.right}: `
                 + name(element));
    }
  }
  const inner = "details, [class*=Collapse-contents], [style*=border-left]";
  const lefts = new Map();
  for (const fold of root.querySelectorAll("summary, [class*=Collapse-header]")) {
    if (!fold.getClientRects().length || fold.parentElement.parentElement.closest(inner)) continue;
    const title = document.createRange();
    const texts = document.createTreeWalker(fold, NodeFilter.SHOW_TEXT);
    title.selectNodeContents(texts.nextNode());
    lefts.set(Math.round(title.getClientRects()[0].left - frame.left), name(fold));
  }
  if (lefts.size > 1) faults.add(`folds begin apart: ${JSON.stringify([...lefts])}`);
  return [...faults];
}
"""


class Looks:
    """Looks at outputs in both themes and at three widths, and takes pictures of them.

    Args:
        notebook: whose outputs.
        folder: for the pictures.
    """

    def __init__(self, notebook: Notebook, folder: Path) -> None:
        self._notebook = notebook
        self._folder = folder
        self.faults: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)

    def at(self, state: str, cell: int = 0, *, themes: Iterable[bool] = (False, True)) -> None:
        """Look at the outputs of a cell, and keep what is wrong with them.

        Args:
            state: what they show, for the names of the pictures.
            themes: whether dark.
        """
        output = self._notebook.output(cell).first
        for dark in themes:
            self._notebook.set_dark(dark)
            for width in WIDTHS:
                self._set_width(self._notebook.content(cell), width)
                name = f"{self._notebook.front_end}-{state}-{'dark' if dark else 'light'}-{width}"
                self.faults += [
                    f"{name}: {fault}"
                    for root in self._roots(output)
                    for fault in root.evaluate(_FAULTS, [LEAST_CONTRAST, LEAST_CONTRAST_OF_MARKS])
                ]
                output.screenshot(path=self._folder / f"{name}.png", timeout=WAIT_MS)
        self._notebook.set_dark(False)

    def _roots(self, output: Locator) -> list[Any]:
        """Return the views in an output, and leave tracebacks to the front end."""
        found: list[Any] = output.locator(".nbloader").element_handles()
        return found or output.locator("div.tex2jax_ignore").element_handles()[:1]

    def _set_width(self, content: Locator, width: int) -> None:
        """Make the window such that the output has this width."""
        page = self._notebook.page
        before = None
        # The classic notebook gives outputs 978 pixels at most, however wide the window is.
        while (found := content.evaluate(_WIDTH)) not in (width, before):
            before = found
            size = page.viewport_size
            assert size is not None
            page.set_viewport_size({"width": size["width"] + width - found, "height": 1600})
            page.evaluate(_DRAWN)
        assert found <= width, f"the output is {found} wide, and {width} was asked for"


_WATCH = """
output => {
  window.__samples = [];
  let last = "";
  const look = () => {
    const root = output.querySelector(".widget-vbox.nbloader");
    if (!root) return;
    const top = root.getBoundingClientRect().top;
    const bars = {};
    for (const bar of root.querySelectorAll("[role=progressbar]")) {
      bars[bar.getAttribute("aria-label")] = Number(bar.getAttribute("aria-valuenow"));
    }
    const tops = [...root.children].map(one => Math.round(one.getBoundingClientRect().top - top));
    const sample = {width: root.clientWidth, text: root.innerText, bars, tops};
    const now = JSON.stringify(sample);
    if (now === last) return;
    last = now;
    window.__samples.push({time: Date.now() / 1000, ...sample});
  };
  clearInterval(window.__watch);
  window.__watch = setInterval(look, 40);
}
"""


class Watch:
    """Notes what the live view of a cell shows, each time that it changes."""

    def __init__(self, notebook: Notebook, cell: int = 0) -> None:
        self._page = notebook.page
        output = notebook.output(cell).first.element_handle(timeout=WAIT_MS)
        self._page.evaluate(_WATCH, output)

    def samples(self) -> list[dict[str, Any]]:
        """Return what was seen: `time` (s), `text`, `bars` by name (percent), `tops` (pixels)."""
        return list(self._page.evaluate("() => window.__samples"))


def pictures() -> Path | None:
    """Return the folder that is asked for, if one is."""
    folder = os.environ.get("SCREENSHOTS")
    return Path(folder) if folder else None
