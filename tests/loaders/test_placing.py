"""Placements: what the libraries are asked for, and what comes of it where no GPU is needed.

Run with a device of `cpu`, most methods take the same way through the libraries as on GPUs.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbloader import loaders
from nbloader.errors import ModelLoadError, SelfTestError
from nbloader.loaders import diffusers as pipelines
from nbloader.loaders import placing
from nbloader.loaders.placing import Call, Part, Steps, steps
from nbloader.loaders.versions import versions
from nbloader.records import (
    Component,
    ComponentLoaded,
    GpuFacts,
    Kind,
    Method,
    PlacedComponent,
    Placement,
    Quantization,
    Selection,
    TorchFacts,
)
from nbloader.wording import MODELS_OF_BEFORE
from tests.models import built, picture, save_classifier, save_embedder, save_pipeline, selection_of

VERSIONS = {
    "accelerate": "1.15.0",
    "bitsandbytes": "0.50.2",
    "diffusers": "0.42.1",
    "sentence-transformers": "6.2.0",
    "transformers": "5.23.0",
}
NF4 = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
}
FOUR, EIGHT = Quantization.FOUR_BIT, Quantization.EIGHT_BIT


def component(name: str, library: str, class_name: str, *weights: str) -> Component:
    return Component(
        name=name, library=library, class_name=class_name, paths=weights, weights=weights
    )


PIPELINE = Selection(
    repo_id="org/name",
    revision="main",
    commit_hash="0" * 40,
    kind=Kind.DIFFUSERS,
    class_name="FluxPipeline",
    components=(
        component("transformer", "diffusers", "FluxTransformer2DModel", "transformer/m.fp16.bin"),
        component("text_encoder", "transformers", "CLIPTextModel", "text_encoder/m.safetensors"),
        component("vae", "diffusers", "AutoencoderKL", "vae/m.fp16-00001-of-00001.safetensors"),
    ),
    files=(),
)
EMBEDDINGS = replace(PIPELINE, kind=Kind.SENTENCE_TRANSFORMERS, class_name=None, components=())
LANGUAGE = replace(EMBEDDINGS, kind=Kind.TRANSFORMERS)


def placement(method: Method, *parts: PlacedComponent, **changes: Any) -> Placement:
    made = Placement(method=method, device="cuda", dtype="bfloat16", components=parts)
    return replace(made, **changes)


def part(name: str, device: str, quantization: Quantization | None = None) -> PlacedComponent:
    return PlacedComponent(
        name=name, device=device, dtype="bfloat16", bytes=1, quantization=quantization
    )


def of_pipeline(**arguments: Any) -> dict[str, Any]:
    return {"dtype": "bfloat16", "local_files_only": True, **arguments}


def own(
    name: str, library: str, class_name: str, device: str, more: Mapping[str, Any], **how: Any
) -> Part:
    arguments = of_pipeline(device_map={"": device}, **more)
    return Part(name=name, library=library, class_name=class_name, arguments=arguments, **how)


def transformer(device: str, more: Mapping[str, Any] = {}, **how: Any) -> Part:
    return own("transformer", "diffusers", "FluxTransformer2DModel", device, more, **how)


def text_encoder(device: str, more: Mapping[str, Any] = {}, **how: Any) -> Part:
    return own("text_encoder", "transformers", "CLIPTextModel", device, more, **how)


ONE_GPU = [part("transformer", "cuda:0", FOUR), part("text_encoder", "cuda:0")]
WAITING = [part("transformer", "cpu", FOUR), part("text_encoder", "cpu")]

TABLE = {
    "gpu": (
        placement(Method.GPU, part("transformer", "cuda:0")),
        Steps(
            arguments=of_pipeline(device_map="cuda"),
            calls=(Call(name="to", arguments={"device": "cuda"}),),
        ),
    ),
    "second gpu": (
        placement(Method.GPU, part("transformer", "cuda:1"), device="cuda:1"),
        Steps(
            arguments=of_pipeline(device_map="cuda"),
            calls=(Call(name="to", arguments={"device": "cuda:1"}),),
        ),
    ),
    "two dtypes": (
        placement(Method.MPS, replace(part("transformer", "mps"), dtype="float32"), device="mps"),
        Steps(
            arguments=of_pipeline(dtype={"transformer": "float32", "default": "bfloat16"}),
            calls=(Call(name="to", arguments={"device": "mps"}),),
        ),
    ),
    "cpu": (
        placement(Method.CPU, device="cpu"),
        Steps(arguments=of_pipeline(), calls=(Call(name="to", arguments={"device": "cpu"}),)),
    ),
    "multi-gpu": (
        placement(Method.MULTI_GPU, part("transformer", "cuda:1"), part("text_encoder", "cuda:0")),
        Steps(
            arguments=of_pipeline(),
            parts=(
                transformer("cuda:1", meets_inputs=True),
                text_encoder("cuda:0", meets_inputs=True),
            ),
            others="cuda",
        ),
    ),
    "4-bit": (
        placement(Method.FOUR_BIT, *ONE_GPU),
        Steps(
            arguments=of_pipeline(),
            parts=(
                transformer("cuda:0", {"quantization_config": NF4}),
                text_encoder("cuda:0"),
            ),
            others="cuda",
        ),
    ),
    "8-bit": (
        placement(Method.EIGHT_BIT, part("text_encoder", "cuda:0", EIGHT)),
        Steps(
            arguments=of_pipeline(),
            parts=(text_encoder("cuda:0", {"quantization_config": {"load_in_8bit": True}}),),
            others="cuda",
        ),
    ),
    "4-bit-multi-gpu": (
        placement(
            Method.FOUR_BIT_MULTI_GPU,
            part("transformer", "cuda:0", FOUR),
            part("text_encoder", "cuda:1"),
        ),
        Steps(
            arguments=of_pipeline(),
            parts=(
                transformer("cuda:0", {"quantization_config": NF4}, meets_inputs=True),
                text_encoder("cuda:1", meets_inputs=True),
            ),
            others="cuda",
        ),
    ),
    "4-bit-model-offload": (
        placement(Method.FOUR_BIT_MODEL_OFFLOAD, *WAITING),
        Steps(
            arguments=of_pipeline(),
            parts=(transformer("cuda", {"quantization_config": NF4}, rests_on="cpu"),),
            calls=(Call(name="enable_model_cpu_offload", arguments={"device": "cuda"}),),
        ),
    ),
    "model-offload": (
        placement(Method.MODEL_OFFLOAD, *WAITING, device="cuda:1"),
        Steps(
            arguments=of_pipeline(),
            calls=(Call(name="enable_model_cpu_offload", arguments={"device": "cuda:1"}),),
        ),
    ),
    "sequential-offload": (
        placement(Method.SEQUENTIAL_OFFLOAD, *WAITING),
        Steps(
            arguments=of_pipeline(),
            calls=(Call(name="enable_sequential_cpu_offload", arguments={"device": "cuda"}),),
        ),
    ),
    "group-offload": (
        placement(Method.GROUP_OFFLOAD, *WAITING),
        Steps(
            arguments=of_pipeline(),
            calls=(
                Call(
                    name="enable_group_offload",
                    arguments={
                        "onload_device": "cuda",
                        "offload_device": "cpu",
                        "offload_type": "leaf_level",
                        "use_stream": True,
                        "low_cpu_mem_usage": True,
                    },
                ),
            ),
        ),
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_steps_of_a_pipeline(case: str) -> None:
    wanted, expected = TABLE[case]
    assert steps(PIPELINE, wanted, VERSIONS) == expected


def test_the_table_has_every_method() -> None:
    assert {wanted.method for wanted, _ in TABLE.values()} == set(Method) - {Method.CPU_OFFLOAD}


def test_pinned_copies_are_made_where_there_is_memory_for_them() -> None:
    wanted = placement(Method.GROUP_OFFLOAD, group_stream=True)
    [call] = steps(PIPELINE, wanted, VERSIONS).calls
    assert (call.arguments["use_stream"], call.arguments["low_cpu_mem_usage"]) == (True, False)


def test_without_accelerate_a_pipeline_is_moved_as_a_whole() -> None:
    without = {name: version for name, version in VERSIONS.items() if name != "accelerate"}
    wanted, expected = TABLE["gpu"]
    assert steps(PIPELINE, wanted, without) == replace(expected, arguments=of_pipeline())


def test_a_variant_is_asked_for_where_a_component_has_it() -> None:
    parts = [part(name, "cuda:0", FOUR) for name in ("transformer", "text_encoder", "vae")]
    selection = replace(PIPELINE, variant="fp16")
    todo = steps(selection, placement(Method.FOUR_BIT, *parts), VERSIONS)
    assert todo.arguments["variant"] == "fp16"
    assert [each.arguments.get("variant") for each in todo.parts] == ["fp16", None, "fp16"]


def test_older_libraries_get_the_names_that_they_know() -> None:
    old = {**VERSIONS, "diffusers": "0.37.0"}
    todo = steps(PIPELINE, TABLE["4-bit"][0], old)
    assert todo.arguments == {"torch_dtype": "bfloat16", "local_files_only": True}
    assert [set(each.arguments) & {"dtype", "torch_dtype"} for each in todo.parts] == [
        {"torch_dtype"},
        {"dtype"},
    ]


@pytest.mark.parametrize("method", [Method.MULTI_GPU, Method.FOUR_BIT])
def test_what_cannot_be_loaded_by_itself_is_refused(method: Method) -> None:
    wanted = placement(method, part("transformer", "cuda:0", FOUR))
    foreign = component("transformer", "own_code", "Model", "transformer/m.safetensors")
    for selection in (
        replace(PIPELINE, components=(foreign,)),
        replace(PIPELINE, custom_code=True),
        replace(PIPELINE, components=()),
    ):
        with pytest.raises(ModelLoadError) as caught:
            steps(selection, wanted, VERSIONS)
        assert caught.value.message.startswith("'transformer' of org/name cannot be loaded by itse")


def test_a_foreign_component_that_is_not_quantized_is_left_to_the_pipeline() -> None:
    checker = component("safety_checker", "stable_diffusion", "SafetyChecker", "s/m.safetensors")
    selection = replace(PIPELINE, components=(*PIPELINE.components, checker))
    wanted, expected = TABLE["4-bit"]
    placed = (*wanted.components, part("safety_checker", "cuda:0"))
    assert steps(selection, replace(wanted, components=placed), VERSIONS) == expected


MODEL = {"trust_remote_code": False}

MODELS: dict[Method, tuple[dict[str, Any], dict[str, Any]]] = {
    Method.GPU: ({"device_map": {"": "cuda"}}, {"device": "cuda"}),
    Method.MPS: ({}, {"device": "cuda"}),
    Method.CPU: ({}, {"device": "cuda"}),
    Method.MULTI_GPU: ({"device_map": "balanced"}, {}),
    Method.CPU_OFFLOAD: ({"device_map": "auto", "max_memory": {0: 5, 2: 3, "cpu": 9}}, {}),
    Method.FOUR_BIT: (
        {"device_map": {"": "cuda"}, "quantization_config": NF4},
        {"device": "cuda"},
    ),
    Method.EIGHT_BIT: (
        {"device_map": {"": "cuda"}, "quantization_config": {"load_in_8bit": True}},
        {"device": "cuda"},
    ),
    Method.FOUR_BIT_MULTI_GPU: (
        {"device_map": "balanced", "quantization_config": NF4},
        {},
    ),
}
QUANTIZED = {
    Method.FOUR_BIT: FOUR,
    Method.EIGHT_BIT: EIGHT,
    Method.FOUR_BIT_MULTI_GPU: FOUR,
}


def one_model(method: Method) -> Placement:
    most = {"cuda:0": 5, "cuda:2": 3, "cpu": 9} if method is Method.CPU_OFFLOAD else {}
    there = part("model", "cuda:0", QUANTIZED.get(method))
    return replace(placement(method, there), max_memory=most)


@pytest.mark.parametrize("method", MODELS)
def test_the_steps_of_one_model(method: Method) -> None:
    wanted = one_model(method)
    inner, device = MODELS[method]
    assert steps(LANGUAGE, wanted, VERSIONS) == Steps(
        arguments={**MODEL, **device, "dtype": "bfloat16", "model_kwargs": inner}
    )
    # sentence-transformers moves a model as a whole, and newer ones take either a device or a map.
    inner = {} if method is Method.GPU else inner
    nested = {"dtype": "bfloat16", **inner}
    alone = device if "device_map" not in inner else {}
    assert steps(EMBEDDINGS, wanted, VERSIONS) == Steps(
        arguments={**MODEL, "local_files_only": True, **alone, "model_kwargs": nested}
    )


@pytest.mark.parametrize(
    ("selection", "installed"),
    [
        (LANGUAGE, {key: value for key, value in VERSIONS.items() if key != "accelerate"}),
        (replace(LANGUAGE, custom_code=True), VERSIONS),
        (replace(LANGUAGE, components=(component("model", "peft", "LoRA", "a.bin"),)), VERSIONS),
    ],
    ids=["without accelerate", "with code of its own", "with an adapter"],
)
def test_what_cannot_go_straight_to_a_gpu_is_moved(
    selection: Selection, installed: dict[str, str]
) -> None:
    arguments = steps(selection, one_model(Method.GPU), installed).arguments
    assert arguments["model_kwargs"] == {}
    assert arguments["device"] == "cuda"


def test_older_sentence_transformers_place_on_one_device_only() -> None:
    old = {**VERSIONS, "sentence-transformers": "5.7.0"}
    todo = steps(EMBEDDINGS, placement(Method.FOUR_BIT, part("model", "cuda", FOUR)), old)
    assert todo.arguments["device"] == "cuda"
    for method in (Method.MULTI_GPU, Method.CPU_OFFLOAD):
        with pytest.raises(ModelLoadError, match=r"sentence-transformers 5\.7\.0 cannot spread"):
            steps(EMBEDDINGS, placement(method), old)


@pytest.mark.parametrize("selection", [EMBEDDINGS, LANGUAGE], ids=["embeddings", "language"])
@pytest.mark.parametrize("method", sorted(placing.OFFLOADING))
def test_offload_is_for_pipelines(selection: Selection, method: Method) -> None:
    with pytest.raises(ModelLoadError, match=f"{method} is for pipelines of diffusers"):
        steps(selection, placement(method), VERSIONS)


def test_layers_are_dealt_out_of_one_model_only() -> None:
    with pytest.raises(ModelLoadError, match="cpu-offload is for models of one piece"):
        steps(PIPELINE, placement(Method.CPU_OFFLOAD), VERSIONS)


# -- the calls against the libraries that are installed --------------------------------------------


@pytest.mark.parametrize("case", TABLE)
def test_every_call_of_a_pipeline_binds(case: str) -> None:
    import diffusers
    import transformers

    todo = steps(PIPELINE, TABLE[case][0], versions())
    pipeline = diffusers.FluxPipeline
    inspect.signature(pipeline.from_pretrained).bind("folder", **todo.arguments)
    for each in todo.parts:
        library = {"diffusers": diffusers, "transformers": transformers}[each.library]
        model = getattr(library, each.class_name)
        inspect.signature(model.from_pretrained).bind("folder", **each.arguments)
        settings = each.arguments.get("quantization_config", {})
        inspect.signature(library.BitsAndBytesConfig).bind(**settings)
    for call in todo.calls:
        inspect.signature(getattr(pipeline, call.name)).bind(pipeline, **call.arguments)


@pytest.mark.parametrize("method", MODELS)
def test_every_call_of_one_model_binds(method: Method) -> None:
    import transformers
    from sentence_transformers import SentenceTransformer

    wanted = one_model(method)
    language = steps(LANGUAGE, wanted, versions()).arguments
    inspect.signature(transformers.pipeline).bind("text-generation", "folder", **language)
    embeddings = steps(EMBEDDINGS, wanted, versions()).arguments
    inspect.signature(SentenceTransformer).bind("folder", **embeddings)


# -- real loads ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    save_pipeline(made / "pipeline")
    save_classifier(made / "classifier")
    save_embedder(made / "embedder")
    return made


def on_cpu(selection: Selection, method: Method, *quantized: str) -> Placement:
    """A placement on the CPU of all that has weights."""
    to = EIGHT if method is Method.EIGHT_BIT else FOUR
    names = [part.name for part in selection.components if part.weights]
    return Placement(
        method=method,
        device="cpu",
        dtype="float32",
        components=tuple(
            PlacedComponent(
                name=name,
                device="cpu",
                dtype="float32",
                bytes=1,
                quantization=to if name in quantized else None,
            )
            for name in names
        ),
    )


def load(folder: Path, wanted: Placement, **loader_kwargs: Any) -> Any:
    return load_selection(selection_of(folder), folder, wanted, **loader_kwargs)


def load_selection(
    selection: Selection, folder: Path, wanted: Placement, **loader_kwargs: Any
) -> Any:
    model = built(selection, folder, wanted, loader_kwargs)
    loaders.check_modules(loaders.modules_of(model, selection), wanted)
    return model


@pytest.mark.parametrize("method", [Method.GPU, Method.MULTI_GPU, Method.MODEL_OFFLOAD])
def test_a_placed_pipeline_makes_the_same_picture(folder: Path, method: Method) -> None:
    from diffusers import DiffusionPipeline

    place = folder / "pipeline"
    pipeline = load(place, on_cpu(selection_of(place), method))
    plain = DiffusionPipeline.from_pretrained(place)
    assert type(pipeline) is type(plain)
    assert np.array_equal(picture(pipeline), picture(plain))


def test_a_pipeline_is_built_component_by_component(folder: Path) -> None:
    place = folder / "pipeline"
    selection = selection_of(place)
    with closing(
        loaders.Building(selection, place, on_cpu(selection, Method.MULTI_GPU), {})
    ) as building:
        told = [each for each in iter(building.step, None) if isinstance(each, ComponentLoaded)]
        assert [each.name for each in told] == [
            *("text_encoder", "unet", "vae"),  # where they are placed
            *("scheduler", "tokenizer"),
        ]
        assert all(0 < each.seconds < 60 for each in told)
        assert type(building.model()).__name__ == "StableDiffusionPipeline"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """The components that are loaded by themselves, of which the third cannot be."""
    found: list[weakref.ref[Any]] = []
    component = pipelines._component

    def noted(*arguments: Any) -> Any:
        if len(found) == 2:
            raise ValueError("no third one")
        loaded = component(*arguments)
        found.append(weakref.ref(loaded))
        return loaded

    monkeypatch.setattr(pipelines, "_component", noted)
    return found


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_build_that_is_left_frees_what_was_loaded(
    folder: Path, made: list[weakref.ref[Any]], steps: int
) -> None:
    place = folder / "pipeline"
    selection = selection_of(place)
    building = loaders.Building(selection, place, on_cpu(selection, Method.MULTI_GPU), {})
    for _ in range(steps):
        building.step()
    assert len(made) == steps
    assert None not in [each() for each in made]
    building.close()
    assert [each() for each in made] == [None] * steps


def test_a_component_that_cannot_be_loaded_frees_those_before(
    folder: Path, made: list[weakref.ref[Any]]
) -> None:
    place = folder / "pipeline"
    selection = selection_of(place)
    with pytest.raises(ModelLoadError, match="no third one"):
        built(selection, place, on_cpu(selection, Method.MULTI_GPU), {})
    assert [each() for each in made] == [None, None]


def test_a_spread_pipeline_knows_its_devices(folder: Path) -> None:
    place = folder / "pipeline"
    pipeline = load(place, on_cpu(selection_of(place), Method.MULTI_GPU))
    assert pipeline.hf_device_map == {"text_encoder": "cpu", "unet": "cpu", "vae": "cpu"}
    with pytest.raises(ValueError, match="device mapping strategy"):
        pipeline.to("cpu")
    assert all(hasattr(getattr(pipeline, name), "_hf_hook") for name in pipeline.hf_device_map)


def test_components_of_the_caller_are_taken_as_they_are(folder: Path) -> None:
    place = folder / "pipeline"
    mine = load(place, on_cpu(selection_of(place), Method.CPU)).vae
    pipeline = load(place, on_cpu(selection_of(place), Method.MULTI_GPU), vae=mine)
    assert pipeline.vae is mine
    assert not hasattr(mine, "_hf_hook")


def test_the_callers_dtype_goes_before_ours(folder: Path) -> None:
    import torch

    place = folder / "pipeline"
    for method in (Method.CPU, Method.MULTI_GPU):
        pipeline = load(place, on_cpu(selection_of(place), method), torch_dtype=torch.bfloat16)
        assert {pipeline.unet.dtype, pipeline.vae.dtype} == {torch.bfloat16}


def test_each_component_gets_its_own_dtype(folder: Path) -> None:
    import torch

    place = folder / "pipeline"
    wanted = on_cpu(selection_of(place), Method.CPU)
    mixed = tuple(
        replace(each, dtype="bfloat16") if each.name == "unet" else each
        for each in wanted.components
    )
    pipeline = load(place, replace(wanted, components=mixed))
    assert (pipeline.unet.dtype, pipeline.vae.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    "method",
    [Method.FOUR_BIT, Method.EIGHT_BIT, Method.FOUR_BIT_MULTI_GPU, Method.FOUR_BIT_MODEL_OFFLOAD],
)
def test_one_component_quantized(folder: Path, method: Method) -> None:
    import torch

    pytest.importorskip("bitsandbytes")
    place = folder / "pipeline"
    selection = selection_of(place)
    pipeline = load(place, on_cpu(selection, method, "text_encoder"))
    small = torch.int8 if method is Method.EIGHT_BIT else torch.uint8
    dtypes = {
        name: {weight.dtype for weight in getattr(pipeline, name).parameters()}
        for name in ("text_encoder", "unet", "vae")
    }
    assert dtypes == {
        "text_encoder": {small, torch.float32},
        "unet": {torch.float32},
        "vae": {torch.float32},
    }
    plain = load(place, on_cpu(selection, Method.CPU))
    assert 0 < np.abs(picture(pipeline) - picture(plain)).max() < 0.01


@pytest.mark.parametrize("method", [Method.FOUR_BIT, Method.EIGHT_BIT])
def test_one_model_quantized(folder: Path, method: Method) -> None:
    import torch

    pytest.importorskip("bitsandbytes")
    place = folder / "classifier"
    selection = selection_of(place)
    quantized = load(place, on_cpu(selection, method, "model"))
    plain = load(place, on_cpu(selection, Method.CPU))
    small = torch.int8 if method is Method.EIGHT_BIT else torch.uint8
    assert small in {weight.dtype for weight in quantized.model.parameters()}
    [near], [exact] = quantized("a good b"), plain("a good b")
    assert near["label"] == exact["label"]
    assert abs(near["score"] - exact["score"]) < 0.05


def test_an_embedding_model_quantized(folder: Path) -> None:
    import torch

    pytest.importorskip("bitsandbytes")
    place = folder / "embedder"
    selection = selection_of(place)
    quantized = load(place, on_cpu(selection, Method.FOUR_BIT, "model"))
    loaders.check_embeddings(quantized)
    plain = load(place, on_cpu(selection, Method.CPU))
    assert torch.uint8 in {weight.dtype for weight in quantized[0].parameters()}
    one, other = (model.encode("a good b") for model in (quantized, plain))
    assert np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other) > 0.98


@pytest.mark.parametrize("kind", ["classifier", "embedder"])
def test_layers_of_one_model_are_dealt_out(folder: Path, kind: str) -> None:
    """accelerate deals them all to the CPU here, which is what it does with those that wait."""
    place = folder / kind
    selection = selection_of(place)
    plain = load(place, on_cpu(selection, Method.CPU))
    wanted = replace(on_cpu(selection, Method.CPU_OFFLOAD), max_memory={"cpu": 10_000_000})
    model = load(place, wanted)
    if kind == "classifier":
        assert model("a good b") == plain("a good b")
    else:
        assert np.array_equal(model.encode("a good b"), plain.encode("a good b"))
    # What the caller says of the devices takes the place of all that we do.
    own = load(place, wanted, model_kwargs={"device_map": {"": "cpu"}})
    assert type(own) is type(model)


def test_layers_that_wait_in_memory_are_looked_at(folder: Path) -> None:
    import torch
    from accelerate import cpu_offload

    place = folder / "classifier"
    selection = selection_of(place)
    classifier = load(place, on_cpu(selection, Method.CPU))
    expected = classifier("a good b")
    weights = classifier.model.state_dict()
    cpu_offload(classifier.model, torch.device("cpu"), state_dict=weights)
    assert all(weight.is_meta for weight in classifier.model.parameters())
    wanted = on_cpu(selection, Method.CPU_OFFLOAD)
    loaders.check_modules(loaders.modules_of(classifier, selection), wanted)
    assert classifier("a good b") == expected
    weights["classifier.bias"][0] = float("nan")
    with pytest.raises(SelfTestError, match=r"classifier\.bias holds numbers that are not finite"):
        loaders.check_modules(loaders.modules_of(classifier, selection), wanted)


def test_modules_behind_the_transformer_are_cast_with_it(folder: Path) -> None:
    import torch

    place = folder / "embedder"
    wanted = replace(on_cpu(selection_of(place), Method.CPU), dtype="bfloat16")
    model = load(place, wanted)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    loaders.check_embeddings(model)


# -- what goes wrong -------------------------------------------------------------------------------


def test_a_device_that_torch_does_not_see_is_told() -> None:
    import torch

    missing = f"cuda:{torch.cuda.device_count()}"
    loaders.check_device(placement(Method.CPU, device="cpu"))
    for wanted in (
        placement(Method.GPU, device=missing),
        placement(Method.MULTI_GPU, part("model", f"cpu,{missing}"), device="cpu"),
    ):
        with pytest.raises(ModelLoadError, match=f"does not see {missing}: it finds"):
            loaders.check_device(wanted)


def test_where_torch_sees_no_gpu_there_are_none() -> None:
    import torch

    build = TorchFacts(version=torch.__version__, cuda=(13, 0))
    assert loaders.devices(None) == ()
    assert loaders.devices(TorchFacts(version="2.13.0+cpu")) == ()
    if not torch.cuda.is_available():
        assert loaders.devices(build) == ()


def test_torch_is_asked_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    sign = tmp_path / "kfd"
    sign.touch()
    monkeypatch.setattr("nbloader.loaders.device._DEVICE_FILES", (str(sign),))
    found = loaders.devices(TorchFacts(version=torch.__version__, hip=True))
    assert len(found) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)
    answer = "print('[[\"AMD\", 5, 9, 9, 4]]')"
    monkeypatch.setattr("nbloader.loaders.device._ASK", answer)
    assert loaders.devices(TorchFacts(version="2", hip=True)) == (
        GpuFacts(name="AMD", free=5, total=9, capability=(9, 4), source="torch"),
    )
    monkeypatch.setattr("nbloader.loaders.device._ASK", "raise SystemExit(1)")
    assert loaders.devices(TorchFacts(version="2", hip=True)) == ()


class Held:
    """Stands in for a tensor whose memory has to be freed."""


@pytest.mark.parametrize(
    ("next_method", "hint"),
    [
        (Method.CPU, 'Load with plan="cpu".'),
        (None, "No slower plan fits here: take a larger GPU or a smaller model."),
    ],
)
def test_where_a_gpu_is_full_the_hint_names_another_plan_and_what_was_made_is_freed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, next_method: Method | None, hint: str
) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    made: list[weakref.ref[Held]] = []

    def full(*arguments: Any, **keywords: Any) -> None:
        held = Held()
        made.append(weakref.ref(held))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", full)
    wanted = placement(Method.SEQUENTIAL_OFFLOAD, vram=(1,))
    selection, place = selection_of(folder / "pipeline"), folder / "pipeline"
    building = loaders.Building(selection, place, wanted, {}, next_method=next_method)
    with closing(building), pytest.raises(ModelLoadError) as caught:
        list(iter(building.step, None))
    assert (caught.value.message, caught.value.hint) == (
        "org/name does not fit on cuda with sequential-offload",
        f"{hint} {MODELS_OF_BEFORE}",
    )
    assert [held() for held in made] == [None]


def test_where_memory_is_full_the_hint_names_half_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusionPipeline

    def full(*arguments: Any, **keywords: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", full)
    selection = selection_of(folder / "pipeline")
    with pytest.raises(ModelLoadError) as caught:
        built(selection, folder / "pipeline", on_cpu(selection, Method.CPU), {})
    assert caught.value.message == "org/name does not fit into the memory of this machine"
    assert caught.value.hint.endswith('dtype="bfloat16" takes half.')


# -- the self-test ---------------------------------------------------------------------------------


def linear(value: float = 1.0) -> Any:
    import torch

    layer = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(layer.weight, value)
    return torch.nn.Sequential(layer)


def test_weights_that_wait_in_hooks_are_looked_at() -> None:
    import torch
    from accelerate import cpu_offload

    wanted = placement(Method.SEQUENTIAL_OFFLOAD, device="cpu")
    good = cpu_offload(linear(), torch.device("cpu"))
    assert good[0].weight.is_meta
    loaders.check_modules({"vae": good}, wanted)
    loaders.check_modules({"vae": good}, None)

    with pytest.raises(SelfTestError, match=r"vae: 0\.weight holds numbers that are not finite"):
        loaders.check_modules({"vae": cpu_offload(linear(np.nan), torch.device("cpu"))}, wanted)
    del good[0]._hf_hook.weights_map.dataset["0.bias"]
    with pytest.raises(SelfTestError, match=r"vae: 0\.bias was not in the weights"):
        loaders.check_modules({"vae": good}, wanted)


def test_what_should_be_quantized_has_to_be() -> None:
    wanted = placement(Method.FOUR_BIT, part("vae", "cpu", FOUR), device="cpu")
    with pytest.raises(SelfTestError, match="vae was not quantized"):
        loaders.check_modules({"vae": linear()}, wanted)


def test_scales_of_quantized_weights_are_looked_at() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    import torch

    wanted = placement(Method.FOUR_BIT, part("vae", "cpu", FOUR), device="cpu")
    for nested in (False, True):
        layer = bitsandbytes.nn.Linear4bit(64, 64, quant_type="nf4", compress_statistics=nested).to(
            "cpu"
        )
        loaders.check_modules({"vae": layer}, wanted)
        state = layer.weight.quant_state
        (state.state2 if nested else state).absmax[0] = torch.nan
        with pytest.raises(SelfTestError, match="vae: weight holds numbers that are not finite"):
            loaders.check_modules({"vae": layer}, wanted)


def test_every_component_has_to_be_on_its_own_gpu() -> None:
    spread = placement(Method.MULTI_GPU, part("vae", "cpu"), part("unet", "cuda:1"))
    loaders.check_modules({"vae": linear()}, spread)
    with pytest.raises(SelfTestError, match=r"unet: 0\.weight is on cpu, not on cuda:1"):
        loaders.check_modules({"unet": linear()}, spread)
    one = placement(Method.MULTI_GPU, part("0_Transformer", "cuda:0,cuda:1"))
    with pytest.raises(SelfTestError, match=r"0\.weight is on cpu, not on cuda:0 or cuda:1"):
        loaders.check_modules({"model": linear()}, one)


def test_a_large_weight_is_summed_in_pieces() -> None:
    import torch

    from nbloader.loaders.self_test.weights import _PIECE

    for dtype in (torch.float32, torch.bfloat16, torch.float8_e4m3fn):
        weight = torch.ones(3, _PIECE // 2 + 1, dtype=torch.float32).to(dtype)
        parameter = torch.nn.Parameter(weight, requires_grad=False)
        layer = torch.nn.Module()
        layer.register_parameter("w", parameter)
        wanted = placement(Method.CPU, device="cpu")
        loaders.check_modules({"vae": layer}, wanted)
        parameter.data[2, -1] = torch.nan
        with pytest.raises(SelfTestError, match="vae: w holds numbers that are not finite"):
            loaders.check_modules({"vae": layer}, wanted)
