"""The language models in GGUF files that transformers reads, by what the header says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
