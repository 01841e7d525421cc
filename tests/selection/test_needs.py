"""Which packages a selection asks for, by the small files of real repositories' shapes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.libraries.packages import package_folder
from nbloader.records import Kind, SelectionRequest
from nbloader.selection.needs import _TOKENIZER_OF, _TOKENIZERS
from tests.selection.test_selection import Files, diffusers_files, modules, selection_of, unused

SPM = ("sentencepiece", "google.protobuf")


def model(config: dict[str, Any], *files: str, **small: dict[str, Any]) -> Files:
    return {
        "config.json": config,
        **unused("model.safetensors", *files),
        **{f"{name}.json": content for name, content in small.items()},
    }


def needs_of(files: Files, request: SelectionRequest | None = None) -> tuple[str, ...]:
    selection = selection_of(files, request, rounds=2)
    return tuple(dict.fromkeys(name for part in selection.components for name in part.needs))


MASKED = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}


def japanese(**options: Any) -> dict[str, Any]:
    return {"tokenizer_class": "BertJapaneseTokenizer", **options}


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        (japanese(), ()),
        (japanese(word_tokenizer_type="basic"), ()),
        (japanese(word_tokenizer_type="mecab"), ("fugashi", "unidic_lite")),
        (
            japanese(word_tokenizer_type="mecab", mecab_kwargs={"mecab_dic": "ipadic"}),
            ("fugashi", "ipadic"),
        ),
        (
            japanese(word_tokenizer_type="mecab", mecab_kwargs={"mecab_dic": "unidic"}),
            ("fugashi", "unidic"),
        ),
        (
            japanese(
                word_tokenizer_type="mecab",
                mecab_kwargs={"mecab_dic": None, "mecab_option": "-d x"},
            ),
            ("fugashi",),
        ),
        (japanese(word_tokenizer_type="mecab", mecab_kwargs=3), ("fugashi", "unidic_lite")),
        (japanese(word_tokenizer_type="sudachi"), ("sudachipy", "sudachidict_core")),
        (japanese(word_tokenizer_type="jumanpp"), ("rhoknp",)),
        (
            japanese(subword_tokenizer_type="sentencepiece", do_word_tokenize=False),
            ("sentencepiece",),
        ),
        (japanese(word_tokenizer_type="mecab", do_word_tokenize=False), ()),
        ({"tokenizer_class": "BertTokenizer"}, ()),
        ({"tokenizer_class": 3}, ()),
    ],
)
def test_the_options_of_a_tokenizer_tell(options: dict[str, Any], needs: tuple[str, ...]) -> None:
    assert needs_of(model(MASKED, "vocab.txt", tokenizer_config=options)) == needs
    # An old repository names the class in the model's own configuration.
    named = {key: options[key] for key in options if key == "tokenizer_class"}
    rest = {key: options[key] for key in options if key != "tokenizer_class"}
    assert needs_of(model({**MASKED, **named}, "vocab.txt", tokenizer_config=rest)) == needs
    embedder = modules(("", "sentence_transformers.models.Transformer"))
    files = {**embedder, **model(MASKED, "vocab.txt", tokenizer_config=options)}
    assert selection_of(files).kind is Kind.SENTENCE_TRANSFORMERS
    assert needs_of(files) == needs


@pytest.mark.parametrize(
    ("config", "files", "small", "needs"),
    [
        ({"model_type": "bert"}, ["spiece.model"], {}, SPM),
        ({"model_type": "bert"}, ["spiece.model", "tokenizer.json"], {}, ()),
        ({"model_type": "llama"}, ["tokenizer.model"], {}, SPM),
        ({"model_type": "qwen"}, ["tiktoken.model"], {}, ("tiktoken",)),
        ({"model_type": "siglip"}, ["tokenizer.json", "spiece.model"], {}, SPM),
        ({"model_type": "m2m_100"}, ["sentencepiece.bpe.model"], {}, ("sentencepiece",)),
        ({"model_type": "biogpt"}, ["vocab.json"], {}, ("sacremoses",)),
        ({"model_type": "xlm"}, ["vocab.json"], {}, ("sacremoses",)),
        ({"model_type": "roformer"}, ["vocab.txt"], {}, ("rjieba",)),
        ({"model_type": "tapas"}, ["vocab.txt"], {}, ("pandas",)),
        (
            {"model_type": "cpmant"},
            [],
            {"tokenizer_config": {"tokenizer_class": "CpmAntTokenizer"}},
            ("rjieba",),
        ),
        (
            {"model_type": "idefics3"},
            ["tokenizer.json"],
            {"processor_config": {"processor_class": "SmolVLMProcessor"}},
            ("num2words",),
        ),
        (
            {"model_type": "granite_speech"},
            ["tokenizer.json"],
            {"preprocessor_config": {"feature_extractor_type": "GraniteSpeechFeatureExtractor"}},
            ("torchaudio",),
        ),
        (
            {"model_type": "markuplm"},
            ["tokenizer.json"],
            {"preprocessor_config": {"feature_extractor_type": "MarkupLMFeatureExtractor"}},
            ("bs4",),
        ),
        ({"model_type": "layoutlmv2"}, ["tokenizer.json"], {}, ("detectron2",)),
        ({"model_type": "dinat"}, [], {}, ("natten",)),
        (
            {
                "model_type": "mask2former",
                "architectures": ["Mask2FormerForUniversalSegmentation"],
            },
            [],
            {},
            ("scipy",),
        ),
        ({"model_type": "mask2former", "architectures": ["Mask2FormerModel"]}, [], {}, ()),
        ({"model_type": "detr", "backbone": "resnet50"}, [], {}, ("timm",)),
        ({"model_type": "detr", "backbone": "x", "use_timm_backbone": False}, [], {}, ()),
        (
            {
                "model_type": "detr",
                "backbone": None,
                "use_timm_backbone": True,
                "backbone_config": {"model_type": "resnet"},
            },
            [],
            {},
            (),
        ),
        ({"model_type": "dpt", "backbone": "x", "use_timm_backbone": True}, [], {}, ("timm",)),
        ({"model_type": "x", "vision_config": {"model_type": "timm_wrapper"}}, [], {}, ("timm",)),
        (
            {"model_type": "gemma3n", "vision_config": {"model_type": "gemma3n_vision"}},
            [],
            {},
            ("timm",),
        ),
        ({"architecture": "resnet18", "pretrained_cfg": {}}, [], {}, ("timm",)),
        ({"model_type": "bert", "vision_config": 3}, [], {}, ()),
    ],
)
def test_a_configuration_tells(
    config: dict[str, Any],
    files: list[str],
    small: dict[str, dict[str, Any]],
    needs: tuple[str, ...],
) -> None:
    task = SelectionRequest(task="feature-extraction")
    assert needs_of(model(config, *files, **small), task) == needs


@pytest.mark.parametrize(
    ("architecture", "model_type", "alone"),
    [
        ("MarianMTModel", "marian", True),
        ("T5ForConditionalGeneration", "t5", True),
        ("BertForQuestionAnswering", "bert", True),
        ("BertForMaskedLM", "bert", False),
        ("WhisperForConditionalGeneration", "whisper", False),
    ],
)
def test_a_model_that_comes_without_its_tokenizer_needs_nothing_for_it(
    architecture: str, model_type: str, alone: bool
) -> None:
    files = model(
        {"architectures": [architecture], "model_type": model_type},
        "spiece.model",
        tokenizer_config={"tokenizer_class": "MarianTokenizer"},
    )
    assert needs_of(files) == (() if alone else ("sentencepiece",))
    assert needs_of(files, SelectionRequest(task="fill-mask")) == ("sentencepiece",)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["bert", "mecab", "detr", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["model_type", "mecab_dic"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(
    config=st.dictionaries(
        st.sampled_from(
            [
                "architectures",
                "backbone",
                "backbone_config",
                "model_type",
                "tokenizer_class",
                "use_timm_backbone",
                "vision_config",
            ]
        ),
        VALUES,
    ),
    small=st.dictionaries(
        st.sampled_from(
            [
                "auto_map",
                "do_word_tokenize",
                "feature_extractor_type",
                "mecab_kwargs",
                "processor_class",
                "tokenizer_class",
                "word_tokenizer_type",
            ]
        ),
        VALUES | st.just("BertJapaneseTokenizer"),
    ),
)
def test_whatever_stands_in_the_small_files_there_is_an_answer(
    config: dict[str, Any], small: dict[str, Any]
) -> None:
    files = model(config, tokenizer_config=small, preprocessor_config=small)
    assert all(re.fullmatch(r"[\w.]+", name) for name in needs_of(files))


def test_a_tokenizer_of_the_repositorys_own_code_is_not_judged() -> None:
    options = {"tokenizer_class": "CpmTokenizer", "auto_map": {"AutoTokenizer": ["x.T", None]}}
    files = model(MASKED, "x.py", tokenizer_config=options)
    assert needs_of(files, SelectionRequest(trust_remote_code=True)) == ()


def test_the_tokenizers_of_a_pipeline() -> None:
    files = diffusers_files(
        {
            "tokenizer": ["transformers", "T5Tokenizer"],
            "tokenizer_2": ["transformers", "BertJapaneseTokenizer"],
            "tokenizer_3": ["transformers", "T5Tokenizer"],
        },
        tokenizer=["spiece.model"],
        tokenizer_2=["vocab.txt"],
        tokenizer_3=["spiece.model", "tokenizer.json"],
    ) | {"tokenizer_2/tokenizer_config.json": {"word_tokenizer_type": "mecab"}}
    needs = {part.name: part.needs for part in selection_of(files).components}
    assert needs == {
        "tokenizer": SPM,
        "tokenizer_2": ("fugashi", "unidic_lite"),
        "tokenizer_3": (),
        "config": (),
    }


def test_the_table_of_tokenizers_is_that_of_the_installed_library() -> None:
    folder = package_folder("transformers")
    assert folder is not None
    found: dict[str, str] = {}
    for file in sorted((folder / "models").glob("*/tokenization_*.py")):
        text = file.read_text("utf-8")
        for backends, name in re.findall(
            r"^@requires\(backends=\((.*?),?\)\)\nclass (\w+)", text, re.MULTILINE
        ):
            found[name] = backends.replace('"', "").replace(", torch", "")
    assert found
    for name, backends in found.items():
        assert set(backends.split(", ")) <= set(_TOKENIZERS[name]), name
    mapping = (folder / "models" / "auto" / "tokenization_auto.py").read_text("utf-8")
    for family, name in _TOKENIZER_OF.items():
        assert f'("{family}", "{name}"' in mapping, family
