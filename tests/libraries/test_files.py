"""What the installed libraries read from single files, against what they say themselves."""

from __future__ import annotations

from pathlib import Path

import diffusers
import transformers
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from nbloader.libraries import class_facts
from nbloader.libraries.files import gguf_families, reads_checkpoints
from nbloader.libraries.sources import Sources
from nbloader.records import ClassFacts, Component, Kind, Selection


def sources(library: object) -> Sources:
    return Sources(Path(str(library.__file__)).parent)  # type: ignore[attr-defined]


def test_the_readers_of_checkpoints_are_found() -> None:
    files = sources(diffusers)
    assert all(reads_checkpoints(files, name) for name in SINGLE_FILE_LOADABLE_CLASSES)
    assert not reads_checkpoints(files, "FluxControlNetModel")
    assert not reads_checkpoints(files, "default_subfolder")


def test_the_families_of_gguf_are_found() -> None:
    theirs = {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS} - {"general", "tokenizer"}
    assert gguf_families(sources(transformers)) == theirs


def test_what_reads_a_file_is_among_the_facts(tmp_path: Path) -> None:
    """A library that has the class, and reads no files of it."""
    package = tmp_path / "diffusers"
    (package / "loaders").mkdir(parents=True)
    (package / "__init__.py").write_text('_import_structure["models"].extend(["AutoencoderKL"])\n')
    (package / "loaders" / "single_file_model.py").write_text('    "Other": {\n')
    part = Component(
        name="model",
        library="diffusers",
        class_name="AutoencoderKL",
        paths=("x.safetensors",),
        weights=("x.safetensors",),
        checkpoint="x.safetensors",
    )
    selection = Selection(
        repo_id="org/name",
        revision="main",
        commit_hash="0" * 40,
        kind=Kind.CLASSES,
        class_name="AutoencoderKL",
        components=(part,),
        files=(),
        checkpoint="x.safetensors",
    )
    facts = class_facts(selection, find={"diffusers": package}.get)
    assert facts[-1] == ClassFacts(
        library="diffusers", name="reader of files for AutoencoderKL", found=False
    )
