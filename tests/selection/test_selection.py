"""The selection, as tables: what a repository has, and what of it is selected or refused."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import (
    MalformedFileError,
    NbloaderError,
    NoWeightsError,
    RepoError,
    UnsafePathError,
    UnsupportedRepoError,
    VariantNotFoundError,
)
from nbloader.records import Kind, Listing, RepoFile, Selection, SelectionRequest
from nbloader.selection import needed, select
from nbloader.selection.repo import is_code
from nbloader.selection.sizes import component_weights

# Path to content: a JSON value, or bytes as they are. `...` is a file that no selection may read.
Files: TypeAlias = Mapping[str, object]

# What stands around a model says which packages it needs.
TELLING = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")


def listing_of(files: Files) -> Listing:
    return Listing(
        repo_id="someone/something",
        revision="main",
        commit_hash="0" * 40,
        files=tuple(RepoFile(path=path, size=10, etag="0" * 40) for path in files),
    )


def content(value: object) -> bytes:
    assert value is not ..., "a file was read that the selection must not need"
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def _or_empty(path: str, files: Files) -> object:
    """Return what a file holds; those of components of pipelines are read, whatever they say."""
    of_component = "model_index.json" in files and path.rpartition("/")[2] == "config.json"
    return {} if of_component and files[path] is ... else files[path]


def selection_of(
    files: Files, request: SelectionRequest | None = None, *, rounds: int = 3
) -> Selection:
    """Selection as the worker does: read what is asked for, until nothing is."""
    request = request or SelectionRequest()
    listing = listing_of(files)
    known: dict[str, bytes] = {}
    for _ in range(rounds):
        wanted = needed(listing, request, known).reads
        if not wanted:
            break
        assert not known.keys() & set(wanted)
        known |= {path: content(_or_empty(path, files)) for path in wanted}
    selection = select(listing, request, known)
    selected = [path for component in selection.components for path in component.paths]
    assert sorted(selected) == [file.path for file in selection.files]
    assert set(selected) <= set(files)
    assert set(known) <= set(selected), "read in vain"
    assert all(set(part.weights) <= set(part.paths) for part in selection.components)
    return selection


def parts(selection: Selection) -> dict[str, list[str]]:
    return {component.name: list(component.paths) for component in selection.components}


def unused(*paths: str) -> dict[str, object]:
    return {path: {} if path.endswith(TELLING) else ... for path in paths}


def index_of(*shards: str) -> dict[str, object]:
    return {"metadata": {}, "weight_map": {str(key): shard for key, shard in enumerate(shards)}}


def shards(stem: str, suffix: str = "safetensors") -> list[str]:
    return [f"{stem}-00001-of-00002.{suffix}", f"{stem}-00002-of-00002.{suffix}"]


UNET = ["diffusers", "UNet2DConditionModel"]
TEXT_ENCODER = ["transformers", "CLIPTextModel"]
PIPELINE = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1"}


# --- transformers -------------------------------------------------------------------------------

MODEL = {"config.json": {"architectures": ["BertModel"], "model_type": "bert"}}


@pytest.mark.parametrize(
    ("present", "variant", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin"], None, ["model.safetensors"]),
        (["pytorch_model.bin", "tf_model.h5", "model.onnx"], None, ["pytorch_model.bin"]),
        (
            ["model.safetensors", "model.safetensors.index.json", *shards("model")],
            None,
            ["model.safetensors"],
        ),
        (
            ["pytorch_model.bin", "model.safetensors.index.json", *shards("model")],
            None,
            [*shards("model"), "model.safetensors.index.json"],
        ),
        (
            ["pytorch_model.bin.index.json", *shards("pytorch_model", "bin")],
            None,
            [*shards("pytorch_model", "bin"), "pytorch_model.bin.index.json"],
        ),
        (["model.safetensors", "model.fp16.safetensors"], None, ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors"], "fp16", ["model.fp16.safetensors"]),
        (["model.safetensors", "pytorch_model.fp16.bin"], "fp16", ["pytorch_model.fp16.bin"]),
        (
            ["model.safetensors", "model.safetensors.index.fp16.json", *shards("model.fp16")],
            "fp16",
            [*shards("model.fp16"), "model.safetensors.index.fp16.json"],
        ),
    ],
)
def test_transformers_weights(present: list[str], variant: str | None, expected: list[str]) -> None:
    files = MODEL | {
        path: index_of(*[name for name in present if "-of-" in name]) if ".index." in path else ...
        for path in present
    }
    selection = selection_of(files, SelectionRequest(variant=variant), rounds=1 + 1)
    assert parts(selection) == {"model": sorted(["config.json", *expected])}
    assert selection.variant == variant
    assert selection.components[0].weights == tuple(
        sorted(name for name in expected if ".index." not in name)
    )


def test_transformers_takes_the_processing_files_and_nothing_else() -> None:
    wanted = unused(
        "added_tokens.json",
        "additional_chat_templates/tools.jinja",
        "chat_template.jinja",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "special_tokens_map.json",
        "spiece.model",
        "tokenizer.4.0.0.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
        "vocab.json",
    )
    others = unused(
        ".gitattributes",
        "LICENSE",
        "README.md",
        "additional_chat_templates/notes.txt",
        "consolidated.safetensors",
        "flax_model.msgpack",
        "modeling_x.py",
        "onnx/config.json",
        "onnx/model.onnx",
        "original/tokenizer.model",
        "tf_model.h5",
        "training_args.bin",
        "trainer_state.json",
        "x.Q4_K_M.gguf",
    )
    model = unused("generation_config.json", "model.safetensors")
    selection = selection_of(MODEL | wanted | others | model)
    assert parts(selection) == {
        "model": ["config.json", "generation_config.json", "model.safetensors"],
        "config": sorted(wanted),
    }
    assert (selection.kind, selection.class_name, selection.custom_code) == (
        Kind.TRANSFORMERS,
        "BertModel",
        False,
    )
    assert [part.model_type for part in selection.components] == ["bert", None]


@pytest.mark.parametrize("model_type", [None, 7, "", ["bert"], "<b>", "a\nb", "x" * 65, "../bert"])
def test_a_model_type_is_a_plain_name_or_none(model_type: object) -> None:
    files = {"config.json": {"model_type": model_type}, **unused("model.safetensors")}
    assert selection_of(files).components[0].model_type is None


@pytest.mark.parametrize(
    ("asked", "tag", "kind", "expected"),
    [
        (None, None, None, None),
        (None, "fill-mask", None, "fill-mask"),
        ("text-classification", "fill-mask", None, "text-classification"),
        (None, "fill-mask", Kind.SENTENCE_TRANSFORMERS, None),
    ],
)
def test_the_task_is_the_callers_or_else_the_hubs(
    asked: str | None, tag: str | None, kind: Kind | None, expected: str | None
) -> None:
    files = {"config.json": {"model_type": "bert"}, "model.safetensors": ...}
    listing = replace(listing_of(files), pipeline_tag=tag)
    request = SelectionRequest(kind=kind, task=asked)
    selection = select(listing, request, {"config.json": content(files["config.json"])})
    assert selection.task == expected


def test_transformers_follows_the_weights_that_the_config_names() -> None:
    files = {
        "config.json": {"transformers_weights": "ours.safetensors"},
        **unused("model.safetensors", "ours.safetensors"),
    }
    assert parts(selection_of(files)) == {"model": ["config.json", "ours.safetensors"]}


def test_python_files_are_selected_only_when_they_are_trusted_and_used() -> None:
    files = {
        "config.json": {"auto_map": {"AutoModel": "modeling_x.Model"}},
        **unused("modeling_x.py", "parts.py", "vocab.tiktoken", "model.safetensors", "README.md"),
    }
    plain = selection_of(files)
    assert (parts(plain), plain.custom_code) == (
        {"model": ["config.json", "model.safetensors"]},
        False,
    )
    trusted = selection_of(files, SelectionRequest(trust_remote_code=True))
    assert (parts(trusted), trusted.custom_code) == (
        {
            "model": ["config.json", "model.safetensors"],
            "config": ["modeling_x.py", "parts.py", "vocab.tiktoken"],
        },
        True,
    )
    unmapped = selection_of({**files, "config.json": {}}, SelectionRequest(trust_remote_code=True))
    assert parts(unmapped) == parts(plain)
    assert [
        [part.code for part in selection.components] for selection in (plain, trusted, unmapped)
    ] == [
        [("modeling_x.py",)],
        [(), ()],
        [()],
    ]


@pytest.mark.parametrize(
    ("auto_map", "code"),
    [
        ({"AutoConfig": "b.Config", "AutoModel": "a.Model"}, ("a.py", "b.py")),
        ({"AutoTokenizer": ["a.Slow", None], "AutoConfig": "a.Config"}, ("a.py",)),
        ({"AutoConfig": "own/other--a.Config"}, ("own/other--a.py",)),
        # There is nothing to trust in what is not there.
        ({"AutoConfig": "c.Config", "AutoModel": "../a.Model"}, ()),
        ({"AutoConfig": "Config", "AutoModel": "own/other--Model"}, ()),
        ({"AutoConfig": 3, "AutoModel": [["a.Model"]]}, ()),
        (["a.Model"], ()),
        (None, ()),
    ],
)
@pytest.mark.parametrize("folder", ["", "0_Transformer/"])
def test_code_that_is_not_trusted_is_known_by_its_files(
    folder: str, auto_map: object, code: tuple[str, ...]
) -> None:
    config = {f"{folder}config.json": {"model_type": "x", "auto_map": auto_map}}
    files = config | unused(*(f"{folder}{name}" for name in ("a.py", "b.py", "model.safetensors")))
    listed = modules((folder.removesuffix("/"), f"{LEGACY}Transformer"))
    there = tuple(name if "--" in name else f"{folder}{name}" for name in code)
    if not folder:
        assert selection_of(files).components[0].code == there
    selection = selection_of(files | listed)
    assert (selection.kind, selection.custom_code) == (Kind.SENTENCE_TRANSFORMERS, False)
    (model,) = (part for part in selection.components if part.name != "config")
    assert (model.model_type, model.code) == ("x", there)


# --- sentence-transformers ----------------------------------------------------------------------


def modules(*entries: tuple[str, str]) -> dict[str, object]:
    return {
        "modules.json": [
            {"idx": idx, "name": str(idx), "path": path, "type": class_ref}
            for idx, (path, class_ref) in enumerate(entries)
        ]
    }


LEGACY = "sentence_transformers.models."


def test_the_shape_of_minilm_leaves_every_copy_behind() -> None:
    files = {
        **modules(
            ("", f"{LEGACY}Transformer"),
            ("1_Pooling", f"{LEGACY}Pooling"),
            ("2_Normalize", f"{LEGACY}Normalize"),
        ),
        "config.json": {"model_type": "bert"},
        "config_sentence_transformers.json": {"prompts": {}},
        **unused(
            ".gitattributes",
            "1_Pooling/config.json",
            "README.md",
            "data_config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/model_O4.onnx",
            "openvino/openvino_model.bin",
            "openvino/openvino_model.xml",
            "pytorch_model.bin",
            "rust_model.ot",
            "sentence_bert_config.json",
            "special_tokens_map.json",
            "tf_model.h5",
            "tokenizer.json",
            "tokenizer_config.json",
            "train_script.py",
            "vocab.txt",
        ),
    }
    selection = selection_of(files, rounds=2)
    assert parts(selection) == {
        "model": [
            "config.json",
            "model.safetensors",
            "sentence_bert_config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
        ],
        "1_Pooling": ["1_Pooling/config.json"],
        "2_Normalize": [],
        "config": ["README.md", "config_sentence_transformers.json", "modules.json"],
    }
    assert selection.class_name == "SentenceTransformer"
    assert [part.class_name for part in selection.components] == [
        "Transformer",
        "Pooling",
        "Normalize",
        None,
    ]
    assert [part.model_type for part in selection.components] == ["bert", None, None, None]
    assert selection.kind is Kind.SENTENCE_TRANSFORMERS


@pytest.mark.parametrize(
    ("class_ref", "present", "expected"),
    [
        (
            f"{LEGACY}Transformer",
            ["config.json", "pytorch_model.bin", "sentence_roberta_config.json", "merges.txt"],
            ["config.json", "merges.txt", "pytorch_model.bin", "sentence_roberta_config.json"],
        ),
        (
            f"{LEGACY}CLIPModel",
            ["config.json", "model.safetensors", "pytorch_model.bin", "preprocessor_config.json"],
            ["config.json", "model.safetensors", "preprocessor_config.json"],
        ),
        (
            f"{LEGACY}Dense",
            ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5"],
            ["config.json", "model.safetensors"],
        ),
        (
            "sentence_transformers.base.modules.dense.Dense",
            ["config.json", "pytorch_model.bin"],
            ["config.json", "pytorch_model.bin"],
        ),
        (
            f"{LEGACY}WordEmbeddings",
            [
                "pytorch_model.bin",
                "whitespacetokenizer_config.json",
                "wordembedding_config.json",
                "notes.json",
            ],
            ["pytorch_model.bin", "whitespacetokenizer_config.json", "wordembedding_config.json"],
        ),
        (
            f"{LEGACY}StaticEmbedding",
            ["model.safetensors", "tokenizer.json", "README.md"],
            ["model.safetensors", "tokenizer.json"],
        ),
        (f"{LEGACY}LSTM", ["lstm_config.json", "pytorch_model.bin"], None),
        (f"{LEGACY}CNN", ["cnn_config.json", "model.safetensors"], None),
        (f"{LEGACY}BoW", ["config.json", "bow.bin"], ["config.json"]),
        (
            f"{LEGACY}FromTheFuture",
            ["config.json", "model.safetensors", "x.onnx"],
            [
                "config.json",
                "model.safetensors",
            ],
        ),
    ],
)
def test_sentence_transformers_modules(
    class_ref: str, present: list[str], expected: list[str] | None
) -> None:
    files = modules(("0_Part", class_ref)) | unused(*[f"0_Part/{name}" for name in present])
    is_model = class_ref.endswith(("Transformer", "CLIPModel"))
    if is_model:  # The configurations of other modules name no family.
        files["0_Part/config.json"] = {"model_type": "bert"}
    if "wordembedding_config.json" in present:  # It may name code, and packages.
        files["0_Part/wordembedding_config.json"] = {}
    selection = selection_of(files)
    assert parts(selection) == {
        "0_Part": sorted(f"0_Part/{name}" for name in expected or present),
        "config": ["modules.json"],
    }
    assert selection.components[0].model_type == ("bert" if is_model else None)


@pytest.mark.parametrize(
    ("present", "weights"),
    [
        (["ours.safetensors", "model.safetensors"], ["ours.safetensors"]),
        (["ours.safetensors"], ["ours.safetensors"]),
    ],
)
def test_a_transformer_module_has_the_weights_that_its_config_names(
    present: list[str], weights: list[str]
) -> None:
    files = {
        **modules(("", f"{LEGACY}Transformer")),
        "config.json": {"transformers_weights": "ours.safetensors"},
        **unused(*present),
    }
    assert parts(selection_of(files))["model"] == ["config.json", *weights]


def test_a_router_brings_the_modules_in_its_folders() -> None:
    files = {
        **modules(("", f"{LEGACY}Asym"), ("1_Normalize", f"{LEGACY}Normalize")),
        "config.json": {
            "types": {
                "query_0_StaticEmbedding": f"{LEGACY}StaticEmbedding",
                "document_0_Transformer": f"{LEGACY}Transformer",
                "document_1_Pooling": f"{LEGACY}Pooling",
            },
        },
        "document_0_Transformer/config.json": {"model_type": "bert"},
        **unused(
            "query_0_StaticEmbedding/model.safetensors",
            "query_0_StaticEmbedding/tokenizer.json",
            "document_0_Transformer/model.safetensors",
            "document_0_Transformer/onnx/model.onnx",
            "document_1_Pooling/config.json",
            "stray/model.safetensors",
        ),
    }
    selection = selection_of(files)
    assert parts(selection) == {
        "model": ["config.json"],
        "query_0_StaticEmbedding": [
            "query_0_StaticEmbedding/model.safetensors",
            "query_0_StaticEmbedding/tokenizer.json",
        ],
        "document_0_Transformer": [
            "document_0_Transformer/config.json",
            "document_0_Transformer/model.safetensors",
        ],
        "document_1_Pooling": ["document_1_Pooling/config.json"],
        "1_Normalize": [],
        "config": ["modules.json"],
    }


def test_a_plain_transformer_can_be_asked_for_as_an_embedding_model() -> None:
    files = MODEL | unused("model.safetensors", "tokenizer.json")
    selection = selection_of(files, SelectionRequest(kind=Kind.SENTENCE_TRANSFORMERS))
    assert parts(selection) == {"model": ["config.json", "model.safetensors", "tokenizer.json"]}


SETTINGS = "config_sentence_transformers.json"
WEIGHTS = unused("model.safetensors")
TRANSFORMER = modules(("", f"{LEGACY}Transformer"))
LATE = modules(("", f"{LEGACY}Transformer"), ("1_Dense", "pylate.models.Dense.Dense"))
LATE_FILES = {"config.json": {}, **WEIGHTS, **unused("1_Dense/model.safetensors")}


def of(architecture: str, **keys: object) -> dict[str, object]:
    """A model of transformers alone."""
    return {"config.json": {"architectures": [architecture], **keys}, **WEIGHTS}


@pytest.mark.parametrize(
    ("files", "described", "class_name"),
    [
        (TRANSFORMER | of("BertModel"), {}, "SentenceTransformer"),
        (TRANSFORMER | of("BertModel") | {SETTINGS: {"prompts": {}}}, {}, "SentenceTransformer"),
        (TRANSFORMER | of("X") | {SETTINGS: {"model_type": "CrossEncoder"}}, {}, "CrossEncoder"),
        (TRANSFORMER | of("X") | {SETTINGS: {"model_type": "SparseEncoder"}}, {}, "SparseEncoder"),
        (TRANSFORMER | of("X") | {SETTINGS: {"model_type": "OfTomorrow"}}, {}, "OfTomorrow"),
        # ColBERT, by PyLate and by its authors.
        (LATE | LATE_FILES | {SETTINGS: {"model_type": "ColBERT"}}, {}, "MultiVectorEncoder"),
        (LATE | LATE_FILES, {}, "MultiVectorEncoder"),
        (TRANSFORMER | of("HF_ColBERT"), {}, "MultiVectorEncoder"),
        (of("HF_ColBERT"), {}, "MultiVectorEncoder"),
        # Cross-encoders of before version 5.4.
        (of("BertForSequenceClassification", sentence_transformers={}), {}, "CrossEncoder"),
        (
            of("BertForSequenceClassification", sbert_ce_default_activation_function=None),
            {},
            "CrossEncoder",
        ),
        # What the Hub says.
        (of("BertModel"), {"library_name": "sentence-transformers"}, "SentenceTransformer"),
        (
            of("BertForSequenceClassification"),
            {"library_name": "sentence-transformers", "pipeline_tag": "text-ranking"},
            "CrossEncoder",
        ),
        (
            of("Qwen3ForCausalLM"),
            {"library_name": "sentence-transformers", "pipeline_tag": "text-ranking"},
            "CrossEncoder",
        ),
        (
            of("ColPaliForRetrieval"),
            {"library_name": "sentence-transformers"},
            "MultiVectorEncoder",
        ),
        # Models of transformers.
        (of("BertForSequenceClassification"), {"pipeline_tag": "text-ranking"}, None),
        (of("BertModel"), {"library_name": "transformers"}, None),
        (of("BertModel", sentence_transformers={}), {}, None),
    ],
)
def test_the_class_of_sentence_transformers_that_a_repository_is_for(
    files: Files, described: dict[str, str], class_name: str | None
) -> None:
    listing = replace(listing_of(files), **described)  # type: ignore[arg-type]
    known: dict[str, bytes] = {}
    while wanted := needed(listing, SelectionRequest(), known).reads:
        known |= {path: content(files[path]) for path in wanted}
    selection = select(listing, SelectionRequest(), known)
    if class_name is None:
        assert selection.kind is Kind.TRANSFORMERS
    else:
        assert (selection.kind, selection.class_name) == (Kind.SENTENCE_TRANSFORMERS, class_name)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (of("BertModel") | {SETTINGS: {"model_type": "SparseEncoder"}}, "'BertModel'"),
        (of("BertModel") | {SETTINGS: {"model_type": "MultiVectorEncoder"}}, "'BertModel'"),
        (TRANSFORMER | of("BertModel") | {SETTINGS: {"query_prefix": "[Q]"}}, "no Dense module"),
    ],
)
def test_a_class_that_would_get_a_random_layer_is_refused(files: Files, told: str) -> None:
    with pytest.raises(UnsupportedRepoError, match=f"{told}: it would get a layer of random"):
        selection_of(files)


@pytest.mark.parametrize(
    ("class_ref", "told"),
    [
        ("own.Part", "has a module with code of its own: 'own.Part'"),
        ("package.deep.Part", "has a module with code of the package 'package'"),
        ("org/code--own.Part", "has a module with code of 'org/code'"),
    ],
)
def test_whose_code_a_module_would_run_is_said(class_ref: str, told: str) -> None:
    files = modules(("", f"{LEGACY}Transformer"), ("1_Part", class_ref)) | of("BertModel")
    files |= {"own.py": b"", "1_Part/config.json": {}}
    with pytest.raises(UnsupportedRepoError) as caught:
        selection_of(files)
    assert told in caught.value.message
    if "--" not in class_ref:
        selection = selection_of(files, SelectionRequest(trust_remote_code=True))
        needs = ("package",) if class_ref.startswith("package") else ()
        assert (selection.custom_code, selection.components[1].needs) == (True, needs)


# --- diffusers ----------------------------------------------------------------------------------


def diffusers_files(index: dict[str, object], **folders: list[str]) -> dict[str, object]:
    files: dict[str, object] = {"model_index.json": PIPELINE | index}
    for folder, names in folders.items():
        for name in names:
            present = [shard for shard in names if "-of-" in shard]
            files[f"{folder}/{name}"] = index_of(*present) if ".index." in name else ...
    return files


D = "diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("component", "present", "variant", "expected"),
    [
        (UNET, [f"{D}.safetensors", f"{D}.bin"], None, [f"{D}.safetensors"]),
        (UNET, [f"{D}.bin", f"{D}.onnx", "flax.msgpack"], None, [f"{D}.bin"]),
        # ModelMixin asks for the index first.
        (
            UNET,
            [f"{D}.safetensors", f"{D}.safetensors.index.json", *shards(D)],
            None,
            [f"{D}.safetensors.index.json", *shards(D)],
        ),
        # PreTrainedModel asks for the single file first.
        (
            TEXT_ENCODER,
            ["model.safetensors", "model.safetensors.index.json", *shards("model")],
            None,
            ["model.safetensors"],
        ),
        (
            TEXT_ENCODER,
            ["model.safetensors.index.json", *shards("model"), "pytorch_model.bin"],
            None,
            ["model.safetensors.index.json", *shards("model")],
        ),
        (
            ["stable_diffusion", "StableDiffusionSafetyChecker"],
            ["model.safetensors", "pytorch_model.bin"],
            None,
            ["model.safetensors"],
        ),
        (UNET, [f"{D}.safetensors", f"{D}.fp16.safetensors"], "fp16", [f"{D}.fp16.safetensors"]),
        (UNET, [f"{D}.safetensors", f"{D}.fp16.bin"], "fp16", [f"{D}.fp16.bin"]),
        (
            UNET,
            [f"{D}.safetensors", f"{D}.safetensors.index.fp16.json", *shards(f"{D}.fp16")],
            "fp16",
            [f"{D}.safetensors.index.fp16.json", *shards(f"{D}.fp16")],
        ),
        (
            UNET,
            [
                f"{D}.safetensors",
                f"{D}.safetensors.fp16.index.json",
                *shards(D, "fp16.safetensors"),
            ],
            "fp16",
            [f"{D}.safetensors.fp16.index.json", *shards(D, "fp16.safetensors")],
        ),
    ],
)
def test_diffusers_weights(
    component: list[str], present: list[str], variant: str | None, expected: list[str]
) -> None:
    files = diffusers_files({"part": component}, part=["config.json", "LICENSE", *present])
    selection = selection_of(files, SelectionRequest(variant=variant), rounds=2)
    assert parts(selection) == {
        "part": sorted(f"part/{name}" for name in ["config.json", *expected]),
        "config": ["model_index.json"],
    }


def test_a_variant_mixes_with_plain_weights_where_a_component_has_none() -> None:
    files = diffusers_files(
        {"vae": ["diffusers", "AutoencoderKL"], "unet": UNET},
        vae=["config.json", f"{D}.safetensors"],
        unet=["config.json", f"{D}.safetensors", f"{D}.fp16.safetensors"],
    )
    assert parts(selection_of(files, SelectionRequest(variant="fp16"))) == {
        "vae": ["vae/config.json", f"vae/{D}.safetensors"],
        "unet": ["unet/config.json", f"unet/{D}.fp16.safetensors"],
        "config": ["model_index.json"],
    }


def test_one_component_with_bin_only_leaves_the_others_their_safetensors() -> None:
    files = diffusers_files(
        {"text_encoder": TEXT_ENCODER, "unet": UNET},
        text_encoder=["config.json", "pytorch_model.bin"],
        unet=["config.json", f"{D}.safetensors", f"{D}.bin"],
    )
    assert parts(selection_of(files)) == {
        "text_encoder": ["text_encoder/config.json", "text_encoder/pytorch_model.bin"],
        "unet": ["unet/config.json", f"unet/{D}.safetensors"],
        "config": ["model_index.json"],
    }


def test_a_component_that_is_handed_in_is_not_fetched() -> None:
    files = diffusers_files(
        {"unet": UNET, "scheduler": ["diffusers", "DDIMScheduler"]},
        unet=["config.json", f"{D}.safetensors"],
        scheduler=["scheduler_config.json"],
    )
    selection = selection_of(files, SelectionRequest(handed_in=("device_map", "unet")), rounds=1)
    assert parts(selection) == {
        "scheduler": ["scheduler/scheduler_config.json"],
        "config": ["model_index.json"],
    }


def test_what_a_component_is_quantized_with_is_known_from_its_configuration() -> None:
    files = diffusers_files({"unet": UNET}, unet=["config.json", f"{D}.safetensors"])
    config = {"quantization_config": {"quant_method": "torchao"}}
    selection = selection_of({**files, "unet/config.json": config})
    known = {"unet/config.json": content(config)}
    (weights,) = component_weights(selection, known, {f"unet/{D}.safetensors": None})
    assert weights.quantization == "torchao"


def test_what_is_no_component_stays_behind() -> None:
    files = diffusers_files(
        {
            "unet": UNET,
            "safety_checker": [None, None],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "requires_safety_checker": False,
            "sizes": [64, 64],
            "names": ["a", "b", "c"],
            "_name_or_path": "x",
        },
        unet=["config.json", f"{D}.safetensors", f"{D}.non_ema.safetensors", "model.onnx"],
        safety_checker=["config.json", "model.safetensors"],
        vae_1_0=["config.json", f"{D}.safetensors"],
        non_ema=["config.json", f"{D}.safetensors"],
        tokenizer=["merges.txt", "vocab.json", "LICENSE", "README.md", "picture.png"],
        scheduler=["scheduler_config.json", "config.json"],
    ) | unused("v1-5-pruned.ckpt", "v1-5.safetensors", "README.md", "pipeline.py", "config.json")
    selection = selection_of(files, rounds=2)
    assert parts(selection) == {
        "unet": ["unet/config.json", f"unet/{D}.safetensors"],
        "tokenizer": ["tokenizer/merges.txt", "tokenizer/vocab.json"],
        "scheduler": ["scheduler/scheduler_config.json"],
        "config": ["model_index.json"],
    }
    assert (selection.class_name, selection.custom_code) == ("StableDiffusionPipeline", False)


def test_a_component_without_a_folder_is_looked_for_in_the_root() -> None:
    files = diffusers_files(
        {
            "unet": UNET,
            "text_encoder": TEXT_ENCODER,
            "tokenizer": ["transformers", "CLIPTokenizer"],
        },
        unet=["config.json", f"{D}.safetensors"],
    ) | unused("config.json", "model.safetensors", "tokenizer.json", "README.md")
    assert parts(selection_of(files)) == {
        "unet": ["unet/config.json", f"unet/{D}.safetensors"],
        "text_encoder": ["config.json", "model.safetensors"],
        "tokenizer": ["tokenizer.json"],
        "config": ["model_index.json"],
    }


def test_files_that_the_index_ignores_are_not_there() -> None:
    files = diffusers_files(
        {"unet": UNET, "_ignore_files": [f"unet/{D}.safetensors", 3]},
        unet=["config.json", f"{D}.safetensors", f"{D}.bin"],
    )
    assert parts(selection_of(files))["unet"] == ["unet/config.json", f"unet/{D}.bin"]


@pytest.mark.parametrize(
    ("index", "code"),
    [
        ({"_class_name": ["pipeline", "OwnPipeline"], "unet": UNET}, "pipeline.py"),
        ({"unet": ["own_unet", "OwnUNet"]}, "unet/own_unet.py"),
    ],
)
def test_code_in_a_pipeline_needs_trust(index: dict[str, object], code: str) -> None:
    files = diffusers_files(index, unet=["config.json", f"{D}.safetensors"]) | unused(code)
    with pytest.raises(UnsupportedRepoError, match="trust_remote_code=True"):
        selection_of(files)
    files[code] = b"import torch\n"
    selection = selection_of(files, SelectionRequest(trust_remote_code=True))
    assert code in {file.path for file in selection.files}
    assert (selection.custom_code, selection.custom_pipeline) == (True, code == "pipeline.py")


def test_code_brings_the_files_that_it_imports_beside_it() -> None:
    index: dict[str, object] = {"_class_name": ["pipeline", "OwnPipeline"], "unet": UNET}
    files: dict[str, object] = diffusers_files(index, unet=["config.json", f"{D}.safetensors"])
    files |= unused("parts/blocks.py", "other.py", "setup.py") | {
        "pipeline.py": b"from .parts.blocks import Block\n  from .other import x\nimport .other\n"
    }
    trusted = SelectionRequest(trust_remote_code=True)
    assert parts(selection_of(files, trusted))["config"] == [
        "model_index.json",
        "other.py",
        "parts/blocks.py",
        "pipeline.py",
    ]
    files["pipeline.py"] = b"from .gone import x\n"
    with pytest.raises(MalformedFileError, match=r"imports '\.gone'"):
        selection_of(files, trusted)


CUSTOM = diffusers_files({"unet": UNET}, unet=["config.json", f"{D}.safetensors"]) | {
    "own.py": b"import torch\n"
}


@pytest.mark.parametrize(
    ("custom", "selected"),
    [
        ("own", ["model_index.json", "own.py"]),
        ("./own.py", ["model_index.json"]),
        ("/some/folder", ["model_index.json"]),
    ],
)
def test_code_that_the_caller_names_needs_trust(custom: str, selected: list[str]) -> None:
    request = SelectionRequest(custom_pipeline=custom, handed_in=("custom_pipeline",))
    with pytest.raises(UnsupportedRepoError, match="trust_remote_code=True"):
        selection_of(CUSTOM, request)
    selection = selection_of(CUSTOM, replace(request, trust_remote_code=True))
    assert parts(selection)["config"] == selected
    assert (selection.custom_code, selection.custom_pipeline) == (True, True)


NETS: dict[str, object] = {"unet": UNET, "controlnet": ["diffusers", "MultiControlNetModel"]}


def test_a_list_of_models_has_a_folder_for_each() -> None:
    files = diffusers_files(
        NETS,
        unet=["config.json", f"{D}.safetensors"],
        controlnet=["config.json", f"{D}.safetensors"],
        controlnet_1=["config.json", f"{D}.safetensors"],
        controlnet_2=["config.json", f"{D}-00001-of-00001.safetensors"],
        controlnet_4=["config.json", f"{D}.safetensors"],
    )
    files[f"controlnet_2/{D}.safetensors.index.json"] = index_of(f"{D}-00001-of-00001.safetensors")
    selection = selection_of(files)
    nets = next(part for part in selection.components if part.name == "controlnet")
    weights = [
        f"controlnet/{D}.safetensors",
        f"controlnet_1/{D}.safetensors",
        f"controlnet_2/{D}-00001-of-00001.safetensors",
    ]
    assert list(nets.weights) == weights
    assert sorted(nets.paths) == sorted(
        [
            *weights,
            f"controlnet_2/{D}.safetensors.index.json",
            *(f"{folder}/config.json" for folder in ("controlnet", "controlnet_1", "controlnet_2")),
        ]
    )


def test_a_list_of_models_comes_in_one_variant() -> None:
    one = ["config.json", f"{D}.safetensors"]
    both = [*one, f"{D}.fp16.safetensors"]
    fp16 = SelectionRequest(variant="fp16")
    files = diffusers_files(NETS, unet=both, controlnet=both, controlnet_1=both)
    assert f"controlnet_1/{D}.fp16.safetensors" in parts(selection_of(files, fp16))["controlnet"]
    files = diffusers_files(NETS, unet=both, controlnet=one, controlnet_1=both)
    assert f"controlnet_1/{D}.safetensors" in parts(selection_of(files, fp16))["controlnet"]
    files = diffusers_files(NETS, unet=both, controlnet=both, controlnet_1=one)
    with pytest.raises(VariantNotFoundError):
        selection_of(files, fp16)


# --- what is refused ----------------------------------------------------------------------------

TINY_PIPELINE = diffusers_files({"unet": UNET}, unet=["config.json", f"{D}.safetensors"])


@pytest.mark.parametrize(
    ("files", "request_", "error", "text"),
    [
        ({}, SelectionRequest(), UnsupportedRepoError, "has no files"),
        (unused(".gitattributes"), SelectionRequest(), UnsupportedRepoError, "has no files"),
        (
            unused("x.Q4_K_M.gguf", "config.json.bak"),
            SelectionRequest(),
            UnsupportedRepoError,
            "GGUF",
        ),
        (unused("README.md", "onnx/model.onnx"), SelectionRequest(), UnsupportedRepoError, "ONNX"),
        (unused("v1-5-pruned.ckpt"), SelectionRequest(), UnsupportedRepoError, "bare checkpoint"),
        (
            unused("pytorch_lora_weights.safetensors"),
            SelectionRequest(),
            UnsupportedRepoError,
            "LoRA",
        ),
        (unused("modular_model_index.json"), SelectionRequest(), UnsupportedRepoError, "modular"),
        (unused("notes.txt"), SelectionRequest(), UnsupportedRepoError, "Its card at"),
        (MODEL | unused("x.gguf"), SelectionRequest(), UnsupportedRepoError, "GGUF"),
        (MODEL | unused("onnx/model.onnx"), SelectionRequest(), UnsupportedRepoError, "ONNX"),
        (MODEL | unused("tf_model.h5"), SelectionRequest(), UnsupportedRepoError, "PyTorch"),
        (MODEL | unused("odd.safetensors"), SelectionRequest(), NoWeightsError, "no weights"),
        (
            {"config.json": {"_class_name": "ControlNetModel", "_diffusers_version": "0.42"}},
            SelectionRequest(),
            NoWeightsError,
            "no weights",
        ),
        (
            {"config.json": {"_class_name": "ControlNetModel", "_diffusers_version": "0.42"}},
            SelectionRequest(kind=Kind.TRANSFORMERS),
            UnsupportedRepoError,
            "Leave out kind= and task=",
        ),
        (
            TINY_PIPELINE,
            SelectionRequest(kind=Kind.TRANSFORMERS),
            UnsupportedRepoError,
            "leave out kind=",
        ),
        (
            diffusers_files({"unet": UNET}, unet=["config.json", "model.onnx"]),
            SelectionRequest(),
            NoWeightsError,
            "'unet'",
        ),
        # diffusers has no way to load shards of .bin
        (
            diffusers_files(
                {"unet": UNET},
                unet=["config.json", f"{D}.bin.index.json", *shards(D, "bin")],
            ),
            SelectionRequest(),
            NoWeightsError,
            "'unet'",
        ),
        (
            diffusers_files({"unet": ["diffusers", "OnnxRuntimeModel"]}, unet=["model.onnx"]),
            SelectionRequest(),
            UnsupportedRepoError,
            "OnnxRuntimeModel",
        ),
        (
            diffusers_files({"_class_name": "WuerstchenCombinedPipeline", "unet": UNET}),
            SelectionRequest(),
            UnsupportedRepoError,
            "more than one repository",
        ),
        (
            modules(("", "custom_st.Transformer")) | unused("custom_st.py"),
            SelectionRequest(),
            UnsupportedRepoError,
            "trust_remote_code=True",
        ),
        (
            modules(("0_Dense", f"{LEGACY}Dense")) | unused("0_Dense/config.json"),
            SelectionRequest(),
            NoWeightsError,
            "'0_Dense'",
        ),
        (
            MODEL | unused("model.safetensors", "model.fp16.safetensors"),
            SelectionRequest(variant="bf16"),
            VariantNotFoundError,
            "Variants that it has: 'fp16'",
        ),
        (
            diffusers_files(
                {"unet": UNET},
                unet=[
                    "config.json",
                    f"{D}.safetensors",
                    f"{D}.non_ema.bin",
                    "diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
                ],
            ),
            SelectionRequest(variant="bf16"),
            VariantNotFoundError,
            "Variants that it has: 'fp16', 'non_ema'",
        ),
        (
            TINY_PIPELINE,
            SelectionRequest(variant="fp16"),
            VariantNotFoundError,
            "leave out variant=",
        ),
        (
            diffusers_files(NETS, unet=["config.json", f"{D}.safetensors"], controlnet_1=["x"])
            | unused(f"controlnet/{D}.safetensors", "controlnet/config.json"),
            SelectionRequest(),
            NoWeightsError,
            "'controlnet_1'",
        ),
        (
            diffusers_files(
                {"controlnet": ["diffusers", "SD3MultiControlNetModel"]}, controlnet=["config.json"]
            ),
            SelectionRequest(),
            UnsupportedRepoError,
            "'SD3MultiControlNetModel'",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_a_reason(
    files: Files, request_: SelectionRequest, error: type[RepoError], text: str
) -> None:
    with pytest.raises(error) as raised:
        selection_of(files, request_)
    assert text in str(raised.value)
    assert type(raised.value) is error


def test_a_task_is_for_models_of_transformers() -> None:
    task = SelectionRequest(task="fill-mask")
    assert selection_of(MODEL | unused("model.safetensors"), task).task == "fill-mask"
    embedder = modules(("", f"{LEGACY}Transformer")) | MODEL | unused("model.safetensors")
    for files, hint in (
        (TINY_PIPELINE, "Leave out task=."),
        (
            embedder,
            "Leave out task=. For the model inside it, pass kind='transformers' too.",
        ),
    ):
        with pytest.raises(UnsupportedRepoError, match="task= is for models") as raised:
            selection_of(files, task)
        assert raised.value.hint == hint
    both = SelectionRequest(task="fill-mask", kind=Kind.TRANSFORMERS)
    assert selection_of(embedder, both).kind is Kind.TRANSFORMERS


def test_where_safetensors_are_asked_for_there_are_no_others() -> None:
    wish = SelectionRequest(safetensors_only=True)
    both = unused("model.safetensors", "pytorch_model.bin")
    assert selection_of(MODEL | both, wish).components[0].weights == ("model.safetensors",)
    with pytest.raises(NoWeightsError, match=r"'pytorch_model\.bin' of .* use_safetensors=True"):
        selection_of(MODEL | unused("pytorch_model.bin"), wish)


INDEXED = {
    **MODEL,
    "model.safetensors.index.json": index_of("shard.safetensors"),
    "shard.safetensors": ...,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("config.json", b"{"),
        ("config.json", b"\xff\xfe{\x00}\x00"),
        ("config.json", b"[" * 100_000),
        ("config.json", b'{"a": ' + b"9" * 5_000 + b"}"),
        ("config.json", b"null"),
        ("config.json", []),
        ("config.json", {"transformers_weights": 3}),
        ("config.json", {"transformers_weights": "pickle.bin"}),
        ("config.json", {"transformers_weights": "gone.safetensors"}),
        ("model.safetensors.index.json", []),
        ("model.safetensors.index.json", {"metadata": {}}),
        ("model.safetensors.index.json", {"weight_map": {"a": "model.safetensors"}}),
        ("model.safetensors.index.json", {"metadata": {}, "weight_map": {}}),
        ("model.safetensors.index.json", {"metadata": {}, "weight_map": {"a": 1}}),
        ("model.safetensors.index.json", {"metadata": {}, "weight_map": ["a"]}),
        ("model.safetensors.index.json", index_of("gone.safetensors")),
        ("modules.json", {}),
        ("modules.json", []),
        ("modules.json", [1]),
        ("modules.json", [{"path": "", "name": "0"}]),
        ("modules.json", [{"path": "", "name": "0", "type": ""}]),
        ("modules.json", [{"path": 0, "name": "0", "type": f"{LEGACY}Pooling"}]),
        ("modules.json", [{"path": "x", "name": "0", "type": f"{LEGACY}Router"}]),
        ("model_index.json", []),
        ("model_index.json", {}),
        ("model_index.json", PIPELINE),
        ("model_index.json", {"_class_name": 3, "unet": UNET}),
        ("model_index.json", {"_class_name": ["gone", "Pipeline"], "unet": UNET}),
        ("model_index.json", PIPELINE | {"unet": ["diffusers", None]}),
        ("model_index.json", PIPELINE | {"gone": UNET}),
        ("model_index.json", PIPELINE | {"config": UNET}),
        ("model_index.json", PIPELINE | {"a/b": UNET}),
    ],
)
def test_a_malformed_file_is_named(path: str, value: object) -> None:
    files = {**INDEXED, path: value}
    if path == "modules.json":
        files["config.json"] = {}
    with pytest.raises(MalformedFileError) as raised:
        selection_of(files)
    assert path in raised.value.message
    assert len(str(raised.value)) < 400


def test_a_file_that_is_too_large_to_be_json_is_not_even_asked_for() -> None:
    listing = Listing(
        repo_id="a/b",
        revision="main",
        commit_hash="0" * 40,
        files=(RepoFile(path="model_index.json", size=10**10, etag="0" * 40),),
    )
    with pytest.raises(MalformedFileError, match="too large"):
        needed(listing, SelectionRequest(), {})


UNSAFE = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "a/./b",
    "/etc/passwd",
    "//host/share",
    "a//b",
    "a/",
    "C:x",
    "c:/x",
    "a\\b",
    "a\x00b",
    "a\nb",
    "a\x7fb",
    "a\x85b",
    "\ud800",
    "a" * 2000,
]


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_name_anywhere_in_the_listing_is_refused(name: str) -> None:
    with pytest.raises(UnsafePathError) as raised:
        selection_of({**MODEL, **unused("model.safetensors", name)})
    text = str(raised.value)
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert len(text) < 300


@pytest.mark.parametrize("name", [name for name in UNSAFE if name not in ("", ".", "a/")])
def test_an_unsafe_name_inside_a_file_is_refused(name: str) -> None:
    for files in (
        {**INDEXED, "model.safetensors.index.json": index_of(name)},
        {**INDEXED, **modules((name, f"{LEGACY}Pooling"))},
        {**INDEXED, "model_index.json": PIPELINE | {name: UNET}},
    ):
        with pytest.raises(UnsafePathError):
            selection_of(files)


@pytest.mark.parametrize("name", ["aux", "COM1.x", "nul", "end.", "end ", "ab:c", "what?", "a|b"])
@pytest.mark.parametrize("windows", [False, True])
def test_a_selected_file_must_be_possible_on_this_system(
    name: str, windows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbloader.selection.repo.WINDOWS", windows)
    files = modules((name, f"{LEGACY}Pooling")) | unused(f"{name}/config.json")
    if ":" in name or windows:
        with pytest.raises(UnsafePathError, match="cannot be taken here"):
            selection_of(files)
    else:
        assert f"{name}/config.json" in {file.path for file in selection_of(files).files}
    beside = selection_of(MODEL | unused("model.safetensors", f"{name}/config.json"))
    assert parts(beside) == {"model": ["config.json", "model.safetensors"]}


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    "name", ["evil.py", "evil.PY", "evil.pkl", "evil.pt", "config.json", "evil", "evil.bin.so"]
)
def test_an_index_names_weights_alone(index: str, name: str, trusted: bool) -> None:
    files = unused("model-1.safetensors", name)
    files |= {"config.json": {}, index: index_of("model-1.safetensors", name)}
    with pytest.raises(MalformedFileError, match="no file of weights"):
        selection_of(files, SelectionRequest(trust_remote_code=trusted))


def test_an_index_of_safetensors_names_no_pickles() -> None:
    files = {"config.json": {}, "model.safetensors.index.json": index_of("model-1.bin")}
    with pytest.raises(MalformedFileError, match="no file of weights"):
        selection_of(files | unused("model-1.bin"))


@pytest.mark.parametrize("path", ["a.py", "b/C.PY", "x.pyc", "k.so", "k.pyd", "a.DLL"])
def test_what_python_would_import_is_code(path: str) -> None:
    assert is_code(path)


@pytest.mark.parametrize("path", ["py", "a.pyx.json", "a.jinja", "model.safetensors", "a.pt"])
def test_data_is_no_code(path: str) -> None:
    assert not is_code(path)


def test_a_folder_of_templates_brings_no_code() -> None:
    templates = "tokenizer/additional_chat_templates"
    files = {
        "model_index.json": PIPELINE
        | {"unet": UNET, "tokenizer": ["transformers", "CLIPTokenizer"]},
        "unet/config.json": ...,
        **unused(
            "unet/diffusion_pytorch_model.safetensors",
            "tokenizer/vocab.json",
            f"{templates}/rag.jinja",
            f"{templates}/x.py",
        ),
    }
    selection = selection_of(files)
    paths = {file.path for file in selection.files}
    assert f"{templates}/rag.jinja" in paths
    assert f"{templates}/x.py" not in paths
    assert not selection.custom_code


def test_a_listing_that_names_a_file_twice_is_refused() -> None:
    listing = listing_of(MODEL)
    twice = Listing(
        repo_id="a/b", revision="main", commit_hash="0" * 40, files=listing.files + listing.files
    )
    with pytest.raises(UnsafePathError, match="twice"):
        needed(twice, SelectionRequest(), {})


# --- invariants ---------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "model.fp16.safetensors",
        "tokenizer.json",
        "vocab.txt",
        "README.md",
        "modeling.py",
        f"{D}.safetensors",
        f"{D}.fp16.safetensors",
        "scheduler_config.json",
        "x.onnx",
    ]
)
FOLDERS = st.sampled_from(["", "unet/", "vae/", "scheduler/", "0_Dense/", "1_Pooling/", "onnx/"])
SHAPES: list[Files] = [
    {"model_index.json": PIPELINE | {"unet": UNET, "vae": UNET}},
    {"model_index.json": PIPELINE | {"unet": UNET, "vae": [None, None], "te": TEXT_ENCODER}},
    modules(
        ("", f"{LEGACY}Transformer"), ("1_Pooling", f"{LEGACY}Pooling"), ("", f"{LEGACY}Dense")
    ),
    modules(("0_Dense", f"{LEGACY}Dense"), ("0_Dense", f"{LEGACY}Dense")),
    {},
]


@given(
    st.sampled_from(SHAPES),
    st.sets(st.builds(str.__add__, FOLDERS, NAMES)),
    st.sampled_from([None, "fp16"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_a_selection_is_part_of_the_listing_and_does_not_depend_on_its_order(
    shape: Files, names: set[str], variant: str | None, trusted: bool, rng: random.Random
) -> None:
    files = {**{name: {} for name in sorted(names)}, **shape}
    request = SelectionRequest(variant=variant, trust_remote_code=trusted)
    shuffled = list(files.items())
    rng.shuffle(shuffled)
    outcomes: list[object] = []
    for each in (files, dict(shuffled)):
        try:
            outcomes.append(selection_of(each, request))  # which checks each selection by itself
        except NbloaderError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(UNET),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["_class_name", "unet", "weight_map", "metadata", "types", "path", "type"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(
        ["model_index.json", "modules.json", "config.json", "model.safetensors.index.json"]
    ),
    JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40),
    st.booleans(),
)
def test_whatever_a_file_holds_there_is_a_selection_or_a_named_error(
    path: str, value: bytes, trusted: bool
) -> None:
    files = {**INDEXED, "unet/config.json": {}, f"unet/{D}.bin": ..., path: value}
    try:
        selection_of(files, SelectionRequest(trust_remote_code=trusted))
    except RepoError as error:
        refusal = error
    else:
        return
    assert refusal.hint
    assert len(str(refusal)) < 500


@given(st.text(max_size=30))
def test_any_name_in_a_listing_is_selected_around_or_refused(name: str) -> None:
    if name in ("config.json", "model.safetensors"):
        return
    try:
        selection = selection_of({**MODEL, "model.safetensors": ..., name: {}})
    except UnsafePathError:
        return
    assert ".." not in name.split("/")
    assert not name.startswith("/")
    assert {"config.json", "model.safetensors"} <= {file.path for file in selection.files}


def test_a_selection_cannot_be_made_from_less_than_was_asked_for() -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        select(listing_of(MODEL | unused("model.safetensors")), SelectionRequest(), {})


@pytest.mark.timed
def test_ten_thousand_files_are_selected_in_a_moment() -> None:
    names = [f"{D}-{shard:05}-of-09990.safetensors" for shard in range(1, 9991)]
    files = {
        "model_index.json": PIPELINE | {"unet": UNET},
        "unet/config.json": ...,
        f"unet/{D}.safetensors.index.json": index_of(*names),
        **unused(*[f"unet/{name}" for name in names]),
    }
    started = time.perf_counter()
    selection = selection_of(files)
    assert time.perf_counter() - started < 2
    assert len(selection.files) == len(files)
