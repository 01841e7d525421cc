"""The command line: `nbloader load | download | preflight | doctor | cache | demo`.

Exit status: 0 done, 1 failed with an error of `nbloader.errors`, a failed check, or something that
was to be deleted and stayed, 2 wrong usage, 130 interrupted, 141 nobody reads the output. Where a
question is answered with no, all is done. A load or a download goes on where nobody reads.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbloader._version import __version__
from nbloader.errors import InputError, InvalidArgumentError, NbloaderError
from nbloader.records import Method, RepoType
from nbloader.text import format_bytes
from nbloader.views.text import write
from nbloader.wording import Reader, worded

__all__ = ["main"]

# What the arguments of these names take, but for those that any text may be. The lists themselves
# stand where imports take half a second.
KINDS = ("auto", "diffusers", "sentence-transformers", "transformers")
DTYPES = ("auto", "bfloat16", "float16", "float32")
ATTENTIONS = (
    "sdpa",
    "eager",
    "flex_attention",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "sage",
    "xformers",
    "flash_varlen",
    "sage_varlen",
)

_DONE, _FAILED, _USAGE, _INTERRUPTED, _BROKEN_PIPE = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and give its exit status."""
    options = argparse.Namespace()
    try:
        _parser().parse_args(argv, options)
        command: Callable[[argparse.Namespace], int] = options.run
        return command(options)
    except NbloaderError as error:
        if getattr(options, "json", False):
            _write_json({"ok": False, "error": _error(error)})
        else:
            write(sys.stderr, f"{error.told(Reader.SHELL)}\n")
        return _USAGE if isinstance(error, InputError) else _FAILED
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


_TRY = "sentence-transformers/all-MiniLM-L6-v2"

_ENDS = {
    _DONE: "done",
    _FAILED: "failed, for a reason that is told",
    _USAGE: "wrong usage",
    _INTERRUPTED: "stopped",
    _BROKEN_PIPE: "the output was closed, as by `| head`",
}

_SETTINGS = """\
A token of the Hub comes from HF_TOKEN, or from `hf auth login`. What can be tuned is set as
NBLOADER_MAX_RETRIES=10, or in nbloader.yaml."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Leaves examples as they are, and the names of choices whole: they have hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


def _more(*examples: str, ends: Mapping[int, str] = {}, notes: str = "") -> dict[str, Any]:
    """Return what stands below the options of a command: examples, and what its status says.

    Args:
        ends: what a status says of this command in particular.
        notes: what else there is to know.
    """
    title = "example:" if len(examples) == 1 else "examples:"
    parts = [
        "\n".join((title, *(f"  nbloader {each}" for each in examples))),
        "\n".join(
            (
                "exit status:",
                *(f"  {status:<4} {what}" for status, what in ({**_ENDS, **ends}).items()),
            )
        ),
    ]
    epilog = "\n\n".join(filter(None, (*parts, notes)))
    return {"epilog": epilog, "formatter_class": _Formatter}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nbloader",
        description="Download a model and load it, in one line.",
        **_more(
            f"preflight {_TRY}",
            f"load {_TRY}",
            "download org/name",
            "load --help",
            notes=_SETTINGS,
        ),
    )
    parser.add_argument("-V", "--version", action="version", version=f"nbloader {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    load = commands.add_parser(
        "load",
        help="download a model, load it, and test that it works",
        description="Download a model, load it, and test that it works.",
        **_more(
            f"load {_TRY}", "load org/name --device cuda --plan model-offload", notes=_SETTINGS
        ),
    )
    _add_repo(load)
    _add_placement(load)
    _add_transfer(load)
    load.set_defaults(run=_load)

    download = commands.add_parser(
        "download",
        help="download the files that a load would use, or those that are named",
        description="Download the files that a load would use, or those that are named.",
        **_more(
            "download org/name",
            "download org/name config.json --local-dir folder",
            "download org/name --repo-type dataset --include '*.csv' data/",
            notes=_SETTINGS,
        ),
    )
    _add_repo(download)
    _add_files(download)
    _add_transfer(download)
    download.set_defaults(run=_download)

    preflight = commands.add_parser(
        "preflight",
        help="check whether a load can work here",
        description="Check whether a load can work here.",
        **_more(
            f"preflight {_TRY}",
            "preflight org/name org/other --json",
            ends={_DONE: "it can be loaded here", _FAILED: "it cannot, or that is not known"},
            notes=_SETTINGS,
        ),
    )
    _add_repo(preflight, several=True)
    _add_placement(preflight)
    preflight.set_defaults(run=_preflight)

    doctor = commands.add_parser(
        "doctor",
        help="print versions and facts to report a problem",
        description="Print versions and facts to report a problem.",
        **_more("doctor", "doctor org/name --json"),
    )
    doctor.add_argument("repo_id", nargs="?", metavar="REPO", help="also check this repository")
    _add_json(doctor)
    doctor.set_defaults(run=_doctor)

    cache = commands.add_parser(
        "cache",
        help="list what is in the cache, and delete what can go",
        description="List what is in the cache, and delete what can go.",
        **_more(
            "cache",
            "cache org/name --delete",
            ends={_FAILED: "failed, or something that was to be deleted stayed"},
        ),
    )
    cache.add_argument(
        "repo_ids", nargs="*", metavar="REPO", help="only these; datasets as datasets/org/name"
    )
    cache.add_argument("--cache-dir", metavar="FOLDER", help="the Hub's cache folder")
    cache.add_argument("--delete", action="store_true", help="delete what can go, after a question")
    cache.add_argument("--yes", action="store_true", help="delete without a question")
    _add_json(cache)
    cache.set_defaults(run=_cache)

    demo = commands.add_parser(
        "demo",
        help="load two models from a local Hub, without internet",
        description="Load two models from a local Hub, without internet.",
        **_more("demo", "demo --folder /tmp/demo"),
    )
    demo.add_argument(
        "--folder",
        type=Path,
        default=Path("demo"),
        help="where the edited image and the served repositories go (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)
    return parser


def _add_repo(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    parser.add_argument(
        "repo_id",
        nargs="+" if several else None,
        metavar="REPO",
        help=f"such as {_TRY}, or a folder",
    )
    parser.add_argument(
        "--cls", action="append", metavar="CLASS", help="what to make of it; may be given again"
    )
    parser.add_argument(
        "--subfolder", metavar="FOLDER", help="the folder of the repository with what is loaded"
    )
    parser.add_argument(
        "--component",
        action="append",
        dest="components",
        type=_component,
        metavar="NAME=PLACE",
        help="a part of a pipeline from elsewhere, as vae=org/name; NAME= leaves it out",
    )
    parser.add_argument(
        "--adapter",
        action="append",
        dest="adapters",
        metavar="PLACE",
        help="a LoRA or IP-Adapter to put in, as org/name/file.safetensors; may be given again",
    )
    parser.add_argument("--revision", help="a branch, a tag or a commit (default: main)")
    parser.add_argument("--variant", help="a variant of the weights, such as fp16")
    parser.add_argument(
        "--kind",
        default="auto",
        help=f"the library that it is for: {', '.join(KINDS)} (default: auto, its files decide)",
    )
    parser.add_argument("--task", help="what it is for, such as text-generation (transformers)")
    parser.add_argument("--cache-dir", metavar="FOLDER", help="the Hub's cache folder")
    parser.add_argument("--endpoint", metavar="URL", help="the address of the Hub")
    parser.add_argument("--local-files-only", action="store_true", help="use the cache only")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="allow Python files of the repository to be run",
    )
    _add_json(parser)


def _component(text: str) -> tuple[str, str | None]:
    """Read `NAME=PLACE`."""
    name, equals, place = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PLACE, such as vae=org/name")
    return name, place or None


def _add_placement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", help="auto, cuda, cuda:1, mps, cpu (default: auto, the best)"
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        help=f"the number format: {', '.join(DTYPES)} (default: auto, as model and machine want)",
    )
    parser.add_argument(
        "--plan",
        default="auto",
        help=f"how it is placed: auto, {', '.join(Method)} (default: auto, the fastest that fits)",
    )
    parser.add_argument(
        "--attention",
        default="auto",
        metavar="WAY",
        help=f"how attention is computed: auto, {', '.join(ATTENTIONS)} (default: auto, as the "
        "library does)",
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="allow pickled weights (.bin) that may hold more than tensors",
    )
    parser.add_argument(
        "--no-keep-files",
        action="store_false",
        dest="keep_files",
        help="delete weights once they are loaded, for a disk that is smaller than the model",
    )


def _add_transfer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verify", action="store_true", help="hash cached files, too")
    parser.add_argument(
        "--force",
        action="store_true",
        help="go on although a check failed (disk space, memory, packages)",
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    """Add what chooses files by their names, as `hf download` calls it."""
    parser.add_argument(
        "filenames", nargs="*", default=[], metavar="FILE", help="only these files, by their paths"
    )
    for option, what in (("--include", "only files that match"), ("--exclude", "none that match")):
        parser.add_argument(
            option,
            nargs="+",
            action="extend",
            metavar="PATTERN",
            help=f"{what}, such as '*.json'; a folder ends with a slash",
        )
    parser.add_argument(
        "--repo-type",
        default="model",
        metavar="TYPE",
        help=f"{', '.join(RepoType)} (default: model)",
    )
    parser.add_argument(
        "--local-dir", metavar="FOLDER", help="a folder for the files, in place of the cache"
    )


def _files(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `download` that choose files."""
    names, include = options.filenames, options.include
    if names and (include or options.exclude):
        raise InvalidArgumentError(
            "files are named, and --include or --exclude choose among all",
            hint="Leave out the names, or the patterns.",
        )
    exact = [glob.escape(name) for name in names] if len(names) > 1 else None
    return {
        "filename": names[0] if len(names) == 1 else None,
        "allow_patterns": exact or include,
        "ignore_patterns": options.exclude,
    }


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="write one JSON object to stdout")


_NOT_ARGUMENTS = {"command", "run", "json", "filenames", "include", "exclude"}


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: value for name, value in vars(options).items() if name not in _NOT_ARGUMENTS}
    if given.get("cls") is not None and len(given["cls"]) == 1:
        given["cls"] = given["cls"][0]
    if given.get("components") is not None:
        places: dict[str, Any] = {}
        for name, place in given["components"]:
            known = places.get(name)
            places[name] = place if known is None else [*_listed(known), place]
        given["components"] = places
    return given


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class _Record:
    """What a job told, for `--json`."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {"retries": 0, "notices": []}

    def __call__(self, event: Any) -> None:
        match event.type:
            case "selected":
                self.told["commit_hash"] = event.selection.commit_hash or None  # of a folder
                self.told["kind"] = str(event.selection.kind)
                self.told["total_bytes"] = event.selection.total
                cached = {*event.cached, *event.copied}
                self.told["fetched_bytes"] = sum(
                    file.size for file in event.selection.files if file.path not in cached
                )
            case "retry":
                self.told["retries"] += 1
            case "notice":
                self.told["notices"].append(event.reference)
            case "ready":
                self.told["summary"] = event.summary


def _run_job(job: Callable[..., Any], options: argparse.Namespace, **more: Any) -> int:
    record, started = _Record(), time.monotonic()
    result = job(
        **_arguments(options),
        **more,
        view="none" if options.json else "auto",
        on_event=record,
    )
    if isinstance(result, Path):
        record.told["file" if result.is_file() else "folder"] = str(result)
    if options.json:
        seconds = round(time.monotonic() - started, 3)
        _write_json({"ok": True, "repo_id": options.repo_id, "seconds": seconds, **record.told})
    return _DONE


def _load(options: argparse.Namespace) -> int:
    from nbloader.api import load

    return _run_job(load, options)


def _download(options: argparse.Namespace) -> int:
    from nbloader.api import download

    return _run_job(download, options, **_files(options))


def _preflight(options: argparse.Namespace) -> int:
    from nbloader.api import preflight

    arguments = _arguments(options)
    if len(options.repo_id) == 1:
        arguments["repo_id"] = options.repo_id[0]
    report = preflight(**arguments)
    if options.json:
        _write_json(report.to_json())
    else:
        write(sys.stdout, f"{report}\n")
    return _DONE if report.ok else _FAILED


def _doctor(options: argparse.Namespace) -> int:
    from nbloader.diagnostics import doctor

    report = doctor(options.repo_id)
    if options.json:
        _write_json(report.to_json())
    else:
        write(sys.stdout, f"{report}\n")
    return _DONE


def _cache(options: argparse.Namespace) -> int:
    from nbloader.hub_cache.report import Deletion, cache

    asks = options.delete and not options.yes
    if asks and not sys.stdin.isatty():
        raise InvalidArgumentError(
            "--delete asks before it deletes, and there is no terminal to ask on",
            hint="Add --yes, after a look at what `nbloader cache` says can go.",
        )
    if options.yes and not options.delete:
        raise InvalidArgumentError(
            "--yes answers no question without --delete", hint="Add --delete, or leave it out."
        )
    report = cache(options.cache_dir, repo_ids=options.repo_ids or None)
    if asks or not options.json:
        write(sys.stderr if options.json else sys.stdout, f"{report}\n")
    found = report.to_json()
    deleted = Deletion(removed=())
    if options.delete:
        count, size = len(report.items), format_bytes(report.frees)
        if not asks or not count or _agreed(f"Delete these {count} and free {size}?"):
            deleted = report.delete()
        found |= deleted.to_json()
        if not options.json:
            write(sys.stdout, f"\n{deleted}\n")
    if options.json:
        _write_json(found)
    return _FAILED if deleted.kept else _DONE


def _agreed(question: str) -> bool:
    """Ask on the terminal; whatever is not a yes is a no. The output is left to the results."""
    write(sys.stderr, f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _demo(options: argparse.Namespace) -> int:
    from nbloader.demo import run

    run(options.folder, sys.stdout)
    return _DONE


def _error(error: NbloaderError) -> dict[str, str]:
    return {
        "reference": error.reference,
        "message": worded(error.message, Reader.SHELL),
        "hint": worded(error.hint, Reader.SHELL),
    }


def _write_json(value: dict[str, Any]) -> None:
    write(sys.stdout, json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
