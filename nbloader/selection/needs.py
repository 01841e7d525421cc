"""Packages that a model needs besides its library, as its small files tell.

The classes of the libraries are looked at where they are installed (`environment`). What is told
here is what no class tells by itself: the options of a tokenizer, the class that only a small file
names, the backbone of a configuration, a vocabulary in a format that has to be converted. Packages
stand under the names of their imports. Read in transformers 5.0 to 5.23; a test compares the table
of tokenizers with the installed version.

Where the library makes no pipeline of a model, its tokenizer and processor are not loaded, and
nothing is asked for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from nbloader.hub_names import folder_and_name
from nbloader.records import Component, Kind
from nbloader.selection.repo import Repo
from nbloader.selection.transformers import ADAPTER_CONFIG

TOKENIZER = "tokenizer_config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"

# By `tokenizer_class`. They are there only in Python, whatever the repository has beside them.
_TOKENIZERS: Mapping[str, tuple[str, ...]] = {
    "BartphoTokenizer": ("sentencepiece",),
    "BertGenerationTokenizer": ("sentencepiece",),
    "BioGptTokenizer": ("sacremoses",),
    "CpmAntTokenizer": ("rjieba",),
    "CpmTokenizer": ("sentencepiece", "rjieba"),
    "FSMTTokenizer": ("sacremoses",),
    "FastSpeech2ConformerTokenizer": ("g2p_en",),
    "FlaubertTokenizer": ("sacremoses",),
    "GPTSw3Tokenizer": ("sentencepiece",),
    "M2M100Tokenizer": ("sentencepiece",),
    "MarianTokenizer": ("sentencepiece",),
    "PLBartTokenizer": ("sentencepiece",),
    "Pop2PianoTokenizer": ("pretty_midi",),
    "RoFormerTokenizer": ("rjieba",),
    "SiglipTokenizer": ("sentencepiece", "google.protobuf"),
    "Speech2TextTokenizer": ("sentencepiece",),
    "SpeechT5Tokenizer": ("sentencepiece",),
    "TapasTokenizer": ("pandas",),
    "XLMTokenizer": ("sacremoses",),
}
# Where no file names the class of a tokenizer, by `model_type` (`TOKENIZER_MAPPING_NAMES`).
_TOKENIZER_OF: Mapping[str, str] = {
    "bert-generation": "BertGenerationTokenizer",
    "bert-japanese": "BertJapaneseTokenizer",
    "biogpt": "BioGptTokenizer",
    "cpmant": "CpmAntTokenizer",
    "fastspeech2_conformer": "FastSpeech2ConformerTokenizer",
    "flaubert": "FlaubertTokenizer",
    "fsmt": "FSMTTokenizer",
    "gpt-sw3": "GPTSw3Tokenizer",
    "m2m_100": "M2M100Tokenizer",
    "marian": "MarianTokenizer",
    "plbart": "PLBartTokenizer",
    "roformer": "RoFormerTokenizer",
    "siglip": "SiglipTokenizer",
    "speech_to_text": "Speech2TextTokenizer",
    "speecht5": "SpeechT5Tokenizer",
    "tapas": "TapasTokenizer",
    "xlm": "XLMTokenizer",
}

# `BertJapaneseTokenizer` splits words by what `word_tokenizer_type` names.
_JAPANESE = "BertJapaneseTokenizer"
_WORDS: Mapping[str, tuple[str, ...]] = {
    "jumanpp": ("rhoknp",),
    "mecab": ("fugashi",),
    "sudachi": ("sudachipy", "sudachidict_core"),
}
_DICTIONARIES = frozenset({"ipadic", "unidic", "unidic_lite"})

# By `feature_extractor_type` and `image_processor_type`.
_PREPROCESSORS: Mapping[str, tuple[str, ...]] = {
    "FunAsrNanoFeatureExtractor": ("torchaudio",),
    "GraniteSpeech5FeatureExtractor": ("torchaudio",),
    "GraniteSpeechFeatureExtractor": ("torchaudio",),
    "MarkupLMFeatureExtractor": ("bs4",),
    "MusicgenMelodyFeatureExtractor": ("torchaudio",),
    "NeuCodecFeatureExtractor": ("torchaudio",),
    "Pop2PianoFeatureExtractor": ("essentia", "librosa", "scipy"),
    "TimmWrapperImageProcessor": ("timm", "torchvision"),
    "Xcodec2FeatureExtractor": ("torchaudio",),
}
# By `processor_class`.
_PROCESSORS: Mapping[str, tuple[str, ...]] = {
    "MgpstrProcessor": ("sentencepiece",),
    "SmolVLMProcessor": ("num2words",),
    "VoxtralRealtimeProcessor": ("mistral_common",),
}

# By `model_type`: what the model's own class asks for when it is made.
_MODELS: Mapping[str, tuple[str, ...]] = {
    "dinat": ("natten",),
    "layoutlmv2": ("detectron2",),
    "nat": ("natten",),
    "timm_backbone": ("timm",),
    "timm_wrapper": ("timm",),
}
# Their heads are made with what computes their loss, which asks for scipy.
_MATCHING = frozenset({"mask2former", "maskformer", "oneformer"})
# Their backbone is one of timm, unless the configuration says otherwise.
_BY_TIMM = frozenset(
    {
        "conditional_detr",
        "dab-detr",
        "deformable_detr",
        "detr",
        "maskformer",
        "omdet-turbo",
        "table-transformer",
    }
)

_SENTENCEPIECE = frozenset(
    {
        "sentencepiece.bpe.model",
        "sentencepiece.model",
        "source.spm",
        "spiece.model",
        "spm.model",
        "spm_char.model",
        "tokenizer.model",
    }
)

# Heads that version 5 has no pipeline for: it gave up those for questions and answers, summaries,
# translation, and one text from another.
_HEADS_ALONE = (
    "ForMultipleChoice",
    "ForNextSentencePrediction",
    "ForPreTraining",
    "ForQuestionAnswering",
    "MTModel",
)
_TEXT_TO_TEXT = frozenset(
    {
        "bart",
        "bigbird_pegasus",
        "blenderbot",
        "blenderbot-small",
        "encoder-decoder",
        "fsmt",
        "led",
        "longt5",
        "m2m_100",
        "marian",
        "mbart",
        "mt5",
        "mvp",
        "nllb-moe",
        "pegasus",
        "pegasus_x",
        "plbart",
        "prophetnet",
        "switch_transformers",
        "t5",
        "umt5",
    }
)
_TASKS_GONE = frozenset(
    {
        "question-answering",
        "sentence-similarity",
        "summarization",
        "text2text-generation",
        "translation",
    }
)

_Config = Mapping[str, object]


def with_needs(repo: Repo, kind: Kind, components: Sequence[Component]) -> list[Component]:
    """The components, each with the packages that its small files ask for.

    Of the small files only those are read that are selected, or will be: a model of transformers
    has them all in its root, which its selector names once it knows the configuration.
    """
    if kind is Kind.TRANSFORMERS:
        return _of_one_model(repo, components)
    if kind is Kind.SENTENCE_TRANSFORMERS:
        return [_with(part, _of_module(repo, part)) for part in components]
    if kind is Kind.CLASSES:
        return [_with(part, _of_class(repo, part)) for part in components]
    return [_with(part, _of_part(repo, part)) for part in components]


def _with(component: Component, needs: Iterable[str]) -> Component:
    return replace(component, needs=tuple(dict.fromkeys((*component.needs, *needs))))


def _of_one_model(repo: Repo, components: Sequence[Component]) -> list[Component]:
    selected = {path for part in components for path in part.paths}
    model = _repo_of_model(repo, selected)
    if model is None:
        return list(components)
    config = _read(model, model.root, "config.json")
    around = _around(model, model.root, config)
    needs = {"model": _of_model(config), "config": around}
    if _comes_alone(model, config):
        del needs["config"]
    return [_with(part, needs.get(part.name, ())) for part in components]


def _repo_of_model(repo: Repo, selected: Collection[str]) -> Repo | None:
    """The repository with the model, which may be another one than that of an adapter."""
    if not selected:
        return None if ADAPTER_CONFIG in repo.paths else repo
    for one in (repo, *repo.family.repos.values()):
        path = f"{one.root}config.json"
        if path in one.paths and path in selected:
            return one
    return None


def _of_module(repo: Repo, part: Component) -> list[str]:
    """What a module of sentence-transformers needs, if it is a model of transformers."""
    configs = [path for path in part.paths if folder_and_name(path)[1] == "config.json"]
    if part.class_name not in ("Transformer", "CLIPModel", "MLMTransformer") or not configs:
        return _vocabulary(part.paths)
    if configs[0] not in repo.paths:
        return _vocabulary(part.paths)  # It is in another repository.
    folder = folder_and_name(configs[0])[0]
    config = _read(repo, folder, "config.json")
    return [*_of_model(config), *_around(repo, folder, config)]


def _of_class(repo: Repo, part: Component) -> list[str]:
    """What an object of a class that is named needs."""
    if part.library != "transformers" or any(path not in repo.paths for path in part.paths):
        return []
    if (part.class_name or "").endswith("Config"):
        return []
    config = _read(repo, part.folder, "config.json")
    return _of_model(config) if part.weights else _around(repo, part.folder, config)


def _of_part(repo: Repo, part: Component) -> list[str]:
    """What a component of a pipeline of diffusers needs, by its class and its vocabulary."""
    if part.class_name == _JAPANESE:
        return _japanese(_read(repo, part.name, TOKENIZER))
    named = _TOKENIZERS.get(part.class_name or "")
    return list(named) if named is not None else _vocabulary(part.paths)


def _read(repo: Repo, folder: str, name: str) -> _Config:
    """The object in a small file; empty if there is none, or it is not known yet."""
    paths = repo.existing(folder, name)
    return (repo.read_object(paths[0]) or {}) if paths else {}


# -- the model -------------------------------------------------------------------------------------


def _of_model(config: _Config) -> list[str]:
    needs = list(_MODELS.get(_text(config, "model_type"), ()))
    if _text(config, "model_type") in _MATCHING and _head(config).endswith("Segmentation"):
        needs.append("scipy")
    if _uses_timm(config):
        needs.append("timm")
    return needs


def _uses_timm(config: _Config) -> bool:
    if "model_type" not in config and "pretrained_cfg" in config:
        return True  # A repository of timm, which transformers wraps (`TimmWrapperConfig`).
    inner = [value for value in config.values() if isinstance(value, Mapping)]
    if any(_text(part, "model_type").startswith(("timm_", "gemma3n_vision")) for part in inner):
        return True
    if config.get("backbone_config") is not None or not isinstance(config.get("backbone"), str):
        return False
    by_default = _text(config, "model_type") in _BY_TIMM
    return config.get("use_timm_backbone", by_default) is True


def _comes_alone(repo: Repo, config: _Config) -> bool:
    """Say whether the library makes no pipeline of a model, so that it comes as it is."""
    if repo.task_asked or (repo.task is not None and repo.task not in _TASKS_GONE):
        return False
    head = _head(config)
    if not head:
        return repo.task is None
    return head.endswith(_HEADS_ALONE) or (
        head.endswith("ForConditionalGeneration") and _text(config, "model_type") in _TEXT_TO_TEXT
    )


# -- what stands around it -------------------------------------------------------------------------


def _around(repo: Repo, folder: str, config: _Config) -> list[str]:
    """What the tokenizer and the processor in a folder need."""
    options = _read(repo, folder, TOKENIZER)
    preprocessor = _read(repo, folder, PREPROCESSOR)
    processor = _read(repo, folder, PROCESSOR)
    needs = _tokenizer(repo, folder, options, config)
    for key in ("feature_extractor_type", "image_processor_type"):
        needs += _PREPROCESSORS.get(_text(preprocessor, key).removesuffix("Fast"), ())
    for named in (processor, preprocessor):
        needs += _PROCESSORS.get(_text(named, "processor_class"), ())
    return needs


def _tokenizer(repo: Repo, folder: str, options: _Config, config: _Config) -> list[str]:
    family = _text(config, "model_type")
    name = (
        _text(options, "tokenizer_class")
        or _text(config, "tokenizer_class")
        or _TOKENIZER_OF.get(family, "")
    ).removesuffix("Fast")
    if options.get("auto_map") and repo.trust_remote_code:
        return []
    files = repo.existing(folder, *repo.names(folder))
    if name == _JAPANESE:
        return _japanese(options)
    return list(_TOKENIZERS[name]) if name in _TOKENIZERS else _vocabulary(files)


def _japanese(options: _Config) -> list[str]:
    needs = []
    if options.get("subword_tokenizer_type") == "sentencepiece":
        needs.append("sentencepiece")
    if options.get("do_word_tokenize", True):
        kind = _text(options, "word_tokenizer_type")
        needs += _WORDS.get(kind, ())
        if kind == "mecab":
            given = options.get("mecab_kwargs")
            chosen = given if isinstance(given, Mapping) else {}
            dictionary = chosen.get("mecab_dic", "unidic_lite")
            if isinstance(dictionary, str) and dictionary in _DICTIONARIES:
                needs.append(dictionary)
    return needs


def _vocabulary(paths: Iterable[str]) -> list[str]:
    """What reads a vocabulary that has no `tokenizer.json` beside it."""
    folders: dict[str, set[str]] = {}
    for path in paths:
        folder, name = folder_and_name(path)
        folders.setdefault(folder, set()).add(name)
    names = set().union(*(files for files in folders.values() if "tokenizer.json" not in files))
    if names & _SENTENCEPIECE:
        # transformers 5 converts the vocabulary, and reads the model's file with protobuf.
        return ["sentencepiece", "google.protobuf"]
    return ["tiktoken"] if "tiktoken.model" in names else []


def _head(config: _Config) -> str:
    """The first class that a configuration names."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    return first if isinstance(first, str) else ""


def _text(config: _Config, key: str) -> str:
    value = config.get(key)
    return value if isinstance(value, str) else ""
