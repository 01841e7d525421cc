"""Models of sentence-transformers: every class of them, and every class of their modules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nbloader.records import Kind
from tests.differential.harness import Case
from tests.models import WORDS

_TEXTS = ["a good b", "bad"]
_SIZE = 32

_OLD = "sentence_transformers.models"
"""Where repositories of before version 5.4 say that all modules are."""


# -- parts -----------------------------------------------------------------------------------------


def _tokenizer(folder: Path, **settings: Any) -> Any:
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*WORDS, "yes", "no"]))
    made = BertTokenizerFast(
        vocab=str(folder / "vocab.txt"), **{"model_max_length": 64, **settings}
    )
    made.save_pretrained(folder)
    return made


def _bert(folder: Path, class_name: str = "BertModel", **settings: Any) -> Path:
    import transformers

    config = transformers.BertConfig(
        **{
            "vocab_size": len(WORDS) + 2,
            "hidden_size": _SIZE,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": _SIZE,
            "max_position_embeddings": 64,
            **settings,
        }
    )
    getattr(transformers, class_name)(config).save_pretrained(folder)
    _tokenizer(folder)
    return folder


def _llama(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=_SIZE,
        intermediate_size=_SIZE,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    _tokenizer(folder)
    return folder


def _t5(folder: Path) -> Path:
    from transformers import T5Config, T5Model

    config = T5Config(
        vocab_size=len(WORDS) + 2, d_model=_SIZE, d_kv=8, d_ff=_SIZE, num_layers=1, num_heads=2
    )
    T5Model(config).save_pretrained(folder)
    _tokenizer(folder)
    return folder


def _vit(folder: Path) -> Path:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    config = ViTConfig(
        hidden_size=_SIZE,
        intermediate_size=_SIZE,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def _wav2vec2(folder: Path) -> Path:
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
        Wav2Vec2Processor,
    )

    config = Wav2Vec2Config(
        hidden_size=_SIZE,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=_SIZE,
        conv_dim=(16, 16),
        conv_stride=(10, 4),
        conv_kernel=(20, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embedding_groups=2,
        num_conv_pos_embeddings=4,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", "a", "b"]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    processor = Wav2Vec2Processor(
        feature_extractor=Wav2Vec2FeatureExtractor(),
        tokenizer=Wav2Vec2CTCTokenizer(str(vocabulary)),
    )
    processor.save_pretrained(folder)
    return folder


def _clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    shape = {
        "hidden_size": _SIZE,
        "intermediate_size": _SIZE,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "good</w>": 2, "bad</w>": 3}
    vocabulary |= {letter: 4 + number for number, letter in enumerate("gobad")}
    config = CLIPConfig(
        text_config={
            **shape,
            "vocab_size": 16,
            "max_position_embeddings": 77,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def _inner(folder: Path) -> Path:
    """A place for the model of transformers inside: beside the repositories, and not one."""
    return folder.parents[2] / "inner" / folder.name


def _transformer(folder: Path, write: Callable[..., Path] = _bert, **settings: Any) -> Any:
    from sentence_transformers.base.modules import Transformer

    return Transformer(str(write(_inner(folder))), **settings)


def _rewritten(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a file of JSON."""
    value = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(change(value)), "utf-8")


def _settings(folder: Path, **changes: Any) -> None:
    """Change what a repository says of its model; what is None is left out."""
    _rewritten(
        folder / "config_sentence_transformers.json",
        lambda old: {k: v for k, v in {**old, **changes}.items() if v is not None},
    )


def _as_before(folder: Path) -> None:
    """Rename modules to what old versions called them."""
    _rewritten(
        folder / "modules.json",
        lambda listed: [
            {**each, "type": f"{_OLD}.{each['type'].rpartition('.')[2]}"} for each in listed
        ],
    )


# -- what is saved ---------------------------------------------------------------------------------

_Modules = Callable[[Path], list[Any]]


def _save(
    modules: _Modules,
    folder: Path,
    *,
    class_name: str = "SentenceTransformer",
    then: Callable[[Path], object] = lambda folder: None,
    **settings: Any,
) -> None:
    import sentence_transformers

    model = getattr(sentence_transformers, class_name)(
        modules=modules(folder), device="cpu", **settings
    )
    model.save_pretrained(str(folder))
    then(folder)


def _pooling(mode: Any = "mean", size: int = _SIZE) -> Any:
    from sentence_transformers.sentence_transformer.modules import Pooling

    return Pooling(size, mode)


def _pooled(mode: Any, folder: Path) -> list[Any]:
    return [_transformer(folder), _pooling(mode)]


def _dense(folder: Path) -> list[Any]:
    from sentence_transformers.base.modules import Dense, Normalize

    return [_transformer(folder), _pooling(), Dense(_SIZE, 8), Normalize()]


def _normed(folder: Path) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm

    return [_transformer(folder), _pooling("cls"), LayerNorm(_SIZE), Dropout(0.5)]


def _words(folder: Path) -> list[Any]:
    import torch
    from sentence_transformers.sentence_transformer.modules import (
        CNN,
        LSTM,
        WordEmbeddings,
        WordWeights,
    )
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    words = WORDS[5:]
    return [
        WordEmbeddings(
            WhitespaceTokenizer(words, stop_words=set()), torch.rand(len(words), 16).numpy()
        ),
        WordWeights(words, {"good": 0.5, "bad": 2.0}),
        LSTM(16, 8),
        CNN(16, 8, kernel_sizes=[1, 3]),
        _pooling("max", 16),
    ]


def _bag(folder: Path) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import BoW

    return [BoW(WORDS[5:], {"good": 2.0})]


def _static(folder: Path) -> list[Any]:
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = _tokenizer(_inner(folder))
    return [StaticEmbedding(tokenizer, embedding_dim=16), Normalize()]


def _layers(folder: Path) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling

    transformer = _transformer(folder, partial(_bert, output_hidden_states=True))
    return [transformer, WeightedLayerPooling(_SIZE, 2, 1), _pooling()]


def _routes(folder: Path) -> list[Any]:
    from sentence_transformers.base.modules import Dense, Router

    return [
        Router.for_query_document(
            _static(folder)[:1], [_transformer(folder), _pooling(), Dense(_SIZE, 16)]
        )
    ]


def _routes_of_its_own(folder: Path) -> list[Any]:
    from sentence_transformers.base.modules import Router

    return [Router({"a": _static(folder), "b": _static(folder)}, allow_empty_key=False)]


def _old_clip(folder: Path) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import CLIPModel

    return [CLIPModel(str(_clip(_inner(folder))))]


def _of_pictures(folder: Path) -> list[Any]:
    return [_transformer(folder, _vit), _pooling()]


def _of_sounds(folder: Path) -> list[Any]:
    return [_transformer(folder, _wav2vec2), _pooling()]


def _of_both(folder: Path) -> list[Any]:
    return [_transformer(folder, _clip)]


def _splade(folder: Path) -> list[Any]:
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    write = partial(_bert, class_name="BertForMaskedLM")
    return [_transformer(folder, write, transformer_task="fill-mask"), SpladePooling("max")]


def _old_splade(folder: Path) -> list[Any]:
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

    inner = _bert(_inner(folder), "BertForMaskedLM")
    return [MLMTransformer(str(inner)), SpladePooling("sum", "log1p_relu")]


def _csr(folder: Path) -> list[Any]:
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    return [_transformer(folder), _pooling(), SparseAutoEncoder(_SIZE, 64, k=8, k_aux=16)]


def _without_inference(folder: Path) -> list[Any]:
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    static = SparseStaticEmbedding(_tokenizer(_inner(folder) / "query"), frozen=True)
    return [Router.for_query_document([static], _splade(folder))]


def _ranker(folder: Path, labels: int = 1, **sizes: Any) -> list[Any]:
    write = partial(_bert, class_name="BertForSequenceClassification", num_labels=labels, **sizes)
    return [_transformer(folder, write, transformer_task="sequence-classification")]


def _asking_ranker(folder: Path) -> list[Any]:
    from sentence_transformers.cross_encoder.modules import LogitScore

    words = [*WORDS, "yes", "no"]
    return [
        _transformer(folder, _llama, transformer_task="text-generation"),
        LogitScore(words.index("yes"), words.index("no")),
    ]


def _pooled_ranker(folder: Path) -> list[Any]:
    from sentence_transformers.base.modules import Dense

    head = Dense(_SIZE, 1, module_output_name="scores")
    return [_transformer(folder), _pooling("cls"), head]


def _late(folder: Path) -> list[Any]:
    import torch
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    return [
        _transformer(folder),
        Dense(
            _SIZE,
            8,
            bias=False,
            activation_function=torch.nn.Identity(),
            module_input_name="token_embeddings",
        ),
        MultiVectorMask(skiplist_words=["bad"]),
        Normalize(module_input_name="token_embeddings"),
    ]


def _late_and_pooled(folder: Path) -> list[Any]:
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    return [*_late(folder), HierarchicalTokenPooling(2.0)]


def _of_pylate(folder: Path, *, named: bool) -> None:
    """Write what PyLate did: two modules, one of its own, and its settings."""
    _save(lambda folder: _late(folder)[:2], folder, class_name="MultiVectorEncoder")
    listed = json.loads((folder / "modules.json").read_text("utf-8"))
    listed[1]["type"] = "pylate.models.Dense.Dense"
    (folder / "modules.json").write_text(json.dumps(listed), "utf-8")
    _settings(
        folder,
        model_type="ColBERT" if named else None,
        similarity_fn_name="MaxSim",
        query_prefix="[Q] ",
        document_prefix="[D] ",
        query_length=16,
        document_length=32,
        attend_to_expansion_tokens=False,
        skiplist_words=["bad"],
    )


def _of_stanford(folder: Path) -> None:
    """Write what the authors of ColBERT did: the projection among the weights of the encoder."""
    import torch
    from safetensors.torch import load_file, save_file

    _bert(folder)
    weights = {
        f"bert.{key}": value for key, value in load_file(folder / "model.safetensors").items()
    }
    weights["linear.weight"] = torch.rand(8, _SIZE)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _rewritten(folder / "config.json", lambda old: {**old, "architectures": ["HF_ColBERT"]})
    (folder / "artifact.metadata").write_text(json.dumps({"query_maxlen": 16, "doc_maxlen": 32}))


def _classic(folder: Path, **settings: Any) -> None:
    """Write a cross-encoder as version 4 did: a model of transformers with a key of its own."""
    _bert(folder, "BertForSequenceClassification", num_labels=1)
    _rewritten(folder / "config.json", lambda old: {**old, **settings})


def _described(folder: Path, write: Callable[..., Path], **described: str) -> None:
    """Write a model of transformers with a card that says what it is for."""
    write(folder)
    lines = [f"{key}: {value}" for key, value in described.items()]
    (folder / "README.md").write_text("\n".join(["---", *lines, "---", ""]))


_CODE = """
from sentence_transformers.base.modules import Module, Transformer


class Tripled(Module):
    def forward(self, features, **kwargs):
        features["sentence_embedding"] = features["sentence_embedding"] * 3
        return features

    def save(self, output_path, *args, **kwargs):
        self.save_config(output_path)


class Own(Transformer):
    pass
"""


def _with_code(folder: Path, place: str = "") -> None:
    """Write an embedder with modules of its own, in its own repository or in another."""
    _save(lambda folder: [_transformer(folder), _pooling()], folder)
    listed = json.loads((folder / "modules.json").read_text("utf-8"))
    listed[0]["type"] = f"{place}tiny_modules.Own"
    last = {"idx": 2, "name": "2", "path": "2_Tripled", "type": f"{place}tiny_modules.Tripled"}
    (folder / "modules.json").write_text(json.dumps([*listed, last]), "utf-8")
    (folder / "2_Tripled").mkdir()
    (folder / "2_Tripled" / "config.json").write_text("{}")
    if not place:
        _code(folder)


def _code(folder: Path) -> None:
    (folder / "tiny_modules.py").write_text(_CODE)


def _with_code_beside(folder: Path) -> Any:
    """Return a copy of an embedder, with the code that it names of another repository in it."""
    copied = folder.parents[2] / "copies" / folder.name
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    _rewritten(
        copied / "modules.json",
        lambda listed: [{**each, "type": each["type"].rpartition("--")[2]} for each in listed],
    )
    _code(copied)
    return _plain("SentenceTransformer", copied, trust_remote_code=True)


def _adapted(folder: Path, modules: _Modules, *, class_name: str, **settings: Any) -> None:
    """Write a model of which only an adapter is saved."""
    import sentence_transformers
    import torch
    from peft import LoraConfig

    model = getattr(sentence_transformers, class_name)(modules=modules(folder), device="cpu")
    model.add_adapter(LoraConfig(target_modules=["query"], r=4, **settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # as they are made they change nothing
            torch.nn.init.normal_(weight)
    model.save_pretrained(str(folder))
    base = f"{Kind.SENTENCE_TRANSFORMERS}/base"
    _rewritten(folder / "adapter_config.json", lambda old: {**old, "base_model_name_or_path": base})


def _with_base(class_name: str, folder: Path) -> Any:
    """Load a copy of an adapter that names the folder of its base."""
    copied = folder.parents[2] / "copies" / folder.name
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    base = str(folder.parent / "base")
    _rewritten(copied / "adapter_config.json", lambda old: {**old, "base_model_name_or_path": base})
    made = _plain(class_name, copied)
    for config in made.transformers_model.peft_config.values():
        config.base_model_name_or_path = f"{Kind.SENTENCE_TRANSFORMERS}/base"
    return made


# -- how it is loaded and called -------------------------------------------------------------------


def _plain(class_name: str, folder: Path, **settings: Any) -> Any:
    import sentence_transformers

    return getattr(sentence_transformers, class_name)(str(folder), device="cpu", **settings)


def _in_half(class_name: str, folder: Path) -> Any:
    import torch

    return _plain(class_name, folder, model_kwargs={"dtype": torch.bfloat16})


def _embed(made: Any) -> Any:
    return made.encode(_TEXTS)


def _embed_both(made: Any) -> Any:
    return made.encode_query(_TEXTS), made.encode_document(_TEXTS)


def _embed_pictures(made: Any) -> Any:
    from PIL import Image

    return made.encode([Image.new("RGB", (32, 32), color) for color in ("red", "blue")])


def _embed_sounds(made: Any) -> Any:
    import numpy as np

    sound = np.sin(np.arange(1600, dtype=np.float32) / 5)
    return made.encode([{"array": sound, "sampling_rate": 16000}])


def _embed_texts_and_pictures(made: Any) -> Any:
    return made.encode(["good", "bad"]), _embed_pictures(made)


def _score(made: Any) -> Any:
    return made.predict([("a good b", "bad"), ("bad", "good")])


def _rewrite_weights(change: Callable[[dict[str, Any]], dict[str, Any]], path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = change({key: value.clone() for key, value in load_file(path).items()})
    path.unlink()
    save_file(weights, path, metadata={"format": "pt"})


def _drop(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda weights: {
        key: value for key, value in weights.items() if not any(name in key for name in names)
    }


def _cut(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda weights: {
        key: value[..., :-1].contiguous() if name in key else value
        for key, value in weights.items()
    }


def _spoilt(
    file: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> Callable[[Path], object]:
    return lambda folder: _rewrite_weights(change, folder / file)


def _case(
    name: str, modules: _Modules, *, class_name: str = "SentenceTransformer", **rest: Any
) -> Case:
    keys = ("arguments", "call", "plain", "refused", "notices", "then")
    ours = {key: rest.pop(key) for key in keys if key in rest}
    then = ours.pop("then", lambda folder: None)
    calls = {"CrossEncoder": _score, "MultiVectorEncoder": _embed_both}
    if "refused" not in ours:
        ours = {"plain": partial(_plain, class_name), **ours}
        ours = {"call": calls.get(class_name, _embed), **ours}
    return Case(
        name=name,
        kind=Kind.SENTENCE_TRANSFORMERS,
        save=partial(_save, modules, class_name=class_name, then=then, **rest),
        group=class_name,
        **ours,
    )


def _written(name: str, save: Callable[[Path], object], class_name: str, **rest: Any) -> Case:
    calls = {"CrossEncoder": _score, "MultiVectorEncoder": _embed_both}
    if "refused" not in rest:
        rest = {"plain": partial(_plain, class_name), **rest}
        rest = {"call": calls.get(class_name, _embed), **rest}
    return Case(name=name, kind=Kind.SENTENCE_TRANSFORMERS, save=save, group=class_name, **rest)


def _both_formats(name: str, modules: _Modules, **rest: Any) -> list[Case]:
    half: Mapping[str, Any] = {
        "arguments": {"dtype": "bfloat16"},
        "plain": partial(_in_half, rest.get("class_name", "SentenceTransformer")),
    }
    return [_case(name, modules, **rest), _case(f"{name}-bfloat16", modules, **rest, **half)]


_DENSE = "2_Dense/model.safetensors"
_MODEL = "model.safetensors"
_ACTIVATION = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}
_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

MODULES: Mapping[str, _Modules] = {
    # By the class of the module that each is there for.
    "BoW": _bag,
    "CLIPModel": _old_clip,
    "CNN": _words,
    "Dense": _dense,
    "Dropout": _normed,
    "HierarchicalTokenPooling": _late_and_pooled,
    "LSTM": _words,
    "LayerNorm": _normed,
    "LogitScore": _asking_ranker,
    "MLMTransformer": _old_splade,
    "MultiVectorMask": _late,
    "Normalize": _dense,
    "Pooling": partial(_pooled, "mean"),
    "Router": _routes,
    "SparseAutoEncoder": _csr,
    "SparseStaticEmbedding": _without_inference,
    "SpladePooling": _splade,
    "StaticEmbedding": _static,
    "Transformer": partial(_pooled, "mean"),
    "WeightedLayerPooling": _layers,
    "WordEmbeddings": _words,
    "WordWeights": _words,
}


def _asked(source: str, class_name: str, *notices: str, refused: str | None = None) -> Case:
    """Make a case of a class that the caller names, on a repository that may be of another."""
    save = _SOURCES[source]
    more: dict[str, Any] = {"refused": refused} if refused else {"notices": frozenset(notices)}
    return _written(
        f"{class_name.lower()}-of-{source}",
        save,
        class_name,
        arguments={"cls": class_name},
        **more,
    )


_SOURCES: Mapping[str, Callable[[Path], object]] = {
    "an-embedder": partial(_save, partial(_pooled, "mean"), prompts={"query": "good: "}),
    "a-dense-embedder": partial(_save, _dense),
    "a-ranker": partial(_save, _ranker, class_name="CrossEncoder"),
    "a-splade": partial(_save, _splade, class_name="SparseEncoder"),
    "a-late-one": partial(_save, _late, class_name="MultiVectorEncoder"),
    "static": partial(_save, _static),
    "bert": _bert,
    # Wide enough for the numbers that a new SparseAutoEncoder keeps.
    "wide-bert": partial(_bert, hidden_size=128),
    "a-wide-ranker": partial(_save, partial(_ranker, hidden_size=128), class_name="CrossEncoder"),
    "a-classifier": partial(_bert, class_name="BertForSequenceClassification", num_labels=1),
    "a-masked-model": partial(_bert, class_name="BertForMaskedLM"),
    "llama": _llama,
    "stanford": _of_stanford,
}

_ASKED = (
    _asked("an-embedder", "SentenceTransformer"),
    _asked("a-ranker", "SentenceTransformer", "default-pooling", "library-warning"),
    _asked("a-splade", "SentenceTransformer", "default-pooling", "library-warning"),
    _asked("a-late-one", "SentenceTransformer", "default-pooling", "library-warning"),
    _asked("bert", "SentenceTransformer", "default-pooling"),
    _asked("a-ranker", "CrossEncoder"),
    _asked("a-dense-embedder", "CrossEncoder", "new-head", "library-warning"),
    _asked("bert", "CrossEncoder", "new-head"),
    _asked("a-classifier", "CrossEncoder"),
    _asked("llama", "CrossEncoder"),
    _asked("static", "CrossEncoder", refused="unsupported-repo"),
    _asked("a-splade", "SparseEncoder"),
    _asked("an-embedder", "SparseEncoder", "new-head", "library-warning"),
    _asked("a-wide-ranker", "SparseEncoder", "new-head", "library-warning"),
    _asked("wide-bert", "SparseEncoder", "new-head"),
    _asked("a-masked-model", "SparseEncoder"),
    _asked("a-late-one", "MultiVectorEncoder"),
    _asked("stanford", "MultiVectorEncoder"),
    _asked("an-embedder", "MultiVectorEncoder", "new-head", "library-warning"),
    _asked("a-dense-embedder", "MultiVectorEncoder", "library-warning"),
    _asked("bert", "MultiVectorEncoder", "new-head"),
)

CASES = (
    *_ASKED,
    *(_case(f"pooling-{mode.replace('_', '-')}", partial(_pooled, mode)) for mode in _MODES),
    _case("pooling-of-two-kinds", partial(_pooled, ("mean", "max"))),
    *_both_formats("dense", _dense),
    *_both_formats("layer-norm", _normed),
    *_both_formats("words", _words),
    _case("bag-of-words", _bag),
    *_both_formats("static", _static),
    *_both_formats("layers", _layers),
    _case("router", _routes, call=_embed_both),
    _case(
        "router-of-its-own",
        _routes_of_its_own,
        call=lambda made: made.encode(_TEXTS, task="b"),
    ),
    _case("clip-of-old", _old_clip, call=_embed_texts_and_pictures),
    _case("clip", _of_both, call=_embed_texts_and_pictures),
    _case("pictures", _of_pictures, call=_embed_pictures),
    _case("sounds", _of_sounds, call=_embed_sounds),
    _case("encoder-of-t5", lambda folder: [_transformer(folder, _t5), _pooling()]),
    _case("names-of-old", _dense, then=_as_before),
    _case(
        "settings",
        partial(_pooled, "mean"),
        prompts={"query": "good: ", "document": "bad: "},
        default_prompt_name="query",
        similarity_fn_name="dot",
        truncate_dim=7,
        call=_embed_both,
    ),
    _case(
        "lower-case",
        lambda folder: [_transformer(folder, do_lower_case=True, max_seq_length=5), _pooling()],
    ),
    *_both_formats("splade", _splade, class_name="SparseEncoder"),
    _case("splade-of-old", _old_splade, class_name="SparseEncoder"),
    _case("sparse-auto-encoder", _csr, class_name="SparseEncoder", max_active_dims=4),
    _case(
        "sparse-without-inference",
        _without_inference,
        class_name="SparseEncoder",
        call=_embed_both,
    ),
    *_both_formats("ranker", _ranker, class_name="CrossEncoder"),
    _case("ranker-of-three", partial(_ranker, labels=3), class_name="CrossEncoder"),
    _case("ranker-that-asks", _asking_ranker, class_name="CrossEncoder"),
    *_both_formats("ranker-of-modules", _pooled_ranker, class_name="CrossEncoder"),
    _written(
        "classic-ranker", partial(_classic, sentence_transformers=_ACTIVATION), "CrossEncoder"
    ),
    _written(
        "oldest-ranker",
        partial(_classic, sbert_ce_default_activation_function=_ACTIVATION["activation_fn"]),
        "CrossEncoder",
    ),
    _written(
        "ranker-by-its-card",
        partial(
            _described,
            write=partial(_bert, class_name="BertForSequenceClassification", num_labels=1),
            library_name="sentence-transformers",
            pipeline_tag="text-ranking",
        ),
        "CrossEncoder",
    ),
    _written(
        "ranker-that-asks-by-its-card",
        partial(
            _described,
            write=_llama,
            library_name="sentence-transformers",
            pipeline_tag="text-ranking",
        ),
        "CrossEncoder",
    ),
    *_both_formats("late", _late, class_name="MultiVectorEncoder"),
    _case("late-and-pooled", _late_and_pooled, class_name="MultiVectorEncoder"),
    _written("late-of-pylate", partial(_of_pylate, named=True), "MultiVectorEncoder"),
    _written(
        "late-of-old-pylate",
        partial(_of_pylate, named=False),
        "MultiVectorEncoder",
        notices=frozenset({"library-warning"}),
    ),
    _written("late-of-stanford", _of_stanford, "MultiVectorEncoder"),
    _written(
        "encoder-by-its-card",
        partial(_described, write=_bert, library_name="sentence-transformers"),
        "SentenceTransformer",
        notices=frozenset({"default-pooling"}),
    ),
    _written(
        "asked-for",
        _bert,
        "SentenceTransformer",
        arguments={"kind": "sentence-transformers"},
        notices=frozenset({"default-pooling"}),
    ),
    _written(
        "asked-for-of-llama",
        _llama,
        "SentenceTransformer",
        arguments={"kind": "sentence-transformers"},
        notices=frozenset({"default-pooling"}),
    ),
    _written(
        "adapter",
        partial(
            _adapted,
            modules=partial(_pooled, "mean"),
            class_name="SentenceTransformer",
        ),
        "SentenceTransformer",
        plain=partial(_with_base, "SentenceTransformer"),
        companions={f"{Kind.SENTENCE_TRANSFORMERS}/base": _bert},
    ),
    _written(
        "code-of-its-own",
        _with_code,
        "SentenceTransformer",
        plain=partial(_plain, "SentenceTransformer", trust_remote_code=True),
        arguments={"trust_remote_code": True},
    ),
    _written("code-not-trusted", _with_code, "SentenceTransformer", refused="unsupported-repo"),
    _written(
        "code-elsewhere",
        partial(_with_code, place=f"{Kind.SENTENCE_TRANSFORMERS}/code--"),
        "SentenceTransformer",
        plain=_with_code_beside,
        arguments={"trust_remote_code": True},
        companions={f"{Kind.SENTENCE_TRANSFORMERS}/code": _code},
    ),
    # The layer over the first token: nothing for an embedding, and half of a classifier.
    _case("without-pooler", partial(_pooled, "mean"), then=_spoilt(_MODEL, _drop("pooler."))),
    _case(
        "ranker-without-pooler",
        _ranker,
        class_name="CrossEncoder",
        then=_spoilt(_MODEL, _drop("pooler.")),
        refused="missing-tensors",
    ),
    _case(
        "ranker-without-head",
        _ranker,
        class_name="CrossEncoder",
        then=_spoilt(_MODEL, _drop("classifier.")),
        refused="missing-tensors",
    ),
    _case(
        "without-a-layer",
        _dense,
        then=_spoilt(_MODEL, _drop("encoder.layer.1.")),
        refused="missing-tensors",
    ),
    _case(
        "dense-without-bias", _dense, then=_spoilt(_DENSE, _drop("bias")), refused="missing-tensors"
    ),
    _case(
        "dense-misshapen", _dense, then=_spoilt(_DENSE, _cut("weight")), refused="missing-tensors"
    ),
    _case(
        "misshapen",
        _dense,
        then=_spoilt(_MODEL, _cut("layer.0.output.dense.weight")),
        refused="missing-tensors",
    ),
    _case(
        "wrong-prefix",
        _dense,
        then=_spoilt(_MODEL, lambda w: {f"module.{key}": value for key, value in w.items()}),
        refused="missing-tensors",
    ),
    _case(
        "surplus",
        _dense,
        then=_spoilt(_MODEL, lambda w: {**w, "head.weight": w["pooler.dense.bias"].clone()}),
    ),
    _case(
        "static-without-weights",
        _static,
        then=_spoilt(_MODEL, lambda w: {"other.weight": w["embedding.weight"]}),
        refused="missing-tensors",
    ),
)
