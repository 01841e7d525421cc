"""What the installed libraries can read from single files, as their own files say."""

from __future__ import annotations

import re

from nbloader.libraries.sources import Sources

_READERS = "loaders/single_file_model.py"
_CONFIGS = "integrations/ggml.py"
_NEWER_CONFIGS = "integrations/gguf/gguf_config_mapping.py"

_TABLE = re.compile(r"^GGUF_CONFIG_(?:MAPPING|ARCHS)\b[^{]*\{(.*?)^\}", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r'^ {4}"([\w-]+)":', re.MULTILINE)
_NO_FAMILIES = frozenset({"general", "tokenizer"})


def reads_checkpoints(sources: Sources, name: str) -> bool:
    """Say whether diffusers has a reader of checkpoints for a class of models."""
    return f'    "{name}": {{' in sources.text(_READERS)


def gguf_families(sources: Sources) -> frozenset[str]:
    """Name the families of models that transformers reads from GGUF."""
    tables = (
        table[1]
        for path in (_CONFIGS, _NEWER_CONFIGS)
        for table in _TABLE.finditer(sources.text(path))
    )
    return frozenset(name for table in tables for name in _KEY.findall(table)) - _NO_FAMILIES
