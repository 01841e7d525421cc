"""Arguments of the libraries that people bring along: taken over, refused by name, or passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import InvalidArgumentError
from nbloader.records import Kind
from nbloader.request import Call, Request, checked
from nbloader.request.loader_kwargs import _REFUSED, _SAME


def request_of(loader_kwargs: dict[str, Any], **arguments: Any) -> Request:
    return checked(Call(repo_id="org/name", loader_kwargs=loader_kwargs, **arguments))


SET = {
    "attn_implementation": ("attention", "flash", "flash_attention_2"),
    "cache_dir": ("cache_dir", "/models", "/models"),
    "cache_folder": ("cache_dir", "/models", "/models"),
    "device": ("device", 0, "cuda:0"),
    "dtype": ("dtype", "half", "float16"),
    "endpoint": ("endpoint", "http://hub.example/", "http://hub.example"),
    "local_files_only": ("local_files_only", True, True),
    "revision": ("revision", "v1", "v1"),
    "token": ("token", "hf_x", "hf_x"),
    "torch_dtype": ("dtype", "torch.bfloat16", "bfloat16"),
    "use_auth_token": ("token", "hf_x", "hf_x"),
}
SELECTED = {
    "subfolder": ("subfolder", "unet/", "unet"),
    "task": ("task", "fill-mask", "fill-mask"),
    "trust_remote_code": ("trust_remote_code", True, True),
    "variant": ("variant", "fp16", "fp16"),
}


def test_the_tables_of_this_test_are_whole() -> None:
    assert set(SET) | set(SELECTED) == set(_SAME)


@pytest.mark.parametrize("name", sorted(SET))
def test_what_means_the_same_becomes_the_argument(name: str) -> None:
    argument, value, kept = SET[name]
    request = request_of({name: value, "safety_checker": None})
    assert getattr(request, argument) == kept
    assert (request.loader_kwargs, request.selection.handed_in) == (
        {"safety_checker": None},
        ("safety_checker",),
    )
    # Given both ways, they may say the same.
    assert getattr(request_of({name: value}, **{argument: value}), argument) == kept


@pytest.mark.parametrize("name", sorted(SELECTED))
def test_what_means_the_same_is_selected_with(name: str) -> None:
    argument, value, kept = SELECTED[name]
    request = request_of({name: value})
    assert (getattr(request.selection, argument), request.loader_kwargs) == (kept, {})


@pytest.mark.parametrize(
    ("name", "value", "arguments"),
    [
        ("revision", "v1", {"revision": "v2"}),
        ("variant", "fp16", {"variant": "bf16"}),
        ("use_auth_token", "hf_secret", {"token": "hf_other"}),
        ("token", "hf_secret", {"token": False}),
        ("cache_folder", "/a", {"cache_dir": "/b"}),
        ("torch_dtype", "float16", {"dtype": "float32"}),
        ("device", "cpu", {"device": "cuda"}),
        ("device", 1, {"device": 0}),
        ("task", "fill-mask", {"task": "ner"}),
        ("trust_remote_code", False, {"trust_remote_code": True}),
        ("endpoint", "http://a.example", {"endpoint": "http://b.example"}),
    ],
)
def test_what_is_given_twice_must_agree(
    name: str, value: object, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        request_of({name: value}, **arguments)
    (argument,) = arguments
    assert caught.value.message == (
        f"{argument}= and loader_kwargs['{name}'] are given, and they differ"
    )
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", [*_SAME, *_REFUSED, "device_map", "quantization_config", "model"])
def test_none_says_nothing_and_is_left_out(name: str) -> None:
    assert request_of({name: None}).loader_kwargs == ({name: None} if name in _REFUSED else {})


@pytest.mark.parametrize(
    ("loader_kwargs", "message", "hint"),
    [
        ({"subfolder": "../up"}, "subfolder='../up' is not a folder", "sdxl/vae"),
        ({"force_download": True}, "force_download=True", "verify=True"),
        ({"proxies": {"https": "http://u:s3cret@p"}}, "proxies is not supported", "HTTPS_PROXY"),
        ({"mirror": "https://u:s3cret@m"}, "mirror is not supported", "endpoint="),
        ({"from_tf": True}, "from_tf=True", "safetensors"),
        ({"use_onnx": True}, "use_onnx=True", "PyTorch"),
        ({"gguf_file": "../x.gguf"}, "is not a folder of a repository", "Name it from the root"),
        ({"backend": "tensorrt"}, "'tensorrt' is none", "'onnx', 'openvino'"),
        ({"backend": ["onnx"]}, "is none of sentence-transformers", "'onnx'"),
        (
            {"backend": "onnx", "model_kwargs": {"file_name": "../model.onnx"}},
            "['file_name']='../model.onnx'",
            "root of the repository",
        ),
        (
            {"backend": "onnx", "model_kwargs": {"export": "yes"}},
            "export",
            "True",
        ),
        ({"model": "other/name"}, "names another model", "nbloader.load('other/name')"),
        ({"model_name_or_path": "a/b"}, "names another model", "nbloader.load('a/b')"),
        ({"model": object()}, "names another model", "first"),
        (
            {"vae": "other/name"},
            "loader_kwargs['vae'] names another repository: 'other/name'",
            "diffusers.AutoencoderKL.from_pretrained('other/name')",
        ),
        (
            {"tokenizer": "other/name"},
            "loader_kwargs['tokenizer'] names another repository: 'other/name'",
            "{\"tokenizer\": transformers.AutoTokenizer.from_pretrained('other/name')}",
        ),
        ({"use_safetensors": False}, "pickled weights", "Leave it out"),
        ({"verify": True}, "verify is an argument of load", "nbloader.load(..., verify=...)"),
        ({"kind": "diffusers"}, "kind is an argument of load", "nbloader.load(..., kind=...)"),
        ({"revision": "a b"}, "is not the name of a branch", "Leave it out"),
        ({"device": "gpu"}, "device='gpu' is not known", "cuda"),
        (
            {"model_kwargs": {"subfolder": "x"}},
            "loader_kwargs['model_kwargs']['subfolder'] differs from subfolder=",
            "Pass subfolder= to load",
        ),
        (
            {"tokenizer_kwargs": {"revision": "v2"}},
            "loader_kwargs['tokenizer_kwargs']['revision'] differs from revision=",
            "Pass revision= to load",
        ),
        (
            {"tokenizer_kwargs": {"trust_remote_code": True}},
            "differs from trust_remote_code=",
            "Pass trust_remote_code= to load",
        ),
        (
            {"revision": "v1", "model_kwargs": {"revision": "v2"}},
            "revision= and loader_kwargs['model_kwargs']['revision'] are given, and they differ",
            "Leave out",
        ),
    ],
)
def test_what_would_be_for_nothing_is_refused_by_name(
    loader_kwargs: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        request_of(loader_kwargs)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_arguments_for_the_parts_are_looked_through_too() -> None:
    request = request_of(
        {
            "model_kwargs": {
                "revision": "v1",
                "token": "hf_x",
                "cache_dir": None,
                "attn_implementation": "flash_attention_2",
                "output_loading_info": False,
            },
            "tokenizer_kwargs": {"revision": "v1", "token": "hf_x", "padding_side": "left"},
        }
    )
    assert (request.revision, request.token) == ("v1", "hf_x")
    assert request.attention == "flash_attention_2"
    assert request.loader_kwargs == {
        "model_kwargs": {"output_loading_info": False},
        "tokenizer_kwargs": {"padding_side": "left"},
    }


@pytest.mark.parametrize(
    "loader_kwargs",
    [
        {"safety_checker": None, "requires_safety_checker": False},
        {"device_map": "balanced"},
        {"quantization_config": {"load_in_4bit": True}},
        {"dtype": "auto"},
        {"torch_dtype": {"default": "float16", "vae": "float32"}},
        {"model_kwargs": {"dtype": "float16", "device_map": "auto"}},
        {"backend": "torch"},
        {"force_download": False},
    ],
)
def test_what_is_the_librarys_own_is_passed_on(loader_kwargs: dict[str, Any]) -> None:
    assert request_of(loader_kwargs).loader_kwargs == loader_kwargs


@pytest.mark.parametrize(
    ("loader_kwargs", "arguments"),
    [
        ({"attn_implementation": "flash"}, {}),
        ({"model_kwargs": {"attn_implementation": "flash_attention_2"}}, {}),
        ({"attn_implementation": "flash_attention_2"}, {"attention": "flash"}),
        ({"attn_implementation": None}, {"attention": "flash_attention_2"}),
        ({}, {"attention": "flash"}),
    ],
)
def test_attention_is_one_argument_by_any_of_its_names(
    loader_kwargs: dict[str, Any], arguments: dict[str, Any]
) -> None:
    request = request_of(loader_kwargs, **arguments)
    assert request.attention == "flash_attention_2"
    assert not any(request.loader_kwargs.values())


def test_attention_for_the_parts_of_a_model_goes_to_the_library() -> None:
    parts = {"": "sdpa", "vision_config": "eager", "text_config": None}
    given = {"model_kwargs": {"attn_implementation": parts}}
    request = request_of(given)
    assert (request.attention, request.loader_kwargs) == (None, given)
    with pytest.raises(InvalidArgumentError, match="the second is for parts of the model"):
        request_of(given, attention="sdpa")
    with pytest.raises(InvalidArgumentError, match=r"\['AutoModel'\]\['attn_implementation'\]"):
        request_of({"AutoModel": {"attn_implementation": "sdpa"}})
    with pytest.raises(InvalidArgumentError, match="for a part of the model, which is not checked"):
        request_of({"attn_implementation": {"": {"": "sdpa", "text": "flash_attention_2"}}})
    for wrong in ("fast", "kernels-community/flash-attn2"):
        with pytest.raises(InvalidArgumentError, match=f"attention='{wrong}' is"):
            request_of({"model_kwargs": {"attn_implementation": {**parts, "": wrong}}})


def test_a_part_may_be_handed_in_or_be_the_one_that_comes_anyway() -> None:
    part = object()
    request = request_of({"tokenizer": part, "image_processor": "org/name"})
    assert request.loader_kwargs == {"tokenizer": part}


def test_use_safetensors_is_kept_to() -> None:
    for wish in ({"use_safetensors": True}, {"model_kwargs": {"use_safetensors": True}}):
        request = request_of(wish)
        assert request.selection.safetensors_only
        assert not any(request.loader_kwargs.values())
    assert not request_of({"use_safetensors": None}).selection.safetensors_only


def test_a_task_is_for_transformers() -> None:
    assert request_of({}, task="ner", kind="transformers").selection.kind is Kind.TRANSFORMERS
    for kind in ("diffusers", "sentence-transformers"):
        with pytest.raises(InvalidArgumentError, match=f"and kind='{kind}' was asked for"):
            request_of({"task": "ner"}, kind=kind)


def test_the_older_names_of_a_cross_encoder_reach_it_by_the_newer_ones() -> None:
    request = request_of(
        {
            "automodel_args": {"attn_implementation": "eager", "revision": "v1"},
            "config_args": {"hidden_act": "relu"},
            "tokenizer_args": {"model_max_length": 9},
        }
    )
    assert (request.revision, request.attention) == ("v1", "eager")
    assert request.loader_kwargs == {
        "model_kwargs": {},
        "config_kwargs": {"hidden_act": "relu"},
        "tokenizer_kwargs": {"model_max_length": 9},
    }
    with pytest.raises(InvalidArgumentError, match="'automodel_args' and 'model_kwargs'"):
        request_of({"automodel_args": {}, "model_kwargs": {}})


OWN = st.sampled_from([*_SAME, *_REFUSED, "use_safetensors", "model"])
VALUES = st.none() | st.booleans() | st.integers(-2, 3) | st.text(max_size=5)


@given(st.dictionaries(OWN, VALUES, max_size=3))
def test_nothing_of_ours_reaches_the_library_with_a_meaning(loader_kwargs: dict[str, Any]) -> None:
    try:
        left = request_of(loader_kwargs).loader_kwargs
    except InvalidArgumentError:
        return
    dtypes = {name: left[name] for name in ("dtype", "torch_dtype") if name in left}
    assert not any(value for name, value in left.items() if name not in dtypes)


def test_a_gguf_of_a_repository_is_the_file_that_is_loaded() -> None:
    request = checked(Call("org/name", loader_kwargs={"gguf_file": "a/x.gguf", "n": 1}))
    assert request.selection.checkpoint == "a/x.gguf"
    assert request.loader_kwargs == {"n": 1}


def test_the_configuration_of_a_checkpoint_is_a_repository() -> None:
    request = checked(Call("org/name/x.safetensors", loader_kwargs={"config": "org/base"}))
    assert (request.selection.checkpoint, request.selection.config) == ("x.safetensors", "org/base")
    assert request.loader_kwargs == {}


@pytest.mark.parametrize(
    "given", [{"variant": "fp16"}, {"subfolder": "a"}, {"task": "x"}, {"kind": "diffusers"}]
)
def test_what_is_for_a_whole_repository_is_refused_beside_a_file(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(InvalidArgumentError, match=f"{name}= is for a whole repository"):
        checked(Call("org/name/x.safetensors", **given))


def test_the_configuration_of_a_checkpoints_authors_has_to_be_there(tmp_path: Path) -> None:
    place = "org/name/x.safetensors"
    with pytest.raises(InvalidArgumentError, match="there is no such file"):
        checked(Call(place, loader_kwargs={"original_config": str(tmp_path / "x.yaml")}))
    (tmp_path / "x.yaml").write_text("model: {}")
    for place_of in (str(tmp_path / "x.yaml"), "https://example.org/x.yaml"):
        passed_on = checked(Call(place, loader_kwargs={"original_config": place_of})).loader_kwargs
        assert passed_on["original_config"] == place_of
