"""Whatever a repository and a server write, it shows as text: no script runs, no element."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

from nbloader.localhub import Fault, LocalHub, RequestClass
from tests.browser.conftest import OpenNotebook
from tests.browser.notebooks import Notebook
from tests.browser.saved import assert_static
from tests.conftest import WriteRepo
from tests.samples import safetensors

SHARD = {"w": {"dtype": "U8", "shape": [2_000_000], "data_offsets": [0, 2_000_000]}}
FORMULA = "$x^2$ &lt;img src=x onerror=__pwned.push(1)&gt;"
QUOTES = "' onmouseover='__pwned.push(2)' \\\" onclick=\\\"__pwned.push(3)".replace("\\", "")
BIDI = "\u202egnp.exe\u2066\u200b"
ELEMENT = "<img src=x onerror=__pwned.push(4)><script>__pwned.push(5)</script>"
TERMINAL = "\x1b[2J\x1b[31mred"
CLOSING = "</div></details></textarea></pre><iframe srcdoc='<script>top.__pwned.push(6)</script>'>"

INJECTED = """
output => {
  for (const details of output.querySelectorAll("details")) details.open = true;
  for (const element of output.querySelectorAll("*")) {
    for (const kind of ["mouseover", "mouseenter", "focus", "toggle"]) {
      element.dispatchEvent(new Event(kind, {bubbles: true}));
    }
  }
  const found = [...output.querySelectorAll(
    "img, script, iframe, object, embed, form, link, meta, base, math, video, audio, "
    + "mjx-container, .MathJax, .MathJax_Display, .MathJax_Preview, .katex, a[href^='javascript:']"
  )];
  for (const element of output.querySelectorAll("*")) {
    if (element.getAttributeNames().some(name => name.startsWith("on"))) found.push(element);
  }
  return found.map(element => element.outerHTML.slice(0, 200));
}
"""


class Refusal(BaseHTTPRequestHandler):
    """Answers everything with an error full of HTML."""

    def do_GET(self) -> None:
        body = json.dumps({"error": ELEMENT + CLOSING + TERMINAL, "message": FORMULA}).encode()
        self.send_response(503, ELEMENT)
        self.send_header("X-Error-Code", "RepoNotFound" + ELEMENT)
        self.send_header("X-Error-Message", ELEMENT + CLOSING)
        self.send_header("Retry-After", ELEMENT)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_POST = do_GET  # noqa: N815 - the base class's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hostile_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def publish(root: Path, write_repo: WriteRepo, repo_id: str, *names: str) -> None:
    """Publish a model whose shards have these names."""
    random = Random(repo_id)
    index = {"metadata": {}, "weight_map": {f"w{n}": name for n, name in enumerate(names)}}
    card = f"---\nlicense: {json.dumps(ELEMENT + TERMINAL)}\n---\n{ELEMENT}{CLOSING}\n"
    write_repo(
        root,
        repo_id,
        {
            "README.md": card.encode(),
            "config.json": b'{"model_type": "bert"}',
            "model.safetensors.index.json": json.dumps(index).encode(),
            **{name: safetensors(SHARD, random.randbytes(2_000_000)) for name in names},
        },
    )


def assert_nothing_injected(notebook: Notebook, cell: int, *verbatim: str) -> None:
    """The output shows these texts, and nothing of them came alive."""
    found = [
        element for output in notebook.output(cell).all() for element in output.evaluate(INJECTED)
    ]
    assert found == []
    assert notebook.page.evaluate("() => window.__pwned") == []
    assert notebook.dialogs == []
    text = notebook.output(cell).first.evaluate("output => output.textContent")
    for part in verbatim:
        assert part in text, f"{part!r} is not in:\n{text}"
    for character in BIDI.replace("gnp.exe", ""):
        assert character not in text, f"{character!r} is in:\n{text}"


def download(repo_id: str, cache: Path, **more: object) -> str:
    """Write the cell."""
    arguments = {
        "cache_dir": str(cache),
        "settings": {"max_retries": 2, "retry_delay_min": 0.5, "retry_delay_max": 0.5},
    } | more
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"import nbloader\n\nfolder = nbloader.download({repo_id!r}, {given})"


def test_a_hostile_repository_shows_as_text(
    open_cells: OpenNotebook,
    cache: Path,
    hub: LocalHub,
    hub_root: Path,
    write_repo: WriteRepo,
    hostile_server: str,
) -> None:
    shards = [f"{text}-{n}.safetensors" for n, text in enumerate((FORMULA, BIDI, "' onload='x"))]
    publish(hub_root, write_repo, "org/hostile", *shards)
    # A colon is in no name on some systems, and refused on all.
    publish(hub_root, write_repo, "org/refused", f"{ELEMENT.replace('/', '')}:.safetensors")
    slow = Fault(RequestClass.CDN_GET, total_bytes_per_second=500_000)
    busy = Fault(RequestClass.CDN_GET, path="*-0.safetensors", times=1, status=503)
    hub.set_faults([slow, busy])
    notebook = open_cells(
        download("org/hostile", cache, endpoint=hub.endpoint),
        f"nbloader.preflight('org/hostile', endpoint={hub.endpoint!r}, cache_dir={str(cache)!r})",
        download("org/refused", cache, endpoint=hub.endpoint),
        download("org/name", cache, endpoint=hostile_server),
        download("org/hostile", cache, endpoint=hub.endpoint, revision=ELEMENT + FORMULA + QUOTES),
    )

    # While it runs, and after it.
    notebook.run()
    notebook.wait_for_text(r"503")
    folds = notebook.wait_live().locator("[class*=Collapse-header]")
    for title in ("^Files$", ": 5 files$"):
        folds.filter(has_text=re.compile(title)).click()
    notebook.wait_for_text(r"onload")
    assert_nothing_injected(notebook, 0, FORMULA, "' onload='x")
    notebook.wait()
    notebook.wait_static()
    # The table of retries, which alone names a file then, cuts it in the middle.
    assert_nothing_injected(notebook, 0, "$x^2$ &lt;img sr…sh(1)&gt;-0.safetensors")
    assert_static(notebook.save(), 0)

    for cell, texts in {
        1: ("org/hostile is public",),
        2: (ELEMENT.replace("/", ""),),
        3: ("503",),
        4: (ELEMENT,),
    }.items():
        notebook.run(cell)
        notebook.wait(cell)
        assert_nothing_injected(notebook, cell, *texts)
    saved = notebook.save()
    for cell in (0, 2, 3):
        assert_static(saved, cell)
