"""Classes of peft that the caller names: the auto classes, and those that take a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nbloader.records import Kind
from tests.differential.cases import companions
from tests.differential.cases.companions import SIZES, save_adapter, save_bert, save_llama
from tests.differential.harness import Case
from tests.models import WORDS

_LLAMA, _BERT = "adapted/llama", "adapted/bert"


# -- repositories ----------------------------------------------------------------------------------


def _llama(**sizes: Any) -> Any:
    import transformers

    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES | sizes, num_key_value_heads=2)
    )


def _bert(head: str) -> Any:
    import transformers

    return getattr(transformers, head)(transformers.BertConfig(**SIZES, num_labels=2))


def _save_classifying(folder: Path) -> None:
    save_adapter(
        partial(_bert, "BertForSequenceClassification"),
        _BERT,
        folder,
        target_modules=["query"],
        r=4,
        task_type="SEQ_CLS",
    )


def _save_grown(folder: Path) -> None:
    """An adapter whose tokenizer has two words more than its base, with their embeddings."""
    import transformers

    def base() -> Any:
        model = _llama()
        model.resize_token_embeddings(len(WORDS) + 2)
        return model

    save_adapter(base, _LLAMA, folder, target_modules=["q_proj"], r=4, task_type="CAUSAL_LM")
    (folder / "vocab.txt").write_text("\n".join([*WORDS, "more", "words"]))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


def _save_of(kind: str, folder: Path, **config: Any) -> None:
    import peft

    save_adapter(_llama, _LLAMA, folder, kind=getattr(peft, kind), task_type="CAUSAL_LM", **config)


_save_prompts = partial(_save_of, "PromptTuningConfig", num_virtual_tokens=2)
_save_prefixes = partial(_save_of, "PrefixTuningConfig", num_virtual_tokens=2)


def _save_without_task(base: Callable[[], Any], base_id: str, folder: Path) -> None:
    """An adapter that names the class of its base, as peft saves one without a task."""
    import peft

    model = peft.get_peft_model(base(), peft.LoraConfig(target_modules=["query"], r=4))
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base_id}))


def _save_unnamed(folder: Path) -> None:
    """One that names neither a task nor a class."""
    _save_without_task(partial(_bert, "BertModel"), _BERT, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_mapping": None}))


def _inside(save: Callable[[Path], object], folder: Path) -> None:
    save(folder / "inner" / "adapter")


def _pickled(folder: Path) -> None:
    companions.save_lora(folder)
    companions.pickle_adapter(folder)


def _save_beside(folder: Path) -> None:
    companions.save_lora(folder, "/home/someone/llama")
    save_llama(folder)


# -- the library's own lines -----------------------------------------------------------------------


def _auto(name: str, base: str, folder: Path, **given: Any) -> Any:
    import peft
    import torch

    place = companions.with_base(folder, base)
    return getattr(peft, name).from_pretrained(str(place), dtype=torch.float32, **given)


def _on(cls: str, name: str, base: str, folder: Path, *, words: int = 0, **given: Any) -> Any:
    """Put an adapter on a model that is loaded before, as its users do."""
    import peft
    import torch
    import transformers

    place = companions.with_base(folder, base)
    model = getattr(transformers, cls).from_pretrained(
        str(folder.parents[1] / base), dtype=torch.float32
    )
    if words:
        model.resize_token_embeddings(words)
    return getattr(peft, name).from_pretrained(model, str(place), **given)


def _logits(made: Any) -> Any:
    import torch

    with torch.no_grad():
        out = made(input_ids=torch.tensor([[5, 6, 7]]))
    return getattr(out, "logits", None) if hasattr(out, "logits") else out.last_hidden_state


def _config(cls: str, folder: Path) -> Any:
    import peft

    return getattr(peft, cls).from_pretrained(str(folder))


def _both(folder: Path) -> Any:
    import transformers

    return (
        _auto("AutoPeftModelForCausalLM", _LLAMA, folder),
        transformers.AutoTokenizer.from_pretrained(str(folder)),
    )


def _both_logits(made: Any) -> Any:
    import torch

    model, tokenizer = made
    with torch.no_grad():
        return model(**tokenizer("a good more words", return_tensors="pt")).logits


# -- cases -----------------------------------------------------------------------------------------


def _case(case: str, cls: Any, save: Callable[[Path], object], plain: Any, **more: Any) -> Case:
    arguments = {"cls": cls, **more.pop("arguments", {})}
    companion = more.pop("base", _LLAMA)
    return Case(
        name=f"peft-{case}",
        kind=Kind.CLASSES,
        save=save,
        plain=plain,
        call=more.pop("call", None if plain is None else _logits),
        companions={companion: save_llama if companion == _LLAMA else save_bert},
        arguments=arguments,
        group="peft" if plain is not None else None,
        **more,
    )


_CAUSAL = "AutoPeftModelForCausalLM"
_CLASSIFIER = "AutoPeftModelForSequenceClassification"
_BERT_CLASSIFIER = partial(_bert, "BertForSequenceClassification")

CASES = (
    _case("auto-causal", _CAUSAL, companions.save_lora, partial(_auto, _CAUSAL, _LLAMA)),
    _case("auto-classifier", _CLASSIFIER, _save_classifying, partial(_auto, _CLASSIFIER, _BERT),
          base=_BERT),
    _case("auto-grown", _CAUSAL, _save_grown, partial(_auto, _CAUSAL, _LLAMA)),
    _case("auto-grown-trained", _CAUSAL, _save_grown,
          partial(_auto, _CAUSAL, _LLAMA, is_trainable=True, adapter_name="own"),
          arguments={"loader_kwargs": {"is_trainable": True, "adapter_name": "own"}}),
    _case("auto-prompts", _CAUSAL, _save_prompts, partial(_auto, _CAUSAL, _LLAMA)),
    _case("auto-prefixes", _CAUSAL, _save_prefixes, partial(_auto, _CAUSAL, _LLAMA)),
    _case("auto-pickled", _CAUSAL, _pickled, partial(_auto, _CAUSAL, _LLAMA)),
    _case("auto-without-task", "AutoPeftModel",
          partial(_save_without_task, _BERT_CLASSIFIER, _BERT),
          partial(_auto, "AutoPeftModel", _BERT), base=_BERT, notices=frozenset({"new-head"})),
    _case("auto-in-a-folder", _CAUSAL, partial(_inside, _save_grown),
          lambda f: _auto_inside(f), arguments={"subfolder": "inner/adapter"}),
    _case("auto-beside-its-base", _CAUSAL, _save_beside,
          lambda f: _auto(_CAUSAL, f"{f.parent.name}/{f.name}", f)),
    *(
        _case(f"config-{cls.lower()}", cls, companions.save_lora, partial(_config, cls),
              call=None)
        for cls in ("PeftConfig", "LoraConfig")
    ),
    _case("tuple-config-first", ("PeftConfig", _CAUSAL), companions.save_lora,
          lambda f: (_config("PeftConfig", f), _auto(_CAUSAL, _LLAMA, f)), call=None),
    _case("no-config", "LoraConfig", save_llama, None, refused="no-weights"),
    _case("tuple", (_CAUSAL, "AutoTokenizer"), _save_grown, _both, call=_both_logits),
    _case("tuple-tokenizer-first", ("AutoTokenizer", _CAUSAL), _save_grown,
          lambda f: _both(f)[::-1], call=lambda made: _both_logits(made[::-1])),
    _case("causal", "PeftModel", companions.save_lora,
          partial(_on, "AutoModelForCausalLM", "PeftModel", _LLAMA)),
    _case("named-task", "PeftModelForCausalLM", companions.save_lora,
          partial(_on, "AutoModelForCausalLM", "PeftModelForCausalLM", _LLAMA)),
    _case("classifier", "PeftModel", _save_classifying,
          partial(_on, "AutoModelForSequenceClassification", "PeftModel", _BERT), base=_BERT),
    _case("grown", "PeftModel", _save_grown,
          partial(_on, "AutoModelForCausalLM", "PeftModel", _LLAMA, words=len(WORDS) + 2)),
    _case("prompts", "PeftModel", _save_prompts,
          partial(_on, "AutoModelForCausalLM", "PeftModel", _LLAMA)),
    _case("trained", "PeftModel", companions.save_lora,
          partial(_on, "AutoModelForCausalLM", "PeftModel", _LLAMA, is_trainable=True),
          arguments={"loader_kwargs": {"is_trainable": True}}),
    _case("without-task", "PeftModel", partial(_save_without_task, _BERT_CLASSIFIER, _BERT),
          partial(_on, "BertForSequenceClassification", "PeftModel", _BERT), base=_BERT,
          notices=frozenset({"new-head"})),
    _case("unnamed", "PeftModel", _save_unnamed, partial(_on, "BertModel", "PeftModel", _BERT),
          base=_BERT),
    _case("model-alone", "AutoModelForCausalLM", companions.save_lora,
          lambda f: _plain("AutoModelForCausalLM", companions.with_base(f, _LLAMA))),
    _case("not-for-the-task", _CLASSIFIER, companions.save_lora, None, refused="unsupported-repo"),
    _case("not-for-any-task", "AutoPeftModel", companions.save_lora, None,
          refused="unsupported-repo"),
    _case("not-named", "AutoPeftModel", _save_unnamed, None, base=_BERT,
          refused="unsupported-repo"),
    _case("not-an-adapter", _CAUSAL, save_llama, None, refused="unsupported-repo"),
)  # fmt: skip


def _plain(name: str, place: Path) -> Any:
    import torch
    import transformers

    return getattr(transformers, name).from_pretrained(str(place), dtype=torch.float32)


def _auto_inside(folder: Path) -> Any:
    import peft
    import torch

    place = companions.with_base(folder / "inner" / "adapter", _LLAMA, folder.parents[1])
    return peft.AutoPeftModelForCausalLM.from_pretrained(str(place), dtype=torch.float32)
