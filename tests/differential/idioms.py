"""The page of idioms, and a process that runs what stands there on tiny repositories.

`docs/idioms.md` has tables: what people do, the library's own lines, and nbloader's line. Each row
is run as it stands, with the repositories of `idiom_repos` under the very ids of the page:

    python -m tests.differential.idioms FOLDER ID...

starts a local Hub in the folder, sets what the Hub's library reads when it is imported, runs the
library's lines and then nbloader's of each row that is named, and prints an `Outcome` a line, as
JSON. Libraries are imported once for all rows.

What is compared is what nbloader's lines assign: the library's lines leave theirs under the same
names. This machine has no GPU, so the words of the page that ask for one stand for the CPU
(`HERE`): nbloader's own choice there is float32.

A row that may not run here says so at the end of its first cell: `(needs a GPU)`, or `(needs gguf)`
for a package, without which nbloader's line is checked by `preflight`.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbloader.localhub import LocalHub

__all__ = ["Idiom", "Outcome", "idioms"]

PAGE = Path(__file__).parents[2] / "docs" / "idioms.md"

HERE = (
    (r'"cuda"', '"cpu"'),
    (r"\bdevice=0\b", 'device="cpu"'),
    (r"\bb?float16\b", "float32"),
)
"""What the words of the page are here."""

TOKEN = "hf_of_the_idioms"

_SECRETS = {"HF_TOKEN": TOKEN}
"""Stands for Colab's `userdata`."""

_LIBRARIES = (
    "diffusers",
    "transformers",
    "sentence_transformers",
    "sentence_transformers.sentence_transformer.modules",
    "peft",
    "huggingface_hub",
    "tests.packed",  # in the place of nunchaku, which no index has
    "torchao.quantization",
)
"""Where a name of the page comes from: the first that has it."""

KNOWN = (
    # diffusers does not fetch generation_config.json from the Hub, though what generates text reads
    # it. It does of a folder.
    r"\.text_encoder\.generation_config\.",
    # None of no modules that take arguments, or an empty mapping.
    r"\.module_kwargs:",
)
"""Differences that are none."""

_HEAD = "| To load |"
_CODE = re.compile(r"`([^`]+)`")
_NEEDS = re.compile(r"\(needs ([\w -]+)\)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Idiom:
    """A row of the page.

    Attributes:
        what: what people do, in words.
        theirs: the library's lines.
        ours: nbloader's.
        needs: what this machine lacks; None if it runs here.
    """

    what: str
    theirs: str
    ours: str
    needs: str | None

    @property
    def id(self) -> str:
        """What pytest calls it."""
        return re.sub(r"[^a-z0-9]+", "-", self.what.lower()).strip("-")

    @property
    def names(self) -> tuple[str, ...]:
        """The names that nbloader's lines assign, in order."""
        found: dict[str, None] = {}
        for line in ast.parse(self.ours).body:
            for target in line.targets if isinstance(line, ast.Assign) else ():
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                found |= {part.id: None for part in parts if isinstance(part, ast.Name)}
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a row.

    Attributes:
        made: the classes of what was compared.
        called: whether the output of a call was compared.
        wanted: bytes of the files that nbloader selected, without what had been read before.
        served: bytes of files that the Hub sent for them.
        refused: references of the checks that fail, of a row that cannot run here.
        differences: those that were found; or the error.
    """

    id: str
    made: tuple[str, ...] = ()
    called: bool = False
    wanted: int = 0
    served: int = 0
    refused: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()


def idioms(page: str | None = None) -> list[Idiom]:
    """Return the rows of the page (by default, of that in docs/), in their order."""
    found = []
    inside = False
    for line in (PAGE.read_text("utf-8") if page is None else page).splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.startswith(_HEAD):
            inside = True
        elif inside and not line.startswith("|---"):
            what, theirs, ours = (cell.strip() for cell in line.strip("|").split("|"))
            needs = _NEEDS.search(what)
            found.append(
                Idiom(
                    what=what.replace("`", ""),
                    theirs=_lines(theirs),
                    ours=_lines(ours),
                    needs=needs[1] if needs else None,
                )
            )
    return found


def _lines(cell: str) -> str:
    return "\n".join(_CODE.findall(cell))


# -- the process -----------------------------------------------------------------------------------


class Names(dict[str, Any]):
    """The names of the page's lines: what they assign, and what the libraries call so."""

    def __missing__(self, name: str) -> Any:
        if name in ("diffusers", "os", "torch", "transformers"):
            return import_module(name)
        for library in _LIBRARIES:
            try:
                return getattr(import_module(library), name)
            except AttributeError:
                continue
        raise KeyError(name)  # a builtin, or nothing


class _Runner:
    """Runs rows against a local Hub, each with caches of its own."""

    def __init__(self, hub: LocalHub, root: Path, caches: Path) -> None:
        self._hub = hub
        self._root = root
        self._caches = caches

    def run(self, idiom: Idiom) -> Outcome:
        """Run both sides of a row, and compare."""
        from tests.differential.idiom_repos import publish

        publish(idiom.theirs + idiom.ours, self._root, Path.cwd(), self._hub)
        try:
            if idiom.needs and find_spec(idiom.needs.split()[-1]) is None:
                return Outcome(id=idiom.id, refused=self._foreseen(idiom))
            return self._compared(idiom)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            told = traceback.format_exception(error)
            return Outcome(id=idiom.id, differences=("".join(told)[-3000:],))
        finally:
            for name in ("theirs", "ours"):
                shutil.rmtree(self._caches / name, ignore_errors=True)

    def _compared(self, idiom: Idiom) -> Outcome:
        from nbloader.records import Event, Selected
        from tests.differential.comparison import differences
        from tests.differential.harness import seeded

        self._hub.reset_counters()
        theirs = seeded(partial(_done, idiom.theirs, Names(userdata=_SECRETS)))
        fetched = {request.path for request in self._hub.requests() if request.body_bytes}
        wanted, served = 0, 0
        selected: set[str] = set()

        def hear(event: Event) -> None:
            nonlocal wanted
            if isinstance(event, Selected):
                cached = set(event.cached)
                files = [file for file in event.selection.files if file.path not in cached]
                wanted += sum(file.size for file in files)
                selected.update(
                    f"{file.repo_id or event.selection.repo_id}/{file.path_in_repo}"
                    for file in files
                )
                self._hub.reset_counters()  # What is read up to here, decides.

        def ended() -> None:
            nonlocal served
            served += self._hub.counters().file_bytes

        os.environ["HF_HUB_CACHE"] = str(self._caches / "ours")
        names = Names(nbloader=_quiet(hear, ended), userdata=_SECRETS)
        ours = seeded(partial(_done, idiom.ours, names))
        found, called = [], False
        for name in idiom.names:
            mine, other = _contents(ours[name]), _contents(theirs[name])
            # First: bitsandbytes packs weights anew in the first call, which our self-test was.
            outputs = [_output(each) for each in (mine, other)]
            if outputs[1] is not None:
                called = True
                found += [f"{name} called{line}" for line in differences(*outputs)]
            lines = [f"{name}{line}" for line in differences(mine, other)]
            found += [line for line in lines if not any(re.search(each, line) for each in KNOWN)]
        more = sorted(path for path in selected - fetched if _is_weights(path))
        found += [f"fetched, and the library does not: {path}" for path in more]
        return Outcome(
            id=idiom.id,
            made=tuple(type(ours[name]).__name__ for name in idiom.names),
            called=called,
            wanted=wanted,
            served=served,
            differences=tuple(found),
        )

    def _foreseen(self, idiom: Idiom) -> tuple[str, ...]:
        """Give the references of what `preflight` says of nbloader's lines, up to the first."""
        import nbloader

        def load(*where: Any, **given: Any) -> Any:
            report = nbloader.preflight(*where, **given)
            if report.failures:
                raise _StoppedError(tuple(str(each.reference) for each in report.failures))
            return report

        try:
            _done(idiom.ours, Names(nbloader=SimpleNamespace(load=load)))
        except _StoppedError as error:
            return error.references
        except ModuleNotFoundError as error:  # of an object that is made before the call
            return (f"no {error.name}",)
        return ()


class _StoppedError(Exception):
    """The checks fail."""

    def __init__(self, references: tuple[str, ...]) -> None:
        super().__init__(*references)
        self.references = references


def _done(lines: str, names: Names) -> Names:
    for word, here in HERE:
        lines = re.sub(word, here, lines)
    exec(compile(lines, "docs/idioms.md", "exec"), {}, names)
    return names


def _quiet(hear: Callable[[Any], None], ended: Callable[[], None]) -> Any:
    """Return nbloader with calls that show nothing, and tell what happens and that they ended."""
    import nbloader

    def call(function: Callable[..., Any], *where: Any, **given: Any) -> Any:
        made = function(*where, **given, view="none", on_event=hear)
        ended()
        return made

    return SimpleNamespace(
        load=partial(call, nbloader.load), download=partial(call, nbloader.download)
    )


def _is_weights(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".gguf", ".ckpt", ".pt", ".pth", ".onnx"))


def _contents(made: Any) -> Any:
    """Of a path, give what lies there: bytes by the paths of files."""
    if not isinstance(made, (str, Path)):
        return made
    path = Path(made)
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return {
        each.relative_to(path).as_posix(): each.read_bytes()
        for each in files
        if ".cache" not in each.relative_to(path).parts
    }


def _output(made: Any) -> Any:
    """Return the output of a call with seeded generators; None if none is cheap."""
    from tests.differential.harness import seeded

    for is_one, call in _calls():
        if is_one(made):
            return seeded(partial(call, made))
    return None


def _calls() -> Iterator[tuple[Any, Any]]:
    from tests.models import picture

    texts = ["a good b", "bad"]

    def named(*names: str) -> Any:
        return lambda made: type(made).__name__ in names

    # One that is to see a picture beside the text cannot be called without.
    yield lambda made: getattr(made, "image_encoder", None) is not None, lambda made: None
    yield named("StableDiffusionPipeline"), picture
    yield named("TextClassificationPipeline"), lambda made: made(texts)
    yield named("SentenceTransformer", "SparseEncoder"), lambda made: made.encode(texts)
    yield named("CrossEncoder"), lambda made: made.predict([("a", "good"), ("b", "bad")])
    yield (
        lambda made: hasattr(made, "get_input_embeddings") and hasattr(made, "forward"),
        _logits,
    )


def _logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([[1, 2, 3]]))[0]


def main(arguments: Sequence[str]) -> int:
    """Run the rows that are named, and print what came of them."""
    from nbloader.localhub import LocalHub

    folder, *ids = arguments
    caches = Path(folder).resolve()
    root = caches / "hub"
    (caches / "here").mkdir(parents=True)
    os.chdir(caches / "here")
    with LocalHub.start(root, max_seconds=1800) as hub:
        hub.add_token(TOKEN, name="someone", repos=_gated())
        os.environ |= _environment(hub, caches)
        import nbloader.trial
        from tests.differential.harness import TrialHere

        # What a trial builds, it builds here, where the libraries are imported already.
        vars(nbloader.trial)["Trial"] = TrialHere
        runner = _Runner(hub, root, caches)
        out, sys.stdout = sys.stdout, sys.stderr
        with redirect_stdout(sys.stderr):
            for idiom in idioms():
                if idiom.id in ids:
                    print(json.dumps(asdict(runner.run(idiom))), file=out, flush=True)
    return 0


def _gated() -> frozenset[str]:
    from tests.differential.idiom_repos import GATED

    return GATED


def _environment(hub: LocalHub, caches: Path) -> Mapping[str, str]:
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(caches / "home"),
        "HF_HUB_CACHE": str(caches / "theirs"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": TOKEN,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
