"""What is known of the classes of a selection, of pipelines above all, and what follows from it."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from nbloader.checks import quantizations_of
from nbloader.checks.packages import check_packages
from nbloader.libraries import class_facts
from nbloader.libraries.diffusers import SUCCESSORS, required_by
from nbloader.libraries.sources import Found, Sources
from nbloader.records import CheckStatus, ClassFacts, Component, ComponentWeights
from tests.checks.test_packages import COLAB, PIPELINE, installed, result
from tests.samples import SELECTION

# -- what the class of a pipeline takes ------------------------------------------------------------


def test_what_a_pipeline_cannot_do_without_is_what_diffusers_asks_for() -> None:
    import diffusers

    names = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    classes: dict[str, Any] = {
        name: each
        for name in names
        if isinstance(each := getattr(diffusers, name), type)
        and issubclass(each, diffusers.DiffusionPipeline)
        and each is not diffusers.DiffusionPipeline
    }
    assert len(classes) > 200
    told = {}
    asked = {}
    for name, each in classes.items():
        (fact,) = class_facts(replace(SELECTION, class_name=name, components=()))
        told[name] = [component for component, _ in fact.components]
        parameters = inspect.signature(each.__init__).parameters.items()
        asked[name] = sorted(
            key
            for key, one in parameters
            if one.default is one.empty and key != "self" and key not in each._optional_components
        )
    assert told == asked


def test_what_a_pipeline_needs_is_read_from_its_source(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "__init__.py").write_text('_import_structure["pipelines"] = ["Own", "Odd"]\n')
    (tmp_path / "pipelines/a.py").write_text(
        "class Base(DiffusionPipeline):\n"
        "    _optional_components = ['extra']\n"
        "    def __init__(self, vae: AutoencoderKL, extra, text: A | B, *, unet: M, size=3): ...\n"
        "class Odd(DiffusionPipeline):\n"
        "    _optional_components = Base._optional_components\n"
        "    def __init__(self, vae): ...\n"
    )
    (tmp_path / "pipelines/b.py").write_text(
        "from .a import Base\nclass Own(Base, LoraMixin):\n    pass\n"
    )
    sources = Sources(tmp_path)
    assert required_by(sources, Found(PurePosixPath("pipelines/b.py")), "Own") == (
        ("text", ""),
        ("unet", "M"),
        ("vae", "AutoencoderKL"),
    )
    # Where it is not written out, nothing is said.
    assert required_by(sources, Found(PurePosixPath("pipelines/a.py")), "Odd") is None
    assert required_by(sources, Found(None), "Gone") is None


HIDREAM = ClassFacts(
    library="diffusers",
    name="HiDreamImagePipeline",
    found=True,
    components=(
        ("text_encoder", "CLIPTextModel"),
        ("text_encoder_4", "LlamaForCausalLM"),
        ("tokenizer_4", ""),
    ),
)


def test_a_part_that_the_class_needs_and_nobody_brings_is_asked_for() -> None:
    assert check_packages(PIPELINE, installed(), [HIDREAM]) == result(
        "'HiDreamImagePipeline' needs 'text_encoder_4', 'tokenizer_4', and org/name has none",
        "Load it from where it is, as the repository's card says, and hand it in: "
        'loader_kwargs={"text_encoder_4": LlamaForCausalLM.from_pretrained(...), '
        '"tokenizer_4": ...}',
        "missing-component",
    )
    handed_in = {"text_encoder_4", "tokenizer_4"}
    found = check_packages(PIPELINE, installed(), [HIDREAM], handed_in=handed_in)
    assert found.status is CheckStatus.PASSED


def test_a_part_of_several_types_is_asked_for_by_one_that_can_be_made() -> None:
    parts = (("scheduler", "KarrasDiffusionSchedulers"), ("model", "Any"), ("size", "int"))
    found = check_packages(PIPELINE, installed(), [replace(HIDREAM, components=parts)])
    assert found.hint.endswith(
        'loader_kwargs={"scheduler": DPMSolverMultistepScheduler.from_pretrained(...), '
        '"model": ..., "size": ...}'
    )


# -- classes that are gone -------------------------------------------------------------------------


def test_a_class_that_older_versions_had_is_not_told_to_be_new() -> None:
    gone = [ClassFacts(library="diffusers", name="OldPipeline", found=False)]
    packages = installed(imported={"diffusers": "0.39.0"})
    old = replace(PIPELINE, written_with="0.30.0.dev0")
    assert check_packages(old, packages, gone) == result(
        "diffusers 0.39.0 has no 'OldPipeline': org/name was written with diffusers 0.30.0.dev0, "
        "and the class was renamed or taken out since",
        'An environment with "diffusers==0.30.0" has it: load it there with diffusers itself. '
        "Or look for a newer repository of the same model.",
        "unsupported-class",
    )
    for version in ("0.39.0", "0.40.0.dev0", "no version", None):
        selection = replace(PIPELINE, written_with=version)
        assert '"diffusers>0.39.0"' in check_packages(selection, packages, gone).hint


def test_a_class_that_was_renamed_is_named() -> None:
    selection = replace(SELECTION, class_name="Lumina2Text2ImgPipeline", components=())
    found = check_packages(selection, installed(), class_facts(selection))
    assert "no 'Lumina2Text2ImgPipeline': 'Lumina2Pipeline' took its place" in found.message
    assert found.hint == "diffusers.Lumina2Pipeline.from_pretrained('org/name') loads it."
    part = Component(
        name="feature_extractor", library="transformers", class_name="DPTFeatureExtractor", paths=()
    )
    selection = replace(
        selection, class_name="StableDiffusionDepth2ImgPipeline", components=(part,)
    )
    facts = [fact for fact in class_facts(selection) if fact.library == "transformers"]
    found = check_packages(selection, installed(), facts)
    assert found.message.endswith("'DPTImageProcessor' took its place")
    assert 'loader_kwargs={"feature_extractor": None}' in found.hint
    assert "transformers.DPTImageProcessor.from_pretrained" in found.hint


def test_the_successors_are_classes_of_the_library() -> None:
    import diffusers

    for gone, successor in SUCCESSORS.items():
        assert not hasattr(diffusers, gone)
        assert hasattr(diffusers, successor)


def test_a_class_that_diffusers_adds_to_transformers_is_there() -> None:
    part = Component(name="t", library="transformers", class_name="T5GemmaEncoder", paths=())
    (fact,) = class_facts(replace(SELECTION, class_name=None, components=(part,)))
    assert fact.found


# -- quantized weights -----------------------------------------------------------------------------


def test_the_methods_are_those_of_the_libraries() -> None:
    for library in ("diffusers", "transformers"):
        table = importlib.import_module(f"{library}.quantizers.auto").AUTO_QUANTIZER_MAPPING
        selection = replace(SELECTION, class_name=None, components=())
        asked = [(library, method) for method in [*table, "bitsandbytes", "of_tomorrow"]]
        found = {fact.name: fact.found for fact in class_facts(selection, asked)}
        assert found == dict.fromkeys(found, True) | {
            "of_tomorrow": False,
            **({"sdnq": None} if "sdnq" in found else {}),
        }


def test_a_method_that_the_library_does_not_know() -> None:
    fact = ClassFacts(library="diffusers", name="sdnq2", found=False)
    found = check_packages(PIPELINE, installed(), [fact], quantizations=[("diffusers", "sdnq2")])
    assert found.message.endswith("has no quantization 'sdnq2'")
    assert found.reference == "unsupported-class"


def test_weights_that_need_a_gpu() -> None:
    packages = installed(COLAB | {"bitsandbytes": "0.49"})
    for library, status in (("diffusers", "FAILED"), ("transformers", "PASSED")):
        quantized = [(library, "bitsandbytes")]
        found = check_packages(PIPELINE, packages, quantizations=quantized, gpu=False)
        assert found.status.name == status
        assert check_packages(PIPELINE, packages, quantizations=quantized).status.name == "PASSED"


def test_the_library_of_a_component_decides_what_reads_its_weights() -> None:
    parts = tuple(
        Component(name=library, library=library, class_name="C", paths=())
        for library in ("diffusers", "transformers", "kolors")
    )
    weights = [
        ComponentWeights(name=part.name, bytes_by_dtype={}, quantization="torchao")
        for part in parts
    ]
    assert quantizations_of(replace(SELECTION, components=parts), weights) == [
        ("diffusers", "torchao"),
        ("transformers", "torchao"),
    ]
