"""What cannot work is refused by name, before a weight is fetched, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.errors import InvalidArgumentError, NbloaderError
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.selection.sizes import FIRST_READ_BYTES
from nbloader.wording import Reader, worded
from tests.conftest import Publish, WriteRepo
from tests.samples import safetensors

WEIGHTS = bytes(8) * 250_000
BROKEN_FILE = "Try another revision (revision=...), or tell the repository's author."


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


CONFIG = as_json({"model_type": "bert", "architectures": ["BertModel"]})
F32 = {"dtype": "F32", "shape": [500_000], "data_offsets": [0, 2_000_000]}
RIGHT = {"config.json": CONFIG, "model.safetensors": safetensors({"w": F32}, WEIGHTS)}


@dataclass(frozen=True)
class Refused:
    """What a call that was refused came to."""

    error: NbloaderError
    cdn_bytes: int


def refuse(hub: LocalHub, cache: Path, repo_id: str, **keywords: Any) -> Refused:
    with pytest.raises(NbloaderError) as caught:
        nbloader.load(
            repo_id,
            **{
                "endpoint": hub.endpoint,
                "cache_dir": cache,
                "device": "cpu",
                "view": "none",
                "settings": {"max_retries": 1},
                **keywords,
            },
        )
    return Refused(caught.value, hub.counters().of(RequestClass.CDN_GET).body_bytes)


def assert_no_trace(cache: Path, repo_id: str) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download(repo_id, cache_dir=cache, local_files_only=True)
    assert not list(cache.rglob("*.incomplete"))
    assert not [path for path in cache.rglob("*") if path.suffix in {".safetensors", ".bin"}]


@pytest.mark.parametrize(
    ("files", "reference", "message", "hint"),
    [
        pytest.param(
            {"config.json": CONFIG, "README.md": b"# x"},
            "no-weights",
            "There are no weights in '{repo}' that could be loaded.",
            "Try another revision (revision=...), or a repository with safetensors weights.",
            id="no weights",
        ),
        pytest.param(
            {"README.md": b"# x"},
            "unsupported-repo",
            "'{repo}' cannot be loaded: it has no model_index.json, modules.json or config.json.",
            "Its card at https://huggingface.co/{repo} says what it is.",
            id="nothing to load",
        ),
        pytest.param(
            {**RIGHT, "model_index.json": b"{not json"},
            "malformed-file",
            "The file 'model_index.json' of the repository is not valid JSON.",
            BROKEN_FILE,
            id="model_index.json is no JSON",
        ),
        pytest.param(
            {**RIGHT, "model_index.json": as_json(["a", "list"])},
            "malformed-file",
            "The file 'model_index.json' of the repository does not hold a JSON object.",
            BROKEN_FILE,
            id="model_index.json is a list",
        ),
        pytest.param(
            {
                **RIGHT,
                "modules.json": as_json(
                    [
                        {
                            "idx": 0,
                            "name": "0",
                            "path": "../x",
                            "type": "sentence_transformers.models.Pooling",
                        }
                    ]
                ),
            },
            "unsafe-path",
            "The file 'modules.json' has an unsafe file name: '../x'.",
            "Do not use this repository, and report it to the Hub.",
            id="modules.json leaves the folder",
        ),
        pytest.param(
            {**RIGHT, "modules.json": b"\xff\xfe"},
            "malformed-file",
            "The file 'modules.json' of the repository is not UTF-8 text.",
            BROKEN_FILE,
            id="modules.json is no text",
        ),
        pytest.param(
            {"config.json": CONFIG, "model.safetensors": b"<!DOCTYPE html>" + WEIGHTS},
            "malformed-file",
            "The file 'model.safetensors' of the repository "
            "does not begin like a safetensors file.",
            BROKEN_FILE,
            id="safetensors is a page",
        ),
        pytest.param(
            {"config.json": CONFIG, "model.safetensors": safetensors(b"{" * 50, WEIGHTS)},
            "malformed-file",
            "The file 'model.safetensors' of the repository has a header that cannot be read.",
            BROKEN_FILE,
            id="safetensors header is no JSON",
        ),
        pytest.param(
            {
                "config.json": CONFIG,
                "model.safetensors": safetensors({"w": F32}, WEIGHTS[: len(WEIGHTS) // 2]),
            },
            "malformed-file",
            "The file 'model.safetensors' of the repository "
            "should have 2000080 bytes, but has 1000080.",
            BROKEN_FILE,
            id="safetensors is cut off",
        ),
    ],
)
def test_a_broken_repository(
    hub: LocalHub,
    hub_root: Path,
    write_repo: WriteRepo,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    files: Mapping[str, bytes],
    reference: str,
    message: str,
    hint: str,
) -> None:
    repo_id = "broken/" + request.node.callspec.id.replace(" ", "-")
    write_repo(hub_root, repo_id, files)
    refused = refuse(hub, tmp_path, repo_id)
    error = refused.error
    assert (error.reference, error.message, error.hint) == (
        reference,
        message.format(repo=repo_id),
        hint.replace("{repo}", repo_id),
    )
    assert refused.cdn_bytes <= FIRST_READ_BYTES
    assert_no_trace(tmp_path, repo_id)


def sharded(shards: Mapping[str, bytes]) -> dict[str, bytes]:
    """Shards with an index that is right if each is as `shard` makes it."""
    files = {f"model-{name}.safetensors": content for name, content in shards.items()}
    weight_map = {f"w{name}": f"model-{name}.safetensors" for name in shards}
    index = {"metadata": {"total_size": 2_000_000 * len(shards)}, "weight_map": weight_map}
    return {"config.json": CONFIG, "model.safetensors.index.json": as_json(index), **files}


def shard(name: str) -> bytes:
    return safetensors({f"w{name}": F32}, WEIGHTS)


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        pytest.param(
            {"1": b"<!DOCTYPE html>" + WEIGHTS, "2": shard("2")},
            "The file 'model-1.safetensors' of the repository does not begin like a safetensors "
            "file.",
            id="the one that is read",
        ),
        pytest.param(
            {"1": shard("1"), "2": shard("2")[:1_000_000]},
            "The file 'model-2.safetensors' of the repository should have 2000081 bytes, but has "
            "1000000.",
            id="one that is too short for the index",
        ),
    ],
)
def test_a_broken_shard(
    hub: LocalHub,
    publish: Publish,
    tmp_path: Path,
    shards: Mapping[str, bytes],
    message: str,
) -> None:
    repo_id = publish(sharded(shards))
    refused = refuse(hub, tmp_path, repo_id)
    assert (refused.error.reference, refused.error.message) == ("malformed-file", message)
    assert refused.cdn_bytes <= 2 * FIRST_READ_BYTES
    assert_no_trace(tmp_path, repo_id)


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/etc/evil.safetensors", "C:\\evil.safetensors", "a/../../b"]
)
def test_a_file_name_that_would_leave_the_cache(
    hub: LocalHub, publish: Publish, tmp_path: Path, name: str
) -> None:
    repo_id = publish(RIGHT)
    hub.list_also(repo_id, [name])
    refused = refuse(hub, tmp_path / "cache", repo_id)
    assert (refused.error.reference, refused.cdn_bytes) == ("unsafe-path", 0)
    assert refused.error.message == f"The repository has an unsafe file name: {name!r}."
    assert refused.error.hint == "Do not use this repository, and report it to the Hub."
    assert [path.name for path in tmp_path.rglob("*evil*")] == []
    assert_no_trace(tmp_path / "cache", repo_id)
    hub.list_also(repo_id, [])


def test_a_text_that_is_no_id(hub: LocalHub, tmp_path: Path) -> None:
    refused = refuse(hub, tmp_path, "not an id")
    assert str(refused.error) == (
        "'not an id' is not a repository id\n"
        '  Hint: Ids look like "Qwen/Qwen-Image-Edit-2509".\n'
        "  [invalid-repo-id]"
    )
    assert hub.counters().total.requests == 0


def test_an_id_that_is_gone(hub: LocalHub, tmp_path: Path) -> None:
    gone = "runwayml/stable-diffusion-v1-5"
    refused = refuse(hub, tmp_path, gone)
    assert (refused.error.reference, refused.error.hint) == (
        "repo-not-found",
        'This model is kept as "stable-diffusion-v1-5/stable-diffusion-v1-5" now: '
        'nbloader.load("stable-diffusion-v1-5/stable-diffusion-v1-5").',
    )
    report = nbloader.preflight(gone, endpoint=hub.endpoint, cache_dir=tmp_path)
    (found,) = (result for result in report.results if result.name == "access")
    assert found.hint == worded(refused.error.hint, Reader.SCRIPT)


def test_a_dataset_without_an_owner_is_told_its_line(hub: LocalHub, tmp_path: Path) -> None:
    refused = refuse(hub, tmp_path, "datasets/squad")
    assert (refused.error.reference, refused.error.hint) == (
        "repo-not-found",
        'For a dataset: nbloader.download("squad", repo_type="dataset").',
    )


def test_an_empty_repository_is_called_so(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    repo_id = publish({".gitattributes": b"*.bin filter=lfs\n"})
    refused = refuse(hub, tmp_path, repo_id)
    assert (refused.error.message, refused.error.hint) == (
        f"'{repo_id}' has no files.",
        "Check the name and the revision.",
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("torch_dtype", "It is called dtype here: nbloader.load(..., dtype=...)."),
        ("use_auth_token", "It is called token here: nbloader.load(..., token=...)."),
        ("cache_folder", "It is called cache_dir here: nbloader.load(..., cache_dir=...)."),
        ("revison", "Is revision meant? nbloader.load(..., revision=...)."),
        ("trust_remotecode", "Is trust_remote_code meant?"),
        ("model", 'The id stands first, without a name: nbloader.load("org/name").'),
        ("repo_type", "Only models can be loaded: leave it out."),
        ("device_map", 'loader_kwargs={"device_map": ...}'),
        ("load_in_4bit", 'Pass plan="4-bit".'),
        ("quantization_config", 'loader_kwargs={"quantization_config": ...}'),
        ("safety_checker", 'loader_kwargs={"safety_checker": ...}'),
        (
            "attn_implementation",
            "It is called attention here: nbloader.load(..., attention=...).",
        ),
        ("num_labels", 'loader_kwargs={"model_kwargs": {"num_labels": ...}}'),
        ("not a name", "loader_kwargs={...}"),
    ],
)
def test_an_argument_that_load_does_not_have(name: str, hint: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        nbloader.load("org/name", **{name: "hf_secret"})  # type: ignore[arg-type]
    assert caught.value.message == f"load has no argument {name!r}"
    assert hint in caught.value.hint
    assert "secret" not in str(caught.value)


def test_every_call_refuses_what_it_does_not_have() -> None:
    calls: dict[str, Callable[..., object]] = {
        "aload": lambda *args, **keywords: asyncio.run(nbloader.aload(*args, **keywords)),
        "download": nbloader.download,
        "load": nbloader.load,
        "preflight": nbloader.preflight,
        "start": nbloader.start,
    }
    for name, call in calls.items():
        with pytest.raises(InvalidArgumentError) as caught:
            call("org/name", unknown="x")
        assert caught.value.message == f"{name} has no argument 'unknown'"
    with pytest.raises(InvalidArgumentError) as caught:
        nbloader.download("org/name", device="cpu")  # type: ignore[call-overload]
    assert caught.value.hint == "It is one of load, and download builds no model: leave it out."
    with pytest.raises(InvalidArgumentError) as caught:
        nbloader.preflight("org/name", force=True)  # type: ignore[call-overload]
    assert caught.value.hint == "It is one of load, and preflight builds no model: leave it out."


def test_an_unknown_revision(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    repo_id = publish(RIGHT)
    refused = refuse(hub, tmp_path, repo_id, revision="v9")
    assert (refused.error.reference, refused.error.message, refused.error.hint) == (
        "revision-not-found",
        f"{repo_id} has no revision 'v9'",
        f"See https://huggingface.co/{repo_id}/tree/main for its branches and tags, or leave "
        "`revision=` out.",
    )
    assert refused.cdn_bytes == 0
    assert_no_trace(tmp_path, repo_id)


def test_an_unknown_variant(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    repo_id = publish(RIGHT)
    refused = refuse(hub, tmp_path, repo_id, variant="fp16")
    assert (refused.error.reference, refused.cdn_bytes) == ("variant-not-found", 0)


def test_an_endpoint_that_nobody_answers(hub: LocalHub, tmp_path: Path) -> None:
    refused = refuse(hub, tmp_path, "org/name", endpoint="http://127.0.0.1:9")
    assert (refused.error.reference, refused.error.message, refused.error.hint) == (
        "hub-unreachable",
        "the Hub at http://127.0.0.1:9 does not answer (connection lost (ConnectError); 1 attempt)",
        "Check the connection of this machine, `endpoint=` and HF_ENDPOINT. If the files are in "
        "the cache, pass `local_files_only=True`.",
    )


def test_an_endpoint_that_is_no_hub(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    refused = refuse(hub, tmp_path, publish(RIGHT), endpoint=hub.cdn)
    assert refused.error.reference == "hub-unreachable"


@pytest.mark.parametrize("kind", [RequestClass.MODEL_INFO, RequestClass.TREE])
def test_an_endpoint_that_knows_no_such_address(
    hub: LocalHub, publish: Publish, tmp_path: Path, kind: RequestClass
) -> None:
    repo_id = publish(RIGHT)
    hub.set_faults([Fault(kind, status=404)])
    refused = refuse(hub, tmp_path, repo_id)
    assert (refused.error.reference, refused.error.message, refused.error.hint) == (
        "hub-unreachable",
        f"{hub.endpoint} does not answer like a Hub: it answered 404, and not what is missing",
        "Check `endpoint=` and HF_ENDPOINT: the address may not be a Hub, or a sign-in page of the "
        "network may stand before it.",
    )


def test_a_cache_folder_that_is_a_file(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_text("mine")
    refused = refuse(hub, cache, publish(RIGHT))
    assert (refused.error.reference, refused.error.message, refused.error.hint) == (
        "cache-not-writable",
        f"the cache folder {cache} cannot be written",
        "Pass a folder of your own as `cache_dir=`, or set HF_HOME.",
    )
    assert refused.cdn_bytes == 0
    assert cache.read_text() == "mine"


@pytest.mark.parametrize("cache", ["/proc/nbloader", "/tmp/" + "a" * 300])
def test_a_cache_folder_that_cannot_be_made(hub: LocalHub, publish: Publish, cache: str) -> None:
    refused = refuse(hub, Path(cache), publish(RIGHT))
    assert (refused.error.reference, refused.error.message) == (
        "cache-not-writable",
        f"the cache folder {cache} cannot be written",
    )
    assert refused.cdn_bytes == 0


def test_a_disk_without_room(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    settings = {"max_retries": 1, "required_disk_space_gb": 10**6}
    repo_id = publish(RIGHT)
    refused = refuse(hub, tmp_path, repo_id, settings=settings)
    assert refused.error.reference == "not-enough-disk"
    assert re.fullmatch(
        r"not enough disk space: 1\.0 PB required \(asked for by required_disk_space_gb\), "
        rf"[\d.]+ [kMGT]?B available at {tmp_path}",
        refused.error.message,
    )
    assert refused.cdn_bytes <= FIRST_READ_BYTES
    assert_no_trace(tmp_path, repo_id)

    folder = nbloader.download(
        repo_id,
        endpoint=hub.endpoint,
        cache_dir=tmp_path,
        view="none",
        settings=settings,
        force=True,
    )
    assert (folder / "model.safetensors").read_bytes() == RIGHT["model.safetensors"]
