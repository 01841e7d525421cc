"""What a repository is if it is none of ours: the listings are shaped as real ones are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import NbloaderError, RepoError, UnsupportedRepoError
from nbloader.records import Kind, Listing, RepoFile, SelectionRequest
from nbloader.selection import needed, select
from nbloader.selection.formats import _OURS, libraries
from nbloader.text import quote

BASE = "org/base"
BERT = {"model_type": "bert", "architectures": ["BertModel"]}
GB = 10**9


@dataclass(frozen=True)
class Shape:
    """What the Hub says of a repository.

    Attributes:
        files: names, with a size where that matters.
        config: the content of its `config.json`, where it has one.
    """

    files: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, object] | None = None
    library: str | None = None
    tag: str | None = None
    bases: tuple[str, ...] = ()


def shape(
    *names: str,
    config: Mapping[str, object] | None = None,
    library: str | None = None,
    tag: str | None = None,
    base: bool = False,
    **sizes: int,
) -> Shape:
    files = dict.fromkeys((".gitattributes", "README.md", *names), 10)
    if config is not None:
        files["config.json"] = 10
    files |= {name.replace("__", "."): size for name, size in sizes.items()}
    return Shape(files, config, library, tag, (BASE,) if base else ())


def refusal(of: Shape, kind: Kind | None = None) -> RepoError:
    listing = Listing(
        repo_id="org/name",
        revision="main",
        commit_hash="0" * 40,
        files=tuple(
            RepoFile(path=path, size=size, etag="0" * 40) for path, size in of.files.items()
        ),
        library_name=of.library,
        pipeline_tag=of.tag,
        base_models=of.bases,
    )
    request = SelectionRequest(kind=kind)

    def selection() -> None:
        known: dict[str, bytes] = {}
        for _ in range(3):
            wanted = needed(listing, request, known).reads
            known |= {path: json.dumps(of.config or {}).encode() for path in wanted}
        select(listing, request, known)

    with pytest.raises(RepoError) as raised:
        selection()
    return raised.value


@pytest.mark.parametrize(
    ("of", "what", "line"),
    [
        (
            shape("pytorch_lora_weights.safetensors", library="diffusers", base=True),
            "a LoRA of diffusers",
            'pipe = nbloader.load("org/base", adapters="org/name")',
        ),
        (
            shape(library="diffusers", base=True, pixel__safetensors=200_000_000),
            "a LoRA of diffusers",
            'nbloader.load("org/base", adapters="org/name/pixel.safetensors")',
        ),
        (
            shape("Hyper-SD15-1step-lora.safetensors", "comfyui/flow.json"),
            "a LoRA of diffusers",
            'nbloader.load("the base model that its card names", adapters=',
        ),
        (
            shape(
                "models/image_encoder/config.json",
                "models/image_encoder/model.safetensors",
                "models/ip-adapter_sd15.bin",
                "models/ip-adapter_sd15.safetensors",
                "sdxl_models/ip-adapter_sdxl.bin",
            ),
            "an IP-Adapter of diffusers",
            'adapters="org/name/models/ip-adapter_sd15.bin")',
        ),
        (
            shape("learned_embeds.bin", "token_identifier.txt", "concept_images/0.jpeg"),
            "a textual inversion of diffusers",
            'adapters="org/name")',
        ),
        (
            shape(library="diffusers", base=True, sd_xl__safetensors=6 * GB),
            "a bare checkpoint without a configuration",
            'nbloader.load("org/name/sd_xl.safetensors")',
        ),
        (
            shape("v1-5-pruned.ckpt"),
            "a bare checkpoint without a configuration",
            'nbloader.load("org/name/v1-5-pruned.ckpt")',
        ),
        (
            shape(library="diffusion-single-file", flux1__safetensors=12 * GB, vae__safetensors=1),
            "a bare checkpoint without a configuration",
            'nbloader.load("org/name/flux1.safetensors")',
        ),
        (
            shape("flux/lora.safetensors", library="diffusers", base=True),
            "a LoRA of diffusers",
            'adapters="org/name/flux/lora.safetensors")',
        ),
        (
            shape("vae-ft-mse-840000-ema-pruned.safetensors"),
            "a VAE of diffusers in one file",
            'components={"vae": "org/name/vae-ft-mse-840000-ema-pruned.safetensors"}',
        ),
        (
            shape("control_v11p_sd15_canny.pth", "control_v11p_sd15_canny.yaml"),
            "a ControlNet of diffusers in one file",
            'cls="AutoPipelineForText2Image", components={"controlnet": '
            '"org/name/control_v11p_sd15_canny.pth"}',
        ),
        (
            shape("mm_sd_v15.ckpt"),
            "a motion adapter of diffusers in one file",
            'cls="AnimateDiffPipeline", components={"motion_adapter": "org/name/mm_sd_v15.ckpt"}',
        ),
        (
            shape("EasyNegative.safetensors"),
            "a textual inversion of diffusers",
            'adapters="org/name/EasyNegative.safetensors")',
        ),
        (
            shape("Wan2.1-T2V-14B-Q4_0.gguf"),
            "GGUF weights",
            'components={"transformer": "org/name/Wan2.1-T2V-14B-Q4_0.gguf"}',
        ),
        (
            shape("tokenizer.json", "tokenizer_config.json"),
            "a tokenizer alone",
            'transformers.AutoTokenizer.from_pretrained("org/name")',
        ),
        (
            shape("tokenizer.json", config=BERT),
            "a tokenizer alone",
            'transformers.AutoTokenizer.from_pretrained("org/name")',
        ),
        (
            shape("preprocessor_config.json"),
            "a processor alone",
            'transformers.AutoProcessor.from_pretrained("org/name")',
        ),
        (shape("ggml-base.bin"), "weights of whisper.cpp", "pywhispercpp"),
        (
            shape("output.safetensors", config={"model_type": "llama"}),
            "weights quantized by ExLlama",
            "ExLlamaV2",
        ),
        (
            shape("model.pkl", "pyproject.toml"),
            "a model of fastai",
            'from_pretrained_fastai("org/name")',
        ),
        (
            shape("unet/config.json", library="diffusers"),
            "stand in folders: 'unet/config.json'",
            'loads a folder: diffusers.AutoModel.from_pretrained("org/name", subfolder="unet")',
        ),
        (shape("net.pth"), "weights of PyTorch without a configuration", "Its card at"),
        (
            shape("x.Q4_K_M.gguf", "x.Q8_0.gguf", library="gguf", base=True),
            "GGUF weights",
            'llama_cpp.Llama.from_pretrained("org/name", filename="x.Q4_K_M.gguf"). Or load what '
            'it was made from: nbloader.load("org/base").',
        ),
        (
            shape("flux1-dev-Q4_0.gguf", tag="text-to-image", library="gguf"),
            "GGUF weights",
            'components={"transformer": "org/name/flux1-dev-Q4_0.gguf"}',
        ),
        (
            shape("onnx/model.onnx", "tokenizer.json", config=BERT, library="transformers.js"),
            "an export to ONNX",
            'ORTModelForFeatureExtraction.from_pretrained("org/name")',
        ),
        (
            shape("openvino_model.xml", "openvino_model.bin", config=BERT, base=True),
            "an export to OpenVINO",
            'OVModelForCausalLM.from_pretrained("org/name"). Or load what it was made from: '
            'nbloader.load("org/base").',
        ),
        (
            shape("float16_model.mlpackage/Manifest.json", config=BERT),
            "an export to Core ML",
            "coremltools.models.MLModel(path)",
        ),
        (
            shape("original/compiled/Unet.mlmodelc/model.mil", library="coreml"),
            "a model of Core ML",
            "coremltools",
        ),
        (
            shape(
                "model.safetensors",
                config={"model_type": "llama", "quantization": {"group_size": 64, "bits": 4}},
                library="mlx",
            ),
            "is quantized by MLX",
            'mlx_lm.load("org/name")',
        ),
        (
            shape(
                "model.safetensors",
                config={
                    "model_type": "llama",
                    "quantization": {"bits": 4},
                    "quantization_config": {"bits": 4, "group_size": 64},
                },
            ),
            "is quantized by MLX",
            "mlx_lm.load",
        ),
        (shape("weights.npz", config={"n_mels": 80}), "weights of MLX", "MLX"),
        (
            shape("tf_model.h5", "tokenizer.json", config=BERT),
            "TensorFlow or Flax",
            'AutoModel.from_pretrained("org/name", from_tf=True)',
        ),
        (shape("flax_model.msgpack", config=BERT), "TensorFlow or Flax", "from_flax=True"),
        (
            shape("resnet18.bin", config={"architecture": "resnet18"}, library="timm"),
            "a model of timm",
            'timm.create_model("hf-hub:org/name", pretrained=True)',
        ),
        (
            shape("en_core_web_sm-any-py3-none-any.whl", "meta.json", "ner/model"),
            "a model of spaCy",
            "%pip install https://huggingface.co/org/name/resolve/main/"
            'en_core_web_sm-any-py3-none-any.whl, then spacy.load("name")',
        ),
        (
            shape("model.pkl", "pyproject.toml", library="fastai"),
            "a model of fastai",
            'huggingface_hub.from_pretrained_fastai("org/name")',
        ),
        (
            shape("pytorch_model.bin", library="flair"),
            "a model of Flair",
            'flair.models.SequenceTagger.load("org/name")',
        ),
        (
            shape("hyperparams.yaml", "embedding_model.ckpt"),
            "a model of SpeechBrain",
            'from_hparams("org/name")',
        ),
        (
            shape("parakeet.nemo", library="nemo"),
            "a model of NeMo",
            'ASRModel.from_pretrained("org/name")',
        ),
        (
            shape("open_clip_pytorch_model.bin", "open_clip_config.json", library="open_clip"),
            "a model of OpenCLIP",
            'open_clip.create_model_and_transforms("hf-hub:org/name")',
        ),
        (
            shape("gliner_config.json", "pytorch_model.bin", library="gliner"),
            "a model of GLiNER",
            'gliner.GLiNER.from_pretrained("org/name")',
        ),
        (
            shape("model.safetensors", config={"model_type": "span-marker"}, library="span-marker"),
            "a model of SpanMarker",
            'span_marker.SpanMarkerModel.from_pretrained("org/name")',
        ),
        (
            shape("pytorch_model.bin", config={"d_model": 768}, library="mamba-ssm"),
            "a model of mamba_ssm",
            'MambaLMHeadModel.from_pretrained("org/name")',
        ),
        (
            shape("topics.json", "topic_embeddings.safetensors", library="bertopic"),
            "a model of BERTopic",
            'bertopic.BERTopic.load("org/name")',
        ),
        (
            shape("model.bin", "vocabulary.json", "tokenizer.json", config={"lang_ids": [1]}),
            "a model of CTranslate2",
            'faster_whisper.WhisperModel("org/name")',
        ),
        (
            shape("saved_model.pb", "variables/variables.index", library="keras"),
            "a model of Keras",
            'keras.saving.load_model("hf://org/name")',
        ),
        (shape("model_state.pdparams", config=BERT), "a model of Paddle", "Paddle"),
        (
            shape("inference.pdiparams", library="PaddleOCR"),
            "a model of PaddleOCR",
            'the name "name"',
        ),
        (shape("ppo.zip", library="stable-baselines3"), "Stable-Baselines3", "load_from_hub"),
        (
            shape("policy.pkl", library="some-new-thing"),
            "for the library 'some-new-thing'",
            "Load it with that library. Its card at https://huggingface.co/org/name says how.",
        ),
        (
            shape("fp32/config.json", "fp32/model.safetensors", "fp16/config.json"),
            "one whose models stand in folders: 'fp16/config.json', 'fp32/config.json'",
            'AutoModel.from_pretrained("org/name", subfolder="fp16")',
        ),
        (
            shape("sd/model_index.json", "sd/vae/config.json", "sd/unet/config.json"),
            "stand in folders: 'sd/model_index.json', 'sd/unet/config.json'",
            'snapshot_download("org/name", allow_patterns="sd/*")',
        ),
        (shape("consolidated.00.pth", "params.json"), "their author's own format", "-hf"),
        (
            shape("modular_model_index.json", "block.py"),
            "a modular diffusers pipeline",
            'diffusers.ModularPipeline.from_pretrained("org/name")',
        ),
        (shape("notes.txt"), "it has no model_index.json", "Its card at"),
    ],
)
def test_what_is_none_of_ours_is_named_with_the_line_that_loads_it(
    of: Shape, what: str, line: str
) -> None:
    error = refusal(of)
    assert type(error) is UnsupportedRepoError
    assert what in error.message
    assert line in error.hint
    assert "kind=" not in error.hint
    assert not re.search(r"{(?!folder}|\")", error.hint)


@pytest.mark.parametrize("name", ["ControlNetModel", "NewKindOfModel", "not a name", 3, None])
def test_one_model_of_diffusers_is_none_of_transformers(name: object) -> None:
    config = {"_class_name": name, "_diffusers_version": "0.42.1"}
    of = shape("diffusion_pytorch_model.safetensors", config=config, base=True)
    error = refusal(of, Kind.TRANSFORMERS)
    assert error.message == (
        f"'org/name' is one model of diffusers, not of transformers: {quote(name)}."
    )
    named = isinstance(name, str) and name.isidentifier()
    assert error.hint.startswith("Leave out kind= and task=" if named else "Its card at")


@pytest.mark.parametrize("library", [None, *sorted(_OURS), *sorted(libraries())])
def test_the_name_of_a_library_refuses_nothing_that_is_loaded(
    library: str | None,
) -> None:
    of = shape("model.safetensors", config=BERT, library=library)
    listing = Listing(
        repo_id="org/name",
        revision="main",
        commit_hash="0" * 40,
        files=tuple(RepoFile(path=path, size=10, etag="0" * 40) for path in of.files),
        library_name=library,
    )
    known = {"config.json": json.dumps(BERT).encode()}
    expected = (
        Kind.SENTENCE_TRANSFORMERS if library == "sentence-transformers" else Kind.TRANSFORMERS
    )
    assert select(listing, SelectionRequest(), known).kind is expected


def test_every_line_names_the_repository_or_what_to_do() -> None:
    for name, (what, hint) in libraries().items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert what
        filled = hint.format(repo='"org/name"', id="org/name", name="name")
        assert "{" not in filled


@given(
    st.lists(
        st.sampled_from(
            [
                "x.gguf",
                "a/x.onnx",
                "x.safetensors",
                "fp32/config.json",
                "a b.bin",
                "learned_embeds.bin",
                "x.mlmodelc/y",
                "ip-adapter{0}.bin",
                "%s.ckpt",
                "model.pkl",
            ]
        ),
        unique=True,
    ),
    st.none() | st.sampled_from(["gguf", "keras", "{repo}", "x" * 90, "timm"]),
)
def test_there_is_a_refusal_for_every_listing(names: list[str], library: str | None) -> None:
    error = refusal(shape(*names, library=library))
    assert isinstance(error, NbloaderError)
    assert error.hint
    assert len(str(error)) < 1200


def test_a_model_of_transformers_is_none_of_diffusers() -> None:
    error = refusal(shape("model.safetensors", config=BERT), Kind.DIFFUSERS)
    assert error.hint == "Its files are for transformers: leave out kind=."


def test_a_family_of_transformers_may_bear_the_name_of_a_library() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    from nbloader.selection.formats import _ALSO_OF_TRANSFORMERS

    both = {name for name in CONFIG_MAPPING_NAMES if name.replace("-", "_") in libraries()}
    assert both == set(_ALSO_OF_TRANSFORMERS)


@pytest.mark.parametrize(
    ("config", "library"),
    [
        ({"model_type": "sam2", "architectures": ["Sam2Model"]}, "sam2"),
        ({"model_type": "llama", "architectures": ["LlamaModel"], "quantization": {}}, None),
    ],
)
def test_what_transformers_loads_is_not_refused(
    config: Mapping[str, object], library: str | None
) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refusal(shape("model.safetensors", config=config, library=library))
