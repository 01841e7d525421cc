"""Classes that are found in the files of old and new libraries, against what the libraries say.

The versions are unpacked without what they require, by `make test-library-versions`. diffusers and
transformers list their names when they are imported even so; sentence-transformers cannot be
imported beside other versions of its requirements, and is compared with a table.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from nbloader.libraries import class_facts
from nbloader.libraries.sources import Sources
from nbloader.libraries.transformers import find_class, has_family
from nbloader.records import ClassFacts, Component, Kind, Selection
from tests.library_versions import names

VERSIONS = sorted(path.stem for path in Path(__file__).parent.glob("*.txt"))
UNPACKED = Path(__file__).parents[2] / ".venv/libraries"
ABSENT = 20
"""So many names of other versions are looked for: not to find one takes a look at every file."""


def versions_of(library: str) -> list[str]:
    return [version for version in VERSIONS if version.startswith(f"{library}-")]


def folder(version: str) -> Path:
    library = version.rpartition("-")[0].replace("-", "_")
    found = UNPACKED / version / library
    if not found.is_dir():
        pytest.fail("The libraries are missing. Run: make test-library-versions")
    return found


def ask(version: str, *asked: str) -> dict[str, set[str]]:
    place = folder(version)
    # Without bytecode: nothing is to be written into the folder.
    variables = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", names.__file__, place.parent, place.name, *asked],
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return {key: set(value) for key, value in json.loads(done.stdout.splitlines()[-1]).items()}


@cache
def listed(version: str) -> frozenset[str]:
    return frozenset(ask(version)["listed"])


def absent(version: str, library: str) -> list[str]:
    """Names that other versions have."""
    others = set().union(*(listed(other) for other in versions_of(library))) - listed(version)
    return sorted(random.Random(0).sample(sorted(others), min(ABSENT, len(others))))


def has(sources: Sources, library: str, name: str) -> bool:
    found = sources.listed(name) if library == "diffusers" else find_class(sources, name)
    return found is not None


@pytest.mark.parametrize("library", ["diffusers", "transformers"])
def test_every_public_class_is_found(library: str) -> None:
    for version in versions_of(library):
        sources = Sources(folder(version))
        assert [name for name in sorted(listed(version)) if not has(sources, library, name)] == []


@pytest.mark.parametrize("version", [*versions_of("diffusers"), *versions_of("transformers")])
def test_what_only_other_versions_have_is_not_found(version: str) -> None:
    library = version.rpartition("-")[0]
    asked = absent(version, library)
    assert asked
    given = ask(version, *asked)["given"]
    sources = Sources(folder(version))
    assert [name for name in asked if has(sources, library, name)] == sorted(given)


@pytest.mark.parametrize(
    ("version", "newest"),
    [
        ("transformers-4.44.0", "mamba2"),
        ("transformers-5.0.0", "qwen3"),
        ("transformers-5.15.0", "qwen3_5"),
        ("transformers-5.23.0", "qwen3_5"),
    ],
)
def test_families_of_models(version: str, newest: str) -> None:
    sources = Sources(folder(version))
    families = ("bert", "bert-generation", "gpt-sw3", "xlm-roberta", newest)
    assert [has_family(sources, name) for name in families] == [True] * 5
    assert not any(has_family(sources, name) for name in ("BertConfig", "nothing", "ber.", ""))
    assert has_family(sources, "qwen3_5") == (newest == "qwen3_5")


MODULES = (
    ("sentence_transformers.models", "Transformer"),
    ("sentence_transformers.models.Pooling", "Pooling"),
    ("sentence_transformers", "StaticEmbedding"),
    ("sentence_transformers.sentence_transformer.modules.normalize", "Normalize"),
    ("sentence_transformers.base.modules.normalize", "Normalize"),
    ("sentence_transformers", "Nothing"),
    ("sentence_transformers.models", "os"),
)


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("sentence-transformers-3.0.0", [True, True, False, False, False, False, False]),
        ("sentence-transformers-5.7.0", [True, True, True, True, False, False, False]),
        ("sentence-transformers-6.2.0", [True, True, True, True, True, False, False]),
    ],
)
def test_modules_under_their_old_and_new_paths(version: str, found: list[bool]) -> None:
    facts = class_facts(selection(Kind.SENTENCE_TRANSFORMERS, None, *MODULES), find=at(version))
    assert facts == tuple(
        ClassFacts(library=library, name=name, found=is_there)
        for (library, name), is_there in zip(MODULES, found, strict=True)
    )


def at(*versions: str) -> Callable[[str], Path | None]:
    folders = {folder(version).name: folder(version) for version in versions}
    return folders.get


def selection(kind: Kind, class_name: str | None, *parts: tuple[str, str]) -> Selection:
    return Selection(
        repo_id="org/name",
        revision="main",
        commit_hash="c" * 40,
        kind=kind,
        class_name=class_name,
        components=tuple(
            Component(name=f"part-{number}", library=library, class_name=name, paths=())
            for number, (library, name) in enumerate(parts)
        ),
        files=(),
    )


QWEN = (
    ("diffusers", "FlowMatchEulerDiscreteScheduler"),
    ("transformers", "Qwen2_5_VLForConditionalGeneration"),
    ("transformers", "Qwen2VLProcessor"),
)
VISION = ("PIL", "torchvision")
PIPE = ("torch", "transformers")


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        (
            ("diffusers-0.30.0", "transformers-4.44.0"),
            [(False, ()), (True, ("torch",)), (False, ()), (False, ())],
        ),
        (
            ("diffusers-0.37.1", "transformers-4.44.0"),
            [(True, PIPE), (True, ("torch",)), (False, ()), (False, ())],
        ),
        (
            ("diffusers-0.37.1", "transformers-5.0.0"),
            [(True, PIPE), (True, ("torch",)), (True, ("torch",)), (True, VISION)],
        ),
        (
            ("diffusers-0.42.1", "transformers-5.23.0"),
            [(True, PIPE), (True, ("torch",)), (True, ("torch",)), (True, VISION)],
        ),
    ],
)
def test_the_classes_of_a_pipeline_and_what_they_need(
    versions: tuple[str, str], found: list[tuple[bool, tuple[str, ...]]]
) -> None:
    facts = class_facts(
        selection(Kind.DIFFUSERS, "QwenImageEditPlusPipeline", *QWEN), find=at(*versions)
    )
    assert [(fact.found, fact.needs) for fact in facts] == found


@pytest.mark.parametrize(
    ("versions", "library", "name", "found", "needs"),
    [
        # Gone from transformers; diffusers takes another class for it, once it knows of that.
        (
            ("diffusers-0.30.0", "transformers-5.0.0"),
            "transformers",
            "CLIPFeatureExtractor",
            False,
            (),
        ),
        (
            ("diffusers-0.37.1", "transformers-5.0.0"),
            "transformers",
            "CLIPFeatureExtractor",
            True,
            ("PIL",),
        ),
        # A class without a file of its own, and one with torchvision or Pillow below it.
        (("transformers-5.0.0",), "transformers", "T5TokenizerFast", True, ()),
        (("transformers-4.44.0",), "transformers", "T5Tokenizer", True, ("sentencepiece",)),
        (("transformers-5.0.0",), "transformers", "MarianTokenizer", True, ("sentencepiece",)),
        (("transformers-5.23.0",), "transformers", "CLIPImageProcessor", True, ("PIL",)),
        (("transformers-5.23.0",), "transformers", "CLIPImageProcessorFast", True, VISION),
        (
            ("transformers-5.0.0",),
            "transformers",
            "CLIPImageProcessorFast",
            True,
            ("PIL", "torch", "torchvision"),
        ),
        (("transformers-4.44.0",), "transformers", "TimmBackbone", True, ("PIL", "timm", "torch")),
        (("diffusers-0.42.1",), "diffusers", "LMSDiscreteScheduler", True, ("scipy", "torch")),
        (("diffusers-0.42.1",), "diffusers", "WanPipeline", True, PIPE),
        (("diffusers-0.42.1",), "diffusers", "WanImageToVideoPipeline", True, ("ftfy", *PIPE)),
        (("diffusers-0.30.0",), "diffusers", "KolorsPipeline", True, ("sentencepiece", *PIPE)),
        (("diffusers-0.42.1",), "stable_diffusion", "StableDiffusionSafetyChecker", True, PIPE),
        (("diffusers-0.42.1",), "stable_diffusion", "Nothing", False, ()),
        # It loads components of the libraries that it knows, and of its own pipelines.
        (("diffusers-0.42.1",), "some_package", "Anything", False, ()),
        (("diffusers-0.42.1",), "../../evil", "Anything", False, ()),
        (("diffusers-0.42.1",), "diffusers", "(a+)+$", False, ()),
    ],
)
def test_classes_that_are_found_in_other_ways(
    versions: tuple[str, ...],
    library: str,
    name: str,
    found: bool | None,
    needs: tuple[str, ...],
) -> None:
    facts = class_facts(selection(Kind.DIFFUSERS, None, (library, name)), find=at(*versions))
    gone = found is False and name == "CLIPFeatureExtractor"
    expected = ClassFacts(
        library=library,
        name=name,
        found=found,
        needs=needs,
        successor="CLIPImageProcessor" if gone else "",
    )
    assert facts == (expected,)
