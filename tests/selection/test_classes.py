"""Classes that are asked for by name: which files are theirs, and what is refused."""

from __future__ import annotations

from importlib import import_module

import pytest

from nbloader.errors import (
    InvalidArgumentError,
    NoWeightsError,
    RepoError,
    UnsupportedRepoError,
)
from nbloader.records import Component, Form, Kind, SelectionRequest, Target
from nbloader.selection.classes import OF_PIPELINES
from tests.selection.test_selection import Files, selection_of

NET = {"_class_name": "ControlNetModel", "_diffusers_version": "0.42.1"}
BERT = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
W = "diffusion_pytorch_model.safetensors"

TEXT: Files = {
    "config.json": BERT,
    "model.safetensors": ...,
    "tokenizer.json": ...,
    "tokenizer_config.json": {},
    "vocab.txt": ...,
    "onnx/model.onnx": ...,
    "README.md": ...,
}
PIPELINE: Files = {
    "model_index.json": {
        "_class_name": "StableDiffusionPipeline",
        "vae": ["diffusers", "AutoencoderKL"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    },
    "vae/config.json": {"_class_name": "AutoencoderKL"},
    f"vae/{W}": ...,
    "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler"},
    "tokenizer/vocab.json": ...,
    "tokenizer/merges.txt": ...,
    "tokenizer/tokenizer_config.json": {},
    "text/config.json": {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"]},
    "text/model.safetensors": ...,
}


def target(name: str, form: Form = Form.MODEL, library: str = "transformers") -> Target:
    return Target(library=library, class_name=name, form=form)


def asked(*names: Target, subfolder: str = "", as_tuple: bool = False) -> SelectionRequest:
    return SelectionRequest(
        targets=tuple((name,) for name in names), as_tuple=as_tuple, subfolder=subfolder
    )


TOKENIZER = target("AutoTokenizer", Form.PART)
PICTURES = target("AutoImageProcessor", Form.PART)
NET_TARGET = target("ControlNetModel", library="diffusers")


@pytest.mark.parametrize(
    ("files", "request_", "paths"),
    [
        (TEXT, asked(target("AutoModelForMaskedLM")), ["config.json", "model.safetensors"]),
        (
            TEXT,
            asked(TOKENIZER),
            ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"],
        ),
        (TEXT, asked(target("AutoConfig", Form.PART)), ["config.json"]),
        (
            {"preprocessor_config.json": {}, "model.safetensors": ..., "config.json": BERT},
            asked(PICTURES),
            ["config.json", "preprocessor_config.json"],
        ),
        (
            {"processor_config.json": {}, "model.safetensors": ...},
            asked(PICTURES),
            ["processor_config.json"],
        ),
        (
            {"config.json": NET, W: ..., "notes.txt": ..., "image.png": ...},
            SelectionRequest(),
            ["config.json", W],
        ),
        (
            {"config.json": NET, W: ..., "diffusion_pytorch_model.fp16.safetensors": ...},
            SelectionRequest(variant="fp16"),
            ["config.json", "diffusion_pytorch_model.fp16.safetensors"],
        ),
        (PIPELINE, SelectionRequest(subfolder="vae"), ["vae/config.json", f"vae/{W}"]),
        (
            PIPELINE,
            SelectionRequest(subfolder="text"),
            ["text/config.json", "text/model.safetensors"],
        ),
        (
            PIPELINE,
            SelectionRequest(subfolder="scheduler"),
            ["scheduler/scheduler_config.json"],
        ),
        (
            PIPELINE,
            SelectionRequest(subfolder="tokenizer"),
            ["tokenizer/merges.txt", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json"],
        ),
    ],
)
def test_no_more_is_selected_than_the_class_opens(
    files: Files, request_: SelectionRequest, paths: list[str]
) -> None:
    selection = selection_of(files, request_)
    assert selection.kind is Kind.CLASSES
    assert [file.path for file in selection.files] == paths


def test_the_files_name_the_class_where_none_is_asked_for() -> None:
    names = {
        folder: selection_of(PIPELINE, SelectionRequest(subfolder=folder)).targets
        for folder in ("vae", "text", "scheduler", "tokenizer")
    }
    assert names == {
        "vae": (target("AutoencoderKL", library="diffusers"),),
        "text": (target("CLIPTextModel"),),
        "scheduler": (target("DDIMScheduler", Form.PART, "diffusers"),),
        "tokenizer": (TOKENIZER,),
    }


def test_a_model_that_belongs_to_pipelines_is_looked_for_among_them() -> None:
    config = {"model_type": "clip", "architectures": ["StableDiffusionSafetyChecker"]}
    files: Files = {"config.json": config, "model.safetensors": ...}
    inside: Files = {f"safety_checker/{path}": content for path, content in files.items()}
    for selection in (
        selection_of(files, SelectionRequest()),
        selection_of({**PIPELINE, **inside}, SelectionRequest(subfolder="safety_checker")),
    ):
        (part,) = selection.components
        assert (selection.kind, part.library, part.class_name) == (
            Kind.CLASSES,
            "stable_diffusion",
            "StableDiffusionSafetyChecker",
        )
        assert [each.library for each in selection.targets] == [
            "diffusers.pipelines.stable_diffusion"
        ]


@pytest.mark.parametrize(("name", "folder"), OF_PIPELINES.items())
def test_they_are_there(name: str, folder: str) -> None:
    assert hasattr(import_module(f"diffusers.pipelines.{folder}"), name)


def test_several_share_their_files() -> None:
    request = asked(target("AutoModelForMaskedLM"), TOKENIZER, as_tuple=True)
    selection = selection_of(TEXT, request)
    assert selection.as_tuple
    assert selection.components == (
        Component(
            name="model",
            library="transformers",
            class_name="AutoModelForMaskedLM",
            paths=("config.json", "model.safetensors"),
            weights=("model.safetensors",),
            model_type="bert",
        ),
        Component(
            name="AutoTokenizer",
            library="transformers",
            class_name="AutoTokenizer",
            paths=("tokenizer.json", "tokenizer_config.json", "vocab.txt"),
        ),
    )


@pytest.mark.parametrize(
    ("config", "library"), [(NET, "diffusers"), (BERT, "transformers"), ({}, "transformers")]
)
def test_a_name_of_two_libraries_is_that_of_the_files(
    config: dict[str, object], library: str
) -> None:
    both = (target("AutoModel"), target("AutoModel", library="diffusers"))
    files: Files = {"config.json": config, W: ..., "model.safetensors": ...}
    selection = selection_of(files, SelectionRequest(targets=(both,)))
    assert [each.library for each in selection.targets] == [library]


@pytest.mark.parametrize(
    ("files", "request_", "error", "hint"),
    [
        (PIPELINE, SelectionRequest(subfolder="vea"), UnsupportedRepoError, "'vae'"),
        (PIPELINE, asked(target("AutoencoderKL", library="diffusers")), UnsupportedRepoError,
         'subfolder="vae"'),
        (PIPELINE, asked(target("CLIPTokenizer", Form.PART)), NoWeightsError,
         'subfolder="tokenizer"'),
        ({"config.json": NET, W: ...}, asked(target("AutoencoderKL", library="diffusers")),
         UnsupportedRepoError, 'cls="ControlNetModel"'),
        ({"config.json": NET, W: ...}, asked(target("AutoModelForCausalLM")),
         UnsupportedRepoError, 'cls="ControlNetModel"'),
        (TEXT, asked(NET_TARGET), UnsupportedRepoError, "leave cls= out"),
        ({"config.json": NET, W: ...}, asked(TOKENIZER), NoWeightsError, "subfolder="),
        (TEXT, asked(PICTURES), NoWeightsError, "subfolder="),
        (TEXT, asked(target("AutoModelForMaskedLM"), PICTURES, as_tuple=True), NoWeightsError,
         "subfolder="),
        (TEXT, asked(target("Wav2Vec2FeatureExtractor", Form.PART)), NoWeightsError, "subfolder="),
        (TEXT, asked(target("AutoPeftModel", Form.ADAPTED, "peft")), UnsupportedRepoError,
         "AutoModel"),
        (TEXT, asked(target("AutoModel"), target("BertModel")), InvalidArgumentError,
         "one after the other"),
        (TEXT, asked(target("DiffusionPipeline", Form.PIPELINE, "diffusers")),
         UnsupportedRepoError, "leave cls= out"),
        (PIPELINE, asked(target("DiffusionPipeline", Form.PIPELINE, "diffusers"),
                         subfolder="vae"), UnsupportedRepoError, "Leave it out"),
    ],
)  # fmt: skip
def test_what_a_class_cannot_be_made_of_is_refused_with_a_line(
    files: Files, request_: SelectionRequest, error: type[RepoError], hint: str
) -> None:
    with pytest.raises(error) as caught:
        selection_of(files, request_)
    assert hint.lower() in caught.value.hint.lower()
