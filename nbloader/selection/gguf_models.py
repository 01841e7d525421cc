"""The language models in GGUF files that transformers reads, by what the header says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nbloader.errors import UnsupportedRepoError
from nbloader.text import quote

CAUSAL = "AutoModelForCausalLM"

# What a file calls its architecture, and the family of transformers that it is: the keys of
# `GGUF_CONFIG_MAPPING` (`integrations/ggml.py`) and of `GGUF_CONFIG_ARCHS`
# (`integrations/gguf/gguf_config_mapping.py`), as `load_gguf_checkpoint` names them (5.23). A test
# compares them with the installed version.
FAMILIES: Mapping[str, str] = {
    "bloom": "bloom",
    "deci": "deci",
    "falcon": "falcon",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma4": "gemma4",
    "gpt-oss": "gpt_oss",
    "gpt2": "gpt2",
    "gpt_oss": "gpt_oss",
    "lfm2": "lfm2",
    "llama": "llama",
    "mamba": "mamba",
    "minimax-m2": "minimax_m2",
    "mistral": "mistral",
    "nemotron": "nemotron",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen2moe": "qwen2_moe",
    "qwen3": "qwen3",
    "qwen35": "qwen35",
    "qwen35moe": "qwen35moe",
    "qwen3moe": "qwen3_moe",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
    "t5": "t5",
    "t5encoder": "t5",
    "umt5": "umt5",
}

_OTHER_CLASSES: Mapping[str, str] = {
    "t5": "AutoModelForSeq2SeqLM",
    "t5encoder": "T5EncoderModel",
    "umt5": "AutoModelForSeq2SeqLM",
}


VOCABULARIES = frozenset({"gemma4", "gpt2", "llama", "t5"})
"""The vocabularies that transformers makes a tokenizer of (`GGUF_TOKENIZER_TYPES`, 5.23)."""

UNPACKED = frozenset(
    {
        *("BF16", "F16", "F32"),
        *("IQ4_NL", "IQ4_XS"),
        *("Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"),
    }
)
"""The types of tensors that diffusers unpacks (`dequantize_functions`, 0.42.1)."""


def check_parts(path: str, metadata: Mapping[str, object]) -> None:
    """Refuse a GGUF that is one of several, or what is put into another model.

    Raises:
        UnsupportedRepoError: it is one; neither library reads such a file.
    """
    count = metadata.get("split.count")
    if isinstance(count, int) and count > 1:
        raise UnsupportedRepoError(
            f"{quote(path)} is one of {count} files of one model, which neither diffusers nor "
            "transformers puts together.",
            hint="Look for the same model in one file, or put them together with llama.cpp: "
            "llama-gguf-split --merge.",
        )
    if metadata.get("general.type") in ("adapter", "mmproj"):
        raise UnsupportedRepoError(
            f"{quote(path)} is no model by itself: it is put into another one.",
            hint="Load it with llama.cpp, beside the model that it is for.",
        )


def check_vocabulary(path: str, metadata: Mapping[str, object]) -> None:
    """See that transformers can make a tokenizer of a GGUF. Raises UnsupportedRepoError."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in VOCABULARIES:
        raise UnsupportedRepoError(
            f"{quote(path)} has "
            + ("no vocabulary" if kind is None else f"a vocabulary of the kind {quote(kind)}")
            + ", of which transformers makes no tokenizer.",
            hint='For the model alone: nbloader.load(..., cls="AutoModelForCausalLM").',
        )


def check_types(path: str, types: Iterable[str]) -> None:
    """See that diffusers unpacks all types of tensors. Raises UnsupportedRepoError."""
    unknown = sorted(set(types) - UNPACKED)
    if unknown:
        raise UnsupportedRepoError(
            f"{quote(path)} holds tensors of {', '.join(unknown[:5])}, which diffusers does not "
            "unpack.",
            hint="Choose another quantization of the same model, such as Q4_K_S or Q8_0.",
        )


@dataclass(frozen=True, slots=True)
class GgufModel:
    """A language model.

    Attributes:
        architecture: as the file calls it.
        family: the family by which transformers finds the configuration.
        class_name: the class that it is built with.
    """

    architecture: str
    family: str
    class_name: str

    @property
    def writes_text(self) -> bool:
        """Whether the pipeline for text is for it."""
        return self.class_name == CAUSAL


def gguf_model(metadata: Mapping[str, object]) -> GgufModel | None:
    """Return what transformers makes of a GGUF; None if it has no family of that name."""
    architecture = metadata.get("general.architecture")
    family = FAMILIES.get(architecture) if isinstance(architecture, str) else None
    if family is None:
        return None
    assert isinstance(architecture, str)
    return GgufModel(architecture, family, _OTHER_CLASSES.get(architecture, CAUSAL))
