"""What becomes of a model of transformers: the pipeline of a task, or the model alone. Pure.

Read in `transformers.pipeline`, `load_model` and the auto classes, 5.0 to 5.23.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

_TOKENIZERS = frozenset(
    {
        "bpe.codes",
        "dict.txt",
        "merges.txt",
        "prophetnet.tokenizer",
        "sentencepiece.bpe.model",
        "sentencepiece.model",
        "source.spm",
        "spiece.model",
        "spm.model",
        "spm_char.model",
        "tekken.json",
        "tiktoken.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab-src.json",
        "vocab.bpe",
        "vocab.json",
        "vocab.txt",
    }
)
"""Files of which a tokenizer has at least one."""

_OF_PROCESSORS = frozenset({"preprocessor_config.json", "processor_config.json"})
_OF_VIDEO = "video_preprocessor_config.json"

_HEADLESS: Mapping[str, frozenset[str]] = {
    "feature-extraction": frozenset({"text"}),
    "image-feature-extraction": frozenset({"image"}),
    "zero-shot-audio-classification": frozenset({"audio", "text"}),
}
"""The tasks that take models without a head, which nearly every family has, and the inputs that
their pipelines give."""

_NOT_MEANT: Mapping[str, str] = {"fill-mask": "ForConditionalGeneration"}
"""Endings of classes that a task takes and that were hardly made for it: translators that were
trained in the beginning on words left out."""

_RARELY_MEANT = ("zero-shot-classification", "any-to-any", "decision")
"""Tasks whose classes another task takes as well, which says more of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a task makes of one configuration.

    Attributes:
        builds: the class that its auto classes build; None if none of them takes the configuration.
        accepts: further classes that its pipeline works with; the library takes them where
            `architectures` names one and its auto classes do not take the configuration.
        needs: the processors without which the pipeline cannot be made.
    """

    task: str
    builds: str | None
    accepts: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()

    def takes(self, name: str | None) -> bool:
        """Say whether its pipeline would hold a model of the class."""
        return name is not None and (name == self.builds or self._falls_back_to(name))

    def _falls_back_to(self, name: str) -> bool:
        return self.builds is None and name in self.accepts


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is known of a model before it is built.

    Attributes:
        named: the class that `architectures` names, where the installed library has it, or the
            repository in code that is trusted.
        tag: the task that the Hub names, in the library's own spelling; None if none.
        processors: those that the files can give, see `processors_of`.
        modalities: the kinds of input of the class that is named, such as `image`.
        own: whether that class is of the repository's own code, which says nothing of its inputs.
    """

    named: str | None
    tag: str | None = None
    processors: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset({"text"})
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to build.

    Attributes:
        task: the pipeline; None for the model alone, of the class that is named.
        builds: the class that the model will be of; None where that is left to the library.
        instead: what to build where the files lack tensors of that class; None for nothing else.
    """

    task: str | None
    builds: str | None
    instead: Choice | None = None


def decide(wanted: Wanted, offers: Sequence[Offer]) -> Choice:
    """Choose the pipeline, or the model alone. A task that the caller names is not asked here.

    1. The Hub's tag, which is what `transformers.pipeline(model=id)` goes by, if a pipeline of that
       name is there, the files have the processors that it needs, and it takes the class that
       `architectures` names.
    2. Where the tag's auto class builds another class than is named, the library takes that one: it
       drops a head (`feature-extraction` of a `...ForMaskedLM`), or makes a new one of random
       numbers. So it is taken if the files have all its tensors, and it is told; if not, the class
       that is named comes by rule 3.
    3. The task whose auto class builds the class that is named: tasks with a head before those
       without, and among several the first in the library's order. Where several kinds of input
       could be meant (`AutoModel` takes all), the processors and the class's own inputs decide.
    4. Else the model alone, of exactly the class that is named; without `architectures` the one
       that the family has without a head.

    Args:
        offers: of all tasks, in the library's order.
    """
    own = _by_class(wanted, offers)
    tagged = next((offer for offer in offers if offer.task == wanted.tag), None)
    if tagged is None or not tagged.needs <= wanted.processors:
        return own
    if tagged.takes(wanted.named):
        return Choice(task=tagged.task, builds=wanted.named)
    if tagged.builds is None:
        return own
    instead = own if wanted.named is not None else None
    return Choice(task=tagged.task, builds=tagged.builds, instead=instead)


def _by_class(wanted: Wanted, offers: Sequence[Offer]) -> Choice:
    fitting = [
        offer
        for offer in offers
        if wanted.named is not None
        and offer.builds == wanted.named
        and offer.needs <= wanted.processors
        and _suits(wanted, offer.task)
    ]
    if not fitting:
        return Choice(task=None, builds=wanted.named)
    best = min(fitting, key=lambda offer: (offer.task in _HEADLESS, _rank(offer.task)))
    return Choice(task=best.task, builds=wanted.named)


def _suits(wanted: Wanted, task: str) -> bool:
    """Say whether a task that takes the class that is named can be what it was made for."""
    assert wanted.named is not None
    if task in _HEADLESS and (wanted.own or wanted.modalities != _HEADLESS[task]):
        return False
    return not (task in _NOT_MEANT and wanted.named.endswith(_NOT_MEANT[task]))


def _rank(task: str) -> int:
    """Put the task that says most first; `min` keeps the library's order among equals."""
    if task == "image-text-to-text":
        return -1  # Its classes generate from text alone, too.
    return _RARELY_MEANT.index(task) + 1 if task in _RARELY_MEANT else 0


def processors_of(names: Collection[str], config: Mapping[str, object]) -> frozenset[str]:
    """Name the processors that the files of a folder can make, as pipelines call them.

    Args:
        names: of the files directly in the folder.
        config: the content of its `config.json`.
    """
    found = set()
    files = frozenset(names)
    tokenizer = bool(files & _TOKENIZERS)
    if tokenizer:
        found.add("tokenizer")
    if files & _OF_PROCESSORS:
        found |= {"feature_extractor", "image_processor"}
        if tokenizer:
            found.add("processor")
    if files & _OF_PROCESSORS or _OF_VIDEO in files:
        found.add("video_processor")
    if "pretrained_cfg" in config:
        found.add("image_processor")  # timm keeps what it needs in the configuration of the model
    return frozenset(found)
