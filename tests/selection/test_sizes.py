"""What the components take: from real safetensors files, and from indexes that lie."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from nbloader.localhub.demo import MINILM, QWEN_IMAGE_EDIT, repo_folder
from nbloader.records import ComponentWeights, Listing, RepoFile, Selection, SelectionRequest
from nbloader.selection import needed, select
from nbloader.selection.sizes import Header, component_weights, header_reads, parse_header

INDEX = "model.safetensors.index.json"
NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.int32: "I32",
}
CONFIG: dict[str, object] = {"model_type": "bert", "architectures": ["BertModel"]}


class Repo:
    """The files of a folder, selected and weighed as the worker does it.

    Attributes:
        read: the headers that were asked for, a list for each round.
    """

    def __init__(self, folder: Path, *, unreadable: Iterable[str] = ()) -> None:
        self.folder = folder
        self.unreadable = frozenset(unreadable)
        self.known: dict[str, bytes] = {}
        self.headers: dict[str, Header | None] = {}
        self.read: list[list[str]] = []
        self.selection = self._selection()

    def _selection(self) -> Selection:
        files = tuple(
            RepoFile(
                path=path.relative_to(self.folder).as_posix(),
                size=path.stat().st_size,
                etag="0" * 40,
            )
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        )
        listing = Listing(repo_id="a/b", revision="main", commit_hash="0" * 40, files=files)
        while wanted := needed(listing, SelectionRequest(), self.known).reads:
            self.known |= {path: (self.folder / path).read_bytes() for path in wanted}
        return select(listing, SelectionRequest(), self.known)

    def weights(self) -> tuple[ComponentWeights, ...]:
        files = {file.path: file for file in self.selection.files}
        while wanted := header_reads(self.selection, self.known, self.headers):
            assert not self.headers.keys() & set(wanted)
            self.read.append(list(wanted))
            for path in wanted:
                content = (self.folder / path).read_bytes()
                self.headers[path] = (
                    None if path in self.unreadable else parse_header(content, files[path])
                )
        return component_weights(self.selection, self.known, self.headers)

    def bytes_of_files(self) -> dict[str, dict[str, int]]:
        """Bytes by component and dtype, summed over the tensors in the files themselves."""
        found = {}
        for component in self.selection.components:
            total: Counter[str] = Counter()
            for path in component.weights:
                for tensor in load_file(self.folder / path).values():
                    total[NAMES[tensor.dtype]] += tensor.nbytes
            if component.weights:
                found[component.name] = dict(total)
        return found


def by_dtype(weights: Iterable[ComponentWeights]) -> dict[str, dict[str, int]]:
    return {part.name: dict(part.bytes_by_dtype) for part in weights}


def layers(
    count: int, dtype: torch.dtype = torch.bfloat16, size: int = 256
) -> dict[str, torch.Tensor]:
    state = {
        f"layers.{layer}.{name}": torch.zeros((size, side), dtype=dtype)
        for layer in range(count)
        for name, side in (("attn.weight", size), ("mlp.weight", 2 * size), ("norm.weight", 1))
    }
    return {"embed.weight": torch.zeros((8 * size, size), dtype=dtype), **state}


def write(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    *,
    shard: int | str = "2MB",
    config: Mapping[str, object] = CONFIG,
) -> Path:
    """Write a model of transformers, as the Hub's own function splits it into shards."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_torch_state_dict(dict(state), folder, max_shard_size=shard)
    return folder


def change_index(folder: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    path = folder / INDEX
    index = json.loads(path.read_bytes())
    change(index)
    path.write_text(json.dumps(index))


# --- real repositories ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repo_id", "read"),
    [
        (MINILM, ["model.safetensors"]),
        (
            QWEN_IMAGE_EDIT,
            [
                "text_encoder/model-00001-of-00003.safetensors",
                "transformer/diffusion_pytorch_model-00001-of-00004.safetensors",
                "vae/diffusion_pytorch_model.safetensors",
            ],
        ),
    ],
)
def test_the_bytes_of_the_demo_repositories(demo_root: Path, repo_id: str, read: list[str]) -> None:
    repo = Repo(repo_folder(demo_root, repo_id))
    weights = repo.weights()
    assert by_dtype(weights) == repo.bytes_of_files()
    assert repo.read == [read]
    assert all(part.counted and part.quantization is None for part in weights)


@pytest.mark.parametrize("shard", ["1MB", "2MB", "3MB", "1GB"])
def test_of_a_sharded_model_one_header_is_read(tmp_path: Path, shard: str) -> None:
    repo = Repo(write(tmp_path, layers(30), shard=shard))
    (weights,) = repo.weights()
    files = repo.selection.components[0].weights
    assert (len(files) == 1) is (shard == "1GB")
    assert [len(paths) for paths in repo.read] == [1]
    assert by_dtype([weights]) == repo.bytes_of_files()
    assert weights == ComponentWeights(
        name="model",
        bytes_by_dtype={"BF16": weights.total},
        # In a shard of its own where the shards are smaller than it is.
        largest_tensor=1_048_576 if shard != "1MB" else 262_144,
        largest_block=256 * (256 + 512 + 1) * 2,
    )


def test_all_headers_are_read_where_the_dtypes_mix(tmp_path: Path) -> None:
    state = layers(20) | {f"layers.{layer}.norm.weight": torch.zeros(40_000) for layer in range(20)}
    repo = Repo(write(tmp_path, state))
    (weights,) = repo.weights()
    assert [len(paths) for paths in repo.read] == [1, len(repo.selection.components[0].weights) - 1]
    assert by_dtype([weights]) == repo.bytes_of_files()
    assert (weights.counted, set(weights.bytes_by_dtype)) == (True, {"BF16", "F32"})


def test_a_small_share_of_another_dtype_costs_no_header(tmp_path: Path) -> None:
    state = layers(20) | {"position_ids": torch.arange(512)}
    repo = Repo(write(tmp_path, state))
    (weights,) = repo.weights()
    assert [len(paths) for paths in repo.read] == [1]
    assert weights.total == sum(repo.bytes_of_files()["model"].values())


def test_a_single_file_is_counted_whatever_it_mixes(tmp_path: Path) -> None:
    state = layers(3) | layers(2, torch.float32, 64) | {"ids": torch.arange(512)}
    repo = Repo(write(tmp_path, state, shard="1GB"))
    assert by_dtype(repo.weights()) == repo.bytes_of_files()
    assert repo.read == [["model.safetensors"]]


def test_the_modules_of_a_router_are_weighed_each(tmp_path: Path) -> None:
    types = {
        "query_0_StaticEmbedding": "sentence_transformers.models.StaticEmbedding",
        "document_0_Transformer": "sentence_transformers.models.Transformer",
    }
    write(tmp_path / "document_0_Transformer", layers(12), shard="1MB")
    (tmp_path / "query_0_StaticEmbedding").mkdir()
    save_file({"weight": torch.zeros(999)}, tmp_path / "query_0_StaticEmbedding/model.safetensors")
    (tmp_path / "query_0_StaticEmbedding/tokenizer.json").write_text("{}")
    (tmp_path / "router_config.json").write_text(json.dumps({"types": types}))
    (tmp_path / "modules.json").write_text(
        json.dumps(
            [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]
        )
    )
    repo = Repo(tmp_path)
    weights = repo.weights()
    assert by_dtype(weights) == repo.bytes_of_files()
    assert [part.name for part in weights] == [*types]
    assert weights[0].bytes_by_dtype["F32"] == 3996
    assert [len(paths) for paths in repo.read] == [2]


# --- what cannot be counted -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"torch_dtype": "float16"}, "F16"),
        ({"dtype": "torch.bfloat16", "torch_dtype": "float16"}, "BF16"),
        ({}, "F32"),
        ({"dtype": "auto", "torch_dtype": ["float16"]}, "F32"),
        ({"dtype": {"": "float16"}, "torch_dtype": None}, "F32"),
    ],
)
def test_a_pickle_has_the_size_of_its_file(
    tmp_path: Path, config: dict[str, object], dtype: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | config))
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(1000))
    repo = Repo(tmp_path)
    assert (repo.weights(), repo.read) == (
        (ComponentWeights(name="model", bytes_by_dtype={dtype: 1000}, counted=False),),
        [],
    )


def test_without_a_total_the_headers_are_estimated(tmp_path: Path) -> None:
    repo = Repo(write(tmp_path, layers(30)))
    truth = repo.weights()[0].total
    change_index(tmp_path, lambda index: index["metadata"].pop("total_size"))
    repo = Repo(tmp_path)
    (weights,) = repo.weights()
    assert ([len(paths) for paths in repo.read], weights.counted) == ([1], False)
    assert abs(weights.total - truth) < 1000


def test_a_header_that_cannot_be_read_leaves_the_sizes_of_the_files(tmp_path: Path) -> None:
    folder = write(tmp_path, layers(30), config=CONFIG | {"dtype": "bfloat16"})
    files = Repo(folder).selection.components[0].weights
    repo = Repo(folder, unreadable=files)
    (weights,) = repo.weights()
    size = sum((folder / path).stat().st_size for path in files)
    assert weights == ComponentWeights(name="model", bytes_by_dtype={"BF16": size}, counted=False)


# --- lies -----------------------------------------------------------------------------------------


def forget_half(index: dict[str, dict[str, object]]) -> None:
    weight_map = index["weight_map"]
    for name in sorted(weight_map)[::2]:
        del weight_map[name]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda index, value=value: index["metadata"].update(total_size=value),
            id=repr(value)[:20],
        )
        for value in (0, 1, 10**9, 10**4000, 1e308, 1_000_000)
    ]
    + [
        pytest.param(forget_half, id="fewer tensors"),
        pytest.param(
            lambda index: index["weight_map"].update(
                {f"more.{n}": "model-00002-of-00007.safetensors" for n in range(50)}
            ),
            id="more tensors",
        ),
    ],
)
def test_an_index_that_cannot_be_right_is_not_believed(
    tmp_path: Path, change: Callable[[dict[str, dict[str, object]]], object]
) -> None:
    folder = write(tmp_path, layers(30))
    change_index(folder, change)
    repo = Repo(folder)
    (weights,) = repo.weights()
    assert len(repo.headers) == len(repo.selection.components[0].weights) == 7
    assert (by_dtype([weights]), weights.counted) == (repo.bytes_of_files(), True)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 0.5, "5", None, True, [5], {}])
def test_a_total_that_is_no_size_is_none(tmp_path: Path, value: object) -> None:
    folder = write(tmp_path, layers(30))
    truth = Repo(folder).weights()[0].total
    change_index(folder, lambda index: index["metadata"].update(total_size=value))
    repo = Repo(folder)
    (weights,) = repo.weights()
    assert (len(repo.headers), weights.counted) == (1, False)
    assert abs(weights.total - truth) < 1000


def test_a_total_with_a_decimal_point_is_one(tmp_path: Path) -> None:
    folder = write(tmp_path, layers(30))
    truth = Repo(folder).weights()
    change_index(folder, lambda i: i["metadata"].update(total_size=float(truth[0].total)))
    repo = Repo(folder)
    assert (repo.weights(), len(repo.headers)) == (truth, 1)


_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([])
)


@given(
    total=_values,
    counts=st.lists(st.integers(1, 40), min_size=3, max_size=3),
    config=st.dictionaries(
        st.sampled_from(["dtype", "torch_dtype", "quantization_config"]),
        st.one_of(_values, st.dictionaries(st.just("quant_method"), _values)),
    ),
)
def test_whatever_an_index_says_the_bytes_stay_near_those_of_the_files(
    total: object, counts: list[int], config: dict[str, object]
) -> None:
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    contents = [
        save({f"layers.{n}.weight": torch.zeros(50) for n in range(10 * number)})
        for number in (1, 2, 3)
    ]
    weight_map = {
        f"{shard}.{n}": shard
        for shard, count in zip(shards, counts, strict=True)
        for n in range(count)
    }
    index = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map})
    known = {"config.json": json.dumps(config).encode(), INDEX: index.encode()}
    sizes = {shard: len(content) for shard, content in zip(shards, contents, strict=True)}
    listing = Listing(
        repo_id="a/b",
        revision="main",
        commit_hash="0" * 40,
        files=tuple(
            RepoFile(path=path, size=size, etag="0" * 40)
            for path, size in (sizes | dict.fromkeys(known, 10)).items()
        ),
    )
    selection = select(listing, SelectionRequest(), known)
    files = {file.path: file for file in selection.files}
    headers: dict[str, Header | None] = {}
    for _ in range(2):
        for path in header_reads(selection, known, headers):
            headers[path] = parse_header(contents[shards.index(path)], files[path])
    (weights,) = component_weights(selection, known, headers)
    assert 0 <= weights.total <= sum(sizes.values())
    if len(headers) == 3:
        assert (weights.total, weights.counted) == (60 * 50 * 4, True)


# --- quantized ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantization", "method"),
    [
        ({"quant_method": "GPTQ", "bits": 4}, "gptq"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "<b>\n"}, None),
        ({"quant_method": 7}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_configuration_names_the_quantization(
    tmp_path: Path, quantization: object, method: str | None
) -> None:
    config = CONFIG | {"quantization_config": quantization}
    (weights,) = Repo(write(tmp_path, layers(1), config=config)).weights()
    assert weights.quantization == method


def test_a_component_whose_configuration_does_not_say_it_shows_it_in_its_header(
    tmp_path: Path,
) -> None:
    state = {
        "blocks.0.weight": torch.zeros(5000, dtype=torch.uint8),
        "blocks.0.weight.absmax": torch.zeros(40),
        "blocks.0.weight.quant_state.bitsandbytes__nf4": torch.zeros(9, dtype=torch.uint8),
    }
    folder = tmp_path / "transformer"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "P", "transformer": ["diffusers", "SomeModel"]})
    )
    repo = Repo(tmp_path)
    (weights,) = repo.weights()
    assert repo.known["transformer/config.json"] == b"{}"
    assert (weights.quantization, by_dtype([weights])) == ("bitsandbytes", repo.bytes_of_files())


def test_headers_must_be_read_first(tmp_path: Path) -> None:
    repo = Repo(write(tmp_path, layers(1)))
    with pytest.raises(ValueError, match="not read yet: model"):
        component_weights(repo.selection, repo.known, {})
