"""Ids without an organization: which there are, and what stands for the others."""

from __future__ import annotations

import re

from nbloader.records import Kind

# `ORIGINAL_TRANSFORMER_MODELS` of sentence_transformers/util/misc.py (6.2): the ids without an
# organization that the Hub still knows. A test compares it with the installed version.
WITHOUT_ORGANIZATION = frozenset(
    """
    albert-base-v1 albert-base-v2 albert-large-v1 albert-large-v2 albert-xlarge-v1 albert-xlarge-v2
    albert-xxlarge-v1 albert-xxlarge-v2 bert-base-cased bert-base-cased-finetuned-mrpc
    bert-base-chinese bert-base-german-cased bert-base-german-dbmdz-cased
    bert-base-german-dbmdz-uncased bert-base-multilingual-cased bert-base-multilingual-uncased
    bert-base-uncased bert-large-cased bert-large-cased-whole-word-masking
    bert-large-cased-whole-word-masking-finetuned-squad bert-large-uncased
    bert-large-uncased-whole-word-masking bert-large-uncased-whole-word-masking-finetuned-squad
    camembert-base ctrl distilbert-base-cased distilbert-base-cased-distilled-squad
    distilbert-base-german-cased distilbert-base-multilingual-cased distilbert-base-uncased
    distilbert-base-uncased-distilled-squad distilbert-base-uncased-finetuned-sst-2-english
    distilgpt2 distilroberta-base gpt2 gpt2-large gpt2-medium gpt2-xl openai-gpt roberta-base
    roberta-base-openai-detector roberta-large roberta-large-mnli roberta-large-openai-detector
    t5-11b t5-3b t5-base t5-large t5-small transfo-xl-wt103 xlm-clm-ende-1024 xlm-clm-enfr-1024
    xlm-mlm-100-1280 xlm-mlm-17-1280 xlm-mlm-en-2048 xlm-mlm-ende-1024 xlm-mlm-enfr-1024
    xlm-mlm-enro-1024 xlm-mlm-tlm-xnli15-1024 xlm-mlm-xnli15-1024 xlm-roberta-base
    xlm-roberta-large xlm-roberta-large-finetuned-conll02-dutch
    xlm-roberta-large-finetuned-conll02-spanish xlm-roberta-large-finetuned-conll03-english
    xlm-roberta-large-finetuned-conll03-german xlnet-base-cased xlnet-large-cased
    """.split()  # noqa: SIM905 - a page of names reads better as words
)

# `default_huggingface_organization` of the classes of sentence-transformers. Only the names of its
# own cross-encoders can be told from those of its embedders.
_ORGANIZATION = "sentence-transformers"
_CROSS_ENCODERS = re.compile(r"(ms-marco|mmarco)-.+", re.IGNORECASE)


def completed(repo_id: str, kind: Kind | None) -> str:
    """Complete a bare name as the library would that it is for.

    Args:
        kind: the library that was asked for; None lets the files decide.

    The other libraries complete none: they ask for it as it is, and only the old ids are found.
    """
    if "/" in repo_id or is_old(repo_id):
        return repo_id
    if kind not in (None, Kind.SENTENCE_TRANSFORMERS):
        return repo_id
    organization = "cross-encoder" if _CROSS_ENCODERS.fullmatch(repo_id) else _ORGANIZATION
    return f"{organization}/{repo_id}"


def is_old(repo_id: str) -> bool:
    """Say whether a bare name is an id of the Hub, one of those without an organization."""
    return repo_id.lower() in WITHOUT_ORGANIZATION
