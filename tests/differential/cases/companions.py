"""Models of transformers that need another repository: adapters, and code that lies elsewhere."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nbloader.records import Kind
from tests.differential.harness import Case
from tests.models import WORDS, picture, save_classifier, save_pipeline

CODE = """
from transformers import BertConfig, BertForSequenceClassification, PreTrainedConfig
from .parts import WIDTH


class OwnConfig(BertConfig):
    model_type = "of-its-own"


class OwnClassifier(BertForSequenceClassification):
    config_class = OwnConfig
    width = WIDTH
"""
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def save_llama(folder: Path) -> None:
    """Write a language model with its tokenizer."""
    import transformers

    config = transformers.LlamaConfig(
        **SIZES, num_key_value_heads=2, pad_token_id=0, bos_token_id=2, eos_token_id=3
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


def save_bert(folder: Path) -> None:
    """Write an encoder without a head, with its tokenizer."""
    import transformers

    transformers.BertModel(transformers.BertConfig(**SIZES)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


def save_adapter(
    base: Callable[[], Any], base_id: str, folder: Path, card: str = "", **config: Any
) -> None:
    """Write an adapter whose matrices are not zero, as PEFT saves it."""
    import peft
    import torch

    kind = config.pop("kind", peft.LoraConfig)
    model = peft.get_peft_model(base(), kind(**config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name or "ia3" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    (folder / "README.md").write_text(card)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base_id}))


def _llama() -> Any:
    import transformers

    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=2))


def _classifier_of_three() -> Any:
    import transformers

    config = transformers.BertConfig(**SIZES, num_labels=2)
    return transformers.BertForSequenceClassification(config)


def save_lora(folder: Path, base_id: str = "adapted/llama") -> None:
    save_adapter(
        _llama, base_id, folder, target_modules=["q_proj", "v_proj"], r=4, task_type="CAUSAL_LM"
    )


def _save_ia3(folder: Path) -> None:
    import peft

    save_adapter(
        _llama,
        "adapted/llama",
        folder,
        kind=peft.IA3Config,
        target_modules=["k_proj", "v_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        task_type="CAUSAL_LM",
    )


def _save_classifying(folder: Path) -> None:
    save_adapter(
        _classifier_of_three,
        "adapted/bert",
        folder,
        target_modules=["query"],
        r=4,
        task_type="SEQ_CLS",
    )


def pickle_adapter(folder: Path) -> None:
    """Write an adapter in the format of old."""
    import torch
    from safetensors.torch import load_file

    weights = folder / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "adapter_model.bin")
    weights.unlink()


def _save_pickled(folder: Path) -> None:
    save_lora(folder)
    pickle_adapter(folder)


def _from_pickled(folder: Path) -> Any:
    """The library's own load: of an adapter in a folder it reads safetensors alone."""
    import torch
    import transformers
    from safetensors.torch import save_file

    copied = with_base(folder, "adapted/llama")
    save_file(
        torch.load(copied / "adapter_model.bin", weights_only=True),
        copied / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    return transformers.pipeline("text-generation", model=str(copied), device="cpu")


def _save_beside(folder: Path) -> None:
    """A whole model, and the adapter that belongs to it, with the name of another machine."""
    save_lora(folder, "/home/someone/llama")
    save_llama(folder)


def with_base(folder: Path, repo_id: str, root: Path | None = None) -> Path:
    """Return a copy of an adapter that names the folder of its base, among the others of `root`."""
    copied = Path(tempfile.mkdtemp(), folder.name)
    shutil.copytree(folder, copied)
    config = copied / "adapter_config.json"
    base = str((root or folder.parents[1]) / repo_id)
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": base})
    )
    return copied


def _adapted(task: str, repo_id: str, folder: Path) -> Any:
    import transformers

    return transformers.pipeline(task, model=str(with_base(folder, repo_id)), device="cpu")


def _beside(folder: Path) -> Any:
    import transformers

    return transformers.pipeline("text-generation", model=str(folder), device="cpu")


def _generate(made: Any) -> Any:
    return made("a good", max_new_tokens=3, do_sample=False)


# --- code -----------------------------------------------------------------------------------------


def save_code(folder: Path) -> None:
    (folder / "own_classifier.py").write_text(CODE)
    (folder / "parts.py").write_text("WIDTH = 32\n")


def save_coded(folder: Path, where: str = "coded/code") -> None:
    """A classifier whose configuration and class are in another repository."""
    save_classifier(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {
        "model_type": "of-its-own",
        "architectures": ["OwnClassifier"],
        "auto_map": {
            "AutoConfig": f"{where}--own_classifier.OwnConfig",
            "AutoModelForSequenceClassification": f"{where}--own_classifier.OwnClassifier",
        },
    }
    path.write_text(json.dumps(config))


def _save_coded_itself(folder: Path) -> None:
    save_coded(folder, "transformers/code-named-with-its-own-id")
    save_code(folder)


def _coded(where: str, folder: Path) -> Any:
    """The library's own load, from a cache that holds the code."""
    import transformers

    cache, commit = Path(tempfile.mkdtemp()), "c" * 40
    snapshot = cache / f"models--{where.replace('/', '--')}" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    save_code(snapshot)
    code = {"code_revision": commit, "cache_dir": str(cache)}
    given: dict[str, Any] = {}
    if (folder / "config.json").exists():
        # Older pipelines read it without the revision of the code.
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True, **code)
        given["config"] = config
    return transformers.pipeline(
        "text-classification",
        model=str(folder),
        device="cpu",
        trust_remote_code=True,
        model_kwargs=code,
        **given,
    )


def _classify(made: Any) -> Any:
    return made(["a good b", "bad"])


# --- the code of a pipeline -----------------------------------------------------------------------


def _save_piped(folder: Path) -> None:
    (folder / "pipeline.py").write_text(
        "from diffusers import StableDiffusionPipeline\nfrom .beside import NUMBER\n\n\n"
        "class ElsewherePipeline(StableDiffusionPipeline):\n    answer = NUMBER\n"
    )
    (folder / "beside.py").write_text("NUMBER = 42\n")


def _piped(folder: Path) -> Any:
    import diffusers
    import torch

    return diffusers.DiffusionPipeline.from_pretrained(
        str(folder),
        custom_pipeline=str(folder.parents[1] / "piped/code"),
        trust_remote_code=True,
        torch_dtype=torch.float32,
    )


_LLAMA = {"adapted/llama": save_llama}

CASES = (
    Case(
        name="adapter-lora",
        kind=Kind.TRANSFORMERS,
        save=save_lora,
        plain=partial(_adapted, "text-generation", "adapted/llama"),
        call=_generate,
        companions=_LLAMA,
    ),
    Case(
        name="adapter-lora-bfloat16",
        kind=Kind.TRANSFORMERS,
        save=save_lora,
        plain=lambda folder: _in_bfloat16(folder),
        call=_generate,
        companions=_LLAMA,
        arguments={"dtype": "bfloat16"},
    ),
    Case(
        name="adapter-ia3",
        kind=Kind.TRANSFORMERS,
        save=_save_ia3,
        plain=partial(_adapted, "text-generation", "adapted/llama"),
        call=_generate,
        companions=_LLAMA,
    ),
    Case(
        name="adapter-pickled",
        kind=Kind.TRANSFORMERS,
        save=_save_pickled,
        plain=_from_pickled,
        call=_generate,
        companions=_LLAMA,
    ),
    Case(
        name="adapter-with-a-head",
        kind=Kind.TRANSFORMERS,
        save=_save_classifying,
        plain=partial(_adapted, "text-classification", "adapted/bert"),
        call=_classify,
        companions={"adapted/bert": save_bert},
    ),
    Case(
        name="adapter-beside-its-model",
        kind=Kind.TRANSFORMERS,
        save=_save_beside,
        plain=_beside,
        call=_generate,
    ),
    Case(
        name="adapter-of-another-kind",
        kind=Kind.TRANSFORMERS,
        save=lambda folder: _save_prompts(folder),
        companions=_LLAMA,
        refused="unsupported-repo",
    ),
    Case(
        name="code-elsewhere",
        kind=Kind.TRANSFORMERS,
        save=save_coded,
        plain=partial(_coded, "coded/code"),
        call=_classify,
        companions={"coded/code": save_code},
        arguments={"trust_remote_code": True},
    ),
    Case(
        name="code-elsewhere-not-trusted",
        kind=Kind.TRANSFORMERS,
        save=save_coded,
        companions={"coded/code": save_code},
        refused="unsupported-repo",
    ),
    Case(
        name="code-named-with-its-own-id",
        kind=Kind.TRANSFORMERS,
        save=_save_coded_itself,
        plain=partial(_coded, "transformers/code-named-with-its-own-id"),
        call=_classify,
        arguments={"trust_remote_code": True},
    ),
    Case(
        name="pipeline-with-code-elsewhere",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        plain=_piped,
        call=picture,
        companions={"piped/code": _save_piped},
        arguments={
            "trust_remote_code": True,
            "loader_kwargs": {"custom_pipeline": "piped/code"},
        },
    ),
    Case(
        name="pipeline-with-code-elsewhere-not-trusted",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        companions={"piped/code": _save_piped},
        arguments={"loader_kwargs": {"custom_pipeline": "piped/code"}},
        refused="unsupported-repo",
    ),
    Case(
        name="adapter-of-a-model-with-code-elsewhere",
        kind=Kind.TRANSFORMERS,
        save=lambda folder: _save_on_coded(folder),
        plain=lambda folder: _on_coded(folder),
        call=_classify,
        companions={"adapted/coded": save_coded, "coded/code": save_code},
        arguments={"trust_remote_code": True},
    ),
)


def _in_bfloat16(folder: Path) -> Any:
    import transformers

    copied = with_base(folder, "adapted/llama")
    return transformers.pipeline(
        "text-generation", model=str(copied), device="cpu", dtype="bfloat16"
    )


def _save_prompts(folder: Path) -> None:
    import peft

    save_adapter(
        _llama,
        "adapted/llama",
        folder,
        kind=peft.PromptTuningConfig,
        num_virtual_tokens=2,
        task_type="CAUSAL_LM",
    )


def _save_on_coded(folder: Path) -> None:
    import transformers

    def base() -> Any:
        config = transformers.BertConfig(**SIZES | {"hidden_size": 64, "intermediate_size": 64})
        return transformers.BertForSequenceClassification(config)

    save_adapter(base, "adapted/coded", folder, target_modules=["query"], r=4)


def _on_coded(folder: Path) -> Any:
    copied = with_base(folder, "adapted/coded")
    return _coded("coded/code", copied)
