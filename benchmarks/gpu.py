"""`python -m benchmarks.gpu`: how weights come from files to a GPU, by each way, side by side.

It makes what it needs: a pipeline of the shape of FLUX with random weights, of several sizes. Each
row is a process of its own: the files alone, read to the GPU by each way, and for the largest size
whole loads, by nbloader and by diffusers itself, beside the imports that both need. The files come
from the page cache, from a cold disk, or for whole loads from a local Hub. What arrives is compared
by a sum over all bytes of every tensor. `--small` does the same with some megabytes on the CPU, to
try the script.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from nbloader.localhub import LocalHub

__all__ = ["main"]

GB = 1_000_000_000
_LIMIT_S = 120.0
"""For one row."""

_CACHED, _COLD, _HUB = _STATES = ("page cache", "cold disk", "hub")

Tensors = Mapping[str, Any]


# -- the ways, each in a process of its own --------------------------------------------------------


def _by_load_file(paths: Sequence[Path], device: str) -> Tensors:
    from safetensors.torch import load_file

    return _joined(load_file(path, device=device) for path in paths)


def _by_moving(paths: Sequence[Path], device: str) -> Tensors:
    from safetensors.torch import load_file

    files = (load_file(path) for path in paths)
    return _joined({name: tensor.to(device) for name, tensor in each.items()} for each in files)


def _by_fastsafetensors(paths: Sequence[Path], device: str) -> Tensors:
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    def read(path: Path) -> Tensors:
        loader = SafeTensorsFileLoader(SingleGroup(), f"{device}:0", nogds=True)
        loader.add_filenames({0: [str(path)]})
        content = loader.copy_files_to_device()
        _KEPT.extend((loader, content))  # The tensors are views of what they hold.
        return {name: content.get_tensor(name) for name in content.key_to_rank_lidx}

    return _joined(map(read, paths))


def _by_reading(paths: Sequence[Path], device: str) -> Tensors:
    from nbloader.loaders.reading import Reading

    with closing(Reading()) as reading:
        for path in paths:
            reading.add(path, device)
        found = _joined(reading.take(path) or {} for path in paths)
        if reading.problem:
            raise RuntimeError(reading.problem)
    return found


_KEPT: list[Any] = []

_FILES: Mapping[str, Callable[[Sequence[Path], str], Tensors]] = {
    "safetensors load_file": _by_load_file,
    "mapped, then .to": _by_moving,
    "fastsafetensors": _by_fastsafetensors,
    "nbloader": _by_reading,
}


def _joined(files: Iterator[Tensors]) -> Tensors:
    return {
        f"{number}.{name}": each for number, file in enumerate(files) for name, each in file.items()
    }


def _load_by_nbloader(source: str, device: str) -> Any:
    import nbloader

    return nbloader.load(source, device=device, dtype="bfloat16", view="none")


def _load_by_map(source: str, device: str) -> Any:
    import torch
    from diffusers import FluxPipeline

    return FluxPipeline.from_pretrained(source, dtype=torch.bfloat16, device_map=device)


def _load_and_move(source: str, device: str) -> Any:
    import torch
    from diffusers import FluxPipeline

    return FluxPipeline.from_pretrained(source, dtype=torch.bfloat16).to(device)


def _import_alone(_: str, device: str) -> Any:
    """Import what a load by diffusers imports, and begin with the device."""
    import torch
    from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

    torch.zeros(1, device=device)
    return FluxPipeline, AutoencoderKL, FluxTransformer2DModel, CLIPTextModel, T5EncoderModel


_IMPORTS = "imports alone"
_LOADS: Mapping[str, Callable[[str, str], Any]] = {
    _IMPORTS: _import_alone,
    "nbloader.load": _load_by_nbloader,
    "from_pretrained(device_map=)": _load_by_map,
    "from_pretrained().to()": _load_and_move,
}


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def _one(way: str, source: str, device: str) -> dict[str, Any]:
    """Do one row in this process, and tell what it took."""
    began = time.perf_counter()
    tensors: Tensors
    if way in _LOADS:
        pipeline = _LOADS[way](source, device)
        _synchronize(device)
        seconds = time.perf_counter() - began
        if way == _IMPORTS:
            return {"seconds": seconds, "host": _peak_memory(), "device": _peak_of_device(device)}
        models = ("text_encoder", "text_encoder_2", "transformer", "vae")
        tensors = {
            f"{name}.{key}": tensor
            for name in models
            for key, tensor in getattr(pipeline, name).state_dict().items()
        }
        before = 0
    else:
        import torch

        for name in ("safetensors.torch", "nbloader.loaders"):
            importlib.import_module(name)  # It is no part of the row.
        if device != "cpu":
            torch.zeros(1, device=device)
        before = _peak_memory()
        began = time.perf_counter()
        tensors = _FILES[way](_files(Path(source)), device)
        _synchronize(device)
        seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "host": _peak_memory() - before,
        "device": _peak_of_device(device),
        "digest": _digest(tensors),
    }


def _synchronize(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def _peak_memory() -> int:
    """Return the peak of this process's memory, mapped files included, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _peak_of_device(device: str) -> int:
    import torch

    return 0 if device == "cpu" else torch.cuda.max_memory_allocated()


def _digest(tensors: Tensors) -> str:
    """Return a hash of the names, formats and shapes of tensors, and of sums over their bytes."""
    import torch

    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        spare = -content.numel() % 4
        words = torch.nn.functional.pad(content, (0, spare)).view(torch.int32)
        places = torch.arange(1, min(words.numel(), 1 << 20) + 1, device=words.device)
        sums = [
            int((part.to(torch.int64) * places[: part.numel()]).sum())
            for part in torch.split(words, max(1, places.numel()))
        ]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {sums}".encode())
    return found.hexdigest()


# -- the rows --------------------------------------------------------------------------------------


def _row(
    way: str, source: str, device: str, *, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Do one row in a process of its own.

    Args:
        source: the folder of the pipeline, or its repository.
    """
    if way == "fastsafetensors" and (device == "cpu" or not importlib.util.find_spec(way)):
        return {"way": way, "skipped": "not installed" if device != "cpu" else "only for a GPU"}
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", way]
    command += ["--source", source, "--device", device]
    env = {**os.environ, **(environment or {})}
    began = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=env
    )
    if done.returncode:
        lines = (done.stderr or "").strip().splitlines()
        return {"way": way, "failed": lines[-1] if lines else f"status {done.returncode}"}
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"way": way, "process": time.perf_counter() - began, **told}


def _rows_of_folder(
    ways: Iterable[str], folder: Path, device: str, *, cold: bool
) -> list[dict[str, Any]]:
    found = []
    for way in ways:
        for path in _files(folder):
            _forget(path) if cold else _warm(path)
        found.append(_row(way, str(folder), device))
    return found


def _rows_of_hub(root: Path, repo_id: str, device: str) -> list[dict[str, Any]]:
    """Load from a local Hub with an empty cache, by each way that fetches."""
    found = []
    with LocalHub.start(root) as hub:
        # Some versions of the Hub's client take two ports of one address for the same server.
        endpoint = hub.endpoint.replace("127.0.0.1", "localhost")
        # It hashes before it answers.
        with urlopen(f"{endpoint}/api/models/{repo_id}") as answer:  # noqa: S310
            answer.read()
        for way in (_IMPORTS, "nbloader.load", "from_pretrained(device_map=)"):
            with tempfile.TemporaryDirectory(dir=root) as cache:
                own = {"HF_ENDPOINT": endpoint, "HF_HOME": cache, "HF_HUB_DISABLE_XET": "1"}
                found.append(_row(way, repo_id, device, environment=own))
    return found


def _forget(path: Path) -> None:
    """Let the system drop what it keeps of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _warm(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(1 << 24)
        while file.readinto(buffer):
            pass


def _measure(
    sizes: Sequence[float], states: Sequence[str], root: Path, device: str, *, tiny: bool
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    from benchmarks.gpu_models import save_flux

    for size in sizes:
        repo_id = f"bench/flux-{size:g}"
        folder = root / "models" / repo_id
        save_flux(folder, int(size * GB), tiny=tiny)
        total = sum(path.stat().st_size for path in _files(folder))
        about = {"bytes": total}
        for state in states:
            if state != _HUB:
                rows = _rows_of_folder(_FILES, folder, device, cold=state == _COLD)
                yield f"Files of {total / GB:.3g} GB, {state}", [about | row for row in rows]
            if size == max(sizes):
                if state == _HUB:
                    rows = _rows_of_hub(root, repo_id, device)
                else:
                    rows = _rows_of_folder(_LOADS, folder, device, cold=state == _COLD)
                yield f"Pipeline of {total / GB:.3g} GB, {state}", [about | row for row in rows]
        shutil.rmtree(folder)


_FIGURES = (("seconds", 1), ("process", 1), ("host", GB), ("device", GB))


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"\n## {title}\n",
        "| way | s | GB/s | whole process, s | host, GB | device, GB | same |",
        "|---|---|---|---|---|---|---|",
    ]
    first = next((row["digest"] for row in rows if "digest" in row), "")
    for row in rows:
        if "seconds" not in row:
            lines.append(f"| {row['way']} | {row.get('skipped') or row['failed']} | | | | | |")
            continue
        rate = f"{row['bytes'] / GB / row['seconds']:.2f}" if "digest" in row else ""
        figures = [f"{row[name] / unit:.2f}" for name, unit in _FIGURES]
        told = " | ".join([figures[0], rate, *figures[1:]])
        same = ("yes" if row["digest"] == first else "**no**") if "digest" in row else ""
        lines.append(f"| {row['way']} | {told} | {same} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 when every row has the same tensors."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 10, 25], help="in GB")
    parser.add_argument("--states", nargs="+", default=_STATES, choices=_STATES)
    parser.add_argument("--scratch", type=Path, default=Path(".bench/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="some megabytes, on the CPU")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--source", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(_one(args.one, args.source, args.device)))  # noqa: T201
        return 0
    if args.small:
        args.sizes, args.device = [0.001], "cpu"
    else:
        import torch

        if not torch.cuda.is_available():
            print("torch sees no GPU: nothing is measured; --small tries the script")  # noqa: T201
            return 1
    args.scratch.mkdir(parents=True, exist_ok=True)
    failed = False
    with tempfile.TemporaryDirectory(dir=args.scratch) as root:
        for title, rows in _measure(
            args.sizes, args.states, Path(root), args.device, tiny=args.small
        ):
            print(_table(title, rows), flush=True)  # noqa: T201
            failed = failed or any("failed" in row for row in rows)
            failed = failed or len({row["digest"] for row in rows if "digest" in row}) > 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
