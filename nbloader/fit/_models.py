"""Families of models that read texts, and all of transformers, with their figures."""

from __future__ import annotations

from nbloader.fit._family import (
    CONTEXT,
    GIB,
    LANGUAGE_FP16,
    MB,
    NOT_KNOWN_TO_OVERFLOW,
    TEXTS,
    Family,
)
from nbloader.fit._senses import SENSES

__all__ = ["EMBEDDINGS", "MODELS"]

_GEMMA_FP16 = (
    "activations of up to 800,000 overflow in float16 "
    "(github.com/huggingface/transformers/issues/36822, github.com/unslothai/unsloth/pull/4014)"
)
_T5_FP16 = (
    "works: transformers keeps the layers that overflow, `wo`, in float32 (`_keep_in_fp32_modules`)"
)
_BERT_FP16 = "works (sbert.net/docs/sentence_transformer/usage/efficiency.html)"
_BERTS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra")
_GATED_BERTS = ("nomic_bert", "modernbert", "new", "albert", "eurobert", "neobert", "gte*", "jina*")
_BERT_FAMILIES = (
    Family(
        name="BERT",
        patterns=_BERTS,
        workload=TEXTS,
        activation_bytes=420 * MB,
        width_bytes=400_000,
        fp16_reason=_BERT_FP16,
        source="measured: 0.91 GB in all with MiniLM, as much as counted: 0.13 GiB for a width of "
        "384, 0.26 for 768, 0.34 for 1024",
    ),
    Family(
        name="BERT of newer forms",
        patterns=_GATED_BERTS,
        workload=TEXTS,
        activation_bytes=660 * MB,
        width_bytes=650_000,
        fp16_reason=_BERT_FP16,
        source="counted: 0.4 GB for Nomic, 0.46 for ALBERT-base, 0.51 for ModernBERT-large",
    ),
    Family(
        name="MPNet",
        patterns=("mpnet",),
        workload=TEXTS,
        activation_bytes=860 * MB,
        width_bytes=1_120_000,
        fp16_reason=_BERT_FP16,
        source="counted: 0.78 GB for a width of 768: its attention keeps the scores",
    ),
    Family(
        name="DeBERTa",
        patterns=("deberta*",),
        workload=TEXTS,
        activation_bytes=1800 * MB,
        width_bytes=1_750_000,
        fp16_reason=_BERT_FP16,
        source="counted: 1.2 GB for a width of 768: its attention keeps the scores, three of them",
    ),
)
_T5S = ("t5", "mt5", "umt5", "T5*", "MT5*", "UMT5*")
_LANGUAGE_MODELS = (
    *("llama*", "qwen2*", "qwen3*", "mistral*", "phi*", "smollm*", "olmo*", "falcon*", "gpt*"),
    *("bloom", "opt", "mpt", "codegen", "cohere*", "deepseek_v*", "glm*", "granite*", "mixtral"),
    *("ministral*", "starcoder*", "stablelm", "persimmon", "helium", "exaone*", "hunyuan_v1*"),
    *("internlm*", "nemotron*", "minimax*", "lfm*", "mamba*", "*mamba", "zamba*", "kimi*", "rwkv"),
    *("apertus", "arcee", "xglm", "biogpt", "dbrx", "openai-gpt", "ernie4_5*", "seed_oss", "ctrl"),
    "*ForCausalLM",
)
_GEMMAS = ("*gemma*", "*Gemma*", "colpali")

EMBEDDINGS: tuple[Family, ...] = (
    Family(
        name="image and text embeddings",
        patterns=("clip*", "siglip*", "CLIP*", "Siglip*"),
        workload="32 images of 224 x 224",
        activation_bytes=400 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 0.005 GB an image for the encoder of CLIP-L",
    ),
    Family(
        name="EmbeddingGemma",
        patterns=_GEMMAS,
        workload=TEXTS,
        activation_bytes=2 * GIB,
        fp16=False,
        fp16_reason=_GEMMA_FP16,
        source="inferred: as Qwen3-Embedding, with fewer layers",
    ),
    Family(
        name="T5 encoder",
        patterns=_T5S,
        workload=TEXTS,
        activation_bytes=2 * GIB,
        fp16_reason=_T5_FP16,
        source="inferred: 32 texts by the half of an XXL encoder, counted 0.09 GiB a text",
    ),
    *_BERT_FAMILIES,
    Family(
        name="language model for embeddings",
        patterns=_LANGUAGE_MODELS,
        workload=TEXTS,
        activation_bytes=int(2.4 * GIB),
        fp16_reason=LANGUAGE_FP16,
        source="measured: 4.24 GB in all with Qwen3-Embedding-0.6B, as much as counted: 2.16 GiB, "
        "most of it keys and values",
    ),
)
"""Models of sentence-transformers; the first match is taken."""

MODELS: tuple[Family, ...] = (
    *SENSES,
    Family(
        name="Gemma",
        patterns=_GEMMAS,
        workload=CONTEXT,
        activation_bytes=3 * GIB,
        fp16=False,
        fp16_reason=_GEMMA_FP16,
        source="inferred: as other language models, with wider layers",
    ),
    Family(
        name="T5",
        patterns=_T5S,
        workload=CONTEXT,
        activation_bytes=2 * GIB,
        fp16_reason=_T5_FP16,
        source="inferred: 8 times the count for 512 tokens, 0.09 GiB for the XXL encoder",
    ),
    *_BERT_FAMILIES,
    Family(
        name="translator and summariser",
        patterns=(
            *("bart", "mbart", "pegasus*", "marian", "m2m_100", "nllb*", "led", "longt5", "plbart"),
            *("blenderbot*", "prophetnet", "fsmt"),
        ),
        workload="1024 tokens of text",
        activation_bytes=300 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 0.04 GB for BART-large; with large vocabularies inferred",
    ),
    Family(
        name="language model",
        patterns=_LANGUAGE_MODELS,
        workload=CONTEXT,
        activation_bytes=GIB,
        fp16_reason=LANGUAGE_FP16,
        source="measured: 16.8 GB in all with Qwen2.5-7B, as much as counted: 0.76 GiB, a quarter "
        "of it keys and values; models with fewer key heads or narrower layers take less, those of "
        "70 billion parameters twice that",
    ),
    Family(
        name="text classifier",
        patterns=(
            *("roberta-prelayernorm", "xlm-roberta-xl", "ernie", "big_bird", "mobilebert", "esm"),
            *("squeezebert", "funnel", "layoutlm*", "convbert", "rembert", "roformer", "luke"),
            *("canine", "megatron-bert", "ibert", "data2vec-text", "xlm", "xlnet", "flaubert"),
            *("mra", "nystromformer", "yoso", "longformer", "splinter", "lilt", "bros", "markuplm"),
            *("tapas", "dpr", "fnet", "xmod"),
            *("*ForSequenceClassification", "*ForTokenClassification", "*ForMaskedLM"),
            *("*ForQuestionAnswering", "text-classification", "token-classification"),
            *("fill-mask", "question-answering", "zero-shot-classification", "feature-extraction"),
        ),
        workload=TEXTS,
        activation_bytes=GIB,
        fp16_reason="not known",
        source="inferred: twice a BERT of width 1024",
    ),
)
"""Models of transformers, and text encoders of pipelines; the first match is taken."""
